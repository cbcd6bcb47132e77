use std::collections::BTreeSet;

use kube::core::cel::{compile_schema, estimate_rule_cost};
use serde_json::{Value, json};

use super::{structure::KEYWORDS, *};

/// A CEL rule at work: a spec that keeps it, one that breaks it, and where and how that is reported.
struct RuleCase {
    kind: &'static str,
    keeps: Value,
    breaks: Value,
    field: &'static str,
    message: &'static str,
}

fn rule(kind: &'static str, keeps: Value, breaks: Value, field: &'static str, message: &'static str) -> RuleCase {
    RuleCase { kind, keeps, breaks, field, message }
}

fn threshold(changes: Value) -> Value {
    let mut threshold = json!({ "match": { "when": "true" }, "count": 3, "window": "5m" });
    merge(&mut threshold, changes);
    json!({ "threshold": threshold })
}

fn sigma_rule(changes: Value) -> Value {
    let mut spec = json!({ "sigma": { "title": "t" } });
    merge(&mut spec, changes);
    spec
}

fn webhook(changes: Value) -> Value {
    let mut webhook = json!({ "url": "https://example.org" });
    merge(&mut webhook, changes);
    json!({ "webhook": webhook })
}

fn enrichment_test(expect: &Value) -> Value {
    json!({ "drop": { "reason": "r" }, "tests": [{ "name": "n", "event": {}, "expect": expect }] })
}

fn node_sets(sets: &Value) -> Value {
    json!({ "store": { "managed": { "nodeSets": sets } } })
}

/// `null` takes a member away.
fn merge(target: &mut Value, changes: Value) {
    let (Value::Object(target), Value::Object(changes)) = (target, changes) else { panic!("two objects are needed") };
    for (key, change) in changes {
        if change.is_null() {
            target.remove(&key);
        } else {
            target.insert(key, change);
        }
    }
}

fn rule_cases() -> Vec<RuleCase> {
    let secret = json!({ "name": "s", "key": "k" });
    let tls = json!({ "name": "s" });
    vec![
        rule("AlertRule", sigma_rule(json!({})), json!({}), "spec", "exactly one of sigma and threshold is needed"),
        rule("AlertRule", threshold(json!({})), sigma_rule(threshold(json!({}))), "spec", "exactly one of sigma and threshold is needed"),
        rule(
            "AlertRule",
            threshold(json!({})),
            threshold(json!({ "match": {} })),
            "spec.threshold.match",
            "exactly one of sigma and when is needed",
        ),
        rule(
            "AlertRule",
            sigma_rule(json!({ "exceptions": [{ "reason": "r", "when": "true" }] })),
            sigma_rule(json!({ "exceptions": [{ "reason": "r", "when": "true" }, { "reason": "r", "when": "true", "sigma": {} }] })),
            "spec.exceptions[1]",
            "exactly one of sigma and when is needed",
        ),
        rule(
            "AlertRule",
            threshold(json!({ "window": "1ms" })),
            threshold(json!({ "window": "0m" })),
            "spec.threshold.window",
            "must be longer than zero",
        ),
        rule(
            "AlertRule",
            sigma_rule(json!({ "suppress": { "for": "10m" } })),
            sigma_rule(json!({ "suppress": { "for": "0h00s" } })),
            "spec.suppress.for",
            "must be longer than zero",
        ),
        rule(
            "AlertRule",
            sigma_rule(json!({ "tests": [{ "name": "n", "events": [{}], "expect": { "alerts": 0 } }] })),
            sigma_rule(json!({ "tests": [{ "name": "n", "events": [{}], "expect": { "alerts": 0, "fires": false } }] })),
            "spec.tests[0].expect",
            "exactly one of alerts and fires is needed",
        ),
        rule(
            "AlertRule",
            sigma_rule(
                json!({ "tests": [{ "name": "n", "events": [{}], "expect": { "fires": true }, "logsource": { "product": "linux" } }] }),
            ),
            sigma_rule(json!({ "tests": [{ "name": "n", "events": [{}], "expect": { "fires": true }, "logsource": {} }] })),
            "spec.tests[0].logsource",
            "at least one of product, service and category is needed",
        ),
        rule(
            "Siem",
            json!({ "broker": { "managed": { "replicas": 3 } } }),
            json!({ "broker": {
                "managed": { "replicas": 3 },
                "external": { "urls": ["amqp://queue:5672"], "credentialsSecretRef": { "name": "s" } },
            } }),
            "spec.broker",
            "at most one of managed and external may be set",
        ),
        rule(
            "Siem",
            json!({ "store": { "external": { "urls": ["https://search:9200"] } } }),
            json!({ "store": { "external": { "urls": ["https://search:9200"] }, "managed": {} } }),
            "spec.store",
            "at most one of managed and external may be set",
        ),
        rule(
            "Siem",
            node_sets(&json!([{ "name": "a" }, { "name": "b" }])),
            node_sets(&json!([{ "name": "a" }, { "name": "a" }])),
            "spec.store.managed.nodeSets",
            "two node sets must not have the same name",
        ),
        rule(
            "Siem",
            node_sets(&json!([{ "name": "a", "roles": ["master"] }, { "name": "b", "roles": ["data"] }])),
            node_sets(&json!([{ "name": "a", "roles": ["ingest"] }, { "name": "b", "roles": ["data"] }])),
            "spec.store.managed.nodeSets",
            "one of the node sets must have the role master",
        ),
        rule(
            "Siem",
            node_sets(&json!([{ "name": "a", "roles": ["master", "data_content"] }])),
            node_sets(&json!([{ "name": "a", "roles": ["master"] }])),
            "spec.store.managed.nodeSets",
            "one of the node sets must have the role data or data_content",
        ),
        rule(
            "Siem",
            json!({ "store": { "external": { "urls": ["https://search:9200"], "credentialsSecretRef": { "name": "s" } } } }),
            json!({ "store": { "external": {
                "urls": ["https://search:9200"],
                "credentialsSecretRef": { "name": "s" },
                "apiKeySecretRef": { "name": "s", "key": "k" },
            } } }),
            "spec.store.external",
            "at most one of credentialsSecretRef and apiKeySecretRef may be set",
        ),
        rule(
            "Siem",
            json!({ "store": { "external": { "urls": ["https://search:9200"], "rollover": { "maxAge": "1h" } } } }),
            json!({ "store": { "external": { "urls": ["https://search:9200"], "rollover": { "maxAge": "0h" } } } }),
            "spec.store.external.rollover.maxAge",
            "must be longer than zero",
        ),
        rule("Enrichment", json!({ "drop": { "reason": "r" } }), json!({}), "spec", "exactly one of vrl, lookup, geoip and drop is needed"),
        rule(
            "Enrichment",
            json!({ "vrl": { "source": "." } }),
            json!({ "vrl": { "source": "." }, "drop": { "reason": "r" } }),
            "spec",
            "exactly one of vrl, lookup, geoip and drop is needed",
        ),
        rule(
            "Enrichment",
            json!({ "geoip": { "asn": "a.mmdb" } }),
            json!({ "geoip": {} }),
            "spec.geoip",
            "at least one of city and asn is needed",
        ),
        rule(
            "Enrichment",
            enrichment_test(&json!({ "dropped": true })),
            enrichment_test(&json!({})),
            "spec.tests[0].expect",
            "exactly one of event and dropped is needed",
        ),
        rule(
            "LogSource",
            json!({ "syslog": { "udpPort": 514 } }),
            json!({ "syslog": { "udpPort": 514 }, "http": { "auth": { "basic": secret } } }),
            "spec",
            "exactly one input is needed: http, syslog or amqp",
        ),
        rule(
            "LogSource",
            json!({ "http": { "auth": { "bearer": secret } } }),
            json!({ "http": { "auth": {} } }),
            "spec.http.auth",
            "at least one of bearer and basic is needed",
        ),
        rule(
            "LogSource",
            json!({ "syslog": { "tcpPort": 6514 } }),
            json!({ "syslog": { "allowFrom": ["10.0.0.0/8"] } }),
            "spec.syslog",
            "at least one of udpPort and tcpPort is needed",
        ),
        rule(
            "LogSource",
            json!({ "syslog": { "tcpPort": 6514, "tls": tls } }),
            json!({ "syslog": { "udpPort": 514, "tls": tls } }),
            "spec.syslog",
            "tls needs a tcpPort",
        ),
        rule(
            "LogSource",
            json!({ "amqp": { "urls": ["amqp://mq:5672"], "credentialsSecretRef": { "name": "s" }, "queue": "q", "exchange": "e", "bindingKey": "k" } }),
            json!({ "amqp": { "urls": ["amqp://mq:5672"], "credentialsSecretRef": { "name": "s" }, "queue": "q", "exchange": "e" } }),
            "spec.amqp",
            "exchange and bindingKey go together",
        ),
        rule(
            "LogSource",
            json!({ "syslog": { "udpPort": 514 }, "logsource": { "category": "dns" } }),
            json!({ "syslog": { "udpPort": 514 }, "logsource": {} }),
            "spec.logsource",
            "at least one of product, service and category is needed",
        ),
        rule("ResponseAction", json!({ "log": {} }), json!({ "dryRun": false }), "spec", "exactly one of webhook and log is needed"),
        rule(
            "ResponseAction",
            webhook(json!({ "url": null, "urlSecretRef": secret })),
            webhook(json!({ "urlSecretRef": secret })),
            "spec.webhook",
            "exactly one of url and urlSecretRef is needed",
        ),
        rule(
            "ResponseAction",
            webhook(json!({ "timeout": "1s" })),
            webhook(json!({ "timeout": "0s" })),
            "spec.webhook.timeout",
            "must be longer than zero",
        ),
        rule(
            "Siem",
            json!({ "ingest": { "maxEventBytes": 4096, "maxBodyBytes": 4096 } }),
            json!({ "ingest": { "maxEventBytes": 4097, "maxBodyBytes": 4096 } }),
            "spec.ingest",
            "maxEventBytes must not be more than maxBodyBytes",
        ),
        // A default takes part in a rule as a written value does: an event may have 1 MiB.
        rule(
            "Siem",
            json!({ "ingest": { "maxBodyBytes": 1_048_576 } }),
            json!({ "ingest": { "maxBodyBytes": 4096 } }),
            "spec.ingest",
            "maxEventBytes must not be more than maxBodyBytes",
        ),
        rule(
            "Siem",
            json!({ "ingest": { "ingress": { "hosts": ["a.example", "b.example"] } } }),
            json!({ "ingest": { "ingress": { "hosts": ["a.example", "a.example"] } } }),
            "spec.ingest.ingress",
            "two hosts must not be the same",
        ),
        rule(
            "Siem",
            json!({ "ingest": { "httpRoute": { "parentRefs": [{ "name": "g" }, { "name": "g", "sectionName": "s" }] } } }),
            json!({ "ingest": { "httpRoute": { "parentRefs": [{ "name": "g", "port": 443 }, { "port": 443, "name": "g" }] } } }),
            "spec.ingest.httpRoute",
            "two parentRefs must not be the same",
        ),
        rule(
            "Siem",
            json!({ "ingest": { "httpRoute": { "parentRefs": [{ "name": "g" }], "hostnames": ["a.example", "*.a.example"] } } }),
            json!({ "ingest": { "httpRoute": { "parentRefs": [{ "name": "g" }], "hostnames": ["a.example", "a.example"] } } }),
            "spec.ingest.httpRoute",
            "two hostnames must not be the same",
        ),
        rule(
            "Siem",
            json!({ "process": { "autoscale": { "minReplicas": 3, "maxReplicas": 3 } } }),
            json!({ "process": { "autoscale": { "minReplicas": 4, "maxReplicas": 3 } } }),
            "spec.process.autoscale",
            "minReplicas must not be more than maxReplicas",
        ),
        rule(
            "Siem",
            json!({ "monitoring": { "interval": "1m30s" } }),
            json!({ "monitoring": { "interval": "0s" } }),
            "spec.monitoring.interval",
            "must be longer than zero",
        ),
        rule(
            "Siem",
            json!({ "store": { "refresh": "5s" } }),
            json!({ "store": { "refresh": "0s" } }),
            "spec.store.refresh",
            "must be longer than zero",
        ),
        rule(
            "Siem",
            json!({ "retention": { "events": "1d" } }),
            json!({ "retention": { "events": "0d" } }),
            "spec.retention.events",
            "must be longer than zero",
        ),
        rule(
            "Siem",
            json!({ "retention": { "alerts": "1d" } }),
            json!({ "retention": { "alerts": "0d" } }),
            "spec.retention.alerts",
            "must be longer than zero",
        ),
        rule(
            "Siem",
            json!({ "retention": { "deadLetters": "1d" } }),
            json!({ "retention": { "deadLetters": "0d" } }),
            "spec.retention.deadLetters",
            "must be longer than zero",
        ),
    ]
}

#[test]
fn a_rule_is_silent_when_kept_and_says_what_is_needed_when_broken() {
    for case in rule_cases() {
        assert_eq!(validate(case.kind, &json!({ "spec": case.keeps })), [], "{} {}", case.kind, case.keeps);

        let violations = validate(case.kind, &json!({ "spec": case.breaks }));

        let expected = Violation { field: case.field.to_owned(), message: case.message.to_owned() };
        assert_eq!(violations, [expected], "{} {}", case.kind, case.breaks);
    }
}

/// Every schema below every kind's spec, with the kind and the path without indices.
fn schemas() -> Vec<(String, String, Value)> {
    fn walk(kind: &str, path: &str, schema: &Value, all: &mut Vec<(String, String, Value)>) {
        all.push((kind.to_owned(), path.to_owned(), schema.clone()));
        for (name, field) in schema["properties"].as_object().into_iter().flatten() {
            walk(kind, &format!("{path}.{name}"), field, all);
        }
        for keyword in ["items", "additionalProperties"] {
            if schema[keyword].is_object() {
                walk(kind, path, &schema[keyword], all);
            }
        }
    }
    let mut all = Vec::new();
    for definition in crate::definitions() {
        walk(&definition.spec.names.kind, "spec", &spec_schema(&definition), &mut all);
    }
    all
}

#[test]
fn every_rule_of_every_kind_has_a_case() {
    let without_indices = |path: &str| path.chars().filter(|c| !c.is_ascii_digit() && !"[]".contains(*c)).collect::<String>();
    let covered: BTreeSet<_> =
        rule_cases().iter().map(|case| (case.kind.to_owned(), without_indices(case.field), case.message.to_owned())).collect();

    for (kind, path, schema) in schemas() {
        for rule in schema["x-kubernetes-validations"].as_array().into_iter().flatten() {
            let message = rule["message"].as_str().unwrap().to_owned();
            assert!(covered.contains(&(kind.clone(), path.clone(), message.clone())), "{kind}: no case for {message:?} at {path}");
        }
    }
}

#[test]
fn every_keyword_of_every_schema_is_heeded() {
    for (kind, path, schema) in schemas() {
        for keyword in schema.as_object().unwrap().keys() {
            assert!(KEYWORDS.contains(&keyword.as_str()), "{kind}: {keyword} at {path} would be passed over");
        }
        assert!(["object", "array", "string", "integer", "boolean"].contains(&schema["type"].as_str().unwrap()), "{kind}: {path}");
        if let Some(pattern) = schema["pattern"].as_str() {
            assert!(regex::Regex::new(pattern).is_ok(), "{kind}: {pattern:?} at {path}");
        }
    }
}

#[test]
fn every_default_fits_its_own_schema() {
    for (kind, path, schema) in schemas() {
        let Some(default) = schema.get("default") else { continue };
        let mut violations = Vec::new();

        structure::Node::compile(&schema).check(default, &path, &mut violations);

        assert_eq!(violations, [], "{kind}");
    }
}

#[test]
fn what_a_field_cannot_hold_is_reported_where_it_stands() {
    let long = |length: usize| "x".repeat(length);
    let cases = [
        ("AlertRule", sigma_rule(json!({ "title": "" })), "spec.title: must have at least 1 characters, has 0"),
        ("AlertRule", sigma_rule(json!({ "title": long(257) })), "spec.title: must have at most 256 characters, has 257"),
        ("AlertRule", sigma_rule(json!({ "title": 5 })), "spec.title: must be a string, is a number"),
        (
            "AlertRule",
            sigma_rule(json!({ "attack": ["T1110", "1110"] })),
            "spec.attack[1]: \"1110\" does not fit the pattern ^T[0-9]{4}(\\.[0-9]{3})?$",
        ),
        (
            "AlertRule",
            sigma_rule(json!({ "severity": "bad" })),
            "spec.severity: \"bad\" is not one of informational, low, medium, high, critical",
        ),
        ("AlertRule", sigma_rule(json!({ "enabled": "yes" })), "spec.enabled: must be true or false, is a string"),
        ("AlertRule", sigma_rule(json!({ "severty": "low" })), "spec.severty: there is no such field; there are allowedLateness, attack,"),
        ("AlertRule", threshold(json!({ "count": null })), "spec.threshold.count: is required"),
        ("AlertRule", threshold(json!({ "count": 0 })), "spec.threshold.count: must be at least 1, is 0"),
        ("AlertRule", threshold(json!({ "count": 1_000_001 })), "spec.threshold.count: must be at most 1000000, is 1000001"),
        ("AlertRule", threshold(json!({ "count": 1.5 })), "spec.threshold.count: must be a whole number of 64 bits"),
        ("AlertRule", threshold(json!({ "window": "5 minutes" })), "spec.threshold.window: \"5 minutes\" does not fit the pattern"),
        ("AlertRule", threshold(json!({ "groupBy": vec!["a"; 9] })), "spec.threshold.groupBy: must have at most 8 items, has 9"),
        ("AlertRule", threshold(json!({ "groupBy": "a" })), "spec.threshold.groupBy: must be a list, is a string"),
        ("AlertRule", threshold(json!({ "match": [] })), "spec.threshold.match: must be an object, is a list"),
        ("LogSource", json!({ "syslog": { "udpPort": 65_536 } }), "spec.syslog.udpPort: must be at most 65535, is 65536"),
        (
            "LogSource",
            json!({ "syslog": { "udpPort": 1 }, "quota": { "eventsPerSecond": 4_294_967_296_i64 } }),
            "spec.quota.eventsPerSecond: must be at most 4294967295",
        ),
        ("ResponseAction", webhook(json!({ "headers": { "X-A": 1 } })), "spec.webhook.headers.X-A: must be a string, is a number"),
        (
            "ResponseAction",
            webhook(json!({ "url": "ftp://example.org" })),
            "spec.webhook.url: \"ftp://example.org\" does not fit the pattern ^https?://",
        ),
        ("Watchlist", json!({ "entries": [] }), "spec.match: is required"),
        (
            "Watchlist",
            json!({ "match": "cidr", "entries": [{ "value": "v", "expires": "soon" }] }),
            "spec.entries[0].expires: \"soon\" does not fit the pattern",
        ),
    ];
    for (kind, spec, expected) in cases {
        let violations = validate(kind, &json!({ "spec": spec }));

        assert_eq!(violations.len(), 1, "{kind} {spec}: {violations:?}");
        assert!(violations[0].to_string().starts_with(expected), "{kind} {spec}: {}", violations[0]);
    }
}

#[test]
fn lengths_are_counted_in_characters_not_bytes() {
    let title = "ü".repeat(256);

    assert_eq!(validate("AlertRule", &json!({ "spec": sigma_rule(json!({ "title": title })) })), []);
}

#[test]
fn everything_that_is_wrong_is_reported_at_once_and_in_order() {
    let spec = json!({ "severity": "bad", "threshold": { "match": {}, "count": 0, "window": "5m" }, "sigma": {} });

    let fields: Vec<_> = validate("AlertRule", &json!({ "spec": spec })).into_iter().map(|violation| violation.field).collect();

    assert_eq!(fields, ["spec", "spec.severity", "spec.threshold.count", "spec.threshold.match"]);
}

#[test]
fn a_broken_structure_is_not_reported_a_second_time_by_a_rule_that_stumbles_over_it() {
    let violations = validate("Siem", &json!({ "spec": { "ingest": { "maxBodyBytes": "8Mi" }, "retention": { "events": 30 } } }));

    let fields: Vec<_> = violations.iter().map(|violation| violation.field.as_str()).collect();
    assert_eq!(fields, ["spec.ingest.maxBodyBytes", "spec.retention.events"]);
}

#[test]
fn a_field_that_is_null_counts_as_left_out() {
    let kept = json!({ "sigma": null, "title": null, "tags": null, "threshold": { "match": { "when": "true", "sigma": null }, "count": 1, "window": "1m" } });
    let broken = json!({ "sigma": {}, "tests": [{ "name": "n", "events": [{ "x": null }], "expect": null }] });

    assert_eq!(validate("AlertRule", &json!({ "spec": kept })), []);
    assert_eq!(validate("AlertRule", &json!({ "spec": broken }))[0].to_string(), "spec.tests[0].expect: is required");
}

#[test]
fn what_an_author_may_shape_freely_is_not_looked_into() {
    let spec = json!({ "sigma": { "detection": { "selection": { "a": null, "b": [1, { "c": 1.5 }] } } } });

    assert_eq!(validate("AlertRule", &json!({ "spec": spec })), []);
}

#[test]
fn an_object_without_a_spec_or_of_no_kind_of_ours_is_refused() {
    assert_eq!(validate("Siem", &json!({ "spec": {} })), []);
    assert_eq!(validate("Siem", &json!({}))[0].to_string(), "spec: is required");
    assert_eq!(validate("Siem", &json!({ "spec": [] }))[0].to_string(), "spec: must be an object, is a list");
    assert_eq!(
        validate("Pod", &json!({ "spec": {} }))[0].to_string(),
        "kind: \"Pod\" is not a kind of Redoubt; there are AlertRule, Enrichment, LogSource, ResponseAction, Siem, Watchlist"
    );
}

#[test]
fn every_rule_compiles_and_none_is_too_dear_for_an_api_server() {
    for (kind, path, schema) in schemas() {
        let compiled = compile_schema(&schema);
        for rule in schema["x-kubernetes-validations"].as_array().into_iter().flatten() {
            let rule = rule["rule"].as_str().unwrap();

            // Here a rule gets a date as a string; in a cluster it would get a timestamp.
            assert!(!schema.to_string().contains("date-time"), "{kind} {path}: {rule}");
            assert!(compiled.compilation_errors().is_empty(), "{kind} {path}: {rule}");
            assert_eq!(estimate_rule_cost(rule, &compiled), [], "{kind} {path}: {rule}");
        }
    }
}
