//! The alert: a rule, why it fired, and the events behind it.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::rule::{Reason, RuleInfo};
use redoubt_crds::Severity;

/// How many events an alert carries whole; `event_count` says how many there were.
pub const MAX_EVENTS: usize = 10;

/// A rule that fired. Its id is a hash of rule, group and step or event, so that the same happening never makes two.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Alert {
    /// Deterministic id.
    pub id: String,
    /// When it happened: the time of the event that completed it, RFC 3339.
    #[serde(rename = "@timestamp")]
    pub timestamp: String,
    /// The rule's words about itself.
    pub rule: RuleInfo,
    /// How bad it is.
    pub severity: Severity,
    /// The fields that tell this alert's group apart, and their values.
    #[serde(default, skip_serializing_if = "Map::is_empty")]
    pub group: Map<String, Value>,
    /// Why it fired: the fields of the first event that matched.
    pub reasons: Vec<Reason>,
    /// What it takes, in one line, such as `12 events within 2m (at least 10)`.
    pub summary: String,
    /// How many events are behind it.
    pub event_count: u64,
    /// The first events behind it, by time, at most [`MAX_EVENTS`].
    pub events: Vec<AlertEvent>,
}

/// An event behind an alert.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct AlertEvent {
    /// Id of the event's document.
    pub id: String,
    /// `@timestamp` of the event.
    #[serde(rename = "@timestamp")]
    pub timestamp: String,
    /// The event's document.
    pub document: Map<String, Value>,
}
