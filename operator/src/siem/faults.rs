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
    world::World,
};
use crate::testing::fault::Fault;

/// Lives through a story, and through each of its looks with every fault at every call.
async fn live_through(story: Vec<Part>) {
    let mut world = World::new();
    for part in story {
        (part.happens)(&mut world.api.state());
        let looks = world.come_to_rest(true).await;
        (part.comes_to)(&world);
        let expected = world.seen();
        check_secrets(&world, &part, "undisturbed");

        let started = std::time::Instant::now();
        let mut tried = BTreeSet::new();
        let (mut all, mut different) = (0, 0);
        for (number, (before, calls)) in looks.iter().enumerate() {
            for call in 0..*calls {
                for fault in Fault::ALL {
                    let mut world = before.fork();
                    let at = world.api.state().faults.calls + call;
                    world.api.state().faults.at = Some((at, fault));
                    world.look().await;
                    all += 1;
                    if tried.insert((number, world.changed_since(before))) {
                        different += 1;
                        let when = format!("{}: {fault:?} at call {call} of look {number}", part.name);
                        world.come_to_rest(false).await;
                        let otherwise = differences(&world.seen(), &expected);
                        assert!(otherwise.is_empty(), "{when}:\n{}", otherwise.join("\n"));
                        check_secrets(&world, &part, &when);
                    }
                }
            }
        }
        eprintln!("{}: {} looks, {all} faults, {different} outcomes, {:?}", part.name, looks.len(), started.elapsed());
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
