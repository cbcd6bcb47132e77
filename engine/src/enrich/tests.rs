//! Steps and chains, from their resources to what becomes of an event.

use proptest::prelude::*;
use serde::Deserialize as _;
use serde_json::{Map, Value, json};

use super::*;
use crate::event::Event;

fn spec(yaml: &str) -> EnrichmentSpec {
    serde_yaml::from_str(yaml).unwrap()
}

fn event(document: Value) -> Event {
    let Value::Object(document) = document else { panic!("not an object: {document}") };
    Event { id: "1".into(), natural_id: false, received_millis: 1_000, timestamp_millis: 0, logsource: Arc::default(), document }
}

/// Lists `networks` (CIDR) and `users` (exact; `eve` expired at 500 ms).
fn watchlists() -> BTreeMap<String, Arc<Watchlist>> {
    let list =
        |name: &str, yaml: &str| (name.to_owned(), Arc::new(Watchlist::compile(name, &serde_yaml::from_str(yaml).unwrap()).unwrap()));
    BTreeMap::from([
        list("networks", "{match: cidr, entries: [{value: 10.0.0.0/8, comment: ours, attributes: {site: home}}, {value: 10.9.0.0/16}]}"),
        list("users", "{match: exact, entries: [{value: Mallory}, {value: eve, expires: '1970-01-01T00:00:00.5Z'}]}"),
    ])
}

fn assets() -> Assets {
    let city = json!({
        "city": {"names": {"en": "Boxford", "de": "Kastenfurt"}},
        "continent": {"code": "EU", "names": {"en": "Europe"}},
        "country": {"iso_code": "GB", "names": {"en": "United Kingdom"}},
        "location": {"latitude": 51.75, "longitude": -1.25, "time_zone": "Europe/London"},
        "postal": {"code": "OX1"},
        "subdivisions": [{"iso_code": "ENG", "names": {"en": "England"}}, {"iso_code": "WBK"}],
    });
    let country = json!({"country": {"iso_code": "SE", "names": {"en": "Sweden"}}});
    let asn =
        json!({"autonomous_system_number": 4_200_000_001_u32, "autonomous_system_organization": "Example Networks of the Documentation"});
    BTreeMap::from([
        ("city.mmdb".into(), geoip::fixture::database("GeoLite2-City", &[("192.0.2.0/24", city), ("2001:db8::/32", country)])),
        ("asn.mmdb".into(), geoip::fixture::database("GeoLite2-ASN", &[("192.0.2.0/25", asn)])),
        ("broken.mmdb".into(), Arc::from(&b"nonsense"[..])),
    ])
}

fn step(name: &str, yaml: &str) -> Arc<Step> {
    Arc::new(Step::compile(name, &spec(yaml), &watchlists(), &assets()).unwrap_or_else(|problems| panic!("{yaml}: {problems:?}")))
}

/// Runs one step; answers the verdict, the document and the failures.
fn run(yaml: &str, document: Value) -> (Verdict, Value, Vec<Failure>) {
    run_all(vec![step("it", yaml)], document)
}

fn run_all(steps: Vec<Arc<Step>>, document: Value) -> (Verdict, Value, Vec<Failure>) {
    let mut event = event(document);
    let mut failures = Vec::new();
    let verdict = Chain::new(steps).run(&mut event, &mut failures);
    (verdict, Value::Object(event.document), failures)
}

#[test]
fn a_lookup_writes_the_entry_and_its_tags() {
    let yaml = "lookup: {watchlist: networks, field: source.ip, target: labels.net, tags: [internal]}";
    let home = json!({"list": "networks", "value": "10.0.0.0/8", "comment": "ours", "attributes": {"site": "home"}});
    let bare = json!({"list": "networks", "value": "10.9.0.0/16"});
    for (ip, entry) in [
        (json!("10.1.2.3"), Some(&home)),
        (json!("10.9.1.1"), Some(&bare)),
        (json!(["192.0.2.1", "10.9.0.1", "10.1.1.1"]), Some(&bare)),
        (json!("192.0.2.1"), None),
        (json!(null), None),
        (json!({"odd": 1}), None),
    ] {
        let (verdict, after, failures) = run(yaml, json!({"source": {"ip": ip}, "tags": "old"}));

        assert_eq!((verdict, failures), (Verdict::Keep, vec![]));
        assert_eq!(after["labels"]["net"], entry.cloned().unwrap_or_default(), "{ip}");
        assert_eq!(after["tags"], if entry.is_some() { json!(["old", "internal"]) } else { json!("old") }, "{ip}");
    }
}

#[test]
fn a_lookup_holds_an_expiry_against_the_time_of_receipt() {
    let yaml = "lookup: {watchlist: users, field: user.name, target: labels.user}";

    assert_eq!(run(yaml, json!({"user": {"name": "mallory"}})).1["labels"]["user"]["value"], "Mallory");
    assert_eq!(run(yaml, json!({"user": {"name": "eve"}})).1, json!({"user": {"name": "eve"}}));
}

#[test]
fn geoip_writes_place_and_network_by_their_ecs_names() {
    let (_, after, failures) = run(
        "geoip: {city: city.mmdb, asn: asn.mmdb}",
        json!({"source": {"ip": "::ffff:192.0.2.1"}, "destination": {"ip": ["10.0.0.1", "2001:db8::1"], "geo": {"name": "kept"}}}),
    );

    assert_eq!(failures, []);
    assert_eq!(
        after["source"],
        json!({
            "ip": "::ffff:192.0.2.1",
            "geo": {
                "city_name": "Boxford", "continent_code": "EU", "continent_name": "Europe", "country_iso_code": "GB",
                "country_name": "United Kingdom", "location": {"lat": 51.75, "lon": -1.25}, "postal_code": "OX1",
                "region_iso_code": "GB-ENG", "region_name": "England", "timezone": "Europe/London",
            },
            "as": {"number": 4_200_000_001_u32, "organization": {"name": "Example Networks of the Documentation"}},
        })
    );
    assert_eq!(after["destination"]["geo"], json!({"name": "kept", "country_iso_code": "SE", "country_name": "Sweden"}));
    assert_eq!(after["destination"]["as"], Value::Null);
}

#[test]
fn geoip_leaves_no_trace_of_an_address_that_is_unknown() {
    for ip in [json!("10.0.0.1"), json!("fe80::1"), json!("not an address"), json!(7), json!(null), json!([])] {
        let before = json!({"source": {"ip": ip}});

        assert_eq!(run("geoip: {city: city.mmdb, asn: asn.mmdb}", before.clone()).1, before);
    }
}

#[test]
fn a_drop_names_its_reason_and_ends_the_chain() {
    let steps = || {
        vec![
            step("later", "{order: 3, vrl: {source: '.later = true'}}"),
            step("noise", r#"{order: 2, when: '.kind == "noise"', drop: {reason: health checks}}"#),
            step("first", "{order: 1, vrl: {source: '.first = true'}}"),
        ]
    };

    let (verdict, after, _) = run_all(steps(), json!({"kind": "noise"}));
    assert_eq!(verdict, Verdict::Drop { enrichment: "noise".into(), reason: "health checks".into() });
    assert_eq!(after, json!({"kind": "noise", "first": true}));

    let (verdict, after, _) = run_all(steps(), json!({"kind": "signal"}));
    assert_eq!(verdict, Verdict::Keep);
    assert_eq!(after, json!({"kind": "signal", "first": true, "later": true}));
}

#[test]
fn steps_run_by_order_then_by_name() {
    let chain =
        Chain::new(vec![step("b", "{drop: {reason: r}}"), step("c", "{order: -1, drop: {reason: r}}"), step("a", "{drop: {reason: r}}")]);

    assert_eq!(chain.names().collect::<Vec<_>>(), ["c", "a", "b"]);
}

#[test]
fn a_failing_step_changes_nothing_but_the_tag_and_the_next_one_runs() {
    let steps = vec![
        step("a", "{order: 1, vrl: {source: '.n = 1'}}"),
        step("b", "{order: 2, vrl: {source: \".n = 2\\n.x = parse_json!(.message)\"}}"),
        step("c", "{order: 3, when: 'contains(string!(.absent), \"x\")', drop: {reason: r}}"),
        step("d", "{order: 4, vrl: {source: '.m = .n'}}"),
    ];

    let (verdict, after, failures) = run_all(steps, json!({"message": "no json"}));

    assert_eq!(verdict, Verdict::Keep);
    assert_eq!(after, json!({"message": "no json", "n": 1, "m": 1, "tags": [FAILED_TAG]}));
    assert_eq!(failures.iter().map(|failure| failure.enrichment.as_str()).collect::<Vec<_>>(), ["b", "c"]);
    assert!(failures[0].message.contains("parse_json"), "{failures:?}");
    assert!(failures[1].message.starts_with("when: "), "{failures:?}");
}

#[test]
fn steps_see_what_programs_before_them_wrote() {
    let steps = vec![
        step("a", "{order: 1, vrl: {source: '.source.ip = \"10.9.0.1\"'}}"),
        step(
            "b",
            "{order: 2, when: '.source.ip == \"10.9.0.1\"', lookup: {watchlist: networks, field: source.ip, target: labels.net, tags: [t]}}",
        ),
        step("c", "{order: 3, vrl: {source: '.copy = .labels.net.value'}}"),
        step("d", "{order: 4, lookup: {watchlist: networks, field: copied.key, target: labels.dotted}}"),
    ];

    let (_, after, failures) = run_all(steps, json!({"copied.key": ["10.0.0.1"], "labels": "scalar"}));

    assert_eq!(failures, []);
    assert_eq!(after["copy"], "10.9.0.0/16");
    assert_eq!(after["labels"]["dotted"]["value"], "10.0.0.0/8");
    assert_eq!(after["tags"], json!(["t"]));
}

#[test]
fn a_program_that_moves_the_event_in_time_moves_its_milliseconds_too() {
    let mut event = event(json!({"@timestamp": "1970-01-01T00:00:00.000Z"}));

    Chain::new(vec![step("it", "vrl: {source: '.\"@timestamp\" = \"1970-01-01T00:00:09Z\"'}")]).run(&mut event, &mut Vec::new());

    assert_eq!(event.timestamp_millis, 9_000);
}

#[test]
fn what_cannot_be_made_ready_says_where_and_why() {
    for (yaml, field, message) in [
        ("{}", "spec", "one thing"),
        ("{drop: {reason: r}, vrl: {source: .}}", "spec", "one thing"),
        ("{when: .a, drop: {reason: r}}", "spec.when", "true or false"),
        ("vrl: {source: '.a = now()'}", "spec.vrl.source", "reads the clock"),
        ("lookup: {watchlist: none, field: a, target: b}", "spec.lookup.watchlist", "there is no Watchlist none"),
        ("lookup: {watchlist: users, field: a..b, target: b}", "spec.lookup.field", "no path"),
        ("lookup: {watchlist: users, field: a, target: event}", "spec.lookup.target", "overwrite event.id"),
        ("lookup: {watchlist: users, field: a, target: '@timestamp'}", "spec.lookup.target", "overwrite @timestamp"),
        ("lookup: {watchlist: users, field: a, target: a}", "spec.lookup.target", "take the place"),
        ("geoip: {city: none.mmdb}", "spec.geoip.city", "there is no file none.mmdb"),
        ("geoip: {city: broken.mmdb}", "spec.geoip.city", "no MaxMind database"),
        ("geoip: {city: asn.mmdb}", "spec.geoip.city", "of type GeoLite2-ASN"),
        ("geoip: {asn: asn.mmdb, fields: [source.ip, details.addr]}", "spec.geoip.fields[1]", "does not end in .ip"),
        ("geoip: {fields: [source.ip]}", "spec.geoip", "no database"),
    ] {
        let problems = Step::compile("it", &spec(yaml), &watchlists(), &assets()).unwrap_err();

        assert_eq!(problems.len(), 1, "{yaml}: {problems:?}");
        assert_eq!(problems[0].field, field, "{yaml}: {problems:?}");
        assert!(problems[0].message.contains(message), "{yaml}: {problems:?}");
    }
}

#[test]
fn all_problems_of_a_step_are_told_at_once() {
    let problems =
        Step::compile("it", &spec("{when: .a, lookup: {watchlist: none, field: '', target: tags}}"), &watchlists(), &assets()).unwrap_err();

    let fields: Vec<_> = problems.iter().map(|problem| problem.field.as_str()).collect();
    assert_eq!(fields, ["spec.when", "spec.lookup.field", "spec.lookup.target", "spec.lookup.watchlist"]);
}

#[test]
fn a_step_runs_its_own_tests_and_says_what_came_instead() {
    let step = step(
        "it",
        r#"
        when: .kind == "a"
        vrl: { source: ".n = 1.0\n.deep = {\"x\": [1, 2]}\ndel(.gone)\nif exists(.bad) { .y = parse_json!(.bad) }" }
        tests:
        - { name: holds, event: { kind: a, gone: 1 }, expect: { event: { n: 1, deep.x: [1, 2], gone: null, deep: { y: null } } } }
        - { name: differs, event: { kind: a }, expect: { event: { n: 2, deep: { x: null }, m: 3 } } }
        - { name: not meant, event: { kind: b }, expect: { event: { n: 1 } } }
        - { name: no drop, event: { kind: a }, expect: { dropped: true } }
        - { name: goes on, event: { kind: a }, expect: { dropped: false } }
        - { name: fails, event: { kind: a, bad: "{" }, expect: { dropped: false } }
        "#,
    );

    let outcomes = step.run_tests();

    let told: Vec<_> = outcomes
        .iter()
        .map(|outcome| outcome.result.as_ref().err().map(|problem| (problem.field.as_str(), problem.message.as_str())))
        .collect();
    assert_eq!(told[0], None);
    assert_eq!(
        told[1],
        Some((
            "spec.tests[1]",
            r#"test "differs": deep.x: expected it absent, found [1,2]; m: expected 3, found nothing; n: expected 2, found 1.0"#
        ))
    );
    assert_eq!(
        told[2],
        Some(("spec.tests[2]", r#"test "not meant": the step's `when` is not true of this event; n: expected 1, found nothing"#))
    );
    assert_eq!(told[3], Some(("spec.tests[3]", r#"test "no drop": expected a drop, but the event goes on"#)));
    assert_eq!(told[4], None);
    assert!(told[5].unwrap().1.contains("the step failed: "), "{:?}", told[5]);
}

#[test]
fn a_test_of_a_drop_looks_at_the_verdict() {
    let step = step(
        "it",
        r#"
        when: .kind == "noise"
        drop: { reason: health checks }
        tests:
        - { name: dropped, event: { kind: noise }, expect: { dropped: true } }
        - { name: kept, event: { kind: signal }, expect: { dropped: false } }
        - { name: untouched, event: { kind: signal }, expect: { event: { kind: signal } } }
        - { name: wrong, event: { kind: noise }, expect: { event: { kind: noise } } }
        - { name: also wrong, event: { kind: signal }, expect: { dropped: true } }
        "#,
    );

    let holds: Vec<_> = step.run_tests().into_iter().map(|outcome| (outcome.name, outcome.result.is_ok())).collect();

    assert_eq!(
        holds,
        [("dropped".into(), true), ("kept".into(), true), ("untouched".into(), true), ("wrong".into(), false), ("also wrong".into(), false)]
            as [(String, bool); 5]
    );
}

/// Every resource in the handbook, by kind, name and spec.
fn handbook() -> Vec<(String, String, Value)> {
    let text = include_str!("../../../docs/enrichments.md");
    let blocks = text.split("```yaml\n").skip(1).map(|rest| rest.split("```").next().unwrap());
    let documents =
        blocks.flat_map(|block| serde_yaml::Deserializer::from_str(block).map(|document| Value::deserialize(document).unwrap()));
    documents
        .map(|resource| {
            (
                resource["kind"].as_str().unwrap().to_owned(),
                resource["metadata"]["name"].as_str().unwrap().to_owned(),
                resource["spec"].clone(),
            )
        })
        .collect()
}

#[test]
fn the_handbooks_examples_compile_and_their_tests_hold() {
    let lists: BTreeMap<_, _> = handbook()
        .into_iter()
        .filter(|(kind, ..)| kind == "Watchlist")
        .map(|(_, name, spec)| (name.clone(), Arc::new(Watchlist::compile(&name, &serde_json::from_value(spec).unwrap()).unwrap())))
        .collect();
    let found = assets();
    let assets = [("GeoLite2-City.mmdb", "city.mmdb"), ("GeoLite2-ASN.mmdb", "asn.mmdb")]
        .map(|(name, ours)| (PathBuf::from("/var/lib/redoubt").join(name), Arc::clone(&found[&PathBuf::from(ours)])))
        .into();

    let mut tests = 0;
    let enrichments: Vec<_> = handbook().into_iter().filter(|(kind, ..)| kind == "Enrichment").collect();
    for (_, name, spec) in &enrichments {
        let step = Step::compile(name, &serde_json::from_value(spec.clone()).unwrap(), &lists, &assets)
            .unwrap_or_else(|problems| panic!("{name}: {problems:?}"));
        for outcome in step.run_tests() {
            assert_eq!(outcome.result, Ok(()), "{name}: {}", outcome.name);
            tests += 1;
        }
    }

    assert_eq!((enrichments.len(), lists.len(), tests), (4, 1, 4));
}

#[test]
fn a_chain_is_shared_by_threads() {
    fn shared<T: Send + Sync>() {}
    shared::<Chain>();
    shared::<Predicate>();
    shared::<Watchlist>();
}

fn any_leaf() -> impl Strategy<Value = Value> {
    prop_oneof![
        any::<i64>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        "[a-z]{0,6}".prop_map(Value::from),
        any::<bool>().prop_map(Value::from)
    ]
}

proptest! {
    #[test]
    fn a_chain_keeps_every_field_that_it_does_not_touch(
        details in prop::collection::btree_map("[a-z.]{1,5}", prop::collection::vec(any_leaf(), 0..4), 0..6),
        fails in any::<bool>(),
    ) {
        let details: Map<String, Value> = details.into_iter().map(|(key, list)| (key, Value::Array(list))).collect();
        let program = if fails { "vrl: {source: \"del(.details)\\n.x = parse_json!(.message)\"}" } else { "vrl: {source: '.touched = true'}" };
        let steps = vec![
            step("lookup", "{order: 1, lookup: {watchlist: networks, field: source.ip, target: labels.net}}"),
            step("program", program),
        ];

        let (_, after, failures) = run_all(steps, json!({"details": details.clone(), "message": "no", "source": {"ip": "10.0.0.1"}}));

        prop_assert_eq!(failures.len(), usize::from(fails));
        prop_assert_eq!(&after["details"], &Value::Object(details));
        prop_assert_eq!(&after["source"]["ip"], "10.0.0.1");
    }
}
