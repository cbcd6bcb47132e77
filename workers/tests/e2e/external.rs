//! The same SIEM on a RabbitMQ and an Elasticsearch: in one process, and then with each role in a process of its own.

use std::{
    collections::BTreeSet,
    time::{SystemTime, UNIX_EPOCH},
};

use redoubt::{
    secrets::Secrets,
    store::{Family, SearchRequest, Store, elasticsearch},
};
use redoubt_crds::ExternalStore;
use serde_json::json;

use crate::{
    attack::{EVENTS, names_and_ids, play, quickstart},
    harness::Siem,
    servers::{elasticsearch as search_server, rabbitmq},
};

/// The address of the Elasticsearch that all tests share, where there is a RabbitMQ too; else says what is missing, and the test is
/// passed over, or fails where servers are required.
pub fn elasticsearch_beside_rabbitmq() -> Option<&'static str> {
    match search_server::shared() {
        Ok(server) => rabbitmq::available().then(|| server.url()),
        Err(why) => {
            eprintln!("skipped: no Elasticsearch: {why}");
            None
        }
    }
}

/// A Siem resource with nodes of a RabbitMQ, and an Elasticsearch.
pub fn siem_on(prefix: &str, rabbitmq: &[&str], elasticsearch: &str) -> String {
    let rabbitmq = json!(rabbitmq);
    format!(
        "
apiVersion: redoubt.dev/v1alpha1
kind: Siem
metadata: {{name: soc}}
spec:
  broker: {{external: {{urls: {rabbitmq}, credentialsSecretRef: {{name: rabbitmq}}, prefix: {prefix}}}}}
  store: {{external: {{urls: ['{elasticsearch}'], prefix: {prefix}, replicas: 0}}}}
"
    )
}

/// That Elasticsearch's store, to look into.
pub async fn reader(prefix: &str, elasticsearch: &str) -> elasticsearch::ElasticsearchStore {
    let spec: ExternalStore = serde_json::from_value(json!({"urls": [elasticsearch], "prefix": prefix, "replicas": 0})).unwrap();
    elasticsearch::ElasticsearchStore::open_to_read(&spec, Secrets::new("none"), &elasticsearch::Options::default()).await.unwrap()
}

async fn found(store: &impl Store, family: Family) -> redoubt::store::SearchResponse {
    store.refresh().await.unwrap();
    store.search(family, SearchRequest { size: 100, ..SearchRequest::default() }).await.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_attack_raises_the_same_alerts_on_servers_as_in_a_folder_also_from_roles_of_their_own() {
    let Some(elasticsearch) = elasticsearch_beside_rabbitmq() else { return };
    let mut in_folder = quickstart();
    in_folder.start_ready().await;
    play(&in_folder);
    in_folder.until("all alerts are in the store", async || in_folder.count(Family::Alerts, "").await == 4).await;
    let found_in_folder = in_folder.search(Family::Alerts, SearchRequest { size: 100, ..SearchRequest::default() }).await;
    let expected: BTreeSet<_> = names_and_ids(&found_in_folder).into_iter().collect();
    in_folder.stop();

    let prefix = format!("e2e-{}", SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_nanos());
    let mut siem: Siem = quickstart();
    siem.write("siem.yaml", &siem_on(&prefix, &[&rabbitmq::shared().url("a")], elasticsearch));
    siem.write_rabbitmq_login();
    siem.start_ready().await;
    play(&siem);

    let store = reader(&prefix, elasticsearch).await;
    siem.until("all alerts are in Elasticsearch", async || found(&store, Family::Alerts).await.total == 4).await;
    siem.until("all events are in Elasticsearch", async || found(&store, Family::Events).await.total == EVENTS).await;
    assert_eq!(names_and_ids(&found(&store, Family::Alerts).await).into_iter().collect::<BTreeSet<_>>(), expected);
    siem.stop();

    for (role, port) in [("process", 8081), ("correlate", 8082), ("respond", 8083)] {
        siem.start_role(role, Some(port));
        siem.until_ready(port).await;
    }
    siem.start_role("ingest", None);
    siem.until_ready(8080).await;
    play(&siem);

    siem.until("the repetition is indexed", async || {
        siem.metric_at(8081, "redoubt_events_processed_total", "indexed").await >= EVENTS as f64
    })
    .await;
    siem.until_empty(8082, "matches").await;
    assert_eq!(names_and_ids(&found(&store, Family::Alerts).await).into_iter().collect::<BTreeSet<_>>(), expected);
    siem.stop();
}
