//! What is said of good and bad resources, as the API tells it.

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::{core::v1::ConfigMap, events::v1::Event};
use kube::{Api, api::ListParams};
use serde_json::{Value, json};

use crate::{
    namespace::{DEADLINE, Namespace, within},
    operator::Operator,
};

fn rule(condition: &str) -> Value {
    // Long enough that kubectl wraps it, and with keys that it sorts by their numbers.
    let description = "Somebody tries one password after another, and this text goes on and on until it is wrapped. ".repeat(3);
    json!({
        "description": description.trim_end(),
        "sigma": {
            "title": "Guessing",
            "logsource": {"product": "linux", "service": "sshd"},
            "detection": {"selection_10": {"message|contains": "Failed password"}, "selection_9": {"a": 1}, "condition": condition},
        },
    })
}

/// The line of `kubectl get -o yaml` that a message names, from its column on.
fn place(namespace: &Namespace, kind: &str, name: &str, says: &str) -> String {
    let numbers = says.split_once(&format!("{kind}/{name}:")).unwrap_or_else(|| panic!("no place in {says}")).1;
    let mut numbers = numbers.split(':').map(|number| number.trim().parse::<usize>());
    let (line, column) = (numbers.next().unwrap().unwrap(), numbers.next().unwrap().unwrap());
    let printed = namespace.kubectl(&["get", &kind.to_lowercase(), name, "-o", "yaml"]);
    printed.lines().nth(line - 1).unwrap_or_default().chars().skip(column - 1).collect()
}

#[tokio::test]
async fn good_and_bad_resources_are_told_apart_with_line_and_column() {
    let Some(namespace) = Namespace::new("statuses").await else { return };
    let _operator = Operator::in_namespace(&namespace).await;
    let lookup = json!({"lookup": {"watchlist": "nobody-has-it", "field": "user.name", "target": "threat.indicator"}});
    let taken = json!({"syslog": {"tcpPort": 8080}});
    let program = json!({"vrl": {"source": "# what is known\n.a = 1\n.b = oops\n"}});

    namespace.resource("AlertRule", "good", rule("1 of selection_*")).await;
    namespace.resource("AlertRule", "bad", rule("selection_9 and")).await;
    namespace.resource("LogSource", "good", json!({"syslog": {"udpPort": 5514}})).await;
    namespace.resource("LogSource", "bad", taken).await;
    namespace.resource("Enrichment", "good", json!({"vrl": {"source": ".a = 1\n"}})).await;
    namespace.resource("Enrichment", "bad", program).await;
    namespace.resource("Enrichment", "lost", lookup).await;

    for kind in ["AlertRule", "LogSource", "Enrichment"] {
        namespace.until(kind, "good", "Accepted", "True Compiled: compiles").await;
    }
    for (kind, name, field, text) in [
        ("AlertRule", "bad", "spec.sigma.detection.condition", "selection_9 and"),
        ("LogSource", "bad", "spec.syslog.tcpPort", "8080"),
        ("Enrichment", "bad", "spec.vrl.source", "oops"),
        ("Enrichment", "lost", "spec.lookup.watchlist", "nobody-has-it"),
    ] {
        let says = namespace.until(kind, name, "Accepted", &format!("False Invalid: {kind}/{name}:")).await;
        assert!(says.contains(&format!(": {field}: ")), "{says}");
        assert_eq!(place(&namespace, kind, name, &says), text, "{says}");
    }
    let columns = namespace.kubectl(&["get", "alertrules"]);
    let bad = columns.lines().find(|line| line.starts_with("bad ")).unwrap();
    assert_eq!(bad.split_whitespace().skip(1).take(2).collect::<Vec<_>>(), ["False", "False"], "{columns}");
}

#[tokio::test]
async fn a_bad_edit_keeps_the_last_good_version_until_it_is_mended() {
    let Some(namespace) = Namespace::new("edits").await else { return };
    let _operator = Operator::in_namespace(&namespace).await;
    let maps: Api<ConfigMap> = Api::namespaced(namespace.client.clone(), &namespace.name);
    let made = namespace.resource("AlertRule", "edited", rule("selection_9")).await;
    namespace.until("AlertRule", "edited", "Accepted", "True").await;

    namespace.resource("AlertRule", "edited", rule("selection_9 or or")).await;
    namespace.until("AlertRule", "edited", "Accepted", "False Invalid").await;

    let map = maps.get("redoubt-last-good-alertrule-edited").await.unwrap();
    assert_eq!(map.metadata.labels.unwrap()["redoubt.dev/last-good"], "alertrule");
    assert_eq!(map.metadata.owner_references.unwrap()[0].uid, made.metadata.uid.unwrap());
    let kept: Value = serde_saphyr::from_str(&map.data.unwrap()["resource.yaml"]).unwrap();
    assert_eq!(kept["metadata"], json!({"name": "edited", "generation": 1}));
    assert_eq!(kept["spec"]["sigma"], rule("selection_9")["sigma"]);
    namespace.until("AlertRule", "edited", "Ready", "False LastGoodVersion").await;

    namespace.resource("AlertRule", "edited", rule("selection_10")).await;
    namespace.until("AlertRule", "edited", "Accepted", "True").await;

    within(DEADLINE, "what was kept is let go", async || match maps.get_opt("redoubt-last-good-alertrule-edited").await.unwrap() {
        None => Ok(()),
        Some(map) => Err(format!("{map:?}")),
    })
    .await;
    let events: Api<Event> = Api::namespaced(namespace.client.clone(), &namespace.name);
    within(DEADLINE, "both turns are told", async || {
        let all = events.list(&ListParams::default()).await.unwrap().items;
        let told: Vec<_> = all.iter().map(|event| (event.type_.as_deref().unwrap_or(""), event.reason.as_deref().unwrap_or(""))).collect();
        (told.contains(&("Warning", "Invalid")) && told.contains(&("Normal", "Accepted"))).then_some(()).ok_or_else(|| format!("{told:?}"))
    })
    .await;
}

#[tokio::test]
async fn an_object_that_no_longer_fits_its_kind_harms_no_other() {
    let Some(namespace) = Namespace::new("misfits").await else { return };
    let _operator = Operator::in_namespace(&namespace).await;

    // The API server checks a test's events no more than to be objects, and a Sigma rule not at all.
    namespace.resource("AlertRule", "misfit", json!({"sigma": {"title": ["no", "text"], "detection": 7}})).await;
    namespace.resource("AlertRule", "good", rule("selection_9")).await;

    namespace.until("AlertRule", "misfit", "Accepted", "False").await;
    namespace.until("AlertRule", "good", "Accepted", "True").await;
}

#[tokio::test]
async fn of_two_siems_the_older_one_is_accepted() {
    let Some(namespace) = Namespace::new("siems").await else { return };
    let _operator = Operator::in_namespace(&namespace).await;
    let made = namespace.resource("Siem", "z", json!({})).await;
    namespace.until("Siem", "z", "Accepted", "True").await;
    // The API server tells the time of making in whole seconds.
    let made = made.metadata.creation_timestamp.unwrap().0;
    within(DEADLINE, "a second is over", async || {
        let age = Timestamp::now().duration_since(made);
        (age > SignedDuration::from_secs(1)).then_some(()).ok_or_else(|| format!("{age}"))
    })
    .await;

    namespace.resource("Siem", "a", json!({})).await;
    namespace.until("Siem", "a", "Accepted", "False NotTheOnlySiem").await;
    namespace.delete("Siem", "z").await;

    namespace.until("Siem", "a", "Accepted", "True").await;
}
