use std::path::Path;

use redoubt_crds::SigmaLogsource;
use serde_json::json;

use super::*;
use crate::resource::read;

const SOURCE: &str = "
apiVersion: redoubt.dev/v1alpha1
kind: LogSource
metadata: {name: app}
spec: {http: {auth: {bearer: {name: ingest, key: token}}}}
";

fn watchlist(entry: &str) -> String {
    format!(
        "
apiVersion: redoubt.dev/v1alpha1
kind: Watchlist
metadata: {{name: bad}}
spec: {{match: exact, entries: [{{value: {entry}}}]}}
"
    )
}

const LOOKUP: &str = "
apiVersion: redoubt.dev/v1alpha1
kind: Enrichment
metadata: {name: mark}
spec: {lookup: {watchlist: bad, field: user.name, target: threat.indicator}}
";

fn enrichment(source: &str) -> String {
    format!(
        "
apiVersion: redoubt.dev/v1alpha1
kind: Enrichment
metadata: {{name: paint}}
spec:
  vrl:
    source: {source:?}
"
    )
}

/// Files by name, each with its text.
fn input(files: &[(&str, &str)]) -> Input {
    let mut input = Input::default();
    for (name, text) in files {
        let file = read(Path::new(name), text);
        if file.incomplete {
            input.incomplete_paths.insert(PathBuf::from(name));
        }
        input.refused.extend(file.refused);
        input.resources.extend(file.resources);
    }
    input
}

fn event(body: &str) -> RawEvent {
    RawEvent { id: "e1".into(), received_millis: 1_760_000_000_000, source: "app".into(), sender: None, body: body.into() }
}

fn field(plan: &Plan, body: &str, path: &str) -> Option<String> {
    match plan.process(&event(body)) {
        Outcome::Event { event, .. } => event.get_text(path),
        other => panic!("no event: {other:?}"),
    }
}

fn messages(compiled: &Compiled) -> Vec<String> {
    compiled.diagnostics.iter().map(ToString::to_string).collect()
}

#[test]
fn a_bad_resource_is_left_out_and_all_others_run() {
    let compiled = compile(&input(&[("a.yaml", SOURCE), ("b.yaml", &enrichment(".colour = oops"))]), None);

    assert_eq!(messages(&compiled).len(), 1, "{:?}", messages(&compiled));
    assert!(messages(&compiled)[0].starts_with("b.yaml:7:"), "{:?}", messages(&compiled));
    assert_eq!(field(&compiled.plan, r#"{"message": "hi"}"#, "message").as_deref(), Some("hi"));
}

#[test]
fn a_plan_tells_the_generation_of_each_version_that_runs() {
    let generation = |number: i64, source: &str| enrichment(source).replace("name: paint", &format!("name: paint, generation: {number}"));
    let running = |plan: &Plan| plan.running().map(|running| (running.name.to_owned(), running.generation)).collect::<Vec<_>>();
    let mut plan = Plan::default();

    for (case, text, expected) in [
        ("new", generation(1, ".a = 1"), Some(1)),
        ("as before, by way of another", generation(3, ".a = 1"), Some(3)),
        ("bad: the last good one goes on", generation(4, ".a = oops"), Some(3)),
        ("good again", generation(5, ".a = 2"), Some(5)),
        ("from a file", enrichment(".a = 2"), None),
    ] {
        plan = compile(&input(&[("e.yaml", &text)]), Some(&plan)).plan;

        assert_eq!(running(&plan), [("paint".to_owned(), expected)], "{case}");
    }
}

#[test]
fn a_resource_that_becomes_bad_keeps_its_last_good_version() {
    let first = compile(&input(&[("a.yaml", SOURCE), ("b.yaml", &enrichment(".colour = \"red\""))]), None);

    let second = compile(&input(&[("a.yaml", SOURCE), ("b.yaml", &enrichment(".colour = oops"))]), Some(&first.plan));

    assert_eq!(second.diagnostics.len(), 1);
    assert_eq!(field(&second.plan, "{}", "colour").as_deref(), Some("red"));
}

#[test]
fn a_file_that_stops_being_yaml_has_not_deleted_what_it_held() {
    let first = compile(&input(&[("a.yaml", SOURCE), ("b.yaml", &enrichment(".colour = \"red\""))]), None);

    let second = compile(&input(&[("a.yaml", SOURCE), ("b.yaml", "kind: [")]), Some(&first.plan));
    let third = compile(&input(&[("a.yaml", SOURCE)]), Some(&second.plan));

    assert_eq!(field(&second.plan, "{}", "colour").as_deref(), Some("red"));
    assert_eq!(field(&third.plan, "{}", "colour"), None);
}

#[test]
fn a_resource_whose_spec_makes_no_sense_any_more_keeps_its_last_good_version() {
    let first = compile(&input(&[("a.yaml", SOURCE), ("b.yaml", &enrichment(".colour = \"red\""))]), None);
    let nonsense = "\napiVersion: redoubt.dev/v1alpha1\nkind: Enrichment\nmetadata: {name: paint}\nspec: {order: many}\n";

    let second = compile(&input(&[("a.yaml", SOURCE), ("b.yaml", nonsense)]), Some(&first.plan));

    assert_eq!(field(&second.plan, "{}", "colour").as_deref(), Some("red"));
}

#[test]
fn a_folder_that_cannot_be_looked_into_has_not_deleted_what_is_below_it() {
    let first = compile(&input(&[("a.yaml", SOURCE), ("rules/b.yaml", &enrichment(".colour = \"red\""))]), None);
    let mut unreadable = input(&[("a.yaml", SOURCE)]);
    unreadable.incomplete_paths.insert(PathBuf::from("rules"));

    let second = compile(&unreadable, Some(&first.plan));

    assert_eq!(field(&second.plan, "{}", "colour").as_deref(), Some("red"));
}

#[test]
fn a_source_that_wants_a_taken_port_keeps_its_old_one() {
    let syslog = |name: &str, port: u16| {
        format!("apiVersion: redoubt.dev/v1alpha1\nkind: LogSource\nmetadata: {{name: {name}}}\nspec: {{syslog: {{tcpPort: {port}}}}}\n")
    };
    let first = compile(&input(&[("a.yaml", &syslog("one", 514)), ("b.yaml", &syslog("two", 515))]), None);

    let second = compile(&input(&[("a.yaml", &syslog("one", 514)), ("b.yaml", &syslog("two", 8080))]), Some(&first.plan));

    let port = second.plan.sources["two"].spec.syslog.as_ref().and_then(|syslog| syslog.tcp_port);
    assert_eq!(port, Some(515));
    assert!(messages(&second)[0].contains("tcp port 8080 belongs to Siem/default"), "{:?}", messages(&second));
}

#[test]
fn a_changed_watchlist_reaches_the_enrichment_that_looks_it_up() {
    let bob = r#"{"user": {"name": "bob"}}"#;
    let first = compile(&input(&[("a.yaml", SOURCE), ("b.yaml", LOOKUP), ("c.yaml", &watchlist("eve"))]), None);

    let second = compile(&input(&[("a.yaml", SOURCE), ("b.yaml", LOOKUP), ("c.yaml", &watchlist("bob"))]), Some(&first.plan));

    assert_eq!(field(&first.plan, bob, "threat.indicator.value"), None);
    assert_eq!(field(&second.plan, bob, "threat.indicator.value").as_deref(), Some("bob"));
}

#[test]
fn of_two_resources_of_one_name_the_first_stands_and_the_second_is_told_of_it() {
    let compiled = compile(&input(&[("a.yaml", SOURCE), ("b.yaml", &enrichment(".a = 1")), ("c.yaml", &enrichment(".a = 2"))]), None);

    assert_eq!(field(&compiled.plan, "{}", "a").as_deref(), Some("1"));
    assert!(messages(&compiled)[0].contains("is declared before, at b.yaml:"), "{:?}", messages(&compiled));
}

#[test]
fn two_sources_cannot_share_a_port() {
    let syslog = |name: &str| {
        format!("apiVersion: redoubt.dev/v1alpha1\nkind: LogSource\nmetadata: {{name: {name}}}\nspec: {{syslog: {{udpPort: 514}}}}\n")
    };

    let compiled = compile(&input(&[("a.yaml", &syslog("one")), ("b.yaml", &syslog("two"))]), None);

    assert_eq!(compiled.plan.sources.len(), 1);
    assert!(messages(&compiled)[0].contains("udp port 514 belongs to LogSource/one"), "{:?}", messages(&compiled));
}

#[test]
fn a_resource_whose_tests_fail_is_not_live_and_its_tests_are_reported() {
    let text = enrichment(".colour = \"red\"")
        + "  tests:\n    - name: paints it green\n      event: {}\n      expect: {event: {colour: green}}\n";

    let compiled = compile(&input(&[("a.yaml", SOURCE), ("b.yaml", &text)]), None);

    assert_eq!(field(&compiled.plan, "{}", "colour"), None);
    assert_eq!(compiled.tests.len(), 1);
    assert!(messages(&compiled)[0].contains("green"), "{:?}", messages(&compiled));
}

#[test]
fn an_unchanged_set_of_rules_is_not_indexed_again() {
    let first = compile(&input(&[("a.yaml", SOURCE)]), None);

    let second = compile(&input(&[("a.yaml", SOURCE), ("b.yaml", &enrichment(".a = 1"))]), Some(&first.plan));

    assert!(Arc::ptr_eq(&first.plan.rules, &second.plan.rules));
}

#[test]
fn an_event_of_a_source_that_is_gone_is_kept_as_a_dead_letter() {
    let compiled = compile(&Input::default(), None);

    let outcome = compiled.plan.process(&event("{}"));

    assert!(matches!(outcome, Outcome::DeadLetter { reason } if reason == "LogSource/app is gone"));
}

const ACTION: &str = "
apiVersion: redoubt.dev/v1alpha1
kind: ResponseAction
metadata: {name: call}
spec: {alerts: {rules: [brute-force]}, log: {}}
";

#[test]
fn a_warning_stands_as_long_as_its_reason_does() {
    let with_action = input(&[("a.yaml", SOURCE), ("b.yaml", ACTION)]);
    let first = compile(&with_action, None);

    let second = compile(&with_action, Some(&first.plan));

    assert_eq!(messages(&first), messages(&second));
    assert!(messages(&first)[0].contains("AlertRule/brute-force does not run"), "{:?}", messages(&first));
}

#[test]
fn a_rule_that_is_judged_apart_is_known() {
    let mut with_action = input(&[("b.yaml", ACTION)]);
    with_action.apart.insert((Kind::AlertRule, "brute-force".to_owned()));

    assert_eq!(messages(&compile(&with_action, None)), [""; 0]);
}

/// A rule, of whose test it is expected that it fires, or that it does not.
fn rule(condition: &str, fires: bool) -> String {
    format!(
        "apiVersion: redoubt.dev/v1alpha1\nkind: AlertRule\nmetadata: {{name: r}}\nspec:\n  sigma:\n    title: t\n    logsource: {{product: p}}\n    \
         detection: {{s: {{a: 1}}, condition: {condition}}}\n  tests: [{{name: one, events: [{{details: {{a: 1}}}}], expect: {{fires: {fires}}}}}]\n"
    )
}

#[test]
fn who_only_counts_matches_judges_rules_alike_and_finds_nothing() {
    for (condition, fires) in [("s", true), ("s", false), ("s and", true)] {
        let finds = input(&[("r.yaml", &rule(condition, fires))]);
        let counts = Input { counts_only: true, ..finds.clone() };

        let (finding, counting) = (compile(&finds, None), compile(&counts, None));

        assert_eq!(messages(&counting), messages(&finding), "{condition} {fires}");
        assert_eq!(counting.plan.rules.len(), finding.plan.rules.len());
        let logsource = SigmaLogsource { product: Some("p".to_owned()), ..SigmaLogsource::default() };
        let document = [("details".to_owned(), json!({"a": 1}))].into_iter().collect();
        let event = Event {
            id: "e1".to_owned(),
            natural_id: false,
            received_millis: 2,
            timestamp_millis: 1,
            logsource: logsource.into(),
            document,
        };
        assert_eq!(finding.plan.rules.matches(&event).len(), finding.plan.rules.len(), "{condition} {fires}");
        assert_eq!(counting.plan.rules.matches(&event), []);
        let info = |compiled: &Compiled| compiled.plan.rules.get("r").map(|rule| rule.info.clone());
        assert_eq!(info(&counting), info(&finding));
    }
}

#[test]
fn a_rule_by_itself_is_judged_as_it_is_among_others() {
    for (text, errors, outcomes) in [(rule("s", true), 0, 1), (rule("s", false), 1, 1), (rule("s and", true), 1, 0)] {
        let alone = input(&[("r.yaml", &text)]);

        let judged = judge(&alone.resources[0]);

        let compiled = compile(&alone, None);
        assert_eq!(judged.diagnostics, compiled.diagnostics, "{text}");
        assert_eq!((judged.diagnostics.len(), judged.tests.len()), (errors, outcomes), "{text}\n{:?}", judged.diagnostics);
        assert_eq!(judged.tests, compiled.tests.into_iter().flat_map(|tests| tests.outcomes).collect::<Vec<_>>());
    }
}
