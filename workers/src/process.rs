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
    weight::{Weight, text_bytes},
};
use serde_json::{Map, Value, json};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tracing::{error, warn};

use crate::{
    backoff::Backoff,
    batch,
    broker::{Broker, BrokerError, Delivery, Topic, declare_until_done},
    cores::Cores,
    inflight::{InFlight, settle},
    metrics::{DropLabels, EnrichmentLabels, Metrics, ProcessLabels, ReasonLabels, RuleLabels, SourceLabels},
    publish::{MAX_MESSAGE_BYTES, cut, publish_until_taken},
    store::{Document, Family, ItemResult, Packed, Store, StoreError},
};

/// The subscription that process holds on [`Topic::Events`].
pub const SUBSCRIPTION: &str = "process";

/// Bytes of messages, as they come, that the broker may hand out before the first of them is done.
const PREFETCH_BYTES: usize = 32 << 20;
/// Messages that may be in the works at a time: most of them wait for the store, whose commits pay off only when many share one.
const IN_THE_WORKS: usize = 16;
/// As long as all together have fewer bytes before compression; a single one may have more.
const IN_THE_WORKS_BYTES: usize = 16 << 20;
/// Small messages may be more, as long as all together have fewer bytes: one that holds a single event is not to wait for sixteen of them.
const SMALL_IN_THE_WORKS_BYTES: usize = 1 << 20;
/// But never more than these.
const MOST_IN_THE_WORKS: usize = 256;

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
    /// Where messages are computed on; meanwhile others wait for the store.
    pub cores: Cores,
    /// Partitions that matches are spread over.
    pub partitions: u16,
}

impl Process {
    /// Works until told to stop; then finishes the messages it holds.
    ///
    /// # Errors
    /// The broker is gone for good.
    pub async fn run(self, shutdown: CancellationToken) -> Result<(), BrokerError> {
        declare_until_done(&*self.broker, Topic::Events, SUBSCRIPTION, &shutdown).await?;
        let mut consumer = self.broker.consume(Topic::Events, SUBSCRIPTION, PREFETCH_BYTES).await?;
        let role = Arc::new(self);
        let mut running = InFlight::default();
        loop {
            tokio::select! {
                biased;
                Some((tag, done)) = running.next() => settle(&mut *consumer, tag, done, &shutdown).await?,
                () = shutdown.cancelled() => break,
                delivery = consumer.next(), if has_room(&running) => {
                    let Some(delivery) = delivery? else { break };
                    let (role, shutdown) = (Arc::clone(&role), shutdown.clone());
                    running.spawn(delivery.tag, batch::unpacked_bytes(&delivery.body), async move { role.work_on(Arc::new(delivery), &shutdown).await });
                }
            }
        }
        while let Some((tag, done)) = running.next().await {
            settle(&mut *consumer, tag, done, &shutdown).await?;
        }
        Ok(())
    }

    async fn work_on(&self, delivery: Arc<Delivery>, shutdown: &CancellationToken) -> Result<(), String> {
        let (mut worked, results) = self.store_events(&delivery, shutdown).await?;
        let refused: Vec<(usize, String)> =
            results.into_iter().enumerate().filter_map(|(index, result)| result.err().map(|no| (index, no.reason))).collect();
        self.store_letters(&delivery, &mut worked, refused, shutdown).await?;
        self.publish_matches(&worked.matches, shutdown).await?;
        worked.count(&self.metrics);
        Ok(())
    }

    /// Works on the events of a message and stores them; meanwhile publishes the matches of rules that keep no state, whose alerts need
    /// not wait for the store. The other matches have to be stored first, since correlate builds its state from what is stored. While the
    /// store does not answer, all of it is done again: what comes of a message is a function of the message, so nothing has to be kept for
    /// a second attempt that hardly ever comes.
    async fn store_events(&self, delivery: &Arc<Delivery>, shutdown: &CancellationToken) -> Result<(Worked, Vec<ItemResult>), String> {
        let mut backoff = Backoff::default();
        // What failed as a whole may have been stored in part.
        let mut may_repeat = delivery.redeliveries > 0;
        let mut told: HashSet<String> = HashSet::new();
        loop {
            let (plan, message, store) = (Arc::clone(&self.plan.borrow()), Arc::clone(delivery), Arc::clone(&self.store));
            let working = self.cores.compute(move || Worked::of(&plan, &*store, &message, may_repeat));
            let mut worked = working.await?.map_err(|undecodable| undecodable.to_string())?;
            let mut prompt = std::mem::take(&mut worked.prompt);
            prompt.retain(|found| told.is_empty() || !told.contains(&found.id()));
            let documents = std::mem::take(&mut worked.documents);
            let (stored, published) = tokio::join!(self.write(documents), self.publish_matches(&prompt, shutdown));
            published?;
            match stored {
                Ok(results) => return Ok((worked, results)),
                Err(error) => pause(&mut backoff, &error, shutdown).await?,
            }
            may_repeat = true;
            told.extend(prompt.iter().map(Match::id));
        }
    }

    /// Stores dead letters: of the events that could not be read, and of those that the store refused, with the store's own reason.
    async fn store_letters(
        &self,
        delivery: &Delivery,
        worked: &mut Worked,
        refused: Vec<(usize, String)>,
        shutdown: &CancellationToken,
    ) -> Result<(), String> {
        for (document, reason) in refused {
            worked.refuse(document, reason);
        }
        if worked.unreadable.is_empty() {
            return Ok(());
        }
        let raw_events = batch::decode_events(&delivery.body).map_err(|error| error.to_string())?;
        let letter = |(index, reason): &(usize, String)| Some(self.store.pack(letters::letter(raw_events.get(*index)?, reason)));
        let mut backoff = Backoff::default();
        loop {
            match self.write(worked.unreadable.iter().filter_map(letter).collect()).await {
                Ok(_) => return Ok(()),
                Err(error) => pause(&mut backoff, &error, shutdown).await?,
            }
        }
    }

    async fn write(&self, documents: Vec<Packed>) -> Result<Vec<ItemResult>, StoreError> {
        let started = Instant::now();
        let results = self.store.write(documents).await?;
        self.metrics.store_bulk_seconds.observe(started.elapsed().as_secs_f64());
        Ok(results)
    }

    async fn publish_matches(&self, matches: &[Match], shutdown: &CancellationToken) -> Result<(), String> {
        let mut partitions: BTreeMap<u16, Vec<&Match>> = BTreeMap::new();
        for found in matches {
            partitions.entry(correlate::partition(found, self.partitions)).or_default().push(found);
        }
        for (partition, matches) in partitions {
            for run in cut(&matches, usize::MAX, MAX_MESSAGE_BYTES, |found| bytes_of(found)) {
                let body = batch::encode(batch::Kind::Matches, run).map_err(|error| error.to_string())?;
                let published = publish_until_taken(&*self.broker, Topic::Matches(partition), body, shutdown).await;
                published.map_err(|error| error.to_string())?;
            }
        }
        Ok(())
    }
}

/// Whether one more message may be in the works.
fn has_room(running: &InFlight) -> bool {
    let bytes = running.bytes();
    let few_enough = running.len() < IN_THE_WORKS && bytes < IN_THE_WORKS_BYTES;
    let small_enough = running.len() < MOST_IN_THE_WORKS && bytes < SMALL_IN_THE_WORKS_BYTES;
    few_enough || small_enough
}

async fn pause(backoff: &mut Backoff, error: &StoreError, shutdown: &CancellationToken) -> Result<(), String> {
    warn!(%error, "the store did not take events; trying again");
    backoff.pause(shutdown).await.map_err(|_| format!("stopped while the store did not answer: {error}"))
}

/// What came of one message.
#[derive(Default)]
struct Worked {
    /// To be stored.
    documents: Vec<Packed>,
    /// The event that each document is of, by its index in the message; `None` for the documents of matches.
    events: Vec<Option<usize>>,
    /// To be published at once.
    prompt: Vec<Match>,
    /// To be published when all is stored.
    matches: Vec<Match>,
    /// Events that cannot be taken, by index in the message, with the reason.
    unreadable: Vec<(usize, String)>,
    /// Matches that an exception took out.
    excepted: u64,
    /// Expressions of rules that came to no answer.
    failed: u64,
    /// To be counted when all is safe.
    tallies: Vec<Tally>,
    /// The source and end of each event.
    ends: Vec<(Arc<str>, End)>,
}

/// How an event's way ended: three ends that add up to what was accepted.
#[derive(Clone, Copy, PartialEq, Eq)]
enum End {
    Indexed,
    Dropped,
    DeadLettered,
}

impl End {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Indexed => "indexed",
            Self::Dropped => "dropped",
            Self::DeadLettered => "dead_lettered",
        }
    }
}

/// One thing to count besides.
enum Tally {
    Dropped { enrichment: String, reason: String },
    DeadLettered { reason: &'static str },
    EnrichmentFailed { enrichment: String },
    Unparsed { source: Arc<str> },
    Matched { rule: Arc<str> },
}

impl Worked {
    /// What comes of a message, for a store; `may_repeat` where some of it may be stored already.
    fn of(plan: &Plan, store: &dyn Store, delivery: &Delivery, may_repeat: bool) -> Result<Self, batch::BatchError> {
        let mut worked = Self::default();
        for raw in batch::decode_events(&delivery.body)? {
            let outcome = catch_unwind(AssertUnwindSafe(|| plan.process(&raw)))
                .unwrap_or_else(|panic| Outcome::DeadLetter { reason: format!("the engine failed on it: {}", panic_text(&*panic)) });
            worked.take(plan, store, raw, outcome, may_repeat);
        }
        Ok(worked)
    }

    fn take(&mut self, plan: &Plan, store: &dyn Store, raw: RawEvent, outcome: Outcome, may_repeat: bool) {
        let index = self.ends.len();
        let end = match outcome {
            Outcome::Dropped { enrichment, reason } => {
                self.tallies.push(Tally::Dropped { enrichment, reason });
                End::Dropped
            }
            Outcome::DeadLetter { reason } => {
                self.unreadable.push((index, reason));
                self.tallies.push(Tally::DeadLettered { reason: "not readable" });
                End::DeadLettered
            }
            Outcome::Event { event, evaluation, failures } => {
                self.tallies.extend(failures.into_iter().map(|failure| Tally::EnrichmentFailed { enrichment: failure.enrichment }));
                if has_tag(&event, UNPARSED_TAG) {
                    self.tallies.push(Tally::Unparsed { source: Arc::clone(&raw.source) });
                }
                self.excepted += evaluation.excepted;
                self.failed += evaluation.failed;
                for found in evaluation.matches {
                    self.tallies.push(Tally::Matched { rule: Arc::clone(&found.rule) });
                    if plan.rules.get(&found.rule).is_some_and(|rule| rule.keeps_state()) {
                        self.documents.push(store.pack(match_document(&found)));
                        self.events.push(None);
                        self.matches.push(found);
                    } else {
                        self.prompt.push(found);
                    }
                }
                self.documents.push(store.pack(event_document(*event, may_repeat)));
                self.events.push(Some(index));
                End::Indexed
            }
        };
        self.ends.push((raw.source, end));
    }

    /// Makes a dead letter of an event whose document the store refused.
    fn refuse(&mut self, document: usize, reason: String) {
        match self.events.get(document) {
            Some(Some(event)) => {
                self.ends[*event].1 = End::DeadLettered;
                self.unreadable.push((*event, reason));
                self.tallies.push(Tally::DeadLettered { reason: "refused by the store" });
            }
            // A match's document is one text and three names; the alert does not depend on it until a restart.
            _ => error!(reason, "the store refused the document of a match"),
        }
    }

    fn count(self, metrics: &Metrics) {
        // A message holds events of few sources, one after the other, and most end alike.
        for alike in self.ends.chunk_by(|one, next| one == next) {
            let (source, end) = &alike[0];
            let labels = ProcessLabels { source: Arc::clone(source), outcome: end.as_str() };
            metrics.events_processed.get_or_create(&labels).inc_by(alike.len() as u64);
        }
        metrics.matches_excepted.inc_by(self.excepted);
        metrics.rule_failures.inc_by(self.failed);
        for tally in self.tallies {
            match tally {
                Tally::Dropped { enrichment, reason } => {
                    metrics.events_dropped.get_or_create(&DropLabels { enrichment: enrichment.into(), reason: reason.into() }).inc()
                }
                Tally::DeadLettered { reason } => metrics.dead_letters.get_or_create(&ReasonLabels { reason }).inc(),
                Tally::EnrichmentFailed { enrichment } => {
                    metrics.enrichment_failures.get_or_create(&EnrichmentLabels { enrichment: enrichment.into() }).inc()
                }
                Tally::Unparsed { source } => metrics.unparsed_values.get_or_create(&SourceLabels { source }).inc(),
                Tally::Matched { rule } => metrics.matches.get_or_create(&RuleLabels { rule }).inc(),
            };
        }
    }
}

fn event_document(event: Event, may_repeat: bool) -> Document {
    Document {
        family: Family::Events,
        may_repeat: event.natural_id || may_repeat,
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

/// Bytes of a match as JSON, roughly.
fn bytes_of(found: &Match) -> usize {
    let group: usize = found.group.iter().map(|(field, value)| text_bytes(field) + text_bytes(value)).sum();
    let reasons: usize = found.reasons.iter().map(|reason| text_bytes(&reason.field) + Weight::of(&reason.value).bytes).sum();
    Weight::of_object(&found.document).bytes + group + reasons
}

fn has_tag(event: &Event, tag: &str) -> bool {
    matches!(event.document.get("tags"), Some(Value::Array(tags)) if tags.iter().any(|known| known == tag))
}

fn panic_text(panic: &(dyn Any + Send)) -> &str {
    panic.downcast_ref::<&str>().copied().or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("panic")
}
