//! A running ingest over a queue in a temporary folder.

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::Path,
    sync::Arc,
    time::Duration,
};

use redoubt::{
    batch,
    broker::{
        Broker, Topic,
        embedded::{EmbeddedBroker, Options},
    },
    ingest::{Bound, EVENTS_SUBSCRIPTION, Ingest, IngestError, IngestOptions, IngestPlan},
    metrics::Metrics,
    secrets::Secrets,
};
use redoubt_crds::{Format, HttpAuth, HttpInput, IngestSpec, LogSourceSpec, SecretKeyRef, SyslogInput};
use redoubt_engine::{event::RawEvent, source::Source};
use tempfile::TempDir;
use tokio::{sync::watch, task::JoinHandle};
use tokio_util::sync::CancellationToken;

/// How long a condition may take to come true.
pub(crate) const DEADLINE: Duration = Duration::from_secs(60);
/// The time of receipt of every event.
pub(crate) const NOW: i64 = 1_700_000_000_000;

/// A running ingest. Dropping it leaves nothing behind.
pub(crate) struct Site {
    pub(crate) broker: Arc<EmbeddedBroker>,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) plan: watch::Sender<Arc<IngestPlan>>,
    pub(crate) bound: watch::Receiver<Bound>,
    pub(crate) shutdown: CancellationToken,
    pub(crate) running: JoinHandle<Result<(), IngestError>>,
    pub(crate) folder: TempDir,
    pub(crate) client: reqwest::Client,
}

/// Starts ingest with sources, the limits in force, and room in the queue.
pub(crate) async fn start_with(sources: Vec<Source>, spec: IngestSpec, queue: Options) -> Site {
    let folder = tempfile::tempdir().unwrap();
    start_in(folder, sources, spec, queue).await
}

/// Starts ingest with sources and the default limits.
pub(crate) async fn start(sources: Vec<Source>) -> Site {
    start_with(sources, IngestSpec::default(), Options::default()).await
}

/// Starts ingest in a folder that may hold secrets already.
pub(crate) async fn start_in(folder: TempDir, sources: Vec<Source>, spec: IngestSpec, queue: Options) -> Site {
    start_with_client(folder, sources, spec, queue, reqwest::Client::new(), "http").await
}

/// Starts ingest, and waits with a client and a scheme until it is ready.
pub(crate) async fn start_with_client(
    folder: TempDir,
    sources: Vec<Source>,
    spec: IngestSpec,
    queue: Options,
    client: reqwest::Client,
    scheme: &str,
) -> Site {
    let broker = Arc::new(EmbeddedBroker::open(&folder.path().join("queue"), queue).unwrap());
    let metrics = Metrics::new();
    let (plan, plans) = watch::channel(Arc::new(plan(sources, spec)));
    let options = IngestOptions { bind: IpAddr::V4(Ipv4Addr::LOCALHOST), ..IngestOptions::default() };
    let secrets = Secrets::new(folder.path().join("secrets"));
    let ingest = Ingest::new(plans, broker.clone(), secrets, metrics.clone(), Arc::new(|| NOW), options);
    let (bound, shutdown) = (ingest.bound(), CancellationToken::new());
    let running = tokio::spawn(ingest.run(shutdown.clone()));
    let site = Site { broker, metrics, plan, bound, shutdown, running, folder, client };
    site.until(|bound| bound.http.is_some()).await;
    eventually("ingest is ready", async || {
        let address = site.address();
        site.client.get(format!("{scheme}://{address}/readyz")).send().await.is_ok_and(|answer| answer.status() == 200)
    })
    .await;
    site
}

/// A plan whose HTTP listener takes any free port.
pub(crate) fn plan(sources: Vec<Source>, spec: IngestSpec) -> IngestPlan {
    let sources: BTreeMap<_, _> = sources.into_iter().map(|source| (source.name.to_string(), Arc::new(source))).collect();
    IngestPlan { sources, spec: IngestSpec { port: 0, ..spec } }
}

/// An HTTP source with a format, whose tokens are in the Secret of its name.
pub(crate) fn http(name: &str, format: Format) -> Source {
    Source::compile(name, &http_spec(name, format)).unwrap()
}

pub(crate) fn http_spec(secret: &str, format: Format) -> LogSourceSpec {
    let reference = |key: &str| Some(SecretKeyRef { name: secret.into(), key: key.into() });
    let http = Some(HttpInput { auth: HttpAuth { bearer: reference("tokens"), basic: reference("users") } });
    LogSourceSpec { http, format: Some(format), ..LogSourceSpec::default() }
}

/// A syslog source on any free port of each transport.
pub(crate) fn syslog(name: &str) -> Source {
    syslog_with(name, SyslogInput::default())
}

pub(crate) fn syslog_with(name: &str, input: SyslogInput) -> Source {
    let syslog = Some(SyslogInput { udp_port: Some(0), tcp_port: Some(0), ..input });
    Source::compile(name, &LogSourceSpec { syslog, ..LogSourceSpec::default() }).unwrap()
}

impl Site {
    /// Writes a key of a Secret.
    pub(crate) fn secret(&self, name: &str, key: &str, value: &str) {
        write_secret(self.folder.path(), name, key, value);
    }

    /// Where HTTP is spoken.
    pub(crate) fn address(&self) -> SocketAddr {
        self.bound.borrow().http.unwrap()
    }

    /// Where a source's syslog over UDP is taken.
    pub(crate) fn udp(&self, source: &str) -> SocketAddr {
        self.bound.borrow().udp[source]
    }

    /// Where a source's syslog over TCP or TLS is taken.
    pub(crate) fn tcp(&self, source: &str) -> SocketAddr {
        self.bound.borrow().tcp[source]
    }

    /// Waits until what is bound fulfils a condition.
    pub(crate) async fn until(&self, condition: impl FnMut(&Bound) -> bool) {
        let mut bound = self.bound.clone();
        tokio::time::timeout(DEADLINE, bound.wait_for(condition)).await.expect("the listeners change in time").unwrap();
    }

    /// A request with the token `token`.
    pub(crate) fn post(&self, path: &str) -> reqwest::RequestBuilder {
        self.client.post(format!("http://{}{path}", self.address())).bearer_auth("token")
    }

    /// The next events of the queue, so many of them; they are acknowledged.
    pub(crate) async fn take(&self, count: usize) -> Vec<RawEvent> {
        take(&self.broker, count).await
    }

    /// Bytes in the queue.
    pub(crate) async fn queued(&self) -> u64 {
        self.broker.depth(Topic::Events, EVENTS_SUBSCRIPTION).await.unwrap().bytes.unwrap()
    }

    /// Whether the metrics page has this line.
    pub(crate) fn counts(&self, line: &str) -> bool {
        self.metrics.encode().lines().any(|found| found == line)
    }
}

/// The next events of a queue, so many of them; they are acknowledged.
pub(crate) async fn take(broker: &EmbeddedBroker, count: usize) -> Vec<RawEvent> {
    let mut consumer = broker.consume(Topic::Events, EVENTS_SUBSCRIPTION, 1 << 30).await.unwrap();
    let mut events = Vec::new();
    while events.len() < count {
        let next = tokio::time::timeout(DEADLINE, consumer.next()).await;
        let found = events.len();
        let delivery = next.unwrap_or_else(|_| panic!("{found} of {count} events came in time")).unwrap().unwrap();
        events.extend(batch::decode_events(&delivery.body).unwrap());
        consumer.ack(&[delivery.tag]).await.unwrap();
    }
    events
}

/// The bodies of events, in order.
pub(crate) fn bodies(events: &[RawEvent]) -> Vec<&str> {
    events.iter().map(|event| event.body.as_str()).collect()
}

pub(crate) fn write_secret(folder: &Path, name: &str, key: &str, value: &str) {
    let secret = folder.join("secrets").join(name);
    std::fs::create_dir_all(&secret).unwrap();
    std::fs::write(secret.join(key), value).unwrap();
}

/// Waits for a condition that only asking again can tell.
pub(crate) async fn eventually(what: &str, mut condition: impl AsyncFnMut() -> bool) {
    let wait = async {
        while !condition().await {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    assert!(tokio::time::timeout(DEADLINE, wait).await.is_ok(), "{what}: not in time");
}
