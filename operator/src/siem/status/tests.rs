use std::collections::BTreeMap;

use jiff::ToSpan as _;
use serde_json::{Value, json};

use super::*;
use crate::siem::{
    dereference::Observed,
    testing::{as_applied, build, now, siem_of, valid},
};

/// A Siem whose objects all stand, and are as the test makes them.
struct World {
    siem: Siem,
    valid: Valid,
    built: Built,
    applied: Applied,
    pods: Vec<Pod>,
    operations: Vec<Operation>,
    complaints: Vec<String>,
}

fn world() -> World {
    let siem = siem_of(&json!({}));
    let (built, _) = build(&siem, &Observed::default());
    let mut children = as_applied(&built.children);
    for (id, body) in &mut children.0 {
        let replicas = body["spec"]["replicas"].clone();
        let status = |keys: &[&str]| keys.iter().map(|key| ((*key).to_owned(), replicas.clone())).collect::<BTreeMap<_, _>>();
        if id.kind == "Deployment" {
            body["status"] = json!(status(&["replicas", "updatedReplicas", "availableReplicas"]));
        }
    }
    World {
        valid: valid(&siem, &Observed::default()).unwrap(),
        applied: Applied { aside: Vec::new(), children, failures: Vec::new() },
        built,
        siem,
        pods: ["soc-broker-0", "soc-store-nodes-0"]
            .map(|name| pod(name, &json!({"conditions": [{"type": "Ready", "status": "True"}]})))
            .into(),
        operations: Vec::new(),
        complaints: Vec::new(),
    }
}

fn pod(name: &str, status: &Value) -> Pod {
    let metadata = json!({"name": name, "uid": "u", "labels": {"controller-revision-hash": "x"}});
    serde_json::from_value(json!({"metadata": metadata, "status": status})).unwrap()
}

impl World {
    fn status(&self) -> SiemStatus {
        let known = Known {
            valid: &self.valid,
            built: &self.built,
            applied: &self.applied,
            pods: &self.pods,
            operations: self.operations.clone(),
            complaints: self.complaints.clone(),
        };
        of_applied(&self.siem, known, now())
    }

    /// The conditions that are true, and the message of the one that is asked for.
    fn says(&self, type_: &str) -> (Vec<String>, String) {
        let status = self.status();
        let holds = status.conditions.iter().filter(|condition| condition.status == "True").map(|condition| condition.type_.clone());
        let asked = status.conditions.iter().find(|condition| condition.type_ == type_).unwrap();
        (holds.collect(), asked.message.clone())
    }

    fn set(&mut self, kind: &str, name: &str, path: &str, value: Value) {
        let body = self.applied.children.0.iter_mut().find(|(id, _)| id.kind == kind && id.name == name).unwrap().1;
        *body.pointer_mut(path).unwrap() = value;
    }
}

#[test]
fn a_siem_of_which_all_runs_is_ready_and_nothing_else() {
    let status = world().status();

    let conditions: Vec<_> = status.conditions.iter().map(|condition| (condition.type_.as_str(), condition.status.as_str())).collect();
    assert_eq!(conditions, [("Ready", "True"), ("Progressing", "False"), ("Degraded", "False"), ("RestartPending", "False")]);
    assert_eq!((status.observed_generation, status.template_revision), (Some(1), Some(0)));
}

#[test]
fn conditions_tell_what_is_missing_and_what_moves() {
    type Change = fn(&mut World);
    let cases: [(&str, Change, &[&str], &str, &str); 9] = [
        (
            "a role has no pod",
            |w| w.set("Deployment", "soc-ingest", "/status/availableReplicas", json!(0)),
            &["Progressing"],
            "Ready",
            "soc-ingest: no pod is ready",
        ),
        (
            "a role has a pod less",
            |w| w.set("Deployment", "soc-ingest", "/status/availableReplicas", json!(1)),
            &["Ready", "Progressing"],
            "Progressing",
            "soc-ingest: 2 of 2 pods are new, 1 are ready",
        ),
        (
            "the broker is away",
            |w| w.pods.retain(|pod| pod.metadata.name.as_deref() != Some("soc-broker-0")),
            &["Progressing"],
            "Ready",
            "soc-broker: 0 of 1 nodes are ready, more than half are needed",
        ),
        (
            "no data can be reached",
            |w| w.pods.retain(|pod| pod.metadata.name.as_deref() != Some("soc-store-nodes-0")),
            &["Progressing"],
            "Ready",
            "soc-store: 0 of 1 nodes that may be master are ready, more than half are needed",
        ),
        ("the store complains", |w| w.complaints.push("2 shards do not serve".to_owned()), &[], "Ready", "2 shards do not serve"),
        (
            "something could not be applied",
            |w| w.applied.failures.push("Service x: no".to_owned()),
            &["Ready", "Degraded"],
            "Degraded",
            "Service x: no",
        ),
        (
            "a release waits",
            |w| w.built.waiting.push("soc-broker".to_owned()),
            &["Ready", "RestartPending"],
            "RestartPending",
            "this release of the operator makes the pods of soc-broker differently; to have them restarted, set spec.templateRevision to 1 or more",
        ),
        (
            "a pod fails",
            |w| {
                let state = json!({"waiting": {"reason": "CrashLoopBackOff"}});
                let process = json!({"name": "process", "image": "", "imageID": "", "ready": false, "restartCount": 3, "state": state});
                w.pods.push(pod("soc-process-x", &json!({"containerStatuses": [process]})));
            },
            &["Ready", "Degraded"],
            "Degraded",
            "soc-process-x: CrashLoopBackOff",
        ),
        (
            "an operation is held",
            |w| {
                w.operations.push(Operation {
                    name: "Roll".to_owned(),
                    target: "soc-broker-1".to_owned(),
                    waits_for: "NodesRunning".to_owned(),
                    message: String::new(),
                });
            },
            &["Ready", "Progressing"],
            "Progressing",
            "Roll of soc-broker-1, waits for NodesRunning",
        ),
    ];

    for (name, change, holds, asked, message) in cases {
        let mut world = world();
        change(&mut world);

        let (found, told) = world.says(asked);
        assert_eq!((found.iter().map(String::as_str).collect::<Vec<_>>().as_slice(), told.as_str()), (holds, message), "{name}");
    }
}

#[test]
fn the_time_of_a_condition_is_that_of_its_last_change() {
    let mut world = world();
    world.siem.status = Some(world.status());
    let again = of_applied(
        &world.siem,
        Known {
            valid: &world.valid,
            built: &world.built,
            applied: &world.applied,
            pods: &world.pods,
            operations: Vec::new(),
            complaints: Vec::new(),
        },
        now() + 5.minutes(),
    );

    assert_eq!(Some(&again), world.siem.status.as_ref(), "nothing is new, so nothing is written");

    world.complaints.push("away".to_owned());
    let changed = world.status();
    assert_eq!(changed.conditions.len(), 4);
}

#[test]
fn a_refused_siem_says_why() {
    let siem = siem_of(&json!({}));

    let status = of_refused(&siem, &Refusal::AnotherSiem("first".to_owned()), now());

    let ready = &status.conditions[0];
    assert_eq!((ready.type_.as_str(), ready.status.as_str(), ready.reason.as_str()), ("Ready", "False", "AnotherSiem"));
    assert!(ready.message.starts_with("Siem/first of this namespace was there before"));
}

#[test]
fn a_long_message_is_cut() {
    let mut world = world();
    world.complaints.push("x".repeat(5000));

    assert_eq!(world.says("Ready").1.len(), 1024);
}
