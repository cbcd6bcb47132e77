//! Step six: what the Siem's status says, from what was applied and from nothing else. It is written only when it says something new.
//!
//! - `Ready`: it takes events in and finds alerts. Of every part at least as much runs as is needed for that.
//! - `Progressing`: something is being changed, and goes on.
//! - `Degraded`: something that should run does not, or the Siem asks for something in vain.
//! - `RestartPending`: this release would make pods of the managed servers differently, and waits for `spec.templateRevision`.

use jiff::Timestamp;
use k8s_openapi::{
    api::{apps::v1::Deployment, core::v1::Pod},
    apimachinery::pkg::apis::meta::v1::{Condition, Time},
};
use kube::{
    Api, Client,
    api::{Patch, PatchParams},
};
use redoubt_crds::{Operation, Siem, SiemStatus};
use serde_json::json;

use super::{
    apply::Applied,
    build::{self, Built},
    member::{self, Phase, hopeless},
    owner::{Component, MANAGER},
    validate::{Refusal, Valid},
};

/// Longest message of a condition, in characters.
const LONGEST: usize = 1024;
/// Most operations that a status lists.
const MOST_OPERATIONS: usize = 64;

/// What is true of a Siem, with the reason and the words.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Finding {
    type_: &'static str,
    status: bool,
    reason: &'static str,
    message: String,
}

/// What is known when all is applied.
pub(crate) struct Known<'a> {
    pub(crate) valid: &'a Valid,
    pub(crate) built: &'a Built,
    pub(crate) applied: &'a Applied,
    pub(crate) pods: &'a [Pod],
    /// What is being done to the managed servers.
    pub(crate) operations: Vec<Operation>,
    /// What a managed server lacks to do its work, by its own word.
    pub(crate) complaints: Vec<String>,
}

/// The status of a Siem that is refused.
pub(crate) fn of_refused(siem: &Siem, refusal: &Refusal, now: Timestamp) -> SiemStatus {
    let finding = |type_, status| Finding { type_, status, reason: refusal.reason(), message: refusal.to_string() };
    let findings = [finding("Ready", false), finding("Progressing", false), finding("Degraded", true)];
    let kept = siem.status.clone().unwrap_or_default();
    SiemStatus { operations: Vec::new(), ..status(siem, findings.into(), kept, now) }
}

/// The status of a Siem whose objects were applied.
pub(crate) fn of_applied(siem: &Siem, known: Known<'_>, now: Timestamp) -> SiemStatus {
    let missing = missing(&known, now);
    let degraded = degraded(&known, now);
    let moving = moving(&known, now);
    let ready = match missing.first() {
        None => Finding { type_: "Ready", status: true, reason: "Running", message: "takes events in and finds alerts".to_owned() },
        Some(first) => Finding { type_: "Ready", status: false, reason: "NotRunning", message: first.clone() },
    };
    let progressing = match moving.first() {
        None => Finding { type_: "Progressing", status: false, reason: "Settled", message: "all is as it is to be".to_owned() },
        Some(first) => Finding { type_: "Progressing", status: true, reason: "Changing", message: first.clone() },
    };
    let degraded = degraded.unwrap_or_else(|| Finding {
        type_: "Degraded",
        status: false,
        reason: "AsExpected",
        message: "what should run runs, or is about to".to_owned(),
    });
    let pending = match known.built.waiting.as_slice() {
        [] => Finding { type_: "RestartPending", status: false, reason: "UpToDate", message: "no restart waits".to_owned() },
        sets => Finding {
            type_: "RestartPending",
            status: true,
            reason: "NewRelease",
            message: format!(
                "this release of the operator makes the pods of {} differently; to have them restarted, set spec.templateRevision to {} or more",
                sets.join(", "),
                known.built.revision.unwrap_or_default().saturating_add(1)
            ),
        },
    };
    let mut operations = known.operations;
    operations.truncate(MOST_OPERATIONS);
    let kept = SiemStatus { operations, template_revision: known.built.revision, ..siem.status.clone().unwrap_or_default() };
    status(siem, vec![ready, progressing, degraded, pending], kept, now)
}

/// Writes the status, if it says something new.
pub(crate) async fn write(client: &Client, siem: &Siem, status: &SiemStatus) -> Result<(), kube::Error> {
    if siem.status.as_ref() == Some(status) {
        return Ok(());
    }
    let (name, namespace) = (siem.metadata.name.as_deref().unwrap_or_default(), siem.metadata.namespace.as_deref().unwrap_or_default());
    let api: Api<Siem> = Api::namespaced(client.clone(), namespace);
    // What is empty is written out, or it would stay as it was. The list of conditions is written as a whole, so it must not have changed
    // since it was read: another controller writes one of them.
    let patch = json!({
        "metadata": {"resourceVersion": siem.metadata.resource_version},
        "status": {
            "observedGeneration": status.observed_generation,
            "conditions": status.conditions,
            "operations": status.operations,
            "templateRevision": status.template_revision,
        },
    });
    let params = PatchParams { field_manager: Some(MANAGER.to_owned()), ..PatchParams::default() };
    api.patch_status(name, &params, &Patch::Merge(&patch)).await.map(drop)
}

fn status(siem: &Siem, findings: Vec<Finding>, kept: SiemStatus, now: Timestamp) -> SiemStatus {
    let mut conditions = kept.conditions;
    for finding in findings {
        let value = if finding.status { "True" } else { "False" };
        let before = conditions.iter().find(|condition| condition.type_ == finding.type_);
        let since = before.filter(|before| before.status == value).map_or(Time(now), |before| before.last_transition_time.clone());
        let condition = Condition {
            type_: finding.type_.to_owned(),
            status: value.to_owned(),
            reason: finding.reason.to_owned(),
            message: finding.message.chars().take(LONGEST).collect(),
            observed_generation: siem.metadata.generation,
            last_transition_time: since,
        };
        match conditions.iter_mut().find(|there| there.type_ == finding.type_) {
            Some(there) => *there = condition,
            None => conditions.push(condition),
        }
    }
    SiemStatus { observed_generation: siem.metadata.generation, conditions, ..kept }
}

/// What keeps the SIEM from taking events in and finding alerts.
fn missing(known: &Known<'_>, now: Timestamp) -> Vec<String> {
    let Known { valid, applied, .. } = known;
    let names = valid.owner.siem.shared();
    let mut missing = Vec::new();
    if let Some(broker) = &valid.broker {
        let (name, wanted) = (names.broker(), usize::from(broker.replicas));
        let ready = ready(known.pods, &name, now);
        if ready * 2 <= wanted {
            missing.push(format!("{name}: {ready} of {wanted} nodes are ready, more than half are needed"));
        }
    }
    if let Some(store) = &valid.store {
        let sets = || store.sets.iter().map(|set| (&set.spec, ready(known.pods, &names.node_set(&set.spec.name), now)));
        let masters = || sets().filter(|(set, _)| set.may_be_master());
        let wanted: usize = masters().map(|(set, _)| usize::from(set.replicas)).sum();
        let ready: usize = masters().map(|(_, ready)| ready).sum();
        if ready * 2 <= wanted {
            missing.push(format!("{}: {ready} of {wanted} nodes that may be master are ready, more than half are needed", names.store()));
        }
        if !sets().any(|(set, ready)| set.holds_data() && ready > 0) {
            missing.push(format!("{}: no node that holds data is ready", names.store()));
        }
    }
    missing.extend(known.complaints.iter().cloned());
    for role in Component::ROLES {
        let name = names.role(role.as_str());
        let deployment: Option<Deployment> = applied.children.get(&name);
        let status = deployment.and_then(|deployment| deployment.status).unwrap_or_default();
        if status.available_replicas.unwrap_or_default() == 0 {
            missing.push(format!("{name}: no pod is ready{}", why_not(known.pods, role, now)));
        }
    }
    missing
}

/// What is being changed.
fn moving(known: &Known<'_>, now: Timestamp) -> Vec<String> {
    let Known { valid, applied, .. } = known;
    let names = valid.owner.siem.shared();
    let mut moving: Vec<String> = known
        .operations
        .iter()
        .map(|operation| {
            let held = if operation.waits_for.is_empty() { String::new() } else { format!(", waits for {}", operation.waits_for) };
            format!("{} of {}{held}", operation.name, operation.target)
        })
        .collect();
    for role in Component::ROLES {
        let deployment: Option<Deployment> = applied.children.get(&names.role(role.as_str()));
        if let Some(deployment) = deployment.filter(|deployment| !build::is_rolled_out(deployment)) {
            let status = deployment.status.unwrap_or_default();
            let wanted = deployment.spec.and_then(|spec| spec.replicas).unwrap_or(1);
            let (updated, available) = (status.updated_replicas.unwrap_or_default(), status.available_replicas.unwrap_or_default());
            moving.push(format!("{}: {updated} of {wanted} pods are new, {available} are ready", names.role(role.as_str())));
        }
    }
    for (name, wanted) in managed(valid) {
        let ready = ready(known.pods, &name, now);
        if ready != wanted {
            moving.push(format!("{name}: {ready} of {wanted} nodes are ready"));
        }
    }
    moving
}

/// What should run and does not.
fn degraded(known: &Known<'_>, now: Timestamp) -> Option<Finding> {
    let found = |reason, message| Some(Finding { type_: "Degraded", status: true, reason, message });
    if let Some(failure) = known.applied.failures.first() {
        return found("NotApplied", failure.clone());
    }
    if let Some(objection) = known.valid.objections.first() {
        return found(objection.reason(), objection.to_string());
    }
    if let Some((pod, reason)) = known.pods.iter().find_map(|pod| Some((pod, hopeless(pod, now)?))) {
        return found("PodFails", format!("{}: {reason}", pod.metadata.name.as_deref().unwrap_or_default()));
    }
    None
}

/// The StatefulSets, and how many pods each is to have.
fn managed(valid: &Valid) -> Vec<(String, usize)> {
    let names = valid.owner.siem.shared();
    let broker = valid.broker.iter().map(|broker| (names.broker(), usize::from(broker.replicas)));
    let sets = valid.store.iter().flat_map(|store| &store.sets);
    broker.chain(sets.map(|set| (names.node_set(&set.spec.name), usize::from(set.spec.replicas)))).collect()
}

/// How many pods of a StatefulSet are ready.
fn ready(pods: &[Pod], set: &str, now: Timestamp) -> usize {
    member::members(set, None, pods, now).iter().filter(|member| member.phase == Phase::Ready).count()
}

fn why_not(pods: &[Pod], component: Component, now: Timestamp) -> String {
    let of_component = |pod: &&Pod| {
        let labels = pod.metadata.labels.as_ref();
        labels.and_then(|labels| labels.get(super::owner::COMPONENT)).is_some_and(|found| found == component.as_str())
    };
    pods.iter().filter(of_component).find_map(|pod| hopeless(pod, now)).map_or_else(String::new, |reason| format!(": {reason}"))
}

#[cfg(test)]
mod tests;
