//! All roles in one process, over the embedded broker and store: `redoubt run`.
//!
//! This is the only place that knows how the roles fit together. They are started from the end of the event's way to its beginning and
//! stopped in the other direction, so that each finds its receiver awake.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use anyhow::{Context as _, Result, anyhow};
use jiff::Timestamp;
use redoubt_engine::compile::Plan;
use tokio::{
    sync::watch,
    task::{JoinHandle, JoinSet},
};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::{
    broker::{self, Broker, Topic, embedded::EmbeddedBroker},
    correlate::{self, Correlate},
    ingest::{Ingest, IngestOptions, IngestPlan},
    metrics::{Metrics, QueueLabels},
    process::{self, Process},
    resources::Watched,
    respond::{self, Respond, webhook},
    retention::Retention,
    secrets::Secrets,
    store::{self, Store, embedded::EmbeddedStore},
};

/// How long a role may take to finish what it holds after the order to stop.
const DRAIN: Duration = Duration::from_secs(30);
/// How often the fill of the queues is measured.
const GAUGE_INTERVAL: Duration = Duration::from_secs(5);

/// What to run, and where.
#[derive(Debug, Clone)]
pub struct Options {
    /// Files and folders with resources.
    pub resources: Vec<PathBuf>,
    /// Where the queue and the store live.
    pub data: PathBuf,
    /// Where secrets lie, as `NAME/KEY`.
    pub secrets: PathBuf,
    /// Address that listeners bind to.
    pub bind: std::net::IpAddr,
}

/// A running SIEM.
pub struct Running {
    ingest: JoinHandle<Result<()>>,
    roles: JoinSet<Result<()>>,
    watching: JoinHandle<()>,
    stop_ingest: CancellationToken,
    stop_roles: CancellationToken,
    broker: Arc<dyn Broker>,
    store: Arc<dyn Store>,
}

/// The time now, in milliseconds since 1970: the one clock of the roles.
#[must_use]
pub fn now_millis() -> i64 {
    Timestamp::now().as_millisecond()
}

/// Opens the data folder and starts all roles on the resources that `watched` follows.
///
/// # Errors
/// The data folder is in use or unreadable, or a listener's address is taken.
pub async fn start(options: &Options, watched: Watched, metrics: Arc<Metrics>) -> Result<Running> {
    let plan = Arc::clone(&watched.plans().borrow());
    let broker = open_broker(&options.data, &plan)?;
    let store = open_store(&options.data, &plan)?;
    let secrets = Secrets::new(options.secrets.clone());
    let (stop_ingest, stop_roles) = (CancellationToken::new(), CancellationToken::new());
    let partitions = plan.siem.correlate.partitions;

    let respond = Respond {
        plan: watched.plans(),
        broker: Arc::clone(&broker),
        store: Arc::clone(&store),
        webhooks: webhook::Client::new(secrets.clone(), now_millis)?,
        metrics: Arc::clone(&metrics),
        now_millis,
    };
    let correlate = Correlate {
        plan: watched.plans(),
        broker: Arc::clone(&broker),
        store: Arc::clone(&store),
        metrics: Arc::clone(&metrics),
        partitions,
        max_groups: plan.siem.correlate.max_groups as usize,
        now_millis,
    };
    let process = Process {
        plan: watched.plans(),
        broker: Arc::clone(&broker),
        store: Arc::clone(&store),
        metrics: Arc::clone(&metrics),
        concurrency: std::thread::available_parallelism().map_or(2, usize::from) + 1,
        partitions,
    };
    let retention = Retention { plan: watched.plans(), store: Arc::clone(&store), now_millis };
    declare_all(&*broker, partitions).await?;

    let mut roles = JoinSet::new();
    let stop = stop_roles.clone();
    roles.spawn(async move { respond.run(stop).await.context("respond") });
    let stop = stop_roles.clone();
    roles.spawn(async move { correlate.run(stop).await.context("correlate") });
    let stop = stop_roles.clone();
    roles.spawn(async move { process.run(stop).await.context("process") });
    let stop = stop_roles.clone();
    roles.spawn(async move { retention.run(stop).await.context("retention") });
    let stop = stop_roles.clone();
    let (gauged, gauges) = (Arc::clone(&broker), Arc::clone(&metrics));
    roles.spawn(async move {
        measure_queues(&*gauged, partitions, &gauges, stop).await;
        Ok(())
    });

    let ingest_plans = ingest_plans(watched.plans(), stop_roles.clone());
    let listening = IngestOptions { bind: options.bind, drain: DRAIN };
    let ingest = Ingest::new(ingest_plans, Arc::clone(&broker), secrets, metrics, Arc::new(now_millis), listening);
    let stop = stop_ingest.clone();
    let ingest = tokio::spawn(async move { ingest.run(stop).await.context("ingest") });
    let watching = tokio::spawn(watched.run(stop_roles.clone()));
    Ok(Running { ingest, roles, watching, stop_ingest, stop_roles, broker, store })
}

impl Running {
    /// Waits until the future ends or a role fails, then stops everything: first what takes events in, then what works on them.
    ///
    /// # Errors
    /// A role failed.
    pub async fn until(mut self, end: impl Future<Output = ()>) -> Result<()> {
        let failed = tokio::select! {
            () = end => None,
            ended = &mut self.ingest => Some(ended.map_err(anyhow::Error::from).and_then(|done| done)),
            Some(ended) = self.roles.join_next() => Some(ended.map_err(anyhow::Error::from).and_then(|done| done)),
        };
        let ingest_ended = failed.is_some() && self.ingest.is_finished();
        self.stop_ingest.cancel();
        if !ingest_ended {
            // Bounded by its own time to drain.
            drop((&mut self.ingest).await);
        }
        self.stop_roles.cancel();
        let drained = tokio::time::timeout(DRAIN, async { while self.roles.join_next().await.is_some() {} }).await;
        if drained.is_err() {
            warn!(after = ?DRAIN, "unfinished work is left in the queue for the next start");
            self.roles.abort_all();
        }
        self.watching.abort();
        self.broker.close().await;
        self.store.close().await;
        info!("stopped");
        match failed {
            None => Ok(()),
            Some(Ok(())) => Err(anyhow!("a role ended by itself")),
            Some(Err(error)) => Err(error),
        }
    }

    /// The store, for whoever wants to look in while it runs.
    #[must_use]
    pub fn store(&self) -> Arc<dyn Store> {
        Arc::clone(&self.store)
    }
}

fn open_broker(data: &Path, plan: &Plan) -> Result<Arc<dyn Broker>> {
    let settings = &plan.siem.broker;
    let options =
        broker::embedded::Options { max_bytes: settings.max_bytes, delivery_limit: settings.delivery_limit, ..Default::default() };
    let folder = data.join("queue");
    Ok(Arc::new(EmbeddedBroker::open(&folder, options).with_context(|| format!("opening the queue in {}", folder.display()))?))
}

fn open_store(data: &Path, plan: &Plan) -> Result<Arc<dyn Store>> {
    let settings = &plan.siem.store;
    let buffer = usize::try_from(settings.index_buffer_bytes).unwrap_or(usize::MAX);
    let options = store::embedded::Options { index_buffer_bytes: buffer, refresh: settings.refresh.as_std() };
    let folder = data.join("store");
    Ok(Arc::new(EmbeddedStore::open(&folder, &options).with_context(|| format!("opening the store in {}", folder.display()))?))
}

/// Declares every subscription before the first event can come in: what is published before a subscription exists passes it by.
async fn declare_all(broker: &dyn Broker, partitions: u16) -> Result<()> {
    for (topic, subscription) in subscriptions(partitions) {
        broker.declare(topic, subscription).await?;
    }
    Ok(())
}

fn subscriptions(partitions: u16) -> impl Iterator<Item = (Topic, &'static str)> {
    let ends = [(Topic::Events, process::SUBSCRIPTION), (Topic::Alerts, respond::SUBSCRIPTION)];
    ends.into_iter().chain((0..partitions).map(|number| (Topic::Matches(number), correlate::SUBSCRIPTION)))
}

async fn measure_queues(broker: &dyn Broker, partitions: u16, metrics: &Metrics, shutdown: CancellationToken) {
    loop {
        for (topic, subscription) in subscriptions(partitions) {
            if let Ok(depth) = broker.depth(topic, subscription).await {
                let labels = QueueLabels { topic: topic.to_string(), subscription };
                metrics.queue_messages.get_or_create(&labels).set(gauge(depth.messages));
                if let Some(bytes) = depth.bytes {
                    metrics.queue_bytes.get_or_create(&labels).set(gauge(bytes));
                }
            }
        }
        tokio::select! {
            () = shutdown.cancelled() => return,
            () = tokio::time::sleep(GAUGE_INTERVAL) => {}
        }
    }
}

fn gauge(count: u64) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

/// The part of each plan that ingest needs.
fn ingest_plans(mut plans: watch::Receiver<Arc<Plan>>, shutdown: CancellationToken) -> watch::Receiver<Arc<IngestPlan>> {
    let part = |plan: &Plan| Arc::new(IngestPlan { sources: plan.sources.clone(), spec: plan.siem.ingest.clone() });
    let (sender, receiver) = watch::channel(part(&plans.borrow_and_update()));
    tokio::spawn(async move {
        loop {
            tokio::select! {
                () = shutdown.cancelled() => return,
                changed = plans.changed() => if changed.is_err() { return },
            }
            sender.send_replace(part(&plans.borrow_and_update()));
        }
    });
    receiver
}
