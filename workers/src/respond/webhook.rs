//! Calls of web services, signed as the Standard Webhooks specification (1.0.0) says.

use std::time::Duration;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use hmac::{Hmac, Mac as _};
use redoubt_crds::{SecretKeyRef, Webhook};
use reqwest::header::{CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};
use sha2::Sha256;
use tokio_util::sync::CancellationToken;

use crate::{
    backoff::Backoff,
    secrets::{SecretValue, Secrets},
};

const FIRST_PAUSE: Duration = Duration::from_millis(500);
const LONGEST_PAUSE: Duration = Duration::from_secs(60);
/// How much of an unwilling answer is kept for people to read.
const MAX_ANSWER: usize = 512;

/// Makes the calls.
pub struct Client {
    http: reqwest::Client,
    secrets: Secrets,
    now_millis: fn() -> i64,
}

/// Why a call was not made.
#[derive(Debug, thiserror::Error)]
pub enum CallError {
    /// A shutdown began; the call may have come through.
    #[error("stopped before the call came through")]
    Stopped,
    /// All attempts failed, or the answer said that more would not help.
    #[error("{0}")]
    GaveUp(String),
}

/// How one attempt went.
enum Attempt {
    Done,
    Later(String),
    Never(String),
}

impl Client {
    /// A client that reads its secrets from `secrets`. Redirects are not followed: the address is the one that was declared.
    ///
    /// # Errors
    /// The system's root certificates cannot be read.
    pub fn new(secrets: Secrets, now_millis: fn() -> i64) -> Result<Self, reqwest::Error> {
        let http = reqwest::Client::builder()
            .redirect(reqwest::redirect::Policy::none())
            .user_agent(concat!("redoubt/", env!("CARGO_PKG_VERSION")))
            .build()?;
        Ok(Self { http, secrets, now_millis })
    }

    /// Posts a body, trying again with growing pauses on time-outs, refused connections, 408, 429 and 5xx. `id` names this call for
    /// the receiver, the same in each attempt.
    ///
    /// # Errors
    /// A shutdown began, or the call is given up.
    pub async fn call(&self, id: &str, webhook: &Webhook, body: &str, shutdown: &CancellationToken) -> Result<(), CallError> {
        let mut backoff = Backoff::between(FIRST_PAUSE, LONGEST_PAUSE);
        let mut attempt = 1;
        loop {
            let tried = tokio::select! {
                () = shutdown.cancelled() => return Err(CallError::Stopped),
                tried = self.attempt(id, webhook, body) => tried,
            };
            match tried {
                Attempt::Done => return Ok(()),
                Attempt::Never(reason) => return Err(CallError::GaveUp(reason)),
                Attempt::Later(reason) if attempt >= webhook.attempts => {
                    return Err(CallError::GaveUp(format!("{reason} (attempt {attempt} of {attempt})")));
                }
                Attempt::Later(_) => backoff.pause(shutdown).await.map_err(|_| CallError::Stopped)?,
            }
            attempt += 1;
        }
    }

    async fn attempt(&self, id: &str, webhook: &Webhook, body: &str) -> Attempt {
        let request = match self.request(id, webhook, body) {
            Ok(request) => request,
            Err(reason) => return Attempt::Later(reason),
        };
        match request.send().await {
            Ok(answer) if answer.status().is_success() => Attempt::Done,
            Ok(answer) => {
                let status = answer.status();
                let reason = format!("answered {status}: {}", shorten(&read_some(answer).await));
                let worth_another = status.is_server_error() || matches!(status.as_u16(), 408 | 429);
                if worth_another { Attempt::Later(reason) } else { Attempt::Never(reason) }
            }
            // The address may be a secret, so it is kept out of the text.
            Err(error) => Attempt::Later(error.without_url().to_string()),
        }
    }

    fn request(&self, id: &str, webhook: &Webhook, body: &str) -> Result<reqwest::RequestBuilder, String> {
        let url = match (&webhook.url, &webhook.url_secret_ref) {
            (Some(url), _) => url.clone(),
            (None, Some(reference)) => self.secrets.get(reference).map_err(|error| error.to_string())?.expose().to_owned(),
            (None, None) => return Err("no address is declared".to_owned()),
        };
        let seconds = ((self.now_millis)() / 1000).to_string();
        let mut headers = headers(webhook, id, &seconds)?;
        if let Some(reference) = &webhook.signing_secret_ref {
            let key = self.secrets.get(reference).map_err(|error| error.to_string())?;
            let signed = signature(&signing_key(&key, reference)?, id, &seconds, body);
            headers.insert("webhook-signature", header_value("webhook-signature", &signed)?);
        }
        Ok(self.http.post(url).timeout(webhook.timeout.as_std()).headers(headers).body(body.to_owned()))
    }
}

/// The headers apart from the signature. Those declared take the place of the usual content type, and none that of the
/// specification's own.
fn headers(webhook: &Webhook, id: &str, seconds: &str) -> Result<HeaderMap, String> {
    let mut headers = HeaderMap::new();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    for (name, value) in &webhook.headers {
        let parsed =
            HeaderName::try_from(name).map_err(|_| format!("{name:?} is no name of a header; correct it in spec.webhook.headers"))?;
        headers.insert(parsed, header_value(name, value)?);
    }
    headers.insert("webhook-id", header_value("webhook-id", id)?);
    headers.insert("webhook-timestamp", header_value("webhook-timestamp", seconds)?);
    Ok(headers)
}

fn header_value(name: &str, value: &str) -> Result<HeaderValue, String> {
    HeaderValue::try_from(value).map_err(|_| format!("the value of header {name} holds bytes that a header cannot; take them out"))
}

/// The bytes of a signing key: one that begins with `whsec_` is base64, as the specification writes them; any other is used as it is.
fn signing_key(key: &SecretValue, reference: &SecretKeyRef) -> Result<Vec<u8>, String> {
    let Some(encoded) = key.expose().strip_prefix("whsec_") else { return Ok(key.expose().as_bytes().to_vec()) };
    let SecretKeyRef { name, key } = reference;
    STANDARD.decode(encoded).map_err(|_| {
        format!("key {key:?} of Secret {name:?} begins with `whsec_`, but what follows is not base64; copy the signing key once more")
    })
}

/// The `webhook-signature` header: `v1,` and the base64 of HMAC-SHA256 over `id.timestamp.body`.
fn signature(key: &[u8], id: &str, seconds: &str, body: &str) -> String {
    #[allow(clippy::expect_used, reason = "HMAC takes keys of every length")]
    let mut mac = Hmac::<Sha256>::new_from_slice(key).expect("HMAC takes keys of every length");
    for part in [id, ".", seconds, ".", body] {
        mac.update(part.as_bytes());
    }
    format!("v1,{}", STANDARD.encode(mac.finalize().into_bytes()))
}

async fn read_some(mut answer: reqwest::Response) -> String {
    let mut text = Vec::new();
    while text.len() < MAX_ANSWER {
        match answer.chunk().await {
            Ok(Some(chunk)) => text.extend_from_slice(&chunk),
            Ok(None) | Err(_) => break,
        }
    }
    String::from_utf8_lossy(&text).into_owned()
}

fn shorten(text: &str) -> String {
    text.chars().take(MAX_ANSWER).map(|c| if c.is_control() { ' ' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reference() -> SecretKeyRef {
        SecretKeyRef { name: "hook".into(), key: "signing".into() }
    }

    #[test]
    fn a_key_that_claims_to_be_base64_and_is_not_is_refused_by_its_name() {
        let refused = signing_key(&"whsec_not base64".into(), &reference()).unwrap_err();

        assert!(refused.contains(r#"key "signing" of Secret "hook""#), "{refused}");
        assert_eq!(signing_key(&"plain".into(), &reference()).unwrap(), b"plain");
    }

    #[test]
    fn declared_headers_replace_the_content_type_but_not_the_specification_s() {
        let declared = serde_json::json!({
            "url": "https://example.org/",
            "headers": {"Content-Type": "text/plain", "X-Team": "blue", "Webhook-Id": "forged"},
        });
        let webhook: Webhook = serde_json::from_value(declared).unwrap();

        let headers = headers(&webhook, "run-1", "1614265330").unwrap();

        for (name, expected) in [("content-type", "text/plain"), ("x-team", "blue"), ("webhook-id", "run-1")] {
            let values: Vec<_> = headers.get_all(name).iter().collect();
            assert_eq!(values, [expected], "{name}");
        }
    }

    #[test]
    fn a_signature_is_that_of_the_specification_s_example() {
        let key = signing_key(&"whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw".into(), &reference()).unwrap();
        let signed = signature(&key, "msg_p5jXN8AQM9LWM0D4loKWxJek", "1614265330", r#"{"test": 2432232314}"#);

        assert_eq!(signed, "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=");
    }
}
