//! One pod of a managed server, called by its own name at its own address: so a certificate is checked, and no cluster DNS is needed.

use std::{
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use reqwest::{Certificate, Client, Method, StatusCode};
use serde_json::Value;

use super::secret::account::Account;

/// Longest that a call may take.
const PATIENCE: Duration = Duration::from_secs(5);
/// Longest answer that is read, in bytes: the shards of a large cluster take a few million.
const LONGEST: usize = 32 << 20;
/// Most of an error's text that is passed on, in characters.
const EXCERPT: usize = 300;

/// Why a server gave no answer that could be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NoAnswer {
    #[error("cannot be reached: {}", root(.0))]
    Unreachable(#[from] reqwest::Error),
    #[error("answered {0}: {1}")]
    Refused(StatusCode, String),
    #[error("answered with more than {LONGEST} bytes")]
    TooLong,
    #[error("answered what cannot be understood")]
    NotUnderstood,
}

/// The innermost cause, which is what there is to know; the outer ones repeat the address.
fn root(error: &reqwest::Error) -> String {
    let mut cause: &dyn std::error::Error = error;
    while let Some(inner) = cause.source() {
        cause = inner;
    }
    cause.to_string()
}

/// Where and how to call. It has no `Debug`, since it knows a password.
pub(crate) struct Endpoint {
    client: Client,
    base: String,
    login: Option<(String, String)>,
}

/// A server in a pod.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Server<'a> {
    /// The pod's name in the cluster's DNS, for which its certificate is made.
    pub(crate) host: &'a str,
    /// The pod's address.
    pub(crate) address: IpAddr,
    pub(crate) port: u16,
}

impl Endpoint {
    /// Over TLS, where an authority is given, and with no other trusted.
    pub(crate) fn new(server: Server<'_>, authority: Option<&[u8]>, login: Option<&Account>) -> Result<Self, NoAnswer> {
        let mut builder = Client::builder()
            .timeout(PATIENCE)
            .no_proxy()
            .redirect(reqwest::redirect::Policy::none())
            .tls_built_in_root_certs(false)
            .resolve(server.host, SocketAddr::new(server.address, server.port));
        if let Some(authority) = authority {
            for certificate in Certificate::from_pem_bundle(authority)? {
                builder = builder.add_root_certificate(certificate);
            }
        }
        let scheme = if authority.is_some() { "https" } else { "http" };
        Ok(Self {
            client: builder.build()?,
            base: format!("{scheme}://{}:{}", server.host, server.port),
            login: login.map(|login| (login.name.clone(), login.password.clone())),
        })
    }

    /// Asks for something.
    pub(crate) async fn get(&self, path: &str) -> Result<Value, NoAnswer> {
        self.call(Method::GET, path, None).await
    }

    /// Calls, and takes only success for an answer. An empty one is `null`.
    pub(crate) async fn call(&self, method: Method, path: &str, body: Option<&Value>) -> Result<Value, NoAnswer> {
        let (status, answer) = self.exchange(method, path, body).await?;
        if !status.is_success() {
            return Err(NoAnswer::Refused(status, String::from_utf8_lossy(&answer).chars().take(EXCERPT).collect()));
        }
        if answer.is_empty() {
            return Ok(Value::Null);
        }
        serde_json::from_slice(&answer).map_err(|_| NoAnswer::NotUnderstood)
    }

    /// Asks for a page of text.
    pub(crate) async fn text(&self, path: &str) -> Result<String, NoAnswer> {
        let (status, answer) = self.exchange(Method::GET, path, None).await?;
        if !status.is_success() {
            return Err(NoAnswer::Refused(status, String::new()));
        }
        String::from_utf8(answer).map_err(|_| NoAnswer::NotUnderstood)
    }

    /// Whether the server lets this user in.
    pub(crate) async fn knows(&self, user: &Account) -> Result<bool, NoAnswer> {
        let request = self.client.get(format!("{}/_security/_authenticate", self.base)).basic_auth(&user.name, Some(&user.password));
        let status = request.send().await?.status();
        match status {
            StatusCode::UNAUTHORIZED => Ok(false),
            status if status.is_success() => Ok(true),
            status => Err(NoAnswer::Refused(status, String::new())),
        }
    }

    async fn exchange(&self, method: Method, path: &str, body: Option<&Value>) -> Result<(StatusCode, Vec<u8>), NoAnswer> {
        let mut request = self.client.request(method, format!("{}{path}", self.base));
        if let Some((name, password)) = &self.login {
            request = request.basic_auth(name, Some(password));
        }
        if let Some(body) = body {
            request = request.json(body);
        }
        let mut response = request.send().await?;
        let mut answer = Vec::new();
        while let Some(chunk) = response.chunk().await? {
            if answer.len() + chunk.len() > LONGEST {
                return Err(NoAnswer::TooLong);
            }
            answer.extend_from_slice(&chunk);
        }
        Ok((response.status(), answer))
    }
}

impl NoAnswer {
    /// Whether the server said that there is no such thing.
    pub(crate) fn is_not_found(&self) -> bool {
        matches!(self, Self::Refused(status, _) if *status == StatusCode::NOT_FOUND || *status == StatusCode::METHOD_NOT_ALLOWED)
    }
}

/// A text as a part of a path.
pub(crate) fn escape(text: &str) -> String {
    use std::fmt::Write as _;
    let mut escaped = String::new();
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            escaped.push(char::from(byte));
        } else {
            // Writing to a text cannot fail.
            let _ = write!(escaped, "%{byte:02X}");
        }
    }
    escaped
}
