//! The watches: what the API server tells, as events of the index.
//!
//! Resources are taken as they are, metadata and plain JSON: an object that does not fit its type cannot break the watch of its kind, and is
//! judged like any other. A watch that breaks is begun anew, after growing pauses, and its listing tells what has gone meanwhile.

use std::{collections::BTreeSet, pin::pin, sync::Arc};

use futures::StreamExt as _;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{ConfigMap, Pod};
use kube::{
    Api, Client, Resource, ResourceExt as _,
    api::{ApiResource, DynamicObject},
    core::NamespaceResourceScope,
    runtime::{WatchStreamExt as _, watcher},
};
use redoubt_engine::resource::Kind;
use serde::de::DeserializeOwned;
use serde_json::Value;
use tokio::{sync::mpsc, task::JoinSet};
use tracing::{debug, warn};

use super::{
    document::{self, KEPT_LABEL},
    index::{self, Event, Key, Listing, Reported, Role, Seen, Watched},
};
use crate::{
    metrics::{KindLabels, Metrics},
    options::{FIELD_MANAGER, Scope},
};

/// Objects in one answer of a listing: few enough that the memory they take on their way is small.
const PAGE: u32 = 200;

/// What a watch tells.
#[derive(Debug)]
pub enum Told {
    /// Something happened in a namespace.
    Event(Arc<str>, Event),
    /// A listing has ended.
    Listed(Listing),
}

/// Starts all watches; they end when the result is dropped.
#[must_use]
pub fn start(client: &Client, scope: &Scope, metrics: &Arc<Metrics>, sender: &mpsc::Sender<Told>) -> JoinSet<()> {
    let mut watches = JoinSet::new();
    for namespace in scope.parts() {
        for watched in Watched::ALL {
            let watch = Watch {
                client: client.clone(),
                of: watched,
                namespace: namespace.clone(),
                metrics: Arc::clone(metrics),
                sender: sender.clone(),
            };
            match watched {
                Watched::Kind(kind) => {
                    let kind = api_resource(kind);
                    let api = match &watch.namespace {
                        Some(namespace) => Api::namespaced_with(watch.client.clone(), namespace, &kind),
                        None => Api::all_with(watch.client.clone(), &kind),
                    };
                    watches.spawn(watch.follow::<DynamicObject>(api, watcher::Config::default()));
                }
                Watched::LastGood => {
                    let api = watch.api::<ConfigMap>();
                    watches.spawn(watch.follow(api, watcher::Config::default().labels(KEPT_LABEL)));
                }
                Watched::Pods => {
                    let api = watch.api::<Pod>();
                    let ours = format!("app.kubernetes.io/name=redoubt,app.kubernetes.io/managed-by={FIELD_MANAGER}");
                    watches.spawn(watch.follow(api, watcher::Config::default().labels(&ours)));
                }
            }
        }
    }
    watches
}

/// How a kind is called in the API.
#[must_use]
pub fn api_resource(kind: Kind) -> ApiResource {
    match kind {
        Kind::Siem => ApiResource::erase::<redoubt_crds::Siem>(&()),
        Kind::LogSource => ApiResource::erase::<redoubt_crds::LogSource>(&()),
        Kind::Watchlist => ApiResource::erase::<redoubt_crds::Watchlist>(&()),
        Kind::Enrichment => ApiResource::erase::<redoubt_crds::Enrichment>(&()),
        Kind::AlertRule => ApiResource::erase::<redoubt_crds::AlertRule>(&()),
        Kind::ResponseAction => ApiResource::erase::<redoubt_crds::ResponseAction>(&()),
    }
}

/// One watch.
struct Watch {
    client: Client,
    of: Watched,
    namespace: Option<Arc<str>>,
    metrics: Arc<Metrics>,
    sender: mpsc::Sender<Told>,
}

impl Watch {
    fn api<K>(&self) -> Api<K>
    where
        K: Resource<DynamicType = (), Scope = NamespaceResourceScope>,
    {
        match &self.namespace {
            Some(namespace) => Api::namespaced(self.client.clone(), namespace),
            None => Api::all(self.client.clone()),
        }
    }

    /// Follows it until nobody listens any more.
    async fn follow<K>(self, api: Api<K>, config: watcher::Config)
    where
        K: Resource + Watchable + Clone + std::fmt::Debug + DeserializeOwned + Send + 'static,
    {
        let mut events = pin!(watcher(api, config.page_size(PAGE)).default_backoff());
        let mut present = BTreeSet::new();
        let mut broken = false;
        while let Some(event) = events.next().await {
            let told = match event {
                Ok(watcher::Event::Init) => {
                    present.clear();
                    continue;
                }
                Ok(watcher::Event::InitApply(object)) => {
                    let namespace = Arc::from(object.namespace().unwrap_or_default());
                    present.insert((Arc::clone(&namespace), Arc::from(object.name_any())));
                    object.seen(self.of).map(|event| Told::Event(namespace, event))
                }
                Ok(watcher::Event::InitDone) => {
                    let listing = Listing { of: self.of, namespace: self.namespace.clone(), present: std::mem::take(&mut present) };
                    Some(Told::Listed(listing))
                }
                Ok(watcher::Event::Apply(object)) => {
                    let namespace = Arc::from(object.namespace().unwrap_or_default());
                    object.seen(self.of).map(|event| Told::Event(namespace, event))
                }
                Ok(watcher::Event::Delete(object)) => {
                    let namespace = Arc::from(object.namespace().unwrap_or_default());
                    object.gone(self.of).map(|event| Told::Event(namespace, event))
                }
                Err(error) => {
                    self.broke(&error, broken);
                    broken = true;
                    continue;
                }
            };
            broken = false;
            if let Some(told) = told
                && self.sender.send(told).await.is_err()
            {
                return;
            }
        }
    }

    /// Says that the watch broke, loudly the first time of a row.
    fn broke(&self, error: &watcher::Error, again: bool) {
        let kind = match self.of {
            Watched::Kind(kind) => kind.as_str(),
            Watched::LastGood => "ConfigMap",
            Watched::Pods => "Pod",
        };
        self.metrics.watch_failures.get_or_create(&KindLabels { kind }).inc();
        let namespace = self.namespace.as_deref().unwrap_or("all namespaces");
        if again {
            debug!(kind, namespace, %error, "a watch is still broken");
        } else {
            warn!(kind, namespace, error = %describe(error), "a watch broke; it is begun anew");
        }
    }
}

/// An error with what lies beneath it: the outermost alone says only what was being done.
fn describe(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(inner) = source {
        text = format!("{text}: {inner}");
        source = inner.source();
    }
    text
}

/// An object as an event.
pub(super) trait Watchable {
    /// It is there, or has changed.
    fn seen(self, of: Watched) -> Option<Event>;
    /// It is gone.
    fn gone(self, of: Watched) -> Option<Event>;
}

impl Watchable for DynamicObject {
    fn seen(mut self, of: Watched) -> Option<Event> {
        let key = key(&self, of)?;
        self.metadata.managed_fields = None;
        let metadata = serde_json::to_value(&self.metadata).unwrap_or_default();
        Some(Event::Seen(Seen {
            key,
            uid: self.uid().unwrap_or_default().into(),
            generation: self.metadata.generation.unwrap_or(0),
            version: version(&self),
            created: self.creation_timestamp().map_or(Timestamp::UNIX_EPOCH, |time| time.0),
            lines_before_spec: document::kubectl::lines_before_spec(&metadata),
            spec: self.data.get("spec").unwrap_or(&Value::Null).to_string().into(),
            reported: Reported::of(self.data.get("status").unwrap_or(&Value::Null)),
        }))
    }

    fn gone(self, of: Watched) -> Option<Event> {
        Some(Event::Gone(key(&self, of)?, version(&self)))
    }
}

impl Watchable for ConfigMap {
    fn seen(self, _: Watched) -> Option<Event> {
        document::read_config_map(&self).map(Event::Kept)
    }

    fn gone(self, _: Watched) -> Option<Event> {
        document::read_config_map(&self).map(|kept| Event::KeptNoLonger(kept.key, kept.version))
    }
}

impl Watchable for Pod {
    fn seen(self, _: Watched) -> Option<Event> {
        let role = Role::of(self.labels().get("app.kubernetes.io/component")?)?;
        let status = self.status.as_ref();
        let conditions = status.and_then(|status| status.conditions.as_ref());
        let is_ready = conditions.is_some_and(|all| all.iter().any(|condition| condition.type_ == "Ready" && condition.status == "True"));
        Some(Event::Pod(index::Pod {
            name: self.name_any().into(),
            uid: self.uid().unwrap_or_default().into(),
            role,
            address: status.and_then(|status| status.pod_ip.as_ref()?.parse().ok()),
            ready: is_ready && self.metadata.deletion_timestamp.is_none(),
        }))
    }

    fn gone(self, _: Watched) -> Option<Event> {
        Some(Event::PodGone(self.name_any().into()))
    }
}

fn key(object: &DynamicObject, of: Watched) -> Option<Key> {
    let Watched::Kind(kind) = of else { return None };
    Some(Key { kind, name: object.name_any().into() })
}

fn version<K: Resource>(object: &K) -> u64 {
    object.meta().resource_version.as_deref().and_then(|version| version.parse().ok()).unwrap_or(0)
}
