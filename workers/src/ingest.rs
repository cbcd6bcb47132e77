//! The first role: takes events in, and answers success only for what the broker has made durable.
//!
//! ```text
//! HTTP ----- credentials, body, items ---+
//!                                        +--> quota --> batches --> Broker::publish --> answer, counters
//! syslog --- framing, buffer ------------+
//! AMQP ----- framing, batch -------------+
//! ```
//!
//! Ingest cuts and stamps; it never understands an event, and never alters one (but for the id that a bulk request gives it). What it
//! accepts it has counted, and what it refuses it has counted and, where the protocol can, answered. Sources come and go while it
//! runs: [`listeners`] opens and closes ports as the plan changes and touches no other connection. Everything that a sender could make
//! grow is bounded: connections, bodies (each and together), items, buffers, waiting refusals, log lines.

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use redoubt_crds::IngestSpec;
use redoubt_engine::source::Source;
use tokio::{
    sync::watch,
    time::{Instant, sleep},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use self::{auth::Credentials, body::Budget, endpoint::Endpoint, listeners::Listeners, quota::Quotas};
use crate::{
    broker::{Broker, BrokerError, Topic},
    cores::Cores,
    metrics::{IngestLabels, Metrics, SourceLabels},
    secrets::Secrets,
    tls::TlsError,
};

mod amqp;
mod answer;
mod auth;
mod body;
mod endpoint;
mod http;
mod intake;
mod lifecycle;
mod listeners;
mod log_throttle;
mod quota;
mod server;
mod syslog;

/// The subscription of [`Topic::Events`] that the process role consumes. Ingest declares it before it takes the first event, so that
/// no event is published while nobody is subscribed.
pub const EVENTS_SUBSCRIPTION: &str = "process";

/// How long declaring waits before it tries again.
const DECLARE_AGAIN: Duration = Duration::from_secs(1);

/// The wall clock: milliseconds since 1970.
pub type Clock = Arc<dyn Fn() -> i64 + Send + Sync>;

/// What ingest needs of the compiled resources.
#[derive(Debug, Clone, Default)]
pub struct IngestPlan {
    /// The sources by name.
    pub sources: BTreeMap<String, Arc<Source>>,
    /// The HTTP listener and the limits.
    pub spec: IngestSpec,
}

/// What is the process's to say, not the resources'.
#[derive(Debug, Clone)]
pub struct IngestOptions {
    /// The address that every listener binds.
    pub bind: IpAddr,
    /// How long a shutdown waits for running requests and for buffered syslog messages to become durable.
    pub drain: Duration,
    /// Where large bodies are cut.
    pub cores: Cores,
}

impl Default for IngestOptions {
    fn default() -> Self {
        Self { bind: IpAddr::V4(Ipv4Addr::UNSPECIFIED), drain: Duration::from_secs(20), cores: Cores::of_this_machine(false) }
    }
}

/// Why ingest did not start.
#[derive(Debug, thiserror::Error)]
pub enum IngestError {
    /// A port could not be opened.
    #[error("{endpoint} cannot listen on {address}: {error}; free the port, or choose another")]
    Bind {
        /// What wanted to listen.
        endpoint: String,
        /// Where.
        address: SocketAddr,
        /// What the system said.
        error: std::io::Error,
    },
    /// The listener's certificate could not be loaded.
    #[error("{endpoint} has no certificate: {error}")]
    Tls {
        /// What wanted to listen.
        endpoint: String,
        /// What is wrong with the certificate.
        error: TlsError,
    },
    /// The name of the listener's Secret is not one.
    #[error("{endpoint} has no certificate: {error}")]
    Secret {
        /// What wanted to listen.
        endpoint: String,
        /// What is wrong with the name.
        error: crate::secrets::SecretError,
    },
}

/// Where ingest listens now.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Bound {
    /// The HTTP listener.
    pub http: Option<SocketAddr>,
    /// UDP listeners by source.
    pub udp: BTreeMap<String, SocketAddr>,
    /// TCP and TLS listeners by source.
    pub tcp: BTreeMap<String, SocketAddr>,
}

/// The role, ready to run.
pub struct Ingest {
    shared: Arc<Shared>,
    options: IngestOptions,
    bound: watch::Sender<Bound>,
}

/// What every part of the role works with.
struct Shared {
    plan: watch::Receiver<Arc<IngestPlan>>,
    broker: Arc<dyn Broker>,
    secrets: Secrets,
    metrics: Arc<Metrics>,
    clock: Clock,
    credentials: Credentials,
    bodies: Arc<Budget>,
    quotas: Quotas,
    cores: Cores,
    /// Publishing that must end before the role does, whatever became of its request.
    tasks: TaskTracker,
    /// Whether [`EVENTS_SUBSCRIPTION`] exists.
    declared: AtomicBool,
    stopping: AtomicBool,
}

impl Ingest {
    /// The role over its parts. Nothing listens before [`Ingest::run`].
    #[must_use]
    pub fn new(
        plan: watch::Receiver<Arc<IngestPlan>>,
        broker: Arc<dyn Broker>,
        secrets: Secrets,
        metrics: Arc<Metrics>,
        clock: Clock,
        options: IngestOptions,
    ) -> Self {
        let shared = Shared {
            plan,
            broker,
            credentials: Credentials::new(secrets.clone()),
            secrets,
            bodies: Budget::new(metrics.clone()),
            metrics,
            clock,
            quotas: Quotas::default(),
            cores: options.cores.clone(),
            tasks: TaskTracker::new(),
            declared: AtomicBool::new(false),
            stopping: AtomicBool::new(false),
        };
        Self { shared: Arc::new(shared), options, bound: watch::Sender::default() }
    }

    /// The addresses that are listened on, as they change. Tells the port where the plan says 0.
    #[must_use]
    pub fn bound(&self) -> watch::Receiver<Bound> {
        self.bound.subscribe()
    }

    /// Takes events in until the shutdown, then drains: no new connections, running requests are answered, buffered syslog messages
    /// become durable, all within [`IngestOptions::drain`].
    ///
    /// # Errors
    /// The HTTP listener cannot be opened at the start. A syslog listener that cannot, and any listener later on, is logged and tried
    /// again.
    pub async fn run(self, shutdown: CancellationToken) -> Result<(), IngestError> {
        let Self { shared, options, bound } = self;
        let mut listeners = Listeners::new(shared.clone(), options.bind, bound);
        listeners.open_first().await?;
        let declaring = declare(&shared);
        let following = listeners.follow();
        let taking = amqp::follow(&shared, &shutdown);
        tokio::select! {
            () = shutdown.cancelled() => {}
            ((), (), ()) = async { tokio::join!(declaring, following, taking) } => {}
        }

        tracing::info!("ingest drains");
        shared.stopping.store(true, Ordering::Relaxed);
        let deadline = Instant::now() + options.drain;
        listeners.close(deadline).await;
        shared.tasks.close();
        if tokio::time::timeout_at(deadline, shared.tasks.wait()).await.is_err() {
            tracing::error!(waited = ?options.drain, "the broker did not confirm in time; these senders got no answer and will send again");
        }
        Ok(())
    }
}

/// Declares the subscription, until it succeeds.
async fn declare(shared: &Shared) {
    while let Err(error) = shared.broker.declare(Topic::Events, EVENTS_SUBSCRIPTION).await {
        tracing::warn!(%error, "the events subscription is not there yet; no event is taken before it is");
        sleep(DECLARE_AGAIN).await;
    }
    shared.declared.store(true, Ordering::Release);
}

impl Shared {
    /// The plan in force.
    fn plan(&self) -> Arc<IngestPlan> {
        self.plan.borrow().clone()
    }

    /// Publishes messages of a source and counts their events. What is refused is not counted as taken, and its quota is given back.
    async fn publish(&self, source: &Source, messages: Vec<Vec<u8>>, events: usize, bytes: u64) -> Result<(), BrokerError> {
        let result = if self.declared.load(Ordering::Acquire) {
            self.broker.publish(Topic::Events, messages).await
        } else {
            Err(BrokerError::Unavailable("its subscriptions are not declared yet".to_owned()))
        };
        if result.is_err() {
            self.quotas.give_back(source, events);
            return result;
        }
        let labels = IngestLabels { source: source.name.clone(), result: "accepted" };
        self.metrics.ingest_events.get_or_create(&labels).inc_by(events as u64);
        self.metrics.ingest_bytes.get_or_create(&SourceLabels { source: source.name.clone() }).inc_by(bytes);
        result
    }

    fn count_rejected(&self, source: &Source, events: usize) {
        if events > 0 {
            let labels = IngestLabels { source: source.name.clone(), result: "rejected" };
            self.metrics.ingest_events.get_or_create(&labels).inc_by(events as u64);
        }
    }

    /// Whether requests can be expected to succeed, and if not, why.
    async fn readiness(&self) -> Result<(), String> {
        if self.stopping.load(Ordering::Relaxed) {
            return Err("shutting down".to_owned());
        }
        if !self.declared.load(Ordering::Acquire) {
            return Err("the broker has no events subscription yet".to_owned());
        }
        self.broker.depth(Topic::Events, EVENTS_SUBSCRIPTION).await.map(|_| ()).map_err(|error| error.to_string())
    }
}
