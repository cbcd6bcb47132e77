//! The Kubernetes API as the workers use it: to follow a few kinds of objects in one namespace, and nothing else.
//!
//! Nothing is ever written. What fails is tried again with growing pauses for as long as the process lives: an API server that is away,
//! a right that is not given yet, a kind that is not installed yet. Whoever follows keeps what it has meanwhile.

use std::{env, fmt, time::Duration};

use anyhow::{Context as _, Result};
use futures::{
    StreamExt as _,
    stream::{self, BoxStream},
};
use k8s_openapi::api::core::v1::Secret;
use kube::{
    Api, Client, Config, Resource,
    api::{ApiResource, DynamicObject},
    config::KubeConfigOptions,
    core::GroupVersionKind,
    runtime::watcher::{self, Event},
};
use serde::de::DeserializeOwned;
use tokio_util::sync::CancellationToken;

use crate::backoff::Backoff;

/// The server ends a watch after this time, in seconds, and it is taken up again. A connection that died in silence is noticed then.
const WATCH_SECONDS: u32 = 60;
/// A connection on which nothing came for so long is given up: more than a watch lasts.
const SILENCE: Duration = Duration::from_secs(75);
/// The first and the longest pause after a failure.
const PAUSES: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(10));

/// A namespace of a cluster. Clones share their connections.
#[derive(Clone)]
pub(crate) struct Namespace {
    client: Client,
    name: String,
}

impl Namespace {
    /// The namespace of this name, in the cluster that this process runs in; or in that of the file which `KUBECONFIG` names, for trials
    /// outside of one. Does not connect.
    pub(crate) async fn connect(name: &str) -> Result<Self> {
        let mut config = if env::var_os("KUBECONFIG").is_some() {
            Config::from_kubeconfig(&KubeConfigOptions::default()).await.context("reading the file that KUBECONFIG names")?
        } else {
            Config::incluster().context(
                "this process runs in no pod with a service account, and --namespace needs a cluster; set KUBECONFIG, or give files with -f",
            )?
        };
        config.read_timeout = Some(SILENCE);
        let client = Client::try_from(config).context("the connection to the Kubernetes API cannot be set up")?;
        Ok(Self { client, name: name.to_owned() })
    }

    /// Its name.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// Its objects of a kind.
    pub(crate) fn objects(&self, group: &str, version: &str, kind: &str) -> Api<DynamicObject> {
        let kind = GroupVersionKind::gvk(group, version, kind);
        Api::namespaced_with(self.client.clone(), &self.name, &ApiResource::from_gvk(&kind))
    }

    /// Its Secrets.
    pub(crate) fn secrets(&self) -> Api<Secret> {
        Api::namespaced(self.client.clone(), &self.name)
    }
}

/// What one follows.
struct Following<K> {
    events: BoxStream<'static, watcher::Result<Event<K>>>,
    pauses: Backoff,
    failed: bool,
}

/// The objects of a kind, and all changes to them, for ever. After an error comes a pause.
pub(crate) fn follow<K>(objects: Api<K>, config: watcher::Config) -> BoxStream<'static, Result<Event<K>, Failure>>
where
    K: Resource + Clone + DeserializeOwned + fmt::Debug + Send + 'static,
{
    let pauses = || Backoff::between(PAUSES.0, PAUSES.1);
    let events = watcher::watcher(objects, config.timeout(WATCH_SECONDS)).boxed();
    let following = Following { events, pauses: pauses(), failed: false };
    let told = stream::unfold(following, move |mut following| async move {
        if following.failed {
            // Fails only at a shutdown, and nobody orders one by this token.
            let _ = following.pauses.pause(&CancellationToken::new()).await;
        }
        let next = following.events.next().await?;
        following.failed = next.is_err();
        // A list begins before it is known whether the API answers.
        if !matches!(next, Err(_) | Ok(Event::Init)) {
            following.pauses = pauses();
        }
        Some((next.map_err(Failure), following))
    });
    told.boxed()
}

/// Why something could not be followed for now.
#[derive(Debug)]
pub(crate) struct Failure(watcher::Error);

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let cause = match &self.0 {
            watcher::Error::InitialListFailed(cause) | watcher::Error::WatchStartFailed(cause) | watcher::Error::WatchFailed(cause) => {
                cause
            }
            watcher::Error::WatchError(status) => return f.write_str(&status.message),
            watcher::Error::NoResourceVersion => return f.write_str("the API told no version"),
        };
        if let kube::Error::Api(status) = cause {
            return f.write_str(&status.message);
        }
        write!(f, "{cause}")?;
        let mut inner = std::error::Error::source(cause);
        while let Some(cause) = inner {
            write!(f, ": {cause}")?;
            inner = cause.source();
        }
        Ok(())
    }
}
