//! Step four, pure, and it cannot fail: what was let through becomes objects.

pub(crate) mod access;
pub(crate) mod disruption;
pub(crate) mod exposure;
pub(crate) mod monitoring;
pub(crate) mod network;
pub(crate) mod role;
pub(crate) mod scaling;
pub(crate) mod service;

#[cfg(test)]
mod cluster_tests;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::{
    api::{
        apps::v1::{Deployment, StatefulSet},
        core::v1::{ConfigMap, Secret},
    },
    apimachinery::pkg::api::resource::Quantity,
};
use serde_json::json;

use self::role::HeldSettings;
use super::{
    broker,
    child::{Child, Id},
    dereference::Children,
    owner::Component,
    store,
    template::{self, Settled},
    validate::{Broker, Set, Store, Valid},
};
use crate::options::OperatorPods;

/// What there is to apply.
#[derive(Debug, Default)]
pub(crate) struct Built {
    /// In the order in which it is applied, StatefulSets last.
    pub(crate) children: Vec<Child>,
    /// What stays although it is not built.
    pub(crate) kept: BTreeSet<Id>,
    /// StatefulSets whose pods this release would make differently.
    pub(crate) waiting: Vec<String>,
    /// The lowest revision of what the managed servers' pods are made from.
    pub(crate) revision: Option<u32>,
}

/// What the plans say about the objects.
#[derive(Debug, Default)]
pub(crate) struct Sizes {
    /// Pods that process events, where the work says how many.
    pub(crate) process: Option<u16>,
    /// Whether their number is somebody else's, who has written it.
    pub(crate) process_is_scaled: bool,
    /// Whether roles that are not there wait for RabbitMQ.
    pub(crate) roles_wait: bool,
    /// Replicas of node sets, where they are not what the Siem says: a set that becomes smaller does so when its data has moved.
    pub(crate) node_sets: BTreeMap<String, u16>,
    /// The cluster that the nodes of Elasticsearch are in, once they are.
    pub(crate) cluster: Option<String>,
    /// StatefulSets that keep a smaller size of volumes for now, and that size.
    pub(crate) claims: BTreeMap<String, String>,
    /// StatefulSets that the Siem names no more, and whose nodes are not gone yet.
    pub(crate) old_sets: BTreeSet<String>,
}

/// Builds all of it.
pub(crate) fn build(valid: &Valid, there: &Children, secrets: &[Secret], sizes: &Sizes, operator: Option<&OperatorPods>) -> Built {
    let mut built = Built::default();
    built.add(&access::accounts(valid));
    built.add(&[access::role(valid)]);
    built.add(&[access::binding(valid)]);
    built.add(&network::policies(valid, operator));
    built.add(secrets);
    built.add(&[service::ingest(valid)]);
    built.add(&disruption::budgets(valid));
    let mut roles = role::deployments(valid, held_settings(valid, there).as_ref(), sizes.process);
    roles.retain(|role| !sizes.roles_wait || role.metadata.name.as_ref().is_some_and(|name| there.get::<Deployment>(name).is_some()));
    if sizes.process_is_scaled {
        scaling::leave_replicas(valid, &mut roles);
    }
    built.add(&roles);
    built.add(scaling::autoscaler(valid).as_slice());
    built.add(exposure::ingress(valid).as_slice());
    built.children.extend(exposure::route(valid));
    built.children.extend(monitoring::pod_monitor(valid));
    built.add(scaling::service(valid).as_slice());
    built.children.extend(scaling::scaled_object(valid));
    if let Some(broker) = &valid.broker {
        built.add_broker(valid, broker, there, sizes);
    }
    if let Some(store) = &valid.store {
        built.add_store(valid, store, there, sizes);
    }
    for set in &sizes.old_sets {
        built.kept.extend([Id::of::<StatefulSet>(set), Id::of::<ConfigMap>(set)]);
    }
    let kinds: Vec<String> = super::child::all_kinds().map(|resource| resource.kind).collect();
    built.children.sort_by_key(|child| kinds.iter().position(|kind| *kind == child.id.kind));
    built
}

/// After a change of the number of partitions, pods that write matches are replaced when those that read them have been: nobody may count
/// by the old number when a partition's state is built.
fn held_settings(valid: &Valid, there: &Children) -> Option<HeldSettings> {
    let names = valid.owner.siem.shared();
    let correlate: Deployment = there.get(&names.role(Component::Correlate.as_str()))?;
    let process: Deployment = there.get(&names.role(Component::Process.as_str()))?;
    if settings_of(&correlate)? == role::settings(&valid.siem, Component::Correlate) && is_rolled_out(&correlate) {
        return None;
    }
    Some(HeldSettings { role: Component::Process, settings: settings_of(&process)? })
}

fn settings_of(deployment: &Deployment) -> Option<String> {
    deployment.spec.as_ref()?.template.metadata.as_ref()?.annotations.as_ref()?.get(role::SETTINGS).cloned()
}

/// Whether all pods are of the newest template, and no others are left.
pub(crate) fn is_rolled_out(deployment: &Deployment) -> bool {
    let wanted = deployment.spec.as_ref().and_then(|spec| spec.replicas).unwrap_or(1);
    deployment.status.as_ref().is_some_and(|status| {
        status.observed_generation >= deployment.metadata.generation
            && status.updated_replicas.unwrap_or_default() >= wanted
            && status.replicas.unwrap_or_default() == status.updated_replicas.unwrap_or_default()
            && status.available_replicas.unwrap_or_default() >= wanted
    })
}

impl Built {
    fn add<K>(&mut self, objects: &[K])
    where
        K: kube::Resource<DynamicType = ()> + serde::Serialize,
    {
        self.children.extend(objects.iter().map(Child::new));
    }

    fn add_broker(&mut self, valid: &Valid, broker: &Broker, there: &Children, sizes: &Sizes) {
        let owner = &valid.owner;
        let asked = json!({
            "image": broker.image.chosen.then_some(&broker.image.name),
            "resources": broker.resources,
            "config": broker.config,
        });
        let live: Option<StatefulSet> = there.get(&owner.siem.shared().broker());
        let settled = template::settle(broker::pods::made_from(owner, broker), live.as_ref(), &asked, valid.siem.template_revision);
        self.note(&settled, owner.siem.shared().broker());
        self.add(&broker::pods::services(owner));
        self.add(&[broker::pods::config_map(owner, broker, &settled.made_from.settings)]);
        let mut set = broker::pods::stateful_set(owner, broker, &settled);
        keep_claims(&mut set, sizes);
        self.add(&[set]);
    }

    fn add_store(&mut self, valid: &Valid, store: &Store, there: &Children, sizes: &Sizes) {
        let owner = &valid.owner;
        self.add(&store::pods::services(owner));
        let initial_masters = sizes.cluster.is_none().then(|| store::pods::initial_masters(owner, store));
        for set in &store.sets {
            let name = owner.siem.shared().node_set(&set.spec.name);
            let live: Option<StatefulSet> = there.get(&name);
            let wanted = store::pods::made_from(owner, store, set);
            let settled = template::settle(wanted, live.as_ref(), &asked_of_set(store, set), valid.siem.template_revision);
            self.note(&settled, name);
            let settings = settled.made_from.settings.clone();
            let replicas = sizes.node_sets.get(&set.spec.name).copied().unwrap_or(set.spec.replicas);
            self.add(&[store::pods::config_map(owner, &set.spec.name, settings, initial_masters.as_deref())]);
            let mut built = store::pods::stateful_set(owner, store, set, replicas, &settled, sizes.cluster.as_deref());
            keep_claims(&mut built, sizes);
            self.add(&[built]);
        }
    }

    fn note(&mut self, settled: &Settled, name: String) {
        if settled.waits {
            self.waiting.push(name);
        }
        self.revision = Some(self.revision.map_or(settled.revision, |lowest| lowest.min(settled.revision)));
    }
}

/// The claims of a set that is there cannot be changed in it.
fn keep_claims(set: &mut StatefulSet, sizes: &Sizes) {
    let size = set.metadata.name.as_ref().and_then(|name| sizes.claims.get(name));
    let claims = set.spec.as_mut().and_then(|spec| spec.volume_claim_templates.as_mut());
    let (Some(size), Some(claims)) = (size, claims) else { return };
    for claim in claims.iter_mut().filter_map(|claim| claim.spec.as_mut()?.resources.as_mut()?.requests.as_mut()) {
        claim.insert("storage".to_owned(), Quantity(size.clone()));
    }
}

/// What the Siem says of the pods of a set.
fn asked_of_set(store: &Store, set: &Set) -> serde_json::Value {
    json!({
        "image": store.image.chosen.then_some(&store.image.name),
        "security": store.security,
        "roles": set.spec.roles,
        "heapBytes": set.spec.heap_bytes,
        "resources": set.spec.resources,
        "config": set.spec.config,
    })
}
