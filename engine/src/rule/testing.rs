//! A rule's own tests: its events go through parsing, matching and correlation as live ones do, alone.

use std::sync::Arc;

use redoubt_crds::{Format, LogSourceSpec, Object, RuleTest, RuleTestExpectation};
use serde_json::Value;

use super::{Rule, RuleSet, explain::explain};
use crate::{
    correlate::{Change, Correlator},
    diagnostic::Problem,
    event::{Event, RawEvent},
    format,
    source::Source,
};

/// How many groups a test may open: more than it can have events.
const MAX_GROUPS: usize = 100_000;

/// When the first event of a test is received: 2024-01-01T00:00:00Z. Each next one comes a millisecond later, so that a test's outcome
/// never hangs on the clock. An event without a timestamp of its own happened when it was received.
const FIRST_RECEIVED_MILLIS: i64 = 1_704_067_200_000;

/// The key that holds an event of a text format, which is no JSON object.
const RAW: &str = "raw";

/// How one test of a rule went.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TestOutcome {
    /// The test's name.
    pub name: String,
    /// `Err` says what was expected and what came instead.
    pub result: Result<(), Problem>,
}

/// Runs a rule's own tests, through parsing, matching and correlation, alone. A rule that is not enabled is tested all the same.
#[must_use]
pub fn run_tests(rule: &Arc<Rule>) -> Vec<TestOutcome> {
    let set = Arc::new(RuleSet::of_one(rule.clone()));
    let run = |(index, test): (usize, &RuleTest)| TestOutcome { name: test.name.clone(), result: run_test(rule, &set, index, test) };
    rule.spec.tests.iter().enumerate().map(run).collect()
}

/// What is wrong with a test's events before any is parsed.
pub(super) fn check_events(index: usize, test: &RuleTest) -> Vec<Problem> {
    let format = test.format.unwrap_or(Format::Json);
    let wrong = |(at, event): (usize, &Object)| match body(format, event) {
        Some(_) => None,
        None => {
            let message = format!("a {} event is a text", format_name(format));
            Some(Problem::new(
                format!("spec.tests[{index}].events[{at}]"),
                message,
                format!("write it as `{RAW}: \"...\"`, and nothing beside it"),
            ))
        }
    };
    test.events.iter().enumerate().filter_map(wrong).collect()
}

fn format_name(format: Format) -> String {
    match serde_json::to_value(format) {
        Ok(Value::String(name)) => name,
        _ => format!("{format:?}"),
    }
}

/// The event as its source would send it; `None` where the format is a text and the event is not written as one.
fn body(format: Format, event: &Object) -> Option<String> {
    match format {
        Format::Syslog | Format::Cef => match event.0.get(RAW) {
            Some(Value::String(text)) if event.0.len() == 1 => Some(text.clone()),
            _ => None,
        },
        Format::Json | Format::Ndjson | Format::Mozdef | Format::Cloudtrail | Format::Windows | Format::Zeek => {
            Some(event.to_value().to_string())
        }
    }
}

fn run_test(rule: &Rule, set: &Arc<RuleSet>, index: usize, test: &RuleTest) -> Result<(), Problem> {
    let field = format!("spec.tests[{index}]");
    let source = source(rule, test, &field)?;
    let mut correlator = Correlator::new(set.clone(), MAX_GROUPS);
    let mut matched = Vec::with_capacity(test.events.len());
    let mut alerts = 0_u32;
    let mut unmatched: Option<Event> = None;
    for (at, event) in test.events.iter().enumerate() {
        let event = parse(&source, at, event).map_err(|message| Problem::new(format!("{field}.events[{at}]"), message, ""))?;
        let found = set.matches(&event);
        if found.is_empty() {
            unmatched.get_or_insert(event);
        } else {
            matched.push(at);
        }
        for found in found {
            for change in correlator.apply(found) {
                alerts += u32::from(matches!(change, Change::Raised(_)));
            }
        }
    }
    if holds(&test.expect, alerts) {
        return Ok(());
    }
    let mut message = format!("expected {}, got {}", expected(&test.expect), count_alerts(alerts));
    message.push_str(&format!("; {}", events_that_match(&matched, test.events.len())));
    let why_not = unmatched.and_then(|event| explain(rule, &event).why_not());
    if let Some(why_not) = why_not.filter(|_| wants_more(&test.expect, alerts)) {
        message.push_str(&format!("; {why_not}"));
    }
    Err(Problem::new(format!("{field}.expect"), message, ""))
}

/// Where the test's events come from. A format that tells an event's logsource is left to it; for others the rule's own stands in, so
/// that a test need not repeat it.
fn source(rule: &Rule, test: &RuleTest, field: &str) -> Result<Source, Problem> {
    let format = test.format.unwrap_or(Format::Json);
    let told_by_format = matches!(format, Format::Cloudtrail | Format::Windows | Format::Zeek);
    let logsource = test.logsource.clone().or_else(|| (!told_by_format).then(|| rule.logsource()));
    let spec = LogSourceSpec { format: Some(format), logsource, ..LogSourceSpec::default() };
    Source::compile("test", &spec).map_err(|problems| {
        let messages: Vec<String> = problems.into_iter().map(|problem| problem.message).collect();
        Problem::new(format!("{field}.logsource"), messages.join("; "), "")
    })
}

fn parse(source: &Source, at: usize, event: &Object) -> Result<Event, String> {
    let body = body(source.format, event).ok_or_else(|| format!("a {} event is a text", format_name(source.format)))?;
    let received_millis = FIRST_RECEIVED_MILLIS + i64::try_from(at).unwrap_or(i64::MAX - FIRST_RECEIVED_MILLIS);
    let raw = RawEvent { id: format!("test-{at}"), received_millis, source: source.name.clone(), sender: None, body };
    format::parse(source, &raw).map_err(|error| error.to_string())
}

fn holds(expect: &RuleTestExpectation, alerts: u32) -> bool {
    expect.fires.is_none_or(|fires| fires == (alerts > 0)) && expect.alerts.is_none_or(|count| count == alerts)
}

fn wants_more(expect: &RuleTestExpectation, alerts: u32) -> bool {
    expect.fires == Some(true) || expect.alerts.is_some_and(|count| count > alerts)
}

fn expected(expect: &RuleTestExpectation) -> String {
    match (expect.alerts, expect.fires) {
        (Some(count), _) => count_alerts(count),
        (None, Some(true)) => "an alert".to_owned(),
        (None, _) => "no alert".to_owned(),
    }
}

fn count_alerts(count: u32) -> String {
    match count {
        0 => "no alert".to_owned(),
        1 => "1 alert".to_owned(),
        count => format!("{count} alerts"),
    }
}

fn events_that_match(matched: &[usize], events: usize) -> String {
    match matched {
        [] => format!("none of the {events} events match"),
        [first] => format!("of the {events} events number {first} matches"),
        [first, .., last] => format!("{} of the {events} events match, from number {first} to {last}", matched.len()),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::rule::fixture::rule;

    fn outcome(rule_value: &Value, test: &Value) -> Result<(), String> {
        let mut value = rule_value.clone();
        value["tests"] = json!([test]);
        let [outcome] = run_tests(&rule("under-test", value)).try_into().unwrap();
        outcome.result.map_err(|problem| format!("{}: {}", problem.field, problem.message))
    }

    fn whoami() -> Value {
        json!({"enabled": false, "sigma": {
            "title": "t", "logsource": {"product": "windows", "category": "process_creation"},
            "detection": {"selection": {"CommandLine|contains": "whoami"}, "condition": "selection"},
        }})
    }

    fn brute_force() -> Value {
        json!({"threshold": {
            "match": {"sigma": {"logsource": {"product": "linux", "service": "sshd"}, "detection": {"s": ["Failed password"], "condition": "s"}}},
            "groupBy": ["host.name"], "count": 2, "window": "5m",
        }})
    }

    #[test]
    fn a_test_that_holds_says_nothing() {
        let sysmon = json!({"EventID": 1, "Channel": "Microsoft-Windows-Sysmon/Operational", "CommandLine": "whoami"});
        for (rule, test) in [
            (whoami(), json!({"events": [{"CommandLine": "whoami"}], "expect": {"fires": true}})),
            (whoami(), json!({"events": [{"CommandLine": "dir"}], "expect": {"fires": false}})),
            (whoami(), json!({"events": [{"CommandLine": "whoami"}, {"CommandLine": "whoami"}], "expect": {"alerts": 2}})),
            (whoami(), json!({"events": [{"CommandLine": "whoami"}], "logsource": {"product": "linux"}, "expect": {"fires": false}})),
            (whoami(), json!({"format": "windows", "events": [sysmon], "expect": {"fires": true}})),
            (
                brute_force(),
                json!({"format": "syslog", "expect": {"alerts": 1}, "events": [
                    {"raw": "<86>1 2024-05-01T10:00:00Z web-1 sshd 1 - - Failed password for root"},
                    {"raw": "<86>1 2024-05-01T10:04:00Z web-1 sshd 1 - - Failed password for root"},
                    {"raw": "<86>1 2024-05-01T10:04:30Z web-2 sshd 1 - - Failed password for root"},
                ]}),
            ),
        ] {
            let mut test = test;
            test["name"] = json!("n");

            assert_eq!(outcome(&rule, &test), Ok(()), "{test}");
        }
    }

    #[test]
    fn a_test_that_does_not_hold_says_what_came_instead_and_what_was_in_the_way() {
        for (rule, test, message) in [
            (
                whoami(),
                json!({"name": "n", "events": [{"CommandLine": "dir"}], "expect": {"fires": true}}),
                "spec.tests[0].expect: expected an alert, got no alert; none of the 1 events match; \
                 selection: CommandLine contains \"whoami\" does not hold, the event has \"dir\"",
            ),
            (
                whoami(),
                json!({"name": "n", "events": [{"CommandLine": "whoami"}], "expect": {"alerts": 0}}),
                "spec.tests[0].expect: expected no alert, got 1 alert; of the 1 events number 0 matches",
            ),
            (
                brute_force(),
                json!({"name": "n", "format": "syslog", "expect": {"fires": true}, "events": [
                    {"raw": "<86>1 2024-05-01T10:00:00Z web-1 sshd 1 - - Failed password for root"},
                    {"raw": "<86>1 2024-05-01T10:06:00Z web-1 sshd 1 - - Failed password for root"},
                ]}),
                "spec.tests[0].expect: expected an alert, got no alert; 2 of the 2 events match, from number 0 to 1",
            ),
            (
                whoami(),
                json!({"name": "n", "format": "windows", "events": [{"CommandLine": "whoami"}], "expect": {"fires": true}}),
                "spec.tests[0].events[0]: not a Windows event: no event id found (Event.System.EventID, winlog.event_id or EventID)",
            ),
        ] {
            assert_eq!(outcome(&rule, &test), Err(message.to_owned()));
        }
    }

    #[test]
    fn the_rules_on_the_page_about_rules_pass_their_tests() {
        let page = include_str!("../../../docs/rules.md");
        let examples: Vec<&str> =
            page.split("```yaml\n").filter(|part| part.starts_with("apiVersion")).filter_map(|part| part.split("```").next()).collect();

        for example in &examples {
            let resource: redoubt_crds::AlertRule = serde_yaml::from_str(example).unwrap();
            let rule = Rule::compile("example", &resource.spec.into()).unwrap_or_else(|problems| panic!("{example}: {problems:?}"));
            let outcomes = run_tests(&Arc::new(rule));

            assert!(!outcomes.is_empty());
            assert!(outcomes.iter().all(|outcome| outcome.result.is_ok()), "{outcomes:?}");
        }
        assert_eq!(examples.len(), 2);
    }

    #[test]
    fn an_event_of_a_text_format_must_be_a_text() {
        let mut value = brute_force();
        value["tests"] = json!([{"name": "n", "format": "syslog", "events": [{"message": "x"}], "expect": {"fires": true}}]);

        let problems = Rule::compile("r", &crate::rule::fixture::spec(value).into()).err().unwrap();

        assert_eq!((problems[0].field.as_str(), problems[0].message.as_str()), ("spec.tests[0].events[0]", "a syslog event is a text"));
    }
}
