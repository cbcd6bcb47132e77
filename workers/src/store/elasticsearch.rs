//! The store in a cluster that others run: Elasticsearch 8 and 9, OpenSearch 2 and 3.
//!
//! ```text
//! PREFIX-events-2026.11.24-000001   a day of receipt and a generation within it; matches and dead-letters likewise
//! PREFIX-alerts, PREFIX-responses   records
//! ```
//!
//! Only what every such server has is needed: index templates, bulk, search, `_mget`. What an old or small server lacks is found out at
//! the start, done in another way, and said in the log. Several processes may use one cluster under one prefix at the same time; nothing
//! is kept here that another one would have to know. See `docs/elasticsearch.md`.

mod access;
mod answer;
mod body;
mod bulk;
mod copies;
mod document;
mod gather;
mod indices;
mod limiter;
mod lines;
mod mappings;
mod names;
mod query;
mod records;
mod search;
mod templates;
mod transport;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures::future::try_join_all;
use jiff::Timestamp;
use redoubt_crds::ExternalStore;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use self::bulk::{Line, Writer};
use self::gather::Gather;
use self::indices::Indices;
use self::limiter::Limiter;
use self::mappings::Trees;
use self::names::{Names, day_of};
use self::records::Records;
use self::templates::IndexSettings;
use self::transport::{Request, Transport};
use super::{Document, Family, ItemResult, Packed, Put, PutOutcome, Record, Rejection, SearchRequest, SearchResponse, Store, StoreError};
use crate::secrets::Secrets;

/// How the store in a cluster works.
#[derive(Debug, Clone)]
pub struct Options {
    /// What was written is found by searches after this time.
    pub refresh: Duration,
    /// A request without an answer after this time counts as lost.
    pub timeout: Duration,
    /// How long what fails is tried again before the caller is told.
    pub patience: Duration,
    /// How often is looked whether the next index is to take over.
    pub rollover_check: Duration,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            refresh: Duration::from_secs(1),
            timeout: Duration::from_secs(60),
            patience: Duration::from_secs(30),
            rollover_check: Duration::from_secs(15),
        }
    }
}

/// The store in a cluster.
pub struct ElasticsearchStore {
    cluster: Arc<Cluster>,
    gather: Gather<Result<Line, Rejection>>,
    limiter: Limiter,
    trees: Trees,
    closed: CancellationToken,
}

/// What the store shares with its own task.
struct Cluster {
    transport: Transport,
    indices: Indices,
}

impl ElasticsearchStore {
    /// Opens the store for reading and writing: puts the templates, and makes the indices of today where there are none.
    ///
    /// # Errors
    ///
    /// If the cluster does not answer or refuses the credentials, or if something in it stands in the way.
    pub async fn open(spec: &ExternalStore, secrets: Secrets, options: &Options) -> Result<Self, StoreError> {
        let mut store = Self::new(spec, secrets, options);
        let Cluster { transport, indices } = &*store.cluster;
        let names = indices.names();
        let settings = IndexSettings { shards: spec.shards, replicas: spec.replicas, refresh: options.refresh };
        let server = server(transport).await?;
        info!(server, prefix = spec.prefix, "the store is a cluster");
        templates::put(transport, names, &settings).await?;
        let today = day_of(Timestamp::now().as_millisecond())
            .ok_or_else(|| StoreError::Unavailable("this machine's clock is not set".to_owned()))?;
        let made = try_join_all(Family::ALL.map(|family| async move {
            if family.is_series() {
                return indices.current(transport, family, today).await;
            }
            let name = names.records(family);
            indices::create(transport, &name).await?;
            Ok(name)
        }));
        templates::upgrade(transport, &made.await?, &settings).await?;
        store.trees = trees(transport, names).await?;
        tokio::spawn(roll_over(Arc::clone(&store.cluster), options.rollover_check, store.closed.clone()));
        Ok(store)
    }

    /// Opens the store for a look: nothing is made or changed in the cluster.
    ///
    /// # Errors
    ///
    /// If the cluster does not answer or refuses the credentials.
    pub async fn open_to_read(spec: &ExternalStore, secrets: Secrets, options: &Options) -> Result<Self, StoreError> {
        let mut store = Self::new(spec, secrets, options);
        store.trees = trees(&store.cluster.transport, store.cluster.indices.names()).await?;
        Ok(store)
    }

    fn new(spec: &ExternalStore, secrets: Secrets, options: &Options) -> Self {
        let transport = Transport::new(spec, secrets, options.timeout, options.patience);
        let indices = Indices::new(Names::new(&spec.prefix), spec.rollover.clone());
        let cluster = Arc::new(Cluster { transport, indices });
        Self { cluster, gather: Gather::default(), limiter: Limiter::default(), trees: Trees::KeyAndNull, closed: CancellationToken::new() }
    }

    /// Looks now whether the next index is to take over, as is done every so often.
    ///
    /// # Errors
    ///
    /// If the cluster does not answer.
    pub async fn roll_over(&self) -> Result<(), StoreError> {
        self.cluster.roll_over().await
    }

    fn records(&self) -> Result<Records<'_>, StoreError> {
        self.cluster().map(|cluster| Records { transport: &cluster.transport, names: cluster.indices.names(), trees: self.trees })
    }

    fn cluster(&self) -> Result<&Cluster, StoreError> {
        if self.closed.is_cancelled() {
            return Err(StoreError::Unavailable("it is closed; open it again".to_owned()));
        }
        Ok(&self.cluster)
    }
}

impl Drop for ElasticsearchStore {
    fn drop(&mut self) {
        self.closed.cancel();
    }
}

impl Cluster {
    async fn roll_over(&self) -> Result<(), StoreError> {
        self.indices.roll_over(&self.transport, Timestamp::now().as_millisecond()).await
    }
}

#[async_trait]
impl Store for ElasticsearchStore {
    fn pack(&self, document: Document) -> Packed {
        Packed::new(Line::new(document, self.trees))
    }

    async fn write(&self, packed: Vec<Packed>) -> Result<Vec<ItemResult>, StoreError> {
        let cluster = self.cluster()?;
        let lines = packed.into_iter().map(Packed::unpack).collect::<Result<Vec<_>, _>>()?;
        let writer = Writer { transport: &cluster.transport, indices: &cluster.indices, limiter: &self.limiter };
        self.gather.write(lines, async |lines| writer.write(lines).await).await
    }

    async fn put(&self, puts: Vec<Put>) -> Result<Vec<PutOutcome>, StoreError> {
        self.records()?.put(&puts).await
    }

    async fn get(&self, family: Family, id: &str) -> Result<Option<Record>, StoreError> {
        self.records()?.get(family, id).await
    }

    async fn search(&self, family: Family, request: SearchRequest) -> Result<SearchResponse, StoreError> {
        let cluster = self.cluster()?;
        search::run(&cluster.transport, &cluster.indices.names().all(family), &request, self.trees).await
    }

    async fn refresh(&self) -> Result<(), StoreError> {
        let cluster = self.cluster()?;
        let all = Family::ALL.map(|family| cluster.indices.names().all(family)).join(",");
        records::refresh(&cluster.transport, &all).await
    }

    async fn delete_older_than(&self, family: Family, received_millis: i64) -> Result<u64, StoreError> {
        if !family.is_series() {
            return self.records()?.delete_older_than(family, received_millis).await;
        }
        let cluster = self.cluster()?;
        let Some(before) = day_of(received_millis) else {
            return if received_millis < 0 {
                Ok(0)
            } else {
                Err(StoreError::BadRequest(format!("{received_millis} ms is no date of a log")))
            };
        };
        cluster.indices.delete_before(&cluster.transport, family, before).await
    }

    async fn close(&self) {
        self.closed.cancel();
    }
}

/// Lets new indices take over, until the store is closed.
async fn roll_over(cluster: Arc<Cluster>, interval: Duration, closed: CancellationToken) {
    loop {
        tokio::select! {
            () = closed.cancelled() => return,
            () = tokio::time::sleep(interval) => {}
        }
        if let Err(error) = cluster.roll_over().await {
            warn!(%error, "whether an index is full could not be seen; looking again later");
        }
    }
}

/// What the server says it is. One that does not say is asked for its health, so that a wrong address is found here.
async fn server(transport: &Transport) -> Result<String, StoreError> {
    let answer = transport.ask(&Request::get("/")).await?;
    if answer.is_ok() {
        let told: Value = answer.json()?;
        let text = |value: &Value| value.as_str().unwrap_or("?").to_owned();
        let distribution = told["version"]["distribution"].as_str().unwrap_or("elasticsearch");
        return Ok(format!("{distribution} {}", text(&told["version"]["number"])));
    }
    if matches!(answer.status, 401 | 403) {
        return Err(answer.error());
    }
    transport.ask(&Request::get("/_cluster/health")).await?.done::<Value>()?;
    info!("the server does not tell its version; what it has is found out by trying");
    Ok("of an unknown version".to_owned())
}

/// How the cluster keeps trees. Whether it can be asked for a pattern in one key, it says of the query for it, without running it.
async fn trees(transport: &Transport, names: &Names) -> Result<Trees, StoreError> {
    let events = names.all(Family::Events);
    let tolerant = "ignore_unavailable=true&allow_no_indices=true";
    let kinds = transport.ask(&Request::get(format!("/{events}/_field_caps?fields=details&{tolerant}"))).await?;
    let query = json!({"query": {"wildcard": {"details.a": {"value": "*b"}}}});
    let valid = transport.ask(&Request::post(format!("/{events}/_validate/query?{tolerant}"), &query)).await?;
    if let Some(refusal) = [&kinds, &valid].into_iter().find(|answer| matches!(answer.status, 401 | 403)) {
        return Err(refusal.error());
    }
    if kinds.is_ok() && !kinds.json::<Value>()?["fields"]["details"]["flat_object"].is_null() {
        return Ok(Trees::FlatObject);
    }
    let by_key = valid.is_ok() && valid.json::<Value>()?["valid"] == true;
    Ok(if by_key { Trees::Flattened } else { Trees::KeyAndNull })
}
