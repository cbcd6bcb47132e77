//! A proxy before a real server that does what networks and busy clusters do: it refuses, and it loses answers.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::{HeaderMap, Method, StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};

/// A proxy. It ends with the test's runtime.
pub(super) struct Proxy {
    pub(super) url: String,
    faults: Arc<Faults>,
}

struct Faults {
    target: String,
    client: reqwest::Client,
    /// Counts requests to write; decides what becomes of each.
    requests: AtomicU64,
    /// Counts what was done to them.
    done: AtomicU64,
    /// Whether there are faults at all.
    faulty: bool,
    authorizations: Mutex<Vec<String>>,
}

impl Proxy {
    pub(super) async fn start(target: &str, faulty: bool) -> Self {
        let faults = Arc::new(Faults {
            target: target.to_owned(),
            client: reqwest::Client::new(),
            requests: AtomicU64::new(0),
            done: AtomicU64::new(0),
            faulty,
            authorizations: Mutex::default(),
        });
        let listener = tokio::net::TcpListener::bind(SocketAddr::from(([127, 0, 0, 1], 0))).await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let router = Router::new().fallback(pass).with_state(Arc::clone(&faults));
        tokio::spawn(async move { axum::serve(listener, router).await });
        Self { url, faults }
    }

    /// How many faults there were.
    pub(super) fn faults(&self) -> u64 {
        self.faults.done.load(Ordering::Relaxed)
    }

    /// The `Authorization` headers that came.
    pub(super) fn authorizations(&self) -> Vec<String> {
        self.faults.authorizations.lock().unwrap().clone()
    }
}

async fn pass(State(faults): State<Arc<Faults>>, method: Method, uri: Uri, headers: HeaderMap, body: Bytes) -> Response {
    if let Some(value) = headers.get("authorization") {
        faults.authorizations.lock().unwrap().push(value.to_str().unwrap().to_owned());
    }
    if !faults.faulty || !(uri.path().starts_with("/_bulk") || uri.path().starts_with("/_mget")) {
        return faults.forward(method, &uri, &headers, body).await;
    }
    let number = faults.requests.fetch_add(1, Ordering::Relaxed);
    let fault = number % 12;
    if fault < 5 {
        faults.done.fetch_add(1, Ordering::Relaxed);
    }
    match fault {
        0 => (StatusCode::TOO_MANY_REQUESTS, r#"{"error":{"type":"es_rejected_execution_exception","reason":"busy"},"status":429}"#)
            .into_response(),
        1 => lost(),
        // Done, and nobody hears of it.
        2 => {
            faults.forward(method, &uri, &headers, body).await;
            lost()
        }
        3 => (StatusCode::SERVICE_UNAVAILABLE, "no node").into_response(),
        4 if uri.path() == "/_bulk" => faults.forward_some(&uri, &headers, &body).await,
        _ => faults.forward(method, &uri, &headers, body).await,
    }
}

/// An answer that breaks off.
fn lost() -> Response {
    let broken = futures::stream::iter([Ok(Bytes::from_static(b"{")), Err(std::io::Error::other("cut"))]);
    Body::from_stream(broken).into_response()
}

impl Faults {
    async fn forward(&self, method: Method, uri: &Uri, headers: &HeaderMap, body: Bytes) -> Response {
        let mut request = self.client.request(method, format!("{}{uri}", self.target)).body(body);
        if let Some(kind) = headers.get("content-type") {
            request = request.header("content-type", kind);
        }
        let answer = request.send().await.unwrap();
        let status = answer.status();
        (status, answer.bytes().await.unwrap()).into_response()
    }

    /// Keeps back every third line of a bulk, as a full queue does, and says so.
    async fn forward_some(&self, uri: &Uri, headers: &HeaderMap, body: &Bytes) -> Response {
        let lines: Vec<&[u8]> = body.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()).collect();
        let documents: Vec<&[&[u8]]> = lines.chunks(2).collect();
        let kept_back = |position: usize| position.is_multiple_of(3);
        let passed: Vec<u8> = documents
            .iter()
            .enumerate()
            .filter(|(position, _)| !kept_back(*position))
            .flat_map(|(_, lines)| lines.iter().flat_map(|line| [*line, b"\n"].concat()))
            .collect();
        let mut told = Vec::new().into_iter();
        if !passed.is_empty() {
            let answer = self.forward(Method::POST, uri, headers, passed.into()).await;
            let bytes = axum::body::to_bytes(answer.into_body(), usize::MAX).await.unwrap();
            let answer: Value = serde_json::from_slice(&bytes).unwrap();
            told = answer["items"].as_array().unwrap().clone().into_iter();
        }
        let rejected = json!({"create": {"status": 429, "error": {"type": "es_rejected_execution_exception", "reason": "queue full"}}});
        let items: Vec<Value> =
            (0..documents.len()).map(|position| if kept_back(position) { rejected.clone() } else { told.next().unwrap() }).collect();
        json!({"items": items}).to_string().into_response()
    }
}
