//! Who the store is to the cluster: credentials, trusted authorities, its own certificate. Read from the secrets again when they change.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use redoubt_crds::{ExternalStore, SecretKeyRef};
use reqwest::header::HeaderValue;
use reqwest::{Certificate, Client, Identity};

use crate::secrets::{SecretValue, Secrets};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Connections that wait for their next use are let go after this time.
const IDLE_TIMEOUT: Duration = Duration::from_secs(60);

/// What makes a request's sender known.
pub(super) struct Access {
    secrets: Secrets,
    login: Login,
    ca: Option<SecretKeyRef>,
    certificate: Option<(SecretKeyRef, SecretKeyRef)>,
    client: Mutex<Option<Made>>,
}

enum Login {
    Nobody,
    Basic { username: SecretKeyRef, password: SecretKeyRef },
    ApiKey(SecretKeyRef),
}

/// A client, and the readings of the secrets that it was made from.
struct Made {
    client: Client,
    from: Vec<SecretValue>,
}

impl Access {
    pub(super) fn new(spec: &ExternalStore, secrets: Secrets) -> Self {
        let key = |name: &str, key: &str| SecretKeyRef { name: name.to_owned(), key: key.to_owned() };
        let login = match (&spec.api_key_secret_ref, &spec.credentials_secret_ref) {
            (Some(reference), _) => Login::ApiKey(reference.clone()),
            (None, Some(secret)) => Login::Basic { username: key(&secret.name, "username"), password: key(&secret.name, "password") },
            (None, None) => Login::Nobody,
        };
        let tls = spec.tls.clone().unwrap_or_default();
        let certificate = tls.client_certificate_secret_ref.map(|secret| (key(&secret.name, "tls.crt"), key(&secret.name, "tls.key")));
        Self { secrets, login, ca: tls.ca_secret_ref, certificate, client: Mutex::new(None) }
    }

    /// The value of the `Authorization` header.
    pub(super) fn authorization(&self) -> Result<Option<HeaderValue>, String> {
        let read = |reference| self.secrets.get(reference).map_err(|error| error.to_string());
        let text = match &self.login {
            Login::Nobody => return Ok(None),
            Login::ApiKey(reference) => format!("ApiKey {}", read(reference)?.expose()),
            Login::Basic { username, password } => {
                let pair = format!("{}:{}", read(username)?.expose(), read(password)?.expose());
                format!("Basic {}", STANDARD.encode(pair))
            }
        };
        let mut value = HeaderValue::try_from(text).map_err(|_| "the credentials hold characters that a header cannot".to_owned())?;
        value.set_sensitive(true);
        Ok(Some(value))
    }

    /// The client for the next request: the one of before, unless a certificate has changed.
    pub(super) fn client(&self) -> Result<Client, String> {
        let read = |reference| self.secrets.get(reference).map_err(|error| error.to_string());
        let ca = self.ca.as_ref().map(read).transpose()?;
        let certificate = match &self.certificate {
            Some((chain, key)) => Some((read(chain)?, read(key)?)),
            None => None,
        };
        let from: Vec<SecretValue> = ca.iter().chain(certificate.iter().flat_map(|(chain, key)| [chain, key])).cloned().collect();
        let mut made = self.client.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(made) = &*made
            && made.from.iter().zip(&from).all(|(old, new)| old.same_reading(new))
        {
            return Ok(made.client.clone());
        }
        let client = build(ca.as_ref(), certificate.as_ref())?;
        *made = Some(Made { client: client.clone(), from });
        Ok(client)
    }
}

/// A client that trusts these authorities, or else those of the system, and shows this certificate. Redirects are not followed: the
/// credentials are for the addresses that were declared.
fn build(ca: Option<&SecretValue>, certificate: Option<&(SecretValue, SecretValue)>) -> Result<Client, String> {
    let mut builder = Client::builder()
        .redirect(reqwest::redirect::Policy::none())
        .connect_timeout(CONNECT_TIMEOUT)
        .pool_idle_timeout(IDLE_TIMEOUT)
        .tcp_nodelay(true)
        .user_agent(concat!("redoubt/", env!("CARGO_PKG_VERSION")));
    if let Some(ca) = ca {
        let authorities = Certificate::from_pem_bundle(ca.expose().as_bytes())
            .ok()
            .filter(|authorities| !authorities.is_empty())
            .ok_or("the Secret of tls.caSecretRef holds no certificate in PEM")?;
        builder = builder.tls_built_in_root_certs(false);
        for authority in authorities {
            builder = builder.add_root_certificate(authority);
        }
    }
    if let Some((chain, key)) = certificate {
        let pem = format!("{}\n{}\n", chain.expose(), key.expose());
        let identity = Identity::from_pem(pem.as_bytes())
            .map_err(|_| "the Secret of tls.clientCertificateSecretRef holds no certificate with its key in PEM".to_owned())?;
        builder = builder.identity(identity);
    }
    builder.build().map_err(|error| format!("the TLS settings cannot be used: {error}"))
}
