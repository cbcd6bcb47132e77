//! The third role: brings matches together into alerts, one partition at a time.
//!
//! The state lives in memory and can be lost at any time: process stores every match that state is made of, and a new correlate reads
//! back those that may still count, and raises what they amount to once more. An alert's id follows from what it is about, so one that
//! was written before is found, not written again; it is announced again, since it may have been written but not announced, and
//! respond knows which alerts it has seen.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use redoubt_engine::{
    alert::Alert,
    compile::Plan,
    correlate::{Change, Correlator, hold_millis, partition},
    rule::Match,
};
use tokio::{sync::watch, task::JoinSet};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::{
    backoff::{Backoff, Stopped},
    batch,
    broker::{Broker, BrokerError, Delivery, Topic},
    metrics::{AlertLabels, KindLabels, Metrics, RuleLabels},
    publish::publish_until_taken,
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
            role.broker.declare(Topic::Matches(number), SUBSCRIPTION).await?;
        }
        let Ok(partitions_before) = role.rebuild(&shutdown).await else { return Ok(()) };
        let mut partitions = JoinSet::new();
        for (number, (state, pending)) in (0..).zip(partitions_before) {
            let partition = Partition { role: Arc::clone(&role), number, state, versions: HashMap::new() };
            partitions.spawn(partition.run(pending, shutdown.clone()));
        }
        while let Some(ended) = partitions.join_next().await {
            ended.map_err(|error| BrokerError::Unavailable(error.to_string()))??;
        }
        Ok(())
    }

    /// The state of each partition as it was, from the matches in the store that may still count. Tries until the store answers.
    async fn rebuild(&self, shutdown: &CancellationToken) -> Result<Vec<(Correlator, Pending)>, Stopped> {
        let mut backoff = Backoff::default();
        loop {
            match self.try_rebuild().await {
                Ok(states) => return Ok(states),
                Err(error) => {
                    warn!(%error, "the matches of before cannot be read yet; trying again");
                    backoff.pause(shutdown).await?;
                }
            }
        }
    }

    async fn try_rebuild(&self) -> Result<Vec<(Correlator, Pending)>, StoreError> {
        let rules = Arc::clone(&self.plan.borrow().rules);
        let mut states: Vec<(Correlator, Pending)> =
            (0..self.partitions).map(|_| (Correlator::new(Arc::clone(&rules), self.max_groups), Pending::default())).collect();
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
                        count += 1;
                        let (state, pending) = &mut states[usize::from(partition(&found, self.partitions))];
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

/// Alerts that changed and are not written yet, by id.
#[derive(Default)]
struct Pending(BTreeMap<String, Changed>);

/// An alert in its last state.
struct Changed {
    alert: Alert,
    /// Whether it is new to this process.
    raised: bool,
    /// When the event was received that changed it.
    received_millis: i64,
}

impl Pending {
    /// Notes what a match that was received at this time led to.
    fn note(&mut self, changes: Vec<Change>, received_millis: i64) {
        for change in changes {
            let raised = matches!(change, Change::Raised(_));
            let alert = change.into_alert();
            let raised = raised || self.0.get(&alert.id).is_some_and(|known| known.raised);
            self.0.insert(alert.id.clone(), Changed { alert, raised, received_millis });
        }
    }
}

/// One partition at work.
struct Partition {
    role: Arc<Correlate>,
    number: u16,
    state: Correlator,
    /// Versions of the alert records that are still growing.
    versions: HashMap<String, u64>,
}

/// Alerts in one message to respond.
const MAX_ANNOUNCED: usize = 100;
/// Versions that one partition remembers; past it all are forgotten, and found again in the store.
const MAX_VERSIONS: usize = 100_000;

impl Partition {
    async fn run(mut self, pending: Pending, shutdown: CancellationToken) -> Result<(), BrokerError> {
        let role = Arc::clone(&self.role);
        let mut plan = role.plan.clone();
        let mut consumer = role.broker.consume(Topic::Matches(self.number), SUBSCRIPTION, PREFETCH_BYTES).await?;
        if let Err(reason) = self.write_and_announce(pending, &shutdown).await {
            info!(reason, partition = self.number, "stopped before the alerts of before were written again");
            return Ok(());
        }
        loop {
            tokio::select! {
                biased;
                () = shutdown.cancelled() => return Ok(()),
                changed = plan.changed() => {
                    if changed.is_err() {
                        return Ok(());
                    }
                    let rules = Arc::clone(&plan.borrow_and_update().rules);
                    self.state.replace_rules(rules);
                }
                delivery = consumer.next() => {
                    let Some(delivery) = delivery? else { return Ok(()) };
                    match self.work(&delivery, &shutdown).await {
                        Ok(()) => consumer.ack(&[delivery.tag]).await?,
                        Err(reason) => {
                            warn!(reason, partition = self.number, "a batch of matches goes back to the queue");
                            consumer.reject(delivery.tag, &reason).await?;
                        }
                    }
                }
            }
        }
    }

    async fn work(&mut self, delivery: &Delivery, shutdown: &CancellationToken) -> Result<(), String> {
        let matches: Vec<Match> = batch::decode(batch::Kind::Matches, &delivery.body).map_err(|error| error.to_string())?;
        let before = self.state.overflow();
        let mut pending = Pending::default();
        for found in matches {
            let received_millis = found.received_millis;
            pending.note(self.state.apply(found), received_millis);
        }
        let after = self.state.overflow();
        for (kind, count) in [("groups", after.groups - before.groups), ("matches", after.matches - before.matches)] {
            if count > 0 {
                self.role.metrics.correlate_overflow.get_or_create(&KindLabels { kind }).inc_by(count);
            }
        }
        self.write_and_announce(pending, shutdown).await
    }

    /// Writes alerts, and announces every one that this process raised, whether or not an earlier life of it had written the record
    /// already: only the receiver knows whether the announcement came through.
    async fn write_and_announce(&mut self, pending: Pending, shutdown: &CancellationToken) -> Result<(), String> {
        let mut alerts: Vec<Changed> = pending.0.into_values().collect();
        let news: Vec<Alert> = alerts.iter().filter(|changed| changed.raised).map(|changed| changed.alert.clone()).collect();
        let mut backoff = Backoff::default();
        while !alerts.is_empty() {
            let puts = alerts.iter().map(|changed| self.put(&changed.alert)).collect();
            let outcomes = match self.role.store.put(puts).await {
                Ok(outcomes) => outcomes,
                Err(error) => {
                    warn!(%error, "the store did not take alerts; trying again");
                    backoff.pause(shutdown).await.map_err(|_| format!("stopped while the store did not answer: {error}"))?;
                    continue;
                }
            };
            let unsettled = alerts.into_iter().zip(outcomes);
            alerts = unsettled.filter_map(|(changed, outcome)| (!self.settle(&changed, outcome)).then_some(changed)).collect();
        }
        if self.versions.len() > MAX_VERSIONS {
            self.versions.clear();
        }
        for chunk in news.chunks(MAX_ANNOUNCED) {
            let body = batch::encode(batch::Kind::Alerts, chunk).map_err(|error| error.to_string())?;
            publish_until_taken(&*self.role.broker, Topic::Alerts, body, shutdown).await.map_err(|error| error.to_string())?;
        }
        Ok(())
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

    /// Takes note of an outcome. Returns false when the write must be tried again on top of what is there.
    fn settle(&mut self, changed: &Changed, outcome: PutOutcome) -> bool {
        let alert = &changed.alert;
        match outcome {
            PutOutcome::Written(version) => {
                if self.versions.insert(alert.id.clone(), version).is_none() {
                    self.count(changed);
                }
                true
            }
            PutOutcome::Conflict(Some(record)) => {
                self.versions.insert(alert.id.clone(), record.version);
                Alert::from_document(&record.body).is_ok_and(|known| !alert.supersedes(&known))
            }
            PutOutcome::Conflict(None) => {
                self.versions.remove(&alert.id);
                false
            }
        }
    }
}
