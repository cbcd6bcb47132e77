//! AlertRules made ready, and the matching of events against all of them at once.

use std::sync::Arc;

use redoubt_crds::{AlertRuleSpec, Severity};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::{diagnostic::Problem, event::Event};

/// A rule's own words about itself: what an alert says of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RuleInfo {
    /// Name of the AlertRule.
    pub name: String,
    /// The Sigma rule's id where there is one, else the name.
    pub id: String,
    /// One line that says what happened.
    pub title: String,
    /// What the rule looks for and why.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub description: String,
    /// How bad it is.
    pub severity: Severity,
    /// Tags, the Sigma rule's and the resource's.
    pub tags: Vec<String>,
    /// ATT&CK technique ids.
    pub attack: Vec<String>,
    /// Link to what a responder should do.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub runbook: Option<String>,
    /// The rule's author.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub author: Option<String>,
    /// The rule's licence.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub license: Option<String>,
}

/// One reason why an event matched: a field and the value that did it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Reason {
    /// The field as the rule names it; empty for a keyword.
    pub field: String,
    /// The value that was found.
    pub value: Value,
}

/// An event that a rule found. Travels through the broker from process to correlate.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Match {
    /// Name of the AlertRule.
    pub rule: Arc<str>,
    /// The group's fields and values (a threshold's `groupBy`, a suppression's `by`), in the rule's order.
    pub group: Vec<(String, String)>,
    /// The value whose distinct count is taken, where the rule asks for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub distinct: Option<String>,
    /// Id of the event's document.
    pub event_id: String,
    /// `@timestamp` of the event, milliseconds since 1970.
    pub timestamp_millis: i64,
    /// When the event was received, milliseconds since 1970.
    pub received_millis: i64,
    /// Why it matched.
    pub reasons: Vec<Reason>,
    /// The event's document.
    pub document: Map<String, Value>,
}

impl Match {
    /// Id of the match: the same for each time that the rule finds the event.
    #[must_use]
    pub fn id(&self) -> String {
        crate::event::digest(&["match", &self.rule, &self.event_id])
    }
}

/// One AlertRule made ready.
pub struct Rule {
    /// What an alert says of it.
    pub info: RuleInfo,
    /// The resource itself.
    pub spec: AlertRuleSpec,
}

impl Rule {
    /// Makes an AlertRule ready. Its tests are not run here; see [`run_tests`].
    ///
    /// # Errors
    /// Every problem found, with the field it lies in.
    pub fn compile(name: &str, spec: &AlertRuleSpec) -> Result<Self, Vec<Problem>> {
        let _ = (name, spec);
        unimplemented!()
    }
}

/// How one test of a rule went.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TestOutcome {
    /// The test's name.
    pub name: String,
    /// `Err` says what was expected and what came instead.
    pub result: Result<(), Problem>,
}

/// Runs a rule's own tests, through parsing, matching and correlation, alone.
#[must_use]
pub fn run_tests(rule: &Arc<Rule>) -> Vec<TestOutcome> {
    let _ = rule;
    unimplemented!()
}

/// All enabled rules, indexed so that an event meets only those that may fit it.
#[derive(Default)]
pub struct RuleSet {}

impl RuleSet {
    /// Indexes the rules.
    #[must_use]
    pub fn new(rules: Vec<Arc<Rule>>) -> Self {
        let _ = rules;
        unimplemented!()
    }

    /// The rule of a name.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&Arc<Rule>> {
        let _ = name;
        unimplemented!()
    }

    /// Every rule that the event fits, exceptions taken out.
    #[must_use]
    pub fn matches(&self, event: &Event) -> Vec<Match> {
        let _ = event;
        unimplemented!()
    }
}
