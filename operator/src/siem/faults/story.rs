//! What happens to a Siem, part by part, and what each part comes to.

use serde_json::{Value, json};

use super::{Faults, world::World};
use crate::{siem::testing, testing::api::State};

/// A part of the story.
pub(super) struct Part {
    pub(super) name: &'static str,
    /// What somebody does.
    pub(super) happens: fn(&mut State),
    /// Checks what came of it, when nothing went wrong.
    pub(super) comes_to: fn(&World),
    /// Secrets that are to be written over by it.
    pub(super) renews: &'static [&'static str],
    pub(super) faults: Faults,
}

impl Part {
    fn new(name: &'static str, happens: fn(&mut State), comes_to: fn(&World)) -> Self {
        Self { name, happens, comes_to, renews: &[], faults: Faults::All }
    }
}

/// The sample of the quick start.
pub(super) fn small() -> Vec<Part> {
    vec![
        Part::new(
            "appears",
            |state| make(state, include_str!("../../../../config/samples/quickstart/siem.yaml")),
            |world| {
                is_ready(world);
                assert_eq!(count(world, "statefulsets"), 2);
                assert_eq!(count(world, "deployments"), 4);
                assert_eq!(count(world, "secrets"), 11);
            },
        ),
        Part::new(
            "a setting changes",
            |state| set(state, "/store/managed/nodeSets/0/resources/limits/memory", json!("2Gi")),
            |world| {
                is_ready(world);
                assert_eq!(world.seen()["restarts"], json!({"soc-store-nodes-0": 1}));
            },
        ),
        Part::new(
            "the volumes grow",
            |state| set(state, "/broker/managed/storage/size", json!("9Gi")),
            |world| {
                is_ready(world);
                let claim = world.seen()["persistentvolumeclaims/data-soc-broker-0"].clone();
                assert_eq!(claim["status"]["capacity"]["storage"], "9Gi");
            },
        ),
        Part::new(
            "the broker grows",
            |state| set(state, "/broker/managed/replicas", json!(3)),
            |world| {
                is_ready(world);
                assert_eq!(world.seen()["RabbitMQ"]["queue"].as_array().unwrap().len(), 3);
            },
        ),
        deleted(),
    ]
}

const LARGE: &str = "
apiVersion: redoubt.dev/v1alpha1
kind: Siem
metadata: {name: soc}
spec:
  broker: {managed: {replicas: 3}}
  store: {managed: {nodeSets: [{name: nodes, replicas: 3}]}}
";

/// Servers of three nodes, which come to be more and fewer.
pub(super) fn large() -> Vec<Part> {
    vec![
        // All faults of the same calls are tried with the small one.
        Part { faults: Faults::One, ..Part::new("appears", |state| make(state, LARGE), is_ready) },
        Part::new(
            "settings change",
            |state| {
                set(state, "/broker/managed/config", json!("heartbeat = 20"));
                set(state, "/store/managed/image", json!("another"));
                set(state, "/correlate", json!({"partitions": 9}));
            },
            |world| {
                is_ready(world);
                let pods =
                    ["soc-broker", "soc-store-nodes"].into_iter().flat_map(|set| (0..3).map(move |n| (format!("{set}-{n}"), json!(1))));
                assert_eq!(world.seen()["restarts"], Value::Object(pods.collect()));
            },
        ),
        Part::new(
            "node sets grow",
            |state| {
                let sets = json!([{"name": "nodes", "replicas": 4}, {"name": "more", "replicas": 2, "roles": ["data"]}]);
                set(state, "/store/managed/nodeSets", sets);
            },
            |world| {
                is_ready(world);
                assert_eq!(world.seen()["statefulsets/soc-store-more"]["spec"]["replicas"], 2);
            },
        ),
        Part::new(
            "node sets shrink",
            |state| set(state, "/store/managed/nodeSets", json!([{"name": "nodes", "replicas": 3}])),
            |world| {
                is_ready(world);
                assert_eq!(world.seen().get("statefulsets/soc-store-more"), None);
                assert!(world.seen().contains_key("persistentvolumeclaims/data-soc-store-more-1"));
            },
        ),
    ]
}

/// Servers of three nodes, whose passwords and objects are changed.
pub(super) fn meddled_with() -> Vec<Part> {
    vec![
        Part { faults: Faults::None, ..Part::new("appears", |state| make(state, LARGE), is_ready) },
        Part {
            renews: &["soc-broker-user", "soc-broker-admin", "soc-broker-nodes", "soc-recovery"],
            ..Part::new(
                "passwords rotate",
                |state| set(state, "/broker/managed/credentialsRevision", json!("2")),
                |world| {
                    is_ready(world);
                    let overwritten = world.api.state().overwritten.len();
                    assert_eq!(overwritten, 4);
                },
            )
        },
        Part::new("children are deleted", delete_children, is_ready),
        Part::new("children are edited", edit_children, is_ready),
        deleted(),
    ]
}

fn deleted() -> Part {
    Part::new(
        "is deleted",
        |state| state.delete_as("siems", "soc", "Foreground"),
        |world| {
            let left: Vec<String> = world.seen().into_keys().filter(|name| name.contains('/')).collect();
            assert!(!left.is_empty() && left.iter().all(|name| name.starts_with("persistentvolumeclaims/")), "{left:?}");
        },
    )
}

/// One of each kind.
fn delete_children(state: &mut State) {
    let children = [
        ("serviceaccounts", "soc-worker"),
        ("roles", "soc-worker"),
        ("rolebindings", "soc-worker"),
        ("networkpolicies", "soc-store"),
        ("secrets", "soc-ingest-tls"),
        ("secrets", "soc-broker-admin"),
        ("configmaps", "soc-broker"),
        ("services", "soc-broker-nodes"),
        ("poddisruptionbudgets", "soc-ingest"),
        ("deployments", "soc-process"),
        ("statefulsets", "soc-store-nodes"),
        ("pods", "soc-broker-1"),
    ];
    for (plural, name) in children {
        state.delete_as(plural, name, "Background");
    }
}

/// One of each kind, and what others may add stays.
fn edit_children(state: &mut State) {
    let mut edit = |plural: &str, name: &str, pointer: &str, value: Value| {
        let changed = state.edit(plural, name, |live| *live.pointer_mut(pointer).unwrap() = value);
        assert!(changed, "{plural}/{name} {pointer}");
    };
    edit("deployments", "soc-ingest", "/spec/replicas", json!(7));
    edit("deployments", "soc-respond", "/spec/template/spec/containers/0/image", json!("theirs"));
    edit("roles", "soc-worker", "/rules/0/verbs", json!(["*"]));
    edit("secrets", "soc-ca", "/metadata/labels", json!({}));
    edit("networkpolicies", "soc-store", "/spec/ingress", json!([]));
    edit("configmaps", "soc-broker", "/metadata/ownerReferences", json!([]));
    edit("statefulsets", "soc-store-nodes", "/spec/replicas", json!(4));
    let mut add = |plural: &str, name: &str, pointer: &str, item: Value| {
        state.edit(plural, name, |live| live.pointer_mut(pointer).unwrap().as_array_mut().unwrap().insert(0, item));
    };
    add("deployments", "soc-correlate", "/spec/template/spec/containers/0/env", json!({"name": "THEIRS", "value": "1"}));
    add("services", "soc-ingest", "/spec/ports", json!({"name": "theirs", "port": 9999, "protocol": "TCP"}));
}

fn make(state: &mut State, yaml: &str) {
    let mut siem = serde_json::to_value(testing::siem(yaml)).unwrap();
    siem["metadata"] = json!({"name": "soc", "namespace": "security"});
    state.create("siems", siem);
}

/// Changes a field of the Siem's `spec`.
fn set(state: &mut State, pointer: &str, value: Value) {
    state.edit("siems", "soc", |siem| {
        let (parent, field) = pointer.rsplit_once('/').unwrap();
        siem["spec"].pointer_mut(parent).unwrap()[field] = value;
    });
}

fn count(world: &World, plural: &str) -> usize {
    world.api.state().all(plural).count()
}

/// The Siem's status says that all is well.
fn is_ready(world: &World) {
    let seen = world.seen();
    let conditions = seen["siems/soc"]["status"]["conditions"].clone();
    let said: Vec<(&str, &str)> = conditions
        .as_array()
        .unwrap()
        .iter()
        .map(|condition| (condition["type"].as_str().unwrap(), condition["status"].as_str().unwrap()))
        .collect();
    assert_eq!(said, [("Ready", "True"), ("Progressing", "False"), ("Degraded", "False"), ("RestartPending", "False")], "{conditions}");
    assert_eq!(seen["Elasticsearch"]["settings"], json!({}));
    assert_eq!(seen["Elasticsearch"]["withoutVote"], json!([]));
}
