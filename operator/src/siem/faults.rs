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
    story::{Part, large, small},
    world::{World, is_write},
};
use crate::testing::fault::Fault;

/// Which faults are tried at a call that changes something. At one that only reads, all faults are one to the operator: it reads on
/// nothing, and changes nothing. There a single one is tried, another at each call.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Faults {
    All,
    /// One, another at each call.
    One,
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
                let every = part.faults == Faults::All && is_write(what);
                let faults = if every { &Fault::ALL[..] } else { &Fault::ALL[call % 7..=call % 7] };
                for fault in faults {
                    let mut world = before.fork();
                    let at = world.api.state().faults.calls + call;
                    world.api.state().faults.at = Some((at, *fault));
                    let looked = world.look().await;
                    // What comes of it is known where the same call has led to the same already.
                    let written = looked.calls.iter().any(|call| is_write(call));
                    if tried.insert((written.then_some(call), world.fingerprint())) {
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

/// How many calls of the API server, and how many of servers in pods.
fn count(calls: &[String]) -> (usize, usize) {
    let (of_servers, of_api): (Vec<_>, Vec<_>) = calls.iter().partition(|call| call.contains("://"));
    (of_api.len(), of_servers.len())
}

/// `docs/operator.md` has these numbers.
#[tokio::test]
async fn a_reconcile_makes_few_calls_and_writes_nothing_at_rest() {
    let cases = [("one node each", small(), (68, 0), (16, 10)), ("three nodes each", large(), (68, 0), (16, 12))];

    for (name, story, first, at_rest) in cases {
        let mut world = World::new();
        (story[0].happens)(&mut world.api.state());

        let looks = world.come_to_rest().await;

        assert_eq!(count(&looks[0].1), first, "{name}, the first");
        let (_, last) = looks.last().unwrap();
        assert_eq!(count(last), at_rest, "{name}, at rest: {last:?}");
        assert!(!last.iter().any(|call| is_write(call)), "{name}: {last:?}");
    }
}
