//! kill -9 at random moments, while a careful client posts events with known ids.

use std::{
    collections::BTreeSet,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use redoubt::store::{Family, SearchRequest};
use serde_json::{Map, json};

use crate::{
    harness::{JSON_SOURCE, Siem},
    known,
};

const EVENTS: usize = 100_000;
const BATCH: usize = 500;
const KILLS: usize = 20;

/// The events of one request, the same each time.
fn batch(number: usize) -> String {
    (number * BATCH..(number + 1) * BATCH).map(|n| known::event(n, EVENTS).to_string() + "\n").collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn events_and_alerts_are_there_exactly_once_after_twenty_kills() {
    let source = format!("{JSON_SOURCE}  logsource: {{product: test}}\n");
    let mut siem = Siem::new(&[("source.yaml", &source), ("rules.yaml", known::RULES)]);
    siem.start_ready().await;
    let posted = Arc::new(AtomicUsize::new(0));
    let failed = Arc::new(AtomicBool::new(false));
    let url = siem.url("/v1/sources/app");
    let client = {
        let (posted, failed) = (Arc::clone(&posted), Arc::clone(&failed));
        tokio::spawn(async move {
            let client = reqwest::Client::new();
            for number in 0..EVENTS / BATCH {
                let body = batch(number);
                loop {
                    let sent =
                        client.post(&url).bearer_auth(crate::harness::TOKEN).body(body.clone()).timeout(Duration::from_secs(10)).send();
                    match sent.await {
                        Ok(answer) if answer.status() == 202 => break,
                        Ok(answer) if answer.status().is_client_error() && answer.status() != 429 => {
                            failed.store(true, Ordering::Relaxed);
                            return;
                        }
                        _ => tokio::time::sleep(Duration::from_millis(10)).await,
                    }
                }
                posted.fetch_add(1, Ordering::Relaxed);
            }
        })
    };

    // The moments differ from run to run, and cover reception, processing and the time right after a start.
    for kill in 0..KILLS {
        let due = (kill + 1) * (EVENTS / BATCH) / (KILLS + 1);
        siem.until("the client gets on", async || posted.load(Ordering::Relaxed) >= due || failed.load(Ordering::Relaxed)).await;
        tokio::time::sleep(Duration::from_micros(u64::from(std::process::id()) * 7919 * (kill as u64 + 1) % 200_000)).await;
        siem.kill();
        siem.start();
    }
    client.await.unwrap();
    assert!(!failed.load(Ordering::Relaxed), "an event was refused; the log:\n{}", siem.log());

    siem.until("every event is in the store", async || siem.count(Family::Events, "").await >= EVENTS as u64).await;
    let due = known::all_alerts(EVENTS) as u64;
    siem.until("every alert is in the store", async || siem.count(Family::Alerts, "").await >= due).await;
    for topics in ["events", "matches", "alerts"] {
        siem.until_empty(8080, topics).await;
    }
    siem.stop();

    let mut aggregations = Map::new();
    aggregations.insert("ids".to_owned(), json!({"cardinality": {"field": "event.id"}}));
    let events = siem.search(Family::Events, SearchRequest { aggregations, ..SearchRequest::default() }).await;
    assert_eq!(events.total, EVENTS as u64);
    assert_eq!(all_ids(&siem).await.len(), EVENTS);
    assert_eq!(siem.count(Family::DeadLetters, "").await, 0);
    for (rule, alerts) in known::alerts(EVENTS) {
        assert_eq!(siem.count(Family::Alerts, &format!("rule.name:{rule}")).await, alerts as u64, "{rule}");
    }
    assert_eq!(siem.count(Family::Alerts, "").await, due);
}

/// The known ids that are in the store, read page by page.
async fn all_ids(siem: &Siem) -> BTreeSet<String> {
    let mut ids = BTreeSet::new();
    let mut request = SearchRequest { size: 10_000, ascending: true, ..SearchRequest::default() };
    loop {
        let page = siem.search(Family::Events, request.clone()).await;
        let Some(last) = page.hits.last() else { return ids };
        request.after = Some(last.sort.clone());
        ids.extend(page.hits.iter().map(|hit| hit.body["event"]["id"].as_str().unwrap().to_owned()));
    }
}
