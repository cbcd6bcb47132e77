//! What Kubernetes does by itself with the objects of a Siem: one step of its controllers at a time, as simple as they can be and still
//! take their time.

use serde_json::{Value, json};

use crate::{siem::digest, testing::api::State};

/// The kinds that belong to others.
const DEPENDENTS: [&str; 11] = [
    "serviceaccounts",
    "roles",
    "rolebindings",
    "networkpolicies",
    "secrets",
    "configmaps",
    "services",
    "poddisruptionbudgets",
    "deployments",
    "statefulsets",
    "pods",
];

/// A step. `may_be_ready` tells of a pod that starts whether what runs in it would say so.
pub(super) fn step(state: &mut State, may_be_ready: impl Fn(&State, &Value) -> bool) {
    move_pods(state, may_be_ready);
    collect_garbage(state);
    grow_volumes(state);
    run_stateful_sets(state);
    run_deployments(state);
}

/// Names of the objects of a kind.
pub(super) fn names(state: &State, plural: &str) -> Vec<String> {
    state.all(plural).map(|body| body["metadata"]["name"].as_str().unwrap().to_owned()).collect()
}

pub(super) fn is_ready(pod: &Value) -> bool {
    pod["metadata"]["deletionTimestamp"].is_null() && pod["status"]["conditions"][0]["status"] == "True"
}

/// Who ends is gone, who starts is ready.
fn move_pods(state: &mut State, may_be_ready: impl Fn(&State, &Value) -> bool) {
    for name in names(state, "pods") {
        let pod = state.get("pods", &name).unwrap().clone();
        if !pod["metadata"]["deletionTimestamp"].is_null() {
            state.remove("pods", &name);
        } else if !is_ready(&pod) && may_be_ready(state, &pod) {
            let now = state.now;
            let ready = json!([{"type": "Ready", "status": "True", "lastTransitionTime": now}]);
            state.edit("pods", &name, |pod| pod["status"]["conditions"] = ready);
        }
    }
}

/// What belongs to nobody who is there goes; who is held by what belongs to it goes after that.
fn collect_garbage(state: &mut State) {
    let owners: Vec<Value> = ["siems", "statefulsets"].iter().flat_map(|plural| state.all(plural).cloned().collect::<Vec<_>>()).collect();
    let finalizer = |uid: &Value| {
        let owner = owners.iter().find(|owner| owner["metadata"]["uid"] == *uid)?;
        Some(owner["metadata"]["finalizers"][0].as_str().unwrap_or_default().to_owned())
    };
    let mut held = Vec::new();
    for (plural, name) in
        DEPENDENTS.iter().flat_map(|plural| names(state, plural).into_iter().map(move |name| (*plural, name))).collect::<Vec<_>>()
    {
        let references = state.get(plural, &name).unwrap()["metadata"]["ownerReferences"].clone();
        let Some(uid) = references.as_array().and_then(|references| references.first()).map(|reference| reference["uid"].clone()) else {
            continue;
        };
        match finalizer(&uid).as_deref() {
            Some("") => {}
            Some("orphan") => {
                state.edit(plural, &name, |live| {
                    live["metadata"].as_object_mut().unwrap().remove("ownerReferences");
                });
            }
            Some(_) => {
                held.push(uid);
                let propagation = if plural == "statefulsets" { "Foreground" } else { "Background" };
                state.delete_as(plural, &name, propagation);
            }
            None => state.delete_as(plural, &name, "Background"),
        }
    }
    for plural in ["siems", "statefulsets"] {
        for name in names(state, plural) {
            let metadata = &state.get(plural, &name).unwrap()["metadata"];
            if !metadata["deletionTimestamp"].is_null() && !held.contains(&metadata["uid"]) {
                state.remove(plural, &name);
            }
        }
    }
}

fn grow_volumes(state: &mut State) {
    for name in names(state, "persistentvolumeclaims") {
        let asked = state.get("persistentvolumeclaims", &name).unwrap()["spec"]["resources"]["requests"]["storage"].clone();
        state.edit("persistentvolumeclaims", &name, |claim| claim["status"]["capacity"]["storage"] = asked);
    }
}

fn run_stateful_sets(state: &mut State) {
    for name in names(state, "statefulsets") {
        let set = state.get("statefulsets", &name).unwrap().clone();
        if !set["metadata"]["deletionTimestamp"].is_null() {
            continue;
        }
        let revision = digest::short(&set["spec"]["template"]);
        let replicas = set["spec"]["replicas"].as_u64().unwrap();
        for pod in names(state, "pods").into_iter().filter(|pod| ordinal(&name, pod).is_some_and(|ordinal| ordinal >= replicas)) {
            state.delete_as("pods", &pod, "Background");
        }
        let owner =
            json!([{"apiVersion": "apps/v1", "kind": "StatefulSet", "name": name, "uid": set["metadata"]["uid"], "controller": true}]);
        for ordinal in 0..replicas {
            let pod = format!("{name}-{ordinal}");
            make_claim(state, &set, &pod);
            if state.get("pods", &pod).is_none() {
                let mut body = json!({
                    "metadata": {"name": pod, "namespace": "security", "labels": set["spec"]["template"]["metadata"]["labels"]},
                    "status": {"podIP": address(&pod), "conditions": [{"type": "Ready", "status": "False", "lastTransitionTime": state.now}]},
                });
                body["metadata"]["labels"]["controller-revision-hash"] = json!(revision);
                body["metadata"]["ownerReferences"] = owner.clone();
                state.create("pods", body);
            } else {
                // One that nobody owns is taken up.
                state.edit("pods", &pod, |live| live["metadata"]["ownerReferences"] = owner.clone());
            }
        }
        let status = json!({"observedGeneration": set["metadata"]["generation"], "replicas": replicas, "updateRevision": revision});
        state.edit("statefulsets", &name, |live| live["status"] = status);
    }
}

fn make_claim(state: &mut State, set: &Value, pod: &str) {
    let template = &set["spec"]["volumeClaimTemplates"][0];
    let name = format!("{}-{pod}", template["metadata"]["name"].as_str().unwrap());
    if state.get("persistentvolumeclaims", &name).is_none() {
        let metadata = json!({"name": name, "namespace": "security", "labels": set["spec"]["selector"]["matchLabels"]});
        state.create("persistentvolumeclaims", json!({"metadata": metadata, "spec": template["spec"]}));
    }
}

/// The number of a set's pod.
fn ordinal(set: &str, pod: &str) -> Option<u64> {
    pod.strip_prefix(set)?.strip_prefix('-')?.parse().ok()
}

/// An address that a pod of this name has each time.
fn address(pod: &str) -> String {
    let byte = |number: usize| u8::from_str_radix(&digest::of_bytes(pod.as_bytes())[number..number + 2], 16).unwrap();
    format!("10.{}.{}.{}", byte(0), byte(2), byte(4))
}

/// Pods of a new template are there a step after it was seen.
fn run_deployments(state: &mut State) {
    for name in names(state, "deployments") {
        state.edit("deployments", &name, |live| {
            let (template, replicas) = (digest::short(&live["spec"]["template"]), live["spec"]["replicas"].clone());
            let is_seen = live["status"]["seen"] == template;
            let updated = if is_seen { replicas.clone() } else { json!(0) };
            live["status"] = json!({
                "observedGeneration": live["metadata"]["generation"],
                "replicas": replicas,
                "updatedReplicas": updated,
                "availableReplicas": replicas,
                // Of the simulation only.
                "seen": template,
            });
        });
    }
}
