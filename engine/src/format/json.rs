//! A JSON object: ECS fields are taken as they are, everything else goes to `details`.
//!
//! ```text
//! {"source.ip": "192.0.2.1", "host": "web-1", "colour": "red"}
//!     -> source: {ip: 192.0.2.1}, host: {name: web-1}, details: {host: web-1, colour: red}
//! ```

use serde_json::{Map, Value};

use super::{
    ParseError,
    draft::{Draft, is_path, json_object},
    ecs,
};
use crate::{
    event::{Event, RawEvent, lookup, scalar_text},
    source::Source,
};

pub(super) fn parse(source: &Source, raw: &RawEvent) -> Result<Event, ParseError> {
    let object = json_object(raw, "a JSON object")?;
    let mut draft = Draft::new(source, raw);
    take(&mut draft, object);
    Ok(draft.finish())
}

/// Takes a sender's own object into the event.
pub(super) fn take(draft: &mut Draft<'_>, object: Map<String, Value>) {
    // Scalars in a field set's place come last: a real `host.name` goes before `host: web-1`, in whatever order they stand.
    let mut scalars = Vec::new();
    for (key, value) in object {
        match key.as_str() {
            "@timestamp" => {
                if !draft.set_time(&value) {
                    draft.detail(key, as_text(value));
                }
            }
            "message" => message(draft, value),
            "tags" => draft.take_tags(value),
            "details" => match value {
                Value::Object(fields) => draft.merge_details(fields),
                other => draft.detail(key, other),
            },
            name if ecs::is_field_set(name) => match value {
                Value::Object(_) => draft.place_or_keep(name, value),
                other => scalars.push((key, other)),
            },
            path if path.split_once('.').is_some_and(|(head, _)| ecs::is_field_set(head)) && is_path(path) => {
                draft.place_or_keep(path, value);
            }
            _ => draft.detail(key, value),
        }
    }
    for (key, value) in scalars {
        if let Some(path) = ecs::scalar_target(&key)
            && let Some(text) = scalar_text(&value)
        {
            draft.put_text(path, &text);
        }
        draft.detail(key, value);
    }

    draft.check_types();
    if let Some(own) = lookup(&draft.document, "event.id").and_then(scalar_text).filter(|own| !own.is_empty()) {
        draft.own_id = Some(own);
    }
    if draft.timestamp_millis.is_none()
        && let Some(time) = draft.details.get("timestamp").and_then(|value| draft.clock().read(value))
    {
        draft.timestamp_millis = Some(time);
    }
}

/// `message` is text in every event; what is not is kept under `details` besides.
fn message(draft: &mut Draft<'_>, value: Value) {
    match value {
        Value::Null => {}
        Value::String(_) => draft.place_or_keep("message", value),
        other => {
            draft.put_text("message", &scalar_text(&other).unwrap_or_else(|| other.to_string()));
            draft.detail("message".to_owned(), other);
        }
    }
}

/// A value as text, for one that did not make sense as what it ought to be.
pub(super) fn as_text(value: Value) -> Value {
    match value {
        Value::String(_) => value,
        other => Value::String(scalar_text(&other).unwrap_or_else(|| other.to_string())),
    }
}

#[cfg(test)]
mod tests;
