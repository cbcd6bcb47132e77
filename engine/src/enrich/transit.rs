//! An event on its way through the chain.
//!
//! Steps other than VRL programs work on JSON as on VRL's form: the document is taken into VRL's form when the first program runs,
//! stays in it, and is taken back once, at the end.

use serde_json::Value as Json;
use vrl::value::{ObjectMap, Value};

use super::vrl::{Outcome, Predicate, Program, VrlEvent, to_vrl};
use crate::event::{Event, add_tag, scalar_text};

/// An event on its way. The document is in `converted` once that is there, else in the event.
pub(super) struct Transit<'e> {
    event: &'e mut Event,
    converted: Option<VrlEvent>,
}

impl<'e> Transit<'e> {
    pub(super) fn new(event: &'e mut Event) -> Self {
        Self { event, converted: None }
    }

    /// When the event was received, in milliseconds since 1970.
    pub(super) fn received_millis(&self) -> i64 {
        self.event.received_millis
    }

    /// Whether a condition is true of the event.
    pub(super) fn test(&mut self, when: &Predicate) -> Result<bool, String> {
        match &mut self.converted {
            Some(converted) => when.test_value(converted),
            None => when.test(self.event),
        }
    }

    /// Runs a program over the event. After an error the event is as it was.
    pub(super) fn run(&mut self, program: &Program) -> Result<(), String> {
        let document = &mut self.event.document;
        let converted = self.converted.get_or_insert_with(|| VrlEvent::from_document(std::mem::take(document)));
        if let Outcome::Done(Some(millis)) = program.run(converted)? {
            self.event.timestamp_millis = millis;
        }
        Ok(())
    }

    /// The text at a dotted path, or the texts of the array there; read as [`Event::get`] does.
    pub(super) fn texts(&self, path: &str) -> Vec<String> {
        match &self.converted {
            Some(converted) => match converted.root().as_object().and_then(|root| find(root, path)) {
                Some(Value::Array(items)) => items.iter().filter_map(text_of).collect(),
                Some(value) => text_of(value).into_iter().collect(),
                None => Vec::new(),
            },
            None => match self.event.get(path) {
                Some(Json::Array(items)) => items.iter().filter_map(scalar_text).collect(),
                Some(value) => scalar_text(value).into_iter().collect(),
                None => Vec::new(),
            },
        }
    }

    /// Writes a value at a dotted path, as [`Event::set`] does.
    pub(super) fn set(&mut self, path: &str, value: Json) {
        match &mut self.converted {
            Some(converted) => {
                if let Value::Object(root) = converted.root_mut() {
                    place(root, path, to_vrl(value));
                }
            }
            None => self.event.set(path, value),
        }
    }

    /// Adds a tag once.
    pub(super) fn tag(&mut self, tag: &str) {
        match &mut self.converted {
            Some(converted) => {
                if let Value::Object(root) = converted.root_mut() {
                    tag_object(root, tag);
                }
            }
            None => add_tag(&mut self.event.document, tag),
        }
    }

    /// Ends the way: the document is back in the event.
    pub(super) fn finish(self) {
        if let Some(converted) = self.converted {
            self.event.document = converted.into_document();
        }
    }
}

fn text_of(value: &Value) -> Option<String> {
    match value {
        Value::Null | Value::Array(_) | Value::Object(_) => None,
        scalar => Some(scalar.to_string_lossy().into_owned()),
    }
}

/// [`crate::event::lookup`] in VRL's form.
fn find<'a>(object: &'a ObjectMap, path: &str) -> Option<&'a Value> {
    if let Some(value) = object.get(path) {
        return Some(value);
    }
    path.match_indices('.').find_map(|(dot, _)| match object.get(&path[..dot]) {
        Some(Value::Object(inner)) => find(inner, &path[dot + 1..]),
        _ => None,
    })
}

/// [`crate::event::insert`] in VRL's form.
fn place(object: &mut ObjectMap, path: &str, value: Value) {
    let Some((head, rest)) = path.split_once('.') else {
        object.insert(path.into(), value);
        return;
    };
    let inner = object.entry(head.into()).or_insert(Value::Null);
    if !inner.is_object() {
        *inner = Value::Object(ObjectMap::new());
    }
    if let Value::Object(inner) = inner {
        place(inner, rest, value);
    }
}

/// [`crate::event::add_tag`] in VRL's form.
fn tag_object(object: &mut ObjectMap, tag: &str) {
    let tags = object.entry("tags".into()).or_insert_with(|| Value::Array(Vec::new()));
    if !tags.is_array() {
        *tags = Value::Array(vec![std::mem::replace(tags, Value::Null)]);
    }
    if let Value::Array(list) = tags {
        let tag = Value::from(tag);
        if !list.contains(&tag) {
            list.push(tag);
        }
    }
}
