//! The managed Elasticsearch: its configuration, its pods, and what is done to them in which order.
//!
//! A node set is a StatefulSet. Nodes find each other by the Service of those that may be master, and form a cluster by themselves once;
//! whom they wait for then is told to them in a key of their ConfigMap that goes when the cluster is there, which no pod's template knows.

mod client;
pub(crate) mod config;
pub(crate) mod note;
pub(crate) mod plan;
pub(crate) mod pods;
mod state;
mod user;

use std::collections::BTreeSet;

use k8s_openapi::api::apps::v1::StatefulSet;
use redoubt_crds::{
    NodeRole,
    in_cluster::{CA_KEY, STORE_PORT},
};
use tracing::{info, warn};

use self::{
    note::{role_name, roles_of},
    plan::{Plan, Step},
    state::{Set, State},
};
use super::{
    dereference::Observed,
    endpoint::{Connect, Endpoint, NoAnswer, Server},
    member::{self, Phase},
    secret::{self, account::Account},
    validate::{Store, Valid},
};

/// Port between the nodes.
pub(crate) const TRANSPORT_PORT: u16 = 9300;
/// Port that is open while a node is in the cluster.
pub(crate) const READINESS_PORT: u16 = 9399;
/// Label of a StatefulSet and its pods: the node set.
pub(crate) const NODE_SET: &str = "redoubt.dev/node-set";
/// Label of pods that may be master.
pub(crate) const MASTER: &str = "redoubt.dev/master";
/// Label of pods that hold data.
pub(crate) const DATA: &str = "redoubt.dev/data";
/// Annotation of a StatefulSet: the cluster that its nodes are in.
pub(crate) const CLUSTER: &str = "redoubt.dev/cluster";

/// What runs, and what it says of itself.
pub(crate) struct Seen {
    state: State,
    /// The node that answered.
    node: Option<Endpoint>,
    /// The cluster that the nodes are in, or were when it was last known.
    pub(crate) cluster: Option<String>,
}

/// Looks at the pods, and asks the first node that answers.
pub(crate) async fn observe(connect: &Connect, valid: &Valid, store: &Store, observed: &Observed) -> Seen {
    let state = State { sets: sets(valid, store, observed), cluster: None };
    let known = observed.children.all::<StatefulSet>().into_iter().find_map(|set| set.metadata.annotations?.remove(CLUSTER));
    let mut seen = Seen { state, node: None, cluster: known };
    let name = &valid.owner.siem;
    let authority = secret::content(&observed.children, &name.shared().authority()).and_then(|content| content.data.get(CA_KEY).cloned());
    let login = secret::kept_account(&observed.children, &name.store_admin());
    if store.security && (authority.is_none() || login.is_none()) {
        return seen;
    }
    let (authority, login) = if store.security { (authority.as_deref(), login.as_ref()) } else { (None, None) };
    let ready = seen.state.sets.iter().flat_map(|set| &set.members).filter(|member| member.phase == Phase::Ready);
    for member in ready {
        let Some(address) = member.address else { continue };
        let host = format!("{}.{}.{}.svc", member.name, name.store_nodes(), valid.owner.namespace);
        let asked = match Endpoint::new(connect, Server { host: &host, address, port: STORE_PORT }, authority, login) {
            Ok(node) => client::ask(&node).await.map(|cluster| (node, cluster)),
            Err(error) => Err(error),
        };
        match asked {
            Ok((node, cluster)) => {
                seen.cluster = Some(cluster.uuid.clone()).filter(|uuid| !uuid.is_empty()).or(seen.cluster);
                (seen.node, seen.state.cluster) = (Some(node), Some(cluster));
                break;
            }
            Err(error) => warn!(pod = member.name, namespace = valid.owner.namespace, %error, "Elasticsearch gives no answer"),
        }
    }
    seen
}

/// The sets of the Siem, and those that are there and are in it no more.
fn sets(valid: &Valid, store: &Store, observed: &Observed) -> Vec<Set> {
    let names = valid.owner.siem.shared();
    let there: Vec<StatefulSet> = observed.children.all();
    let set = |name: &str, wanted: u16, roles: &[NodeRole]| {
        let stateful_set = names.node_set(name);
        let live = there.iter().find(|set| set.metadata.name.as_ref() == Some(&stateful_set));
        let members = member::members(&stateful_set, live, &observed.pods, observed.now);
        Set {
            name: name.to_owned(),
            master: roles.contains(&NodeRole::Master),
            data: roles.iter().any(|role| role_name(*role).starts_with("data")),
            wanted,
            replicas: member::replicas(live, &members),
            members,
            stateful_set,
        }
    };
    let mut sets: Vec<Set> = store.sets.iter().map(|wanted| set(&wanted.spec.name, wanted.spec.replicas, &wanted.spec.roles)).collect();
    for old in &there {
        let name = old.metadata.labels.as_ref().and_then(|labels| labels.get(NODE_SET));
        if let Some(name) = name.filter(|name| store.sets.iter().all(|wanted| wanted.spec.name != **name)) {
            sets.push(set(name, 0, &roles_of(old)));
        }
    }
    sets
}

impl Seen {
    /// What is to be done now.
    pub(crate) fn plan(&self) -> Plan {
        plan::plan(&self.state)
    }

    /// Sets that are in the Siem no more, and have nodes still.
    pub(crate) fn old_sets(&self) -> BTreeSet<String> {
        let old = self.state.sets.iter().filter(|set| set.wanted == 0 && (set.replicas.unwrap_or_default() > 0 || !set.members.is_empty()));
        old.map(|set| set.stateful_set.clone()).collect()
    }

    /// What keeps it from its work, by its own word.
    pub(crate) fn complaints(&self) -> Vec<String> {
        let Some(cluster) = self.state.cluster.as_ref().filter(|cluster| cluster.missing_primaries() > 0) else { return Vec::new() };
        let why = cluster.hindrance.as_ref().map(|why| format!(": {why}")).unwrap_or_default();
        vec![format!("{} shards of Elasticsearch do not serve{why}", cluster.missing_primaries())]
    }

    /// Takes a step of the plan that the server has a part in.
    pub(crate) async fn tell(&self, step: &Step) -> Result<(), NoAnswer> {
        let (Some(node), Some(cluster)) = (&self.node, &self.state.cluster) else { return Ok(()) };
        client::tell(node, cluster, step).await?;
        info!(?step, "Elasticsearch was told");
        Ok(())
    }

    /// Makes sure that the workers' user is there and may do what workers do.
    pub(crate) async fn welcome(&self, valid: &Valid, worker: &Account) -> Result<(), NoAnswer> {
        match &self.node {
            Some(node) => user::welcome(node, worker, valid.store_prefix()).await,
            None => Ok(()),
        }
    }
}
