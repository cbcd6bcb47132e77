//! A document as it goes to the cluster and comes back.
//!
//! It goes as it is, with one member more: `redoubt`, which holds its id (to sort by) and its time of receipt. One that the mapping would
//! refuse, because its time is none or its message an object, goes in a form that fits, and its own text goes along unsearched; what
//! comes back is always the document as it was. So does one with texts that `flat_object` would refuse: it goes without them.

use std::io;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json, ser::Formatter, ser::Serializer};

use super::mappings::{TREES, Trees};
use crate::store::Rejection;

/// The time of an event.
pub(super) const TIMESTAMP: &str = "@timestamp";
/// The text that is searched by words.
pub(super) const MESSAGE: &str = "message";
/// The store's own member.
const OWN: &str = "redoubt";
/// The id, to sort by.
pub(super) const ID: &str = "redoubt.id";
/// The time of receipt.
pub(super) const RECEIVED: &str = "redoubt.received";

/// Longer ids are refused, in bytes. Elasticsearch's limit.
const MAX_ID_BYTES: usize = 512;
/// Documents whose JSON is longer are refused, in bytes.
const MAX_SOURCE_BYTES: usize = 16 << 20;
/// So much room a document gets at first, in bytes: few need more.
const USUAL_BYTES: usize = 4 << 10;
/// Deeper documents are refused: no JSON parser would read them back.
const MAX_DEPTH: usize = 120;
/// A text in a `flat_object` is one term together with its path; longer ones are refused, in bytes. Lucene's limit.
const MAX_TERM_BYTES: usize = 32_766;
/// What a value other than text takes in a term at most, in bytes.
const MAX_PLAIN_BYTES: usize = 32;

#[derive(Serialize, Deserialize)]
struct Own<'a> {
    id: &'a str,
    received: i64,
    #[serde(skip_serializing_if = "Option::is_none")]
    source: Option<String>,
}

/// The JSON of a document for the cluster, without a line end.
pub(super) fn encode(id: &str, received_millis: i64, body: &Map<String, Value>, trees: Trees) -> Result<Vec<u8>, Rejection> {
    let refuse = |reason: String| Rejection { reason };
    if id.is_empty() || id.len() > MAX_ID_BYTES {
        return Err(refuse(format!("the id has {} bytes; from 1 to {MAX_ID_BYTES} are allowed", id.len())));
    }
    let unwritable = |error: serde_json::Error| refuse(format!("cannot be written as JSON: {error}"));
    let mut json = to_json(body).map_err(unwritable)?;
    let mut own = Own { id, received: received_millis, source: None };
    if let Some(changed) = fitting(body, received_millis, trees) {
        let whole = std::mem::replace(&mut json, to_json(&changed).map_err(unwritable)?);
        own.source = Some(String::from_utf8(whole).map_err(|error| refuse(error.to_string()))?);
    }
    if json.len() > MAX_SOURCE_BYTES {
        return Err(refuse(format!("has {} bytes, more than {MAX_SOURCE_BYTES}; split it", json.len())));
    }
    // The object is opened again and gets its last member.
    json.pop();
    if json.len() > 1 {
        json.push(b',');
    }
    json.extend_from_slice(b"\"redoubt\":");
    serde_json::to_writer(&mut json, &own).map_err(unwritable)?;
    json.push(b'}');
    Ok(json)
}

/// The document that a `_source` is of.
pub(super) fn decode(mut source: Map<String, Value>) -> Result<Map<String, Value>, serde_json::Error> {
    let own = source.remove(OWN);
    match own.as_ref().and_then(|own| own.get("source")?.as_str()) {
        Some(text) => serde_json::from_str(text),
        None => Ok(source),
    }
}

/// The document in a form that fits the mapping, if it does not fit as it is.
fn fitting(body: &Map<String, Value>, received_millis: i64, trees: Trees) -> Option<Map<String, Value>> {
    let time = body.get(TIMESTAMP).and_then(Value::as_str);
    let time_fits = time.is_some_and(is_plain_time);
    let message_fits = body.get(MESSAGE).is_none_or(|message| !holds_object(message));
    let trees_fit = trees != Trees::FlatObject
        || TREES.iter().all(|tree| body.get(*tree).is_none_or(|value| is_term(value, tree.len()) && are_terms(value, tree.len())));
    if time_fits && message_fits && trees_fit && !body.contains_key(OWN) {
        return None;
    }
    let mut changed = body.clone();
    changed.remove(OWN);
    if !time_fits {
        let millis = time.and_then(|time| time.parse::<jiff::Timestamp>().ok()).map_or(received_millis, jiff::Timestamp::as_millisecond);
        changed.insert(TIMESTAMP.to_owned(), json!(millis));
    }
    if !message_fits {
        changed.remove(MESSAGE);
    }
    if !trees_fit {
        for tree in TREES {
            if let Some(value) = changed.get_mut(tree) {
                keep_terms(value, tree.len());
            }
        }
    }
    Some(changed)
}

/// Whether a value is short enough for a term, under a path of so many bytes. What is inside of it is not looked at.
fn is_term(value: &Value, path: usize) -> bool {
    let bytes = value.as_str().map_or(MAX_PLAIN_BYTES, str::len);
    path + 1 + bytes <= MAX_TERM_BYTES
}

/// Whether all that is inside of a value is short enough for a term.
fn are_terms(value: &Value, path: usize) -> bool {
    let fits = |value: &Value, path| is_term(value, path) && are_terms(value, path);
    match value {
        Value::Object(members) => members.iter().all(|(key, value)| fits(value, path + 1 + key.len())),
        Value::Array(values) => values.iter().all(|value| fits(value, path)),
        _ => true,
    }
}

/// Takes out what is too long for a term.
fn keep_terms(value: &mut Value, path: usize) {
    match value {
        Value::Object(members) => {
            members.retain(|key, value| is_term(value, path + 1 + key.len()));
            members.iter_mut().for_each(|(key, value)| keep_terms(value, path + 1 + key.len()));
        }
        Value::Array(values) => {
            values.retain(|value| is_term(value, path));
            values.iter_mut().for_each(|value| keep_terms(value, path));
        }
        _ => {}
    }
}

/// Whether a text is a moment as both RFC 3339 and Elasticsearch's `strict_date_optional_time` write it.
fn is_plain_time(text: &str) -> bool {
    let bytes = text.as_bytes();
    let plain = bytes.len() >= 20
        && bytes[10] == b'T'
        && &bytes[17..19] != b"60"
        && matches!(bytes[bytes.len() - 1], b'Z' | b'0'..=b'9')
        && !text.contains(['[', 't', 'z', ',']);
    plain && text.parse::<jiff::Timestamp>().is_ok()
}

fn holds_object(value: &Value) -> bool {
    match value {
        Value::Object(_) => true,
        Value::Array(values) => values.iter().any(holds_object),
        _ => false,
    }
}

/// The plain JSON of a document that is not nested too deep.
fn to_json(body: &Map<String, Value>) -> Result<Vec<u8>, serde_json::Error> {
    let mut json = Vec::with_capacity(USUAL_BYTES);
    body.serialize(&mut Serializer::with_formatter(&mut json, Shallow::default()))?;
    Ok(json)
}

/// Writes JSON without spaces, and fails at an object or array that is nested too deep: asked as it is written, the depth costs no walk
/// through the document of its own.
#[derive(Default)]
struct Shallow {
    levels: usize,
}

impl Shallow {
    fn descend(&mut self) -> io::Result<()> {
        self.levels += 1;
        if self.levels > MAX_DEPTH {
            return Err(io::Error::other(format!("nested deeper than {MAX_DEPTH} levels; flatten it or keep it as text")));
        }
        Ok(())
    }
}

impl Formatter for Shallow {
    fn begin_object<W: io::Write + ?Sized>(&mut self, writer: &mut W) -> io::Result<()> {
        self.descend()?;
        writer.write_all(b"{")
    }

    fn end_object<W: io::Write + ?Sized>(&mut self, writer: &mut W) -> io::Result<()> {
        self.levels -= 1;
        writer.write_all(b"}")
    }

    fn begin_array<W: io::Write + ?Sized>(&mut self, writer: &mut W) -> io::Result<()> {
        self.descend()?;
        writer.write_all(b"[")
    }

    fn end_array<W: io::Write + ?Sized>(&mut self, writer: &mut W) -> io::Result<()> {
        self.levels -= 1;
        writer.write_all(b"]")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn object(value: &Value) -> Map<String, Value> {
        value.as_object().unwrap().clone()
    }

    #[test]
    fn what_fits_goes_as_it_is_with_one_member_more() {
        for (body, expected) in [
            (
                json!({"@timestamp": "2026-11-24T10:00:00.125Z", "message": ["a", 5]}),
                r#"{"@timestamp":"2026-11-24T10:00:00.125Z","message":["a",5],"redoubt":{"id":"x","received":7}}"#,
            ),
            (
                json!({"@timestamp": "2026-11-24T10:00:00+01:00"}),
                r#"{"@timestamp":"2026-11-24T10:00:00+01:00","redoubt":{"id":"x","received":7}}"#,
            ),
        ] {
            assert_eq!(String::from_utf8(encode("x", 7, &object(&body), Trees::Flattened).unwrap()).unwrap(), expected);
        }
    }

    #[test]
    fn what_does_not_fit_goes_in_another_form_and_comes_back_as_it_was() {
        for (body, time) in [
            (json!({}), 7),
            (json!({"@timestamp": "yesterday", "n": -0.0, "max": u64::MAX}), 7),
            (json!({"@timestamp": ["2026-11-24T10:00:00Z"]}), 7),
            (json!({"@timestamp": "2026-11-24 10:00:00z"}), 1_795_514_400_000_i64),
            (json!({"@timestamp": "2016-12-31T23:59:60Z"}), 1_483_228_799_000),
            (json!({"@timestamp": "2026-11-24T10:00:00Z", "message": {"text": "hello"}}), 0),
            (json!({"@timestamp": "2026-11-24T10:00:00Z", "message": ["a", [{"text": "hello"}]]}), 0),
            (json!({"@timestamp": "2026-11-24T10:00:00Z", "redoubt": "mine"}), 0),
        ] {
            let sent: Map<String, Value> = serde_json::from_slice(&encode("x", 7, &object(&body), Trees::Flattened).unwrap()).unwrap();

            assert!(!sent.get(MESSAGE).is_some_and(holds_object), "{body}");
            if time > 0 {
                assert_eq!(sent[TIMESTAMP], json!(time), "{body}");
            }
            assert_eq!(Value::Object(decode(sent).unwrap()), body);
        }
    }

    #[test]
    fn a_flat_object_is_sent_without_what_is_too_long_for_a_term() {
        let long = "x".repeat(MAX_TERM_BYTES);
        let fitting = "x".repeat(MAX_TERM_BYTES - "details.k=".len());
        let time = "2026-11-24T10:00:00Z";
        for (details, sent) in [
            (json!({"k": fitting}), json!({"k": fitting})),
            (json!({"k": format!("{fitting}x"), "n": 5}), json!({"n": 5})),
            (json!({"a": [1, long, {"b": {"c": long, "d": null}}]}), json!({"a": [1, {"b": {"d": null}}]})),
            (json!({(long.as_str()): {}, "a": true}), json!({"a": true})),
            (json!([{"a": long}, {"a": "b"}]), json!([{}, {"a": "b"}])),
        ] {
            let body = object(&json!({"@timestamp": time, "details": details, "message": long}));
            let encoded = |trees| -> Map<String, Value> { serde_json::from_slice(&encode("x", 7, &body, trees).unwrap()).unwrap() };

            assert_eq!(encoded(Trees::FlatObject)["details"], sent);
            assert_eq!(encoded(Trees::Flattened)["details"], details);
            assert_eq!(decode(encoded(Trees::FlatObject)).unwrap(), body);
        }
    }

    #[test]
    fn what_no_cluster_takes_is_refused_here() {
        let nested = |levels| object(&json!({"x": (0..levels).fold(json!("bottom"), |inner, _| json!([inner]))}));
        assert!(encode("x", 0, &nested(100), Trees::Flattened).is_ok());

        for (id, body, reason) in [
            ("", nested(0), "the id has 0 bytes"),
            (&*"x".repeat(513), nested(0), "the id has 513 bytes"),
            ("x", nested(500), "nested deeper than 120 levels"),
            ("x", object(&json!({"x": "x".repeat(17 << 20)})), "more than 16777216"),
        ] {
            let refused = encode(id, 0, &body, Trees::Flattened).unwrap_err();
            assert!(refused.reason.contains(reason), "{refused}");
        }
    }
}
