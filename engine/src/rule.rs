//! AlertRules made ready, and the matching of events against all of them at once.
//!
//! [`Rule::compile`] makes one rule ready, [`RuleSet`] indexes many and finds what fits an event, [`run_tests`] holds a rule to its own
//! tests, [`explain`] says why a rule does or does not fit, [`import`] makes rules of Sigma files. Whether a match becomes an alert is
//! decided elsewhere ([`crate::correlate`]): nothing here remembers an event.

use std::sync::Arc;

use redoubt_crds::{AlertRuleSpec, Severity, SigmaLogsource};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use matcher::Matcher;

mod candidates;
mod clue;
mod event_view;
pub mod explain;
mod field;
mod finding;
pub mod import;
mod logsource;
mod matcher;
mod prepare;
mod set;
mod sigma;
mod testing;

#[cfg(test)]
mod corpus;
#[cfg(test)]
mod fixture;

pub use set::{Evaluation, RuleSet};
pub use testing::{TestOutcome, run_tests};

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
    pub spec: Arc<AlertRuleSpec>,
    name: Arc<str>,
    matcher: Matcher,
    exceptions: Vec<Matcher>,
}

impl Rule {
    /// The events that the rule is for, as far as Sigma tells it; a rule without a Sigma logsource is for all.
    #[must_use]
    pub fn logsource(&self) -> SigmaLogsource {
        match &self.matcher {
            Matcher::Sigma(sigma) => sigma.logsource.clone(),
            Matcher::When(..) | Matcher::Elsewhere => SigmaLogsource::default(),
        }
    }

    /// The rule as whoever counts its matches needs it, without what finds them: of thousands of rules that is most of the memory.
    #[must_use]
    pub fn counting(&self) -> Self {
        Self {
            info: self.info.clone(),
            spec: Arc::clone(&self.spec),
            name: Arc::clone(&self.name),
            matcher: Matcher::Elsewhere,
            exceptions: Vec::new(),
        }
    }

    /// Whether matches of the rule wait for each other: then a restart has to read them again. A rule that makes an alert of each match
    /// by itself keeps nothing.
    #[must_use]
    pub fn keeps_state(&self) -> bool {
        self.spec.threshold.is_some() || self.spec.suppress.is_some()
    }

    /// The fields whose values tell the rule's groups apart: a threshold's `groupBy`, else a suppression's `by`.
    #[must_use]
    pub fn group_fields(&self) -> &[String] {
        match (&self.spec.threshold, &self.spec.suppress) {
            (Some(threshold), _) => &threshold.group_by,
            (None, Some(suppression)) => &suppression.by,
            (None, None) => &[],
        }
    }
}
