//! Step one: reads all that a decision needs. Nothing is decided here.
//!
//! One list a kind, by the Siem's labels. What the servers themselves say is read by [`broker::observe`](super::broker::observe) and
//! [`store::observe`](super::store::observe), since that needs the Secrets which are read here.

use std::{
    collections::{BTreeMap, BTreeSet, btree_map::Entry},
    path::Path,
};

use futures::future::try_join_all;
use jiff::Timestamp;
use k8s_openapi::api::{
    apps::v1::{Deployment, StatefulSet},
    core::v1::{ConfigMap, PersistentVolumeClaim, Pod, Secret},
};
use kube::{
    Api, Client, Resource,
    api::{ApiResource, DynamicObject, ListParams, TypeMeta},
    core::DeserializeGuard,
};
use redoubt_crds::{LogSource, ResponseAction, Siem};
use redoubt_engine::resource::{self, Spec};
use serde::de::DeserializeOwned;
use serde_json::Value;
use tracing::warn;

use super::{
    answer::said,
    child::{self, Id},
    foreign::{Presence, Presences},
    name,
    owner::{INSTANCE, MANAGED_BY, MANAGER},
};

/// The label of the ConfigMaps that hold last good versions of resources.
pub(crate) const LAST_GOOD: &str = "redoubt.dev/last-good";
/// The key of such a version in its ConfigMap.
const RESOURCE: &str = "resource.yaml";

/// Why the cluster could not be read.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Unreadable {
    #[error("cannot read {what}: {source}")]
    NoAnswer { what: String, source: kube::Error },
    /// To take it for missing would be to make it anew.
    #[error("{kind} {name} is there and cannot be understood: {source}")]
    NotUnderstood { kind: String, name: String, source: serde_json::Error },
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
    /// Which kinds of others are there.
    pub(crate) foreign: Presences,
    /// Deployments whose number of pods somebody else has written too.
    pub(crate) scaled: BTreeSet<String>,
    /// When it was read.
    pub(crate) now: Timestamp,
}

/// Objects that are there, by kind and name.
#[derive(Debug, Clone, Default)]
pub(crate) struct Children(pub(crate) BTreeMap<Id, Value>);

impl Children {
    /// One of them, if it is there.
    pub(crate) fn get<K: Resource<DynamicType = ()> + DeserializeOwned>(&self, name: &str) -> Option<K> {
        K::deserialize(self.0.get(&Id::of::<K>(name))?).ok()
    }

    /// All of one kind.
    pub(crate) fn all<K: Resource<DynamicType = ()> + DeserializeOwned>(&self) -> Vec<K> {
        let kind = K::kind(&());
        self.0.iter().filter(|(id, _)| id.kind == kind).filter_map(|(_, value)| K::deserialize(value).ok()).collect()
    }
}

impl Children {
    /// Makes sure that what is read as this kind can be read as it.
    fn check<K: Resource<DynamicType = ()> + DeserializeOwned>(&self) -> Result<(), Unreadable> {
        let kind = K::kind(&());
        for (id, value) in self.0.iter().filter(|(id, _)| id.kind == kind) {
            if let Err(source) = K::deserialize(value) {
                return Err(Unreadable::NotUnderstood { kind: id.kind.clone(), name: id.name.clone(), source });
            }
        }
        Ok(())
    }
}

/// Reads all of it.
pub(crate) async fn dereference(
    client: &Client,
    namespace: &str,
    siem: &str,
    foreign: Presences,
    now: Timestamp,
) -> Result<Observed, Unreadable> {
    let ours = ListParams::default().labels(&format!("{MANAGED_BY}={MANAGER},{INSTANCE}={siem}"));
    let last_good = ListParams::default().labels(LAST_GOOD);
    let all = ListParams::default();
    let (siems, sources, actions, last_good, pods, claims, (mut children, scaled)) = tokio::try_join!(
        list::<Siem>(client, namespace, &all),
        list::<LogSource>(client, namespace, &all),
        list::<ResponseAction>(client, namespace, &all),
        list::<ConfigMap>(client, namespace, &last_good),
        list::<Pod>(client, namespace, &ours),
        list::<PersistentVolumeClaim>(client, namespace, &ours),
        list_children(client, namespace, &ours),
    )?;
    find_secrets(client, namespace, siem, &mut children).await?;
    let foreign = list_foreign(client, namespace, &ours, foreign, &mut children).await;
    children.check::<Secret>()?;
    children.check::<StatefulSet>()?;
    children.check::<Deployment>()?;
    let mut resources: Vec<Spec> = sources.into_iter().map(|source| Spec::LogSource(Box::new(source.spec))).collect();
    resources.extend(actions.into_iter().map(|action| Spec::ResponseAction(action.spec)));
    resources.extend(last_good.iter().flat_map(kept_version));
    Ok(Observed { siems, resources, children, pods, claims, foreign, scaled, now })
}

/// The objects of one kind. One that cannot be read is for its own controller to tell of, and keeps nobody from the others.
async fn list<K>(client: &Client, namespace: &str, params: &ListParams) -> Result<Vec<K>, Unreadable>
where
    K: Resource<DynamicType = (), Scope = k8s_openapi::NamespaceResourceScope> + Clone + DeserializeOwned + std::fmt::Debug,
{
    let api: Api<DeserializeGuard<K>> = Api::namespaced(client.clone(), namespace);
    let found = api.list(params).await.map_err(|source| Unreadable::NoAnswer { what: K::plural(&()).into_owned(), source })?;
    Ok(found.items.into_iter().filter_map(|item| item.0.ok()).collect())
}

async fn list_children(client: &Client, namespace: &str, params: &ListParams) -> Result<(Children, BTreeSet<String>), Unreadable> {
    let lists = child::kinds().into_iter().map(|resource| async move {
        let api: Api<DynamicObject> = Api::namespaced_with(client.clone(), namespace, &resource);
        let found = api.list(params).await.map_err(|source| Unreadable::NoAnswer { what: resource.plural.clone(), source })?;
        let read = |object: DynamicObject| {
            let (id, is_scaled) = (Id::read(&resource, &object), is_scaled_by_others(&object));
            (id, plain(&resource, object), is_scaled)
        };
        Ok(found.items.into_iter().map(read).collect::<Vec<_>>())
    });
    let (mut children, mut scaled) = (Children::default(), BTreeSet::new());
    for (id, body, is_scaled) in try_join_all(lists).await?.into_iter().flatten() {
        if is_scaled && id.kind == "Deployment" {
            scaled.insert(id.name.clone());
        }
        children.0.insert(id, body);
    }
    Ok((children, scaled))
}

/// What there is of the kinds of others. One that cannot be listed is as good as unknown, and keeps nobody from the rest.
async fn list_foreign(
    client: &Client,
    namespace: &str,
    params: &ListParams,
    mut presences: Presences,
    children: &mut Children,
) -> Presences {
    for foreign in presences.served().collect::<Vec<_>>() {
        let resource = foreign.resource();
        let api: Api<DynamicObject> = Api::namespaced_with(client.clone(), namespace, &resource);
        match api.list(params).await {
            Ok(found) => {
                children.0.extend(found.items.into_iter().map(|object| (Id::read(&resource, &object), plain(&resource, object))));
            }
            // It has gone since it was asked for.
            Err(kube::Error::Api(status)) if status.code == 404 => {
                presences.0.insert(foreign, Presence::Absent);
            }
            Err(error) => {
                warn!(namespace, kind = resource.kind, %error, "cannot be listed");
                presences.0.insert(foreign, Presence::Unknown(said(&error)));
            }
        }
    }
    presences
}

/// Whether somebody besides the operator has written how many pods there are.
fn is_scaled_by_others(object: &DynamicObject) -> bool {
    let entries = object.metadata.managed_fields.iter().flatten();
    let of_others = entries.filter(|entry| entry.manager.as_deref() != Some(MANAGER));
    of_others.filter_map(|entry| entry.fields_v1.as_ref()).any(|fields| fields.0.pointer("/f:spec/f:replicas").is_some())
}

/// Secrets are made once. One whose labels somebody has taken away must be found too, or it would be made again.
async fn find_secrets(client: &Client, namespace: &str, siem: &str, children: &mut Children) -> Result<(), Unreadable> {
    let resource = ApiResource::erase::<Secret>(&());
    let api: Api<DynamicObject> = Api::namespaced_with(client.clone(), namespace, &resource);
    for name in name::secrets(siem) {
        let id = Id::of::<Secret>(&*name);
        if let Entry::Vacant(place) = children.0.entry(id) {
            let found = api.get_opt(&name).await.map_err(|source| Unreadable::NoAnswer { what: format!("secrets/{name}"), source })?;
            if let Some(found) = found {
                place.insert(plain(&resource, found));
            }
        }
    }
    Ok(())
}

/// The object as JSON, without what only the API server's bookkeeping needs, and with its kind, which lists leave out.
pub(crate) fn plain(resource: &ApiResource, mut object: DynamicObject) -> Value {
    object.metadata.managed_fields = None;
    object.types = Some(TypeMeta { api_version: resource.api_version.clone(), kind: resource.kind.clone() });
    // It was JSON a moment ago.
    serde_json::to_value(&object).expect("what was read from JSON can be written as JSON")
}

fn kept_version(kept: &ConfigMap) -> Vec<Spec> {
    let text = kept.data.as_ref().and_then(|data| data.get(RESOURCE));
    text.map(|text| resource::read(Path::new(RESOURCE), text).resources.into_iter().map(|resource| resource.spec).collect())
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_cannot_be_understood_is_not_taken_for_missing() {
        let resource = ApiResource::erase::<Secret>(&());
        let listed = |data: Value| serde_json::from_value::<DynamicObject>(json!({"metadata": {"name": "soc-ca"}, "data": data})).unwrap();
        let children = |object: DynamicObject| Children([(Id::read(&resource, &object), plain(&resource, object))].into());

        let good = children(listed(json!({"ca.crt": "eA=="})));
        assert!(good.check::<Secret>().is_ok());
        assert_eq!(good.get::<Secret>("soc-ca").unwrap().data.unwrap()["ca.crt"].0, b"x");

        let bad = children(listed(json!({"ca.crt": "not base64!"})));
        assert!(bad.check::<Secret>().unwrap_err().to_string().starts_with("Secret soc-ca is there and cannot be understood"));
    }
}
