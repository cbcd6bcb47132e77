//! The way to the API server: every call is counted, bounded in time, and one of few at once.
//!
//! What a call was is told from its path, so that nothing has to say it twice: verb and resource are words of Kubernetes, and names of
//! objects never become labels. A watch counts as done when it has begun; its events do not hold a place.

use std::{
    task::{Context, Poll},
    time::{Duration, Instant},
};

use futures::{FutureExt as _, future::BoxFuture};
use http::{Method, Request, Response, StatusCode};
use kube::{
    Client, Config,
    client::{Body, ClientBuilder},
};
use tower::{BoxError, Layer, Service, limit::ConcurrencyLimitLayer, timeout::TimeoutLayer, timeout::error::Elapsed};

use crate::metrics::{ApiCounters, ApiLabels, ApiTimeLabels, Metrics};

/// How many calls are made at once.
pub const CONCURRENCY: usize = 32;
/// How long a call may take until its answer begins.
pub const TIMEOUT: Duration = Duration::from_secs(30);

/// Connects with what the process's Kubernetes configuration says.
///
/// # Errors
/// The configuration's certificates or credentials cannot be used.
pub fn connect(config: Config, metrics: &Metrics) -> kube::Result<Client> {
    let builder = ClientBuilder::try_from(config)?
        .with_layer(&ConcurrencyLimitLayer::new(CONCURRENCY))
        .with_layer(&TimeoutLayer::new(TIMEOUT))
        .with_layer(&CountLayer { metrics: metrics.api() });
    Ok(builder.build())
}

#[derive(Clone)]
struct CountLayer {
    metrics: ApiCounters,
}

impl<S> Layer<S> for CountLayer {
    type Service = Count<S>;

    fn layer(&self, inner: S) -> Count<S> {
        Count { inner, metrics: self.metrics.clone() }
    }
}

/// Counts the calls that go through it.
struct Count<S> {
    inner: S,
    metrics: ApiCounters,
}

impl<S, B> Service<Request<Body>> for Count<S>
where
    S: Service<Request<Body>, Response = Response<B>, Error = BoxError>,
    S::Future: Send + 'static,
{
    type Response = Response<B>;
    type Error = BoxError;
    type Future = BoxFuture<'static, Result<Response<B>, BoxError>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let Call { verb, resource } = Call::of(request.method(), request.uri().path(), request.uri().query().unwrap_or_default());
        let metrics = self.metrics.clone();
        let started = Instant::now();
        let answer = self.inner.call(request);
        async move {
            let answer = answer.await;
            let outcome = match &answer {
                Ok(response) => outcome(response.status()),
                Err(error) if error.is::<Elapsed>() => "timeout",
                Err(_) => "unreachable",
            };
            metrics.seconds.get_or_create(&ApiTimeLabels { verb, resource: resource.clone() }).observe(started.elapsed().as_secs_f64());
            metrics.calls.get_or_create(&ApiLabels { verb, resource, outcome }).inc();
            answer
        }
        .boxed()
    }
}

/// What is asked of the API server.
#[derive(Debug, PartialEq, Eq)]
struct Call {
    verb: &'static str,
    /// Plural name, with the subresource: `alertrules/status`.
    resource: String,
}

impl Call {
    /// What a request asks for (Kubernetes API Concepts, "Resource URIs").
    fn of(method: &Method, path: &str, query: &str) -> Self {
        let parts: Vec<&str> = path.split('/').filter(|part| !part.is_empty()).collect();
        let below_version = match parts.as_slice() {
            ["api", _, rest @ ..] | ["apis", _, _, rest @ ..] => rest,
            _ => &[],
        };
        let (plural, name, subresource) = match below_version {
            ["namespaces", _, plural, rest @ ..] => (*plural, rest.first(), rest.get(1)),
            [plural, rest @ ..] => (*plural, rest.first(), rest.get(1)),
            [] => ("discovery", None, None),
        };
        let watch = query.split('&').any(|pair| matches!(pair, "watch=true" | "watch=1"));
        let verb = match *method {
            Method::GET if watch => "watch",
            Method::GET if name.is_none() => "list",
            Method::GET => "get",
            Method::POST => "create",
            Method::PUT => "update",
            Method::PATCH => "patch",
            Method::DELETE => "delete",
            _ => "other",
        };
        Self { verb, resource: subresource.map_or_else(|| plural.to_owned(), |part| format!("{plural}/{part}")) }
    }
}

fn outcome(status: StatusCode) -> &'static str {
    match status {
        status if status.is_success() || status.is_informational() => "ok",
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => "forbidden",
        StatusCode::NOT_FOUND => "not_found",
        StatusCode::CONFLICT => "conflict",
        StatusCode::GONE => "gone",
        StatusCode::TOO_MANY_REQUESTS => "throttled",
        status if status.is_client_error() => "invalid",
        _ => "failed",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_is_told_from_its_request() {
        for (method, path, query, verb, resource) in [
            (Method::GET, "/apis/redoubt.dev/v1alpha1/alertrules", "limit=500", "list", "alertrules"),
            (Method::GET, "/apis/redoubt.dev/v1alpha1/namespaces/soc/alertrules", "watch=true&timeoutSeconds=290", "watch", "alertrules"),
            (Method::PATCH, "/apis/redoubt.dev/v1alpha1/namespaces/soc/alertrules/r/status", "", "patch", "alertrules/status"),
            (Method::GET, "/api/v1/namespaces/soc/configmaps/c", "", "get", "configmaps"),
            (Method::POST, "/apis/events.k8s.io/v1/namespaces/soc/events", "", "create", "events"),
            (Method::DELETE, "/api/v1/namespaces/soc/configmaps/c", "", "delete", "configmaps"),
            (Method::GET, "/version", "", "list", "discovery"),
        ] {
            let expected = Call { verb, resource: resource.to_owned() };

            assert_eq!(Call::of(&method, path, query), expected, "{method} {path}?{query}");
        }
    }
}
