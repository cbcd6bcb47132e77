//! What is to be done to the nodes of RabbitMQ now, and what holds the rest: a pure function of what there is.
//!
//! Pods of an older template are replaced one at a time. Before each, all nodes must run, and no queue may lose its majority without that
//! node ([`Predicate`]). A pod that is stuck goes first, since it serves nobody. Passwords change by new users: the workers' connections
//! are ended once their Secret has had time to arrive, and the former users go when nobody is connected as one.
//!
//! A queue has its replicas on the nodes that are in the cluster when it is made. So the roles, which make the queues, begin when every node
//! is there: before, a queue could come to lie on one node alone.

use std::collections::BTreeSet;

use jiff::{SignedDuration, Timestamp};
use redoubt_crds::Operation;

use super::management::{Answers, Queue};
use crate::siem::{
    member::{Member, Phase},
    secret::account::Account,
};

/// How long a changed Secret takes to be in every pod, with ease.
const ARRIVAL: SignedDuration = SignedDuration::from_secs(60);
/// How long the roles wait for nodes that are not there when RabbitMQ begins. A SIEM on fewer nodes is better than none.
pub(crate) const FORMATION: SignedDuration = SignedDuration::from_mins(5);
/// Most replicas that a queue has.
const MOST_REPLICAS: usize = 3;

/// What holds a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Predicate {
    /// Every pod of the set is there and ready.
    PodsReady,
    /// Some node answers the management API.
    BrokerAnswers,
    /// Every node of the set runs in one cluster, and they agree on it.
    NodesRunning,
    /// No queue would lose its majority.
    QueuesKeepTheirMajority,
    /// Nobody is connected as the former user, or the new one has had time to arrive.
    ClientsMoved,
}

impl Predicate {
    const fn as_str(self) -> &'static str {
        match self {
            Self::PodsReady => "PodsReady",
            Self::BrokerAnswers => "BrokerAnswers",
            Self::NodesRunning => "NodesRunning",
            Self::QueuesKeepTheirMajority => "QueuesKeepTheirMajority",
            Self::ClientsMoved => "ClientsMoved",
        }
    }
}

/// Something to do now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Step {
    /// Delete this pod: its set makes it anew.
    Restart { pod: String, uid: String },
    /// Make new users, and write them into the Secrets.
    RenewAccounts,
    /// Make the users that the Secrets name.
    RestoreAccounts,
    /// End these connections.
    Close(Vec<String>),
    /// Take these users away.
    RemoveUsers(Vec<String>),
    /// Give a queue a replica on a node.
    AddReplica { queue: Queue, node: String },
}

/// What there is.
#[derive(Clone, Copy)]
pub(crate) struct State<'a> {
    /// The name of the StatefulSet.
    pub(crate) set: &'a str,
    pub(crate) members: &'a [Member],
    /// The names of the nodes that are to be, by ordinal.
    pub(crate) nodes: &'a [String],
    /// What the nodes say; nothing where none answers.
    pub(crate) answers: Option<&'a Answers>,
    /// Whether RabbitMQ has begun less than [`FORMATION`] ago, and some role has not.
    pub(crate) begins: bool,
    /// Who the Secrets say that the workers and the operator are.
    pub(crate) accounts: Option<(&'a Account, &'a Account)>,
    /// The revision of passwords that the Siem asks for.
    pub(crate) revision: &'a str,
    pub(crate) now: Timestamp,
}

/// What to do now, and what is under way.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Plan {
    pub(crate) steps: Vec<Step>,
    /// Whether roles that have not begun are to wait.
    pub(crate) roles_wait: bool,
    pub(crate) operations: Vec<Operation>,
}

/// Decides.
pub(crate) fn plan(state: State<'_>) -> Plan {
    let mut plan = Plan::default();
    plan.form(state);
    plan.roll(state);
    plan.spread(state);
    plan.rotate(state);
    plan
}

impl Plan {
    /// Keeps roles from making queues before there are the nodes for their replicas.
    fn form(&mut self, state: State<'_>) {
        self.roles_wait = state.begins && state.nodes.len() > 1 && !are_running(state);
        if self.roles_wait {
            let message = "the roles begin when all nodes are in the cluster".to_owned();
            self.note("Form", state.set, Some(Predicate::NodesRunning), message);
        }
    }

    /// Replaces one pod of an older template, if it may be.
    fn roll(&mut self, state: State<'_>) {
        let outdated: Vec<&Member> = state.members.iter().filter(|member| member.outdated).collect();
        let Some(last) = outdated.last() else { return };
        let message = format!("{} of {} pods are of an older template", outdated.len(), state.nodes.len());
        if let Some(stuck) = outdated.iter().rev().find(|member| member.phase == Phase::Stuck) {
            self.restart(stuck, message);
        } else if let Some(held) = held(state, last) {
            self.note("Roll", state.set, Some(held), message);
        } else {
            self.restart(last, message);
        }
    }

    fn restart(&mut self, member: &Member, message: String) {
        self.note("Roll", &member.name, None, message);
        self.steps.push(Step::Restart { pod: member.name.clone(), uid: member.uid.clone() });
    }

    /// Gives queues replicas on nodes that came later, one queue at a time, while nothing else is done to the nodes.
    fn spread(&mut self, state: State<'_>) {
        let Some(answers) = state.answers.filter(|_| self.steps.is_empty() && are_running(state)) else { return };
        let wanted = state.nodes.len().min(MOST_REPLICAS);
        let narrow: Vec<&Queue> = answers.queues.iter().filter(|queue| queue.members.len() < wanted).collect();
        let Some(queue) = narrow.first() else { return };
        // The node that has the fewest.
        let load = |node: &String| answers.queues.iter().filter(|queue| queue.members.contains(node)).count();
        let Some(node) = state.nodes.iter().filter(|node| !queue.members.contains(*node)).min_by_key(|node| load(node)) else { return };
        self.note("ScaleUp", state.set, None, format!("{} queues are on fewer than {wanted} nodes", narrow.len()));
        self.steps.push(Step::AddReplica { queue: (*queue).clone(), node: node.clone() });
    }

    /// Has everybody use new passwords, where the Siem asks for it.
    fn rotate(&mut self, state: State<'_>) {
        let Some((worker, admin)) = state.accounts else { return };
        let due = worker.revision != state.revision || admin.revision != state.revision;
        let Some(answers) = state.answers else {
            if due {
                self.note("RotateCredentials", state.set, Some(Predicate::BrokerAnswers), "new users are to be made".to_owned());
            }
            return;
        };
        if due {
            self.note("RotateCredentials", state.set, None, "new users are made".to_owned());
            self.steps.push(Step::RenewAccounts);
            return;
        }
        if !answers.users.contains(&worker.name) || !answers.users.contains(&admin.name) {
            self.steps.push(Step::RestoreAccounts);
            return;
        }
        let current = [worker.name.as_str(), admin.name.as_str()];
        let former: Vec<&String> = answers.users.iter().filter(|user| is_made_here(user) && !current.contains(&user.as_str())).collect();
        if former.is_empty() {
            return;
        }
        let arrived = [worker, admin].iter().all(|account| state.now.duration_since(account.made_at) > ARRIVAL);
        let connections = |user: &String| answers.connections.get(user).into_iter().flatten().cloned();
        let (used, unused): (Vec<&String>, Vec<&String>) = former.into_iter().partition(|user| connections(user).next().is_some());
        let message = format!("{} former users are connected", used.len());
        if !arrived {
            self.note("RotateCredentials", state.set, Some(Predicate::ClientsMoved), message);
            return;
        }
        self.note("RotateCredentials", state.set, None, message);
        if !used.is_empty() {
            self.steps.push(Step::Close(used.into_iter().flat_map(connections).collect()));
        }
        if !unused.is_empty() {
            self.steps.push(Step::RemoveUsers(unused.into_iter().cloned().collect()));
        }
    }

    fn note(&mut self, name: &str, target: &str, held: Option<Predicate>, message: String) {
        let waits_for = held.map_or_else(String::new, |predicate| predicate.as_str().to_owned());
        self.operations.push(Operation { name: name.to_owned(), target: target.to_owned(), waits_for, message });
    }
}

/// What keeps this pod from being replaced.
fn held(state: State<'_>, candidate: &Member) -> Option<Predicate> {
    if state.members.len() != state.nodes.len() || state.members.iter().any(|member| member.phase != Phase::Ready) {
        return Some(Predicate::PodsReady);
    }
    let Some(answers) = state.answers else { return Some(Predicate::BrokerAnswers) };
    if !are_running(state) {
        return Some(Predicate::NodesRunning);
    }
    // Without another node there is no majority to keep.
    if state.nodes.len() > 1 && answers.critical.get(&candidate.name) != Some(&false) {
        return Some(Predicate::QueuesKeepTheirMajority);
    }
    None
}

fn are_running(state: State<'_>) -> bool {
    let running = |answers: &Answers| {
        let wanted: BTreeSet<&String> = state.nodes.iter().collect();
        answers.nodes.keys().collect::<BTreeSet<_>>() == wanted && answers.nodes.values().all(|running| *running)
    };
    state.answers.is_some_and(running)
}

/// Whether a user has a name as the operator gives it: nobody else's is ever taken away.
fn is_made_here(user: &str) -> bool {
    let suffix = user.strip_prefix("redoubt-admin-").or_else(|| user.strip_prefix("redoubt-"));
    suffix.is_some_and(|suffix| suffix.len() == 8 && suffix.chars().all(|c| c.is_ascii_hexdigit()))
}

#[cfg(test)]
mod tests;
