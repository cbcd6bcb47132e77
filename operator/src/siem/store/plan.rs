//! What is to be done to the nodes of Elasticsearch now, and what holds the rest: a pure function of what there is.
//!
//! It is asked again after each step, so nothing has to be remembered between two. In this order:
//!
//! 1. A stuck pod of an older template is replaced: it serves nobody, and the newer template may be what helps it.
//! 2. The allocation of replicas, held for a restart, is released when no node is on its way any more, also if the operator was killed
//!    in between.
//! 3. Nodes that are to go: data moves away from them first, a master gives its vote back first, and only then the set becomes smaller.
//! 4. A pod of an older template is replaced, if every [`Predicate`] lets it: nodes that only hold data first, the elected master last.

mod predicate;
#[cfg(test)]
mod simulation;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};

use redoubt_crds::Operation;

pub(crate) use self::predicate::Predicate;
use super::state::{Cluster, Set, State};
use crate::siem::member::{Member, Phase};

/// Something to do now, in the order of the plan. When one fails, those after it are not done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Step {
    /// No replicas are given to nodes, so that those of a node which is away for a moment wait for it.
    HoldAllocation,
    /// They are again.
    ReleaseAllocation,
    /// What is in memory is written out, so that a restart has less to recover.
    Flush,
    /// Delete this pod: its set makes it anew.
    Restart { pod: String, uid: String },
    /// Data moves away from these nodes, and from no others that a plan has named before.
    MoveAwayFrom(BTreeSet<String>),
    /// This node's vote does not count any more.
    TakeVote(String),
    /// All votes count again.
    GiveVotesBack,
}

/// What to do now, and what is under way.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Plan {
    pub(crate) steps: Vec<Step>,
    /// How many nodes each set is to have now.
    pub(crate) sizes: BTreeMap<String, u16>,
    pub(crate) operations: Vec<Operation>,
}

/// Decides.
pub(crate) fn plan(state: &State) -> Plan {
    let mut plan = Plan::default();
    plan.size(state);
    if plan.replace_stuck(state) || plan.release(state) {
        return plan;
    }
    plan.shrink(state);
    if plan.steps.is_empty() {
        plan.roll(state);
    }
    plan
}

impl Plan {
    /// Sets grow at once: new nodes find their cluster by themselves.
    fn size(&mut self, state: &State) {
        for set in &state.sets {
            let there = set.replicas.unwrap_or(set.wanted);
            self.sizes.insert(set.name.clone(), there.max(set.wanted));
            if there < set.wanted {
                let message = format!("from {there} to {} nodes", set.wanted);
                self.note("ScaleUp", &set.stateful_set, None, message);
            }
        }
    }

    fn replace_stuck(&mut self, state: &State) -> bool {
        let mut stuck = state.sets.iter().flat_map(|set| &set.members).filter(|member| member.outdated && member.phase == Phase::Stuck);
        let Some(member) = stuck.next() else { return false };
        self.note("Roll", &member.name, None, "it does not run, and there is a newer template".to_owned());
        self.restart(member);
        true
    }

    fn release(&mut self, state: &State) -> bool {
        let held = state.cluster.as_ref().is_some_and(|cluster| cluster.allocation_held);
        if !held {
            return false;
        }
        if state.is_a_node_on_its_way() {
            self.note("Roll", "cluster", Some(Predicate::NodesJoined), "a node was restarted".to_owned());
            return true;
        }
        self.steps.push(Step::ReleaseAllocation);
        self.note("Roll", "cluster", None, "replicas are given to nodes again".to_owned());
        true
    }

    fn shrink(&mut self, state: &State) {
        let Some(cluster) = &state.cluster else {
            for set in state.sets.iter().filter(|set| set.leaving().next().is_some()) {
                self.note("ScaleDown", &set.stateful_set, Some(Predicate::ClusterAnswers), "nodes are to go".to_owned());
            }
            return;
        };
        // A node that is on its way out is held off until it is gone, or data comes back to it in its last moment.
        let wanted: BTreeSet<String> = state.sets.iter().flat_map(|set| set.names(0..set.wanted)).collect();
        let is_going = |node: &&String| cluster.nodes.contains_key(*node) && !wanted.contains(*node);
        let mut emptied: BTreeSet<String> = state.sets.iter().filter(|set| set.data).flat_map(Set::leaving).collect();
        emptied.extend(cluster.leaving.iter().filter(is_going).cloned());
        if cluster.leaving != emptied {
            self.steps.push(Step::MoveAwayFrom(emptied));
        }
        if !cluster.without_vote.is_empty() && !cluster.without_vote.iter().any(|node| is_going(&node)) {
            self.steps.push(Step::GiveVotesBack);
        }
        let mut a_master_goes = false;
        for set in state.sets.iter().filter(|set| set.leaving().next().is_some()) {
            if set.master && std::mem::replace(&mut a_master_goes, true) {
                self.note("ScaleDown", &set.stateful_set, Some(Predicate::OneMasterAtATime), "another master goes first".to_owned());
            } else {
                self.shrink_set(state, cluster, set);
            }
        }
    }

    /// Lets the last nodes of a set go that hold nothing any more: of nodes that may be master one at a time.
    fn shrink_set(&mut self, state: &State, cluster: &Cluster, set: &Set) {
        let there = set.replicas.unwrap_or_default();
        let going = there - set.wanted;
        let Some(last) = set.names(there - 1..there).next() else { return };
        let message = format!("from {there} to {} nodes", set.wanted);
        if set.master {
            if let Some(held) = predicate::holds_farewell(state, cluster, set, &last) {
                self.note("ScaleDown", &last, Some(held), message);
                return;
            }
            if cluster.nodes.contains_key(&last) && !cluster.without_vote.contains(&last) {
                self.note("ScaleDown", &last, None, message);
                self.steps.push(Step::TakeVote(last));
                return;
            }
        }
        // Of a node that is away it is not known what it holds: it may go when all that stay are there, and nothing is missing without it.
        let nothing_is_missing = state.have_those_who_stay_joined() && cluster.are_shards_started();
        let is_known = |node: &String| cluster.nodes.contains_key(node) || nothing_is_missing;
        // While it is being changed who is held off, data may come to a node that goes, and a place for it be found on one that stays.
        let is_settled = !self.steps.iter().any(|step| matches!(step, Step::MoveAwayFrom(_)));
        let may_go =
            |node: &String| !set.data || (is_settled && cluster.leaving.contains(node) && cluster.can_do_without(node) && is_known(node));
        let names: Vec<String> = set.names(set.wanted..there).collect();
        let empty = names.iter().rev().take_while(|node| may_go(node)).count();
        let empty = u16::try_from(if set.master { empty.min(1) } else { empty }).unwrap_or(going);
        if empty == 0 {
            self.note("ScaleDown", &last, Some(Predicate::ShardsMoved), message);
            return;
        }
        self.note("ScaleDown", &set.stateful_set, None, message);
        self.sizes.insert(set.name.clone(), there - empty);
    }

    fn roll(&mut self, state: &State) {
        let mut candidates: Vec<(&Set, &Member)> = Vec::new();
        for set in &state.sets {
            candidates.extend(set.members.iter().rev().filter(|member| member.outdated).map(|member| (set, member)));
        }
        let elected = state.cluster.as_ref().and_then(|cluster| cluster.master.as_deref());
        // Among equals the order of the sets stays.
        candidates.sort_by_key(|(set, member)| (Some(member.name.as_str()) == elected, set.master));
        let Some((set, member)) = candidates.first() else { return };
        let message = format!("{} pods are of an older template", candidates.len());
        match predicate::holds_restart(state, set, member) {
            Some(held) => self.note("Roll", &member.name, Some(held), message),
            None => {
                self.note("Roll", &member.name, None, message);
                // A single node's replicas have nowhere to go anyway.
                let several = state.cluster.as_ref().is_some_and(|cluster| cluster.nodes.values().filter(|data| **data).count() > 1);
                if set.data && several {
                    self.steps.push(Step::HoldAllocation);
                }
                if set.data {
                    self.steps.push(Step::Flush);
                }
                self.restart(member);
            }
        }
    }

    fn restart(&mut self, member: &Member) {
        self.steps.push(Step::Restart { pod: member.name.clone(), uid: member.uid.clone() });
    }

    fn note(&mut self, name: &str, target: &str, held: Option<Predicate>, message: String) {
        let waits_for = held.map_or_else(String::new, |predicate| predicate.as_str().to_owned());
        self.operations.push(Operation { name: name.to_owned(), target: target.to_owned(), waits_for, message });
    }
}
