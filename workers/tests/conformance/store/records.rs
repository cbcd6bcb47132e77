//! Records: written under a condition, read at once, searched after a refresh.

use redoubt::store::{Expected, Family, Put, PutOutcome, Record, SearchRequest, StoreError};
use serde_json::json;

use super::fixture::{DAY, Harness, TEN, alert, all, ids, object, query};

/// The version written; fails on a conflict.
fn written(outcome: &PutOutcome) -> u64 {
    match outcome {
        PutOutcome::Written(version) => *version,
        PutOutcome::Conflict(there) => panic!("in conflict with {there:?}"),
    }
}

async fn put<H: Harness>(harness: &H, put: Put) -> PutOutcome {
    harness.store().put(vec![put]).await.unwrap().remove(0)
}

async fn get<H: Harness>(harness: &H, id: &str) -> Option<Record> {
    harness.store().get(Family::Alerts, id).await.unwrap()
}

pub(super) async fn a_put_holds_to_what_it_expects<H: Harness>() {
    let harness = H::fresh().await;
    let first = alert("a", Expected::Absent, json!({"n": 1}));

    // Nothing is there.
    assert_eq!(get(&harness, "a").await, None);
    assert_eq!(put(&harness, alert("a", Expected::Version(1), json!({}))).await, PutOutcome::Conflict(None));
    let version = written(&put(&harness, first.clone()).await);

    // One is there, and is readable at once.
    let record = Record { version, body: first.body.clone() };
    assert_eq!(get(&harness, "a").await, Some(record.clone()));
    assert_eq!(put(&harness, first).await, PutOutcome::Conflict(Some(record.clone())));
    assert_eq!(put(&harness, alert("a", Expected::Version(version + 1), json!({}))).await, PutOutcome::Conflict(Some(record)));

    // The right version replaces it, and the version rises.
    let second = alert("a", Expected::Version(version), json!({"n": 2}));
    let next = written(&put(&harness, second.clone()).await);
    assert!(next > version, "{next} after {version}");
    assert_eq!(get(&harness, "a").await, Some(Record { version: next, body: second.body }));
    assert!(matches!(put(&harness, alert("a", Expected::Version(version), json!({}))).await, PutOutcome::Conflict(Some(_))));

    // Other ids and families are apart.
    assert_eq!(get(&harness, "b").await, None);
    assert_eq!(harness.store().get(Family::Responses, "a").await.unwrap(), None);
}

pub(super) async fn a_batch_sees_its_own_writes<H: Harness>() {
    let harness = H::fresh().await;

    let outcomes = harness
        .store()
        .put(vec![
            alert("a", Expected::Absent, json!({"n": 1})),
            alert("a", Expected::Absent, json!({"n": 2})),
            alert("b", Expected::Absent, json!({"n": 3})),
            alert("c", Expected::Version(7), json!({"n": 4})),
        ])
        .await
        .unwrap();

    let version = written(&outcomes[0]);
    assert!(matches!(&outcomes[1], PutOutcome::Conflict(Some(there)) if there.version == version && there.body["n"] == 1), "{outcomes:?}");
    written(&outcomes[2]);
    assert_eq!(outcomes[3], PutOutcome::Conflict(None));
    assert!(harness.store().put(Vec::new()).await.unwrap().is_empty());
}

pub(super) async fn an_id_that_was_deleted_is_absent<H: Harness>() {
    let harness = H::fresh().await;
    let version = written(&put(&harness, alert("a", Expected::Absent, json!({"n": 1}))).await);
    harness.store().delete_older_than(Family::Alerts, TEN + DAY).await.unwrap();

    // One who still holds the old version must not take the new record for it.
    assert_eq!(put(&harness, alert("a", Expected::Version(version), json!({}))).await, PutOutcome::Conflict(None));
    let again = written(&put(&harness, alert("a", Expected::Absent, json!({"n": 2}))).await);

    assert_ne!(again, version);
}

pub(super) async fn what_was_put_survives_a_crash<H: Harness>() {
    let mut harness = H::fresh().await;
    let version = written(&put(&harness, alert("a", Expected::Absent, json!({"n": 1}))).await);

    harness.crash_and_reopen().await;

    assert_eq!(get(&harness, "a").await.unwrap().version, version);
    harness.store().refresh().await.unwrap();
    assert_eq!(harness.store().search(Family::Alerts, query("n:1")).await.unwrap().total, 1);
    let next = written(&put(&harness, alert("a", Expected::Version(version), json!({"n": 2}))).await);
    assert!(next > version);
}

pub(super) async fn records_are_searched_as_last_written<H: Harness>() {
    let harness = H::fresh().await;
    let version = written(&put(&harness, alert("a", Expected::Absent, json!({"state": "open", "message": "brute force"}))).await);
    put(&harness, alert("b", Expected::Absent, json!({"state": "open"}))).await;
    harness.store().refresh().await.unwrap();
    assert_eq!(harness.store().search(Family::Alerts, query("state:open")).await.unwrap().total, 2);

    put(&harness, alert("a", Expected::Version(version), json!({"state": "closed", "message": "brute force"}))).await;
    harness.store().refresh().await.unwrap();

    let aggregations = object(json!({"states": {"terms": {"field": "state"}}}));
    let found = harness.store().search(Family::Alerts, SearchRequest { aggregations, ..all() }).await.unwrap();
    assert_eq!(ids(&found), ["b", "a"]);
    assert_eq!(found.hits[1].body["state"], "closed");
    assert_eq!(found.aggregations["states"]["buckets"], json!([{"key": "closed", "doc_count": 1}, {"key": "open", "doc_count": 1}]));
    for (text, expected) in [("state:open", vec!["b"]), ("message:\"brute force\" AND state:closed", vec!["a"]), ("state:new", vec![])] {
        assert_eq!(ids(&harness.store().search(Family::Alerts, query(text)).await.unwrap()), expected, "{text}");
    }
}

pub(super) async fn of_two_writers_on_one_version_exactly_one_wins<H: Harness>() {
    let harness = H::fresh().await;
    let mut version = written(&put(&harness, alert("a", Expected::Absent, json!({"by": 0}))).await);

    for _ in 0..20 {
        let mut writers = Vec::new();
        for writer in 1..=4 {
            let store = harness.store();
            let attempt = alert("a", Expected::Version(version), json!({"by": writer}));
            writers.push(tokio::spawn(async move { (writer, store.put(vec![attempt]).await.unwrap().remove(0)) }));
        }
        let mut winners = Vec::new();
        for writer in writers {
            if let (writer, PutOutcome::Written(version)) = writer.await.unwrap() {
                winners.push((writer, version));
            }
        }

        let [(winner, next)] = winners[..] else { panic!("not exactly one: {winners:?}") };
        let record = get(&harness, "a").await.unwrap();
        assert_eq!((record.version, &record.body["by"]), (next, &json!(winner)));
        version = next;
    }
}

pub(super) async fn time_series_are_no_records<H: Harness>() {
    let harness = H::fresh().await;
    let store = harness.store();

    let refused = store.put(vec![Put { family: Family::Events, ..alert("a", Expected::Absent, json!({})) }]).await;
    assert!(matches!(refused, Err(StoreError::BadRequest(_))), "{refused:?}");
    let refused = store.get(Family::Events, "a").await;
    assert!(matches!(refused, Err(StoreError::BadRequest(_))), "{refused:?}");
}

pub(super) async fn records_past_their_time_are_deleted<H: Harness>() {
    let mut harness = H::fresh().await;
    for (id, days) in [("old", 0), ("older", -3), ("new", 2)] {
        put(&harness, Put { received_millis: TEN + days * DAY, ..alert(id, Expected::Absent, json!({})) }).await;
    }
    harness.store().refresh().await.unwrap();

    let deleted = harness.store().delete_older_than(Family::Alerts, TEN + DAY).await.unwrap();

    assert_eq!(deleted, 2);
    assert_eq!(get(&harness, "old").await, None);
    assert!(get(&harness, "new").await.is_some());
    harness.store().refresh().await.unwrap();
    assert_eq!(ids(&harness.store().search(Family::Alerts, all()).await.unwrap()), ["new"]);
    harness.crash_and_reopen().await;
    harness.store().refresh().await.unwrap();
    assert_eq!(ids(&harness.store().search(Family::Alerts, all()).await.unwrap()), ["new"]);
    assert_eq!(harness.store().delete_older_than(Family::Alerts, TEN + DAY).await.unwrap(), 0);
}
