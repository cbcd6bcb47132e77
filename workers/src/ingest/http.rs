//! The HTTP side: which path takes what, and the way of a request from its headers to its answer.
//!
//! ```text
//! credentials -> body, unpacked -> items -> quota -> broker, durable -> answer
//! ```
//!
//! A success is answered only when the broker has confirmed every event of it. Whatever ends earlier has taken nothing.

use std::{net::SocketAddr, sync::Arc, time::Instant as StdInstant};

use axum::{
    Json, Router,
    body::Body,
    extract::{Path, Query, Request, State},
    http::{HeaderMap, Method, StatusCode, header},
    middleware::{self, Next},
    response::{IntoResponse, Response},
    routing::{MethodFilter, get, on},
};
use redoubt_crds::Format;
use redoubt_engine::source::Source;
use serde::Deserialize;
use serde_json::json;
use tokio::time::Instant;

use super::{
    Shared,
    answer::{RequestError, taken, taken_bulk},
    auth::Credential,
    body::{self, Encoding, Share},
    intake::{self, Intake, IntakeError, Receipt},
};
use crate::metrics::{self, CodeLabels};

/// Bodies above this size are cut where long computing is done, so that one of them holds up no other request.
const INLINE_BYTES: usize = 64 << 10;
/// What all bodies in memory may hold together; at least four of the largest. A body is held twice and a half for a moment: as text, as
/// the items of a message, and packed.
const BODIES_IN_FLIGHT: u64 = 128 << 20;

/// Address of a request's sender, put among its extensions by the listener.
#[derive(Debug, Clone, Copy)]
pub(super) struct Peer(pub(super) SocketAddr);

type Answer = Result<Response, RequestError>;
type Chosen = Query<Selection>;

/// Which source is meant where the credentials open several.
#[derive(Debug, Deserialize)]
struct Selection {
    source: Option<String>,
}

/// All paths.
pub(super) fn router(shared: Arc<Shared>) -> Router {
    let write = MethodFilter::POST.or(MethodFilter::PUT);
    Router::new()
        .route("/v1/sources/{name}", on(write, named))
        .route("/v1/events", on(write, by_credential))
        // MozDef's paths, whose clients take nothing but 200 for success.
        .route("/events", on(write, mozdef))
        .route("/nxlog", on(write, mozdef))
        .route("/cef", on(write, mozdef))
        .route("/_bulk", on(write, bulk))
        .route("/{index}/_bulk", on(write, bulk))
        .route("/", get(about))
        .fallback(async || RequestError::NoSuchPath)
        .route_layer(middleware::from_fn_with_state(shared.clone(), count))
        .route("/healthz", get(async || "ok\n"))
        .route("/readyz", get(ready))
        .route("/metrics", get(metrics_page))
        .with_state(shared)
}

/// Counts a request by the status of its answer.
async fn count(State(shared): State<Arc<Shared>>, request: Request, next: Next) -> Response {
    let response = next.run(request).await;
    shared.metrics.ingest_requests.get_or_create(&CodeLabels { code: response.status().as_u16() }).inc();
    response
}

async fn named(State(shared): State<Arc<Shared>>, Path(name): Path<String>, request: Request) -> Answer {
    let source = shared.plan().sources.get(&name).cloned();
    let candidates: Vec<_> = source.into_iter().collect();
    let (incoming, source) = Incoming::authenticate(&shared, &candidates, None, request).await?;
    let intake = incoming.take(&shared, source, intake::take).await?;
    Ok(taken(&intake, StatusCode::ACCEPTED))
}

async fn by_credential(State(shared): State<Arc<Shared>>, Query(selection): Chosen, request: Request) -> Answer {
    let intake = take_by_credential(&shared, selection, request, intake::take).await?;
    Ok(taken(&intake, StatusCode::ACCEPTED))
}

async fn mozdef(State(shared): State<Arc<Shared>>, Query(selection): Chosen, request: Request) -> Answer {
    let intake = take_by_credential(&shared, selection, request, intake::take).await?;
    Ok(taken(&intake, StatusCode::OK))
}

async fn bulk(State(shared): State<Arc<Shared>>, Query(selection): Chosen, request: Request) -> Answer {
    let start = StdInstant::now();
    let intake = take_by_credential(&shared, selection, request, intake::take_bulk).await?;
    Ok(taken_bulk(&intake, start.elapsed()))
}

/// What shippers with an Elasticsearch output ask before they send. It says what this is; the version is the one whose `_bulk` form
/// is understood.
async fn about(State(shared): State<Arc<Shared>>, request: Request) -> Answer {
    let candidates: Vec<_> = shared.plan().sources.values().cloned().collect();
    match Incoming::authenticate(&shared, &candidates, None, request).await {
        Ok(_) | Err(RequestError::Ambiguous(_)) => Ok(Json(json!({
            "name": "redoubt",
            "cluster_name": "redoubt",
            "version": { "number": "8.0.0", "build_flavor": "redoubt" },
            "tagline": "Redoubt takes events at POST /_bulk and answers no searches here",
        }))
        .into_response()),
        Err(error) => Err(error),
    }
}

/// Whether requests can be expected to succeed. A full queue is ready still: its senders are told when to come back, which they would
/// not be if traffic were led elsewhere.
async fn ready(State(shared): State<Arc<Shared>>) -> Response {
    match shared.readiness().await {
        Ok(()) => "ready\n".into_response(),
        Err(reason) => (StatusCode::SERVICE_UNAVAILABLE, format!("not ready: {reason}\n")).into_response(),
    }
}

async fn metrics_page(State(shared): State<Arc<Shared>>) -> Response {
    ([(header::CONTENT_TYPE, metrics::CONTENT_TYPE)], shared.metrics.encode()).into_response()
}

async fn take_by_credential(shared: &Arc<Shared>, selection: Selection, request: Request, cut: Cut) -> Result<Intake, RequestError> {
    let header = request.headers().get("x-redoubt-source").and_then(|value| value.to_str().ok()).map(str::to_owned);
    let candidates: Vec<_> = shared.plan().sources.values().cloned().collect();
    let chosen = selection.source.or(header);
    let (incoming, source) = Incoming::authenticate(shared, &candidates, chosen.as_deref(), request).await?;
    incoming.take(shared, source, cut).await
}

/// How a body is cut into items.
type Cut = fn(&Receipt, &str) -> Result<Intake, IntakeError>;

/// A request whose sender is known and whose body is still to come.
struct Incoming {
    headers: HeaderMap,
    body: Body,
    sender: Option<Arc<str>>,
    is_bulk: bool,
}

impl Incoming {
    /// Finds the one source that a request's credentials open among the candidates.
    async fn authenticate(
        shared: &Shared,
        candidates: &[Arc<Source>],
        chosen: Option<&str>,
        request: Request,
    ) -> Result<(Self, Arc<Source>), RequestError> {
        let (parts, body) = request.into_parts();
        let sender = parts.extensions.get::<Peer>().map(|peer| Arc::from(peer.0.ip().to_canonical().to_string()));
        let has_body = parts.method != Method::GET && parts.method != Method::HEAD;
        let is_bulk = parts.uri.path().ends_with("/_bulk");
        let found = match Credential::from_headers(&parts.headers) {
            Some(credential) => opened(shared, candidates, chosen, credential),
            None => Err(RequestError::Unauthenticated),
        };
        match found {
            Ok(source) => Ok((Self { headers: parts.headers, body, sender, is_bulk }, source)),
            Err(error) => {
                if matches!(error, RequestError::Unauthenticated) {
                    shared.credentials.slow_down(sender.as_deref()).await;
                }
                if has_body {
                    body::refuse(body).await;
                }
                Err(error)
            }
        }
    }

    /// Reads the body, cuts it, and hands its events to the broker.
    async fn take(self, shared: &Arc<Shared>, source: Arc<Source>, cut: Cut) -> Result<Intake, RequestError> {
        let plan = shared.plan();
        let text_format = matches!(source.format, Format::Syslog | Format::Cef);
        if self.is_bulk && text_format {
            body::refuse(self.body).await;
            return Err(RequestError::NotJson { source_name: source.name.to_string() });
        }
        let limit = usize::try_from(plan.spec.max_body_bytes).unwrap_or(usize::MAX);
        let total = BODIES_IN_FLIGHT.max(plan.spec.max_body_bytes.saturating_mul(4));
        let encoding = match Encoding::from_headers(&self.headers) {
            Ok(encoding) => encoding,
            Err(error) => {
                body::refuse(self.body).await;
                return Err(error.into());
            }
        };
        let unpacked = body::read(self.body, encoding, limit, shared.bodies.share(total)).await?;
        let received_millis = (shared.clock)();
        let (text, share): (String, Share) = if text_format {
            unpacked.into_text_lossy()
        } else {
            unpacked.into_text().map_err(|(line, column)| RequestError::NotUtf8 { line, column })?
        };
        let receipt = Receipt {
            source: source.clone(),
            received_millis,
            sender: self.sender,
            max_event_bytes: usize::try_from(plan.spec.max_event_bytes).unwrap_or(usize::MAX),
        };
        let mut intake = if text.len() > INLINE_BYTES {
            shared.cores.compute(move || cut(&receipt, &text)).await.map_err(|error| {
                tracing::error!(%error, "a body could not be cut");
                RequestError::Internal
            })??
        } else {
            cut(&receipt, &text)?
        };
        if intake.outcomes.is_empty() {
            return Err(RequestError::Empty);
        }
        deliver(shared, &source, &mut intake, share).await?;
        Ok(intake)
    }
}

/// The one source that a credential opens.
fn opened(shared: &Shared, candidates: &[Arc<Source>], chosen: Option<&str>, credential: Credential) -> Result<Arc<Source>, RequestError> {
    let mut open = Vec::new();
    let mut unreadable = None;
    for source in candidates {
        match shared.credentials.accepts(source, credential) {
            Ok(true) => open.push(source.clone()),
            Ok(false) => {}
            Err(error) => unreadable = Some(error),
        }
    }
    if let Some(name) = chosen {
        open.retain(|source| *source.name == *name);
    }
    match open.as_slice() {
        [source] => Ok(source.clone()),
        // Not a refusal: the sender's credentials may well be right, and a refusal would make it throw its events away.
        [] => Err(unreadable.map_or(RequestError::Unauthenticated, RequestError::Unchecked)),
        _ => Err(RequestError::Ambiguous(open.iter().map(|source| source.name.to_string()).collect())),
    }
}

/// Pays the quota, publishes, and counts.
async fn deliver(shared: &Arc<Shared>, source: &Arc<Source>, intake: &mut Intake, share: Share) -> Result<(), RequestError> {
    let (accepted, rejected, bytes) = (intake.accepted, intake.rejected(), intake.bytes);
    if accepted > 0 {
        let paid = shared.quotas.take(source, accepted, Instant::now());
        paid.map_err(|wait| RequestError::Quota { source_name: source.name.to_string(), wait })?;
        let messages = std::mem::take(&mut intake.messages);
        // A task of its own: a sender that hangs up drops this request, and what the broker took would not be counted.
        let published = shared.tasks.spawn({
            let (shared, source) = (shared.clone(), source.clone());
            async move {
                let result = shared.publish(&source, messages, accepted, bytes).await;
                drop(share);
                result
            }
        });
        match published.await {
            Ok(result) => result?,
            Err(error) => {
                tracing::error!(%error, "publishing failed");
                return Err(RequestError::Internal);
            }
        }
    }
    shared.count_rejected(source, rejected);
    Ok(())
}
