//! The objects of three Siems, as files beside the tests. `UPDATE_GOLDEN=1` writes them anew.

use std::{collections::BTreeMap, fmt::Write as _, path::PathBuf};

use k8s_openapi::api::{
    apps::v1::{Deployment, StatefulSet},
    core::v1::{ConfigMap, Service},
    rbac::v1::Role as AccessRole,
};
use serde_json::{Value, json};

use crate::siem::{
    build::Sizes,
    child::Child,
    dereference::{Children, Observed},
    digest,
    foreign::{Foreign, Presence, Presences},
    testing::{as_applied, build, siem, siem_of, source, valid},
};

const QUICKSTART: &str = include_str!("../../../../config/samples/quickstart/siem.yaml");
const PRODUCTION: &str = include_str!("../../../../config/samples/kinds/siem.yaml");
const SYSLOG: &str = "
apiVersion: redoubt.dev/v1alpha1
kind: LogSource
metadata: {name: firewall}
spec:
  syslog: {udpPort: 514, tcpPort: 6514, tls: {name: syslog-certificate}}
";

fn external() -> redoubt_crds::Siem {
    siem_of(&json!({
        "broker": {"external": {"urls": ["amqps://mq.example.net"], "credentialsSecretRef": {"name": "mq"}}},
        "store": {"external": {"urls": ["https://es.example.net:9243"], "credentialsSecretRef": {"name": "es"}}},
        "ingest": {"tls": {"name": "ours"}},
    }))
}

#[test]
fn manifests_are_those_in_the_golden_files() {
    let observed = Observed { resources: vec![source(SYSLOG)], ..Observed::default() };
    let everything = Observed { foreign: Presences(Foreign::ALL.map(|kind| (kind, Presence::Served)).into()), ..observed.clone() };
    let siems =
        [("quickstart", siem(QUICKSTART), &observed), ("production", siem(PRODUCTION), &everything), ("external", external(), &observed)];

    for (name, siem, observed) in siems {
        let (built, _) = build(&siem, observed);

        compare(name, &built.children.iter().map(readable).collect::<String>());
    }
}

/// What a release does to pods of data: a change of this file restarts them where `spec.templateRevision` is raised, so the changelog must
/// name it.
#[test]
fn pods_of_data_are_those_that_the_golden_file_knows() {
    let mut digests = String::new();
    for (name, siem) in [("quickstart", siem(QUICKSTART)), ("production", siem(PRODUCTION))] {
        let (built, _) = build(&siem, &Observed::default());
        for child in built.children.iter().filter(|child| child.id.kind == "StatefulSet") {
            let template = digest::short(&child.body["spec"]["template"]);
            writeln!(digests, "{name}/{}: {template}", child.id.name).unwrap();
        }
    }

    compare("pods-of-data", &digests);
}

#[test]
fn what_is_applied_is_as_it_is_to_be() {
    let siem = siem(QUICKSTART);
    let (first, _) = build(&siem, &Observed::default());

    let (second, _) = build(&siem, &Observed { children: as_applied(&first.children), ..Observed::default() });

    let bodies = |children: &[Child]| children.iter().map(|child| (child.id.clone(), child.body.clone())).collect::<BTreeMap<_, _>>();
    assert_eq!(bodies(&first.children), bodies(&second.children));
}

#[test]
fn a_syslog_source_opens_its_ports_and_restarts_no_pod() {
    let siem = siem_of(&json!({}));
    let (before, _) = build(&siem, &Observed::default());

    let (after, _) = build(&siem, &Observed { resources: vec![source(SYSLOG)], ..Observed::default() });

    let ports: Vec<_> = after
        .get::<Service>("soc-ingest")
        .spec
        .unwrap()
        .ports
        .unwrap()
        .iter()
        .map(|port| (port.port, port.protocol.clone().unwrap()))
        .collect();
    assert_eq!(ports, [(8080, "TCP".to_owned()), (6514, "TCP".to_owned()), (514, "UDP".to_owned())]);
    assert_eq!(before.get::<Deployment>("soc-ingest"), after.get::<Deployment>("soc-ingest"));
}

#[test]
fn workers_may_read_the_secrets_that_resources_name_and_no_others() {
    let (built, _) = build(&siem_of(&json!({})), &Observed { resources: vec![source(SYSLOG)], ..Observed::default() });

    let rules = built.get::<AccessRole>("soc-worker").rules.unwrap();

    let secrets: Vec<_> = rules.iter().filter(|rule| rule.resources.as_ref().unwrap().contains(&"secrets".to_owned())).collect();
    assert_eq!(secrets.len(), 1);
    assert_eq!(
        secrets[0].resource_names.as_ref().unwrap(),
        &["soc-broker-user", "soc-ca", "soc-ingest-tls", "soc-store-user", "syslog-certificate"]
    );
    assert!(rules.iter().all(|rule| rule.verbs == ["get", "list", "watch"]));
}

#[test]
fn pods_of_a_role_are_replaced_for_what_they_read_at_their_start_and_for_nothing_else() {
    let settings = |spec: &Value, role: &str| {
        let (built, _) = build(&siem_of(spec), &Observed::default());
        built.get::<Deployment>(&format!("soc-{role}")).spec.unwrap().template
    };
    let cases = [
        (json!({"correlate": {"maxGroups": 7}}), vec!["correlate"]),
        (json!({"correlate": {"partitions": 7}}), vec!["correlate", "process"]),
        (json!({"store": {"refresh": "9s"}}), vec!["correlate", "process", "respond"]),
        (json!({"broker": {"deliveryLimit": 3}}), vec!["correlate", "ingest", "process", "respond"]),
        (json!({"retention": {"events": "9d"}, "ingest": {"maxEventBytes": 4096}}), vec![]),
        (json!({"broker": {"managed": {"image": "other"}}, "store": {"managed": {"image": "other"}}}), vec![]),
    ];

    for (spec, expected) in cases {
        let replaced: Vec<_> = ["correlate", "ingest", "process", "respond"]
            .into_iter()
            .filter(|role| settings(&json!({}), role) != settings(&spec, role))
            .collect();

        assert_eq!(replaced, expected, "{spec}");
    }
}

#[test]
fn pods_that_write_matches_are_replaced_after_those_that_read_them() {
    let settings = |children: &[Child], role: &str| {
        let found = children.iter().find(|child| child.id.kind == "Deployment" && child.id.name == format!("soc-{role}"));
        found.unwrap().body["spec"]["template"]["metadata"]["annotations"]["redoubt.dev/settings"].clone()
    };
    let (before, _) = build(&siem_of(&json!({})), &Observed::default());
    let repartitioned = siem_of(&json!({"correlate": {"partitions": 9}}));

    let (first, _) = build(&repartitioned, &Observed { children: as_applied(&before.children), ..Observed::default() });

    assert_ne!(settings(&first.children, "correlate"), settings(&before.children, "correlate"));
    assert_eq!(settings(&first.children, "process"), settings(&before.children, "process"));

    let mut rolled_out = as_applied(&first.children);
    for (id, body) in &mut rolled_out.0 {
        if id.kind == "Deployment" && id.name == "soc-correlate" {
            body["status"] = json!({"observedGeneration": 1, "replicas": 2, "updatedReplicas": 2, "availableReplicas": 2});
        }
    }
    let (second, _) = build(&repartitioned, &Observed { children: rolled_out, ..Observed::default() });

    assert_ne!(settings(&second.children, "process"), settings(&before.children, "process"));
}

#[test]
fn the_work_says_how_many_pods_process_events_and_the_siem_of_the_others() {
    let valid = valid(&siem_of(&json!({"process": {"autoscale": {"maxReplicas": 5}}})), &Observed::default()).unwrap();

    let deployments = super::role::deployments(&valid, None, Some(4));

    let replicas: Vec<_> = deployments.iter().map(|deployment| deployment.spec.as_ref().unwrap().replicas.unwrap()).collect();
    assert_eq!(replicas, [2, 4, 2, 2]);
}

#[test]
fn while_rabbitmq_begins_a_role_that_is_not_there_waits_and_one_that_is_goes_on() {
    let siem = siem_of(&json!({}));
    let there = as_applied(&build(&siem, &Observed::default()).0.children);
    let sizes = Sizes { roles_wait: true, ..Sizes::default() };
    let valid = valid(&siem, &Observed::default()).unwrap();
    let roles = |there: &Children| {
        let built = super::build(&valid, there, &[], &sizes, None);
        built.children.iter().filter(|child| child.id.kind == "Deployment").count()
    };

    assert_eq!((roles(&Children::default()), roles(&there)), (0, 4));
}

#[test]
fn another_number_of_nodes_or_a_larger_volume_restarts_no_node() {
    let (before, _) = build(&siem_of(&json!({})), &Observed::default());

    let more = json!({
        "broker": {"managed": {"replicas": 3, "storage": {"size": "20Gi"}}},
        "store": {"managed": {"nodeSets": [{"name": "nodes", "replicas": 3, "storage": {"size": "60Gi"}}]}},
    });
    let (after, _) = build(&siem_of(&more), &Observed { children: as_applied(&before.children), ..Observed::default() });

    for set in ["soc-broker", "soc-store-nodes"] {
        assert_eq!(before.get::<StatefulSet>(set).spec.unwrap().template, after.get::<StatefulSet>(set).spec.unwrap().template, "{set}");
    }
    let config = after.get::<ConfigMap>("soc-broker").data.unwrap();
    assert!(config["rabbitmq.conf"].contains("classic_config.nodes.3 = rabbit@soc-broker-2.soc-broker-nodes.security.svc"));
}

#[test]
fn what_the_siem_says_of_a_servers_configuration_counts() {
    let spec = json!({
        "broker": {"managed": {"config": "log.console.level = debug\n# a comment = yes\nheartbeat=20"}},
        "store": {"managed": {"nodeSets": [{"name": "nodes", "config": {"node": {"attr": {"rack": "r1"}, "store.allow_mmap": true}, "http.port": 9200}}]}},
    });

    let (built, _) = build(&siem_of(&spec), &Observed::default());

    let broker = built.get::<ConfigMap>("soc-broker").data.unwrap()["rabbitmq.conf"].clone();
    assert!(broker.contains("log.console.level = debug\n") && broker.contains("heartbeat=20\n"), "{broker}");
    assert!(!broker.contains("log.console.level = info"), "{broker}");
    let store: Value = serde_yaml::from_str(&built.get::<ConfigMap>("soc-store-nodes").data.unwrap()["elasticsearch.yml"]).unwrap();
    assert_eq!(store["node"], json!({"attr": {"rack": "r1"}, "store.allow_mmap": true}));
    assert_eq!(store.get("node.store.allow_mmap"), None);
    assert_eq!(store["node.roles"], json!(["master", "data", "ingest"]));
}

#[test]
fn without_security_nothing_of_it_is_named() {
    let spec = json!({"store": {"managed": {"security": false}}});

    let (built, secrets) = build(&siem_of(&spec), &Observed::default());

    let settings = built.get::<ConfigMap>("soc-store-nodes").data.unwrap()["elasticsearch.yml"].clone();
    let pod = serde_json::to_string(&built.get::<StatefulSet>("soc-store-nodes").spec.unwrap().template).unwrap();
    assert!(!settings.contains("xpack") && !pod.contains("ELASTIC_PASSWORD") && !pod.contains("certs"), "{settings}\n{pod}");
    assert!(secrets.iter().all(|secret| !secret.metadata.name.as_ref().unwrap().contains("store")));
}

/// An object as a person reads it in a review: without what is chance, and without what stands there twice.
fn readable(child: &Child) -> String {
    let mut body = child.body.clone();
    if child.id.kind == "Secret" {
        for (_, value) in body["data"].as_object_mut().unwrap() {
            *value = "(secret)".into();
        }
    }
    if let Some(annotations) = body["metadata"].get_mut("annotations").and_then(Value::as_object_mut) {
        for (key, value) in annotations {
            if ["redoubt.dev/made-from", "redoubt.dev/made-of"].contains(&key.as_str()) {
                *value = "(elsewhere)".into();
            }
        }
    }
    format!("---\n{}", serde_yaml::to_string(&redoubt_crds::sorted(&body)).unwrap())
}

fn compare(name: &str, text: &str) {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(format!("{name}.yaml"));
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::write(&path, text).unwrap();
    }
    let expected = std::fs::read_to_string(&path).unwrap_or_default();
    let first = expected.lines().zip(text.lines()).position(|(expected, found)| expected != found);
    let line = first.unwrap_or_else(|| expected.lines().count().min(text.lines().count()));
    assert!(
        expected == text,
        "{} is otherwise from line {}: {:?} is now {:?}; look at the change and write it by UPDATE_GOLDEN=1",
        path.display(),
        line + 1,
        expected.lines().nth(line),
        text.lines().nth(line)
    );
}
