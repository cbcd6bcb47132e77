//! Where events and alerts are kept and found: the second of the two seams.
//!
//! Documents come in two kinds. *Time series* (events, matches, dead letters) are written once, in bulk, and found by search; the
//! bulk's return means durable. The first copy of an id stands and a repeat changes nothing, so whoever may send cannot overwrite what is
//! stored. *Records* (alerts, response runs) are written one by one under a version, so that two writers cannot
//! overwrite each other, and are found by id at once and by search within the refresh time.
//!
//! Queries and aggregations are Elasticsearch's JSON where they are JSON, and its query-string syntax where they are text.
//! [`embedded`] keeps all in a folder, [`elasticsearch`] in a cluster that others run. Every implementation passes the suite in `tests/conformance/store`.

pub mod elasticsearch;
pub mod embedded;
mod syntax;
#[cfg(test)]
mod syntax_tests;

use std::{any::Any, fmt};

use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// What a document is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Family {
    /// Events. Time series.
    Events,
    /// What rules found in events; alerts are rebuilt from them after a crash. Time series.
    Matches,
    /// Events that could not be taken, with the reason. Time series.
    DeadLetters,
    /// Alerts. Records.
    Alerts,
    /// What was done about alerts. Records.
    Responses,
}

impl Family {
    /// All families.
    pub const ALL: [Self; 5] = [Self::Events, Self::Matches, Self::DeadLetters, Self::Alerts, Self::Responses];

    /// The name in URLs, file names and metrics.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Events => "events",
            Self::Matches => "matches",
            Self::DeadLetters => "dead-letters",
            Self::Alerts => "alerts",
            Self::Responses => "responses",
        }
    }

    /// Whether it is a time series; else its documents are records.
    #[must_use]
    pub const fn is_series(self) -> bool {
        matches!(self, Self::Events | Self::Matches | Self::DeadLetters)
    }
}

impl fmt::Display for Family {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A document of a time series on its way in.
#[derive(Debug, Clone, PartialEq)]
pub struct Document {
    /// Which family: a time series.
    pub family: Family,
    /// Id. The first document of an id stands: another one in the same bulk, or one that [may repeat](Self::may_repeat) and was received on
    /// the same day (UTC) or the day before or after, is answered as written and changes nothing.
    pub id: String,
    /// When the event was received, milliseconds since 1970: decides the index and the age.
    pub received_millis: i64,
    /// Whether the same id may have been written before (a redelivery, another attempt after a [`StoreError`], or an id that the
    /// client chose): it is looked for, and written only where it is not found. Where not, the look is spared.
    pub may_repeat: bool,
    /// The document; holds `@timestamp`.
    pub body: Map<String, Value>,
}

/// A document in the form in which a store writes it: what its [`Store::pack`] made, and only its [`Store::write`] understands.
pub struct Packed(Box<dyn Any + Send>);

impl Packed {
    /// Of whatever form a store gives it.
    #[must_use]
    pub fn new<T: Send + 'static>(form: T) -> Self {
        Self(Box::new(form))
    }

    /// The form, by the store that gave it.
    ///
    /// # Errors
    ///
    /// If another store did.
    pub fn unpack<T: 'static>(self) -> Result<T, StoreError> {
        let other = |_| StoreError::BadRequest("a document that another store has packed; let the one that writes it pack it".to_owned());
        self.0.downcast().map(|form| *form).map_err(other)
    }
}

/// What became of one document of a bulk.
pub type ItemResult = Result<(), Rejection>;

/// Why one document was refused for good; the others of the bulk stand.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{reason}")]
pub struct Rejection {
    /// The store's own reason.
    pub reason: String,
}

/// The store as a whole failed; nothing is known of the documents, so send them again, as ones that [may repeat](Document::may_repeat): some
/// may be durable.
#[derive(Debug, Clone, thiserror::Error)]
pub enum StoreError {
    /// Cannot be reached, or its disk failed or is full.
    #[error("the store does not answer: {0}")]
    Unavailable(String),
    /// The request makes no sense; the message says where and why.
    #[error("{0}")]
    BadRequest(String),
}

/// A record as it is kept.
#[derive(Debug, Clone, PartialEq)]
pub struct Record {
    /// Rises with each write.
    pub version: u64,
    /// The document.
    pub body: Map<String, Value>,
}

/// What a write of a record expects to find.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Expected {
    /// No record of that id.
    Absent,
    /// The record at this version.
    Version(u64),
}

/// One write of a record.
#[derive(Debug, Clone, PartialEq)]
pub struct Put {
    /// Which family: records.
    pub family: Family,
    /// Id.
    pub id: String,
    /// What it expects to find.
    pub expected: Expected,
    /// When what it is about was received, milliseconds since 1970: decides the age.
    pub received_millis: i64,
    /// The document; holds `@timestamp`.
    pub body: Map<String, Value>,
}

/// What became of one write of a record.
#[derive(Debug, Clone, PartialEq)]
pub enum PutOutcome {
    /// Written and durable, now at this version.
    Written(u64),
    /// Something else is there; this is it (`None`: nothing is).
    Conflict(Option<Record>),
}

/// A search, in Elasticsearch's terms.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct SearchRequest {
    /// Query-string syntax; empty matches all.
    pub query: String,
    /// Exact values that fields must have.
    pub filters: Vec<(String, Value)>,
    /// `@timestamp` from here on, inclusive, milliseconds since 1970.
    pub from_millis: Option<i64>,
    /// `@timestamp` up to here, exclusive, milliseconds since 1970.
    pub to_millis: Option<i64>,
    /// Received from here on, inclusive, milliseconds since 1970.
    pub received_from_millis: Option<i64>,
    /// How many documents to return, at most 10,000.
    pub size: usize,
    /// Oldest first instead of newest first, by `@timestamp`.
    pub ascending: bool,
    /// Go on after this document: the `sort` of the last hit of the page before.
    pub after: Option<Vec<Value>>,
    /// Aggregations: `terms`, `date_histogram`, `cardinality`, `stats` in Elasticsearch's JSON, by name.
    pub aggregations: Map<String, Value>,
}

/// One document found.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Hit {
    /// Id.
    #[serde(rename = "_id")]
    pub id: String,
    /// What [`SearchRequest::after`] takes to go on after this one.
    pub sort: Vec<Value>,
    /// The document.
    #[serde(rename = "_source")]
    pub body: Map<String, Value>,
}

/// What was found.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct SearchResponse {
    /// How many documents fit in all.
    pub total: u64,
    /// The documents asked for.
    pub hits: Vec<Hit>,
    /// Results of the aggregations, by name, in Elasticsearch's JSON.
    pub aggregations: Map<String, Value>,
}

/// Where events and alerts are kept and found.
#[async_trait]
pub trait Store: Send + Sync + 'static {
    /// What is to be written of a document, by computing alone. Best done by whoever made the document, at once: it is a large tree, which
    /// is cheap to walk while the processor has it at hand and dear when it was laid aside and has to be fetched from memory again.
    fn pack(&self, document: Document) -> Packed;

    /// Writes documents of time series; returns when they are durable, a result for each in order. A repeat is a success: it is durable
    /// already, as its first copy.
    async fn write(&self, packed: Vec<Packed>) -> Result<Vec<ItemResult>, StoreError>;

    /// Packs documents of time series and [writes](Self::write) them.
    async fn bulk(&self, documents: Vec<Document>) -> Result<Vec<ItemResult>, StoreError> {
        if let Some(document) = documents.iter().find(|document| !document.family.is_series()) {
            return Err(StoreError::BadRequest(format!("{} are records; write them with put", document.family)));
        }
        self.write(documents.into_iter().map(|document| self.pack(document)).collect()).await
    }

    /// Writes records, each under its own condition; returns when they are durable, an outcome for each in order.
    async fn put(&self, puts: Vec<Put>) -> Result<Vec<PutOutcome>, StoreError>;

    /// The record of an id, as last written.
    async fn get(&self, family: Family, id: &str) -> Result<Option<Record>, StoreError>;

    /// Searches a family. What `bulk` or `put` wrote is found after the refresh time, or after [`Store::refresh`].
    async fn search(&self, family: Family, request: SearchRequest) -> Result<SearchResponse, StoreError>;

    /// Makes all that is durable searchable now.
    async fn refresh(&self) -> Result<(), StoreError>;

    /// Deletes what was received before a time, by whole days where the store keeps days. Returns how many documents went.
    async fn delete_older_than(&self, family: Family, received_millis: i64) -> Result<u64, StoreError>;

    /// Flushes and closes.
    async fn close(&self);
}
