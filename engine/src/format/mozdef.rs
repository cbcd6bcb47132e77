//! MozDef's event, with the key aliases that its workers knew. `docs/events.md` has the table.
//!
//! Keys are compared without `@` and without case. Of several keys for one field the most specific counts, whatever their order, and
//! the others are kept under `details`; MozDef took the last. Keys that it did not know it dropped; here they go to `details`. No value
//! whatsoever loses the event.

use redoubt_crds::FieldType::{self, Ip, Keyword, Long};
use serde_json::Value;

use super::{
    ParseError,
    draft::{Draft, json_object, says_nothing},
    json::as_text,
    priority::{severity_code, severity_name},
};
use crate::{
    event::{Event, RawEvent, scalar_text},
    source::Source,
};

/// A field of MozDef's event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Field {
    Time,
    Message,
    Host,
    Severity,
    Source,
    Facility,
    ProcessId,
    ProcessName,
    Category,
    LogPath,
    LogName,
    SenderIp,
}

/// Keys by field, the most specific first.
const ALIASES: &[(Field, &[&str])] = &[
    (Field::Time, &["utctimestamp", "timestamp", "eventtime", "date"]),
    (Field::Message, &["summary", "message", "payload"]),
    (Field::Host, &["hostname", "host", "source_host"]),
    (Field::Severity, &["severity", "syslogseverity", "severityvalue", "level", "priority"]),
    (Field::Source, &["source"]),
    (Field::Facility, &["syslogfacility", "facility"]),
    (Field::ProcessId, &["processid", "pid"]),
    (Field::ProcessName, &["processname", "pname", "program", "sourcename"]),
    (Field::Category, &["category", "eventtype", "type"]),
    (Field::LogPath, &["file", "path"]),
    (Field::LogName, &["logger"]),
    (Field::SenderIp, &["sourceip"]),
];

/// MozDef's recommended `details` with an ECS field of their own.
const COPIES: &[(&str, &str, FieldType)] = &[
    ("sourceipaddress", "source.ip", Ip),
    ("sourceport", "source.port", Long),
    ("destinationipaddress", "destination.ip", Ip),
    ("destinationport", "destination.port", Long),
    ("eventsourceipaddress", "host.ip", Ip),
    ("username", "user.name", Keyword),
    ("useragent", "user_agent.original", Keyword),
];

pub(super) fn parse(source: &Source, raw: &RawEvent) -> Result<Event, ParseError> {
    let object = json_object(raw, "a MozDef event (a JSON object)")?;
    let mut draft = Draft::new(source, raw);
    let mut candidates: Vec<(Field, usize, String, Value)> = Vec::new();
    for (key, value) in object {
        let plain = plain_key(&key);
        match plain.as_str() {
            "tags" => draft.take_tags(value),
            "details" | "fields" => match value {
                Value::Object(fields) => {
                    for (name, value) in fields {
                        detail(&mut draft, name, value);
                    }
                }
                Value::Null => {}
                other => draft.detail("message".to_owned(), other),
            },
            other => match field(other) {
                Some((field, rank)) => candidates.push((field, rank, key, value)),
                None => match inner_name(&key) {
                    Some(name) => detail(&mut draft, name.to_owned(), value),
                    None => draft.detail(key, value),
                },
            },
        }
    }

    candidates.sort_by_key(|(_, rank, ..)| *rank);
    let mut filled = Vec::with_capacity(candidates.len());
    for (field, _, key, value) in candidates {
        if says_nothing(&value) {
            continue;
        }
        // A second key of a field is kept, unless it says the same once more.
        if filled.contains(&field) || !set(&mut draft, field, &value) {
            draft.detail(key, value);
        } else {
            filled.push(field);
            if matches!(field, Field::ProcessName) {
                // Sigma's rules and MozDef's own alerts ask for the program under this name.
                draft.details.entry("program").or_insert(value);
            }
        }
    }
    // MozDef's `facility` was also the source of an event that named none.
    if let Some(facility) = draft.details.get("facility").and_then(scalar_text) {
        draft.put_text("event.provider", &facility);
    }
    draft.copy(COPIES);
    Ok(draft.finish())
}

/// A key as MozDef compared it.
fn plain_key(key: &str) -> String {
    key.chars().filter(|c| *c != '@').flat_map(char::to_lowercase).collect()
}

fn field(plain: &str) -> Option<(Field, usize)> {
    ALIASES.iter().find_map(|(field, keys)| keys.iter().position(|key| *key == plain).map(|rank| (*field, rank)))
}

/// `X` of `details.X` and `fields.X`.
fn inner_name(key: &str) -> Option<&str> {
    let (head, name) = key.split_once('.')?;
    (matches!(plain_key(head).as_str(), "details" | "fields") && !name.is_empty()).then_some(name)
}

/// A native field; the suffixes `_int` and `_float` ask for a number, and stay in the name.
fn detail(draft: &mut Draft<'_>, name: String, value: Value) {
    let field_type = if name.ends_with("_int") {
        Long
    } else if name.ends_with("_float") {
        FieldType::Double
    } else {
        draft.detail(name, value);
        return;
    };
    if says_nothing(&value) {
        draft.detail(name, value);
        return;
    }
    match super::convert::convert(&value, field_type, &draft.clock()) {
        Some(number) => draft.detail(name, number),
        None => {
            draft.mark_unparsed();
            draft.detail(name, as_text(value));
        }
    }
}

/// Writes a field; false when the value has to be kept under `details` as well.
fn set(draft: &mut Draft<'_>, field: Field, value: &Value) -> bool {
    if field == Field::Time {
        return draft.set_time(value);
    }
    let Some(text) = scalar_text(value) else {
        // A message that is an object is shown as JSON text; its fields stay fields.
        if field == Field::Message {
            draft.put_text("message", &value.to_string());
        } else {
            draft.mark_unparsed();
        }
        return false;
    };
    match field {
        Field::Time => {}
        Field::Message => draft.put_text("message", &text),
        Field::Host => draft.put_text("host.name", &text),
        Field::Severity => match severity_code(&text) {
            Some(code) => {
                draft.put("event.severity", code.into());
                let is_number = text.trim().bytes().all(|byte| byte.is_ascii_digit());
                let name = if is_number { severity_name(code).unwrap_or_default().to_owned() } else { text.trim().to_lowercase() };
                draft.put_text("log.level", &name);
            }
            None => draft.put_text("log.level", &text.trim().to_lowercase()),
        },
        Field::Source => draft.put_text("event.provider", &text),
        Field::Facility => {
            draft.put_text("log.syslog.facility.name", &text);
            draft.detail("facility".to_owned(), Value::String(text));
        }
        Field::ProcessId => {
            let Some(number) = super::convert::long(value) else {
                // `UNKNOWN` is what MozDef's own senders write, so it is no surprise.
                return false;
            };
            draft.put("process.pid", number.into());
        }
        Field::ProcessName => draft.put_text("process.name", &text),
        Field::Category => draft.put_text("event.category", &text),
        Field::LogPath => draft.put_text("log.file.path", &text),
        Field::LogName => draft.put_text("log.logger", &text),
        Field::SenderIp => draft.detail("eventsourceipaddress".to_owned(), Value::String(text)),
    }
    true
}

#[cfg(test)]
mod tests;
