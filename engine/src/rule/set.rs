//! All rules at once: which of them an event fits.

use std::{collections::HashMap, sync::Arc};

use super::{Match, Reason, Rule, event_view::EventView, field::group_text, matcher::Matcher, sigma::Index};
use crate::event::Event;

/// All enabled rules, indexed so that an event meets only those that may fit it.
#[derive(Default)]
pub struct RuleSet {
    rules: Vec<Arc<Rule>>,
    by_name: HashMap<Arc<str>, usize>,
    sigma: Index,
    /// The rules that ask in VRL: each is asked of each event.
    asked: Vec<usize>,
}

/// What came of an event.
#[derive(Debug, Default)]
pub struct Evaluation {
    /// Every rule that the event fits.
    pub matches: Vec<Match>,
    /// How many rules the event would fit, were it not for an exception.
    pub excepted: u64,
    /// How many expressions came to no answer. A rule whose expression fails does not fit; an exception that fails takes nothing out.
    pub failed: u64,
}

impl RuleSet {
    /// Indexes the rules; those that are not enabled are left out. Of two rules of one name the later one stands.
    #[must_use]
    pub fn new(rules: Vec<Arc<Rule>>) -> Self {
        Self::after(None, rules)
    }

    /// The same where there was a set before: parts of its index serve on where no rule of theirs has changed.
    #[must_use]
    pub fn after(previous: Option<&Self>, rules: Vec<Arc<Rule>>) -> Self {
        let mut latest: HashMap<Arc<str>, usize> = HashMap::with_capacity(rules.len());
        let enabled: Vec<Arc<Rule>> = rules.into_iter().filter(|rule| rule.spec.enabled).collect();
        for (at, rule) in enabled.iter().enumerate() {
            latest.insert(rule.name.clone(), at);
        }
        let standing = enabled.into_iter().enumerate().filter(|(at, rule)| latest.get(&rule.name) == Some(at)).map(|(_, rule)| rule);
        Self::index(standing.collect(), previous.map(|previous| &previous.sigma))
    }

    /// A set of one rule, whether it is enabled or not: for its tests.
    pub(super) fn of_one(rule: Arc<Rule>) -> Self {
        Self::index(vec![rule], None)
    }

    fn index(rules: Vec<Arc<Rule>>, previous: Option<&Index>) -> Self {
        let by_name = rules.iter().enumerate().map(|(at, rule)| (rule.name.clone(), at)).collect();
        let by_sigma = rules.iter().filter_map(|rule| match &rule.matcher {
            Matcher::Sigma(sigma) => Some((&rule.name, sigma)),
            Matcher::When(..) | Matcher::Elsewhere => None,
        });
        let sigma = Index::new(by_sigma, previous);
        let asked = rules.iter().enumerate().filter(|(_, rule)| matches!(rule.matcher, Matcher::When(..))).map(|(at, _)| at).collect();
        Self { rules, by_name, sigma, asked }
    }

    /// The rule of a name.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&Arc<Rule>> {
        self.by_name.get(name).map(|at| &self.rules[*at])
    }

    /// All rules of the set.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<Rule>> {
        self.rules.iter()
    }

    /// How many rules there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.rules.len()
    }

    /// Whether there is no rule.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.rules.is_empty()
    }

    /// Every rule that the event fits, exceptions taken out.
    #[must_use]
    pub fn matches(&self, event: &Event) -> Vec<Match> {
        self.evaluate(event).matches
    }

    /// Every rule that the event fits, exceptions taken out and counted.
    #[must_use]
    pub fn evaluate(&self, event: &Event) -> Evaluation {
        let mut evaluation = Evaluation::default();
        if self.rules.is_empty() {
            return evaluation;
        }
        let view = EventView::new(event);
        self.sigma.visit(&view, &event.logsource, &mut |name, reasons| {
            if let Some(rule) = self.get(name) {
                add_match(rule, event, &view, reasons, &mut evaluation);
            }
        });
        for at in &self.asked {
            let rule = &self.rules[*at];
            match rule.matcher.holds(event, &view) {
                Ok(true) => add_match(rule, event, &view, Vec::new(), &mut evaluation),
                Ok(false) => {}
                Err(_) => evaluation.failed += 1,
            }
        }
        evaluation
    }
}

fn add_match(rule: &Rule, event: &Event, view: &EventView<'_>, reasons: Vec<Reason>, evaluation: &mut Evaluation) {
    let Some(group) = group(rule, event) else { return };
    let distinct = match rule.spec.threshold.as_ref().and_then(|threshold| threshold.distinct.as_deref()) {
        None => None,
        Some(field) => match group_text(event, field) {
            Some(value) => Some(value),
            None => return,
        },
    };
    for exception in &rule.exceptions {
        match exception.holds(event, view) {
            Ok(true) => {
                evaluation.excepted += 1;
                return;
            }
            Ok(false) => {}
            Err(_) => evaluation.failed += 1,
        }
    }
    evaluation.matches.push(Match {
        rule: rule.name.clone(),
        group,
        distinct,
        event_id: event.id.clone(),
        timestamp_millis: event.timestamp_millis,
        received_millis: event.received_millis,
        reasons,
        document: event.document.clone(),
    });
}

/// The event's group: `None` where a threshold's event lacks a field, and so does not count. Suppression takes a missing field for an
/// empty one, for an alert must not be lost because a field is not there.
fn group(rule: &Rule, event: &Event) -> Option<Vec<(String, String)>> {
    let required = rule.spec.threshold.is_some();
    let mut group = Vec::with_capacity(rule.group_fields().len());
    for field in rule.group_fields() {
        let value = match group_text(event, field) {
            Some(value) => value,
            None if required => return None,
            None => String::new(),
        };
        group.push((field.clone(), value));
    }
    Some(group)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::rule::fixture::{event_of, rule, spec};

    const WINDOWS: &str = "windows/-/process_creation";

    fn sigma(detection: &Value) -> Value {
        json!({"title": "t", "logsource": {"product": "windows", "category": "process_creation"}, "detection": detection})
    }

    fn names(found: &[Match]) -> Vec<&str> {
        found.iter().map(|found| found.rule.as_ref()).collect()
    }

    #[test]
    fn sigma_rules_and_thresholds_are_found_together_by_logsource() {
        let whoami = json!({"s": {"CommandLine|contains": "whoami"}, "condition": "s"});
        let anywhere = json!({"threshold": {"match": {"sigma": {"detection": whoami}}, "count": 2, "window": "1m"}});
        let elsewhere = json!({"sigma": {"title": "t", "logsource": {"product": "linux"}, "detection": whoami}});
        let set = RuleSet::new(vec![
            rule("windows", json!({"sigma": sigma(&whoami)})),
            rule("anywhere", anywhere),
            rule("linux", elsewhere),
            rule("off", json!({"sigma": sigma(&whoami), "enabled": false})),
        ]);

        let found = set.matches(&event_of(WINDOWS, json!({"details": {"CommandLine": "whoami /all"}})));
        let unknown = set.matches(&event_of("-/-/-", json!({"details": {"CommandLine": "whoami /all"}})));

        let mut found_names = names(&found);
        found_names.sort_unstable();
        assert_eq!(found_names, ["anywhere", "windows"]);
        assert_eq!(found[0].reasons, [Reason { field: "CommandLine".to_owned(), value: json!("whoami /all") }]);
        assert_eq!(found[0].group, []);
        assert_eq!(names(&unknown), ["anywhere"]);
        assert!(set.get("off").is_none() && set.get("linux").is_some());
    }

    #[test]
    fn modifiers_and_conditions_mean_what_sigma_says() {
        for (detection, details, expected) in [
            (json!({"s": {"a": "x*z"}, "condition": "s"}), json!({"a": "XyyZ"}), true),
            (json!({"s": {"a|cased": "xyz"}, "condition": "s"}), json!({"a": "XYZ"}), false),
            (json!({"s": {"a|startswith": "C:\\"}, "condition": "s"}), json!({"a": "c:\\windows"}), true),
            (json!({"s": {"a|contains|all": ["one", "two"]}, "condition": "s"}), json!({"a": "two one"}), true),
            (json!({"s": {"a|contains|all": ["one", "two"]}, "condition": "s"}), json!({"a": "one"}), false),
            (json!({"s": {"a|re": "^[a-f]+$"}, "condition": "s"}), json!({"a": "abc"}), true),
            (json!({"s": {"a|cidr": "10.0.0.0/8"}, "condition": "s"}), json!({"a": "10.1.2.3"}), true),
            (json!({"s": {"a|cidr": "10.0.0.0/8"}, "condition": "s"}), json!({"a": "11.1.2.3"}), false),
            (json!({"s": {"a|gte": 10}, "condition": "s"}), json!({"a": 10}), true),
            (json!({"s": {"a|lt": 10}, "condition": "s"}), json!({"a": "10"}), false),
            (json!({"s": {"a|base64offset|contains": "foo"}, "condition": "s"}), json!({"a": "Zm9v"}), true),
            (json!({"s": {"a|windash|contains": "-f"}, "condition": "s"}), json!({"a": "x /f"}), true),
            (json!({"s": {"a|exists": true}, "condition": "s"}), json!({"a": ""}), true),
            (json!({"s": {"a|exists": false, "b": 1}, "condition": "s"}), json!({"b": 1}), true),
            (json!({"s": {"a|fieldref": "b"}, "condition": "s"}), json!({"a": "x", "b": "x"}), true),
            (json!({"s": {"a": null, "b": 1}, "condition": "s"}), json!({"b": 1}), true),
            (json!({"s": {"a": 4624}, "condition": "s"}), json!({"a": "4624"}), true),
            (json!({"s": {"a": ["x", "y"]}, "condition": "s"}), json!({"a": ["q", "y"]}), true),
            (json!({"s": ["needle"], "condition": "s"}), json!({"a": {"b": ["hay", "a needle here"]}}), true),
            (json!({"s": {"a": 1}, "f": {"b": 1}, "condition": "s and not f"}), json!({"a": 1, "b": 1}), false),
            (json!({"s_1": {"a": 1}, "s_2": {"b": 1}, "condition": "1 of s_*"}), json!({"b": 1}), true),
            (json!({"s_1": {"a": 1}, "s_2": {"b": 1}, "condition": "all of them"}), json!({"b": 1}), false),
            (json!({"s": [{"a": 1}, {"b": 2}], "condition": "s"}), json!({"b": 2}), true),
            (json!({"s": {"Threat Name": "Eicar"}, "condition": "s"}), json!({"Threat Name": "Eicar"}), true),
            (json!({"s": {"args[0]": "x"}, "condition": "s"}), json!({"args[0]": "x"}), true),
            (json!({"s": {"a.b": "x"}, "condition": "s"}), json!({"a": [{"b": "y"}, {"b": "x"}]}), true),
            (json!({"s": {"a": "bell\u{7}\u{85}\u{2028}é"}, "condition": "s"}), json!({"a": "bell\u{7}\u{85}\u{2028}é"}), true),
        ] {
            let set = RuleSet::new(vec![rule("r", json!({"sigma": sigma(&detection)}))]);

            let found = set.matches(&event_of(WINDOWS, json!({"details": details})));

            assert_eq!(found.len(), usize::from(expected), "{detection} of {details}");
        }
    }

    #[test]
    fn an_exception_takes_a_match_out_and_is_counted() {
        let detection = json!({"s": {"Image|endswith": "\\psexec.exe"}, "condition": "s"});
        let except = json!({"admins": {"User": "admin"}, "night": {"Hour": 3}, "condition": "admins and not night"});
        let set = RuleSet::new(vec![rule("r", json!({"sigma": sigma(&detection), "exceptions": [{"reason": "known", "sigma": except}]}))]);

        for (user, hour, matches, excepted) in [("admin", 12, 0, 1), ("admin", 3, 1, 0), ("other", 12, 1, 0)] {
            let details = json!({"details": {"Image": "C:\\psexec.exe", "User": user, "Hour": hour}});

            let evaluation = set.evaluate(&event_of(WINDOWS, details));

            assert_eq!((evaluation.matches.len(), evaluation.excepted), (matches, excepted), "{user} at {hour}");
        }
    }

    #[test]
    fn a_threshold_groups_and_counts_only_events_that_have_the_fields() {
        let threshold = json!({"threshold": {
            "match": {"sigma": {"detection": {"s": {"action": "login"}, "condition": "s"}}},
            "groupBy": ["source.ip", "Domain"], "distinct": "TargetUser", "count": 2, "window": "1m",
        }});
        let set = RuleSet::new(vec![rule("r", threshold)]);
        let found = |document: Value| set.matches(&event_of(WINDOWS, document));

        let full = found(json!({"source": {"ip": "10.0.0.1"}, "details": {"action": "login", "Domain": 7, "TargetUser": "alice"}}));
        let no_group = found(json!({"details": {"action": "login", "Domain": 7, "TargetUser": "alice"}}));
        let no_distinct = found(json!({"source": {"ip": "10.0.0.1"}, "details": {"action": "login", "Domain": 7}}));

        assert_eq!(full[0].group, [("source.ip".to_owned(), "10.0.0.1".to_owned()), ("Domain".to_owned(), "7".to_owned())]);
        assert_eq!(full[0].distinct.as_deref(), Some("alice"));
        assert!(no_group.is_empty() && no_distinct.is_empty());
    }

    #[test]
    fn an_expression_is_asked_of_every_event_and_one_that_fails_counts_for_nothing() {
        let threshold = json!({"threshold": {"match": {"when": ".details.action == \"login\""}, "count": 2, "window": "1m"}});
        let failing = json!({"threshold": {"match": {"when": "string!(.details.action) == \"x\""}, "count": 2, "window": "1m"}});
        let detection = json!({"s": {"action": "login"}, "condition": "s"});
        let exceptions = json!([
            {"reason": "fails", "when": "string!(.details.absent) == \"x\""},
            {"reason": "known", "when": ".user.name == \"admin\""},
        ]);
        let set = RuleSet::new(vec![
            rule("asked", threshold),
            rule("failing", failing),
            rule("excepted", json!({"sigma": sigma(&detection), "exceptions": exceptions})),
        ]);

        let admin = set.evaluate(&event_of(WINDOWS, json!({"user": {"name": "admin"}, "details": {"action": "login"}})));
        let number = set.evaluate(&event_of("-/-/-", json!({"details": {"action": 7}})));

        assert_eq!((names(&admin.matches), admin.excepted, admin.failed), (vec!["asked"], 1, 1));
        assert_eq!((names(&number.matches), number.excepted, number.failed), (vec![], 0, 1));
    }

    #[test]
    fn suppression_takes_a_missing_field_for_an_empty_one() {
        let detection = json!({"s": {"a": 1}, "condition": "s"});
        let set = RuleSet::new(vec![rule("r", json!({"sigma": sigma(&detection), "suppress": {"by": ["host.name"], "for": "1h"}}))]);

        let found = set.matches(&event_of(WINDOWS, json!({"details": {"a": 1}})));

        assert_eq!(found[0].group, [("host.name".to_owned(), String::new())]);
    }

    #[test]
    fn of_two_rules_of_one_name_the_later_one_stands() {
        let detection = |value: u32| json!({"s": {"a": value}, "condition": "s"});
        let set = RuleSet::new(vec![rule("r", json!({"sigma": sigma(&detection(1))})), rule("r", json!({"sigma": sigma(&detection(2))}))]);

        assert_eq!(set.len(), 1);
        assert!(set.matches(&event_of(WINDOWS, json!({"details": {"a": 1}}))).is_empty());
        assert_eq!(set.matches(&event_of(WINDOWS, json!({"details": {"a": 2}}))).len(), 1);
        assert!(spec(json!({})).enabled);
    }
}
