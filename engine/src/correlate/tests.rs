//! What a partition must do: most of it without a rule set, with the rules' specs beside it.

use std::{collections::BTreeMap, sync::LazyLock};

use proptest::prelude::*;
use redoubt_crds::{Matcher, Severity, Suppression, Threshold};

use super::{oracle::found, *};
use crate::{
    event::digest,
    rule::{Reason, Rule, RuleInfo},
};

const MINUTE: i64 = 60_000;

fn info(name: &str) -> RuleInfo {
    RuleInfo {
        name: name.into(),
        id: name.into(),
        title: "Something happened".into(),
        description: String::new(),
        severity: Severity::High,
        tags: Vec::new(),
        attack: Vec::new(),
        runbook: None,
        author: None,
        license: None,
    }
}

fn each() -> AlertRuleSpec {
    AlertRuleSpec { allowed_lateness: "10m".parse().unwrap(), ..AlertRuleSpec::default() }
}

fn suppressed(period: &str) -> AlertRuleSpec {
    AlertRuleSpec { suppress: Some(Suppression { by: Vec::new(), period: period.parse().unwrap() }), ..each() }
}

fn threshold(count: u32, window: &str, distinct: Option<&str>) -> AlertRuleSpec {
    let threshold = Threshold {
        matcher: Matcher::default(),
        group_by: Vec::new(),
        count,
        distinct: distinct.map(str::to_owned),
        window: window.parse().unwrap(),
    };
    AlertRuleSpec { threshold: Some(threshold), ..each() }
}

fn of(rule: &str, group: &[(&str, &str)], found: Match) -> Match {
    let group = group.iter().map(|(field, value)| ((*field).to_owned(), (*value).to_owned())).collect();
    Match { rule: rule.into(), group, ..found }
}

/// A partition, its rules, and its alerts as they last stood.
struct Partition {
    state: State,
    rules: BTreeMap<String, AlertRuleSpec>,
    alerts: BTreeMap<String, Alert>,
}

impl Partition {
    fn new(max_groups: usize, rules: &[(&str, AlertRuleSpec)]) -> Self {
        let rules = rules.iter().map(|(name, spec)| ((*name).to_owned(), spec.clone())).collect();
        Self { state: State::new(max_groups), rules, alerts: BTreeMap::new() }
    }

    fn apply(&mut self, found: Match) -> Vec<Change> {
        let spec = &self.rules[&*found.rule];
        let name = Arc::clone(&found.rule);
        let changes = self.state.apply(found, || Tally::new(info(&name), spec));
        for change in &changes {
            let known = self.alerts.insert(change.alert().id.clone(), change.alert().clone());
            assert_eq!(matches!(change, Change::Raised(_)), known.is_none(), "an alert is raised once and grows afterwards");
        }
        changes
    }

    fn after(max_groups: usize, rules: &[(&str, AlertRuleSpec)], matches: impl IntoIterator<Item = Match>) -> Self {
        let mut partition = Self::new(max_groups, rules);
        for found in matches {
            partition.apply(found);
        }
        partition
    }
}

#[test]
fn each_match_of_a_plain_rule_is_an_alert_once() {
    let mut partition = Partition::new(10, &[("r", each())]);
    let reason = Reason { field: "message".into(), value: "e1".into() };

    let first = partition.apply(Match { reasons: vec![reason.clone()], ..of("r", &[], found("e1", 5)) });
    let again = partition.apply(of("r", &[], found("e1", 5)));
    let other = partition.apply(of("r", &[], found("e2", 5)));

    let [Change::Raised(alert)] = &first[..] else { panic!("{first:?}") };
    assert_eq!(alert.id, digest(&["alert", "r", "e1"]));
    assert_eq!(alert.timestamp, "1970-01-01T00:00:00.005Z");
    assert_eq!((alert.summary.as_str(), alert.event_count), ("Something happened", 1));
    assert_eq!(alert.reasons, [reason]);
    assert_eq!(alert.events[0].id, "e1");
    assert!(again.is_empty());
    assert_eq!(other.len(), 1);
}

#[test]
fn alike_alerts_within_a_step_are_one_that_grows() {
    let group = [("user.name", "root")];
    let mut partition = Partition::new(10, &[("r", suppressed("1m"))]);

    for (time, changes) in [(10, 1), (MINUTE - 1, 1), (MINUTE, 1), (5, 1)] {
        assert_eq!(partition.apply(of("r", &group, found(&format!("e{time}"), time))).len(), changes);
    }
    partition.apply(of("r", &[("user.name", "alice")], found("alice", 10)));

    let alert = &partition.alerts[&digest(&["alert", "r", "user.name", "root", "0"])];
    assert_eq!(alert.timestamp, "1970-01-01T00:00:00.005Z");
    assert_eq!((alert.event_count, alert.summary.as_str()), (3, "Something happened: 3 events from user.name=root"));
    assert_eq!(alert.group, serde_json::Map::from_iter([("user.name".to_owned(), "root".into())]));
    assert!(partition.alerts.contains_key(&digest(&["alert", "r", "user.name", "root", "60000"])));
    assert_eq!(partition.alerts.len(), 3);
}

#[test]
fn a_summary_says_what_was_found_and_what_it_takes() {
    let group = [("source.ip", "203.0.113.9")];
    for (name, spec, group, expected) in [
        ("a threshold", threshold(2, "2m", None), &group[..], "3 events from source.ip=203.0.113.9 (threshold 2 in 2m)"),
        ("without a group", threshold(2, "2m", None), &[], "3 events (threshold 2 in 2m)"),
        (
            "different values",
            threshold(2, "10m", Some("user.name")),
            &group,
            "3 events with 2 or more different user.name from source.ip=203.0.113.9 (threshold 2 in 10m)",
        ),
        ("a value over lines", suppressed("1m"), &[("a", "x\ny")], "Something happened: 3 events from a=x y"),
    ] {
        let matches = (0..3).map(|time| Match { distinct: Some(time.to_string()), ..of("r", group, found(&format!("e{time}"), time)) });

        let partition = Partition::after(10, &[("r", spec)], matches);

        let summaries: Vec<&str> = partition.alerts.values().map(|alert| alert.summary.as_str()).collect();
        assert_eq!(summaries, [expected], "{name}");
    }
}

#[test]
fn a_group_longest_without_a_match_makes_room_and_is_counted() {
    let mut partition = Partition::new(2, &[("r", threshold(2, "1m", None))]);
    for (number, host) in ["a", "b", "a", "c", "b"].iter().enumerate() {
        partition.apply(of("r", &[("host", host)], found(&format!("e{number}"), 1)));
    }

    assert_eq!(partition.alerts.len(), 1, "b was let go when c came, and began anew");
    assert_eq!(partition.state.overflow, Overflow { groups: 2, matches: 0 });
}

#[test]
fn a_rule_that_counts_as_before_keeps_what_it_knows() {
    let two = threshold(2, "1m", None);
    for (name, new, fits) in [
        ("another tag", AlertRuleSpec { tags: vec!["x".into()], ..two.clone() }, true),
        ("another lateness", AlertRuleSpec { allowed_lateness: "1h".parse().unwrap(), ..two.clone() }, true),
        ("another count", threshold(3, "1m", None), false),
        ("another window", threshold(2, "2m", None), false),
        ("another field", threshold(2, "1m", Some("user.name")), false),
        ("another step", AlertRuleSpec { suppress: suppressed("1h").suppress, ..two.clone() }, false),
    ] {
        let mut tally = Tally::new(info("r"), &two);

        assert_eq!(tally.replace(info("r"), &new), fits, "{name}");
    }
}

#[test]
fn groups_that_no_match_comes_to_are_let_go_in_time() {
    let rules = [("r", threshold(2, "1m", None)), ("other", each())];
    let mut partition = Partition::after(10, &rules, [of("r", &[], found("e1", 1))]);

    partition.apply(of("other", &[], found("e2", 60 * MINUTE)));

    assert!(partition.state.tallies["r"].is_empty());
}

#[test]
fn the_holding_time_covers_window_step_and_lateness() {
    for (spec, expected) in [(each(), 10), (suppressed("5m"), 15), (threshold(2, "1m", None), 12)] {
        assert_eq!(hold_millis(&spec) / MINUTE, expected);
    }
}

#[test]
fn a_partition_is_the_same_in_every_process_and_within_range() {
    let found = |value: &str| of("r", &[("source.ip", value)], found("e1", 1));

    assert_eq!(partition(&found("203.0.113.9"), 16), partition(&found("203.0.113.9"), 16));
    assert_eq!(partition(&found("203.0.113.9"), 1), 0);
    assert_eq!(partition(&found("203.0.113.9"), 0), 0);
    let mut hit = [0_u32; 16];
    for number in 0..1_600 {
        hit[usize::from(partition(&found(&number.to_string()), 16))] += 1;
    }
    assert!(hit.iter().all(|count| (50..200).contains(count)), "{hit:?}");
}

fn rule_set(rules: &[(&str, &AlertRuleSpec)]) -> Arc<RuleSet> {
    let compile = |(name, spec): &(&str, &AlertRuleSpec)| {
        let mut spec = (*spec).clone();
        match &mut spec.threshold {
            Some(threshold) => threshold.matcher.when = Some("true".into()),
            None => spec.sigma = serde_json::from_value(SIGMA.clone()).ok(),
        }
        Arc::new(Rule::compile(name, &spec.into()).unwrap_or_else(|problems| panic!("{problems:?}")))
    };
    Arc::new(RuleSet::new(rules.iter().map(compile).collect()))
}

static SIGMA: LazyLock<serde_json::Value> = LazyLock::new(|| {
    serde_json::json!({
        "title": "t", "logsource": {"product": "linux"}, "detection": {"selection": {"message": "x"}, "condition": "selection"},
    })
});

#[test]
fn a_match_of_an_unknown_rule_changes_nothing() {
    let mut correlator = Correlator::new(rule_set(&[]), 10);

    assert_eq!(correlator.apply(of("gone", &[], found("e1", 1))), []);
}

#[test]
fn other_rules_take_over_what_still_fits() {
    let two = threshold(2, "1m", None);
    for (name, rules, expected) in [
        ("as before", rule_set(&[("r", &two)]), 1),
        ("counting to three", rule_set(&[("r", &threshold(3, "1m", None))]), 0),
        ("gone", rule_set(&[]), 0),
    ] {
        let mut correlator = Correlator::new(rule_set(&[("r", &two)]), 10);
        correlator.apply(of("r", &[], found("e1", 1)));

        correlator.replace_rules(rules);

        assert_eq!(correlator.apply(of("r", &[], found("e2", 2))).len(), expected, "{name}");
    }
}

#[test]
fn a_restart_tells_the_alerts_that_stand_and_goes_on_from_there() {
    let matches = || (0..3).map(|time| of("r", &[], found(&format!("e{time}"), time)));
    let rules = rule_set(&[("r", &threshold(2, "1m", None))]);
    let mut correlator = Correlator::new(rules, 10);

    let told: Vec<Change> = matches().rev().flat_map(|found| correlator.apply(found)).collect();

    let standing = told.into_iter().map(Change::into_alert).last().unwrap();
    assert_eq!(standing.event_count, 3);
    assert_eq!(correlator.apply(of("r", &[], found("e1", 1))), [], "one seen before");
    let grown = correlator.apply(of("r", &[], found("e4", 4)));
    let [Change::Grown(alert)] = &grown[..] else { panic!("{grown:?}") };
    assert!(alert.supersedes(&standing));
}

fn shuffled_matches() -> impl Strategy<Value = Vec<Match>> {
    let one = (0_usize..3, 0_u8..3, 0_i64..4 * MINUTE, 0_u8..4, 1_usize..3);
    prop::collection::vec(one, 0..80).prop_flat_map(|parts| {
        let mut matches = Vec::new();
        for (number, (rule, group, time, value, copies)) in parts.into_iter().enumerate() {
            let rule = ["each", "suppressed", "threshold"][rule];
            let group = group.to_string();
            let group: &[(&str, &str)] = if rule == "each" { &[] } else { &[("host.name", &group)] };
            let found =
                Match { distinct: Some(value.to_string()), received_millis: 0, ..of(rule, group, found(&format!("e{number}"), time)) };
            matches.extend(std::iter::repeat_n(found, copies));
        }
        Just(matches).prop_shuffle()
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn the_number_of_partitions_order_and_repetition_make_no_difference(matches in shuffled_matches(), partitions in 1_u16..6) {
        let rules = [("each", each()), ("suppressed", suppressed("1m")), ("threshold", threshold(3, "30s", Some("user.name")))];
        let mut in_order = matches.clone();
        in_order.sort_by_key(|found| (found.timestamp_millis, found.event_id.clone()));
        in_order.dedup_by(|a, b| a.event_id == b.event_id);
        let expected = Partition::after(100, &rules, in_order).alerts;

        let mut parts: Vec<Partition> = (0..partitions).map(|_| Partition::new(100, &rules)).collect();
        for found in matches {
            parts[usize::from(partition(&found, partitions))].apply(found);
        }

        let all: BTreeMap<String, Alert> = parts.into_iter().flat_map(|part| part.alerts).collect();
        prop_assert_eq!(all, expected);
    }
}
