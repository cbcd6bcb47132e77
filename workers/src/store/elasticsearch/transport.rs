//! Requests to the nodes of a cluster, in turn.
//!
//! A node that cannot be reached is left alone for a while and the next one asked. What was sent and not answered may have been done: only
//! [`Transport::ask`], for requests that may be done twice, sends it again.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use redoubt_crds::ExternalStore;
use reqwest::Method;
use reqwest::header::{AUTHORIZATION, CONTENT_TYPE};
use serde::de::DeserializeOwned;
use serde_json::Value;
use tokio::time::sleep;

use super::access::Access;
use super::answer;
use super::body::Pieces;
use crate::secrets::Secrets;
use crate::store::StoreError;

/// A node that did not answer is left alone for this time, if there is another.
const LEFT_ALONE: Duration = Duration::from_secs(5);
/// Longer answers are refused, in bytes.
const MAX_ANSWER_BYTES: usize = 512 << 20;
/// Pauses between attempts: twice as long each time.
pub(super) const FIRST_PAUSE: Duration = Duration::from_millis(50);
pub(super) const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// The way to a cluster.
pub(super) struct Transport {
    nodes: Vec<Node>,
    next: AtomicUsize,
    access: Access,
    timeout: Duration,
    patience: Duration,
}

struct Node {
    url: String,
    left_alone_until: Mutex<Option<Instant>>,
}

/// A request.
#[derive(Debug, Clone)]
pub(super) struct Request {
    method: Method,
    /// With its query, from the first slash on.
    path: String,
    content_type: &'static str,
    body: Pieces,
}

/// An answer, of whatever status.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) status: u16,
    body: Vec<u8>,
}

/// Why there is no answer.
#[derive(Debug)]
pub(super) enum Failure {
    /// No node took the request: nothing of it is done.
    Unreached(String),
    /// It was sent, and no answer came: whether it is done is not known.
    Unanswered(String),
}

impl Request {
    pub(super) fn get(path: impl Into<String>) -> Self {
        Self::new(Method::GET, path.into(), "application/json", Pieces::default())
    }

    pub(super) fn delete(path: impl Into<String>) -> Self {
        Self::new(Method::DELETE, path.into(), "application/json", Pieces::default())
    }

    pub(super) fn put(path: impl Into<String>, body: &Value) -> Self {
        Self::new(Method::PUT, path.into(), "application/json", body.to_string().into_bytes())
    }

    pub(super) fn post(path: impl Into<String>, body: &Value) -> Self {
        Self::new(Method::POST, path.into(), "application/json", body.to_string().into_bytes())
    }

    /// Without a body.
    pub(super) fn order(path: impl Into<String>) -> Self {
        Self::new(Method::POST, path.into(), "application/json", Pieces::default())
    }

    /// Lines of JSON.
    pub(super) fn lines(path: impl Into<String>, lines: Vec<Bytes>) -> Self {
        Self::new(Method::POST, path.into(), "application/x-ndjson", lines)
    }

    fn new(method: Method, path: String, content_type: &'static str, body: impl Into<Pieces>) -> Self {
        Self { method, path, content_type, body: body.into() }
    }
}

impl Answer {
    /// Whether the request was done.
    pub(super) const fn is_ok(&self) -> bool {
        self.status >= 200 && self.status < 300
    }

    /// Whether the same request may be taken later. 500 is not among them: what a server fails on it fails on again.
    pub(super) const fn is_for_later(&self) -> bool {
        matches!(self.status, 408 | 429 | 502..=504)
    }

    /// What went wrong, in the cluster's words.
    pub(super) fn reason(&self) -> String {
        answer::reason(self.status, &self.body)
    }

    /// Whether this kind of error is named in it.
    pub(super) fn names(&self, kind: &str) -> bool {
        !self.is_ok() && String::from_utf8_lossy(&self.body).contains(kind)
    }

    /// The answer read as JSON.
    pub(super) fn json<T: DeserializeOwned>(&self) -> Result<T, StoreError> {
        serde_json::from_slice(&self.body).map_err(|error| StoreError::Unavailable(format!("an answer that is not understood: {error}")))
    }

    /// The JSON of an answer to a request that must have been done.
    pub(super) fn done<T: DeserializeOwned>(&self) -> Result<T, StoreError> {
        if self.is_ok() { self.json() } else { Err(self.error()) }
    }

    /// The error that an unwilling answer is: the request's fault, or the cluster's.
    pub(super) fn error(&self) -> StoreError {
        match self.status {
            400 | 413 => StoreError::BadRequest(self.reason()),
            _ => StoreError::Unavailable(self.reason()),
        }
    }
}

impl Failure {
    pub(super) fn into_reason(self) -> String {
        match self {
            Self::Unreached(reason) | Self::Unanswered(reason) => reason,
        }
    }
}

impl Transport {
    pub(super) fn new(spec: &ExternalStore, secrets: Secrets, timeout: Duration, patience: Duration) -> Self {
        let node = |url: &String| Node { url: url.trim_end_matches('/').to_owned(), left_alone_until: Mutex::new(None) };
        Self {
            nodes: spec.urls.iter().map(node).collect(),
            next: AtomicUsize::new(0),
            access: Access::new(spec, secrets),
            timeout,
            patience,
        }
    }

    /// How long a request that fails is tried again before its sender is told.
    pub(super) const fn patience(&self) -> Duration {
        self.patience
    }

    /// Sends a request once, to the first node that takes it.
    pub(super) async fn send(&self, request: &Request) -> Result<Answer, Failure> {
        let mut unreached = "no node is declared".to_owned();
        for node in self.in_turn() {
            match self.send_to(node, request).await {
                Ok(answer) => {
                    node.set_left_alone(None);
                    return Ok(answer);
                }
                Err(Failure::Unreached(reason)) => {
                    node.set_left_alone(Some(Instant::now() + LEFT_ALONE));
                    unreached = format!("{}: {reason}", node.url);
                }
                Err(Failure::Unanswered(reason)) => {
                    node.set_left_alone(Some(Instant::now() + LEFT_ALONE));
                    return Err(Failure::Unanswered(format!("{}: {reason}", node.url)));
                }
            }
        }
        Err(Failure::Unreached(unreached))
    }

    /// Sends a request that may be done twice until there is an answer that is not for later, as long as patience lasts.
    pub(super) async fn ask(&self, request: &Request) -> Result<Answer, StoreError> {
        let started = Instant::now();
        let mut pause = FIRST_PAUSE;
        loop {
            let reason = match self.send(request).await {
                Ok(answer) if !answer.is_for_later() => return Ok(answer),
                Ok(answer) => answer.reason(),
                Err(failure) => failure.into_reason(),
            };
            if started.elapsed() + pause > self.patience {
                return Err(StoreError::Unavailable(reason));
            }
            sleep(pause).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    /// The nodes in the order in which to ask them: each request begins with another one, and those left alone come last.
    fn in_turn(&self) -> Vec<&Node> {
        let first = self.next.fetch_add(1, Ordering::Relaxed);
        let count = self.nodes.len();
        let mut nodes: Vec<&Node> = (0..count).map(|step| &self.nodes[(first.wrapping_add(step)) % count]).collect();
        let now = Instant::now();
        nodes.sort_by_key(|node| node.is_left_alone(now));
        nodes
    }

    async fn send_to(&self, node: &Node, request: &Request) -> Result<Answer, Failure> {
        let client = self.access.client().map_err(Failure::Unreached)?;
        let mut builder = client
            .request(request.method.clone(), format!("{}{}", node.url, request.path))
            .timeout(self.timeout)
            .header(CONTENT_TYPE, request.content_type)
            .body(request.body.body());
        if let Some(authorization) = self.access.authorization().map_err(Failure::Unreached)? {
            builder = builder.header(AUTHORIZATION, authorization);
        }
        let failed = |error: reqwest::Error| {
            let nothing_sent = error.is_connect() || error.is_builder();
            let reason = chain(&error.without_url());
            if nothing_sent { Failure::Unreached(reason) } else { Failure::Unanswered(reason) }
        };
        let mut response = builder.send().await.map_err(failed)?;
        let status = response.status().as_u16();
        let mut body = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(failed)? {
            if body.len() + chunk.len() > MAX_ANSWER_BYTES {
                return Err(Failure::Unanswered(format!("an answer of more than {MAX_ANSWER_BYTES} bytes; ask for less")));
            }
            body.extend_from_slice(&chunk);
        }
        Ok(Answer { status, body })
    }
}

impl Node {
    fn is_left_alone(&self, now: Instant) -> bool {
        self.left_alone_until.lock().unwrap_or_else(PoisonError::into_inner).is_some_and(|until| until > now)
    }

    fn set_left_alone(&self, until: Option<Instant>) {
        *self.left_alone_until.lock().unwrap_or_else(PoisonError::into_inner) = until;
    }
}

/// An error with what led to it.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text.push_str(": ");
            text.push_str(&cause_text);
        }
        source = cause.source();
    }
    text
}
