//! The nodes of Elasticsearch as plans see them: the pods that Kubernetes has, and the cluster as a node tells it.

use std::collections::{BTreeMap, BTreeSet};

use crate::siem::member::{Member, Phase};

/// All that a plan is made from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct State {
    /// The node sets of the Siem, and those that are there still and are in it no more.
    pub(crate) sets: Vec<Set>,
    /// The cluster; nothing where no node answers.
    pub(crate) cluster: Option<Cluster>,
}

/// A node set.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Set {
    /// Its name in the Siem.
    pub(crate) name: String,
    /// The name of its StatefulSet, and the first part of its nodes' names.
    pub(crate) stateful_set: String,
    /// Whether its nodes may be master.
    pub(crate) master: bool,
    /// Whether its nodes hold data.
    pub(crate) data: bool,
    /// How many nodes it is to have; none where the Siem names it no more.
    pub(crate) wanted: u16,
    /// How many its StatefulSet has; nothing where that is not there yet.
    pub(crate) replicas: Option<u16>,
    /// Its pods.
    pub(crate) members: Vec<Member>,
}

/// The cluster, as its elected master knows it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Cluster {
    /// Which cluster it is.
    pub(crate) uuid: String,
    /// Nodes that are in it, and whether they hold data.
    pub(crate) nodes: BTreeMap<String, bool>,
    /// The elected master.
    pub(crate) master: Option<String>,
    /// Every copy of every shard.
    pub(crate) copies: Vec<Copy>,
    /// Whether a plan has held the allocation of replicas.
    pub(crate) allocation_held: bool,
    /// Nodes that a plan has data move away from.
    pub(crate) leaving: BTreeSet<String>,
    /// Nodes that others have data move away from.
    pub(crate) excluded_by_others: BTreeSet<String>,
    /// Nodes whose vote does not count.
    pub(crate) without_vote: BTreeSet<String>,
    /// Why a primary that has no node gets none.
    pub(crate) hindrance: Option<String>,
}

/// A shard: an index, and its number in it.
pub(crate) type Shard = (String, u32);

/// A copy of a shard.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Copy {
    pub(crate) shard: Shard,
    pub(crate) primary: bool,
    pub(crate) state: CopyState,
    /// Where it is, or comes to be.
    pub(crate) node: Option<String>,
    /// Where it moves to.
    pub(crate) to: Option<String>,
}

/// What a copy is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum CopyState {
    /// It serves.
    Started,
    /// It is being filled.
    Initializing,
    /// It serves, and moves to another node.
    Relocating,
    /// It has no node.
    Unassigned,
}

impl Set {
    /// The names of its nodes with these numbers.
    pub(crate) fn names(&self, ordinals: std::ops::Range<u16>) -> impl Iterator<Item = String> + '_ {
        ordinals.map(|ordinal| format!("{}-{ordinal}", self.stateful_set))
    }

    /// The nodes that are to go.
    pub(crate) fn leaving(&self) -> impl Iterator<Item = String> + '_ {
        self.names(self.wanted..self.replicas.unwrap_or_default().max(self.wanted))
    }
}

impl State {
    /// Whether some pod ends, starts or is about to be made, or has not joined the cluster. One that is stuck is not on its way.
    pub(crate) fn is_a_node_on_its_way(&self) -> bool {
        let missing = |set: &Set| set.members.len() < usize::from(set.replicas.unwrap_or_default());
        let joined = |member: &Member| self.cluster.as_ref().is_some_and(|cluster| cluster.nodes.contains_key(&member.name));
        let on_its_way = |member: &Member| match member.phase {
            Phase::Starting | Phase::Stopping => true,
            Phase::Ready => !joined(member),
            Phase::Stuck => false,
        };
        self.sets.iter().any(|set| missing(set) || set.members.iter().any(on_its_way))
    }

    /// Whether every node that is to stay is in the cluster.
    pub(crate) fn have_those_who_stay_joined(&self) -> bool {
        let joined = |node: String| self.cluster.as_ref().is_some_and(|cluster| cluster.nodes.contains_key(&node));
        self.sets.iter().all(|set| set.names(0..set.wanted).all(joined))
    }

    /// Whether all pods are there, ready, and in the cluster.
    pub(crate) fn have_all_joined(&self) -> bool {
        !self.is_a_node_on_its_way() && self.sets.iter().flat_map(|set| &set.members).all(|member| member.phase == Phase::Ready)
    }
}

impl Cluster {
    /// Whether nothing is missing that could be there: every primary serves, nothing is being filled, and copies without a node are those
    /// for which there is no node to be had.
    pub(crate) fn are_shards_started(&self) -> bool {
        let stays = |node: &String| !self.leaving.contains(node) && !self.excluded_by_others.contains(node);
        let places = self.nodes.iter().filter(|(node, data)| **data && stays(node)).count();
        let mut placed: BTreeMap<&Shard, usize> = BTreeMap::new();
        for copy in self.copies.iter().filter(|copy| copy.node.as_ref().is_some_and(stays)) {
            *placed.entry(&copy.shard).or_default() += 1;
        }
        self.copies.iter().all(|copy| match copy.state {
            CopyState::Started | CopyState::Relocating => true,
            CopyState::Initializing => false,
            CopyState::Unassigned => !copy.primary && placed.get(&copy.shard).copied().unwrap_or_default() >= places,
        })
    }

    /// Whether every shard of this node that is meant to have several copies serves from another node as well, and none is moving to or
    /// from it.
    pub(crate) fn has_copies_elsewhere(&self, node: &str) -> bool {
        let serves = |copy: &Copy| matches!(copy.state, CopyState::Started | CopyState::Relocating);
        let touches = |copy: &Copy| copy.node.as_deref() == Some(node);
        let moves = |copy: &Copy| copy.state == CopyState::Relocating && (touches(copy) || copy.to.as_deref() == Some(node));
        if self.copies.iter().any(moves) {
            return false;
        }
        let mut serving_elsewhere: BTreeSet<&Shard> = BTreeSet::new();
        let mut copies: BTreeMap<&Shard, usize> = BTreeMap::new();
        for copy in &self.copies {
            *copies.entry(&copy.shard).or_default() += 1;
            if serves(copy) && !touches(copy) {
                serving_elsewhere.insert(&copy.shard);
            }
        }
        let several_places = self.nodes.values().filter(|data| **data).count() > 1;
        let mut here = self.copies.iter().filter(|copy| touches(copy));
        here.all(|copy| serving_elsewhere.contains(&copy.shard) || copies.get(&copy.shard) == Some(&1) || !several_places)
    }

    /// Whether a node can go: it holds no shard and none is on its way to it, but for copies that every node which stays has too. There is
    /// no place for those.
    pub(crate) fn can_do_without(&self, node: &str) -> bool {
        let stays = |name: &str| !self.leaving.contains(name) && !self.excluded_by_others.contains(name) && name != node;
        let staying = self.nodes.iter().filter(|(name, data)| **data && stays(name)).count();
        let serving = |shard: &Shard| {
            let on_staying =
                |copy: &&Copy| copy.shard == *shard && copy.state == CopyState::Started && copy.node.as_deref().is_some_and(stays);
            self.copies.iter().filter(on_staying).count()
        };
        self.copies.iter().all(|copy| {
            let here =
                copy.node.as_deref() == Some(node) && copy.state == CopyState::Started && staying > 0 && serving(&copy.shard) >= staying;
            let elsewhere = copy.node.as_deref() != Some(node) && copy.to.as_deref() != Some(node);
            here || elsewhere
        })
    }

    /// A shard whose primary is on no node, if there is one.
    pub(crate) fn primary_without_node(&self) -> Option<&Shard> {
        self.copies.iter().find(|copy| copy.primary && copy.state == CopyState::Unassigned).map(|copy| &copy.shard)
    }

    /// Primaries that do not serve.
    pub(crate) fn missing_primaries(&self) -> usize {
        let serves = |copy: &Copy| matches!(copy.state, CopyState::Started | CopyState::Relocating);
        self.copies.iter().filter(|copy| copy.primary && !serves(copy)).count()
    }
}
