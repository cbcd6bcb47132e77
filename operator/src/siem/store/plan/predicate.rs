//! What holds a step, each by its name: the names are in `status.operations`, and in the documentation.

use super::super::state::{Cluster, Set, State};
use crate::siem::member::Member;

/// Something that must be so before a node is touched.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Predicate {
    /// Some node answers, and knows an elected master.
    ClusterAnswers,
    /// Every pod is there, ready and in the cluster: what was restarted before is back.
    NodesJoined,
    /// No node is leaving.
    NothingLeaves,
    /// Nothing is being recovered, and nothing is missing that could be there.
    ShardsStarted,
    /// Every shard of the node serves from another one as well, if it is meant to have several copies, and none is moving to or from it.
    ShardsElsewhere,
    /// Of the nodes that may be master more than half stay, or there are too few for that ever to be so.
    OneMasterAtATime,
    /// The node holds no shard any more, but for copies that every node which stays has too.
    ShardsMoved,
}

impl Predicate {
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::ClusterAnswers => "ClusterAnswers",
            Self::NodesJoined => "NodesJoined",
            Self::NothingLeaves => "NothingLeaves",
            Self::ShardsStarted => "ShardsStarted",
            Self::ShardsElsewhere => "ShardsElsewhere",
            Self::OneMasterAtATime => "OneMasterAtATime",
            Self::ShardsMoved => "ShardsMoved",
        }
    }
}

/// What keeps this pod from being replaced.
pub(super) fn holds_restart(state: &State, set: &Set, member: &Member) -> Option<Predicate> {
    let Some(cluster) = state.cluster.as_ref().filter(|cluster| cluster.master.is_some()) else { return Some(Predicate::ClusterAnswers) };
    let checks = [
        (Predicate::NodesJoined, state.have_all_joined()),
        (Predicate::NothingLeaves, cluster.leaving.is_empty() && state.sets.iter().all(|set| set.leaving().next().is_none())),
        (Predicate::ShardsStarted, cluster.are_shards_started()),
        (Predicate::ShardsElsewhere, cluster.has_copies_elsewhere(&member.name)),
        (Predicate::OneMasterAtATime, !set.master || do_masters_stay(state, cluster, &member.name)),
    ];
    checks.into_iter().find(|(_, holds)| !holds).map(|(predicate, _)| predicate)
}

/// What keeps a node that may be master from giving back its vote and going.
pub(super) fn holds_farewell(state: &State, cluster: &Cluster, set: &Set, node: &str) -> Option<Predicate> {
    if cluster.master.is_none() {
        return Some(Predicate::ClusterAnswers);
    }
    if set.data && !(cluster.leaving.contains(node) && cluster.can_do_without(node)) {
        return Some(Predicate::ShardsMoved);
    }
    (!do_masters_stay(state, cluster, node)).then_some(Predicate::OneMasterAtATime)
}

/// Whether enough of the nodes that may be master are in the cluster without this one. One or two can never be more than half without one
/// of them.
fn do_masters_stay(state: &State, cluster: &Cluster, without: &str) -> bool {
    let all: Vec<&Member> = state.sets.iter().filter(|set| set.master).flat_map(|set| &set.members).collect();
    let there = all.iter().filter(|member| member.name != without && cluster.nodes.contains_key(&member.name)).count();
    let others = all.iter().filter(|member| member.name != without).count();
    if all.len() <= 2 { there == others } else { there * 2 > all.len() }
}
