use std::path::Path;

use redoubt_crds::{ManagedStore, Resources, in_cluster};
use redoubt_engine::resource::read;

use super::*;

fn rule(name: &str, generation: i64, condition: &str) -> String {
    format!(
        "---
apiVersion: redoubt.dev/v1alpha1
kind: AlertRule
metadata: {{name: {name}, generation: {generation}}}
spec:
  sigma:
    title: A colour
    logsource: {{product: paint}}
    detection: {{red: {{colour: red}}, condition: {condition}}}
"
    )
}

/// What was read now, and what others saw run.
fn loaded(now: &[String], last_good: &[String]) -> Loaded {
    let read = |texts: &[String]| read(Path::new("r.yaml"), &texts.concat());
    let file = read(now);
    let input = Input { resources: file.resources, refused: file.refused.into_iter().collect(), ..Input::default() };
    Loaded { input, diagnostics: file.diagnostics, last_good: read(last_good).resources }
}

fn running(plan: &Plan) -> Vec<(String, Option<i64>)> {
    plan.running().map(|running| (running.name.to_owned(), running.generation)).collect()
}

#[test]
fn a_process_that_starts_goes_on_with_the_last_good_versions_that_others_saw() {
    for (case, now, last_good, expected) in [
        ("it is bad now", rule("r", 5, "oops"), rule("r", 3, "red"), Some(3)),
        ("it makes no sense now", rule("r", 5, "red").replace("sigma:", "magic:"), rule("r", 3, "red"), Some(3)),
        ("it is good again", rule("r", 5, "red"), rule("r", 3, "red"), Some(5)),
        ("the other version is bad, too", rule("r", 5, "oops"), rule("r", 3, "oops"), None),
    ] {
        let compiled = loaded(&[now, rule("other", 1, "red")], &[last_good]).compile(None);

        let runs = running(&compiled.plan).into_iter().find(|(name, _)| name == "r").and_then(|(_, generation)| generation);
        assert_eq!(runs, expected, "{case}");
        assert_eq!(running(&compiled.plan)[0], ("other".to_owned(), Some(1)), "{case}: others run");
    }
}

#[test]
fn a_last_good_version_of_something_that_is_gone_does_not_run() {
    assert!(running(&loaded(&[], &[rule("r", 3, "red")]).compile(None).plan).is_empty());
}

#[test]
fn a_bad_resource_is_reported_once_whatever_its_last_good_version() {
    let compiled = loaded(&[rule("r", 5, "oops")], &[rule("r", 3, "red")]).compile(None);

    assert_eq!(compiled.diagnostics.len(), 1, "{:?}", compiled.diagnostics);
}

#[test]
fn of_two_good_versions_the_newer_one_goes_on() {
    let plan = loaded(&[rule("r", 4, "red")], &[]).compile(None).plan;

    for (others, expected) in [(3, 4), (4, 4), (5, 5)] {
        let compiled = loaded(&[rule("r", 6, "oops")], &[rule("r", others, "red")]).compile(Some(&plan));

        assert_eq!(running(&compiled.plan), [("r".to_owned(), Some(expected))], "others saw {others}");
    }
}

#[test]
fn a_siem_names_what_waits_for_the_next_start_and_only_that() {
    let change = |change: fn(&mut SiemSpec)| {
        let mut spec = SiemSpec::default();
        change(&mut spec);
        spec
    };
    let before = in_cluster::resolve("soc", "security", &SiemSpec::default());

    for (case, after, expected) in [
        ("nothing", SiemSpec::default(), &[][..]),
        ("pods", change(|siem| siem.correlate.replicas = 9), &[]),
        ("what pods are given", change(|siem| siem.correlate.resources = Resources::of("4", "8Gi")), &[]),
        (
            "what runs RabbitMQ",
            change(|siem| siem.broker.managed = Some(redoubt_crds::ManagedBroker { config: "a = b".to_owned(), ..Default::default() })),
            &[],
        ),
        ("retention, which is followed", change(|siem| siem.retention.events = redoubt_crds::Duration::from_secs(1)), &[]),
        ("the listener, which is followed", change(|siem| siem.ingest.port = 9000), &[]),
        ("partitions", change(|siem| siem.correlate.partitions = 7), &["spec.correlate"]),
        ("groups", change(|siem| siem.correlate.max_groups = 7), &["spec.correlate"]),
        ("bytes of the queue", change(|siem| siem.broker.max_bytes = 7), &["spec.broker"]),
        ("deliveries", change(|siem| siem.broker.delivery_limit = 7), &["spec.broker"]),
        ("refresh", change(|siem| siem.store.refresh = redoubt_crds::Duration::from_secs(7)), &["spec.store"]),
        (
            "how the store is reached",
            change(|siem| siem.store.managed = Some(ManagedStore { security: false, ..Default::default() })),
            &["spec.store"],
        ),
    ] {
        let after = in_cluster::resolve("soc", "security", &after);

        assert_eq!(settings_of_a_start(&before, &after).collect::<Vec<_>>(), expected, "{case}");
    }
}
