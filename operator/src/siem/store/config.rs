//! `elasticsearch.yml`: what the operator sets, unless the Siem says otherwise.

use redoubt_crds::{in_cluster::STORE_PORT, sorted};
use serde_json::{Map, Value, json};

use super::{READINESS_PORT, TRANSPORT_PORT, note::role_name};
use crate::siem::{
    owner::Owner,
    validate::{Set, Store},
};

/// Where the image has its files.
pub(super) const HOME: &str = "/usr/share/elasticsearch";

/// Settings that the nodes of a set read at their start. A change of them restarts them.
pub(crate) fn settings(owner: &Owner, store: &Store, set: &Set) -> String {
    let theirs = &set.spec.config.0;
    let mut keys = Vec::new();
    flatten("", theirs, &mut keys);
    let mut all = ours(owner, store, set);
    all.retain(|key, _| !keys.contains(key));
    all.extend(theirs.clone());
    // The pods are restarted for another text, so it must not depend on how a map is kept.
    let all = sorted(&Value::Object(all));
    // JSON is YAML too; this only reads better.
    serde_yaml::to_string(&all).unwrap_or_else(|_| all.to_string())
}

fn ours(owner: &Owner, store: &Store, set: &Set) -> Map<String, Value> {
    let roles: Vec<&str> = set.spec.roles.iter().map(|role| role_name(*role)).collect();
    let mut all = json!({
        "cluster.name": format!("{}-{}", owner.namespace, owner.siem.as_str()),
        "node.name": "${POD_NAME}",
        "node.roles": roles,
        "network.host": "0.0.0.0",
        "network.publish_host": "${POD_IP}",
        "http.port": STORE_PORT,
        "transport.port": TRANSPORT_PORT,
        "readiness.port": READINESS_PORT,
        "discovery.seed_hosts": [format!("{}.{}.svc", owner.siem.store_masters(), owner.namespace)],
        // Maps of files need a setting of the machine that a pod of the restricted standard cannot make.
        "node.store.allow_mmap": false,
    });
    if store.security {
        for (key, value) in [("enabled", json!(true)), ("autoconfiguration.enabled", json!(false))] {
            all[format!("xpack.security.{key}")] = value;
        }
        for side in ["http", "transport"] {
            let files = [
                ("enabled", json!(true)),
                ("certificate", json!("certs/tls.crt")),
                ("key", json!("certs/tls.key")),
                ("certificate_authorities", json!(["certs/ca.crt"])),
            ];
            for (key, value) in files {
                all[format!("xpack.security.{side}.ssl.{key}")] = value;
            }
        }
        // Nodes call each other by address; that the SIEM's authority has signed for a node is what counts.
        all["xpack.security.transport.ssl.verification_mode"] = json!("certificate");
    }
    match all {
        Value::Object(all) => all,
        _ => Map::new(),
    }
}

/// The keys of settings, however they are nested.
fn flatten(prefix: &str, settings: &Map<String, Value>, keys: &mut Vec<String>) {
    for (key, value) in settings {
        let key = format!("{prefix}{key}");
        match value {
            Value::Object(inner) => flatten(&format!("{key}."), inner, keys),
            _ => keys.push(key),
        }
    }
}
