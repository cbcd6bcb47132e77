//! The fourth role: does what ResponseActions say about alerts, once an alert.
//!
//! Each run of an action has a record in the store, written before the first attempt: an alert that is announced twice finds it and
//! does nothing. A crash in the middle of a call leaves it unknown whether the call came through; it is then made again under the same
//! `webhook-id`, by which the receiver can tell (Standard Webhooks 1.0.0, "Idempotency").

mod under_way;
pub mod webhook;

use std::sync::Arc;

use redoubt_engine::{alert::Alert, compile::Plan, event, respond::Action};
use serde_json::{Map, Value, json};
use tokio::{
    sync::{Semaphore, watch},
    task::JoinSet,
};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use self::under_way::UnderWay;
use crate::{
    backoff::Backoff,
    batch,
    broker::{Broker, BrokerError, Topic, declare_until_done},
    inflight::{InFlight, settle},
    metrics::{Metrics, ResponseLabels},
    store::{Expected, Family, Put, PutOutcome, Record, Store},
};

/// The subscription that respond holds on [`Topic::Alerts`].
pub const SUBSCRIPTION: &str = "respond";

const PREFETCH_BYTES: usize = 8 << 20;
/// Calls that may be under way at a time.
const MAX_CALLS: usize = 32;

/// Calls under way.
struct Calls {
    permits: Arc<Semaphore>,
    runs: UnderWay,
}

/// The role and what it stands on.
pub struct Respond {
    /// The actions in force.
    pub plan: watch::Receiver<Arc<Plan>>,
    /// Where alerts come from.
    pub broker: Arc<dyn Broker>,
    /// Where the record of each run is kept.
    pub store: Arc<dyn Store>,
    /// Calls of web services.
    pub webhooks: webhook::Client,
    /// Counters.
    pub metrics: Arc<Metrics>,
    /// The time now, milliseconds since 1970.
    pub now_millis: fn() -> i64,
}

/// How a run ended: the `state` of its record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Started,
    DryRun,
    Succeeded,
    Failed,
}

impl State {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Started => "started",
            Self::DryRun => "dry-run",
            Self::Succeeded => "succeeded",
            Self::Failed => "failed",
        }
    }
}

impl Respond {
    /// Works until told to stop; calls under way are then given up, and made again after the next start.
    ///
    /// # Errors
    /// The broker is gone for good.
    pub async fn run(self, shutdown: CancellationToken) -> Result<(), BrokerError> {
        declare_until_done(&*self.broker, Topic::Alerts, SUBSCRIPTION, &shutdown).await?;
        let mut consumer = self.broker.consume(Topic::Alerts, SUBSCRIPTION, PREFETCH_BYTES).await?;
        let role = Arc::new(self);
        let calls = Arc::new(Calls { permits: Arc::new(Semaphore::new(MAX_CALLS)), runs: UnderWay::default() });
        let mut running = InFlight::default();
        loop {
            tokio::select! {
                biased;
                () = shutdown.cancelled() => return Ok(()),
                Some((tag, done)) = running.next() => settle(&mut *consumer, tag, done, &shutdown).await?,
                delivery = consumer.next(), if running.len() < MAX_CALLS => {
                    let Some(delivery) = delivery? else { return Ok(()) };
                    let (role, calls, shutdown) = (Arc::clone(&role), Arc::clone(&calls), shutdown.clone());
                    running.spawn(delivery.tag, delivery.body.len(), async move {
                        match batch::decode::<Alert>(batch::Kind::Alerts, &delivery.body) {
                            Ok(alerts) => role.respond_to_all(alerts, &calls, &shutdown).await,
                            Err(error) => Err(error.to_string()),
                        }
                    });
                }
            }
        }
    }

    async fn respond_to_all(self: &Arc<Self>, alerts: Vec<Alert>, calls: &Arc<Calls>, shutdown: &CancellationToken) -> Result<(), String> {
        let actions = self.plan.borrow().actions.clone();
        let mut runs = JoinSet::new();
        for alert in alerts {
            for action in actions.iter().filter(|action| action.applies(&alert)) {
                let permit = Arc::clone(&calls.permits).acquire_owned().await.map_err(|error| error.to_string())?;
                let (role, calls) = (Arc::clone(self), Arc::clone(calls));
                let (action, alert, shutdown) = (Arc::clone(action), alert.clone(), shutdown.clone());
                runs.spawn(async move {
                    let done = role.run_once(&action, &alert, &calls.runs, &shutdown).await;
                    drop(permit);
                    done
                });
            }
        }
        let mut all = Ok(());
        while let Some(done) = runs.join_next().await {
            all = all.and(done.map_err(|error| error.to_string()).and_then(|done| done));
        }
        all
    }

    /// Runs one action for one alert, unless its record says that this has been done. A record that says `started` is of a run that a
    /// crash cut short, since those under way are waited for.
    async fn run_once(&self, action: &Action, alert: &Alert, runs: &UnderWay, shutdown: &CancellationToken) -> Result<(), String> {
        let id = event::digest(&["response", &action.name, &alert.id]);
        let _hold = runs.hold(&id).await;
        let begun = self.record(&id, Expected::Absent, self.body(action, alert, State::Started, ""), shutdown).await?;
        let version = match begun {
            PutOutcome::Written(version) => version,
            PutOutcome::Conflict(Some(Record { version, body })) if body.get("state") == Some(&json!(State::Started.as_str())) => version,
            PutOutcome::Conflict(_) => return Ok(()),
        };
        let (state, detail) = self.act(&id, action, alert, shutdown).await?;
        let labels = ResponseLabels { action: Arc::from(action.name.as_str()), result: state.as_str() };
        self.metrics.responses.get_or_create(&labels).inc();
        let body = self.body(action, alert, state, &detail);
        // A conflict here means that another holder of this subscription ended the same run: its record stands.
        self.record(&id, Expected::Version(version), body, shutdown).await.map(drop)
    }

    async fn act(&self, id: &str, action: &Action, alert: &Alert, shutdown: &CancellationToken) -> Result<(State, String), String> {
        let text = match action.render(alert) {
            Ok(text) => text,
            Err(error) => {
                warn!(action = action.name, alert = alert.id, %error, "a response could not be worded");
                return Ok((State::Failed, error.to_string()));
            }
        };
        let Some(target) = &action.spec.webhook else {
            info!(target: "redoubt::alert", "{text}");
            return Ok((State::Succeeded, String::new()));
        };
        if action.spec.dry_run {
            info!(action = action.name, alert = alert.id, rule = alert.rule.name, "dry run: this webhook would be called");
            return Ok((State::DryRun, String::new()));
        }
        match self.webhooks.call(id, target, &text, shutdown).await {
            Ok(()) => Ok((State::Succeeded, String::new())),
            Err(webhook::CallError::Stopped) => Err("stopped before the call came through".to_owned()),
            Err(webhook::CallError::GaveUp(reason)) => {
                warn!(action = action.name, alert = alert.id, reason, "a webhook could not be delivered");
                Ok((State::Failed, reason))
            }
        }
    }

    fn body(&self, action: &Action, alert: &Alert, state: State, detail: &str) -> Map<String, Value> {
        let mut body = Map::new();
        body.insert("@timestamp".to_owned(), json!(event::rfc3339((self.now_millis)())));
        body.insert("action".to_owned(), json!(action.name));
        body.insert("alert".to_owned(), json!({ "id": alert.id }));
        body.insert("rule".to_owned(), json!({ "name": alert.rule.name, "id": alert.rule.id }));
        body.insert("state".to_owned(), json!(state.as_str()));
        body.insert("detail".to_owned(), json!(detail));
        body
    }

    /// Writes the record of a run, trying again while the store does not answer.
    async fn record(
        &self,
        id: &str,
        expected: Expected,
        body: Map<String, Value>,
        shutdown: &CancellationToken,
    ) -> Result<PutOutcome, String> {
        let put = Put { family: Family::Responses, id: id.to_owned(), expected, received_millis: (self.now_millis)(), body };
        let mut backoff = Backoff::default();
        loop {
            match self.store.put(vec![put.clone()]).await {
                Ok(mut outcomes) => return outcomes.pop().ok_or_else(|| "the store answered nothing".to_owned()),
                Err(error) => {
                    warn!(%error, "the store did not take the record of a response; trying again");
                    backoff.pause(shutdown).await.map_err(|_| format!("stopped while the store did not answer: {error}"))?;
                }
            }
        }
    }
}
