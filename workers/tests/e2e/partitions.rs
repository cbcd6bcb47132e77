//! Another number of partitions, in the middle of what a threshold counts: no alert is lost, and none comes twice.

use std::collections::BTreeMap;

use redoubt::store::{Family, SearchRequest, Store};
use serde_json::json;

use crate::{
    external::{elasticsearch_beside_rabbitmq, reader, siem_on},
    harness::{JSON_SOURCE, Siem},
    servers::{elasticsearch, rabbitmq},
};

const USERS: usize = 40;
/// What a user has to fail for an alert.
const COUNT: usize = 6;

const RULE: &str = "
apiVersion: redoubt.dev/v1alpha1
kind: AlertRule
metadata: {name: guessing}
spec:
  threshold:
    match: {when: exists(.details.user)}
    groupBy: [details.user]
    count: 6
    window: 1m
  suppress: {for: 1h}
";

/// Each user fails once.
async fn fail_once(siem: &Siem, round: usize) {
    let failure =
        |user: usize| json!({"event": {"id": format!("{round}-{user}")}, "@timestamp": "2026-03-02T10:30:00Z", "user": format!("u{user}")});
    let body: String = (0..USERS).map(|user| failure(user).to_string() + "\n").collect();
    assert_eq!(siem.post(&reqwest::Client::new(), "app", body).await, 202);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn alerts_are_the_same_when_partitions_are_added_and_taken_away() {
    let Some(server) = elasticsearch_beside_rabbitmq() else { return };
    let prefix = elasticsearch::unique_prefix();
    let external = siem_on(&prefix, &[&rabbitmq::shared().url("a")], server);
    let mut siem = Siem::new(&[("source.yaml", JSON_SOURCE), ("rule.yaml", RULE)]);
    siem.write_rabbitmq_login();

    // Each time the last events are still on their way when all stops.
    for (round, partitions) in [2, 7, 7, 3, 1, 5].into_iter().enumerate() {
        siem.write("siem.yaml", &format!("{external}  correlate: {{partitions: {partitions}}}\n"));
        siem.start_ready().await;
        fail_once(&siem, round).await;
        if round + 1 < COUNT {
            siem.stop();
        }
    }

    let store = reader(&prefix, server).await;
    let alerts = async || {
        store.refresh().await.unwrap();
        store.search(Family::Alerts, SearchRequest { size: 1_000, ..SearchRequest::default() }).await.unwrap()
    };
    siem.until("there is an alert for each user", async || alerts().await.total >= USERS as u64).await;
    siem.until_empty(8080, "matches").await;
    siem.stop();
    let mut by_user: BTreeMap<String, usize> = BTreeMap::new();
    for hit in alerts().await.hits {
        *by_user.entry(hit.body["group"]["details.user"].to_string()).or_default() += 1;
    }
    assert_eq!((by_user.len(), by_user.values().max()), (USERS, Some(&1)), "{by_user:?}");
}
