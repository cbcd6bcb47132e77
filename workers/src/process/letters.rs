//! Dead letters: events that could not be taken, kept as they came, with the reason.

use redoubt_engine::event::{RawEvent, rfc3339};
use serde_json::{Map, Value, json};

use crate::store::{Document, Family};

/// The dead letter of an event.
pub(super) fn letter(raw: &RawEvent, reason: &str) -> Document {
    let mut body = Map::new();
    body.insert("@timestamp".to_owned(), Value::String(rfc3339(raw.received_millis)));
    body.insert("reason".to_owned(), Value::String(reason.to_owned()));
    body.insert("source".to_owned(), json!({ "name": &*raw.source, "address": raw.sender }));
    body.insert("event".to_owned(), json!({ "id": raw.id, "original": raw.body }));
    Document { family: Family::DeadLetters, id: raw.id.clone(), received_millis: raw.received_millis, may_repeat: true, body }
}
