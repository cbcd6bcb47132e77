use super::*;
use crate::siem::store::state::{Copy, CopyState};

/// Three nodes that are all, with one index that is on the first two.
fn state() -> State {
    let member = |ordinal| Member {
        name: format!("soc-store-nodes-{ordinal}"),
        ordinal,
        uid: format!("uid-{ordinal}"),
        address: None,
        phase: Phase::Ready,
        outdated: false,
    };
    let copy = |primary, ordinal| Copy {
        shard: ("events".to_owned(), 0),
        primary,
        state: CopyState::Started,
        node: Some(format!("soc-store-nodes-{ordinal}")),
        to: None,
    };
    State {
        sets: vec![Set {
            name: "nodes".to_owned(),
            stateful_set: "soc-store-nodes".to_owned(),
            master: true,
            data: true,
            wanted: 3,
            replicas: Some(3),
            members: (0..3).map(member).collect(),
        }],
        cluster: Some(Cluster {
            uuid: "uuid".to_owned(),
            nodes: (0..3).map(|ordinal| (format!("soc-store-nodes-{ordinal}"), true)).collect(),
            master: Some("soc-store-nodes-2".to_owned()),
            copies: vec![copy(true, 0), copy(false, 1)],
            ..Cluster::default()
        }),
    }
}

fn cluster(state: &mut State) -> &mut Cluster {
    state.cluster.as_mut().unwrap()
}

/// Which pod is replaced, or which predicate holds it.
fn outcome(plan: &Plan) -> String {
    let restarts = plan.steps.iter().filter_map(|step| if let Step::Restart { pod, .. } = step { Some(pod.as_str()) } else { None });
    let held = plan.operations.iter().map(|operation| operation.waits_for.as_str()).filter(|held| !held.is_empty());
    restarts.chain(held).collect::<Vec<_>>().join(" ")
}

fn node(ordinal: u16) -> String {
    format!("soc-store-nodes-{ordinal}")
}

#[test]
fn at_rest_there_is_nothing_to_do() {
    let plan = plan(&state());

    assert_eq!((plan.steps, plan.operations, plan.sizes), (vec![], vec![], [("nodes".to_owned(), 3)].into()));
}

#[test]
fn a_pod_is_replaced_when_every_predicate_lets_it() {
    type Change = fn(&mut State);
    let cases: [(&str, Change, &str); 14] = [
        ("all is well, and the elected master is the last", |_| {}, "soc-store-nodes-1"),
        ("only the elected master is left", |s| s.sets[0].members[..2].iter_mut().for_each(|m| m.outdated = false), "soc-store-nodes-2"),
        ("none answers", |s| s.cluster = None, "ClusterAnswers"),
        ("no master is elected", |s| cluster(s).master = None, "ClusterAnswers"),
        ("one starts", |s| s.sets[0].members[0].phase = Phase::Starting, "NodesJoined"),
        (
            "one is ready and not in the cluster",
            |s| {
                cluster(s).nodes.remove(&node(0));
            },
            "NodesJoined",
        ),
        (
            "one is stuck with the newest template",
            |s| {
                (s.sets[0].members[0].phase, s.sets[0].members[0].outdated) = (Phase::Stuck, false);
            },
            "NodesJoined",
        ),
        (
            "data moves away from a node",
            |s| {
                cluster(s).leaving.insert("other-0".to_owned());
            },
            "NothingLeaves",
        ),
        ("a copy is being filled", |s| cluster(s).copies[1].state = CopyState::Initializing, "ShardsStarted"),
        (
            "a copy is missing that could be there",
            |s| {
                (cluster(s).copies[1].state, cluster(s).copies[1].node) = (CopyState::Unassigned, None);
            },
            "ShardsStarted",
        ),
        (
            "a primary is missing",
            |s| {
                (cluster(s).copies[0].state, cluster(s).copies[0].node) = (CopyState::Unassigned, None);
            },
            "ShardsStarted",
        ),
        (
            "a shard moves to the node",
            |s| {
                (cluster(s).copies[0].state, cluster(s).copies[0].to) = (CopyState::Relocating, Some(node(1)));
            },
            "ShardsElsewhere",
        ),
        (
            "a shard moves between others",
            |s| {
                cluster(s).copies[1].node = Some(node(2));
                (cluster(s).copies[0].state, cluster(s).copies[0].to) = (CopyState::Relocating, Some("other-0".to_owned()));
            },
            "soc-store-nodes-1",
        ),
        (
            "a shard of a single copy is on the node",
            |s| {
                cluster(s).copies.remove(0);
            },
            "soc-store-nodes-1",
        ),
    ];

    for (name, change, expected) in cases {
        let mut state = state();
        state.sets[0].members.iter_mut().for_each(|member| member.outdated = true);
        change(&mut state);
        // A step of the plan clears what it does not know.
        let plan = if name == "data moves away from a node" {
            let mut plan = Plan::default();
            plan.roll(&state);
            plan
        } else {
            plan(&state)
        };

        assert_eq!(outcome(&plan), expected, "{name}");
    }
}

#[test]
fn replicas_are_held_before_a_restart_and_released_after_it() {
    let mut state = state();
    state.sets[0].members[1].outdated = true;

    let restart = Step::Restart { pod: node(1), uid: "uid-1".to_owned() };
    assert_eq!(plan(&state).steps, [Step::HoldAllocation, Step::Flush, restart]);

    cluster(&mut state).allocation_held = true;
    state.sets[0].members[1].phase = Phase::Stopping;
    assert_eq!((plan(&state).steps, outcome(&plan(&state))), (vec![], "NodesJoined".to_owned()));

    state.sets[0].members.remove(1);
    assert_eq!((plan(&state).steps, outcome(&plan(&state))), (vec![], "NodesJoined".to_owned()));

    state = self::state();
    cluster(&mut state).allocation_held = true;
    assert_eq!(plan(&state).steps, [Step::ReleaseAllocation]);
}

#[test]
fn replicas_are_not_held_for_a_node_that_does_not_come_back() {
    let mut state = state();
    cluster(&mut state).allocation_held = true;
    cluster(&mut state).nodes.remove(&node(1));
    state.sets[0].members[1].phase = Phase::Stuck;

    assert_eq!(plan(&state).steps, [Step::ReleaseAllocation]);
}

#[test]
fn a_stuck_pod_of_an_older_template_goes_first_whatever_holds_the_others() {
    let mut state = state();
    state.cluster = None;
    (state.sets[0].members[0].phase, state.sets[0].members[0].outdated) = (Phase::Stuck, true);

    assert_eq!(plan(&state).steps, [Step::Restart { pod: node(0), uid: "uid-0".to_owned() }]);
}

#[test]
fn a_single_node_is_restarted_without_ado() {
    let mut state = state();
    (state.sets[0].wanted, state.sets[0].replicas) = (1, Some(1));
    state.sets[0].members.truncate(1);
    state.sets[0].members[0].outdated = true;
    cluster(&mut state).nodes = [(node(0), true)].into();
    cluster(&mut state).master = Some(node(0));
    // The replica has no place to be.
    (cluster(&mut state).copies[1].state, cluster(&mut state).copies[1].node) = (CopyState::Unassigned, None);

    assert_eq!(plan(&state).steps, [Step::Flush, Step::Restart { pod: node(0), uid: "uid-0".to_owned() }]);
}

#[test]
fn nodes_that_only_hold_data_are_restarted_before_those_that_may_be_master() {
    let mut state = state();
    let mut data = state.sets[0].clone();
    (data.master, data.name, data.stateful_set) = (false, "data".to_owned(), "soc-store-data".to_owned());
    for member in &mut data.members {
        member.name = format!("soc-store-data-{}", member.ordinal);
        cluster(&mut state).nodes.insert(member.name.clone(), true);
        member.outdated = true;
    }
    state.sets[0].members.iter_mut().for_each(|member| member.outdated = true);
    state.sets.push(data);

    assert_eq!(outcome(&plan(&state)), "soc-store-data-2");
}

#[test]
fn a_set_becomes_smaller_when_its_last_node_holds_nothing_and_has_no_vote() {
    let mut state = state();
    state.sets[0].wanted = 2;
    let leaving: BTreeSet<String> = [node(2)].into();
    cluster(&mut state).copies[1].node = Some(node(2));

    let first = plan(&state);
    assert_eq!((first.steps, first.sizes["nodes"]), (vec![Step::MoveAwayFrom(leaving.clone())], 3));

    cluster(&mut state).leaving = leaving.clone();
    let waits = plan(&state);
    assert_eq!((&waits.steps, waits.sizes["nodes"], &*outcome(&waits)), (&vec![], 3, "ShardsMoved"));

    cluster(&mut state).copies[1].node = Some(node(1));
    let votes = plan(&state);
    assert_eq!((votes.steps, votes.sizes["nodes"]), (vec![Step::TakeVote(node(2))], 3));

    cluster(&mut state).without_vote = leaving.clone();
    let goes = plan(&state);
    assert_eq!((goes.steps, goes.sizes["nodes"]), (vec![], 2));

    // It is stopping, and still there.
    state.sets[0].replicas = Some(2);
    state.sets[0].members[2].phase = Phase::Stopping;
    assert_eq!(plan(&state).steps, []);

    state.sets[0].members.truncate(2);
    cluster(&mut state).nodes.remove(&node(2));
    assert_eq!(plan(&state).steps, [Step::MoveAwayFrom(BTreeSet::new()), Step::GiveVotesBack]);
}

#[test]
fn a_node_that_is_away_goes_when_nothing_is_missing_without_it() {
    let mut state = state();
    (state.sets[0].wanted, state.sets[0].master) = (2, false);
    state.sets[0].members[2].phase = Phase::Starting;
    cluster(&mut state).leaving = [node(2)].into();
    cluster(&mut state).nodes.remove(&node(2));
    let copies = cluster(&mut state).copies.clone();

    (cluster(&mut state).copies[1].state, cluster(&mut state).copies[1].node) = (CopyState::Unassigned, None);
    assert_eq!((plan(&state).sizes["nodes"], &*outcome(&plan(&state))), (3, "ShardsMoved"));

    cluster(&mut state).copies = copies;
    assert_eq!(plan(&state).sizes["nodes"], 2);
}

#[test]
fn a_set_that_is_to_go_is_emptied_like_any_other() {
    let mut state = state();
    let mut old = state.sets[0].clone();
    (old.master, old.wanted, old.name, old.stateful_set) = (false, 0, "old".to_owned(), "soc-store-old".to_owned());
    for member in &mut old.members {
        member.name = format!("soc-store-old-{}", member.ordinal);
        cluster(&mut state).nodes.insert(member.name.clone(), true);
    }
    let names: BTreeSet<String> = old.members.iter().map(|member| member.name.clone()).collect();
    state.sets.push(old);

    assert_eq!(plan(&state).steps, [Step::MoveAwayFrom(names.clone())]);

    cluster(&mut state).leaving = names;
    assert_eq!(plan(&state).sizes["old"], 0);
}

#[test]
fn a_node_that_is_wanted_again_gets_its_data_and_its_vote_back() {
    let mut state = state();
    cluster(&mut state).leaving = [node(2)].into();
    cluster(&mut state).without_vote = [node(2)].into();

    assert_eq!(plan(&state).steps, [Step::MoveAwayFrom(BTreeSet::new()), Step::GiveVotesBack]);
}

#[test]
fn a_set_grows_at_once() {
    let mut state = state();
    state.sets[0].wanted = 5;

    assert_eq!(plan(&state).sizes["nodes"], 5);
}
