//! Step three, pure: the only one that can refuse a Siem.
//!
//! What it lets through can be built. Where the Siem asks for something that cannot be done to what runs (a volume that shrinks, fewer
//! nodes of RabbitMQ), the part stays as it is and an [`Objection`] says why: one field that was written wrong must not keep certificates
//! from being renewed.

use std::collections::BTreeSet;

use k8s_openapi::api::apps::v1::StatefulSet;
use redoubt_crds::{MonitorWhen, NodeRole, NodeSet, OnDelete, Resources, Siem, SiemSpec, Storage, in_cluster};

use super::{
    dereference::Observed,
    foreign::{Foreign, Presence, Presences},
    member,
    name::{SiemName, UnusableName},
    owner::Owner,
    preprocess::{Listener, Prepared},
    quantity,
    store::note::{role_name, roles_of, security_of},
};
use crate::options::Images;

/// A Siem that can be built.
#[derive(Debug, Clone)]
pub(crate) struct Valid {
    pub(crate) owner: Owner,
    /// The Siem as its pods see it.
    pub(crate) siem: SiemSpec,
    /// The image of the roles.
    pub(crate) image: Image,
    /// Secrets that workers read.
    pub(crate) secrets: BTreeSet<String>,
    /// Ports of syslog LogSources.
    pub(crate) listeners: BTreeSet<Listener>,
    /// Ports of brokers that LogSources take events from.
    pub(crate) sources: BTreeSet<u16>,
    /// The RabbitMQ to run.
    pub(crate) broker: Option<Broker>,
    /// The Elasticsearch to run.
    pub(crate) store: Option<Store>,
    /// Kinds of others of which there is to be an object, and can be.
    pub(crate) foreign: BTreeSet<Foreign>,
    /// What the Siem asks for in vain.
    pub(crate) objections: Vec<Objection>,
}

impl Valid {
    /// What the names of queues and exchanges begin with.
    pub(crate) fn prefix(&self) -> &str {
        self.siem.broker.external.as_ref().map_or("redoubt", |broker| &broker.prefix)
    }

    /// What the names of indices and templates begin with.
    pub(crate) fn store_prefix(&self) -> &str {
        self.siem.store.external.as_ref().map_or("redoubt", |store| &store.prefix)
    }
}

/// An image, and whether the Siem names it or the operator's release does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Image {
    pub(crate) name: String,
    pub(crate) chosen: bool,
}

/// A RabbitMQ that can be built.
#[derive(Debug, Clone)]
pub(crate) struct Broker {
    pub(crate) replicas: u16,
    pub(crate) image: Image,
    pub(crate) resources: Resources,
    pub(crate) volume: Volume,
    pub(crate) config: String,
    pub(crate) credentials_revision: String,
}

/// An Elasticsearch that can be built.
#[derive(Debug, Clone)]
pub(crate) struct Store {
    pub(crate) image: Image,
    pub(crate) security: bool,
    pub(crate) sets: Vec<Set>,
}

/// A node set that can be built.
#[derive(Debug, Clone)]
pub(crate) struct Set {
    pub(crate) spec: NodeSet,
    pub(crate) volume: Volume,
}

/// A volume of a known size.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Volume {
    /// As Kubernetes writes it.
    pub(crate) size: String,
    pub(crate) bytes: u64,
    pub(crate) class: Option<String>,
    pub(crate) on_delete: OnDelete,
}

/// Why nothing is done for a Siem.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub(crate) enum Refusal {
    #[error("Siem/{0} of this namespace was there before, and there can be one: delete one of them")]
    AnotherSiem(String),
    #[error(transparent)]
    UnusableName(#[from] UnusableName),
    #[error("{field}: {text:?} is not an amount: write a number with a unit, such as 10Gi")]
    NotAnAmount { field: String, text: String },
    #[error("spec.store.managed.nodeSets: no node may be master: give a set of the role master at least one replica")]
    NoMaster,
    #[error("spec.store.managed.nodeSets: no node holds data: give a set of the role data at least one replica")]
    NoData,
}

impl Refusal {
    /// The reason of the condition.
    pub(crate) const fn reason(&self) -> &'static str {
        match self {
            Self::AnotherSiem(_) => "AnotherSiem",
            Self::UnusableName(_) => "UnusableName",
            Self::NotAnAmount { .. } => "NotAnAmount",
            Self::NoMaster => "NoMaster",
            Self::NoData => "NoData",
        }
    }
}

/// Something that stays as it is although the Siem says otherwise.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Objection {
    #[error("{field} cannot go from {from} to {to}: a queue may have its majority on the nodes that would go; it stays at {from}")]
    BrokerCannotShrink { field: String, from: u16, to: u16 },
    #[error("{field} cannot go from {from} to {to}: a volume cannot shrink; it stays at {from}")]
    VolumeCannotShrink { field: String, from: String, to: String },
    #[error("{field} cannot become {to:?}: a volume stays in its class; add another node set, or keep {from:?}")]
    ClassCannotChange { field: String, from: String, to: String },
    #[error("spec.store.managed.security cannot become {to}: nodes with it and nodes without it cannot be one cluster; set it to {}", !to)]
    SecurityCannotChange { to: bool },
    #[error("{field} cannot lose {lost}: the nodes hold what that role is for; add a set without it, and then take this one away")]
    RoleCannotGo { field: String, lost: String },
    #[error("{field}: the cluster has no {kind}: {remedy}; all else goes on")]
    KindIsMissing { field: &'static str, kind: String, remedy: &'static str },
    #[error("{field}: it cannot be told whether the cluster has a {kind}: {why}; what there is of it stays as it is")]
    KindIsUnknown { field: &'static str, kind: String, why: String },
}

impl Objection {
    /// The reason of the condition.
    pub(crate) const fn reason(&self) -> &'static str {
        match self {
            Self::BrokerCannotShrink { .. } => "BrokerCannotShrink",
            Self::VolumeCannotShrink { .. } => "VolumeCannotShrink",
            Self::ClassCannotChange { .. } => "ClassCannotChange",
            Self::RoleCannotGo { .. } => "RoleCannotGo",
            Self::SecurityCannotChange { .. } => "SecurityCannotChange",
            Self::KindIsMissing { .. } => "KindIsMissing",
            Self::KindIsUnknown { .. } => "KindIsUnknown",
        }
    }
}

/// Lets a Siem through, or says why not.
pub(crate) fn validate(siem: &Siem, prepared: Prepared, observed: &Observed, images: &Images) -> Result<Valid, Refusal> {
    if let Some(first) = older(siem, &observed.siems) {
        return Err(Refusal::AnotherSiem(first));
    }
    let (managed_broker, managed_store) = (in_cluster::managed_broker(&siem.spec), in_cluster::managed_store(&siem.spec));
    let sets = managed_store.iter().flat_map(|store| &store.node_sets).map(|set| set.name.as_str());
    let name = SiemName::new(siem.metadata.name.as_deref().unwrap_or_default(), sets)?;
    let mut objections = Vec::new();

    check_roles(&siem.spec)?;
    let broker = match managed_broker {
        Some(spec) => {
            let there = observed.children.get(&name.shared().broker());
            let nodes = member::members(&name.shared().broker(), there.as_ref(), &observed.pods, observed.now);
            check_amounts("spec.broker.managed.resources", &spec.resources)?;
            let storage = "spec.broker.managed.storage";
            Some(Broker {
                replicas: not_fewer(spec.replicas, member::replicas(there.as_ref(), &nodes), &mut objections),
                image: image(spec.image, &images.broker),
                volume: volume(storage, &spec.storage, there.as_ref(), &mut objections)?,
                resources: spec.resources,
                config: spec.config,
                credentials_revision: spec.credentials_revision,
            })
        }
        None => None,
    };
    let store = match managed_store {
        Some(spec) => {
            let mut sets = Vec::new();
            for mut set in spec.node_sets {
                let there = observed.children.get(&name.shared().node_set(&set.name));
                let field = format!("spec.store.managed.nodeSets[{}]", set.name);
                check_amounts(&format!("{field}.resources"), &set.resources)?;
                let volume = volume(&format!("{field}.storage"), &set.storage, there.as_ref(), &mut objections)?;
                keep_roles(&field, &mut set, there.as_ref(), &mut objections);
                sets.push(Set { spec: set, volume });
            }
            check_nodes(&sets)?;
            let security = keep_security(spec.security, &observed.children.all(), &mut objections);
            Some(Store { image: image(spec.image, &images.store), security, sets })
        }
        None => None,
    };
    let foreign = foreign(&siem.spec, &observed.foreign, &mut objections);
    Ok(Valid {
        owner: Owner {
            siem: name,
            namespace: siem.metadata.namespace.clone().unwrap_or_default(),
            uid: siem.metadata.uid.clone().unwrap_or_default(),
        },
        siem: prepared.resolved,
        image: image(siem.spec.image.clone(), &images.roles),
        secrets: prepared.secrets,
        listeners: prepared.listeners,
        sources: prepared.sources,
        broker,
        store,
        foreign,
        objections,
    })
}

/// Of which kinds of others there is to be an object. What the Siem asks for by name and cannot have, it is told of.
fn foreign(spec: &SiemSpec, presences: &Presences, objections: &mut Vec<Objection>) -> BTreeSet<Foreign> {
    let monitoring = spec.monitoring.when;
    let wanted = [
        (Foreign::HttpRoute, spec.ingest.http_route.is_some(), Some("spec.ingest.httpRoute")),
        (Foreign::PodMonitor, monitoring != MonitorWhen::Never, (monitoring == MonitorWhen::Always).then_some("spec.monitoring.when")),
        // Without it, the operator does the same itself.
        (Foreign::ScaledObject, spec.process.autoscale.as_ref().is_some_and(|wanted| wanted.external_metric.is_none()), None),
    ];
    let mut made = BTreeSet::new();
    for (foreign, _, field) in wanted.into_iter().filter(|(_, wanted, _)| *wanted) {
        let resource = foreign.resource();
        let kind = format!("{} ({})", resource.kind, resource.api_version);
        match (presences.of(foreign), field) {
            (Presence::Served, _) => {
                made.insert(foreign);
            }
            (_, None) => {}
            (Presence::Absent, Some(field)) => objections.push(Objection::KindIsMissing { field, kind, remedy: foreign.remedy() }),
            (Presence::Unknown(why), Some(field)) => objections.push(Objection::KindIsUnknown { field, kind, why: why.clone() }),
        }
    }
    made
}

/// The Siem that counts in this one's stead: the one that was there first, by name where that is not to be told. One that is being
/// deleted counts no more.
fn older(siem: &Siem, all: &[Siem]) -> Option<String> {
    let rank = |siem: &Siem| (siem.metadata.creation_timestamp.clone().map(|time| time.0), siem.metadata.name.clone());
    let others = all.iter().filter(|other| other.metadata.uid != siem.metadata.uid && other.metadata.deletion_timestamp.is_none());
    others.filter(|other| rank(other) < rank(siem)).min_by_key(|other| rank(other))?.metadata.name.clone()
}

fn image(chosen: Option<String>, default: &str) -> Image {
    Image { chosen: chosen.is_some(), name: chosen.unwrap_or_else(|| default.to_owned()) }
}

fn check_roles(spec: &SiemSpec) -> Result<(), Refusal> {
    check_amounts("spec.ingest.resources", &spec.ingest.resources)?;
    check_amounts("spec.process.resources", &spec.process.resources)?;
    check_amounts("spec.correlate.resources", &spec.correlate.resources)?;
    check_amounts("spec.respond.resources", &spec.respond.resources)
}

fn check_amounts(field: &str, resources: &Resources) -> Result<(), Refusal> {
    let all = [("requests", &resources.requests), ("limits", &resources.limits)];
    for (kind, amounts) in all {
        for (name, amount) in amounts {
            if quantity::thousandths(&amount.0).is_none() {
                return Err(Refusal::NotAnAmount { field: format!("{field}.{kind}.{name}"), text: amount.0.clone() });
            }
        }
    }
    Ok(())
}

/// A broker that is there keeps its nodes.
fn not_fewer(wanted: u16, there: Option<u16>, objections: &mut Vec<Objection>) -> u16 {
    let from = there.unwrap_or_default();
    if wanted >= from {
        return wanted;
    }
    objections.push(Objection::BrokerCannotShrink { field: "spec.broker.managed.replicas".to_owned(), from, to: wanted });
    from
}

fn volume(field: &str, wanted: &Storage, there: Option<&StatefulSet>, objections: &mut Vec<Objection>) -> Result<Volume, Refusal> {
    let size = wanted.size.0.clone();
    let Some(bytes) = quantity::bytes(&size).filter(|bytes| *bytes > 0) else {
        return Err(Refusal::NotAnAmount { field: format!("{field}.size"), text: size });
    };
    let mut volume = Volume { size, bytes, class: wanted.class.clone(), on_delete: wanted.on_delete };
    let Some(claim) = there.and_then(|set| set.spec.as_ref()?.volume_claim_templates.as_ref()?.first()?.spec.as_ref()) else {
        return Ok(volume);
    };
    let requests = claim.resources.as_ref().and_then(|resources| resources.requests.as_ref());
    let size = requests.and_then(|requests| Some(requests.get("storage")?.0.clone()));
    if let Some((from, bytes)) = size.and_then(|size| Some((size.clone(), quantity::bytes(&size)?))).filter(|(_, now)| volume.bytes < *now)
    {
        let to = std::mem::replace(&mut volume.size, from.clone());
        volume.bytes = bytes;
        objections.push(Objection::VolumeCannotShrink { field: format!("{field}.size"), from, to });
    }
    if claim.storage_class_name != volume.class {
        let text = |class: Option<&String>| class.cloned().unwrap_or_else(|| "the default".to_owned());
        let from = claim.storage_class_name.clone();
        // The API server writes the default class into a claim, but not into the set it is made from.
        objections.push(Objection::ClassCannotChange {
            field: format!("{field}.class"),
            from: text(from.as_ref()),
            to: text(volume.class.as_ref()),
        });
        volume.class = from;
    }
    Ok(volume)
}

/// A set that is there may take on roles, and lose none that its nodes hold something for.
fn keep_roles(field: &str, set: &mut NodeSet, there: Option<&StatefulSet>, objections: &mut Vec<Objection>) {
    for role in there.map(roles_of).unwrap_or_default() {
        let holds_something =
            !matches!(role, NodeRole::VotingOnly | NodeRole::Ingest | NodeRole::Ml | NodeRole::RemoteClusterClient | NodeRole::Transform);
        if holds_something && !set.roles.contains(&role) {
            objections.push(Objection::RoleCannotGo { field: format!("{field}.roles"), lost: role_name(role).to_owned() });
            set.roles.push(role);
        }
    }
}

/// A cluster that is there keeps its way to speak.
fn keep_security(wanted: bool, there: &[StatefulSet], objections: &mut Vec<Objection>) -> bool {
    match there.iter().find_map(security_of) {
        Some(there) if there != wanted => {
            objections.push(Objection::SecurityCannotChange { to: wanted });
            there
        }
        _ => wanted,
    }
}

fn check_nodes(sets: &[Set]) -> Result<(), Refusal> {
    let running = || sets.iter().map(|set| &set.spec).filter(|set| set.replicas > 0);
    if !running().any(NodeSet::may_be_master) {
        return Err(Refusal::NoMaster);
    }
    if !running().any(NodeSet::holds_data) {
        return Err(Refusal::NoData);
    }
    Ok(())
}

#[cfg(test)]
mod tests;
