//! Plans carried out on clusters that behave as Elasticsearch and Kubernetes do, while nodes fail, the operator is killed in the middle of
//! a plan, and the Siem changes. Whatever happens, no plan takes away what is needed, and in the end all is as it is to be.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::*;
use crate::siem::store::state::{Copy, CopyState, Shard};

/// A pod and the disk under its node, which outlives it.
#[derive(Debug, Clone)]
struct Node {
    set: usize,
    ordinal: u16,
    phase: Phase,
    template: u32,
    uid: u32,
    /// A pod of this template is always stuck.
    broken: Option<u32>,
}

#[derive(Debug, Clone)]
struct SimulatedSet {
    master: bool,
    data: bool,
    wanted: u16,
    replicas: u16,
    template: u32,
}

#[derive(Debug, Clone)]
struct SimulatedShard {
    /// Copies besides the primary.
    replicas: usize,
    /// Nodes that have a copy on their disk that is up to date: they serve while they are there.
    serving: BTreeSet<String>,
    /// A copy that is being filled.
    filling: Option<String>,
}

#[derive(Debug, Clone)]
struct World {
    sets: Vec<SimulatedSet>,
    nodes: BTreeMap<String, Node>,
    shards: BTreeMap<Shard, SimulatedShard>,
    allocation_held: bool,
    leaving: BTreeSet<String>,
    without_vote: BTreeSet<String>,
    next_uid: u32,
}

impl World {
    fn new(sets: Vec<SimulatedSet>, replicas: &[usize]) -> Self {
        let mut world = Self {
            sets,
            nodes: BTreeMap::new(),
            shards: BTreeMap::new(),
            allocation_held: false,
            leaving: BTreeSet::new(),
            without_vote: BTreeSet::new(),
            next_uid: 0,
        };
        world.run_kubernetes();
        world.nodes.values_mut().for_each(|node| node.phase = Phase::Ready);
        for (number, replicas) in replicas.iter().enumerate() {
            let shard = (format!("index-{number}"), 0);
            let holders = world.data_nodes().into_iter().cycle().skip(number).take(replicas + 1).collect();
            world.shards.insert(shard, SimulatedShard { replicas: *replicas, serving: holders, filling: None });
        }
        world
    }

    fn joined(&self, node: &str) -> bool {
        self.nodes.get(node).is_some_and(|node| node.phase == Phase::Ready)
    }

    fn data_nodes(&self) -> Vec<String> {
        self.nodes.iter().filter(|(name, node)| self.sets[node.set].data && self.joined(name)).map(|(name, _)| name.clone()).collect()
    }

    fn masters(&self) -> Vec<&String> {
        self.nodes.iter().filter(|(_, node)| self.sets[node.set].master).map(|(name, _)| name).collect()
    }

    fn there(&self, shard: &SimulatedShard) -> BTreeSet<String> {
        shard.serving.iter().filter(|node| self.joined(node)).cloned().collect()
    }

    /// What a plan sees.
    fn state(&self) -> State {
        let sets = self.sets.iter().enumerate().map(|(number, set)| {
            let members = self.nodes.iter().filter(|(_, node)| node.set == number);
            let mut members: Vec<Member> = members
                .map(|(name, node)| Member {
                    name: name.clone(),
                    ordinal: node.ordinal,
                    uid: node.uid.to_string(),
                    address: None,
                    phase: node.phase,
                    outdated: node.template < set.template,
                })
                .collect();
            members.sort_by_key(|member| member.ordinal);
            Set {
                name: format!("set-{number}"),
                stateful_set: format!("set-{number}"),
                master: set.master,
                data: set.data,
                wanted: set.wanted,
                replicas: Some(set.replicas),
                members,
            }
        });
        let masters = self.masters();
        let voting: Vec<&&String> = masters.iter().filter(|name| self.joined(name)).collect();
        let is_there = !voting.is_empty() && (voting.len() * 2 > masters.len() || masters.len() <= 2);
        State { sets: sets.collect(), cluster: is_there.then(|| self.cluster(voting.first().map(|name| (**name).clone()))) }
    }

    fn cluster(&self, master: Option<String>) -> Cluster {
        let mut cluster = Cluster { master, ..Cluster::default() };
        cluster.nodes =
            self.nodes.iter().filter(|(name, _)| self.joined(name)).map(|(name, node)| (name.clone(), self.sets[node.set].data)).collect();
        cluster.allocation_held = self.allocation_held;
        (cluster.leaving, cluster.without_vote) = (self.leaving.clone(), self.without_vote.clone());
        for (shard, simulated) in &self.shards {
            let there = self.there(simulated);
            let mut copy = |primary, state, node: Option<&String>| {
                cluster.copies.push(Copy { shard: shard.clone(), primary, state, node: node.cloned(), to: None });
            };
            for (number, node) in there.iter().enumerate() {
                copy(number == 0, CopyState::Started, Some(node));
            }
            if let Some(node) = &simulated.filling {
                copy(false, CopyState::Initializing, Some(node));
            }
            let placed = there.len() + usize::from(simulated.filling.is_some());
            for number in placed..=simulated.replicas {
                copy(number == 0, CopyState::Unassigned, None);
            }
        }
        cluster
    }

    /// What is done in answer to a plan, of which only the first steps may be carried out.
    fn carry_out(&mut self, plan: &Plan, steps: usize) {
        for step in plan.steps.iter().take(steps) {
            match step {
                Step::HoldAllocation => self.allocation_held = true,
                Step::ReleaseAllocation => self.allocation_held = false,
                Step::Flush => {}
                Step::Restart { pod, uid } => {
                    if self.nodes.get(pod).is_some_and(|node| node.uid.to_string() == *uid) {
                        self.check_restart(pod);
                        self.stop(pod);
                    }
                }
                Step::MoveAwayFrom(nodes) => self.leaving = nodes.clone(),
                Step::TakeVote(node) => {
                    self.without_vote.insert(node.clone());
                }
                Step::GiveVotesBack => self.without_vote.clear(),
            }
        }
        if steps < plan.steps.len() {
            return;
        }
        for number in 0..self.sets.len() {
            let size = plan.sizes[&format!("set-{number}")];
            for ordinal in size..self.sets[number].replicas {
                self.bid_farewell(&format!("set-{number}-{ordinal}"));
            }
            self.sets[number].replicas = size;
        }
    }

    /// Nobody is restarted who is needed.
    fn check_restart(&self, pod: &str) {
        if self.nodes[pod].phase == Phase::Stuck {
            return;
        }
        let others_are_there = self.nodes.keys().all(|name| name == pod || self.joined(name));
        assert!(others_are_there, "{pod} is restarted while another is away: {self:#?}");
        let masters = self.masters();
        if masters.len() > 2 && self.sets[self.nodes[pod].set].master {
            let stay = masters.iter().filter(|name| name.as_str() != pod && self.joined(name)).count();
            assert!(stay * 2 > masters.len(), "{pod} is restarted, and too few masters stay");
        }
        for (shard, simulated) in &self.shards {
            let there = self.there(simulated);
            let has_another = there.iter().any(|name| name != pod);
            let could_have = simulated.replicas > 0 && self.data_nodes().len() > 1;
            assert!(!there.contains(pod) || has_another || !could_have, "{pod} is restarted with the only copy of {shard:?}");
        }
    }

    /// Nobody goes who holds something that a node which stays could have and has not, or whose vote counts.
    fn bid_farewell(&mut self, node: &str) {
        let Some(there) = self.nodes.get(node).cloned() else { return };
        let stays = |name: &String| name != node && !self.leaving.contains(name);
        let places = self.data_nodes().into_iter().filter(stays).count();
        for simulated in self.shards.values() {
            let kept = self.there(simulated).into_iter().filter(stays).count();
            let holds = simulated.serving.contains(node) || simulated.filling.as_deref() == Some(node);
            let enough = kept > 0 && kept >= places.min(simulated.replicas + 1);
            assert!(!holds || enough, "{node} goes with data: {self:#?}");
        }
        let votes = self.sets[there.set].master && self.joined(node) && !self.without_vote.contains(node);
        assert!(!votes, "{node} goes with its vote");
        for simulated in self.shards.values_mut() {
            simulated.serving.remove(node);
        }
    }

    fn stop(&mut self, pod: &str) {
        if let Some(node) = self.nodes.get_mut(pod) {
            node.phase = Phase::Stopping;
        }
        for simulated in self.shards.values_mut().filter(|simulated| simulated.filling.as_deref() == Some(pod)) {
            simulated.filling = None;
        }
    }

    /// A step of Kubernetes: what ends is gone, what is missing is made, what starts is ready or stuck.
    fn run_kubernetes(&mut self) {
        self.nodes.retain(|_, node| node.phase != Phase::Stopping);
        for node in self.nodes.values_mut().filter(|node| node.phase == Phase::Starting) {
            node.phase = if node.broken == Some(node.template) { Phase::Stuck } else { Phase::Ready };
        }
        for (number, set) in self.sets.iter().enumerate() {
            for ordinal in 0..set.replicas {
                let name = format!("set-{number}-{ordinal}");
                self.nodes.entry(name).or_insert_with(|| {
                    self.next_uid += 1;
                    let (template, uid) = (set.template, self.next_uid);
                    Node { set: number, ordinal, phase: Phase::Starting, template, uid, broken: None }
                });
            }
        }
        let sizes: Vec<u16> = self.sets.iter().map(|set| set.replicas).collect();
        let gone: Vec<String> =
            self.nodes.iter().filter(|(_, node)| node.ordinal >= sizes[node.set]).map(|(name, _)| name.clone()).collect();
        gone.iter().for_each(|name| self.stop(name));
    }

    /// A step of Elasticsearch: a copy that is being filled serves, another begins to be filled, data moves away from who leaves.
    fn run_elasticsearch(&mut self) {
        if self.state().cluster.is_none() {
            return;
        }
        let places: Vec<String> = self.data_nodes().into_iter().filter(|name| !self.leaving.contains(name)).collect();
        let shards: Vec<Shard> = self.shards.keys().cloned().collect();
        for shard in shards {
            let mut simulated = self.shards[&shard].clone();
            let there = self.there(&simulated);
            if there.is_empty() {
                continue;
            }
            if let Some(node) = simulated.filling.take() {
                simulated.serving.insert(node);
                // Elsewhere there are enough now: copies on disks of nodes that are away, or that leave, are given up.
                let enough = self.there(&simulated).difference(&self.leaving).count() > simulated.replicas;
                let keeps = |name: &String| self.joined(name) && !self.leaving.contains(name);
                if enough {
                    simulated.serving.retain(keeps);
                } else if let Some(left) = simulated.serving.iter().find(|name| self.leaving.contains(*name)).cloned() {
                    simulated.serving.remove(&left);
                }
            } else {
                let missing = there.len() <= simulated.replicas && !self.allocation_held;
                let moving = there.iter().any(|name| self.leaving.contains(name));
                if missing || moving {
                    simulated.filling = places.iter().find(|name| !simulated.serving.contains(*name)).cloned();
                }
            }
            self.shards.insert(shard, simulated);
        }
    }

    fn is_settled(&self) -> bool {
        let as_wanted = |set: &SimulatedSet| set.replicas == set.wanted;
        let newest = |node: &Node| node.phase == Phase::Ready && node.template == self.sets[node.set].template;
        self.sets.iter().all(as_wanted)
            && self.nodes.values().all(newest)
            && !self.allocation_held
            && self.leaving.is_empty()
            && self.without_vote.is_empty()
            && plan(&self.state()).steps.is_empty()
    }
}

/// What happens besides plans.
#[derive(Debug, Clone)]
enum Event {
    /// All goes its way for a while.
    Pass,
    /// The operator is killed after so many steps of its plan.
    Crash(usize),
    /// A pod is killed.
    Kill(usize),
    /// A set is to have a newer template; a pod of it may not get along with that.
    Template { set: usize, breaks: Option<usize> },
    /// A set is to have so many nodes more than the fewest.
    Size { set: usize, more: u16 },
}

fn events() -> impl Strategy<Value = Vec<Event>> {
    let event = prop_oneof![
        4 => Just(Event::Pass),
        3 => (0..3_usize).prop_map(Event::Crash),
        1 => any::<usize>().prop_map(Event::Kill),
        2 => (any::<usize>(), proptest::option::weighted(0.2, any::<usize>())).prop_map(|(set, breaks)| Event::Template { set, breaks }),
        1 => (any::<usize>(), 0..3_u16).prop_map(|(set, more)| Event::Size { set, more }),
    ];
    proptest::collection::vec(event, 0..40)
}

/// Sets that are a cluster: some node may be master, and some hold data.
fn worlds() -> impl Strategy<Value = World> {
    let set =
        |master, data, most: u16| (1..=most).prop_map(move |wanted| SimulatedSet { master, data, wanted, replicas: wanted, template: 1 });
    let sets = prop_oneof![
        set(true, true, 4).prop_map(|set| vec![set]),
        (set(true, false, 3), set(false, true, 4)).prop_map(|(masters, data)| vec![masters, data]),
        (set(true, true, 3), set(false, true, 3), set(true, false, 1)).prop_map(|(mixed, data, tie)| vec![mixed, data, tie]),
    ];
    (sets, proptest::collection::vec(0..2_usize, 0..6)).prop_map(|(sets, shards)| World::new(sets, &shards))
}

impl World {
    fn happen(&mut self, event: &Event) {
        match event {
            Event::Pass => self.live(usize::MAX),
            Event::Crash(steps) => self.live(*steps),
            Event::Kill(number) => {
                let name = self.nodes.keys().nth(number % self.nodes.len().max(1)).cloned();
                name.iter().for_each(|name| self.stop(name));
            }
            Event::Template { set, breaks } => {
                let number = set % self.sets.len();
                self.sets[number].template += 1;
                let template = self.sets[number].template;
                let unlucky = breaks.and_then(|breaks| self.nodes.keys().nth(breaks % self.nodes.len().max(1)).cloned());
                // The next template helps it.
                if let Some(node) = unlucky.and_then(|name| self.nodes.get_mut(&name)) {
                    node.broken = Some(template);
                }
            }
            Event::Size { set, more } => {
                let number = set % self.sets.len();
                self.sets[number].wanted = 1 + more;
            }
        }
    }

    /// The operator looks, and the rest of the world goes on.
    fn live(&mut self, steps: usize) {
        let plan = plan(&self.state());
        self.carry_out(&plan, steps);
        self.run_elasticsearch();
        self.run_kubernetes();
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, ..ProptestConfig::default() })]

    #[test]
    fn no_plan_takes_away_what_is_needed_and_in_the_end_all_is_as_it_is_to_be(mut world in worlds(), events in events()) {
        for event in &events {
            world.happen(event);
        }

        // Whoever was broken is not any more.
        world.nodes.values_mut().for_each(|node| node.broken = None);
        for number in 0..world.sets.len() {
            world.sets[number].template += 1;
        }
        let mut rounds = 0;
        while !world.is_settled() {
            rounds += 1;
            prop_assert!(rounds < 400, "does not settle: {:#?} {:#?}", world, plan(&world.state()));
            world.live(usize::MAX);
        }
        for simulated in world.shards.values() {
            prop_assert!(!world.there(simulated).is_empty(), "data was lost: {world:#?}");
        }
    }
}
