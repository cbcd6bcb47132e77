//! One of several operators works; the others wait.
//!
//! The lease is a `Lease` of Kubernetes, kept by `kube-lease-manager`. That crate goes on trying when the API server does not answer and
//! says nothing while it does, although by then another process may hold the lease. So the calls that renew it are watched here: when
//! none has succeeded for [`GOOD_FOR`], shorter than the lease lasts, the lease counts as lost. All work is then ended before another can
//! have begun, and the process ends: whoever started it starts it again, to wait for its turn.

use std::{
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll},
    time::Duration,
};

use anyhow::{Result, bail};
use futures::{FutureExt as _, future::BoxFuture};
use http::{Method, Request, Response};
use kube::{
    Client, Config,
    client::{Body, ClientBuilder},
};
use kube_lease_manager::{LeaseManager, LeaseManagerBuilder};
use tokio::{task::JoinHandle, time::Instant};
use tokio_util::sync::CancellationToken;
use tower::{BoxError, Layer, Service, timeout::TimeoutLayer};
use tracing::{info, warn};

use crate::{
    health::{Health, Phase},
    metrics::Metrics,
};

/// How long the lease lasts without being renewed, in seconds.
const LASTS: u64 = 15;
/// How long before its end it is renewed, in seconds: every 5 s.
const RENEWED_BEFORE: u64 = 10;
/// How long after its last renewal the lease is relied on. The rest is for clocks that differ and for work to end.
const GOOD_FOR: Duration = Duration::from_secs(12);
/// How long one call for the lease may take.
const CALL: Duration = Duration::from_secs(3);
/// The pause after a call that failed.
const PAUSE: Duration = Duration::from_secs(1);

/// Which lease, and in whose name.
#[derive(Debug, Clone)]
pub struct Lease {
    /// Its name.
    pub name: String,
    /// Its namespace.
    pub namespace: String,
    /// Who this process is. No other process may call itself so.
    pub identity: String,
}

/// Does the work without asking anybody.
///
/// # Errors
/// Those of the work, and that it does not end within `stop_within` of the order to stop.
pub async fn alone<W, F>(metrics: &Metrics, shutdown: CancellationToken, stop_within: Duration, work: W) -> Result<()>
where
    W: FnOnce(CancellationToken) -> F,
    F: Future<Output = Result<()>> + Send + 'static,
{
    metrics.leader.set(1);
    Work::start(work).done_or_told(&shutdown, stop_within).await
}

/// Waits for the lease, does the work while it is held, and gives it back.
///
/// # Errors
/// The lease was lost; those of the work, and that it does not end within `stop_within` of the order to stop.
pub async fn lead<W, F>(
    config: Config,
    lease: Lease,
    metrics: &Metrics,
    health: &Health,
    shutdown: CancellationToken,
    stop_within: Duration,
    work: W,
) -> Result<()>
where
    W: FnOnce(CancellationToken) -> F,
    F: Future<Output = Result<()>> + Send + 'static,
{
    let renewals = Renewals::default();
    let client = connect(config, &renewals)?;
    health.is(Phase::Waiting);
    info!(lease = lease.name, namespace = lease.namespace, identity = lease.identity, "waiting for the lease");
    let manager = tokio::select! {
        manager = get_lease(&client, &lease) => manager,
        () = shutdown.cancelled() => return Ok(()),
    };
    tokio::select! {
        () = until(&manager, true) => {}
        () = shutdown.cancelled() => {
            give_back(&manager).await;
            return Ok(());
        }
    }

    info!("the lease is held: this operator works");
    metrics.leader.set(1);
    let mut task = Work::start(work);
    let end = tokio::select! {
        outcome = task.done_or_told(&shutdown, stop_within) => Ok(outcome),
        // While work is done, and while it ends, the lease is renewed.
        () = until(&manager, false) => Err(Lost::Taken),
        () = renewals.too_old() => Err(Lost::NotRenewed),
    };
    metrics.leader.set(0);
    match end {
        Ok(outcome) => {
            give_back(&manager).await;
            outcome
        }
        Err(lost) => {
            task.abort().await;
            bail!("the lease {}/{} {lost}", lease.namespace, lease.name)
        }
    }
}

/// Why the lease is no longer relied on.
#[derive(Debug, thiserror::Error)]
enum Lost {
    #[error("was taken by another operator")]
    Taken,
    #[error("could not be renewed for {} s: the API server did not answer, and by now another operator may hold it", GOOD_FOR.as_secs())]
    NotRenewed,
}

/// The work, in a task of its own.
struct Work {
    handle: JoinHandle<Result<()>>,
    stop: CancellationToken,
}

impl Work {
    fn start<W, F>(work: W) -> Self
    where
        W: FnOnce(CancellationToken) -> F,
        F: Future<Output = Result<()>> + Send + 'static,
    {
        let stop = CancellationToken::new();
        Self { handle: tokio::spawn(work(stop.clone())), stop }
    }

    /// Waits until the work is done, or told to end and has done so.
    async fn done_or_told(&mut self, shutdown: &CancellationToken, within: Duration) -> Result<()> {
        tokio::select! {
            done = &mut self.handle => return done?,
            () = shutdown.cancelled() => self.stop.cancel(),
        }
        match tokio::time::timeout(within, &mut self.handle).await {
            Ok(done) => done?,
            Err(_) => bail!("what was under way did not end within {} s of the order to stop", within.as_secs()),
        }
    }

    /// Ends the work where it stands: no call of it is begun after this.
    async fn abort(&mut self) {
        self.stop.cancel();
        self.handle.abort();
        // What it ended with does not matter any more.
        drop((&mut self.handle).await);
    }
}

/// The lease, made where it is not there. Goes on trying.
async fn get_lease(client: &Client, lease: &Lease) -> LeaseManager {
    loop {
        let builder = LeaseManagerBuilder::new(client.clone(), &lease.name)
            .with_namespace(&lease.namespace)
            .with_identity(&lease.identity)
            .with_field_manager(format!("redoubt-operator-{}", lease.identity))
            .with_duration(LASTS)
            .with_grace(RENEWED_BEFORE);
        match builder.build().await {
            Ok(manager) => return manager,
            Err(error) => warn!(%error, "the lease cannot be read or made; trying again"),
        }
        tokio::time::sleep(PAUSE).await;
    }
}

/// Keeps the lease, or waits for it, until it is held or not, as asked.
async fn until(manager: &LeaseManager, held: bool) {
    loop {
        match manager.changed().await {
            Ok(now) if now == held => return,
            Ok(_) => {}
            Err(error) => {
                warn!(%error, "a call for the lease failed; trying again");
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
}

/// Lets another have the lease at once, if it is held; without an answer it runs out by itself.
async fn give_back(manager: &LeaseManager) {
    if let Ok(Err(error)) = tokio::time::timeout(CALL, manager.release()).await {
        warn!(%error, "the lease could not be given back; it runs out by itself");
    }
}

fn connect(config: Config, renewals: &Renewals) -> Result<Client> {
    let builder = ClientBuilder::try_from(config)?.with_layer(&TimeoutLayer::new(CALL)).with_layer(renewals);
    Ok(builder.build())
}

/// When the lease was last written with success. Clones are one.
#[derive(Clone)]
struct Renewals(Arc<Mutex<Instant>>);

impl Default for Renewals {
    fn default() -> Self {
        Self(Arc::new(Mutex::new(Instant::now())))
    }
}

impl Renewals {
    fn last(&self) -> Instant {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn set(&self, begun: Instant) {
        let mut last = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        *last = begun.max(*last);
    }

    /// Ends when the last renewal is too long ago to rely on.
    async fn too_old(&self) {
        loop {
            let until = self.last() + GOOD_FOR;
            if Instant::now() >= until {
                return;
            }
            tokio::time::sleep_until(until).await;
        }
    }
}

impl<S> Layer<S> for Renewals {
    type Service = Noting<S>;

    fn layer(&self, inner: S) -> Noting<S> {
        Noting { inner, renewals: self.clone() }
    }
}

/// Notes when a write that succeeded began.
struct Noting<S> {
    inner: S,
    renewals: Renewals,
}

impl<S, B> Service<Request<Body>> for Noting<S>
where
    S: Service<Request<Body>, Response = Response<B>, Error = BoxError>,
    S::Future: Send + 'static,
{
    type Response = Response<B>;
    type Error = BoxError;
    type Future = BoxFuture<'static, Result<Response<B>, BoxError>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let writes = request.method() == Method::PATCH;
        let begun = Instant::now();
        let renewals = self.renewals.clone();
        let answer = self.inner.call(request);
        async move {
            let answer = answer.await?;
            if writes && answer.status().is_success() {
                renewals.set(begun);
            }
            Ok(answer)
        }
        .boxed()
    }
}

#[cfg(test)]
mod tests;
