//! Whatever happens to any one call, a Siem ends up as it would have without: every call of a story, to the API server or to a server in a
//! pod, is refused, lost, carried out without an answer, or the last one that the operator makes before it is started anew.
//!
//! A look that goes wrong is taken from the state that the undisturbed story was in before it; what comes of it must be what the part of
//! the story came to.

mod kubernetes;
mod servers;
mod story;
mod world;

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use self::{
    story::{Part, large, meddled_with, small},
    world::{World, is_write},
};
use crate::testing::fault::Fault;

/// Which faults are tried at the calls of a part.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Faults {
    /// All that can make a difference: at a call that only reads, one, another at each call, for nothing is done after any of them; at one
    /// that deletes, all; at one that writes, all, and of the three refusals one, another at each call.
    All,
    /// One, another at each call.
    One,
    /// None: they have been tried elsewhere.
    None,
}

impl Faults {
    fn at(self, call: usize, what: &str) -> Vec<Fault> {
        let all = Fault::ALL.into_iter().enumerate();
        let one = |of: usize, number: usize| number == call % of;
        match self {
            Self::None => Vec::new(),
            Self::All if what.starts_with("DELETE ") => Fault::ALL.into(),
            Self::All if is_write(what) => {
                all.filter(|(number, fault)| !matches!(fault, Fault::Refused(_)) || one(3, *number)).map(|(_, fault)| fault).collect()
            }
            Self::All | Self::One => all.filter(|(number, _)| one(Fault::ALL.len(), *number)).map(|(_, fault)| fault).collect(),
        }
    }
}

/// Lives through a story, and through each of its looks with faults at every call.
async fn live_through(story: Vec<Part>) {
    let mut world = World::new();
    for part in story {
        world.api.state().overwritten.clear();
        (part.happens)(&mut world.api.state());
        let looks = world.come_to_rest().await;
        (part.comes_to)(&world);
        check_secrets(&world, &part, "undisturbed");
        let mut ways: BTreeSet<String> = looks.iter().map(|(before, _)| before.fingerprint()).collect();
        let expected = world.seen();
        ways.insert(world.fingerprint());

        for (number, (before, calls)) in looks.iter().enumerate() {
            let mut tried = BTreeSet::new();
            for (call, what) in calls.iter().enumerate() {
                for fault in part.faults.at(call, what) {
                    let mut world = before.fork();
                    let at = world.api.state().faults.calls + call;
                    world.api.state().faults.at = Some((at, fault));
                    let looked = world.look().await;
                    // What comes of it is known where the same call has led to the same already, or where nothing was written.
                    let written = looked.calls.iter().any(|call| is_write(call));
                    if tried.insert(written.then(|| (call, world.fingerprint()))) {
                        let when = format!("{}: {fault:?} at call {call} of look {number}, {what}", part.name);
                        if let Err(error) = world.find_the_way_back(&mut ways).await {
                            panic!("{when}: {error}\n{}", differences(&world.seen(), &expected).join("\n"));
                        }
                        check_secrets(&world, &part, &when);
                    }
                }
            }
        }
    }
}

/// What was made once is never written over, but for what is to be renewed.
fn check_secrets(world: &World, part: &Part, when: &str) {
    let overwritten: Vec<String> =
        world.api.state().overwritten.iter().filter(|name| !part.renews.contains(&name.as_str())).cloned().collect();
    assert!(overwritten.is_empty(), "{when}: {overwritten:?}");
}

fn differences(seen: &BTreeMap<String, Value>, expected: &BTreeMap<String, Value>) -> Vec<String> {
    let names: BTreeSet<&String> = seen.keys().chain(expected.keys()).collect();
    let mut all = Vec::new();
    for name in names {
        compare(name, seen.get(name).unwrap_or(&Value::Null), expected.get(name).unwrap_or(&Value::Null), &mut all);
    }
    all
}

fn compare(path: &str, seen: &Value, expected: &Value, differences: &mut Vec<String>) {
    match (seen, expected) {
        (Value::Object(seen), Value::Object(expected)) => {
            for key in seen.keys().chain(expected.keys().filter(|key| !seen.contains_key(*key))) {
                let of = |fields: &serde_json::Map<String, Value>| fields.get(key).cloned().unwrap_or_default();
                compare(&format!("{path}/{key}"), &of(seen), &of(expected), differences);
            }
        }
        (seen, expected) if seen != expected => differences.push(format!("{path}: {seen}, not {expected}")),
        _ => {}
    }
}

#[tokio::test]
async fn a_siem_of_one_node_each() {
    live_through(small()).await;
}

#[tokio::test]
async fn a_siem_of_three_nodes_each() {
    live_through(large()).await;
}

#[tokio::test]
async fn a_siem_that_somebody_meddles_with() {
    live_through(meddled_with()).await;
}

/// How many calls of the API server, and how many of servers in pods.
fn count(calls: &[String]) -> (usize, usize) {
    let (of_servers, of_api): (Vec<_>, Vec<_>) = calls.iter().partition(|call| call.contains("://"));
    (of_api.len(), of_servers.len())
}

/// `docs/operator.md` has these numbers.
#[tokio::test]
async fn a_reconcile_makes_few_calls_and_writes_nothing_at_rest() {
    let cases = [("one node each", small(), (75, 0), (21, 10)), ("three nodes each", large(), (71, 0), (21, 12))];

    for (name, story, first, at_rest) in cases {
        let mut world = World::new();
        (story[0].happens)(&mut world.api.state());

        let looks = world.come_to_rest().await;

        assert_eq!(count(&looks[0].1), first, "{name}, the first: {:?}", looks[0].1);
        let (_, last) = looks.last().unwrap();
        assert_eq!(count(last), at_rest, "{name}, at rest: {last:?}");
        assert!(!last.iter().any(|call| is_write(call)), "{name}: {last:?}");
    }
}
