//! Which ports are open, as the plan changes.
//!
//! A change of the plan is a difference of two sets of [`Endpoint`]s: what is no longer wanted is closed, then what is new is opened.
//! An endpoint that both plans want is not touched, nor are its connections; settings that are not part of an endpoint, such as
//! limits, tokens and allowed senders, are looked up when they are needed. One that cannot be opened is tried again every few seconds.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use redoubt_crds::TlsSecretRef;
use tokio::{
    net::TcpListener,
    sync::watch,
    task::JoinHandle,
    time::{Instant, interval, timeout_at},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{Bound, Endpoint, IngestError, Shared, http, lifecycle::Lifecycle, server, syslog};
use crate::{metrics::CertificateLabels, tls::ServerTls};

/// How often what could not be opened is tried again.
const AGAIN: Duration = Duration::from_secs(5);
/// Names for ALPN (RFC 7301): HTTP/2 where the client can.
const HTTP_PROTOCOLS: [&str; 2] = ["h2", "http/1.1"];

/// All open listeners.
pub(super) struct Listeners {
    shared: Arc<Shared>,
    bind: IpAddr,
    bound: watch::Sender<Bound>,
    open: BTreeMap<Endpoint, Open>,
    failed: BTreeSet<Endpoint>,
    /// Connections of every listener, closed ones included.
    tracker: TaskTracker,
    kill: CancellationToken,
}

/// One open listener.
struct Open {
    address: SocketAddr,
    stop: CancellationToken,
    accepting: JoinHandle<()>,
    certificate: Option<(Arc<str>, ServerTls)>,
}

impl Listeners {
    pub(super) fn new(shared: Arc<Shared>, bind: IpAddr, bound: watch::Sender<Bound>) -> Self {
        let (tracker, kill) = (TaskTracker::new(), CancellationToken::new());
        Self { shared, bind, bound, open: BTreeMap::new(), failed: BTreeSet::new(), tracker, kill }
    }

    /// Opens what the first plan wants. Only the HTTP listener must succeed: without it nothing tells that the rest does not.
    pub(super) async fn open_first(&mut self) -> Result<(), IngestError> {
        for endpoint in Endpoint::wanted(&self.shared.plan()) {
            match self.open(&endpoint).await {
                Ok(open) => {
                    self.open.insert(endpoint, open);
                }
                Err(error) if matches!(endpoint, Endpoint::Http { .. }) => return Err(error),
                Err(error) => self.failure(endpoint, &error),
            }
        }
        self.publish();
        Ok(())
    }

    /// Follows the plan until it can change no more. Can be dropped at any point.
    pub(super) async fn follow(&mut self) {
        let mut plan = self.shared.plan.clone();
        let mut again = interval(AGAIN);
        loop {
            tokio::select! {
                changed = plan.changed() => {
                    if changed.is_err() {
                        // Nobody can change the plan any more; what is open stays so, and is waited for from outside.
                        return std::future::pending().await;
                    }
                    plan.borrow_and_update();
                    self.shared.quotas.retain(&self.shared.plan().sources);
                    self.reconcile().await;
                }
                _ = again.tick() => {
                    self.watch_certificates();
                    if !self.failed.is_empty() {
                        self.reconcile().await;
                    }
                }
            }
        }
    }

    async fn reconcile(&mut self) {
        let wanted = Endpoint::wanted(&self.shared.plan());
        self.failed.retain(|endpoint| wanted.contains(endpoint));
        // Closing comes first and is waited for, since a new endpoint may want the port of an old one.
        let unwanted: Vec<_> = self.open.keys().filter(|endpoint| !wanted.contains(*endpoint)).cloned().collect();
        for endpoint in unwanted {
            if let Some(open) = self.open.remove(&endpoint) {
                open.stop.cancel();
                // A listener that panicked is closed as well.
                let _ = open.accepting.await;
                tracing::info!(%endpoint, address = %open.address, "closed");
            }
        }
        for endpoint in wanted {
            if self.open.contains_key(&endpoint) {
                continue;
            }
            match self.open(&endpoint).await {
                Ok(open) => {
                    self.failed.remove(&endpoint);
                    self.open.insert(endpoint, open);
                }
                Err(error) => self.failure(endpoint, &error),
            }
        }
        self.publish();
    }

    /// Stops all listeners and waits until their connections and buffers have ended, or the deadline ends them.
    pub(super) async fn close(self, deadline: Instant) {
        for open in self.open.values() {
            open.stop.cancel();
        }
        self.tracker.close();
        if timeout_at(deadline, self.tracker.wait()).await.is_err() {
            tracing::warn!(connections = self.tracker.len(), "still busy at the end of the drain time; given up");
            self.kill.cancel();
            self.tracker.wait().await;
        }
    }

    async fn open(&self, endpoint: &Endpoint) -> Result<Open, IngestError> {
        let address = SocketAddr::new(self.bind, endpoint.port());
        let refused = |error| IngestError::Bind { endpoint: endpoint.to_string(), address, error };
        let tls = self.tls(endpoint)?;
        let stop = CancellationToken::new();
        let life = Lifecycle { stop: stop.clone(), kill: self.kill.clone(), tracker: self.tracker.clone() };
        let shared = self.shared.clone();
        let (address, accepting) = match endpoint {
            Endpoint::Http { .. } => {
                let listener = TcpListener::bind(address).await.map_err(refused)?;
                let router = http::router(shared.clone());
                let metrics = shared.metrics.clone();
                let address = listener.local_addr().map_err(refused)?;
                (address, tokio::spawn(server::serve(listener, tls.clone(), router, metrics, life)))
            }
            Endpoint::Udp { source, .. } => {
                let socket = syslog::udp::bind(address).map_err(refused)?;
                let address = socket.local_addr().map_err(refused)?;
                (address, tokio::spawn(syslog::udp::receive(socket, source.clone(), shared, life)))
            }
            Endpoint::Tcp { source, .. } => {
                let listener = TcpListener::bind(address).await.map_err(refused)?;
                let address = listener.local_addr().map_err(refused)?;
                (address, tokio::spawn(syslog::tcp::serve(listener, tls.clone(), source.clone(), shared, life)))
            }
        };
        tracing::info!(%endpoint, %address, "listening");
        let certificate = endpoint.tls().map(Arc::from).zip(tls);
        Ok(Open { address, stop, accepting, certificate })
    }

    fn tls(&self, endpoint: &Endpoint) -> Result<Option<ServerTls>, IngestError> {
        let Some(name) = endpoint.tls() else { return Ok(None) };
        let shown = || endpoint.to_string();
        let reference = TlsSecretRef { name: name.to_owned() };
        let directory = self.shared.secrets.tls_directory(&reference).map_err(|error| IngestError::Secret { endpoint: shown(), error })?;
        let protocols = if matches!(endpoint, Endpoint::Http { .. }) { &HTTP_PROTOCOLS[..] } else { &[] };
        let tls = ServerTls::load(directory, protocols).map_err(|error| IngestError::Tls { endpoint: shown(), error })?;
        Ok(Some(tls))
    }

    /// Shows when the certificates end.
    fn watch_certificates(&self) {
        for (name, tls) in self.open.values().filter_map(|open| open.certificate.as_ref()) {
            if let Some(expires) = tls.expires() {
                self.shared.metrics.tls_expiry_seconds.get_or_create(&CertificateLabels { secret: name.clone() }).set(expires);
            }
        }
    }

    /// Logs a failure when it is new.
    fn failure(&mut self, endpoint: Endpoint, error: &IngestError) {
        if self.failed.insert(endpoint) {
            tracing::error!(%error, again_in = ?AGAIN, "a listener is not open");
        }
    }

    /// Tells where is listened.
    fn publish(&self) {
        let mut bound = Bound::default();
        for (endpoint, open) in &self.open {
            match endpoint {
                Endpoint::Http { .. } => bound.http = Some(open.address),
                Endpoint::Udp { source, .. } => {
                    bound.udp.insert(source.clone(), open.address);
                }
                Endpoint::Tcp { source, .. } => {
                    bound.tcp.insert(source.clone(), open.address);
                }
            }
        }
        self.bound.send_replace(bound);
    }
}
