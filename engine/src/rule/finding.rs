//! What is found out about the parts of a rule when it is explained.

use serde::Serialize;
use serde_json::Value;

/// One part of a rule, and whether it holds of the event.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Finding {
    /// What kind of part it is.
    pub step: Step,
    /// Whether it holds.
    pub held: bool,
    /// The part in words.
    pub what: String,
    /// The event's value, where one was looked at.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub actual: Option<Value>,
    /// The parts of this part.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub children: Vec<Finding>,
}

/// What kind of part a [`Finding`] is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Step {
    /// The rule's logsource against the event's.
    Logsource,
    /// A whole condition.
    Condition,
    /// Holds when all of its parts do.
    All,
    /// Holds when one of its parts does.
    Any,
    /// Holds when enough of its parts do.
    #[serde(rename = "atLeast")]
    AtLeast,
    /// Holds when its part does not.
    Not,
    /// A named selection.
    Selection,
    /// A question to the event itself: a field, a keyword, an expression.
    Test,
}
