//! The event: one thing that happened, by Elastic Common Schema names, with what the source itself said under `details`.
//!
//! A [`RawEvent`] is what ingest accepted and the broker carries: bytes, an id and the time of receipt. An [`Event`] is what comes of
//! parsing it. Ids are deterministic from the raw event on, so that a redelivery makes the same event again, never a second one.

use std::sync::Arc;

use jiff::Timestamp;
use redoubt_crds::SigmaLogsource;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use sha2::{Digest as _, Sha256};

/// One event as it was accepted, before anything was understood of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RawEvent {
    /// Id stamped at receipt, unique to this acceptance; also the document's id unless the event carries one of its own.
    pub id: String,
    /// When it was received, in milliseconds since 1970.
    pub received_millis: i64,
    /// Name of the LogSource it came by.
    pub source: Arc<str>,
    /// Address of the sender, where known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sender: Option<Arc<str>>,
    /// The event itself, in the source's format, one event only.
    pub body: String,
}

/// One understood event.
#[derive(Debug, Clone, PartialEq)]
pub struct Event {
    /// Id of the document in the store: `raw.id`, or a hash of source and the event's own id where it has one.
    pub id: String,
    /// Whether [`Event::id`] comes from the event itself, so that a client's retry meets its first copy.
    pub natural_id: bool,
    /// When it was received, in milliseconds since 1970.
    pub received_millis: i64,
    /// When it happened, in milliseconds since 1970: `@timestamp`.
    pub timestamp_millis: i64,
    /// Which Sigma rules apply to it.
    pub logsource: Arc<SigmaLogsource>,
    /// The document, nested, as it will be stored.
    pub document: Map<String, Value>,
}

impl Event {
    /// The value at a dotted path such as `source.ip` or `details.EventData.Image`. At each level a key that itself holds dots
    /// (`details["id.orig_h"]`) is found too, and before what is nested.
    #[must_use]
    pub fn get(&self, path: &str) -> Option<&Value> {
        lookup(&self.document, path)
    }

    /// The text at a path; numbers and booleans as they print. `None` for objects, arrays, null and what is absent.
    #[must_use]
    pub fn get_text(&self, path: &str) -> Option<String> {
        self.get(path).and_then(scalar_text)
    }

    /// Writes a value at a dotted path, making objects on the way. A scalar that stands in the way is replaced by an object.
    pub fn set(&mut self, path: &str, value: Value) {
        insert(&mut self.document, path, value);
    }

    /// Adds a tag once.
    pub fn tag(&mut self, tag: &str) {
        add_tag(&mut self.document, tag);
    }

    /// The id of a document whose event carries an id of its own: the same for each copy that the source sends.
    #[must_use]
    pub fn natural_document_id(source: &str, own_id: &str) -> String {
        digest(&[source, own_id])
    }
}

/// The value at a dotted path of an object. See [`Event::get`].
#[must_use]
pub fn lookup<'a>(object: &'a Map<String, Value>, path: &str) -> Option<&'a Value> {
    if let Some(value) = object.get(path) {
        return Some(value);
    }
    let dots = path.bytes().enumerate().filter(|(_, byte)| *byte == b'.').map(|(dot, _)| dot);
    dots.filter_map(|dot| lookup(object.get(&path[..dot])?.as_object()?, &path[dot + 1..])).next()
}

/// The first name of a dotted path and what follows, where something does. Paths are short: a look at each byte is done sooner than a
/// search for a character begins.
pub(crate) fn split_path(path: &str) -> Option<(&str, &str)> {
    let dot = path.bytes().position(|byte| byte == b'.')?;
    Some((&path[..dot], &path[dot + 1..]))
}

/// Writes a value at a dotted path of an object. See [`Event::set`].
pub fn insert(object: &mut Map<String, Value>, path: &str, value: Value) {
    let _ = replace(object, path, value);
}

/// The same; gives back what stood there.
pub(crate) fn replace(object: &mut Map<String, Value>, path: &str, value: Value) -> Option<Value> {
    let Some((head, rest)) = split_path(path) else { return object.insert(path.to_owned(), value) };
    if let Some(Value::Object(inner)) = object.get_mut(head) {
        return replace(inner, rest, value);
    }
    let mut inner = Map::new();
    insert(&mut inner, rest, value);
    object.insert(head.to_owned(), Value::Object(inner));
    None
}

/// Adds a tag to `tags` once, making the array where there is none.
pub fn add_tag(object: &mut Map<String, Value>, tag: &str) {
    let tags = object.entry("tags").or_insert_with(|| Value::Array(Vec::new()));
    if !tags.is_array() {
        *tags = Value::Array(vec![tags.take()]);
    }
    if let Value::Array(list) = tags
        && !list.iter().any(|known| known == tag)
    {
        list.push(Value::String(tag.to_owned()));
    }
}

/// A scalar as text; `None` for null, arrays and objects.
#[must_use]
pub fn scalar_text(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        Value::Bool(flag) => Some(flag.to_string()),
        Value::Null | Value::Array(_) | Value::Object(_) => None,
    }
}

/// A hash of some texts, each kept apart from its neighbours: 128 bits of SHA-256 in hex.
#[must_use]
pub fn digest(parts: &[&str]) -> String {
    let mut hasher = Sha256::new();
    for part in parts {
        hasher.update((part.len() as u64).to_le_bytes());
        hasher.update(part.as_bytes());
    }
    hex::encode(&hasher.finalize()[..16])
}

/// A time in milliseconds since 1970 as RFC 3339 text with milliseconds, in UTC.
#[must_use]
pub fn rfc3339(millis: i64) -> String {
    let time = Timestamp::from_millisecond(millis).unwrap_or(if millis < 0 { Timestamp::MIN } else { Timestamp::MAX });
    format!("{time:.3}")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn object(value: Value) -> Map<String, Value> {
        match value {
            Value::Object(map) => map,
            other => panic!("not an object: {other}"),
        }
    }

    #[test]
    fn a_path_is_found_nested_or_as_a_key_with_dots() {
        let document = object(json!({"a": {"b": {"c": 1}, "x.y": 2}, "p.q": {"r": 3}}));

        assert_eq!(lookup(&document, "a.b.c"), Some(&json!(1)));
        assert_eq!(lookup(&document, "a.x.y"), Some(&json!(2)));
        assert_eq!(lookup(&document, "p.q.r"), Some(&json!(3)));
        assert_eq!(lookup(&document, "a.b.d"), None);
    }

    #[test]
    fn writing_a_path_makes_the_objects_on_the_way() {
        let mut document = object(json!({"host": "plain text"}));

        insert(&mut document, "host.name", json!("web-1"));

        assert_eq!(Value::Object(document), json!({"host": {"name": "web-1"}}));
    }

    #[test]
    fn a_digest_keeps_its_parts_apart() {
        assert_ne!(digest(&["ab", "c"]), digest(&["a", "bc"]));
        assert_eq!(digest(&["ab", "c"]).len(), 32);
    }

    #[test]
    fn times_print_with_milliseconds() {
        assert_eq!(rfc3339(1_700_000_000_123), "2023-11-14T22:13:20.123Z");
        assert_eq!(rfc3339(0), "1970-01-01T00:00:00.000Z");
    }
}
