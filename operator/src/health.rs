//! `/healthz`, `/readyz` and `/metrics`.
//!
//! Healthy means that the process makes progress: a loop that hangs is restarted by the kubelet. Ready means that it does its part:
//! it waits for its turn, or it works and has seen everything that it watches.

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};
use axum::{
    Router,
    extract::State,
    http::{StatusCode, header},
    response::IntoResponse,
    routing::get,
};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tracing::{error, info};

use crate::metrics::{self, Metrics};

/// A process that works and shows no sign of life for so long is not healthy. The longest that one round of judging is known to take is
/// some seconds.
const HANGS_AFTER: Duration = Duration::from_secs(120);

/// What the process is at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// It has not got so far as to know.
    Starting,
    /// Another process works.
    Waiting,
    /// It works, and has not yet seen all that it watches.
    Reading,
    /// It works.
    Working,
}

/// What the page shows. Clones are one.
#[derive(Clone)]
pub struct Health {
    metrics: Arc<Metrics>,
    state: Arc<Mutex<(Phase, Instant)>>,
}

impl Health {
    /// Of a process that has just started.
    #[must_use]
    pub fn new(metrics: Arc<Metrics>) -> Self {
        Self { metrics, state: Arc::new(Mutex::new((Phase::Starting, Instant::now()))) }
    }

    /// Says what the process is at; a sign of life, too.
    pub fn is(&self, phase: Phase) {
        *self.lock() = (phase, Instant::now());
    }

    /// Serves the page until the order to stop.
    ///
    /// # Errors
    /// The address cannot be listened on.
    pub async fn serve(&self, address: SocketAddr, stop: CancellationToken) -> Result<()> {
        let listener = TcpListener::bind(address)
            .await
            .with_context(|| format!("the page of health and metrics cannot listen on {address}; choose another --health-port"))?;
        info!(address = %listener.local_addr()?, "health and metrics");
        let router = Router::new()
            .route("/healthz", get(healthz))
            .route("/readyz", get(readyz))
            .route("/metrics", get(page))
            .with_state(self.clone());
        tokio::spawn(async move {
            if let Err(error) = axum::serve(listener, router).with_graceful_shutdown(stop.cancelled_owned()).await {
                error!(%error, "the page of health and metrics has ended");
            }
        });
        Ok(())
    }

    fn lock(&self) -> MutexGuard<'_, (Phase, Instant)> {
        // What is guarded is two plain values; a panic elsewhere cannot have left them half-written.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn healthy(&self, now: Instant) -> bool {
        let (phase, since) = *self.lock();
        matches!(phase, Phase::Starting | Phase::Waiting) || now.saturating_duration_since(since) < HANGS_AFTER
    }
}

async fn healthz(State(health): State<Health>) -> (StatusCode, &'static str) {
    if health.healthy(Instant::now()) {
        (StatusCode::OK, "ok\n")
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, "no progress: the loop hangs\n")
    }
}

async fn readyz(State(health): State<Health>) -> (StatusCode, &'static str) {
    let (phase, _) = *health.lock();
    match phase {
        Phase::Starting => (StatusCode::SERVICE_UNAVAILABLE, "starting\n"),
        Phase::Reading => (StatusCode::SERVICE_UNAVAILABLE, "the resources have not all been read yet\n"),
        Phase::Waiting => (StatusCode::OK, "waiting: another operator works\n"),
        Phase::Working => (StatusCode::OK, "ok\n"),
    }
}

async fn page(State(health): State<Health>) -> impl IntoResponse {
    ([(header::CONTENT_TYPE, metrics::CONTENT_TYPE)], health.metrics.encode())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_that_works_and_makes_no_progress_is_not_healthy() {
        let health = Health::new(Metrics::new());
        let later = Instant::now() + HANGS_AFTER * 2;

        for (phase, healthy) in [(Phase::Starting, true), (Phase::Waiting, true), (Phase::Reading, false), (Phase::Working, false)] {
            health.is(phase);

            assert!(health.healthy(Instant::now()), "{phase:?}");
            assert_eq!(health.healthy(later), healthy, "{phase:?}");
        }
    }
}
