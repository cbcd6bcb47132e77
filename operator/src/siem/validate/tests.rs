use jiff::ToSpan as _;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use serde_json::{Value, json};

use super::*;
use crate::siem::testing::{as_applied, build, now, siem_of, valid};

/// What becomes of a Siem when what an earlier one asked for runs.
fn after(before: &Value, spec: &Value) -> Valid {
    let (built, _) = build(&siem_of(before), &Observed::default());
    valid(&siem_of(spec), &Observed { children: as_applied(&built.children), ..Observed::default() }).unwrap()
}

fn store(sets: &Value) -> Value {
    json!({"store": {"managed": {"nodeSets": sets}}})
}

#[test]
fn what_cannot_be_built_is_refused_with_the_field_that_is_wrong() {
    let resources = json!({"requests": {"memory": "1e3"}});
    let cases = [
        (json!({"ingest": {"resources": resources}}), "spec.ingest.resources.requests.memory: \"1e3\""),
        (json!({"broker": {"managed": {"storage": {"size": "0"}}}}), "spec.broker.managed.storage.size: \"0\""),
        (store(&json!([{"name": "a", "storage": {"size": "ten"}}])), "spec.store.managed.nodeSets[a].storage.size: \"ten\""),
        (store(&json!([{"name": "a", "replicas": 0}, {"name": "b", "roles": ["data"]}])), "no node may be master"),
        (store(&json!([{"name": "a", "roles": ["master"]}, {"name": "b", "roles": ["data"], "replicas": 0}])), "no node holds data"),
    ];

    for (spec, expected) in cases {
        let refusal = valid(&siem_of(&spec), &Observed::default()).unwrap_err();

        assert!(refusal.to_string().contains(expected), "{refusal}");
    }
}

#[test]
fn of_several_siems_the_oldest_counts() {
    let named = |name: &str, minutes: i64| {
        let mut siem = siem_of(&json!({}));
        siem.metadata.name = Some(name.to_owned());
        siem.metadata.uid = Some(name.to_owned());
        siem.metadata.creation_timestamp = Some(Time(now() + minutes.minutes()));
        siem
    };
    let (first, second, third) = (named("b", 0), named("a", 1), named("c", 0));
    let refusal = |siem: &Siem, siems: &[&Siem]| {
        let siems = siems.iter().map(|siem| (*siem).clone()).collect();
        valid(siem, &Observed { siems, ..Observed::default() }).err()
    };

    assert_eq!(refusal(&first, &[&second, &first, &third]), None);
    assert_eq!(refusal(&second, &[&second, &first]), Some(Refusal::AnotherSiem("b".to_owned())));
    assert_eq!(refusal(&third, &[&third, &first]), Some(Refusal::AnotherSiem("b".to_owned())));

    let mut going = first.clone();
    going.metadata.deletion_timestamp = Some(Time(now()));
    assert_eq!(refusal(&second, &[&second, &going]), None);
}

#[test]
fn what_cannot_be_done_to_what_runs_stays_as_it_is_and_is_objected_to() {
    let broker = |spec: Value| json!({"broker": {"managed": spec}});
    let cases = [
        ("fewer nodes of RabbitMQ", broker(json!({"replicas": 3})), broker(json!({"replicas": 1})), Some("BrokerCannotShrink")),
        ("more", broker(json!({"replicas": 1})), broker(json!({"replicas": 3})), None),
        ("a smaller volume", json!({}), broker(json!({"storage": {"size": "5Gi"}})), Some("VolumeCannotShrink")),
        ("a larger one", json!({}), broker(json!({"storage": {"size": "50Gi"}})), None),
        ("another class", json!({}), broker(json!({"storage": {"size": "10Gi", "class": "fast"}})), Some("ClassCannotChange")),
        (
            "nodes that lose their data",
            store(&json!([{"name": "a"}, {"name": "b"}])),
            store(&json!([{"name": "a", "roles": ["master"]}, {"name": "b"}])),
            Some("RoleCannotGo"),
        ),
        (
            "nodes that do less with events and nothing with data",
            store(&json!([{"name": "a"}])),
            store(&json!([{"name": "a", "roles": ["master", "data"]}])),
            None,
        ),
        ("no security any more", json!({}), json!({"store": {"managed": {"security": false}}}), Some("SecurityCannotChange")),
    ];

    for (name, before, spec, expected) in cases {
        let valid = after(&before, &spec);

        assert_eq!(valid.objections.iter().map(Objection::reason).next(), expected, "{name}");
    }
    let kept = after(&json!({"broker": {"managed": {"replicas": 3, "storage": {"size": "20Gi"}}}}), &json!({})).broker.unwrap();
    assert_eq!((kept.replicas, kept.volume.size.as_str()), (3, "20Gi"));
}

#[test]
fn nodes_of_rabbitmq_are_not_lost_while_their_set_is_made_anew() {
    let pod = |ordinal: u16| {
        serde_json::from_value(json!({"metadata": {
            "name": format!("soc-broker-{ordinal}"), "uid": "u", "labels": {"controller-revision-hash": "x"},
        }}))
        .unwrap()
    };

    let valid = valid(&siem_of(&json!({})), &Observed { pods: (0..3).map(pod).collect(), ..Observed::default() }).unwrap();

    assert_eq!(valid.broker.unwrap().replicas, 3);
}
