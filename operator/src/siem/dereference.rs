//! Step one: reads all that a decision needs. Nothing is decided here.
//!
//! One list a kind, by the Siem's labels. What the servers themselves say is read by [`broker::observe`](super::broker::observe) and
//! [`store::observe`](super::store::observe), since that needs the Secrets which are read here.

use std::{collections::BTreeMap, path::Path};

use futures::future::try_join_all;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{ConfigMap, PersistentVolumeClaim, Pod};
use kube::{
    Api, Client, Resource,
    api::{DynamicObject, ListParams},
    core::DeserializeGuard,
};
use redoubt_crds::{LogSource, ResponseAction, Siem};
use redoubt_engine::resource::{self, Spec};
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::{
    child::{self, Id},
    owner::{INSTANCE, MANAGED_BY, MANAGER},
};

/// The label of the ConfigMaps that hold last good versions of resources.
pub(crate) const LAST_GOOD: &str = "redoubt.dev/last-good";
/// The key of such a version in its ConfigMap.
const RESOURCE: &str = "resource.yaml";

/// Why the cluster could not be read.
#[derive(Debug, thiserror::Error)]
#[error("cannot list {what}: {source}")]
pub(crate) struct Unreadable {
    what: String,
    source: kube::Error,
}

/// What there is.
#[derive(Debug, Clone, Default)]
pub(crate) struct Observed {
    /// All Siems of the namespace, this one too.
    pub(crate) siems: Vec<Siem>,
    /// What the resources of the namespace say that may name Secrets and ports, and the last good versions of those that went bad.
    pub(crate) resources: Vec<Spec>,
    /// Objects with the Siem's labels.
    pub(crate) children: Children,
    /// The pods of all of them.
    pub(crate) pods: Vec<Pod>,
    /// The volumes of those that have some.
    pub(crate) claims: Vec<PersistentVolumeClaim>,
    /// When it was read.
    pub(crate) now: Timestamp,
}

/// Objects that are there, by kind and name.
#[derive(Debug, Clone, Default)]
pub(crate) struct Children(pub(crate) BTreeMap<Id, Value>);

impl Children {
    /// One of them, if it is there and is what its kind says.
    pub(crate) fn get<K: Resource<DynamicType = ()> + DeserializeOwned>(&self, name: &str) -> Option<K> {
        serde_json::from_value(self.0.get(&Id::of::<K>(name))?.clone()).ok()
    }

    /// All of one kind.
    pub(crate) fn all<K: Resource<DynamicType = ()> + DeserializeOwned>(&self) -> Vec<K> {
        let kind = K::kind(&());
        self.0.iter().filter(|(id, _)| id.kind == kind).filter_map(|(_, value)| serde_json::from_value(value.clone()).ok()).collect()
    }
}

/// Reads all of it.
pub(crate) async fn dereference(client: &Client, namespace: &str, siem: &str, now: Timestamp) -> Result<Observed, Unreadable> {
    let ours = ListParams::default().labels(&format!("{MANAGED_BY}={MANAGER},{INSTANCE}={siem}"));
    let last_good = ListParams::default().labels(LAST_GOOD);
    let all = ListParams::default();
    let (siems, sources, actions, last_good, pods, claims, children) = tokio::try_join!(
        list::<Siem>(client, namespace, &all),
        list::<LogSource>(client, namespace, &all),
        list::<ResponseAction>(client, namespace, &all),
        list::<ConfigMap>(client, namespace, &last_good),
        list::<Pod>(client, namespace, &ours),
        list::<PersistentVolumeClaim>(client, namespace, &ours),
        list_children(client, namespace, &ours),
    )?;
    let mut resources: Vec<Spec> = sources.into_iter().map(|source| Spec::LogSource(Box::new(source.spec))).collect();
    resources.extend(actions.into_iter().map(|action| Spec::ResponseAction(action.spec)));
    resources.extend(last_good.iter().flat_map(kept_version));
    Ok(Observed { siems, resources, children, pods, claims, now })
}

/// The objects of one kind. One that cannot be read is for its own controller to tell of, and keeps nobody from the others.
async fn list<K>(client: &Client, namespace: &str, params: &ListParams) -> Result<Vec<K>, Unreadable>
where
    K: Resource<DynamicType = (), Scope = k8s_openapi::NamespaceResourceScope> + Clone + DeserializeOwned + std::fmt::Debug,
{
    let api: Api<DeserializeGuard<K>> = Api::namespaced(client.clone(), namespace);
    let found = api.list(params).await.map_err(|source| Unreadable { what: K::plural(&()).into_owned(), source })?;
    Ok(found.items.into_iter().filter_map(|item| item.0.ok()).collect())
}

async fn list_children(client: &Client, namespace: &str, params: &ListParams) -> Result<Children, Unreadable> {
    let lists = child::kinds().into_iter().map(|resource| async move {
        let api: Api<DynamicObject> = Api::namespaced_with(client.clone(), namespace, &resource);
        let found = api.list(params).await.map_err(|source| Unreadable { what: resource.plural.clone(), source })?;
        Ok(found.items.into_iter().map(|object| (Id::read(&resource, &object), plain(&object))).collect::<Vec<_>>())
    });
    Ok(Children(try_join_all(lists).await?.into_iter().flatten().collect()))
}

/// The object as JSON, without what only the API server's bookkeeping needs.
pub(crate) fn plain(object: &DynamicObject) -> Value {
    let mut object = object.clone();
    object.metadata.managed_fields = None;
    // It was JSON a moment ago.
    serde_json::to_value(&object).expect("what was read from JSON can be written as JSON")
}

fn kept_version(kept: &ConfigMap) -> Vec<Spec> {
    let text = kept.data.as_ref().and_then(|data| data.get(RESOURCE));
    text.map(|text| resource::read(Path::new(RESOURCE), text).resources.into_iter().map(|resource| resource.spec).collect())
        .unwrap_or_default()
}
