//! An event in the making: what each format fills in, and what is then done to all of them alike.
//!
//! Two rules hold here for every format. Nothing that a sender wrote is lost: what has no place of its own goes to `details`, and what
//! finds its place taken goes to `details._duplicate`. And what Redoubt itself says (`event.dataset`, `event.ingested`,
//! `log.source.address`) cannot be said by a sender: its words are moved to `details`.

use std::sync::Arc;

use redoubt_crds::{FieldType, SigmaLogsource};
use serde_json::{Map, Value, map::Entry};

use super::{
    OVERFLOW_TAG, ParseError, UNPARSED_TAG, bounds,
    convert::{address, convert},
    ecs,
    time::Clock,
};
use crate::{
    event::{Event, RawEvent, add_tag, insert, lookup, replace, rfc3339, scalar_text, split_path},
    source::Source,
};

/// Tags taken over from a sender; more are kept under `details.tags`.
const MAX_TAGS: usize = 256;
/// Names in one dotted key that is read as a path; a key with more is a name like any other.
const MAX_PATH: usize = 8;
/// Where a value is kept whose place was taken.
const DUPLICATE_FIELD: &str = "_duplicate";

/// Reads a body that has to be one JSON object.
pub(super) fn json_object(raw: &RawEvent, expected: &'static str) -> Result<Map<String, Value>, ParseError> {
    serde_json::from_str(&raw.body).map_err(|error| ParseError { expected, message: error.to_string() })
}

/// A native value that says nothing: absent, empty, or the dash that many logs write for it.
pub(super) fn says_nothing(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::String(text) => matches!(text.trim(), "" | "-"),
        _ => false,
    }
}

/// An event in the making.
pub(super) struct Draft<'a> {
    source: &'a Source,
    raw: &'a RawEvent,
    /// The ECS part of the document.
    pub(super) document: Map<String, Value>,
    /// The native fields.
    pub(super) details: Map<String, Value>,
    /// When it happened, where the event tells.
    pub(super) timestamp_millis: Option<i64>,
    /// The event's own id, where it has one.
    pub(super) own_id: Option<String>,
    /// The Sigma logsource, where the format tells it.
    pub(super) logsource: Option<Arc<SigmaLogsource>>,
    tags: Vec<Value>,
    unparsed: bool,
}

impl<'a> Draft<'a> {
    pub(super) fn new(source: &'a Source, raw: &'a RawEvent) -> Self {
        Self {
            source,
            raw,
            document: Map::new(),
            details: Map::new(),
            timestamp_millis: None,
            own_id: None,
            logsource: None,
            tags: Vec::new(),
            unparsed: false,
        }
    }

    /// What is needed to read a time of this event.
    pub(super) fn clock(&self) -> Clock<'a> {
        Clock { zone: &self.source.timezone, received_millis: self.raw.received_millis }
    }

    /// Notes that a value made no sense as what it ought to be.
    pub(super) fn mark_unparsed(&mut self) {
        self.unparsed = true;
    }

    /// Keeps a native field under its own name.
    pub(super) fn detail(&mut self, key: String, value: Value) {
        match self.details.entry(key) {
            Entry::Vacant(vacant) => {
                vacant.insert(value);
            }
            Entry::Occupied(taken) if *taken.get() == value => {}
            Entry::Occupied(taken) => {
                let key = taken.key().clone();
                self.duplicate(key, value);
            }
        }
    }

    /// Keeps a native field that rules rely on: another value of its name makes room for it.
    pub(super) fn claim_detail(&mut self, key: &str, value: Value) {
        if let Some(displaced) = self.details.insert(key.to_owned(), value)
            && self.details.get(key) != Some(&displaced)
        {
            self.duplicate(key.to_owned(), displaced);
        }
    }

    /// Merges native fields into `details`.
    pub(super) fn merge_details(&mut self, fields: Map<String, Value>) {
        if self.details.is_empty() {
            self.details = fields;
            return;
        }
        for (key, value) in fields {
            self.detail(key, value);
        }
    }

    fn duplicate(&mut self, key: String, value: Value) {
        let kept = self.details.entry(DUPLICATE_FIELD).or_insert_with(|| Value::Object(Map::new()));
        let Value::Object(kept) = kept else {
            // The sender has a field of that very name; the value follows it in a list.
            *kept = Value::Array(vec![kept.take(), value]);
            return;
        };
        match kept.entry(key) {
            Entry::Vacant(vacant) => {
                vacant.insert(value);
            }
            Entry::Occupied(mut taken) => match taken.get_mut() {
                Value::Array(list) => list.push(value),
                single => *single = Value::Array(vec![single.take(), value]),
            },
        }
    }

    /// Writes an ECS field if nothing stands there yet and the value says something.
    pub(super) fn put(&mut self, path: &str, value: Value) {
        if !says_nothing(&value) {
            // A place that is taken keeps what it has; the native value stands under `details` in any case.
            let _ = place(&mut self.document, path, value);
        }
    }

    /// Writes an ECS field from text; see [`Draft::put`].
    pub(super) fn put_text(&mut self, path: &str, text: &str) {
        if !text.trim().is_empty() && text != "-" {
            self.put(path, Value::String(text.to_owned()));
        }
    }

    /// Writes an ECS field from a native value as its type; one that does not fit tags the event and stays where it is.
    pub(super) fn put_typed(&mut self, path: &str, value: &Value, field_type: FieldType) {
        if says_nothing(value) {
            return;
        }
        match convert(value, field_type, &self.clock()) {
            Some(converted) => self.put(path, converted),
            None => self.unparsed = true,
        }
    }

    /// Copies native fields to ECS fields of a type.
    pub(super) fn copy(&mut self, table: &[(&str, &str, FieldType)]) {
        let details = std::mem::take(&mut self.details);
        self.copy_from(&details, table);
        self.details = details;
    }

    /// The same, of native fields that are not among the details yet.
    pub(super) fn copy_from(&mut self, fields: &Map<String, Value>, table: &[(&str, &str, FieldType)]) {
        for &(from, to, field_type) in table {
            let Some(value) = fields.get(from) else { continue };
            if says_nothing(value) {
                continue;
            }
            match convert(value, field_type, &self.clock()) {
                Some(converted) => self.put(to, converted),
                None => self.unparsed = true,
            }
        }
    }

    /// Writes one end of a connection: `SIDE.ip` when the text is an address, else `SIDE.domain` (ECS asks for `address` in both cases,
    /// which would say the same twice).
    pub(super) fn put_endpoint(&mut self, side: &str, text: &str) {
        match address(text) {
            Some(ip) => self.put(&format!("{side}.ip"), Value::String(ip.to_string())),
            None => self.put_text(&format!("{side}.domain"), text),
        }
    }

    /// Writes a client's own dotted or plain ECS field without losing it when its place is taken.
    pub(super) fn place_or_keep(&mut self, path: &str, value: Value) {
        if let Err(value) = place(&mut self.document, path, value) {
            self.detail(path.to_owned(), value);
        }
    }

    /// Takes the event's time from a native value. False when it is none: then the caller keeps the value, and the event is tagged.
    pub(super) fn set_time(&mut self, value: &Value) -> bool {
        if says_nothing(value) {
            return true;
        }
        match self.clock().read(value) {
            Some(millis) => {
                self.timestamp_millis.get_or_insert(millis);
                true
            }
            None => {
                self.unparsed = true;
                false
            }
        }
    }

    /// Takes over a sender's tags: a list, or a single one. What is no tag is kept under `details.tags`.
    pub(super) fn take_tags(&mut self, value: Value) {
        let list = match value {
            Value::Null => return,
            Value::Array(list) => list,
            single => vec![single],
        };
        let mut kept = Vec::new();
        for element in list {
            match scalar_text(&element) {
                Some(tag) if self.tags.len() < MAX_TAGS => {
                    if !tag.is_empty() {
                        self.tags.push(Value::String(tag));
                    }
                }
                _ => kept.push(element),
            }
        }
        if !kept.is_empty() {
            self.detail("tags".to_owned(), Value::Array(kept));
        }
    }

    /// Moves ECS fields that a sender filled with something of another type to `details`, as text.
    pub(super) fn check_types(&mut self) {
        for &(path, field_type) in ecs::TYPED {
            let Some(slot) = slot(&mut self.document, path) else { continue };
            if slot.is_null() {
                continue;
            }
            let clock = Clock { zone: &self.source.timezone, received_millis: self.raw.received_millis };
            match convert(slot, field_type, &clock) {
                Some(converted) => *slot = converted,
                None => {
                    let value = slot.take();
                    let text = scalar_text(&value).unwrap_or_else(|| value.to_string());
                    remove(&mut self.document, path);
                    self.keep_at(path, Value::String(text));
                    self.unparsed = true;
                }
            }
        }
    }

    /// Keeps a value under `details` at the path that it had in the event.
    fn keep_at(&mut self, path: &str, value: Value) {
        if let Err(value) = place(&mut self.details, path, value) {
            self.duplicate(path.to_owned(), value);
        }
    }

    /// Writes what Redoubt itself says; what a sender wrote there is kept under `details`.
    fn state(&mut self, path: &str, value: Value) {
        if let Some(claimed) = replace(&mut self.document, path, value)
            && slot(&mut self.document, path).as_deref() != Some(&claimed)
        {
            self.keep_at(path, claimed);
        }
    }

    /// The finished event: declared fields, ids, times, tags and bounds.
    pub(super) fn finish(mut self) -> Event {
        let source = self.source;
        let raw = self.raw;

        self.declared_fields();
        if bounds::enforce(&mut self.document, &mut self.details) {
            self.tags.push(Value::String(OVERFLOW_TAG.to_owned()));
        }
        self.state("event.dataset", Value::String(source.dataset.clone()));
        self.state("event.ingested", Value::String(rfc3339(raw.received_millis)));
        if let Some(sender) = &raw.sender {
            self.state("log.source.address", Value::String(sender.to_string()));
        }
        self.put("event.kind", Value::String("event".to_owned()));

        let natural_id = self.own_id.is_some();
        let id = match &self.own_id {
            Some(own) => Event::natural_document_id(&source.name, own),
            None => raw.id.clone(),
        };
        let shown_id = self.own_id.take().unwrap_or_else(|| raw.id.clone());
        if lookup(&self.document, "event.id").is_some_and(|claimed| !claimed.is_array() && !claimed.is_object() && !claimed.is_null()) {
            insert(&mut self.document, "event.id", Value::String(shown_id));
        } else {
            // A list or an object is no id; it is kept as what the sender wrote.
            self.state("event.id", Value::String(shown_id));
        }

        let timestamp_millis = self.timestamp_millis.unwrap_or(raw.received_millis);
        self.document.insert("@timestamp".to_owned(), Value::String(rfc3339(timestamp_millis)));

        let mut tags: Vec<Value> = source.spec.tags.iter().cloned().map(Value::String).collect();
        for tag in self.tags {
            if !tags.contains(&tag) {
                tags.push(tag);
            }
        }
        if !tags.is_empty() {
            self.document.insert("tags".to_owned(), Value::Array(tags));
        }
        if self.unparsed {
            add_tag(&mut self.document, UNPARSED_TAG);
        }
        if !self.details.is_empty() {
            self.document.insert("details".to_owned(), Value::Object(self.details));
        }

        Event {
            id,
            natural_id,
            received_millis: raw.received_millis,
            timestamp_millis,
            logsource: self.logsource.unwrap_or_else(|| Arc::clone(&source.logsource)),
            document: self.document,
        }
    }

    /// Copies the LogSource's declared fields out of `details`.
    fn declared_fields(&mut self) {
        for field in &self.source.spec.fields {
            let Some(value) = lookup(&self.details, &field.from) else { continue };
            if value.is_null() {
                continue;
            }
            match convert(value, field.field_type, &self.clock()) {
                Some(_) if field.to == "@timestamp" => self.timestamp_millis = self.clock().read(value).or(self.timestamp_millis),
                Some(converted) => insert(&mut self.document, &field.to, converted),
                None => self.unparsed = true,
            }
        }
    }
}

/// Whether a dotted key can be read as a path: a few names, none of them empty.
pub(super) fn is_path(key: &str) -> bool {
    key.split('.').count() <= MAX_PATH && key.split('.').all(|name| !name.is_empty())
}

/// Writes a value at a dotted path where nothing stands; gives it back when its place, or one on the way, is taken. Objects merge.
fn place(map: &mut Map<String, Value>, path: &str, value: Value) -> Result<(), Value> {
    let Some((head, rest)) = split_path(path) else {
        return match map.get_mut(path) {
            None | Some(Value::Null) => {
                map.insert(path.to_owned(), value);
                Ok(())
            }
            Some(known) => merge(known, value),
        };
    };
    if let Some(known) = map.get_mut(head) {
        return match known {
            Value::Object(inner) => place(inner, rest, value),
            _ => Err(value),
        };
    }
    let mut inner = Map::new();
    let placed = place(&mut inner, rest, value);
    map.insert(head.to_owned(), Value::Object(inner));
    placed
}

/// Merges an object into another; gives back what clashes, under its names.
fn merge(known: &mut Value, value: Value) -> Result<(), Value> {
    match (known, value) {
        (Value::Object(known), Value::Object(fields)) => {
            let mut clashes = Map::new();
            for (key, value) in fields {
                match known.get_mut(&key) {
                    None => {
                        known.insert(key, value);
                    }
                    Some(inner) => {
                        if let Err(clash) = merge(inner, value) {
                            clashes.insert(key, clash);
                        }
                    }
                }
            }
            if clashes.is_empty() { Ok(()) } else { Err(Value::Object(clashes)) }
        }
        (known, value) if *known == value => Ok(()),
        (_, value) => Err(value),
    }
}

/// The value at a path of nested names.
fn slot<'m>(map: &'m mut Map<String, Value>, path: &str) -> Option<&'m mut Value> {
    match split_path(path) {
        None => map.get_mut(path),
        Some((head, rest)) => match map.get_mut(head)? {
            Value::Object(inner) => slot(inner, rest),
            _ => None,
        },
    }
}

fn remove(map: &mut Map<String, Value>, path: &str) -> Option<Value> {
    match split_path(path) {
        None => map.remove(path),
        Some((head, rest)) => match map.get_mut(head)? {
            Value::Object(inner) => remove(inner, rest),
            _ => None,
        },
    }
}
