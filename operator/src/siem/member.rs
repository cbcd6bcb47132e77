//! Pods of a StatefulSet, as plans see them.

use std::net::IpAddr;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::{apps::v1::StatefulSet, core::v1::Pod};

/// A pod that is not ready for so long will not become so by waiting.
const PATIENCE: SignedDuration = SignedDuration::from_mins(10);
/// How long a pod may look for its place.
const PLACING: SignedDuration = SignedDuration::from_secs(60);
/// Why a container waits that will not start by waiting.
const HOPELESS: [&str; 6] =
    ["CrashLoopBackOff", "ImagePullBackOff", "ErrImagePull", "InvalidImageName", "CreateContainerConfigError", "RunContainerError"];

/// A pod of a StatefulSet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Member {
    /// Its name.
    pub(crate) name: String,
    /// Its number in the set.
    pub(crate) ordinal: u16,
    /// Which of all pods of this name.
    pub(crate) uid: String,
    /// Where it is reached.
    pub(crate) address: Option<IpAddr>,
    /// What it is doing.
    pub(crate) phase: Phase,
    /// Whether it was made from an older template than its set has.
    pub(crate) outdated: bool,
}

/// What a pod is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Phase {
    /// It is ready.
    Ready,
    /// It may become ready.
    Starting,
    /// It fails again and again, cannot be started, or was not ready for long.
    Stuck,
    /// It is ending.
    Stopping,
}

/// The pods of a set, by their numbers; there may be pods without a set, while it is made anew. Which of them are outdated is known once
/// the set has seen its newest template.
pub(crate) fn members(name: &str, set: Option<&StatefulSet>, pods: &[Pod], now: Timestamp) -> Vec<Member> {
    let seen = set.filter(|set| set.status.as_ref().is_some_and(|status| status.observed_generation >= set.metadata.generation));
    let newest = seen.and_then(|set| set.status.as_ref()?.update_revision.as_deref());
    let prefix = format!("{name}-");
    let member = |pod: &Pod| {
        let name = pod.metadata.name.clone()?;
        let ordinal = name.strip_prefix(&prefix)?.parse().ok()?;
        let revision = pod.metadata.labels.as_ref()?.get("controller-revision-hash")?;
        Some(Member {
            ordinal,
            uid: pod.metadata.uid.clone()?,
            address: pod.status.as_ref().and_then(|status| status.pod_ip.as_ref()?.parse().ok()),
            phase: phase(pod, now),
            outdated: newest.is_some_and(|newest| newest != revision),
            name,
        })
    };
    let mut members: Vec<Member> = pods.iter().filter_map(member).collect();
    members.sort_by_key(|member| member.ordinal);
    members
}

/// How many pods a set has. While it is made anew, its pods tell.
pub(crate) fn replicas(set: Option<&StatefulSet>, members: &[Member]) -> Option<u16> {
    let said = set.and_then(|set| set.spec.as_ref()?.replicas).and_then(|replicas| u16::try_from(replicas).ok());
    said.or_else(|| members.last().map(|last| last.ordinal + 1))
}

fn phase(pod: &Pod, now: Timestamp) -> Phase {
    if pod.metadata.deletion_timestamp.is_some() {
        return Phase::Stopping;
    }
    let conditions = pod.status.as_ref().and_then(|status| status.conditions.as_ref());
    let ready = conditions.into_iter().flatten().find(|condition| condition.type_ == "Ready");
    if ready.is_some_and(|ready| ready.status == "True") {
        return Phase::Ready;
    }
    let since = ready.and_then(|ready| ready.last_transition_time.as_ref()).map(|time| time.0);
    let long = since.is_some_and(|since| now.duration_since(since) > PATIENCE);
    if long || hopeless(pod, now).is_some() { Phase::Stuck } else { Phase::Starting }
}

/// Why a pod will not become ready by itself.
pub(crate) fn hopeless(pod: &Pod, now: Timestamp) -> Option<String> {
    let status = pod.status.as_ref()?;
    let containers = status.init_container_statuses.iter().chain(&status.container_statuses).flatten();
    let waiting = containers.filter_map(|container| container.state.as_ref()?.waiting.as_ref()?.reason.clone());
    if let Some(reason) = waiting.into_iter().find(|reason| HOPELESS.contains(&reason.as_str())) {
        return Some(reason);
    }
    let scheduled =
        status.conditions.iter().flatten().find(|condition| condition.type_ == "PodScheduled" && condition.status == "False")?;
    // A volume, or a node that is about to come, may take a moment.
    let since = scheduled.last_transition_time.as_ref()?.0;
    if now.duration_since(since) > PLACING { scheduled.message.clone() } else { None }
}
