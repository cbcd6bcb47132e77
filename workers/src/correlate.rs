//! The third role: brings matches together into alerts, one partition at a time.
//!
//! The state lives in memory and can be lost at any time: process stores every match that state is made of, and a new correlate reads
//! back those that may still count, and raises what they amount to once more. An alert's id follows from what it is about, so one that
//! was written before is found, not written again.
//!
//! A new alert is announced first and written then, so a record implies that the alert was announced: after a restart, those without a
//! record are announced, and of the others only those written that say more than their record. A crash between the two steps makes
//! an alert be announced twice; respond's own record makes that harmless. What is not yet announced and written stays pending through
//! every failure, since the match that led to it, when it comes again, changes nothing.
//!
//! **Several processes.** Each partition has one reader at a time, and the others wait for it to go. Whoever comes to hold a partition,
//! or holds it again after the broker was away, builds its state from the store before the first match: process stores a match before
//! it publishes it, so what another reader took is there.
//!
//! **Another number of partitions.** A match that lies in a partition which is not its own any more is sent on to its own one. Queues
//! past the last partition are emptied in the same way.

use std::{
    collections::{BTreeMap, HashMap},
    ops::Range,
    sync::Arc,
    time::Duration,
};

use futures::FutureExt as _;
use redoubt_engine::{
    alert::Alert,
    compile::Plan,
    correlate::{Change, Correlator, hold_millis, partition},
    rule::Match,
    weight::{Weight, text_bytes},
};
use tokio::{
    sync::watch,
    task::JoinSet,
    time::{Instant, sleep_until},
};
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use crate::{
    backoff::{Backoff, Stopped},
    batch,
    broker::{Broker, BrokerError, Consumer, Delivery, Topic, declare_until_done},
    inflight::settle,
    metrics::{AlertLabels, KindLabels, Metrics, RuleLabels},
    publish::{MAX_MESSAGE_BYTES, PublishError, cut, publish_until_taken},
    store::{Expected, Family, Put, PutOutcome, SearchRequest, Store, StoreError},
};

/// The subscription that correlate holds on each [`Topic::Matches`].
pub const SUBSCRIPTION: &str = "correlate";

const PREFETCH_BYTES: usize = 8 << 20;
const REBUILD_PAGE: usize = 5_000;

/// The role and what it stands on.
pub struct Correlate {
    /// The rules in force.
    pub plan: watch::Receiver<Arc<Plan>>,
    /// Where matches come from and alerts go to.
    pub broker: Arc<dyn Broker>,
    /// Where alerts stay.
    pub store: Arc<dyn Store>,
    /// Counters.
    pub metrics: Arc<Metrics>,
    /// How many partitions there are; this role works on all of them.
    pub partitions: u16,
    /// Groups that one rule may hold in a partition.
    pub max_groups: usize,
    /// The time now, milliseconds since 1970.
    pub now_millis: fn() -> i64,
}

impl Correlate {
    /// Works until told to stop.
    ///
    /// # Errors
    /// The broker is gone for good.
    pub async fn run(self, shutdown: CancellationToken) -> Result<(), BrokerError> {
        let role = Arc::new(self);
        for number in 0..role.partitions {
            declare_until_done(&*role.broker, Topic::Matches(number), SUBSCRIPTION, &shutdown).await?;
        }
        let Ok(before) = role.rebuild(0..role.partitions, &shutdown).await else { return Ok(()) };
        let mut partitions = JoinSet::new();
        let states = before.into_iter().chain(std::iter::repeat_with(|| (role.stateless(), Pending::default())));
        let numbers = (0..role.partitions).chain(role.left_over().await);
        for (number, (state, pending)) in numbers.zip(states) {
            let partition = Partition { role: Arc::clone(&role), number, hold: 0, state, pending, versions: HashMap::new() };
            partitions.spawn(partition.run(shutdown.clone()));
        }
        while let Some(ended) = partitions.join_next().await {
            ended.map_err(|error| BrokerError::Unavailable(error.to_string()))??;
        }
        Ok(())
    }

    /// Partitions that there were when there were more of them.
    async fn left_over(&self) -> Vec<u16> {
        let mut numbers = Vec::new();
        for number in self.partitions..u16::MAX {
            if self.broker.depth(Topic::Matches(number), SUBSCRIPTION).await.is_err() {
                break;
            }
            numbers.push(number);
        }
        numbers
    }

    fn stateless(&self) -> Correlator {
        Correlator::new(Arc::clone(&self.plan.borrow().rules), self.max_groups)
    }

    /// The state of partitions as it was, from the matches in the store that may still count. Tries until the store answers.
    async fn rebuild(&self, numbers: Range<u16>, shutdown: &CancellationToken) -> Result<Vec<(Correlator, Pending)>, Stopped> {
        let mut backoff = Backoff::default();
        loop {
            match self.try_rebuild(numbers.clone()).await {
                Ok(states) => return Ok(states),
                Err(error) => {
                    warn!(%error, "the matches of before cannot be read yet; trying again");
                    backoff.pause(shutdown).await?;
                }
            }
        }
    }

    async fn try_rebuild(&self, numbers: Range<u16>) -> Result<Vec<(Correlator, Pending)>, StoreError> {
        let rules = Arc::clone(&self.plan.borrow().rules);
        let mut states: Vec<(Correlator, Pending)> =
            numbers.clone().map(|_| (Correlator::new(Arc::clone(&rules), self.max_groups), Pending::default())).collect();
        let Some(hold) = rules.iter().filter(|rule| rule.keeps_state()).map(|rule| hold_millis(&rule.spec)).max() else {
            return Ok(states);
        };
        self.store.refresh().await?;
        let mut request = SearchRequest {
            received_from_millis: Some((self.now_millis)().saturating_sub(hold)),
            size: REBUILD_PAGE,
            ascending: true,
            ..SearchRequest::default()
        };
        let mut count = 0_u64;
        loop {
            let page = self.store.search(Family::Matches, request.clone()).await?;
            let Some(last) = page.hits.last() else { break };
            request.after = Some(last.sort.clone());
            for hit in page.hits {
                let text = hit.body.get("match").and_then(serde_json::Value::as_str).unwrap_or_default();
                match serde_json::from_str::<Match>(text) {
                    Ok(found) => {
                        let number = partition(&found, self.partitions);
                        let place = number.checked_sub(numbers.start).map(usize::from);
                        let Some((state, pending)) = place.and_then(|place| states.get_mut(place)) else { continue };
                        count += 1;
                        // A match of the last life may have been stored and not been acted on, so what it leads to is news again.
                        let received_millis = found.received_millis;
                        pending.note(state.apply(found), received_millis);
                    }
                    Err(error) => warn!(id = hit.id, %error, "a stored match cannot be read; it is passed over"),
                }
            }
        }
        if count > 0 {
            info!(matches = count, "the state of correlation is rebuilt");
        }
        Ok(states)
    }
}

/// Alerts that changed and are not announced and written yet, by id.
#[derive(Default)]
struct Pending(BTreeMap<String, Changed>);

/// An alert in its last state.
struct Changed {
    alert: Alert,
    /// Whether it is new and not announced yet.
    news: bool,
    /// When the event was received that changed it.
    received_millis: i64,
}

impl Pending {
    /// Notes what a match that was received at this time led to.
    fn note(&mut self, changes: Vec<Change>, received_millis: i64) {
        for change in changes {
            let raised = matches!(change, Change::Raised(_));
            let alert = change.into_alert();
            let news = raised || self.0.get(&alert.id).is_some_and(|known| known.news);
            self.0.insert(alert.id.clone(), Changed { alert, news, received_millis });
        }
    }
}

/// One partition at work.
struct Partition {
    role: Arc<Correlate>,
    number: u16,
    /// The hold on the queue that the state was built for; 0 for the one from the start on.
    hold: u64,
    state: Correlator,
    /// What no attempt has announced and written yet.
    pending: Pending,
    /// Versions of the alert records that are still growing.
    versions: HashMap<String, u64>,
}

/// Deliveries that are worked on together.
const MAX_DELIVERIES: usize = 16;
/// How long alerts wait for others to be written with: each write costs the store much that does not depend on its size. They are announced
/// by then, and the next search would hardly find them sooner.
const WRITE_AFTER: Duration = Duration::from_millis(100);
/// So many deliveries do not wait.
const MAX_HELD: usize = 256;
/// Alerts in one message to respond.
const MAX_ANNOUNCED: usize = 100;
/// Alerts in one write.
const MAX_WRITTEN: usize = 500;
/// Versions that one partition remembers; past it all are forgotten, and found again in the store.
const MAX_VERSIONS: usize = 100_000;

impl Partition {
    async fn run(mut self, shutdown: CancellationToken) -> Result<(), BrokerError> {
        let role = Arc::clone(&self.role);
        let mut plan = role.plan.clone();
        let mut consumer = role.broker.consume(Topic::Matches(self.number), SUBSCRIPTION, PREFETCH_BYTES).await?;
        let caught_up = match self.recall(&shutdown).await {
            Ok(()) => self.announce_and_write(&shutdown).await,
            stopped => stopped,
        };
        if let Err(reason) = caught_up {
            info!(reason, partition = self.number, "stopped before the alerts of before were written again");
            return Ok(());
        }
        // Worked on, and not written yet.
        let mut held: Vec<(u64, Result<(), String>)> = Vec::new();
        let mut due = Instant::now();
        loop {
            tokio::select! {
                biased;
                () = shutdown.cancelled() => break,
                changed = plan.changed() => {
                    if changed.is_err() {
                        break;
                    }
                    let rules = Arc::clone(&plan.borrow_and_update().rules);
                    self.state.replace_rules(rules);
                }
                () = sleep_until(due), if !held.is_empty() => self.write_and_settle(&mut held, &mut *consumer, &shutdown).await?,
                delivery = consumer.next() => {
                    let Some(delivery) = delivery? else { break };
                    let mut deliveries = vec![delivery];
                    while deliveries.len() < MAX_DELIVERIES
                        && let Some(Ok(Some(delivery))) = consumer.next().now_or_never()
                    {
                        deliveries.push(delivery);
                    }
                    if held.is_empty() {
                        due = Instant::now() + WRITE_AFTER;
                    }
                    held.extend(self.work(deliveries, &shutdown).await);
                    if held.len() >= MAX_HELD {
                        due = Instant::now();
                    }
                }
            }
        }
        self.write_and_settle(&mut held, &mut *consumer, &shutdown).await
    }

    /// Writes what is pending, and then settles the deliveries that led to it.
    async fn write_and_settle(
        &mut self,
        held: &mut Vec<(u64, Result<(), String>)>,
        consumer: &mut dyn Consumer,
        shutdown: &CancellationToken,
    ) -> Result<(), BrokerError> {
        // An alert that could not be announced before is not written before it is.
        let written = self.announce_and_write(shutdown).await;
        let mut done = Vec::with_capacity(held.len());
        for (tag, worked) in held.drain(..) {
            match worked.and_then(|()| written.clone()) {
                Ok(()) => done.push(tag),
                failed => settle(consumer, tag, failed, shutdown).await?,
            }
        }
        if done.is_empty() { Ok(()) } else { consumer.ack(&done).await }
    }

    /// Works on deliveries together, since they share what announcing costs; how it went with each, by tag. They are done when what is
    /// pending is written.
    async fn work(&mut self, deliveries: Vec<Delivery>, shutdown: &CancellationToken) -> Vec<(u64, Result<(), String>)> {
        if let Some(hold) = deliveries.iter().map(|delivery| delivery.hold).find(|hold| *hold != self.hold) {
            if let Err(reason) = self.take_over(shutdown).await {
                return deliveries.into_iter().map(|delivery| (delivery.tag, Err(reason.clone()))).collect();
            }
            self.hold = hold;
        }
        let before = self.state.overflow();
        let mut done = Vec::with_capacity(deliveries.len());
        for Delivery { tag, body, .. } in deliveries {
            done.push((tag, self.take(&body, shutdown).await));
        }
        let after = self.state.overflow();
        for (kind, count) in [("groups", after.groups - before.groups), ("matches", after.matches - before.matches)] {
            if count > 0 {
                self.role.metrics.correlate_overflow.get_or_create(&KindLabels { kind }).inc_by(count);
            }
        }
        if let Err(reason) = self.announce(shutdown).await {
            done.iter_mut().for_each(|(_, done)| *done = Err(reason.clone()));
        }
        done
    }

    async fn take(&mut self, body: &[u8], shutdown: &CancellationToken) -> Result<(), String> {
        let matches: Vec<Match> = batch::decode(batch::Kind::Matches, body).map_err(|error| error.to_string())?;
        let partitions = self.role.partitions;
        let (own, foreign) = matches.into_iter().partition(|found| partition(found, partitions) == self.number);
        self.send_on(foreign, shutdown).await?;
        self.apply(own);
        Ok(())
    }

    fn apply(&mut self, matches: Vec<Match>) {
        for found in matches {
            let received_millis = found.received_millis;
            self.pending.note(self.state.apply(found), received_millis);
        }
    }

    /// Builds the state anew: another process may have held this partition. What is pending stays so.
    async fn take_over(&mut self, shutdown: &CancellationToken) -> Result<(), String> {
        if self.number >= self.role.partitions {
            return Ok(());
        }
        let stopped = |_| "stopped before the matches of before could be read".to_owned();
        let rebuilt = self.role.rebuild(self.number..self.number + 1, shutdown).await.map_err(stopped)?;
        let Some((state, pending)) = rebuilt.into_iter().next() else { return Ok(()) };
        let unfinished = std::mem::replace(&mut self.pending, pending);
        for (id, changed) in unfinished.0 {
            self.pending.0.entry(id).or_insert(changed);
        }
        self.state = state;
        self.versions.clear();
        self.recall(shutdown).await
    }

    /// Publishes matches to the partitions that are theirs.
    async fn send_on(&self, foreign: Vec<Match>, shutdown: &CancellationToken) -> Result<(), String> {
        let mut homes: BTreeMap<u16, Vec<Match>> = BTreeMap::new();
        for found in foreign {
            homes.entry(partition(&found, self.role.partitions)).or_default().push(found);
        }
        for (home, matches) in homes {
            let body = batch::encode(batch::Kind::Matches, &matches).map_err(|error| error.to_string())?;
            let published = publish_until_taken(&*self.role.broker, Topic::Matches(home), body, shutdown).await;
            published.map_err(|error| error.to_string())?;
        }
        Ok(())
    }

    /// After a restart: takes for announced what has a record, and for written what its record does not lack.
    async fn recall(&mut self, shutdown: &CancellationToken) -> Result<(), String> {
        let mut backoff = Backoff::default();
        let ids: Vec<String> = self.pending.0.keys().cloned().collect();
        for id in ids {
            let record = loop {
                match self.role.store.get(Family::Alerts, &id).await {
                    Ok(record) => break record,
                    Err(error) => {
                        warn!(%error, "the alerts of before cannot be read yet; trying again");
                        backoff.pause(shutdown).await.map_err(|_| format!("stopped while the store did not answer: {error}"))?;
                    }
                }
            };
            if let Some(record) = record
                && let Some(changed) = self.pending.0.get_mut(&id)
            {
                changed.news = false;
                self.settle(&id, PutOutcome::Conflict(Some(record)));
            }
        }
        Ok(())
    }

    /// Announces what is news, then writes all that is pending. Whatever fails stays pending, and is part of the next attempt.
    async fn announce_and_write(&mut self, shutdown: &CancellationToken) -> Result<(), String> {
        self.announce(shutdown).await?;
        self.write(shutdown).await?;
        if self.versions.len() > MAX_VERSIONS {
            self.versions.clear();
        }
        Ok(())
    }

    async fn announce(&mut self, shutdown: &CancellationToken) -> Result<(), String> {
        let news: Vec<Alert> = self.pending.0.values().filter(|changed| changed.news).map(|changed| changed.alert.clone()).collect();
        for run in cut(&news, MAX_ANNOUNCED, MAX_MESSAGE_BYTES, bytes_of) {
            let published = match batch::encode(batch::Kind::Alerts, run) {
                Ok(body) => publish_until_taken(&*self.role.broker, Topic::Alerts, body, shutdown).await,
                Err(error) => Err(error.into()),
            };
            match published {
                Ok(()) => {}
                Err(stopped @ PublishError::Stopped(_)) => return Err(stopped.to_string()),
                Err(refused) => run.iter().for_each(|alert| self.refuse(&alert.id, &refused.to_string())),
            }
            for alert in run {
                if let Some(changed) = self.pending.0.get_mut(&alert.id) {
                    changed.news = false;
                }
            }
        }
        Ok(())
    }

    async fn write(&mut self, shutdown: &CancellationToken) -> Result<(), String> {
        let mut backoff = Backoff::default();
        let mut at_a_time = MAX_WRITTEN;
        while !self.pending.0.is_empty() {
            let ids: Vec<String> = self.pending.0.keys().take(at_a_time).cloned().collect();
            let puts: Vec<Put> = self.pending.0.values().take(at_a_time).map(|changed| self.put(&changed.alert)).collect();
            match self.role.store.put(puts).await {
                Ok(outcomes) => ids.iter().zip(outcomes).for_each(|(id, outcome)| self.settle(id, outcome)),
                Err(error @ StoreError::Unavailable(_)) => {
                    warn!(%error, "the store did not take alerts; trying again");
                    backoff.pause(shutdown).await.map_err(|_| format!("stopped while the store did not answer: {error}"))?;
                }
                // One that the store never takes must not hold up the others: one by one, it is found.
                Err(StoreError::BadRequest(reason)) => match ids.as_slice() {
                    [id] => {
                        self.refuse(id, &reason);
                        self.pending.0.remove(id);
                    }
                    _ => at_a_time = 1,
                },
            }
        }
        Ok(())
    }

    /// Tells of an alert that cannot be announced or written, ever.
    fn refuse(&self, id: &str, reason: &str) {
        error!(id, reason, "an alert was refused; it is passed over");
        self.role.metrics.correlate_overflow.get_or_create(&KindLabels { kind: "refused" }).inc();
    }

    fn put(&self, alert: &Alert) -> Put {
        Put {
            family: Family::Alerts,
            id: alert.id.clone(),
            expected: self.versions.get(&alert.id).map_or(Expected::Absent, |version| Expected::Version(*version)),
            received_millis: (self.role.now_millis)(),
            body: alert.to_document(),
        }
    }

    fn count(&self, changed: &Changed) {
        let rule: Arc<str> = Arc::from(changed.alert.rule.name.as_str());
        let metrics = &self.role.metrics;
        let waited_millis = (self.role.now_millis)().saturating_sub(changed.received_millis);
        metrics.event_to_alert_seconds.get_or_create(&RuleLabels { rule: Arc::clone(&rule) }).observe(waited_millis as f64 / 1000.0);
        metrics.alerts.get_or_create(&AlertLabels { rule, severity: changed.alert.severity.as_str() }).inc();
    }

    /// Takes note of an outcome. What must be tried again on top of what is there stays pending.
    fn settle(&mut self, id: &str, outcome: PutOutcome) {
        let Some(changed) = self.pending.0.get(id) else { return };
        match outcome {
            PutOutcome::Written(version) => {
                if self.versions.insert(id.to_owned(), version).is_none() {
                    self.count(changed);
                }
                self.pending.0.remove(id);
            }
            PutOutcome::Conflict(Some(record)) => {
                self.versions.insert(id.to_owned(), record.version);
                if Alert::from_document(&record.body).is_ok_and(|known| !changed.alert.supersedes(&known)) {
                    self.pending.0.remove(id);
                }
            }
            PutOutcome::Conflict(None) => {
                self.versions.remove(id);
            }
        }
    }
}

/// Bytes of an alert as JSON, roughly: what varies is its events and reasons.
fn bytes_of(alert: &Alert) -> usize {
    let events: usize = alert.events.iter().map(|behind| Weight::of_object(&behind.document).bytes).sum();
    let reasons: usize = alert.reasons.iter().map(|reason| Weight::of(&reason.value).bytes).sum();
    events + reasons + Weight::of_object(&alert.group).bytes + text_bytes(&alert.rule.description)
}

#[cfg(test)]
mod tests;
