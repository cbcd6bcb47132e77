//! Dead letters: events that could not be taken, kept as they came, with the reason.

use redoubt_engine::event::{RawEvent, rfc3339};
use serde_json::{Map, Value, json};

use crate::store::{Document, Family};

/// The dead letter of an event that is not of its source's format.
pub(super) fn unreadable(raw: &RawEvent, reason: &str) -> Document {
    letter(&raw.id, raw.received_millis, reason, json!({ "source": &*raw.source, "sender": raw.sender, "original": raw.body }))
}

/// The dead letter of an event that the store refused.
pub(super) fn refused(document: &Document, reason: &str) -> Document {
    let original = Value::Object(document.body.clone()).to_string();
    let source = document.body.get("event").and_then(|event| event.get("dataset")).cloned().unwrap_or(Value::Null);
    letter(&document.id, document.received_millis, reason, json!({ "source": source, "document": original }))
}

fn letter(id: &str, received_millis: i64, reason: &str, event: Value) -> Document {
    let mut body = Map::new();
    body.insert("@timestamp".to_owned(), Value::String(rfc3339(received_millis)));
    body.insert("reason".to_owned(), Value::String(reason.to_owned()));
    body.insert("event".to_owned(), event);
    Document { family: Family::DeadLetters, id: id.to_owned(), received_millis, may_repeat: true, body }
}
