//! Our event as the detection core reads it: in place, without a copy.

use std::borrow::Cow;

use rsigma_eval::EventValue;
use rsigma_parser::fieldpath::unescape_brackets;
use serde_json::{Map, Value};

use super::field::{ECS_NAMES, collect, resolve};
use crate::event::Event;

/// How deep keyword searches go. Parsed JSON is never deeper than 128.
const MAX_DEPTH: usize = 128;

/// What this program or the shipper says about the event rather than the event about itself; keywords are not looked for in it.
const BOOKKEEPING: [&str; 3] = ["@timestamp", "log", "tags"];
const EVENT_BOOKKEEPING: [&str; 8] = ["category", "created", "dataset", "id", "ingested", "kind", "original", "type"];

/// A view of one event, made once and asked many times.
pub(super) struct EventView<'a> {
    document: &'a Map<String, Value>,
    roots: Vec<&'a str>,
}

impl<'a> EventView<'a> {
    pub(super) fn new(event: &'a Event) -> Self {
        Self { document: &event.document, roots: roots(&event.document) }
    }

    fn visit_strings(&self, visit: &mut dyn FnMut(&'a str) -> bool) -> bool {
        self.document.iter().any(|(key, value)| match (key.as_str(), value) {
            (key, _) if BOOKKEEPING.contains(&key) => false,
            ("event", Value::Object(about)) => {
                about.iter().any(|(key, value)| !EVENT_BOOKKEEPING.contains(&key.as_str()) && any_string(value, visit, MAX_DEPTH))
            }
            (_, value) => any_string(value, visit, MAX_DEPTH),
        })
    }
}

/// Every first segment that a field name can have to find something: the candidate index asks only for fields that begin with
/// one of these, so leaving one out would lose detections. A key with dots counts whole (`id.orig_h`) and by its first segment (`id`).
fn roots(document: &Map<String, Value>) -> Vec<&str> {
    let mut roots: Vec<&str> = Vec::with_capacity(64);
    let details = document.get("details").and_then(Value::as_object);
    let native = |key: &str| details.is_some_and(|details| details.contains_key(key));
    let own = document.keys().filter(|key| !native(key));
    for key in details.into_iter().flat_map(Map::keys).chain(own) {
        if let Some((segment, _)) = key.split_once('.')
            && roots.last() != Some(&segment)
        {
            roots.push(segment);
        }
        roots.push(key);
    }
    for (name, path) in ECS_NAMES {
        let root = path.split_once('.').map_or(path, |(root, _)| root);
        if document.contains_key(root) && !native(name) && collect(document, path).first.is_some() {
            roots.push(name);
        }
    }
    roots
}

/// Whether `visit` answers `true` for one of the strings in a value; stops there.
fn any_string<'a>(value: &'a Value, visit: &mut dyn FnMut(&'a str) -> bool, depth: usize) -> bool {
    match value {
        _ if depth == 0 => false,
        Value::String(text) => visit(text),
        Value::Array(members) => members.iter().any(|member| any_string(member, visit, depth - 1)),
        Value::Object(object) => object.values().any(|member| any_string(member, visit, depth - 1)),
        Value::Null | Value::Bool(_) | Value::Number(_) => false,
    }
}

impl rsigma_eval::Event for EventView<'_> {
    fn get_field(&self, path: &str) -> Option<EventValue<'_>> {
        // The parser writes a bracket in a field's name as `\[`.
        let found = resolve(self.document, &unescape_brackets(path));
        let first = EventValue::from(found.first?);
        if found.more.is_empty() {
            return Some(first);
        }
        Some(EventValue::Array(std::iter::once(first).chain(found.more.into_iter().map(EventValue::from)).collect()))
    }

    fn any_string_value(&self, pred: &dyn Fn(&str) -> bool) -> bool {
        self.visit_strings(&mut |text| pred(text))
    }

    fn all_string_values(&self) -> Vec<Cow<'_, str>> {
        let mut values = Vec::new();
        self.visit_strings(&mut |text| {
            values.push(Cow::Borrowed(text));
            false
        });
        values
    }

    fn visit_string_values(&self, visit: &mut dyn FnMut(&str)) {
        self.visit_strings(&mut |text| {
            visit(text);
            false
        });
    }

    fn to_json(&self) -> Value {
        Value::Object(self.document.clone())
    }

    fn top_level_keys(&self) -> Option<Vec<Cow<'_, str>>> {
        Some(self.roots.iter().map(|root| Cow::Borrowed(*root)).collect())
    }

    fn visit_top_level_keys(&self, visit: &mut dyn FnMut(&str)) -> bool {
        self.roots.iter().for_each(|root| visit(root));
        true
    }
}

#[cfg(test)]
mod tests {
    use rsigma_eval::Event as _;
    use serde_json::json;

    use super::*;
    use crate::rule::fixture::event;

    #[test]
    fn keywords_are_looked_for_in_what_the_event_says_and_not_in_our_own_notes() {
        let event = event(json!({
            "@timestamp": "2024-01-01T00:00:00Z",
            "tags": ["a tag"],
            "log": {"source": {"address": "192.0.2.9"}},
            "message": "said",
            "event": {"id": "an id", "ingested": "when", "original": "raw", "action": "did"},
            "details": {"list": ["one", {"deep": "two"}], "number": 7},
        }));
        let view = EventView::new(&event);

        let mut strings = view.all_string_values();

        strings.sort();
        assert_eq!(strings, ["did", "one", "said", "two"]);
        assert!(view.any_string_value(&|text| text == "two"));
        assert!(!view.any_string_value(&|text| text == "an id"));
    }

    #[test]
    fn every_field_that_finds_something_has_its_root_among_the_keys() {
        let event = event(json!({
            "process": {"executable": "x", "parent": {"executable": "y"}},
            "dotted.key": {"inner": 1},
            "details": {"id.orig_h": "10.0.0.1", "Threat Name": "z", "nested": [{"a": 1}], "args[0]": "w"},
        }));
        let view = EventView::new(&event);
        let keys = view.top_level_keys().unwrap();

        for field in
            ["process.executable", "Image", "ParentImage", "dotted.key.inner", "id.orig_h", "Threat Name", "nested.a", r"args\[0\]"]
        {
            let name = unescape_brackets(field);
            let root = name.split('.').next().unwrap();

            assert!(view.get_field(field).is_some(), "{field}");
            assert!(keys.iter().any(|key| key == root || *key == name), "{field}");
        }
    }
}
