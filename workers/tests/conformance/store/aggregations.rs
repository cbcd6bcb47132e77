//! Aggregations: the very JSON that Elasticsearch would answer.

use redoubt::store::{Document, Family, SearchRequest, StoreError};
use serde_json::{Value, json};

use super::fixture::{DAY, Harness, MINUTE, TEN, all, event, object, query, search, write};

/// Six events over two days.
fn events() -> Vec<Document> {
    let of = |id: &str, millis, user: &str, severity: i64| {
        event(
            id,
            millis,
            json!({"user": {"name": user}, "event": {"severity": severity, "created": "2026-11-24T09:00:00Z"}, "process": {"pid": severity * 10}, "details": {"ok": severity > 2}}),
        )
    };
    vec![
        of("1", TEN, "bob", 1),
        of("2", TEN + MINUTE, "bob", 2),
        of("3", TEN + 90 * MINUTE, "alice", 3),
        of("4", TEN + DAY, "bob", 3),
        of("5", TEN + DAY, "carol", 5),
        event("6", TEN + DAY, json!({"event": {"severity": 2.5}})),
    ]
}

fn asking(aggregations: Value) -> SearchRequest {
    SearchRequest { size: 0, aggregations: object(aggregations), ..all() }
}

pub(super) async fn results_are_elasticsearchs_json<H: Harness>() {
    let harness = H::fresh().await;
    let store = harness.store();
    write(&store, events()).await;

    let cases = [
        (
            "terms, by count and then by value",
            json!({"a": {"terms": {"field": "user.name"}}}),
            json!({"a": {"doc_count_error_upper_bound": 0, "sum_other_doc_count": 0, "buckets": [
                {"key": "bob", "doc_count": 3}, {"key": "alice", "doc_count": 1}, {"key": "carol", "doc_count": 1}]}}),
        ),
        (
            "terms, some",
            json!({"a": {"terms": {"field": "user.name", "size": 1}}}),
            json!({"a": {"doc_count_error_upper_bound": 0, "sum_other_doc_count": 2, "buckets": [{"key": "bob", "doc_count": 3}]}}),
        ),
        (
            "terms, ordered by value",
            json!({"a": {"terms": {"field": "user.name", "order": {"_key": "desc"}}}}),
            json!({"a": {"doc_count_error_upper_bound": 0, "sum_other_doc_count": 0, "buckets": [
                {"key": "carol", "doc_count": 1}, {"key": "bob", "doc_count": 3}, {"key": "alice", "doc_count": 1}]}}),
        ),
        ("cardinality", json!({"a": {"cardinality": {"field": "user.name"}}}), json!({"a": {"value": 3}})),
        (
            "stats",
            json!({"a": {"stats": {"field": "event.severity"}}}),
            json!({"a": {"count": 6, "min": 1.0, "max": 5.0, "avg": 2.75, "sum": 16.5}}),
        ),
        (
            "date histogram, with the empty buckets between",
            json!({"a": {"date_histogram": {"field": "@timestamp", "fixed_interval": "12h"}}}),
            json!({"a": {"buckets": [
                {"key_as_string": "2026-11-24T00:00:00.000Z", "key": 1_795_478_400_000_i64, "doc_count": 3},
                {"key_as_string": "2026-11-24T12:00:00.000Z", "key": 1_795_521_600_000_i64, "doc_count": 0},
                {"key_as_string": "2026-11-25T00:00:00.000Z", "key": 1_795_564_800_000_i64, "doc_count": 3}]}}),
        ),
        (
            "aggregations within aggregations, several side by side",
            json!({
                "users": {"terms": {"field": "user.name", "size": 2}, "aggs": {"severity": {"stats": {"field": "event.severity"}}}},
                "days": {"date_histogram": {"field": "@timestamp", "fixed_interval": "1d"}, "aggs": {"users": {"cardinality": {"field": "user.name"}}}},
            }),
            json!({
                "users": {"doc_count_error_upper_bound": 0, "sum_other_doc_count": 1, "buckets": [
                    {"key": "bob", "doc_count": 3, "severity": {"count": 3, "min": 1.0, "max": 3.0, "avg": 2.0, "sum": 6.0}},
                    {"key": "alice", "doc_count": 1, "severity": {"count": 1, "min": 3.0, "max": 3.0, "avg": 3.0, "sum": 3.0}}]},
                "days": {"buckets": [
                    {"key_as_string": "2026-11-24T00:00:00.000Z", "key": 1_795_478_400_000_i64, "doc_count": 3, "users": {"value": 2}},
                    {"key_as_string": "2026-11-25T00:00:00.000Z", "key": 1_795_564_800_000_i64, "doc_count": 3, "users": {"value": 2}}]},
            }),
        ),
        (
            "terms of numbers",
            json!({"a": {"terms": {"field": "process.pid", "size": 2, "order": {"_key": "desc"}}}}),
            json!({"a": {"doc_count_error_upper_bound": 0, "sum_other_doc_count": 2, "buckets": [
                {"key": 50, "doc_count": 1}, {"key": 30, "doc_count": 2}]}}),
        ),
        (
            "terms of fractions",
            json!({"a": {"terms": {"field": "event.severity", "size": 2}}}),
            json!({"a": {"doc_count_error_upper_bound": 0, "sum_other_doc_count": 3, "buckets": [
                {"key": 3.0, "doc_count": 2}, {"key": 1.0, "doc_count": 1}]}}),
        ),
        (
            "terms of times",
            json!({"a": {"terms": {"field": "event.created"}}}),
            json!({"a": {"doc_count_error_upper_bound": 0, "sum_other_doc_count": 0, "buckets": [
                {"key": 1_795_510_800_000_i64, "key_as_string": "2026-11-24T09:00:00.000Z", "doc_count": 5}]}}),
        ),
    ];
    for (what, aggregations, expected) in cases {
        let found = search(&store, asking(aggregations)).await;

        assert_eq!(found.total, 6);
        assert_eq!(same_numbers(Value::Object(found.aggregations)), same_numbers(expected), "{what}");
    }
}

/// Numbers as floats: JSON does not tell 5 from 5.0, and neither does Elasticsearch always.
fn same_numbers(value: Value) -> Value {
    match value {
        Value::Number(number) => json!(number.as_f64().unwrap()),
        Value::Array(values) => values.into_iter().map(same_numbers).collect(),
        Value::Object(members) => members.into_iter().map(|(key, value)| (key, same_numbers(value))).collect(),
        other => other,
    }
}

pub(super) async fn results_span_days_and_respect_the_query<H: Harness>() {
    let harness = H::fresh().await;
    let store = harness.store();
    write(&store, events()).await;
    let aggregations = object(json!({"users": {"terms": {"field": "user.name"}}}));

    let found =
        search(&store, SearchRequest { aggregations, size: 1, from_millis: Some(TEN + MINUTE), ..query("event.severity:>=2") }).await;

    assert_eq!(found.total, 5);
    assert_eq!(found.hits.len(), 1);
    assert_eq!(
        found.aggregations["users"]["buckets"],
        json!([{"key": "bob", "doc_count": 2}, {"key": "alice", "doc_count": 1}, {"key": "carol", "doc_count": 1}])
    );
}

pub(super) async fn nothing_found_is_empty_and_not_an_error<H: Harness>() {
    let harness = H::fresh().await;
    let store = harness.store();
    let aggregations = json!({
        "terms": {"terms": {"field": "user.name"}},
        "cardinality": {"cardinality": {"field": "user.name"}},
        "days": {"date_histogram": {"field": "@timestamp", "fixed_interval": "1d"}},
        "stats": {"stats": {"field": "event.severity"}},
    });
    let empty = json!({
        "terms": {"doc_count_error_upper_bound": 0, "sum_other_doc_count": 0, "buckets": []},
        "cardinality": {"value": 0},
        "days": {"buckets": []},
        "stats": {"count": 0, "min": null, "max": null, "avg": null, "sum": 0.0},
    });

    let before = search(&store, asking(aggregations.clone())).await;
    write(&store, events()).await;
    let after = search(&store, SearchRequest { query: "user.name:nobody".to_owned(), ..asking(aggregations) }).await;

    assert_eq!(same_numbers(Value::Object(before.aggregations)), same_numbers(empty.clone()));
    assert_eq!(same_numbers(Value::Object(after.aggregations)), same_numbers(empty));
}

pub(super) async fn what_is_not_known_is_refused<H: Harness>() {
    let harness = H::fresh().await;
    let store = harness.store();
    write(&store, events()).await;

    for aggregations in [
        json!({"a": {"terms": {}}}),
        json!({"a": {"no_such_kind": {"field": "x"}}}),
        json!({"a": 5}),
        json!({"a": {}}),
        json!({"a": {"date_histogram": {"field": "@timestamp", "fixed_interval": "soon"}}}),
    ] {
        let refused = store.search(Family::Events, asking(aggregations.clone())).await;

        assert!(matches!(&refused, Err(StoreError::BadRequest(reason)) if !reason.is_empty()), "{aggregations}: {refused:?}");
    }
}
