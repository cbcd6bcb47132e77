//! Who may post: bearer tokens and `user:password` pairs out of Secrets.
//!
//! What a sender shows and what a Secret holds are compared as SHA-256 digests in constant time, all lines of the Secret each time, so
//! that an answer's time tells nothing of how near a guess came. A wrong credential is slowed down by [`Credentials::slow_down`], for
//! all senders together; a right one never waits for it, so that guessing cannot keep anybody out.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use axum::http::{HeaderMap, header};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use redoubt_crds::SecretKeyRef;
use redoubt_engine::source::Source;
use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq as _;
use tokio::{sync::Semaphore, time::Instant};

use super::log_throttle::LogThrottle;
use crate::secrets::{SecretError, SecretValue, Secrets};

/// How long a refusal takes, and how many are answered at a time: 64 guesses a second in all.
const REFUSAL: Duration = Duration::from_millis(250);
const REFUSALS_AT_A_TIME: usize = 16;
/// How many Secrets' digests are kept at hand.
const MAX_CACHED: usize = 4096;

/// What a sender shows, as its digest.
#[derive(Debug, Clone, Copy)]
pub(super) struct Credential {
    scheme: Scheme,
    digest: [u8; 32],
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Scheme {
    Bearer,
    Basic,
}

impl Credential {
    /// The credential of an `Authorization` header (RFC 6750, RFC 7617); `None` where there is none that can be read.
    pub(super) fn from_headers(headers: &HeaderMap) -> Option<Self> {
        let value = headers.get(header::AUTHORIZATION)?.to_str().ok()?;
        let (scheme, rest) = value.split_once(' ')?;
        let rest = rest.trim();
        if scheme.eq_ignore_ascii_case("bearer") {
            Some(Self { scheme: Scheme::Bearer, digest: digest(rest.as_bytes()) })
        } else if scheme.eq_ignore_ascii_case("basic") {
            Some(Self { scheme: Scheme::Basic, digest: digest(&STANDARD.decode(rest).ok()?) })
        } else {
            None
        }
    }
}

/// What the Secrets of the sources say of a credential.
#[derive(Debug)]
pub(super) struct Credentials {
    secrets: Secrets,
    digests: Mutex<HashMap<SecretKeyRef, (SecretValue, Digests)>>,
    refusals: Semaphore,
    refused: LogThrottle,
    unreadable: LogThrottle,
}

type Digests = Arc<[[u8; 32]]>;

impl Credentials {
    pub(super) fn new(secrets: Secrets) -> Self {
        Self {
            secrets,
            digests: Mutex::default(),
            refusals: Semaphore::new(REFUSALS_AT_A_TIME),
            refused: LogThrottle::default(),
            unreadable: LogThrottle::default(),
        }
    }

    /// Whether a credential is one of a source's HTTP input. A source without an HTTP input accepts none.
    ///
    /// # Errors
    /// The source's Secret cannot be read, so that nothing can be said of the credential.
    pub(super) fn accepts(&self, source: &Source, credential: Credential) -> Result<bool, SecretError> {
        let Some(http) = &source.spec.http else { return Ok(false) };
        let reference = match credential.scheme {
            Scheme::Bearer => &http.auth.bearer,
            Scheme::Basic => &http.auth.basic,
        };
        let Some(reference) = reference else { return Ok(false) };
        let digests = self.digests(reference).inspect_err(|error| {
            if let Some(times) = self.unreadable.due(Instant::now()) {
                tracing::error!(source = %source.name, %error, times, "senders cannot be authenticated");
            }
        })?;
        let found = digests.iter().fold(subtle::Choice::from(0), |found, known| found | known.ct_eq(&credential.digest));
        Ok(found.into())
    }

    /// Waits before a refusal is answered, and writes a line about it now and then.
    pub(super) async fn slow_down(&self, sender: Option<&str>) {
        if let Some(times) = self.refused.due(Instant::now()) {
            tracing::warn!(sender = sender.unwrap_or("unknown"), times, "credentials refused");
        }
        // The semaphore is never closed; were it, the refusal would only come sooner.
        let _permit = self.refusals.acquire().await;
        tokio::time::sleep(REFUSAL).await;
    }

    /// The digests of a Secret's lines, made anew only when the Secret has changed.
    fn digests(&self, reference: &SecretKeyRef) -> Result<Digests, SecretError> {
        let value = self.secrets.get(reference)?;
        let mut cached = self.digests.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((known, digests)) = cached.get(reference)
            && known.same_reading(&value)
        {
            return Ok(digests.clone());
        }
        if cached.len() >= MAX_CACHED {
            cached.clear();
        }
        let lines = value.expose().lines().map(str::trim).filter(|line| !line.is_empty());
        let digests: Digests = lines.map(|line| digest(line.as_bytes())).collect();
        cached.insert(reference.clone(), (value, digests.clone()));
        Ok(digests)
    }
}

fn digest(bytes: &[u8]) -> [u8; 32] {
    Sha256::digest(bytes).into()
}

#[cfg(test)]
mod tests {
    use redoubt_crds::{HttpAuth, HttpInput, LogSourceSpec};

    use super::*;

    fn source() -> Source {
        let reference = |key: &str| Some(SecretKeyRef { name: "web".into(), key: key.into() });
        let http = Some(HttpInput { auth: HttpAuth { bearer: reference("tokens"), basic: reference("users") } });
        Source::compile("web", &LogSourceSpec { http, ..LogSourceSpec::default() }).unwrap()
    }

    fn secrets(tokens: &str, users: &str) -> (tempfile::TempDir, Credentials) {
        let directory = tempfile::tempdir().unwrap();
        std::fs::create_dir(directory.path().join("web")).unwrap();
        std::fs::write(directory.path().join("web/tokens"), tokens).unwrap();
        std::fs::write(directory.path().join("web/users"), users).unwrap();
        let credentials = Credentials::new(Secrets::new(directory.path()));
        (directory, credentials)
    }

    fn shown(authorization: &str) -> Option<Credential> {
        let mut headers = HeaderMap::new();
        headers.insert(header::AUTHORIZATION, authorization.parse().unwrap());
        Credential::from_headers(&headers)
    }

    fn basic(pair: &str) -> String {
        format!("Basic {}", STANDARD.encode(pair))
    }

    #[test]
    fn each_line_of_the_secret_is_a_credential_of_its_scheme() {
        let (_directory, credentials) = secrets("old-token\nnew-token\n", "ann:s3cret\n\n");

        for (authorization, expected) in [
            ("Bearer old-token".to_owned(), true),
            ("bearer new-token".to_owned(), true),
            ("Bearer old-token\t".to_owned(), true),
            ("Bearer ".to_owned(), false),
            ("Bearer old-tokem".to_owned(), false),
            ("Bearer ann:s3cret".to_owned(), false),
            (basic("ann:s3cret"), true),
            (basic("ann:other"), false),
            (basic("old-token"), false),
            (basic(""), false),
        ] {
            let credential = shown(&authorization).unwrap();

            assert_eq!(credentials.accepts(&source(), credential).unwrap(), expected, "{authorization}");
        }
    }

    #[test]
    fn a_header_that_is_no_credential_is_none() {
        for authorization in ["", "Bearer", "Digest abc", "Basic not base64!", "old-token"] {
            assert!(shown(authorization).is_none(), "{authorization}");
        }
    }

    #[test]
    fn a_secret_that_cannot_be_read_is_an_error_and_an_input_without_the_scheme_accepts_none() {
        let (directory, credentials) = secrets("token", "ann:s3cret");
        std::fs::remove_file(directory.path().join("web/tokens")).unwrap();
        let mut without_basic = source();
        without_basic.spec.http = Some(HttpInput::default());

        assert!(credentials.accepts(&source(), shown("Bearer token").unwrap()).is_err());
        assert!(!credentials.accepts(&without_basic, shown(&basic("ann:s3cret")).unwrap()).unwrap());
    }

    #[tokio::test(start_paused = true)]
    async fn refusals_are_answered_sixteen_at_a_time() {
        let (_directory, credentials) = secrets("token", "");
        let start = Instant::now();

        futures::future::join_all((0..33).map(|_| credentials.slow_down(None))).await;

        assert_eq!(start.elapsed().as_millis(), 3 * REFUSAL.as_millis());
    }
}
