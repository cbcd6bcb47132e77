//! The page of health and metrics of a role: `/healthz`, `/readyz`, `/metrics` and `/programmed`.
//!
//! Healthy means that the process serves; ready, that the role has started and the broker answers. A role that is not ready says why and
//! goes on trying: it need not be restarted. The page is there before anything else is, so that one can ask what a start waits for. What
//! it is asked for is no secret, and it takes nothing in.

mod programmed;
mod readiness;

use std::{
    net::SocketAddr,
    sync::{Arc, OnceLock},
};

use anyhow::{Context as _, Result};
use axum::{
    Json, Router,
    extract::{Path as UrlPath, State},
    http::{HeaderMap, StatusCode, header},
    response::{IntoResponse, Response},
    routing::get,
};
use redoubt_engine::compile::Plan;
use tokio::{net::TcpListener, sync::watch, task::JoinSet};
use tokio_util::sync::CancellationToken;
use tracing::info;

use self::programmed::Programmed;
pub(crate) use self::readiness::Readiness;
use crate::{
    broker::{Broker, Topic},
    metrics::{self, Metrics},
};

/// What the page shows. Clones are one.
#[derive(Clone)]
pub(crate) struct Health {
    metrics: Arc<Metrics>,
    readiness: Readiness,
    programmed: Arc<Programmed>,
    asked: Arc<OnceLock<Asked>>,
}

/// By what the broker is asked whether it answers.
struct Asked {
    broker: Arc<dyn Broker>,
    /// A queue of the role.
    queue: Option<(Topic, &'static str)>,
}

impl Health {
    pub(crate) fn new(metrics: Arc<Metrics>, readiness: Readiness, plans: watch::Receiver<Arc<Plan>>) -> Self {
        Self { metrics, readiness, programmed: Arc::new(Programmed::new(plans)), asked: Arc::default() }
    }

    /// From now on being ready takes that this broker answers. The first one counts.
    pub(crate) fn ask(&self, broker: Arc<dyn Broker>, queue: Option<(Topic, &'static str)>) {
        let _ = self.asked.set(Asked { broker, queue });
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
            .route("/programmed", get(programmed))
            .route("/programmed/{kind}/{name}", get(version))
            .with_state(self.clone());
        tasks.spawn(async move {
            axum::serve(listener, router).with_graceful_shutdown(stop.cancelled_owned()).await.context("the page of health and metrics")
        });
        Ok(())
    }
}

async fn readyz(State(health): State<Health>) -> (StatusCode, String) {
    let unready = |reason: String| (StatusCode::SERVICE_UNAVAILABLE, format!("{reason}\n"));
    if let Err(reason) = health.readiness.get() {
        return unready(reason);
    }
    let Some(Asked { broker, queue: Some((topic, subscription)) }) = health.asked.get() else {
        return (StatusCode::OK, "ok\n".to_owned());
    };
    match broker.depth(*topic, subscription).await {
        Ok(_) => (StatusCode::OK, "ok\n".to_owned()),
        Err(error) => unready(error.to_string()),
    }
}

async fn page(State(health): State<Health>) -> impl IntoResponse {
    ([(header::CONTENT_TYPE, metrics::CONTENT_TYPE)], health.metrics.encode())
}

async fn version(State(health): State<Health>, UrlPath((kind, name)): UrlPath<(String, String)>) -> Response {
    match health.programmed.version(&kind, &name) {
        Some(version) => Json(version).into_response(),
        None => (StatusCode::NOT_FOUND, format!("no {kind} {name} runs here\n")).into_response(),
    }
}

async fn programmed(State(health): State<Health>, headers: HeaderMap) -> Response {
    let report = health.programmed.report();
    let known =
        headers.get_all(header::IF_NONE_MATCH).iter().filter_map(|value| value.to_str().ok()).any(|value| report.is_named_by(value));
    let etag = [(header::ETAG, report.etag())];
    if known {
        return (StatusCode::NOT_MODIFIED, etag).into_response();
    }
    (etag, [(header::CONTENT_TYPE, "application/json")], report.body()).into_response()
}
