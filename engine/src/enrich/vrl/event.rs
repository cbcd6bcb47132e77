//! An event in VRL's form, and the way there and back.
//!
//! Documents move: keys and texts change owner and are not copied. VRL knows more and less than JSON. More: times, regular
//! expressions and bytes, which come back as text (RFC 3339; the pattern; replacement characters for what is no UTF-8), and infinity,
//! which comes back as null. Less: its integers end at 2^63 - 1. Larger ones appear to programs as floats; where a program leaves
//! such a number alone, it comes back exact.

use serde_json::{Map, Number, Value as Json};
use vrl::{
    compiler::TargetValue,
    value::{ObjectMap, Secrets, Value, value::timestamp_to_string},
};

/// An event's document in VRL's form.
#[derive(Debug)]
pub struct VrlEvent {
    target: TargetValue,
    wide: Vec<Wide>,
}

/// An integer that VRL cannot hold, and where it stood.
#[derive(Debug)]
struct Wide {
    /// Innermost segment first.
    path: Vec<Segment>,
    number: u64,
}

#[derive(Debug)]
enum Segment {
    Key(String),
    Index(usize),
}

impl VrlEvent {
    /// Takes a document into VRL's form.
    #[must_use]
    pub fn from_document(document: Map<String, Json>) -> Self {
        let mut wide = Vec::new();
        let value = into_vrl(Json::Object(document), &mut wide);
        Self { target: TargetValue { value, metadata: Value::Object(ObjectMap::new()), secrets: Secrets::default() }, wide }
    }

    /// Takes the document back. Empty where a value other than an object took its place, which [`super::Program`] never leaves behind.
    #[must_use]
    pub fn into_document(self) -> Map<String, Json> {
        let Json::Object(mut document) = into_json(self.target.value) else { return Map::new() };
        for wide in self.wide {
            restore(&mut document, &wide);
        }
        document
    }

    /// The document.
    #[must_use]
    pub fn root(&self) -> &Value {
        &self.target.value
    }

    /// The document, to be changed.
    pub(in crate::enrich) fn root_mut(&mut self) -> &mut Value {
        &mut self.target.value
    }

    pub(super) fn target_mut(&mut self) -> &mut TargetValue {
        &mut self.target
    }
}

/// A JSON value in VRL's form.
pub(in crate::enrich) fn to_vrl(value: Json) -> Value {
    into_vrl(value, &mut Vec::new())
}

fn into_vrl(value: Json, wide: &mut Vec<Wide>) -> Value {
    match value {
        Json::Null => Value::Null,
        Json::Bool(flag) => Value::Boolean(flag),
        Json::String(text) => Value::from(text),
        Json::Number(number) => {
            if let Some(integer) = number.as_i64() {
                return Value::Integer(integer);
            }
            if let Some(number) = number.as_u64() {
                wide.push(Wide { path: Vec::new(), number });
            }
            // JSON has neither NaN nor numbers without a float beside them.
            Value::from_f64_or_zero(number.as_f64().unwrap_or_default())
        }
        Json::Array(items) => {
            let mut array = Vec::with_capacity(items.len());
            for (index, item) in items.into_iter().enumerate() {
                let known = wide.len();
                array.push(into_vrl(item, wide));
                for found in &mut wide[known..] {
                    found.path.push(Segment::Index(index));
                }
            }
            Value::Array(array)
        }
        Json::Object(entries) => {
            let mut object = ObjectMap::new();
            for (key, item) in entries {
                let known = wide.len();
                let value = into_vrl(item, wide);
                for found in &mut wide[known..] {
                    found.path.push(Segment::Key(key.clone()));
                }
                object.insert(key.into(), value);
            }
            Value::Object(object)
        }
    }
}

fn into_json(value: Value) -> Json {
    match value {
        Value::Null => Json::Null,
        Value::Boolean(flag) => Json::Bool(flag),
        Value::String(text) => Json::String(text.into()),
        Value::Bytes(bytes) => Json::String(match String::from_utf8(bytes.into()) {
            Ok(text) => text,
            Err(error) => String::from_utf8_lossy(error.as_bytes()).into_owned(),
        }),
        Value::Regex(regex) => Json::String(regex.as_str().to_owned()),
        Value::Integer(integer) => Json::Number(integer.into()),
        Value::Float(float) => Number::from_f64(float.into_inner()).map_or(Json::Null, Json::Number),
        Value::Timestamp(time) => Json::String(timestamp_to_string(&time)),
        Value::Array(items) => Json::Array(items.into_iter().map(into_json).collect()),
        Value::Object(entries) => Json::Object(entries.into_iter().map(|(key, item)| (key.into(), into_json(item))).collect()),
    }
}

/// Puts a number back that VRL could only hold as a float, if it still stands where it stood.
fn restore(document: &mut Map<String, Json>, wide: &Wide) {
    let mut segments = wide.path.iter().rev();
    let Some(Segment::Key(first)) = segments.next() else { return };
    let mut place = document.get_mut(first);
    for segment in segments {
        place = place.and_then(|value| match segment {
            Segment::Key(key) => value.get_mut(key),
            Segment::Index(index) => value.get_mut(index),
        });
    }
    if let Some(value) = place
        && value.is_f64()
        && value.as_f64() == Number::from(wide.number).as_f64()
    {
        *value = wide.number.into();
    }
}

/// The size of a value in bytes of JSON, escapes aside; `None` when it nests deeper than `depth`.
pub(super) fn weigh(value: &Value, depth: usize) -> Option<usize> {
    /// What an element costs beside its content: quotes, commas, digits.
    const ELEMENT: usize = 4;

    let inner = match value {
        Value::Array(_) | Value::Object(_) => depth.checked_sub(1)?,
        _ => depth,
    };
    let mut bytes = ELEMENT;
    match value {
        Value::Bytes(text) => bytes += text.len(),
        Value::String(text) => bytes += text.len(),
        Value::Array(items) => {
            for item in items {
                bytes += weigh(item, inner)?;
            }
        }
        Value::Object(entries) => {
            for (key, item) in entries {
                bytes += key.len() + ELEMENT + weigh(item, inner)?;
            }
        }
        Value::Regex(_) | Value::Integer(_) | Value::Float(_) | Value::Boolean(_) | Value::Timestamp(_) | Value::Null => {}
    }
    Some(bytes)
}
