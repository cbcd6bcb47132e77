//! The alert: a rule, why it fired, and the events behind it.
//!
//! What an alert says is a function of the set of matches behind it, see [`crate::correlate`]; what people do about it later is not
//! kept here. As a document it has the names of the Elastic Common Schema where that has any, and [`Alert::from_document`] reads it
//! back.
//!
//! An alert has a bounded size. The document of a large event (above 64 KiB of JSON, 500 values or 64 levels) is replaced by a digest:
//! `@timestamp`, `message` (its first KiB), `event.id`, `event.dataset`, `event.action`, `host.name`, `user.name`, `source.ip`, and
//! `"_truncated": true`. See [`evidence`].

pub mod evidence;

use std::{collections::BTreeSet, sync::Arc};

use redoubt_crds::Severity;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use crate::{
    event,
    rule::{Reason, RuleInfo},
};

/// How many events an alert carries whole; `event_count` says how many there were.
pub const MAX_EVENTS: usize = 10;

/// ECS's `related` fields, and where their values stand in an event.
const RELATED: [(&str, &[&str]); 4] = [
    ("related.ip", &["source.ip", "destination.ip", "client.ip", "server.ip", "host.ip"]),
    ("related.user", &["user.name", "user.target.name", "source.user.name", "destination.user.name"]),
    ("related.hosts", &["host.name", "host.hostname", "source.domain", "destination.domain"]),
    (
        "related.hash",
        &["file.hash.sha256", "file.hash.sha1", "file.hash.md5", "process.hash.sha256", "process.hash.sha1", "process.hash.md5"],
    ),
];

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
    /// What it takes, in one line, such as `12 events from source.ip=203.0.113.9 (threshold 10 in 2m)`.
    pub summary: String,
    /// How many events are behind it: those in the window that the completing event ends, and those after it in the same step. Exact up
    /// to 1,000 or twice the threshold, whichever is more; it stands still there.
    pub event_count: u64,
    /// The first events behind it, by time, at most [`MAX_EVENTS`]. Of a crowded window some at its start may be left out.
    pub events: Vec<Arc<AlertEvent>>,
}

/// An event behind an alert.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct AlertEvent {
    /// Id of the event's document.
    pub id: String,
    /// `@timestamp` of the event.
    #[serde(rename = "@timestamp")]
    pub timestamp: String,
    /// The event's document, or a digest of it where it is large: see [`evidence`].
    pub document: Map<String, Value>,
}

/// Why a document is no alert.
#[derive(Debug, thiserror::Error)]
#[error("this document is not an alert as Redoubt writes them: {0}")]
pub struct NotAnAlert(#[from] serde_json::Error);

impl Alert {
    /// Whether this says more than another alert of the same id: it knows of more events, or of an earlier one that completed it. More
    /// matches never make it say less, so of two writers the one that knows more is right, and none has to ask the other.
    #[must_use]
    pub fn supersedes(&self, other: &Self) -> bool {
        // The texts have one form, so they sort as the times do within the years 0 to 9999.
        (self.event_count, &other.timestamp) > (other.event_count, &self.timestamp)
    }

    /// The alert as a document for the store: its own fields, and for searches and dashboards ECS's `event.kind`, `event.id`, `message`,
    /// `tags`, `threat.technique.id` and `related.*`.
    #[must_use]
    pub fn to_document(&self) -> Map<String, Value> {
        let mut document = Map::new();
        for (key, value) in [
            ("id", json!(self.id)),
            ("@timestamp", json!(self.timestamp)),
            ("event.kind", json!("alert")),
            ("event.id", json!(self.id)),
            ("message", json!(format!("{}: {}", self.rule.title, self.summary))),
            ("rule", json!(self.rule)),
            ("severity", json!(self.severity)),
            ("reasons", json!(self.reasons)),
            ("summary", json!(self.summary)),
            ("event_count", json!(self.event_count)),
            ("events", json!(self.events)),
        ] {
            event::insert(&mut document, key, value);
        }
        if !self.group.is_empty() {
            document.insert("group".to_owned(), Value::Object(self.group.clone()));
        }
        if !self.rule.tags.is_empty() {
            document.insert("tags".to_owned(), json!(self.rule.tags));
        }
        if !self.rule.attack.is_empty() {
            event::insert(&mut document, "threat.technique.id", json!(self.rule.attack));
        }
        for (field, paths) in RELATED {
            let values = self.values_at(paths);
            if !values.is_empty() {
                event::insert(&mut document, field, json!(values));
            }
        }
        document
    }

    /// Reads what [`Alert::to_document`] wrote; other fields, such as those that a responder added, are passed over.
    ///
    /// # Errors
    /// A field that an alert must have is missing or of another type; the message names it.
    pub fn from_document(document: &Map<String, Value>) -> Result<Self, NotAnAlert> {
        Ok(Self::deserialize(document)?)
    }

    /// The different texts that the alert's events have at some paths, lists taken apart.
    fn values_at(&self, paths: &[&str]) -> BTreeSet<String> {
        self.events
            .iter()
            .flat_map(|behind| paths.iter().filter_map(|path| event::lookup(&behind.document, path)))
            .flat_map(|value| match value {
                Value::Array(values) => values.as_slice(),
                single => std::slice::from_ref(single),
            })
            .filter_map(event::scalar_text)
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn alert() -> Alert {
        let document = json!({
            "source": {"ip": "203.0.113.9"}, "host": {"name": "web-1", "ip": ["10.0.0.1", "10.0.0.2"]}, "user": {"name": "root"},
        });
        let event =
            AlertEvent { id: "e1".into(), timestamp: "2026-01-01T00:00:00.000Z".into(), document: document.as_object().unwrap().clone() };
        Alert {
            id: "a1".into(),
            timestamp: "2026-01-01T00:00:05.000Z".into(),
            rule: RuleInfo {
                name: "ssh-guessing".into(),
                id: "ssh-guessing".into(),
                title: "Many failed logins".into(),
                description: String::new(),
                severity: Severity::High,
                tags: vec!["ssh".into()],
                attack: vec!["T1110".into()],
                runbook: None,
                author: None,
                license: None,
            },
            severity: Severity::High,
            group: json!({"source.ip": "203.0.113.9"}).as_object().unwrap().clone(),
            reasons: vec![Reason { field: "message".into(), value: json!("Failed password") }],
            summary: "12 events from source.ip=203.0.113.9 (threshold 10 in 2m)".into(),
            event_count: 12,
            events: vec![event.into()],
        }
    }

    #[test]
    fn an_alert_is_read_back_as_it_was_written() {
        let mut document = alert().to_document();
        document.insert("status".into(), json!("acknowledged"));

        let read = Alert::from_document(&document).unwrap();

        assert_eq!(read, alert());
    }

    #[test]
    fn a_document_can_be_searched_by_the_names_that_users_know() {
        let document = alert().to_document();

        for (path, expected) in [
            ("@timestamp", json!("2026-01-01T00:00:05.000Z")),
            ("rule.name", json!("ssh-guessing")),
            ("rule.id", json!("ssh-guessing")),
            ("severity", json!("high")),
            ("event.kind", json!("alert")),
            ("event_count", json!(12)),
            ("group", json!({"source.ip": "203.0.113.9"})),
            ("tags", json!(["ssh"])),
            ("threat.technique.id", json!(["T1110"])),
            ("related.ip", json!(["10.0.0.1", "10.0.0.2", "203.0.113.9"])),
            ("related.user", json!(["root"])),
            ("related.hosts", json!(["web-1"])),
        ] {
            assert_eq!(event::lookup(&document, path), Some(&expected), "{path}");
        }
        assert_eq!(event::lookup(&document, "events").and_then(|events| events[0]["id"].as_str()), Some("e1"));
    }

    #[test]
    fn what_is_no_alert_is_refused_by_the_name_of_the_field() {
        let mut document = alert().to_document();
        document.remove("severity");

        let error = Alert::from_document(&document).unwrap_err();

        assert!(error.to_string().contains("severity"), "{error}");
    }

    #[test]
    fn an_alert_supersedes_one_that_knows_less() {
        let known = alert();
        for (name, event_count, timestamp, expected) in [
            ("more events", 13, "2026-01-01T00:00:05.000Z", true),
            ("an earlier completion", 12, "2026-01-01T00:00:04.000Z", true),
            ("the same", 12, "2026-01-01T00:00:05.000Z", false),
            ("a later completion", 12, "2026-01-01T00:00:06.000Z", false),
            ("fewer events", 11, "2026-01-01T00:00:04.000Z", false),
        ] {
            let other = Alert { event_count, timestamp: timestamp.into(), ..alert() };

            assert_eq!(other.supersedes(&known), expected, "{name}");
        }
    }
}
