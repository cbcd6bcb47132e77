//! One pod of a managed server, called by its own name at its own address: so a certificate is checked, and no cluster DNS is needed.

use std::{
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use futures::{FutureExt as _, future::BoxFuture};
use reqwest::{
    Certificate, Client, Method, Request, Response, StatusCode,
    header::{AUTHORIZATION, CONTENT_TYPE, HeaderValue},
};
use serde_json::Value;
use tower::BoxError;

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
    #[error("cannot be reached: {}", root(&**.0))]
    Unreachable(#[from] BoxError),
    #[error("answered {0}: {1}")]
    Refused(StatusCode, String),
    #[error("answered with more than {LONGEST} bytes")]
    TooLong,
    #[error("answered what cannot be understood")]
    NotUnderstood,
}

/// The innermost cause, which is what there is to know; the outer ones repeat the address.
fn root(error: &(dyn std::error::Error + 'static)) -> String {
    let mut cause = error;
    while let Some(inner) = cause.source() {
        cause = inner;
    }
    cause.to_string()
}

impl From<reqwest::Error> for NoAnswer {
    fn from(error: reqwest::Error) -> Self {
        Self::Unreachable(error.into())
    }
}

/// Takes a request to a server, and brings its answer.
pub(crate) type Line = Arc<dyn Fn(Request) -> BoxFuture<'static, Result<Response, BoxError>> + Send + Sync>;

/// Makes the line to a server: over TLS, where an authority is given, and with no other trusted. The product has [`network`].
pub(crate) type Connect = Arc<dyn Fn(Server<'_>, Option<&[u8]>) -> Result<Line, NoAnswer> + Send + Sync>;

/// A server in a pod.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Server<'a> {
    /// The pod's name in the cluster's DNS, for which its certificate is made.
    pub(crate) host: &'a str,
    /// The pod's address.
    pub(crate) address: IpAddr,
    pub(crate) port: u16,
}

/// Lines over the network.
pub(crate) fn network() -> Connect {
    Arc::new(|server, authority| {
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
        let client = builder.build()?;
        Ok(Arc::new(move |request| client.execute(request).map(|answer| answer.map_err(BoxError::from)).boxed()))
    })
}

/// Where and how to call. It has no `Debug`, since it knows a password.
pub(crate) struct Endpoint {
    line: Line,
    base: String,
    login: Option<(String, String)>,
}

impl Endpoint {
    /// A server that is called as somebody, where a login is given.
    pub(crate) fn new(connect: &Connect, server: Server<'_>, authority: Option<&[u8]>, login: Option<&Account>) -> Result<Self, NoAnswer> {
        let scheme = if authority.is_some() { "https" } else { "http" };
        Ok(Self {
            line: connect(server, authority)?,
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
        let login = Some((user.name.as_str(), user.password.as_str()));
        let status = self.send(Method::GET, "/_security/_authenticate", login, None).await?.status();
        match status {
            StatusCode::UNAUTHORIZED => Ok(false),
            status if status.is_success() => Ok(true),
            status => Err(NoAnswer::Refused(status, String::new())),
        }
    }

    async fn exchange(&self, method: Method, path: &str, body: Option<&Value>) -> Result<(StatusCode, Vec<u8>), NoAnswer> {
        let login = self.login.as_ref().map(|(name, password)| (name.as_str(), password.as_str()));
        let mut response = self.send(method, path, login, body).await?;
        let mut answer = Vec::new();
        while let Some(chunk) = response.chunk().await? {
            if answer.len() + chunk.len() > LONGEST {
                return Err(NoAnswer::TooLong);
            }
            answer.extend_from_slice(&chunk);
        }
        Ok((response.status(), answer))
    }

    async fn send(&self, method: Method, path: &str, login: Option<(&str, &str)>, body: Option<&Value>) -> Result<Response, NoAnswer> {
        let url = format!("{}{path}", self.base).parse().map_err(BoxError::from)?;
        let mut request = Request::new(method, url);
        if let Some((name, password)) = login {
            let credentials = STANDARD.encode(format!("{name}:{password}"));
            let mut header = HeaderValue::try_from(format!("Basic {credentials}")).map_err(BoxError::from)?;
            header.set_sensitive(true);
            request.headers_mut().insert(AUTHORIZATION, header);
        }
        if let Some(body) = body {
            request.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
            *request.body_mut() = Some(body.to_string().into());
        }
        Ok((self.line)(request).await?)
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
