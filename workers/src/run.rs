//! The roles at work: all in one process (`redoubt run`), or one of them (`redoubt ingest`, `process`, `correlate`, `respond`).
//!
//! This is the only place that knows how the roles fit together. They are started from the end of the event's way to its beginning and
//! stopped in the other direction, so that each finds its receiver awake.

use std::{
    net::{IpAddr, SocketAddr},
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use anyhow::{Context as _, Result, anyhow, bail};
use futures::{TryStreamExt as _, stream};
use jiff::Timestamp;
use redoubt_engine::{compile::Plan, resource::Kind};
use tokio::{
    sync::watch,
    task::{JoinHandle, JoinSet},
};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::{
    backoff::Backoff,
    broker::{
        self, Broker, BrokerError, Topic, declare_until_done,
        embedded::EmbeddedBroker,
        rabbitmq::{Bounds, RabbitMq},
    },
    cores::Cores,
    correlate::{self, Correlate},
    health::{Health, Readiness},
    ingest::{Ingest, IngestOptions, IngestPlan},
    metrics::{Metrics, QueueLabels},
    process::{self, Process},
    resources::Watched,
    respond::{self, Respond, webhook},
    retention::Retention,
    role::Role,
    secrets::{Secrets, mirror::Mirror},
    store::{self, Store, elasticsearch::ElasticsearchStore, embedded::EmbeddedStore},
};

/// How long a role may take to finish what it holds after the order to stop.
const DRAIN: Duration = Duration::from_secs(30);
/// Subscriptions that are declared at a time.
const DECLARED_AT_A_TIME: usize = 16;
/// How often the fill of the queues is measured.
const GAUGE_INTERVAL: Duration = Duration::from_secs(2);

/// What to run, and where.
#[derive(Debug, Clone)]
pub struct Options {
    /// Where the queue and the store live.
    pub data: PathBuf,
    /// Where secrets lie, as `NAME/KEY`.
    pub secrets: PathBuf,
    /// Address that listeners bind to.
    pub bind: IpAddr,
    /// The one role to run, or all.
    pub role: Option<Role>,
    /// Port of the page of health and metrics, where there is to be one. Ingest has one on its HTTP listener, too.
    pub health_port: Option<u16>,
}

/// A running SIEM, or a part of one.
pub struct Running {
    /// Ended first, and so that what it took in is safe.
    ingest: Option<JoinHandle<Result<()>>>,
    roles: JoinSet<Result<()>>,
    watching: JoinHandle<()>,
    stop_ingest: CancellationToken,
    stop_roles: CancellationToken,
    broker: Arc<dyn Broker>,
    store: Option<Arc<dyn Store>>,
    readiness: Readiness,
}

/// The time now, in milliseconds since 1970: the one clock of the roles.
#[must_use]
pub fn now_millis() -> i64 {
    Timestamp::now().as_millisecond()
}

/// Starts what the options say on the resources that `watched` follows. With the resources of a namespace, that waits until there are a
/// Siem, the Secrets that the role cannot do without, and a store that answers, and the page of health says which of them it waits for.
///
/// # Errors
/// The data folder is in use or unreadable, a listener's address is taken, or a role on its own has no broker or store that others
/// share.
pub async fn start(options: &Options, watched: Watched, metrics: Arc<Metrics>) -> Result<Running> {
    let (stop_ingest, stop_roles) = (CancellationToken::new(), CancellationToken::new());
    let abandoned = stop_roles.clone().drop_guard();
    let mut roles = JoinSet::new();
    let (plans, readiness, namespace) = (watched.plans(), watched.readiness(), watched.namespace().cloned());
    let health = Health::new(Arc::clone(&metrics), readiness.clone(), plans.clone());
    if let Some(port) = options.health_port {
        health.serve(SocketAddr::new(options.bind, port), &mut roles, stop_roles.clone()).await?;
    }
    let watching = tokio::spawn(watched.run(stop_roles.clone()));
    if let (Some(namespace), Some(role)) = (&namespace, options.role) {
        let has_siem = |plan: &Arc<Plan>| plan.running().any(|running| running.kind == Kind::Siem);
        plans.clone().wait_for(has_siem).await?;
        let (plans, stop) = (plans.clone(), stop_roles.clone());
        let mut mirror = Mirror::start(namespace, &options.secrets, role, plans, Arc::clone(&metrics), stop)?;
        mirror.until_enough(|lack| readiness.waits_for(lack)).await;
    }
    let plan = Arc::clone(&plans.borrow());
    if let Some(role) = options.role {
        check_shared(role, &plan)?;
    }

    let runs = |role: Role| options.role.is_none_or(|only| only == role);
    let secrets = Secrets::new(options.secrets.clone());
    let cores = Cores::of_this_machine(options.role.is_none());
    let broker = open_broker(options, &plan, &secrets)?;
    health.ask(Arc::clone(&broker), watched_queues(options.role, &plan).next());
    let store = match options.role {
        Some(Role::Ingest) => None,
        // Where an operator runs the store, it may come up after this process.
        _ if namespace.is_some() => Some(open_store_until_done(options, &plan, &secrets, &readiness).await),
        _ => Some(open_store(&options.data, &plan, &secrets).await?),
    };
    readiness.waits_for("the broker does not answer yet");
    if let Some(store) = &store {
        declare_all(&*broker, plan.siem.correlate.partitions, &stop_roles).await?;
        let parts = Parts { plan: plans.clone(), broker: &broker, store, secrets: &secrets, metrics: &metrics, cores: &cores };
        parts.spawn(runs, &mut roles, &stop_roles)?;
    }
    let queues: Vec<(Topic, &'static str)> = watched_queues(options.role, &plan).collect();
    let (gauged, gauges, stop) = (Arc::clone(&broker), Arc::clone(&metrics), stop_roles.clone());
    roles.spawn(async move {
        measure_queues(&*gauged, &queues, &gauges, stop).await;
        Ok(())
    });

    let mut ingest = None;
    if runs(Role::Ingest) {
        let ingest_plans = ingest_plans(plans, stop_roles.clone());
        let listening = IngestOptions { bind: options.bind, drain: DRAIN, cores };
        let role = Ingest::new(ingest_plans, Arc::clone(&broker), secrets, metrics, Arc::new(now_millis), listening);
        let (stop, mut bound) = (stop_ingest.clone(), role.bound());
        ingest = Some(tokio::spawn(async move { role.run(stop).await.context("ingest") }));
        // Where it does not come to listen, its end says why.
        let _ = bound.wait_for(|bound| bound.http.is_some()).await;
    }
    readiness.started();
    abandoned.disarm();
    Ok(Running { ingest, roles, watching, stop_ingest, stop_roles, broker, store, readiness })
}

/// A role on its own works with others through a broker and a store that all of them reach.
fn check_shared(role: Role, plan: &Plan) -> Result<()> {
    if plan.siem.broker.external.is_none() {
        bail!(
            "`redoubt {role}` is one of several processes, so the Siem must name a RabbitMQ in spec.broker.external; `redoubt run` needs none"
        );
    }
    if role != Role::Ingest && plan.siem.store.external.is_none() {
        bail!(
            "`redoubt {role}` is one of several processes, so the Siem must name an Elasticsearch in spec.store.external; `redoubt run` needs none"
        );
    }
    Ok(())
}

/// What the roles behind the first queue are made of.
struct Parts<'a> {
    plan: watch::Receiver<Arc<Plan>>,
    broker: &'a Arc<dyn Broker>,
    store: &'a Arc<dyn Store>,
    secrets: &'a Secrets,
    metrics: &'a Arc<Metrics>,
    cores: &'a Cores,
}

impl Parts<'_> {
    fn spawn(&self, runs: impl Fn(Role) -> bool, roles: &mut JoinSet<Result<()>>, stop: &CancellationToken) -> Result<()> {
        let (partitions, max_groups) = {
            let plan = self.plan.borrow();
            (plan.siem.correlate.partitions, plan.siem.correlate.max_groups as usize)
        };
        if runs(Role::Respond) {
            let respond = Respond {
                plan: self.plan.clone(),
                broker: Arc::clone(self.broker),
                store: Arc::clone(self.store),
                webhooks: webhook::Client::new(self.secrets.clone(), now_millis)?,
                metrics: Arc::clone(self.metrics),
                now_millis,
            };
            let stop = stop.clone();
            roles.spawn(async move { respond.run(stop).await.context("respond") });
        }
        if runs(Role::Correlate) {
            let correlate = Correlate {
                plan: self.plan.clone(),
                broker: Arc::clone(self.broker),
                store: Arc::clone(self.store),
                metrics: Arc::clone(self.metrics),
                partitions,
                max_groups,
                now_millis,
            };
            let stop = stop.clone();
            roles.spawn(async move { correlate.run(stop).await.context("correlate") });
        }
        if runs(Role::Process) {
            let process = Process {
                plan: self.plan.clone(),
                broker: Arc::clone(self.broker),
                store: Arc::clone(self.store),
                metrics: Arc::clone(self.metrics),
                cores: self.cores.for_another(),
                partitions,
            };
            // Where several processes do it, they delete the same.
            let retention = Retention { plan: self.plan.clone(), store: Arc::clone(self.store), now_millis };
            let stops = (stop.clone(), stop.clone());
            roles.spawn(async move { process.run(stops.0).await.context("process") });
            roles.spawn(async move { retention.run(stops.1).await.context("retention") });
        }
        Ok(())
    }
}

impl Running {
    /// Waits until the future ends or a role fails, then stops everything: first what takes events in, then what works on them.
    ///
    /// # Errors
    /// A role failed.
    pub async fn until(mut self, end: impl Future<Output = ()>) -> Result<()> {
        let failed = tokio::select! {
            () = end => None,
            ended = joined(&mut self.ingest) => Some(ended),
            Some(ended) = self.roles.join_next() => Some(ended.map_err(anyhow::Error::from).and_then(|done| done)),
        };
        self.readiness.stopping();
        self.stop_ingest.cancel();
        if let Some(ingest) = self.ingest.take().filter(|ingest| !ingest.is_finished()) {
            // Bounded by its own time to drain.
            drop(ingest.await);
        }
        self.stop_roles.cancel();
        let drained = tokio::time::timeout(DRAIN, async { while self.roles.join_next().await.is_some() {} }).await;
        if drained.is_err() {
            warn!(after = ?DRAIN, "unfinished work is left in the queue for the next start");
            self.roles.abort_all();
        }
        self.watching.abort();
        self.broker.close().await;
        if let Some(store) = &self.store {
            store.close().await;
        }
        info!("stopped");
        match failed {
            None => Ok(()),
            Some(Ok(())) => Err(anyhow!("a role ended by itself")),
            Some(Err(error)) => Err(error),
        }
    }
}

/// The end of ingest; never, where it does not run.
async fn joined(ingest: &mut Option<JoinHandle<Result<()>>>) -> Result<()> {
    match ingest {
        Some(ingest) => ingest.await.map_err(anyhow::Error::from).and_then(|done| done),
        None => std::future::pending().await,
    }
}

fn open_broker(options: &Options, plan: &Plan, secrets: &Secrets) -> Result<Arc<dyn Broker>> {
    let settings = &plan.siem.broker;
    if let Some(external) = &settings.external {
        let bounds = Bounds { max_bytes: settings.max_bytes, delivery_limit: settings.delivery_limit };
        let role = options.role.map_or_else(|| "run".to_owned(), |role| role.to_string());
        return Ok(Arc::new(RabbitMq::new(external, bounds, secrets.clone(), &format!("redoubt {role}"))));
    }
    Ok(Arc::new(open_embedded_broker(&options.data, plan)?))
}

/// Opens the queue in a data folder.
pub(crate) fn open_embedded_broker(data: &Path, plan: &Plan) -> Result<EmbeddedBroker> {
    let settings = &plan.siem.broker;
    let options =
        broker::embedded::Options { max_bytes: settings.max_bytes, delivery_limit: settings.delivery_limit, ..Default::default() };
    let folder = data.join("queue");
    EmbeddedBroker::open(&folder, options).with_context(|| format!("opening the queue in {}", folder.display()))
}

async fn open_store(data: &Path, plan: &Plan, secrets: &Secrets) -> Result<Arc<dyn Store>> {
    let settings = &plan.siem.store;
    if let Some(external) = &settings.external {
        let options = store::elasticsearch::Options { refresh: settings.refresh.as_std(), ..Default::default() };
        let opened = ElasticsearchStore::open(external, secrets.clone(), &options).await;
        return Ok(Arc::new(opened.with_context(|| format!("opening the store at {}", external.urls.join(", ")))?));
    }
    let buffer = usize::try_from(settings.index_buffer_bytes).unwrap_or(usize::MAX);
    let options = store::embedded::Options { index_buffer_bytes: buffer, refresh: settings.refresh.as_std() };
    let folder = data.join("store");
    Ok(Arc::new(EmbeddedStore::open(&folder, &options).with_context(|| format!("opening the store in {}", folder.display()))?))
}

/// Opens the store as often as it takes.
async fn open_store_until_done(options: &Options, plan: &Plan, secrets: &Secrets, readiness: &Readiness) -> Arc<dyn Store> {
    readiness.waits_for("the store does not answer yet");
    let (mut pauses, never) = (Backoff::default(), CancellationToken::new());
    loop {
        match open_store(&options.data, plan, secrets).await {
            Ok(store) => return store,
            Err(error) => readiness.waits_for(format!("{error:#}")),
        }
        // Fails only at a shutdown, which ends this from outside.
        let _ = pauses.pause(&never).await;
    }
}

/// Declares every subscription before the first event can come in: what is published before a subscription exists passes it by.
async fn declare_all(broker: &dyn Broker, partitions: u16, stop: &CancellationToken) -> Result<()> {
    let all = stream::iter(subscriptions(partitions).map(Ok));
    let declared =
        all.try_for_each_concurrent(DECLARED_AT_A_TIME, |(topic, subscription)| declare_until_done(broker, topic, subscription, stop));
    Ok(declared.await?)
}

fn subscriptions(partitions: u16) -> impl Iterator<Item = (Topic, &'static str)> {
    let ends = [(Topic::Events, process::SUBSCRIPTION), (Topic::Alerts, respond::SUBSCRIPTION)];
    ends.into_iter().chain((0..partitions).map(|number| (Topic::Matches(number), correlate::SUBSCRIPTION)))
}

/// The queues that a role reads (ingest: that it fills), so that no two roles show the same.
fn watched_queues(role: Option<Role>, plan: &Plan) -> impl Iterator<Item = (Topic, &'static str)> {
    subscriptions(plan.siem.correlate.partitions).filter(move |(topic, _)| match role {
        None => true,
        Some(Role::Ingest | Role::Process) => *topic == Topic::Events,
        Some(Role::Correlate) => matches!(topic, Topic::Matches(_)),
        Some(Role::Respond) => *topic == Topic::Alerts,
    })
}

async fn measure_queues(broker: &dyn Broker, queues: &[(Topic, &'static str)], metrics: &Metrics, shutdown: CancellationToken) {
    loop {
        let begun = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        if measure_once(broker, queues, metrics).await.is_ok() {
            metrics.queues_measured_seconds.set(begun.as_secs_f64());
        }
        tokio::select! {
            () = shutdown.cancelled() => return,
            () = tokio::time::sleep(GAUGE_INTERVAL) => {}
        }
    }
}

/// A broker that does not answer leaves the gauges as they are; the time of the last measurement shows their age.
async fn measure_once(broker: &dyn Broker, queues: &[(Topic, &'static str)], metrics: &Metrics) -> Result<(), BrokerError> {
    for (topic, subscription) in queues {
        let depth = broker.depth(*topic, subscription).await?;
        let labels = QueueLabels { topic: topic.to_string(), subscription };
        metrics.queue_messages.get_or_create(&labels).set(gauge(depth.messages));
        if let Some(bytes) = depth.bytes {
            metrics.queue_bytes.get_or_create(&labels).set(gauge(bytes));
        }
    }
    metrics.dead_messages.set(gauge(broker.dead_depth().await?.messages));
    Ok(())
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
