//! The second role: understands, enriches and matches events, and stores them.
//!
//! A message is acknowledged only when each of its events is indexed, dropped as declared, or kept as a dead letter, and what rules
//! found in them is confirmed by the broker. All of it may be done twice: ids are deterministic.

mod letters;

use std::{
    any::Any,
    collections::{BTreeMap, HashSet},
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
    time::Instant,
};

use redoubt_engine::{
    compile::{Outcome, Plan},
    correlate,
    event::{Event, RawEvent, rfc3339},
    format::UNPARSED_TAG,
    rule::Match,
};
use serde_json::{Map, Value, json};
use tokio::{
    sync::watch,
    task::{JoinSet, spawn_blocking},
};
use tokio_util::sync::CancellationToken;
use tracing::{error, warn};

use crate::{
    backoff::Backoff,
    batch,
    broker::{Broker, BrokerError, Consumer, Delivery, Topic},
    metrics::{DropLabels, EnrichmentLabels, Metrics, ProcessLabels, ReasonLabels, RuleLabels, SourceLabels},
    store::{Document, Family, Store},
};

/// The subscription that process holds on [`Topic::Events`].
pub const SUBSCRIPTION: &str = "process";

/// Bytes of messages that may be in the works at a time.
const PREFETCH_BYTES: usize = 32 << 20;

/// The role and what it stands on.
pub struct Process {
    /// What to do with events.
    pub plan: watch::Receiver<Arc<Plan>>,
    /// Where events come from and matches go to.
    pub broker: Arc<dyn Broker>,
    /// Where events stay.
    pub store: Arc<dyn Store>,
    /// Counters.
    pub metrics: Arc<Metrics>,
    /// Messages that are worked on at a time.
    pub concurrency: usize,
    /// Partitions that matches are spread over.
    pub partitions: u16,
}

impl Process {
    /// Works until told to stop; then finishes the messages it holds.
    ///
    /// # Errors
    /// The broker is gone for good.
    pub async fn run(self, shutdown: CancellationToken) -> Result<(), BrokerError> {
        self.broker.declare(Topic::Events, SUBSCRIPTION).await?;
        let mut consumer = self.broker.consume(Topic::Events, SUBSCRIPTION, PREFETCH_BYTES).await?;
        let role = Arc::new(self);
        let mut running: JoinSet<Result<u64, (u64, String)>> = JoinSet::new();
        loop {
            tokio::select! {
                biased;
                Some(finished) = running.join_next() => settle(&mut *consumer, finished).await?,
                () = shutdown.cancelled() => break,
                delivery = consumer.next(), if running.len() < role.concurrency => {
                    let Some(delivery) = delivery? else { break };
                    running.spawn(Arc::clone(&role).work(delivery, shutdown.clone()));
                }
            }
        }
        while let Some(finished) = running.join_next().await {
            settle(&mut *consumer, finished).await?;
        }
        Ok(())
    }

    async fn work(self: Arc<Self>, delivery: Delivery, shutdown: CancellationToken) -> Result<u64, (u64, String)> {
        let tag = delivery.tag;
        let plan = Arc::clone(&self.plan.borrow());
        let worked = spawn_blocking(move || Worked::of(&plan, &delivery)).await;
        let worked = match worked {
            Ok(Ok(worked)) => worked,
            Ok(Err(undecodable)) => return Err((tag, undecodable.to_string())),
            Err(panicked) => return Err((tag, panicked.to_string())),
        };
        let refused = self.store_all(&worked.documents, &shutdown).await.map_err(|reason| (tag, reason))?;
        self.publish_matches(&worked.matches, &shutdown).await.map_err(|reason| (tag, reason))?;
        worked.count(&self.metrics, &refused);
        Ok(tag)
    }

    /// Stores documents; an event that the store refuses for good becomes a dead letter with the store's own reason. Returns which.
    async fn store_all(&self, documents: &Arc<[Document]>, shutdown: &CancellationToken) -> Result<Vec<usize>, String> {
        let mut refused = self.bulk(documents, shutdown).await?;
        refused.retain(|(index, _)| documents[*index].family == Family::Events);
        let letters: Arc<[Document]> = refused.iter().map(|(index, reason)| letters::refused(&documents[*index], reason)).collect();
        if !letters.is_empty() {
            self.bulk(&letters, shutdown).await?;
        }
        Ok(refused.into_iter().map(|(index, _)| index).collect())
    }

    /// Stores documents, trying again while the store does not answer. Returns those that it refused, by index, with its reason.
    async fn bulk(&self, documents: &Arc<[Document]>, shutdown: &CancellationToken) -> Result<Vec<(usize, String)>, String> {
        let mut backoff = Backoff::default();
        loop {
            let started = Instant::now();
            match self.store.bulk(Arc::clone(documents)).await {
                Ok(results) => {
                    self.metrics.store_bulk_seconds.observe(started.elapsed().as_secs_f64());
                    let refused = results.into_iter().enumerate().filter_map(|(i, result)| result.err().map(|no| (i, no.reason)));
                    return Ok(refused.collect());
                }
                Err(error) => {
                    warn!(%error, documents = documents.len(), "the store did not take events; trying again");
                    backoff.pause(shutdown).await.map_err(|_| format!("stopped while the store did not answer: {error}"))?;
                }
            }
        }
    }

    async fn publish_matches(&self, matches: &[Match], shutdown: &CancellationToken) -> Result<(), String> {
        let mut partitions: BTreeMap<u16, Vec<&Match>> = BTreeMap::new();
        for found in matches {
            partitions.entry(correlate::partition(found, self.partitions)).or_default().push(found);
        }
        for (partition, matches) in partitions {
            let body = batch::encode(batch::Kind::Matches, &matches).map_err(|error| error.to_string())?;
            publish_until_taken(&*self.broker, Topic::Matches(partition), body, shutdown).await?;
        }
        Ok(())
    }
}

/// Publishes a message, trying again while the broker is full or does not answer.
pub(crate) async fn publish_until_taken(
    broker: &dyn Broker,
    topic: Topic,
    body: Vec<u8>,
    shutdown: &CancellationToken,
) -> Result<(), String> {
    let mut backoff = Backoff::default();
    loop {
        match broker.publish(topic, vec![body.clone()]).await {
            Ok(()) => return Ok(()),
            Err(error) => {
                warn!(%error, %topic, "the broker did not take a message; trying again");
                backoff.pause(shutdown).await.map_err(|_| format!("stopped while the broker did not answer: {error}"))?;
            }
        }
    }
}

async fn settle(
    consumer: &mut dyn Consumer,
    finished: Result<Result<u64, (u64, String)>, tokio::task::JoinError>,
) -> Result<(), BrokerError> {
    match finished {
        Ok(Ok(tag)) => consumer.ack(&[tag]).await,
        Ok(Err((tag, reason))) => {
            warn!(reason, "a batch of events goes back to the queue");
            consumer.reject(tag, &reason).await
        }
        // A task that panicked outside of the guarded part has lost its tag: the message comes again when this consumer goes.
        Err(error) => {
            error!(%error, "a worker ended unexpectedly");
            Ok(())
        }
    }
}

/// What came of one message, not yet stored.
struct Worked {
    documents: Arc<[Document]>,
    matches: Vec<Match>,
    tallies: Vec<Tally>,
}

/// One thing to count once the message is safe.
enum Tally {
    /// Of the document at this index.
    Indexed { source: Arc<str>, document: usize },
    DeadLettered { source: Arc<str> },
    Dropped { source: Arc<str>, enrichment: String, reason: String },
    EnrichmentFailed { enrichment: String },
    Unparsed { source: Arc<str> },
    Matched { rule: Arc<str> },
}

impl Worked {
    fn of(plan: &Plan, delivery: &Delivery) -> Result<Self, batch::BatchError> {
        let raw_events = batch::decode_events(&delivery.body)?;
        let mut documents = Vec::with_capacity(raw_events.len());
        let mut worked = Self { documents: Arc::new([]), matches: Vec::new(), tallies: Vec::with_capacity(raw_events.len()) };
        for raw in raw_events {
            let outcome = catch_unwind(AssertUnwindSafe(|| plan.process(&raw)))
                .unwrap_or_else(|panic| Outcome::DeadLetter { reason: format!("the engine failed on it: {}", panic_text(&*panic)) });
            worked.take(plan, &raw, outcome, delivery.redeliveries > 0, &mut documents);
        }
        worked.documents = documents.into();
        Ok(worked)
    }

    fn take(&mut self, plan: &Plan, raw: &RawEvent, outcome: Outcome, redelivered: bool, documents: &mut Vec<Document>) {
        match outcome {
            Outcome::Dropped { enrichment, reason } => {
                self.tallies.push(Tally::Dropped { source: Arc::clone(&raw.source), enrichment, reason });
            }
            Outcome::DeadLetter { reason } => {
                documents.push(letters::unreadable(raw, &reason));
                self.tallies.push(Tally::DeadLettered { source: Arc::clone(&raw.source) });
            }
            Outcome::Event { event, matches, failures } => {
                self.tallies.extend(failures.into_iter().map(|failure| Tally::EnrichmentFailed { enrichment: failure.enrichment }));
                if has_tag(&event, UNPARSED_TAG) {
                    self.tallies.push(Tally::Unparsed { source: Arc::clone(&raw.source) });
                }
                for found in matches {
                    self.tallies.push(Tally::Matched { rule: Arc::clone(&found.rule) });
                    if plan.rules.get(&found.rule).is_some_and(|rule| rule.keeps_state()) {
                        documents.push(match_document(&found));
                    }
                    self.matches.push(found);
                }
                self.tallies.push(Tally::Indexed { source: Arc::clone(&raw.source), document: documents.len() });
                documents.push(event_document(*event, redelivered));
            }
        }
    }

    /// Counts what became of the events; those in `refused` were to be indexed and became dead letters after all.
    fn count(self, metrics: &Metrics, refused: &[usize]) {
        let ended = |source, outcome| metrics.events_processed.get_or_create(&ProcessLabels { source, outcome }).inc();
        let dead = |source, reason| {
            metrics.dead_letters.get_or_create(&ReasonLabels { reason }).inc();
            ended(source, "dead_lettered")
        };
        let refused: HashSet<usize> = refused.iter().copied().collect();
        for tally in self.tallies {
            match tally {
                Tally::Indexed { source, document } if refused.contains(&document) => dead(source, "refused by the store"),
                Tally::Indexed { source, .. } => ended(source, "indexed"),
                Tally::DeadLettered { source } => dead(source, "not readable"),
                Tally::Dropped { source, enrichment, reason } => {
                    let labels = DropLabels { enrichment: enrichment.into(), reason: reason.into() };
                    metrics.events_dropped.get_or_create(&labels).inc();
                    ended(source, "dropped")
                }
                Tally::EnrichmentFailed { enrichment } => {
                    metrics.enrichment_failures.get_or_create(&EnrichmentLabels { enrichment: enrichment.into() }).inc()
                }
                Tally::Unparsed { source } => metrics.unparsed_values.get_or_create(&SourceLabels { source }).inc(),
                Tally::Matched { rule } => metrics.matches.get_or_create(&RuleLabels { rule }).inc(),
            };
        }
    }
}

fn event_document(event: Event, redelivered: bool) -> Document {
    Document {
        family: Family::Events,
        may_repeat: event.natural_id || redelivered,
        id: event.id,
        received_millis: event.received_millis,
        body: event.document,
    }
}

/// The stored form of a match: what correlate needs to rebuild its state, kept as one text so that no field of it is indexed.
pub(crate) fn match_document(found: &Match) -> Document {
    let mut body = Map::new();
    body.insert("@timestamp".to_owned(), Value::String(rfc3339(found.timestamp_millis)));
    body.insert("rule".to_owned(), json!({ "name": &*found.rule }));
    body.insert("match".to_owned(), Value::String(json!(found).to_string()));
    Document { family: Family::Matches, id: found.id(), received_millis: found.received_millis, may_repeat: true, body }
}

fn has_tag(event: &Event, tag: &str) -> bool {
    matches!(event.document.get("tags"), Some(Value::Array(tags)) if tags.iter().any(|known| known == tag))
}

fn panic_text(panic: &(dyn Any + Send)) -> &str {
    panic.downcast_ref::<&str>().copied().or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("panic")
}
