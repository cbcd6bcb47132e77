//! How a case gets its store, and how it says what it writes and asks.

use std::{future::Future, sync::Arc, time::Duration};

use async_trait::async_trait;
use redoubt::store::{Document, Expected, Family, Put, SearchRequest, SearchResponse, Store};
use serde_json::{Map, Value};

/// How a case gets its store.
#[async_trait]
pub(super) trait Harness: Sized + Send {
    /// Why this store cannot be tested here, if so.
    fn absent() -> Option<String> {
        None
    }

    /// A store with nothing in it.
    async fn fresh() -> Self;

    /// The store of now.
    fn store(&self) -> Arc<dyn Store>;

    /// Ends the store as a crash would, without a word to it, and starts another one on what is durable.
    async fn crash_and_reopen(&mut self);
}

/// Tests that would hang fail after this time.
pub(super) const DEADLINE: Duration = Duration::from_secs(120);
/// 2026-11-24, 10:00 UTC, in milliseconds since 1970.
pub(super) const TEN: i64 = 1_795_514_400_000;
/// A minute in milliseconds.
pub(super) const MINUTE: i64 = 60_000;
/// A day in milliseconds.
pub(super) const DAY: i64 = 86_400_000;

/// The time in RFC 3339.
pub(super) fn rfc3339(millis: i64) -> String {
    jiff::Timestamp::from_millisecond(millis).unwrap().to_string()
}

pub(super) fn object(value: Value) -> Map<String, Value> {
    match value {
        Value::Object(object) => object,
        other => panic!("not an object: {other}"),
    }
}

/// An event that happened and was received at a time.
pub(super) fn event(id: &str, millis: i64, body: Value) -> Document {
    let mut body = object(body);
    body.insert("@timestamp".to_owned(), Value::String(rfc3339(millis)));
    Document { family: Family::Events, id: id.to_owned(), received_millis: millis, may_repeat: false, body }
}

/// The same event, as one that may have been written before.
pub(super) fn repeated(id: &str, millis: i64, body: Value) -> Document {
    Document { may_repeat: true, ..event(id, millis, body) }
}

/// A write of an alert.
pub(super) fn alert(id: &str, expected: Expected, body: Value) -> Put {
    let Document { id, received_millis, body, .. } = event(id, TEN, body);
    Put { family: Family::Alerts, id, expected, received_millis, body }
}

/// Writes events, each of which must be taken, and makes them searchable.
pub(super) async fn write(store: &Arc<dyn Store>, documents: Vec<Document>) {
    let count = documents.len();
    let results = store.bulk(documents).await.unwrap();
    assert_eq!(results, vec![Ok(()); count]);
    store.refresh().await.unwrap();
}

/// A request for a query.
pub(super) fn query(text: &str) -> SearchRequest {
    SearchRequest { query: text.to_owned(), size: 100, ..SearchRequest::default() }
}

/// A request for all.
pub(super) fn all() -> SearchRequest {
    query("")
}

pub(super) async fn search(store: &Arc<dyn Store>, request: SearchRequest) -> SearchResponse {
    within("search", store.search(Family::Events, request)).await.unwrap()
}

/// The ids found, in order.
pub(super) fn ids(response: &SearchResponse) -> Vec<&str> {
    response.hits.iter().map(|hit| hit.id.as_str()).collect()
}

/// Fails a test that would hang.
pub(super) async fn within<T>(what: &str, future: impl Future<Output = T>) -> T {
    tokio::time::timeout(DEADLINE, future).await.unwrap_or_else(|_| panic!("no end of: {what}"))
}
