//! What predicates and programs may do, what they may not, and how they say so.

use proptest::prelude::*;
use serde_json::{Map, Value, json};

use super::*;
use crate::enrich::vrl::event::to_vrl;

fn document(value: Value) -> Map<String, Value> {
    match value {
        Value::Object(map) => map,
        other => panic!("not an object: {other}"),
    }
}

fn event(value: Value) -> Event {
    Event {
        id: "1".into(),
        natural_id: false,
        received_millis: 0,
        timestamp_millis: 0,
        logsource: Default::default(),
        document: document(value),
    }
}

/// Runs a program; answers the outcome and the document afterwards.
fn run(source: &str, before: Value) -> (Result<Outcome, String>, Value) {
    let program = Program::compile(source, "spec.vrl.source").unwrap();
    let mut event = VrlEvent::from_document(document(before));
    let outcome = program.run(&mut event);
    (outcome, Value::Object(event.into_document()))
}

fn problems_of(source: &str) -> Vec<Problem> {
    Program::compile(source, "spec.vrl.source").unwrap_err()
}

#[test]
fn a_predicate_answers_of_the_event() {
    let event =
        event(json!({"user": {"name": "root"}, "source": {"ip": "10.1.2.3"}, "n": 5, "tags": ["a"], "details": {"id.orig_h": "x"}}));
    for (source, answer) in [
        (r#".user.name == "root""#, true),
        (r#".user.name == "eve""#, false),
        (r#"contains(string(.user.name) ?? "", "oo")"#, true),
        (r#"ip_cidr_contains("10.0.0.0/8", .source.ip) ?? false"#, true),
        (r#"exists(.absent)"#, false),
        (r#".n > 3 ?? false"#, true),
        (r#"includes(array(.tags) ?? [], "a")"#, true),
        (r#".details."id.orig_h" == "x""#, true),
        (r#"is_object(.)"#, true),
        ("who = .user\nwho.name == \"root\"", true),
    ] {
        let predicate = Predicate::compile(source, "spec.when").unwrap_or_else(|problems| panic!("{source}: {problems:?}"));

        assert_eq!(predicate.test(&event), Ok(answer), "{source}");
        assert_eq!(predicate.test_value(&mut VrlEvent::from_document(event.document.clone())), Ok(answer), "{source}");
    }
}

#[test]
fn a_predicate_reads_only_the_fields_that_it_names() {
    for (source, needs) in [
        (".a.b == 1 && .c == .a.d", Needs::Fields(vec!["a".into(), "c".into()])),
        ("true", Needs::Fields(Vec::new())),
        ("is_object(.)", Needs::Everything),
        (r#"get!(., ["a"]) == 1"#, Needs::Everything),
    ] {
        assert_eq!(Predicate::compile(source, "spec.when").unwrap().needs, needs, "{source}");
    }
}

#[test]
fn an_event_that_has_nothing_of_what_a_predicate_reads_gets_the_answer_of_the_expression() {
    let other = event(json!({"other": 1}));
    for source in ["exists(.a)", "!exists(.a)", ".a.b == null || .c == 1", r#".a != "x""#, r#"contains(string!(.a), "x")"#, "true", "false"]
    {
        let predicate = Predicate::compile(source, "spec.when").unwrap();

        let evaluated = predicate.test_value(&mut VrlEvent::from_document(other.document.clone()));

        assert_eq!(predicate.test(&other), evaluated, "{source}");
    }
}

#[test]
fn a_predicate_that_fails_says_what_failed() {
    let predicate = Predicate::compile(r#"contains(string!(.message), "x")"#, "spec.when").unwrap();

    let error = predicate.test(&event(json!({"message": 7}))).unwrap_err();

    assert!(error.contains("expected string, got integer"), "{error}");
}

#[test]
fn what_is_no_predicate_is_refused_with_its_place_and_a_remedy() {
    for (source, place, message, remedy) in [
        (".user.name", (1, 1), "a condition must be true or false; this is any", "?? false"),
        ("x = 1\n  \"text\"", (2, 3), "a condition must be true or false; this is string", "compare the value"),
        ("contains(.message, \"x\")", (1, 10), "invalid argument type", "string"),
        ("exists(.a) &&\n  nosuch(.b)", (2, 3), "there is no function nosuch", "did you mean"),
        (".a = 1\ntrue", (1, 1), "mutation of read-only value", ""),
        ("if exists(.a) { return \"x\" }\ntrue", (2, 1), "a condition must be true or false; this is string", "compare"),
    ] {
        let problems = Predicate::compile(source, "spec.when").unwrap_err();

        let problem = &problems[0];
        assert_eq!(problem.field, "spec.when");
        assert!(problem.message.contains(message), "{source}: {problem:?}");
        assert!(problem.remedy.contains(remedy), "{source}: {problem:?}");
        assert_eq!(problem.within, Some(place), "{source}: {problem:?}");
    }
    assert!(Predicate::compile("if exists(.a) { abort }\ntrue", "spec.when").unwrap_err()[0].message.contains("cannot abort"));
}

#[test]
fn each_error_of_a_program_has_its_own_line_and_column() {
    let problems = problems_of(".a = nosuch(1)\n.ok = 1\n.\"é\" = upcase(5)\n.z = other(2)\n");

    let places: Vec<_> = problems.iter().map(|problem| problem.within).collect();
    assert_eq!(places, [Some((1, 6)), Some((3, 15)), Some((4, 6))], "{problems:?}");
}

#[test]
fn a_text_that_does_not_parse_has_a_place() {
    for (source, place) in [(".a = ", (1, 5)), (".a = 1\n.b = )", (2, 6)), ("é = \"open", (1, 5))] {
        let problems = problems_of(source);

        assert_eq!(problems[0].within, Some(place), "{source}: {problems:?}");
        assert!(!problems[0].message.contains(['\u{1b}', '\n']), "{problems:?}");
    }
}

#[test]
fn a_fallible_call_that_is_not_handled_is_refused() {
    let problems = problems_of(".a = 1\n.b = parse_json(.message)");

    assert_eq!(problems[0].within, Some((2, 6)), "{problems:?}");
    assert!(problems[0].message.contains("unhandled fallible assignment"), "{problems:?}");
    assert!(!problems[0].remedy.is_empty(), "{problems:?}");
}

#[test]
fn absent_functions_say_why_they_are_absent() {
    for absent in &functions::ABSENT {
        let problems = problems_of(&format!(".x = 1\n.y = {}(.x)", absent.name));

        let problem = &problems[0];
        assert_eq!(problem.message, format!("{} is not available: {}", absent.name, absent.reason));
        assert_eq!(problem.remedy, absent.instead);
        assert_eq!(problem.within, Some((2, 6)));
    }
}

#[test]
fn absent_functions_are_in_the_handbook() {
    let handbook = include_str!("../../../../docs/enrichments.md");

    for absent in &functions::ABSENT {
        assert!(handbook.contains(&format!("`{}`", absent.name)), "{}", absent.name);
    }
}

#[test]
fn every_function_that_the_library_marks_as_undetermined_is_absent() {
    let undetermined = functions::available()
        .iter()
        .filter(|function| !function.examples().iter().all(|example| example.deterministic))
        .map(|function| function.identifier())
        .collect::<Vec<_>>();

    assert!(undetermined.is_empty(), "{undetermined:?}");
    assert!(functions::available().len() > 150, "{}", functions::available().len());
}

#[test]
fn a_program_rewrites_the_event() {
    let source = r#"
        . |= parse_regex!(.message, r'^Failed password for (?<user>\S+) from (?<ip>\S+)')
        .user = {"name": del(.user)}
        .source.ip = del(.ip)
        .event.outcome = "failure"
    "#;

    let (outcome, after) = run(source, json!({"message": "Failed password for root from 192.0.2.1", "event": {"id": "7"}}));

    assert_eq!(outcome, Ok(Outcome::Done(None)));
    assert_eq!(
        after,
        json!({
            "message": "Failed password for root from 192.0.2.1",
            "user": {"name": "root"}, "source": {"ip": "192.0.2.1"}, "event": {"id": "7", "outcome": "failure"},
        })
    );
}

#[test]
fn a_program_that_does_not_end_well_leaves_the_event_as_it_was() {
    let before = json!({"message": "x", "big": 18_446_744_073_709_551_615_u64, "list": [1, 2], "@timestamp": "2026-01-01T00:00:00Z"});
    for (source, expected) in [
        (".a = 1\nabort", Ok(Outcome::Aborted)),
        (".a = 1\n.b = parse_json!(.message)", Err("unable to parse json")),
        (".a = 1\n. = [1]", Err("the program left array in place of the event")),
        (".a = 1\n.\"@timestamp\" = 5", Err("`@timestamp` that is no time")),
        ("del(.\"@timestamp\")", Err("`@timestamp` that is no time")),
        (".a = \"x\" * 5000000", Err("the program left an event of 50000")),
        ("del(.message)\nx = range!(0, 99999)\nfor_each(x) -> |_i, v| { .a = v }", Err("stopped after 20000 expressions")),
        ("for_each(range!(0, 200)) -> |_i, _v| { . = {\"inner\": .} }", Err("nested deeper than 160 levels")),
    ] {
        let (outcome, after) = run(source, before.clone());

        match (&outcome, &expected) {
            (Err(error), Err(part)) => assert!(error.contains(part), "{source}: {error}"),
            (outcome, expected) => assert_eq!(outcome.as_ref().ok(), expected.as_ref().ok(), "{source}"),
        }
        assert_eq!(after, before, "{source}");
    }
}

#[test]
fn who_the_event_is_cannot_be_rewritten() {
    let before = json!({"event": {"id": "7", "ingested": "2026-01-01T00:00:00Z", "kind": "event"}});
    for source in
        [".event.id = \"8\"\n.event.ingested = 5", "del(.event.id)\ndel(.event.ingested)", "del(.event)", ".event = \"gone\"", ". = {}"]
    {
        let (outcome, after) = run(source, before.clone());

        assert_eq!(outcome, Ok(Outcome::Done(None)), "{source}");
        assert_eq!(after["event"]["id"], "7", "{source}");
        assert_eq!(after["event"]["ingested"], "2026-01-01T00:00:00Z", "{source}");
    }

    let (_, after) = run(".event.id = \"new\"\n.event.kind = \"event\"", json!({}));
    assert_eq!(after, json!({"event": {"kind": "event"}}));
}

#[test]
fn a_new_time_of_the_event_is_read_back() {
    for source in [
        r#"."@timestamp" = parse_timestamp!("2026-03-01 12:00:00.5", "%F %T%.f")"#,
        r#"."@timestamp" = "2026-03-01T13:00:00.5+01:00""#,
        r#"."@timestamp" = t'2026-03-01T12:00:00.5Z'"#,
    ] {
        let (outcome, after) = run(source, json!({"@timestamp": "2026-01-01T00:00:00.000Z"}));

        assert_eq!(outcome, Ok(Outcome::Done(Some(1_772_366_400_500))), "{source}");
        assert_eq!(after["@timestamp"], "2026-03-01T12:00:00.500Z", "{source}");
    }
}

#[test]
fn an_event_that_was_large_before_may_stay_so() {
    let text = "x".repeat(MAX_EVENT_BYTES + 1);

    let (outcome, after) = run("del(.b)", json!({"a": text, "b": 1}));

    assert_eq!(outcome, Ok(Outcome::Done(None)));
    assert_eq!(after.as_object().unwrap().len(), 1);
}

#[test]
fn what_json_lacks_comes_back_as_what_it_has() {
    for (source, value) in [
        (".x = t'2026-01-02T03:04:05.678901Z'", json!("2026-01-02T03:04:05.678901Z")),
        (".x = r'a+'", json!("a+")),
        (".x = decode_base64!(\"/w==\")", json!("\u{fffd}")),
        (".x = parse_float!(\"inf\")", Value::Null),
        (".x = .big", json!(18_446_744_073_709_551_615.0)),
        (".x = 0.5", json!(0.5)),
    ] {
        let (outcome, after) = run(source, json!({"big": 18_446_744_073_709_551_615_u64}));

        assert_eq!(outcome, Ok(Outcome::Done(None)), "{source}");
        assert_eq!(after["x"], value, "{source}");
        assert_eq!(after["big"], json!(18_446_744_073_709_551_615_u64), "{source}");
    }
}

#[test]
fn metadata_is_not_available() {
    for source in ["%a = 1", ".a = %b"] {
        assert!(problems_of(source)[0].message.contains("no metadata"), "{source}");
    }
}

/// What a shape is called, how a program of that shape and any depth is written, and the deepest that is taken.
type Shape = (&'static str, fn(usize) -> String, usize);

fn shapes() -> Vec<Shape> {
    use depth::{MAX_CHAIN, MAX_NESTING, MAX_SEGMENTS};
    vec![
        ("brackets", |n| format!(".y = {}1{}", "[".repeat(n), "]".repeat(n)), MAX_NESTING),
        ("groups", |n| format!(".y = {}1{}", "(".repeat(n), ")".repeat(n)), MAX_NESTING),
        ("sums", |n| format!(".y = 1{}", " + 1".repeat(n - 1)), MAX_CHAIN),
        ("alternatives on lines of their own", |n| format!(".y = false{}", " ||\n  true".repeat(n - 1)), MAX_CHAIN),
        ("fallbacks", |n| format!(".y = to_int(.x){} ?? 1", " ??\nto_int(.x)".repeat(n - 2)), MAX_CHAIN),
        ("negations", |n| format!(".y = {}true", "!".repeat(n - 1)), MAX_CHAIN),
        ("assignments", |n| format!("{}1", "y = ".repeat(n)), MAX_CHAIN),
        // One operator in the first condition.
        ("else", |n| format!("if .a == 0 {{ .b = 1 }}{}", " else if .a == 1 {\n .b = 1 }".repeat((n - 1) / 2)), MAX_CHAIN),
        ("segments", |n| format!(".y = {}", ".a".repeat(n)), MAX_SEGMENTS),
        ("quoted segments", |n| format!("{} = 1", ".\"a\"".repeat(n)), MAX_SEGMENTS),
    ]
}

#[test]
fn a_program_as_deep_as_may_be_compiles_and_runs() {
    for (shape, program, limit) in shapes() {
        let compiled = Program::compile(&program(limit), "f").unwrap_or_else(|problems| panic!("{shape}: {problems:?}"));

        let outcome = compiled.run(&mut VrlEvent::from_document(Map::new()));

        assert_eq!(outcome, Ok(Outcome::Done(None)), "{shape}");
    }
}

#[test]
fn a_program_that_is_deeper_is_refused_with_its_place() {
    for (shape, program, limit) in shapes() {
        for depth in [limit + 3, 20 * limit] {
            let problem = Program::compile(&program(depth), "f").unwrap_err().remove(0);

            let told = ["brackets nest", "operators in one", "segments"].iter().any(|part| problem.message.contains(part));
            assert!(told && problem.within.is_some(), "{shape}: {problem:?}");
        }
    }
    assert!(problems_of(&"#".repeat(MAX_SOURCE_BYTES + 1))[0].message.contains("65536 are allowed"));
}

#[test]
fn a_long_program_is_not_a_deep_one() {
    let statements = "x = .a.b + 1 ?? 2 # || || ||\nif x == 1 || (x == 2) {\n  .c = \"||||\" + r'a|b||c' ; .d = [1, 2]\n}\n".repeat(400);

    assert_eq!(depth::check(&statements), Ok(()));
}

/// Any JSON value, the awkward numbers among them.
fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        (i64::MAX as u64..).prop_map(Value::from),
        any::<f64>().prop_filter("JSON has no NaN", |f| f.is_finite()).prop_map(Value::from),
        ".*".prop_map(Value::from),
    ];
    leaf.prop_recursive(4, 64, 8, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..8).prop_map(Value::from),
            prop::collection::btree_map(".*", inner, 0..8).prop_map(|map| Value::Object(map.into_iter().collect())),
        ]
    })
}

proptest! {
    #[test]
    fn a_document_comes_back_as_it_went(map in prop::collection::btree_map(".*", any_json(), 0..8)) {
        let before: Map<String, Value> = map.into_iter().collect();

        let after = VrlEvent::from_document(before.clone()).into_document();

        prop_assert_eq!(after, before);
    }

    #[test]
    fn the_weight_of_a_value_is_near_its_json(value in any_json()) {
        let bytes = event::weigh(&to_vrl(value.clone()), MAX_DEPTH).unwrap();

        prop_assert!(bytes <= 8 * value.to_string().len() + 8, "{} for {}", bytes, value);
    }

    #[test]
    fn no_text_makes_the_compiler_panic(source in "[ -~\n]{0,60}") {
        if let Err(problems) = Program::compile(&source, "f") {
            prop_assert!(!problems.is_empty());
        }
    }
}
