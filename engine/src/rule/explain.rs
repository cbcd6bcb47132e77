//! Why a rule does or does not fit an event, down to each field: what `redoubt explain` prints and a failed test quotes.

use std::fmt;

use redoubt_crds::SigmaLogsource;
use serde::Serialize;
use serde_json::Value;

pub use super::finding::{Finding, Step};
use super::{Rule, event_view::EventView, field::group_text, logsource, matcher::Matcher};
use crate::event::Event;

/// Longest piece of an event's value that is shown; the whole value is in the serialised form.
const SHOWN_CHARS: usize = 160;

/// A field that a rule groups or counts by, and the event's value.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct GroupValue {
    /// The field, as the rule names it.
    pub field: String,
    /// The event's value; `None` where it has not one scalar there.
    pub value: Option<String>,
}

/// An exception, and whether it is true of the event.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ExceptionFinding {
    /// Why the exception is there.
    pub reason: String,
    /// What it asks.
    pub finding: Finding,
}

/// Why a rule does or does not fit an event.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Explanation {
    /// Name of the AlertRule.
    pub rule: String,
    /// Whether the event fits: it is an alert, or counts towards one.
    pub matched: bool,
    /// Whether the rule is for such events.
    pub logsource: Finding,
    /// What the rule asks.
    pub condition: Finding,
    /// The rule's exceptions.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub exceptions: Vec<ExceptionFinding>,
    /// The fields that tell the rule's groups apart.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub group: Vec<GroupValue>,
    /// The field whose different values a threshold counts.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub distinct: Option<GroupValue>,
    #[serde(skip)]
    counts: bool,
}

/// Asks every part of a rule, also those that no longer matter, and says how each went.
#[must_use]
pub fn explain(rule: &Rule, event: &Event) -> Explanation {
    let view = EventView::new(event);
    let logsource = explain_logsource(&rule.matcher, &event.logsource);
    let condition = rule.matcher.explain(event, &view);
    let exceptions: Vec<ExceptionFinding> = rule
        .exceptions
        .iter()
        .zip(&rule.spec.exceptions)
        .map(|(matcher, declared)| ExceptionFinding { reason: declared.reason.clone(), finding: matcher.explain(event, &view) })
        .collect();
    let value = |field: &String| GroupValue { field: field.clone(), value: group_text(event, field) };
    let group: Vec<GroupValue> = rule.group_fields().iter().map(value).collect();
    let threshold = rule.spec.threshold.as_ref();
    let distinct = threshold.and_then(|threshold| threshold.distinct.as_ref()).map(value);
    let counts = threshold.is_none() || group.iter().chain(&distinct).all(|found| found.value.is_some());
    let excepted = exceptions.iter().any(|exception| exception.finding.held);
    let matched = logsource.held && condition.held && counts && !excepted;
    Explanation { rule: rule.info.name.clone(), matched, logsource, condition, exceptions, group, distinct, counts }
}

fn explain_logsource(matcher: &Matcher, event: &SigmaLogsource) -> Finding {
    let (held, what) = match matcher {
        Matcher::When(..) | Matcher::Elsewhere => (true, "logsource: the rule is for every event".to_owned()),
        Matcher::Sigma(sigma) => {
            let what = format!(
                "logsource: the rule is for {}, the event is {}",
                describe(&sigma.logsource, "every event"),
                describe(event, "of none")
            );
            (logsource::fits(&sigma.logsource, event), what)
        }
    };
    Finding { step: Step::Logsource, held, what, actual: None, children: Vec::new() }
}

fn describe(logsource: &SigmaLogsource, none: &str) -> String {
    if *logsource == SigmaLogsource::default() { none.to_owned() } else { logsource::describe(logsource) }
}

impl Explanation {
    /// The first thing in the way, in one line; `None` where the event fits.
    #[must_use]
    pub fn why_not(&self) -> Option<String> {
        if self.matched {
            return None;
        }
        if !self.logsource.held {
            return Some(self.logsource.what.clone());
        }
        if !self.condition.held {
            return Some(self.condition.decisive());
        }
        if let Some(exception) = self.exceptions.iter().find(|exception| exception.finding.held) {
            return Some(format!("the exception {:?} holds", exception.reason));
        }
        let missing = self.group.iter().chain(&self.distinct).find(|found| self.counts || found.value.is_none());
        missing.map(|found| format!("the event has no {}, by which the threshold counts", found.field))
    }
}

impl Finding {
    /// The path to the first part that decides this one, in one line.
    fn decisive(&self) -> String {
        let mut at = self;
        let mut selection = None;
        loop {
            if at.step == Step::Selection {
                selection = Some(at.what.as_str());
            }
            let wanted = if at.step == Step::Not { !at.held } else { at.held };
            match at.children.iter().find(|child| child.held == wanted) {
                Some(child) => at = child,
                None => break,
            }
        }
        let verdict = if at.held { "holds" } else { "does not hold" };
        let actual = at.actual.as_ref().map(|actual| format!(", the event has {}", shown(actual))).unwrap_or_default();
        match selection {
            Some(name) if at.step != Step::Selection => format!("{name}: {} {verdict}{actual}", at.what),
            _ => format!("{} {verdict}{actual}", at.what),
        }
    }

    fn write(&self, f: &mut fmt::Formatter<'_>, depth: usize) -> fmt::Result {
        write!(f, "{:indent$}{} {}", "", mark(self.held), self.what, indent = depth * 2)?;
        if let Some(actual) = &self.actual {
            write!(f, " (the event has {})", shown(actual))?;
        }
        writeln!(f)?;
        self.children.iter().try_for_each(|child| child.write(f, depth + 1))
    }
}

fn mark(held: bool) -> char {
    if held { '✓' } else { '✗' }
}

fn shown(value: &Value) -> String {
    let text = value.to_string();
    match text.char_indices().nth(SHOWN_CHARS) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text,
    }
}

impl fmt::Display for Explanation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{} {} {}", mark(self.matched), self.rule, if self.matched { "fits" } else { "does not fit" })?;
        self.logsource.write(f, 1)?;
        self.condition.write(f, 1)?;
        for exception in &self.exceptions {
            let holds = if exception.finding.held { "holds, so the event is left out" } else { "does not hold" };
            writeln!(f, "  exception {:?} {holds}", exception.reason)?;
            exception.finding.write(f, 2)?;
        }
        for (label, found) in self.group.iter().map(|found| ("group", found)).chain(self.distinct.iter().map(|found| ("distinct", found))) {
            match &found.value {
                Some(value) => writeln!(f, "  {label}: {} = {value:?}", found.field)?,
                None => writeln!(f, "  {label}: {} is not in the event", found.field)?,
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::rule::fixture::{event_of, rule};

    fn whoami() -> std::sync::Arc<Rule> {
        rule(
            "whoami",
            json!({
                "sigma": {
                    "title": "t", "logsource": {"product": "windows", "category": "process_creation"},
                    "detection": {
                        "selection": {"Image|endswith": "\\whoami.exe", "CommandLine|contains": "/all"},
                        "filter": {"User": "admin"},
                        "condition": "selection and not filter",
                    },
                },
                "exceptions": [{"reason": "the scanner", "sigma": {"s": {"ParentImage|endswith": "\\scan.exe"}, "condition": "s"}}],
                "suppress": {"by": ["host.name"], "for": "1h"},
            }),
        )
    }

    #[test]
    fn the_tree_shows_each_part_with_the_event_s_value() {
        let event =
            event_of("windows/-/process_creation", json!({"details": {"Image": "C:\\whoami.exe", "CommandLine": "whoami /groups"}}));

        let explanation = explain(&whoami(), &event);

        let expected = r#"✗ whoami does not fit
  ✓ logsource: the rule is for product windows, category process_creation, the event is product windows, category process_creation
  ✗ condition: (selection and not filter)
    ✗ all of these
      ✗ selection
        ✗ CommandLine contains "/all" (the event has "whoami /groups")
        ✓ Image ends with "\\whoami.exe" (the event has "C:\\whoami.exe")
      ✓ not
        ✗ filter
          ✗ User is "admin" (the event has no such field)
  exception "the scanner" does not hold
    ✗ condition: s
      ✗ s
        ✗ ParentImage ends with "\\scan.exe" (the event has no such field)
  group: host.name is not in the event
"#;
        assert_eq!(explanation.to_string(), expected);
    }

    #[test]
    fn the_first_thing_in_the_way_is_named_in_one_line() {
        let fits = json!({"Image": "C:\\whoami.exe", "CommandLine": "whoami /all"});
        let with = |key: &str, value: &str| {
            let mut details = fits.clone();
            details[key] = json!(value);
            details
        };
        for (logsource, details, expected) in [
            ("windows/-/process_creation", fits.clone(), None),
            ("linux/-/process_creation", fits.clone(), Some("the event is product linux")),
            (
                "windows/-/process_creation",
                with("CommandLine", "x"),
                Some(r#"selection: CommandLine contains "/all" does not hold, the event has "x""#),
            ),
            ("windows/-/process_creation", with("User", "admin"), Some(r#"filter: User is "admin" holds, the event has "admin""#)),
            ("windows/-/process_creation", with("ParentImage", "C:\\scan.exe"), Some(r#"the exception "the scanner" holds"#)),
        ] {
            let why = explain(&whoami(), &event_of(logsource, json!({"details": details}))).why_not();

            match (&why, expected) {
                (None, None) => {}
                (Some(why), Some(expected)) => assert!(why.contains(expected), "{why}"),
                _ => panic!("{why:?}, expected {expected:?}"),
            }
        }
    }

    #[test]
    fn an_event_that_lacks_a_group_s_field_does_not_count() {
        let matcher = json!({"sigma": {"detection": {"s": {"a": 1}, "condition": "s"}}});
        let threshold = rule("r", json!({"threshold": {"match": matcher, "groupBy": ["source.ip"], "count": 2, "window": "1m"}}));

        let explanation = explain(&threshold, &event_of("-/-/-", json!({"details": {"a": 1}})));

        assert!(!explanation.matched);
        assert_eq!(explanation.why_not().as_deref(), Some("the event has no source.ip, by which the threshold counts"));
    }

    #[test]
    fn it_agrees_with_matching() {
        let rule = whoami();
        let set = crate::rule::RuleSet::new(vec![rule.clone()]);
        for details in
            [json!({}), json!({"Image": "x\\whoami.exe", "CommandLine": "/all"}), json!({"Image": "x\\whoami.exe", "User": "admin"})]
        {
            let event = event_of("windows/-/process_creation", json!({"details": details}));

            assert_eq!(explain(&rule, &event).matched, !set.matches(&event).is_empty(), "{details}");
        }
    }
}
