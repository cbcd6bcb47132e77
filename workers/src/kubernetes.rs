//! The Kubernetes API as the workers use it: to follow a few kinds of objects in one namespace, and nothing else.
//!
//! Nothing is ever written. What fails is tried again with growing pauses for as long as the process lives: an API server that is away,
//! a right that is not given yet, a kind that is not installed yet. Whoever follows keeps what it has meanwhile.

use std::{
    env, fmt,
    sync::Arc,
    time::{Duration, Instant},
};

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
use tracing::{debug, info, warn};

use crate::{
    backoff::Backoff,
    metrics::{Metrics, WatchLabels},
};

/// The server ends a watch after this time, in seconds, and it is taken up again. A connection that died in silence is noticed then.
const WATCH_SECONDS: u32 = 60;
/// A connection on which nothing came for so long is given up: more than a watch lasts.
const SILENCE: Duration = Duration::from_secs(75);
/// The first and the longest pause after a failure.
const PAUSES: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(10));
/// After so long without a failure, one is a new one: longer than an attempt and its pause last.
const CALM: Duration = Duration::from_secs(90);

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

/// What is followed: for the log and the counter.
pub(crate) struct Followed {
    /// Its name, such as `the objects of kind Siem`.
    pub(crate) what: String,
    /// The label under which failures are counted.
    pub(crate) label: &'static str,
    pub(crate) metrics: Arc<Metrics>,
}

struct Following<K> {
    events: BoxStream<'static, watcher::Result<Event<K>>>,
    followed: Followed,
    pauses: Backoff,
    /// When it last failed, and whether nothing was told since.
    failed: Option<(Instant, bool)>,
}

/// The objects of a kind, and all changes to them, for ever. A failure is told too, with its reason; after it comes a pause.
pub(crate) fn follow<K>(objects: Api<K>, config: watcher::Config, followed: Followed) -> BoxStream<'static, Result<Event<K>, String>>
where
    K: Resource + Clone + DeserializeOwned + fmt::Debug + Send + 'static,
{
    let events = watcher::watcher(objects, config.timeout(WATCH_SECONDS)).boxed();
    let following = Following { events, followed, pauses: pauses(), failed: None };
    stream::unfold(following, |mut following| async { Some((following.next().await?, following)) }).boxed()
}

fn pauses() -> Backoff {
    Backoff::between(PAUSES.0, PAUSES.1)
}

impl<K> Following<K> {
    async fn next(&mut self) -> Option<Result<Event<K>, String>> {
        if let Some((_, true)) = self.failed {
            // Fails only at a shutdown, and nobody orders one by this token.
            let _ = self.pauses.pause(&CancellationToken::new()).await;
        }
        match self.events.next().await? {
            Ok(event) => {
                // A list begins before it is known whether the API answers.
                if !matches!(event, Event::Init) {
                    self.succeed();
                } else if let Some((at, _)) = self.failed {
                    self.failed = Some((at, false));
                }
                Some(Ok(event))
            }
            Err(error) => {
                let reason = reason(&error);
                self.fail(&reason);
                Some(Err(reason))
            }
        }
    }

    fn succeed(&mut self) {
        if self.failed.take().is_some() {
            info!("{} can be followed again", self.followed.what);
            self.pauses = pauses();
        }
    }

    fn fail(&mut self, reason: &str) {
        self.followed.metrics.watch_failures.get_or_create(&WatchLabels { watch: self.followed.label }).inc();
        // A watch that was taken up again and had nothing to tell has succeeded without a word.
        let is_new = self.failed.is_none_or(|(at, _)| at.elapsed() > CALM);
        if is_new {
            warn!(reason, "{} cannot be followed; what is known stands, and it is tried again", self.followed.what);
            self.pauses = pauses();
        } else {
            debug!(reason, "{} still cannot be followed", self.followed.what);
        }
        self.failed = Some((Instant::now(), true));
    }
}

/// Why something could not be followed for now.
fn reason(error: &watcher::Error) -> String {
    let cause = match error {
        watcher::Error::InitialListFailed(cause) | watcher::Error::WatchStartFailed(cause) | watcher::Error::WatchFailed(cause) => cause,
        watcher::Error::WatchError(status) => return status.message.clone(),
        watcher::Error::NoResourceVersion => return "the API told no version".to_owned(),
    };
    if let kube::Error::Api(status) = cause {
        return status.message.clone();
    }
    let mut reason = cause.to_string();
    let mut inner = std::error::Error::source(cause);
    while let Some(cause) = inner {
        reason = format!("{reason}: {cause}");
        inner = cause.source();
    }
    reason
}
