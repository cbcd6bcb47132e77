use std::collections::BTreeMap;

use super::*;
use crate::siem::testing::now;

/// Three nodes as they are when nothing is to be done.
struct World {
    members: Vec<Member>,
    nodes: Vec<String>,
    answers: Option<Answers>,
    worker: Account,
    admin: Account,
    revision: &'static str,
    begins: bool,
}

fn world(nodes: u16) -> World {
    let names: Vec<String> = (0..nodes).map(|ordinal| format!("rabbit@soc-broker-{ordinal}")).collect();
    let member = |ordinal| Member {
        name: format!("soc-broker-{ordinal}"),
        ordinal,
        uid: format!("uid-{ordinal}"),
        address: None,
        phase: Phase::Ready,
        outdated: false,
    };
    let account = |name: &str| Account {
        name: name.to_owned(),
        password: "secret".to_owned(),
        revision: String::new(),
        made_at: now() - SignedDuration::from_hours(1),
    };
    World {
        members: (0..nodes).map(member).collect(),
        answers: Some(Answers {
            nodes: names.iter().map(|name| (name.clone(), true)).collect(),
            critical: (0..nodes).map(|ordinal| (format!("soc-broker-{ordinal}"), false)).collect(),
            users: ["redoubt-0000000a".to_owned(), "redoubt-admin-0000000b".to_owned()].into(),
            ..Answers::default()
        }),
        nodes: names,
        worker: account("redoubt-0000000a"),
        admin: account("redoubt-admin-0000000b"),
        revision: "",
        begins: false,
    }
}

impl World {
    fn plan(&self) -> Plan {
        plan(State {
            set: "soc-broker",
            members: &self.members,
            nodes: &self.nodes,
            answers: self.answers.as_ref(),
            begins: self.begins,
            accounts: Some((&self.worker, &self.admin)),
            revision: self.revision,
            now: now(),
        })
    }

    fn answers(&mut self) -> &mut Answers {
        self.answers.as_mut().unwrap()
    }

    fn outdate(mut self) -> Self {
        self.members.iter_mut().for_each(|member| member.outdated = true);
        self
    }
}

/// Which pod is replaced, or which predicate holds it.
fn outcome(plan: &Plan) -> String {
    let restarts: Vec<&str> =
        plan.steps.iter().filter_map(|step| if let Step::Restart { pod, .. } = step { Some(pod.as_str()) } else { None }).collect();
    let held: Vec<&str> = plan.operations.iter().map(|operation| operation.waits_for.as_str()).filter(|held| !held.is_empty()).collect();
    [restarts, held].concat().join(" ")
}

#[test]
fn at_rest_there_is_nothing_to_do() {
    assert_eq!(world(3).plan(), Plan::default());
}

#[test]
fn roles_begin_when_every_node_is_there_to_take_a_replica() {
    type Change = fn(&mut World);
    let cases: [(&str, u16, Change, bool); 5] = [
        ("none answers", 3, |world| world.answers = None, true),
        (
            "one is not in the cluster yet",
            3,
            |world| {
                world.answers().nodes.remove("rabbit@soc-broker-1");
            },
            true,
        ),
        ("all are there", 3, |_| {}, false),
        ("a single one has nobody to wait for", 1, |world| world.answers = None, false),
        (
            "the roles have begun, or the nodes had their time",
            3,
            |world| {
                world.answers = None;
                world.begins = false;
            },
            false,
        ),
    ];

    for (name, nodes, change, waits) in cases {
        let mut world = world(nodes);
        world.begins = true;
        change(&mut world);

        let plan = world.plan();

        assert_eq!(plan.roles_wait, waits, "{name}");
        assert_eq!(plan.operations.iter().any(|operation| operation.name == "Form"), waits, "{name}");
    }
}

#[test]
fn a_pod_is_replaced_when_every_predicate_lets_it() {
    type Change = fn(&mut World);
    let cases: [(&str, u16, Change, &str); 10] = [
        ("all is well", 3, |_| {}, "soc-broker-2"),
        ("the last is new already", 3, |world| world.members[2].outdated = false, "soc-broker-1"),
        ("one starts", 3, |world| world.members[0].phase = Phase::Starting, "PodsReady"),
        ("one stops", 3, |world| world.members[2].phase = Phase::Stopping, "PodsReady"),
        (
            "one is not there yet",
            3,
            |world| {
                world.members.remove(0);
            },
            "PodsReady",
        ),
        ("none answers", 3, |world| world.answers = None, "BrokerAnswers"),
        (
            "a node does not run",
            3,
            |world| {
                world.answers().nodes.insert("rabbit@soc-broker-0".to_owned(), false);
            },
            "NodesRunning",
        ),
        (
            "a node is not in the cluster",
            3,
            |world| {
                world.answers().nodes.remove("rabbit@soc-broker-0");
            },
            "NodesRunning",
        ),
        (
            "a queue would lose its majority",
            3,
            |world| {
                world.answers().critical.insert("soc-broker-2".to_owned(), true);
            },
            "QueuesKeepTheirMajority",
        ),
        (
            "of a single node nothing is asked",
            1,
            |world| {
                world.answers().critical.insert("soc-broker-0".to_owned(), true);
            },
            "soc-broker-0",
        ),
    ];

    for (name, nodes, change, expected) in cases {
        let mut world = world(nodes).outdate();
        change(&mut world);

        assert_eq!(outcome(&world.plan()), expected, "{name}");
    }
}

#[test]
fn a_node_that_did_not_say_whether_it_is_critical_is_not_replaced() {
    let mut world = world(3).outdate();
    world.answers().critical.remove("soc-broker-2");

    assert_eq!(outcome(&world.plan()), "QueuesKeepTheirMajority");
}

#[test]
fn a_stuck_pod_of_an_older_template_goes_first_whatever_holds_the_others() {
    let mut world = world(3).outdate();
    world.members[1].phase = Phase::Stuck;
    world.answers = None;

    let plan = world.plan();

    assert_eq!(plan.steps, [Step::Restart { pod: "soc-broker-1".to_owned(), uid: "uid-1".to_owned() }]);
}

#[test]
fn a_stuck_pod_of_the_newest_template_holds_the_others() {
    let mut world = world(3).outdate();
    (world.members[2].phase, world.members[2].outdated) = (Phase::Stuck, false);

    assert_eq!(outcome(&world.plan()), "PodsReady");
}

#[test]
fn queues_that_are_on_too_few_nodes_get_more_one_after_another() {
    let mut world = world(3);
    let queue = |name: &str, members: &[&str]| Queue {
        vhost: "/".to_owned(),
        name: name.to_owned(),
        members: members.iter().map(|member| format!("rabbit@soc-broker-{member}")).collect(),
    };
    world.answers().queues = vec![queue("full", &["0", "1", "2"]), queue("narrow", &["0"]), queue("narrower", &["0", "1"])];

    let plan = world.plan();

    assert_eq!(plan.steps, [Step::AddReplica { queue: queue("narrow", &["0"]), node: "rabbit@soc-broker-2".to_owned() }]);
    world.answers().nodes.insert("rabbit@soc-broker-1".to_owned(), false);
    assert_eq!(world.plan(), Plan::default());
}

#[test]
fn another_revision_makes_new_users_as_soon_as_a_node_answers() {
    let mut world = world(1);
    world.revision = "2026-12";

    assert_eq!(world.plan().steps, [Step::RenewAccounts]);
    world.answers = None;
    assert_eq!((world.plan().steps, outcome(&world.plan())), (Vec::new(), "BrokerAnswers".to_owned()));
}

#[test]
fn former_users_go_when_the_new_ones_have_arrived_and_nobody_is_connected() {
    let former = "redoubt-00000001";
    let cases = [
        (10, vec!["c1"], vec![], "ClientsMoved"),
        (90, vec!["c1"], vec![Step::Close(vec!["c1".to_owned()])], ""),
        (90, vec![], vec![Step::RemoveUsers(vec![former.to_owned()])], ""),
    ];

    for (seconds, connections, steps, held) in cases {
        let mut world = world(1);
        world.worker.made_at = now() - SignedDuration::from_secs(seconds);
        world.answers().users.insert(former.to_owned());
        let connections = connections.into_iter().map(str::to_owned).collect();
        world.answers().connections =
            BTreeMap::from([(former.to_owned(), connections), ("redoubt-0000000a".to_owned(), vec!["c2".to_owned()])]);

        let plan = world.plan();

        assert_eq!((&plan.steps, &*outcome(&plan)), (&steps, held), "{seconds} s");
    }
}

#[test]
fn a_user_that_somebody_has_taken_away_is_made_again() {
    let mut world = world(1);
    world.answers().users.remove("redoubt-0000000a");

    assert_eq!(world.plan().steps, [Step::RestoreAccounts]);
}

#[test]
fn users_of_others_stay() {
    let mut world = world(1);
    world.answers().users.extend(["guest", "redoubt-grafana", "redoubt-admin-xyz", "monitoring"].map(str::to_owned));

    assert_eq!(world.plan(), Plan::default());
}
