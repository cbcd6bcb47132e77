//! What an alert carries of an event, within bounds.
//!
//! An event may be as large as ingest takes, and an alert carries [`MAX_EVENTS`](super::MAX_EVENTS) of them: together they would be
//! refused by a store. So a document above [`MAX_DOCUMENT_BYTES`] or [`MAX_DOCUMENT_VALUES`] is shown by the fields that tell people
//! which event it is, and has the whole under its id. That is decided by the event alone: an alert says the same whatever came first.

use serde_json::{Map, Value, json};

use super::AlertEvent;
use crate::{
    event::{self, rfc3339},
    rule::{Match, Reason},
    weight::Weight,
};

/// Bytes of JSON up to which an alert carries an event's document whole.
pub const MAX_DOCUMENT_BYTES: usize = 64 << 10;
/// Values up to which an alert carries an event's document whole.
pub const MAX_DOCUMENT_VALUES: usize = 500;
/// Depth up to which an alert carries an event's document whole: half of what readers of JSON take.
pub const MAX_DOCUMENT_DEPTH: usize = 64;
/// The field that is `true` where a document is not whole.
pub const TRUNCATED: &str = "_truncated";

/// What stays of a document that is too large, where it is a scalar.
const KEPT: [&str; 8] = ["@timestamp", "message", "event.id", "event.dataset", "event.action", "host.name", "user.name", "source.ip"];
/// Bytes of a text that stay.
const MAX_TEXT_BYTES: usize = 1 << 10;
/// Reasons that an alert gives.
const MAX_REASONS: usize = 100;
/// Bytes of JSON up to which a reason's value is given as it is.
const MAX_REASON_BYTES: usize = 4 << 10;

/// Takes from a match what an alert carries of it: the event, and why it matched.
pub(crate) fn of(found: Match) -> (AlertEvent, Vec<Reason>) {
    let event = AlertEvent {
        id: found.event_id,
        timestamp: rfc3339(found.timestamp_millis),
        document: if is_too_large(&found.document) { digest(&found.document) } else { found.document },
    };
    (event, found.reasons.into_iter().take(MAX_REASONS).map(bounded).collect())
}

fn is_too_large(document: &Map<String, Value>) -> bool {
    let weight = Weight::of_object(document);
    weight.bytes > MAX_DOCUMENT_BYTES || weight.values > MAX_DOCUMENT_VALUES || weight.depth > MAX_DOCUMENT_DEPTH
}

fn digest(document: &Map<String, Value>) -> Map<String, Value> {
    let mut kept = Map::new();
    for path in KEPT {
        match event::lookup(document, path) {
            Some(Value::String(text)) => event::insert(&mut kept, path, json!(truncated(text))),
            Some(scalar @ (Value::Number(_) | Value::Bool(_))) => event::insert(&mut kept, path, scalar.clone()),
            _ => {}
        }
    }
    kept.insert(TRUNCATED.to_owned(), Value::Bool(true));
    kept
}

/// A reason whose value is no longer than fits: a larger one becomes the beginning of its text.
fn bounded(mut reason: Reason) -> Reason {
    if Weight::of(&reason.value).bytes > MAX_REASON_BYTES {
        let shortened = match &reason.value {
            Value::String(text) => truncated(text),
            other => truncated(&other.to_string()),
        };
        reason.value = Value::String(shortened);
    }
    reason
}

/// The beginning of a text, with an ellipsis where something is cut off.
fn truncated(text: &str) -> String {
    if text.len() <= MAX_TEXT_BYTES {
        return text.to_owned();
    }
    format!("{}…", &text[..text.floor_char_boundary(MAX_TEXT_BYTES)])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(document: &Value, reason: Value) -> Match {
        Match {
            rule: "r".into(),
            group: vec![],
            distinct: None,
            event_id: "e1".into(),
            timestamp_millis: 0,
            received_millis: 0,
            reasons: vec![Reason { field: "message".into(), value: reason }],
            document: document.as_object().unwrap().clone(),
        }
    }

    #[test]
    fn a_document_of_usual_size_is_carried_whole() {
        let document = json!({"message": "x".repeat(50_000), "host": {"name": "web-1"}, "ports": vec![1; 400]});

        let (event, _) = of(found(&document, json!("x")));

        assert_eq!(Value::Object(event.document), document);
    }

    #[test]
    fn of_a_document_too_large_the_fields_stay_that_tell_which_event_it_is() {
        let tower = (0..100).fold(json!(1), |inner, _| json!([inner]));
        for (name, ballast) in [("bytes", json!("x".repeat(70_000))), ("values", json!(vec![0; 600])), ("depth", tower)] {
            let document = json!({
                "@timestamp": "2026-01-01T00:00:00.000Z",
                "message": "é".repeat(5_000),
                "event": {"id": "abc", "dataset": "sshd", "action": "login", "original": "gone"},
                "host": {"name": "web-1", "ip": "10.0.0.1"},
                "user": {"name": ["a", "list"]},
                "source": {"ip": "203.0.113.9", "port": 22},
                "ballast": ballast,
            });

            let (event, _) = of(found(&document, json!("x")));

            let message = event.document["message"].as_str().unwrap();
            assert_eq!(message, format!("{}…", "é".repeat(512)), "{name}");
            let expected = json!({
                "@timestamp": "2026-01-01T00:00:00.000Z",
                "message": message,
                "event": {"id": "abc", "dataset": "sshd", "action": "login"},
                "host": {"name": "web-1"},
                "source": {"ip": "203.0.113.9"},
                "_truncated": true,
            });
            assert_eq!(Value::Object(event.document), expected, "{name}");
        }
    }

    #[test]
    fn a_reason_too_large_is_given_by_its_beginning() {
        for (name, value) in [("text", json!("x".repeat(9_000))), ("list", json!(vec!["xxxx"; 2_000]))] {
            let (_, reasons) = of(found(&json!({}), value));

            let text = reasons[0].value.as_str().unwrap();
            assert!(text.ends_with('…') && text.len() < 1_100, "{name}: {text}");
        }
    }
}
