//! `/healthz`, `/readyz` and `/metrics` of a role that does not listen for anything else.
//!
//! Healthy means that the process serves; ready, that the role has started and the broker answers. A role that is not ready goes on
//! trying: it need not be restarted.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use anyhow::{Context as _, Result};
use axum::{
    Router,
    extract::State,
    http::{StatusCode, header},
    response::IntoResponse,
    routing::get,
};
use tokio::{net::TcpListener, task::JoinSet};
use tokio_util::sync::CancellationToken;
use tracing::info;

use crate::{
    broker::{Broker, Topic},
    metrics::{self, Metrics},
};

/// What the page shows. Clones are one.
#[derive(Clone)]
pub(crate) struct Health {
    broker: Arc<dyn Broker>,
    metrics: Arc<Metrics>,
    /// A queue of the role, by which the broker is asked.
    queue: Option<(Topic, &'static str)>,
    started: Arc<AtomicBool>,
}

impl Health {
    pub(crate) fn new(broker: Arc<dyn Broker>, metrics: Arc<Metrics>, queue: Option<(Topic, &'static str)>) -> Self {
        Self { broker, metrics, queue, started: Arc::default() }
    }

    /// The role has started.
    pub(crate) fn ready(&self) {
        self.started.store(true, Ordering::Relaxed);
    }

    /// Serves the page until the order to stop.
    pub(crate) async fn serve(&self, address: SocketAddr, tasks: &mut JoinSet<Result<()>>, stop: CancellationToken) -> Result<()> {
        let listener = TcpListener::bind(address)
            .await
            .with_context(|| format!("the page of health and metrics cannot listen on {address}; choose another --health-port"))?;
        info!(address = %listener.local_addr()?, "health and metrics");
        let router = Router::new()
            .route("/healthz", get(|| async { "ok\n" }))
            .route("/readyz", get(readyz))
            .route("/metrics", get(page))
            .with_state(self.clone());
        tasks.spawn(async move {
            axum::serve(listener, router).with_graceful_shutdown(stop.cancelled_owned()).await.context("the page of health and metrics")
        });
        Ok(())
    }
}

async fn readyz(State(health): State<Health>) -> (StatusCode, String) {
    if !health.started.load(Ordering::Relaxed) {
        return (StatusCode::SERVICE_UNAVAILABLE, "not started: the broker does not answer yet\n".to_owned());
    }
    let Some((topic, subscription)) = health.queue else { return (StatusCode::OK, "ok\n".to_owned()) };
    match health.broker.depth(topic, subscription).await {
        Ok(_) => (StatusCode::OK, "ok\n".to_owned()),
        Err(error) => (StatusCode::SERVICE_UNAVAILABLE, format!("{error}\n")),
    }
}

async fn page(State(health): State<Health>) -> impl IntoResponse {
    ([(header::CONTENT_TYPE, metrics::CONTENT_TYPE)], health.metrics.encode())
}
