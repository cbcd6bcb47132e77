//! Our event as the detection core reads it: in place, without a copy.

use std::{borrow::Cow, sync::LazyLock};

use rsigma_eval::EventValue;
use rsigma_parser::fieldpath::unescape_brackets;
use serde_json::{Map, Value};

use super::field::{ECS_NAMES, leaf, resolve};
use crate::event::Event;

/// How deep keyword searches go. Parsed JSON is never deeper than 128.
const MAX_DEPTH: usize = 128;

/// What this program or the shipper says about the event rather than the event about itself; keywords are not looked for in it.
const BOOKKEEPING: [&str; 3] = ["@timestamp", "log", "tags"];
const EVENT_BOOKKEEPING: [&str; 8] = ["category", "created", "dataset", "id", "ingested", "kind", "original", "type"];

/// [`ECS_NAMES`] as a tree of the segments of their paths: an event is gone through once, and not once for each name.
static ECS_TREE: LazyLock<Segment> = LazyLock::new(|| {
    let mut tree = Segment::default();
    for (name, path) in ECS_NAMES {
        path.split('.').fold(&mut tree, Segment::below).names.push(name);
    }
    tree
});

/// A place in [`ECS_TREE`].
#[derive(Default)]
struct Segment {
    /// The names that stand for what is found here.
    names: Vec<&'static str>,
    below: Vec<(&'static str, Segment)>,
}

impl Segment {
    fn below(&mut self, name: &'static str) -> &mut Self {
        let at = self.below.iter().position(|(known, _)| *known == name).unwrap_or_else(|| {
            self.below.push((name, Self::default()));
            self.below.len() - 1
        });
        &mut self.below[at].1
    }

    /// Tells what the names find in an object. False where a key holds dots or a list stands on the way: then more than one place may be
    /// meant, and what was told need not be right.
    fn visit<'a>(&self, object: &'a Map<String, Value>, told: &mut dyn FnMut(&'static str, &'a Value)) -> bool {
        object.iter().all(|(key, value)| {
            let Some((_, segment)) = self.below.iter().find(|(name, _)| name == key) else { return !key.contains('.') };
            match value {
                Value::Object(inner) => return segment.visit(inner, told),
                Value::Array(_) if !segment.below.is_empty() => return false,
                _ => segment.names.iter().for_each(|name| told(name, value)),
            }
            true
        })
    }
}

/// A view of one event, made once and asked many times: dozens of rules ask it for the same few fields, and most ask in vain.
pub(super) struct EventView<'a> {
    document: &'a Map<String, Value>,
    /// What the source itself said: its own names come first.
    details: Option<&'a Map<String, Value>>,
    /// What each other name without a path finds, sorted by name; `None` where it is more than one value, to be collected when asked for.
    names: Vec<(&'a str, Option<&'a Value>)>,
    /// First segments of the paths that may find something besides.
    segments: Vec<&'a str>,
}

impl<'a> EventView<'a> {
    pub(super) fn new(event: &'a Event) -> Self {
        let document = &event.document;
        let details = document.get("details").and_then(Value::as_object);
        let native = |key: &str| details.is_some_and(|details| details.contains_key(key));
        let mut view = Self { document, details, names: Vec::with_capacity(64), segments: Vec::with_capacity(16) };
        details.into_iter().flatten().for_each(|(key, _)| view.add_segment(key));
        for (key, value) in document.iter().filter(|(key, _)| !native(key)) {
            view.add_segment(key);
            match value {
                Value::Object(_) => view.segments.push(key),
                // What such a name says may also stand nested below `details`, which comes first: it is resolved when it is asked for.
                _ => view.names.push((key, (!key.contains('.')).then_some(value))),
            }
        }
        let is_free = |name: &str| !native(name) && document.get(name).is_none_or(Value::is_object);
        let before = view.names.len();
        let is_plain = ECS_TREE.visit(document, &mut |name, value| {
            if is_free(name) {
                view.names.push((name, Some(value)));
            }
        });
        if !is_plain {
            view.names.truncate(before);
            for (name, path) in ECS_NAMES.into_iter().filter(|(name, _)| is_free(name)) {
                let found = leaf(document, path);
                if let Some(first) = found.first {
                    view.names.push((name, found.more.is_empty().then_some(first)));
                }
            }
        }
        view.names.sort_unstable_by_key(|(name, _)| *name);
        view
    }

    /// A key with dots is found whole, and may be the beginning of a path: `id.orig_h` by `id`.
    fn add_segment(&mut self, key: &'a str) {
        if let Some((segment, _)) = key.split_once('.')
            && self.segments.last() != Some(&segment)
        {
            self.segments.push(segment);
        }
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
        if let Some(value) = self.details.and_then(|details| details.get(path)) {
            return Some(EventValue::from(value));
        }
        match self.names.binary_search_by_key(&path, |(name, _)| name).map(|at| self.names[at].1) {
            Ok(Some(value)) => return Some(EventValue::from(value)),
            Err(_) if !path.bytes().any(|byte| matches!(byte, b'.' | b'\\')) => return None,
            Ok(None) | Err(_) => {}
        }
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
        let mut keys = Vec::new();
        self.visit_top_level_keys(&mut |key| keys.push(Cow::Owned(key.to_owned())));
        Some(keys)
    }

    /// Every first segment that a field's name can have to find something: the candidate index asks only for fields that begin with
    /// one of these, so leaving one out would lose detections.
    fn visit_top_level_keys(&self, visit: &mut dyn FnMut(&str)) -> bool {
        self.details.into_iter().flatten().for_each(|(key, _)| visit(key));
        self.names.iter().for_each(|(name, _)| visit(name));
        self.segments.iter().for_each(|segment| visit(segment));
        true
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
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

    /// Documents in which the few names that there are come up in every place: under `details`, at the top, as ECS, with dots.
    fn document() -> impl Strategy<Value = Value> {
        let name = proptest::sample::select(vec![
            "a",
            "b",
            "a.b",
            "process",
            "parent",
            "executable",
            "process.executable",
            "Image",
            "user",
            "name",
            "User",
            "query",
            "x[0]",
        ]);
        let scalar = prop_oneof![Just(Value::Null), any::<bool>().prop_map(Value::from), (0..3_i64).prop_map(Value::from)];
        let value = scalar.prop_recursive(4, 24, 4, move |inner| {
            prop_oneof![
                proptest::collection::vec(inner.clone(), 0..3).prop_map(Value::from),
                proptest::collection::btree_map(name.clone().prop_map(str::to_owned), inner, 0..4)
                    .prop_map(|map| Value::Object(map.into_iter().collect())),
            ]
        });
        (value.clone(), value).prop_map(|(details, mut document)| {
            if !document.is_object() {
                document = json!({});
            }
            document["details"] = details;
            document
        })
    }

    proptest! {
        #[test]
        fn the_view_finds_what_the_document_holds_and_names_its_root(document in document()) {
            let event = event(document);
            let view = EventView::new(&event);
            let mut keys = Vec::new();
            view.visit_top_level_keys(&mut |key| keys.push(key.to_owned()));

            for field in ["a", "b", "a.b", "a.b.a", "b.a", "process.executable", "Image", "process.parent.executable", "ParentImage", "user.name", "User", "user", "query", r"x\[0\]", "details.a", "details"] {
                let name = unescape_brackets(field);
                let found = resolve(&event.document, &name);
                let expected: Vec<EventValue<'_>> = found.first.into_iter().chain(found.more).map(EventValue::from).collect();

                match (view.get_field(field), expected.as_slice()) {
                    (None, []) => {}
                    (Some(value), [only]) => prop_assert_eq!(&value, only),
                    (Some(EventValue::Array(values)), several) => prop_assert_eq!(values.as_slice(), several),
                    (value, expected) => prop_assert!(false, "{}: {:?}, expected {:?}", field, value, expected),
                }
                let root = name.split('.').next().unwrap_or_default();
                prop_assert!(expected.is_empty() || keys.iter().any(|key| key == root || *key == *name), "{field} is not among {keys:?}");
            }
        }
    }
}
