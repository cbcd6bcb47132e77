//! Kinds that others define and a cluster may lack: the HTTPRoute of the Gateway API, the PodMonitor of the Prometheus operator, the
//! ScaledObject of KEDA.
//!
//! Whether they are there is asked of the API server's discovery, and remembered for [`AGE`]. While it gives no answer, what was known
//! before holds; where nothing was known, nothing is made, changed or removed. Those that are there are watched ([`watch`]).

pub(crate) mod watch;

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};
use kube::{
    Client,
    api::{ApiResource, GroupVersionKind},
};
use tracing::debug;

use super::answer::said;

/// How long what is known of them is good. A Siem at rest is looked at once a minute, so each of these looks asks.
const AGE: SignedDuration = SignedDuration::from_secs(30);

/// A kind that others define.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Foreign {
    HttpRoute,
    PodMonitor,
    ScaledObject,
}

/// Whether a kind is there.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) enum Presence {
    Served,
    #[default]
    Absent,
    /// Nobody could tell, and why.
    Unknown(String),
}

/// What is known of all of them; what is not named is not there.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Presences(pub(crate) BTreeMap<Foreign, Presence>);

/// What is remembered between two looks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Memory {
    served: BTreeMap<Foreign, bool>,
    /// When all of them were last told of.
    told_at: Option<Timestamp>,
}

impl Foreign {
    pub(crate) const ALL: [Self; 3] = [Self::HttpRoute, Self::PodMonitor, Self::ScaledObject];

    /// The kind, as the API has it.
    pub(crate) fn resource(self) -> ApiResource {
        let (group, version, kind, plural) = match self {
            Self::HttpRoute => ("gateway.networking.k8s.io", "v1", "HTTPRoute", "httproutes"),
            Self::PodMonitor => ("monitoring.coreos.com", "v1", "PodMonitor", "podmonitors"),
            Self::ScaledObject => ("keda.sh", "v1alpha1", "ScaledObject", "scaledobjects"),
        };
        ApiResource::from_gvk_with_plural(&GroupVersionKind::gvk(group, version, kind), plural)
    }

    /// What to do where it is asked for and not there.
    pub(crate) const fn remedy(self) -> &'static str {
        match self {
            Self::HttpRoute => "install the Gateway API and a controller for it, or use spec.ingest.ingress in its stead",
            Self::PodMonitor => "install the Prometheus operator, or set spec.monitoring.when to Available",
            Self::ScaledObject => "install KEDA",
        }
    }
}

impl Presences {
    pub(crate) fn of(&self, kind: Foreign) -> &Presence {
        self.0.get(&kind).unwrap_or(&Presence::Absent)
    }

    /// The kinds that are there.
    pub(crate) fn served(&self) -> impl Iterator<Item = Foreign> + '_ {
        Foreign::ALL.into_iter().filter(|kind| *self.of(*kind) == Presence::Served)
    }
}

/// Tells which are there, by what is remembered where that is good, and what to remember then.
pub(crate) async fn discover(client: &Client, before: Option<Memory>, now: Timestamp) -> (Presences, Memory) {
    let mut memory = before.unwrap_or(Memory { served: BTreeMap::new(), told_at: None });
    if memory.told_at.is_some_and(|told_at| (SignedDuration::ZERO..AGE).contains(&now.duration_since(told_at))) {
        return (memory.presences(&BTreeMap::new()), memory);
    }
    let mut silent = BTreeMap::new();
    for kind in Foreign::ALL {
        match is_served(client, kind).await {
            Ok(served) => {
                memory.served.insert(kind, served);
            }
            Err(error) => {
                debug!(?kind, %error, "discovery gives no answer");
                silent.insert(kind, said(&error));
            }
        }
    }
    if silent.is_empty() {
        memory.told_at = Some(now);
    }
    (memory.presences(&silent), memory)
}

impl Memory {
    fn presences(&self, silent: &BTreeMap<Foreign, String>) -> Presences {
        let presence = |kind: Foreign| match self.served.get(&kind) {
            Some(true) => Presence::Served,
            Some(false) => Presence::Absent,
            None => Presence::Unknown(silent.get(&kind).cloned().unwrap_or_default()),
        };
        Presences(Foreign::ALL.into_iter().map(|kind| (kind, presence(kind))).collect())
    }
}

async fn is_served(client: &Client, kind: Foreign) -> Result<bool, kube::Error> {
    let resource = kind.resource();
    match client.list_api_group_resources(&resource.api_version).await {
        Ok(list) => Ok(list.resources.iter().any(|served| served.name == resource.plural)),
        Err(kube::Error::Api(status)) if status.code == 404 => Ok(false),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests;
