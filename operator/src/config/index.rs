//! What is known of the resources of all namespaces, and what is to be said of them: a state machine without a clock, a socket or a thread.
//!
//! Watches feed it by [`Index::apply`]; [`Index::recompute`] judges what has changed and answers what is to be written and which workers
//! are to be asked. What came of that is fed back as events, too. So a test hands it objects and reads the exact result, and whatever
//! fails outside is an event like any other.
//!
//! Of thousands of AlertRules little is kept: the last good version of each as text, since it has to be found again when the next one is
//! bad, and what the API server shows of its status as a few numbers. They depend on nothing, and are judged one by one. All other
//! kinds, of which there are few, depend on each other, and are compiled together ([`others`]).
//!
//! Nothing is said of a namespace before all of it has been seen once: what is missing would look like deleted.

mod conditions;
mod entry;
mod namespace;
mod others;
#[cfg(test)]
mod tests;
mod timing;
mod workers;

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::Arc,
};

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use redoubt_engine::resource::Kind;

use self::namespace::Namespace;
use crate::options::Scope;

pub use self::{conditions::Reported, workers::Programmed};
pub use super::version::{Kept, Key, Version};

/// What a watch is of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Watched {
    /// Resources of one kind.
    Kind(Kind),
    /// ConfigMaps with last good versions.
    LastGood,
    /// Pods of workers.
    Pods,
}

impl Watched {
    /// Everything that is watched.
    pub const ALL: [Self; 8] = [
        Self::Kind(Kind::Siem),
        Self::Kind(Kind::LogSource),
        Self::Kind(Kind::Watchlist),
        Self::Kind(Kind::Enrichment),
        Self::Kind(Kind::AlertRule),
        Self::Kind(Kind::ResponseAction),
        Self::LastGood,
        Self::Pods,
    ];
}

/// A resource as the API server has it.
#[derive(Debug, Clone)]
pub struct Seen {
    /// Which one.
    pub key: Key,
    /// `metadata.uid`.
    pub uid: Arc<str>,
    /// `metadata.generation`.
    pub generation: i64,
    /// `metadata.resourceVersion`, which the API server lets clients compare as a number; 0 where it is none.
    pub version: u64,
    /// `metadata.creationTimestamp`.
    pub created: Timestamp,
    /// The lines that stand before `spec:` where kubectl prints the object.
    pub lines_before_spec: usize,
    /// `spec` as JSON.
    pub spec: Arc<str>,
    /// What its status says.
    pub reported: Reported,
}

/// A pod that plays a role.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pod {
    /// Its name.
    pub name: Arc<str>,
    /// `metadata.uid`.
    pub uid: Arc<str>,
    /// What it does.
    pub role: Role,
    /// Its address.
    pub address: Option<IpAddr>,
    /// Whether it is ready, and not on its way out.
    pub ready: bool,
}

/// What a worker does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Role {
    /// Takes events in.
    Ingest,
    /// Understands, enriches, matches and stores events.
    Process,
    /// Brings matches together into alerts.
    Correlate,
    /// Does what is to be done about alerts.
    Respond,
}

/// Something that happened.
#[derive(Debug, Clone)]
pub enum Event {
    /// A resource is there, or has changed.
    Seen(Seen),
    /// A resource is gone. The number is the `resourceVersion` of its end.
    Gone(Key, u64),
    /// A last good version is kept.
    Kept(Kept),
    /// A last good version is kept no longer. The number is the `resourceVersion` of its end.
    KeptNoLonger(Key, u64),
    /// A pod is there, or has changed.
    Pod(Pod),
    /// A pod is gone.
    PodGone(Arc<str>),
    /// What came of a [`Change`].
    Done(Done),
    /// What came of a [`Question`].
    Answered(Answered),
}

/// Whose turn it is in a full listing: everything of a watch that is not among these names is gone.
#[derive(Debug, Clone)]
pub struct Listing {
    /// What was listed.
    pub of: Watched,
    /// Where; `None` for all namespaces.
    pub namespace: Option<Arc<str>>,
    /// Namespace and name of each object.
    pub present: BTreeSet<(Arc<str>, Arc<str>)>,
}

/// Something to be written about one resource. Until its [`Done`] there is no other for it.
#[derive(Debug, Clone, PartialEq)]
pub struct Change {
    /// Where.
    pub namespace: Arc<str>,
    /// Of which resource.
    pub key: Key,
    /// `metadata.uid`: another object of the same name is not meant.
    pub uid: Arc<str>,
    /// What is to become of its last good version.
    pub keep: Option<Keep>,
    /// Its new status.
    pub status: Option<NewStatus>,
}

/// What is to become of a last good version.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Keep {
    /// It is to be there.
    Store(Version),
    /// It is no longer needed.
    Discard,
}

/// A status to be written.
#[derive(Debug, Clone, PartialEq)]
pub struct NewStatus {
    /// `status.observedGeneration`; a Siem has its own writer for it.
    pub observed_generation: Option<i64>,
    /// `status.conditions`.
    pub conditions: Vec<Condition>,
    /// What is worth an event of Kubernetes.
    pub notice: Option<Notice>,
}

/// A turn in a resource's life that people want to be told of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Notice {
    /// Whether it is a bad one.
    pub warning: bool,
    /// One word for it.
    pub reason: &'static str,
    /// What happened.
    pub note: String,
}

/// What came of a [`Change`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Done {
    /// Of which resource.
    pub key: Key,
    /// `metadata.uid`, as in the change.
    pub uid: Arc<str>,
    /// Of the last good version: the ConfigMap's new `resourceVersion`.
    pub keep: Option<Result<u64, Failed>>,
    /// Of the status: the resource's new `resourceVersion`.
    pub status: Option<Result<u64, Failed>>,
}

/// It could not be written; it is tried again later.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Failed;

/// A worker to be asked something.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Question {
    /// Where.
    pub namespace: Arc<str>,
    /// The pod.
    pub pod: Arc<str>,
    /// `metadata.uid`.
    pub uid: Arc<str>,
    /// Its address.
    pub address: IpAddr,
    /// What it is asked.
    pub about: About,
}

/// What a worker is asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum About {
    /// What it runs. With the tag of the answer that is known.
    Programmed(Option<Arc<str>>),
    /// The version of a resource that it runs.
    Version(Key),
}

/// What a worker said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answered {
    /// The pod.
    pub pod: Arc<str>,
    /// `metadata.uid`.
    pub uid: Arc<str>,
    /// What it runs.
    pub answer: Answer,
}

/// What a worker runs, by its own word.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// The same as before.
    Same,
    /// This.
    Runs(Programmed),
    /// It did not say.
    Nothing,
    /// Of one resource it runs this version, if any.
    Version(Key, Option<Version>),
}

/// How much may be begun in one round.
#[derive(Debug, Clone, Copy)]
pub struct Budget {
    /// Rules judged, in each namespace.
    pub judge: usize,
    /// Changes, in all.
    pub changes: usize,
    /// Questions, in all.
    pub questions: usize,
}

/// What one round came to.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Round {
    /// What is to be written.
    pub changes: Vec<Change>,
    /// Who is to be asked.
    pub questions: Vec<Question>,
    /// How many resources of each kind were judged.
    pub judged: BTreeMap<Kind, u64>,
    /// Whether there is more to be done at once, within the budget of another round.
    pub more: bool,
    /// When there will be more to be done, where nothing happens before.
    pub again_at: Option<Timestamp>,
}

impl Round {
    fn again(&mut self, at: Timestamp) {
        self.again_at = Some(self.again_at.map_or(at, |known| known.min(at)));
    }
}

/// How many resources there are.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Census {
    /// By kind: accepted, rejected, not yet judged.
    pub kinds: BTreeMap<Kind, [u64; 3]>,
    /// Accepted ones that not every worker runs.
    pub unprogrammed: u64,
    /// Last good versions that are kept.
    pub kept: u64,
}

/// All namespaces.
#[derive(Default)]
pub struct Index {
    namespaces: BTreeMap<Arc<str>, Namespace>,
    /// How many watches there are one by one.
    parts: BTreeSet<Option<Arc<str>>>,
    /// Listings that have been seen to their end.
    listed: BTreeSet<(Option<Arc<str>>, Watched)>,
    /// Which namespace begins the next round.
    turn: usize,
}

impl Index {
    /// Of a process that has seen nothing yet.
    #[must_use]
    pub fn new(scope: &Scope) -> Self {
        Self { parts: scope.parts().into_iter().collect(), ..Self::default() }
    }

    /// Takes note of something that happened in a namespace.
    pub fn apply(&mut self, namespace: &Arc<str>, event: Event, now: Timestamp) {
        let known = self.namespaces.entry(Arc::clone(namespace)).or_default();
        known.apply(event, now);
        if known.is_empty() {
            self.namespaces.remove(namespace);
        }
    }

    /// Takes note of the end of a listing: what is not in it is gone.
    pub fn listed(&mut self, listing: &Listing, now: Timestamp) {
        for (name, namespace) in &mut self.namespaces {
            if listing.namespace.as_ref().is_none_or(|listed| listed == name) {
                namespace.retain(listing.of, |object| listing.present.contains(&(Arc::clone(name), Arc::clone(object))), now);
            }
        }
        self.namespaces.retain(|_, namespace| !namespace.is_empty());
        self.listed.insert((listing.namespace.clone(), listing.of));
    }

    /// Whether everything that is watched has been seen once.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        self.parts.iter().all(|part| self.part_is_complete(part.as_ref()))
    }

    /// Whether the next round judges something, which takes time.
    #[must_use]
    pub fn has_to_judge(&self) -> bool {
        self.namespaces.values().any(Namespace::has_to_judge)
    }

    /// Judges what has changed, and answers what is to be done.
    pub fn recompute(&mut self, now: Timestamp, budget: Budget) -> Round {
        let mut round = Round::default();
        let names: Vec<Arc<str>> = self.namespaces.keys().cloned().collect();
        if names.is_empty() {
            return round;
        }
        self.turn = (self.turn + 1) % names.len();
        for name in names.iter().cycle().skip(self.turn).take(names.len()) {
            let part = if self.parts.contains(&None) { None } else { Some(name) };
            if !self.part_is_complete(part) {
                continue;
            }
            if let Some(namespace) = self.namespaces.get_mut(name) {
                namespace.recompute(name, now, budget, &mut round);
            }
        }
        round
    }

    /// How many resources there are.
    #[must_use]
    pub fn census(&self) -> Census {
        let mut census = Census { kinds: Kind::ALL.map(|kind| (kind, [0; 3])).into(), ..Census::default() };
        for namespace in self.namespaces.values() {
            namespace.count(&mut census);
        }
        census
    }

    fn part_is_complete(&self, part: Option<&Arc<str>>) -> bool {
        Watched::ALL.iter().all(|watched| self.listed.contains(&(part.cloned(), *watched)))
    }
}
