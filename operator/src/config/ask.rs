//! Asking workers what they run: `GET http://POD:8081/programmed`; and for the version of a resource that one of them runs and that the
//! operator does not know, `GET http://POD:8081/programmed/KIND/NAME`, answered by `{"generation": 3, "spec": {...}}`, or 404 where none runs.
//!
//! The question is plain HTTP within the cluster and holds nothing secret; the answer is names and numbers. It is bounded in time and
//! size, and with the tag of the last answer it is empty while nothing has changed.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use anyhow::{Context as _, Result};
use reqwest::{Client, Response, StatusCode, header, redirect};
use serde_json::Value;
use tracing::debug;

use super::index::{About, Answer, Answered, Key, Programmed, Question, Version};
use crate::metrics::{Metrics, OutcomeLabels};

/// The port of a worker's health and metrics.
pub const PORT: u16 = 8081;
/// How long an answer may take.
const WITHIN: Duration = Duration::from_secs(3);
/// Largest answer in bytes: a hundred thousand resources with long names.
const MAX_BODY: usize = 32 << 20;

/// Asks.
pub struct Asker {
    http: Client,
    port: u16,
    metrics: Arc<Metrics>,
}

impl Asker {
    /// One that asks at the workers' port.
    ///
    /// # Errors
    /// The HTTP client cannot be made.
    pub fn new(metrics: Arc<Metrics>) -> Result<Self> {
        Self::at(PORT, metrics)
    }

    fn at(port: u16, metrics: Arc<Metrics>) -> Result<Self> {
        // A proxy that the environment names is none for pods.
        let http = Client::builder().no_proxy().redirect(redirect::Policy::none()).timeout(WITHIN).pool_max_idle_per_host(1);
        Ok(Self { http: http.build().context("the HTTP client for the workers")?, port, metrics })
    }

    /// Asks one worker.
    pub async fn ask(&self, question: Question) -> Answered {
        let answer = match self.get(&question).await {
            Ok(answer) => answer,
            Err(error) => {
                debug!(
                    namespace = &*question.namespace,
                    pod = &*question.pod,
                    error = format!("{error:#}"),
                    "a worker does not say what it runs"
                );
                Answer::Nothing
            }
        };
        let outcome = match &answer {
            Answer::Same => "same",
            Answer::Runs(_) | Answer::Version(..) => "changed",
            Answer::Nothing => "failed",
        };
        self.metrics.polls.get_or_create(&OutcomeLabels { outcome }).inc();
        Answered { pod: question.pod, uid: question.uid, answer }
    }

    async fn get(&self, question: &Question) -> Result<Answer> {
        match &question.about {
            About::Programmed(tag) => self.programmed(question, tag.as_deref()).await,
            About::Version(key) => Ok(Answer::Version(key.clone(), self.version(question, key).await?)),
        }
    }

    async fn programmed(&self, question: &Question, known: Option<&str>) -> Result<Answer> {
        let mut request = self.http.get(self.url(question, "programmed"));
        if let Some(tag) = known {
            request = request.header(header::IF_NONE_MATCH, tag);
        }
        let response = request.send().await?;
        if response.status() == StatusCode::NOT_MODIFIED {
            return Ok(Answer::Same);
        }
        let tag = response.headers().get(header::ETAG).and_then(|tag| tag.to_str().ok()).map(str::to_owned);
        Programmed::read(&json(response).await?, tag.as_deref()).map(Answer::Runs).context("its answer is not what was asked for")
    }

    async fn version(&self, question: &Question, key: &Key) -> Result<Option<Version>> {
        // Names are DNS names: nothing in them needs to be escaped.
        let response = self.http.get(self.url(question, &format!("programmed/{}/{}", key.kind, key.name))).send().await?;
        if response.status() == StatusCode::NOT_FOUND {
            return Ok(None);
        }
        let body = json(response).await?;
        let version = body["generation"].as_i64().zip(body["spec"].as_object());
        let (generation, spec) = version.context("its answer is not what was asked for")?;
        Ok(Some(Version { generation, spec: Value::Object(spec.clone()).to_string().into() }))
    }

    fn url(&self, question: &Question, path: &str) -> String {
        format!("http://{}/{path}", SocketAddr::new(question.address, self.port))
    }
}

/// The body of an answer.
async fn json(mut response: Response) -> Result<Value> {
    anyhow::ensure!(response.status() == StatusCode::OK, "it answers {}", response.status());
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await? {
        anyhow::ensure!(body.len() + chunk.len() <= MAX_BODY, "its answer is larger than {MAX_BODY} bytes");
        body.extend_from_slice(&chunk);
    }
    serde_json::from_slice(&body).context("its answer is no JSON")
}

#[cfg(test)]
mod tests;
