//! ArcSight Common Event Format (CEF implementation standard, version 27), with or without a syslog header in front.
//!
//! ```text
//! CEF:0|Vendor|Product|1.0|100|Port scan|7|src=192.0.2.1 dpt=22 cs1=eth0 cs1Label=Interface
//! ```
//!
//! Every key stands under `details` by its own name, and a labelled custom field by its label besides. A `=` inside a value needs no
//! escape here as long as no blank and word stand before it, since few senders escape it.

use redoubt_crds::FieldType;
use serde_json::Value;

use super::{
    ParseError,
    draft::{Draft, says_nothing},
    syslog,
};
use crate::{
    event::{Event, RawEvent},
    source::Source,
};

const EXPECTED: &str = "a CEF event";

/// Extension keys with an ECS field of their own.
const COPIES: &[(&str, &str, FieldType)] = &[
    ("act", "event.action", FieldType::Keyword),
    ("app", "network.protocol", FieldType::Keyword),
    ("dmac", "destination.mac", FieldType::Keyword),
    ("dntdom", "destination.user.domain", FieldType::Keyword),
    ("dpid", "process.pid", FieldType::Long),
    ("dpriv", "destination.user.group.name", FieldType::Keyword),
    ("dproc", "process.name", FieldType::Keyword),
    ("dpt", "destination.port", FieldType::Long),
    ("duid", "destination.user.id", FieldType::Keyword),
    ("duser", "destination.user.name", FieldType::Keyword),
    ("dvc", "observer.ip", FieldType::Ip),
    ("dvchost", "observer.hostname", FieldType::Keyword),
    ("dvchost", "host.name", FieldType::Keyword),
    ("end", "event.end", FieldType::Date),
    ("filePath", "file.path", FieldType::Keyword),
    ("fname", "file.name", FieldType::Keyword),
    ("fsize", "file.size", FieldType::Long),
    ("in", "source.bytes", FieldType::Long),
    ("out", "destination.bytes", FieldType::Long),
    ("outcome", "event.outcome", FieldType::Keyword),
    ("proto", "network.transport", FieldType::Keyword),
    ("reason", "event.reason", FieldType::Keyword),
    ("request", "url.original", FieldType::Keyword),
    ("requestClientApplication", "user_agent.original", FieldType::Keyword),
    ("requestMethod", "http.request.method", FieldType::Keyword),
    ("smac", "source.mac", FieldType::Keyword),
    ("sntdom", "source.user.domain", FieldType::Keyword),
    ("sourceTranslatedAddress", "source.nat.ip", FieldType::Ip),
    ("destinationTranslatedAddress", "destination.nat.ip", FieldType::Ip),
    ("spid", "process.pid", FieldType::Long),
    ("sproc", "process.name", FieldType::Keyword),
    ("spt", "source.port", FieldType::Long),
    ("start", "event.start", FieldType::Date),
    ("suid", "source.user.id", FieldType::Keyword),
    ("suser", "source.user.name", FieldType::Keyword),
    ("suser", "user.name", FieldType::Keyword),
    ("duser", "user.name", FieldType::Keyword),
];

/// The header's fields, by the names that the standard gives them.
const HEADER: [&str; 7] = ["cefVersion", "deviceVendor", "deviceProduct", "deviceVersion", "deviceEventClassId", "name", "severity"];

pub(super) fn parse(source: &Source, raw: &RawEvent) -> Result<Event, ParseError> {
    let line = raw.body.trim_end_matches(['\r', '\n', '\0']);
    let refused = |message: String| ParseError { expected: EXPECTED, message };
    let start = line.find("CEF:").ok_or_else(|| refused("the line holds no \"CEF:\"".to_owned()))?;
    let (header, extension) = split_header(&line[start + 4..]).map_err(refused)?;

    let mut draft = Draft::new(source, raw);
    for (name, value) in HEADER.iter().zip(&header) {
        draft.detail((*name).to_owned(), value.as_str().into());
    }
    for (key, value) in extensions(extension) {
        draft.detail(key.to_owned(), value.into());
    }
    label_custom_fields(&mut draft);

    let [_, vendor, product, version, class, name, severity] = &header;
    draft.put_text("observer.vendor", vendor);
    draft.put_text("observer.product", product);
    draft.put_text("observer.version", version);
    draft.put_text("event.code", class);
    set_severity(&mut draft, severity);
    for key in ["msg", "message"] {
        if let Some(text) = draft.details.get(key).and_then(Value::as_str).map(str::to_owned) {
            draft.put_text("message", &text);
        }
    }
    draft.put_text("message", name);

    for (key, side) in [("src", "source"), ("dst", "destination"), ("shost", "source"), ("dhost", "destination")] {
        if let Some(text) = draft.details.get(key).and_then(Value::as_str).map(str::to_owned) {
            draft.put_endpoint(side, &text);
        }
    }
    draft.copy(COPIES);

    for key in ["rt", "end", "start"] {
        if draft.timestamp_millis.is_none()
            && let Some(value) = draft.details.get(key).filter(|value| !says_nothing(value)).cloned()
        {
            draft.set_time(&value);
        }
    }
    // The syslog header is the relay's word, so it fills only what the event itself leaves open.
    if start > 0 {
        let relay = syslog::read(line[..start].trim_end(), &draft.clock());
        let relay = syslog::Message { host: relay.host.or(Some(relay.text).filter(|text| !text.contains(' '))), odd: false, ..relay };
        syslog::fill(&mut draft, &relay);
    }
    draft.put_text("event.original", line);
    Ok(draft.finish())
}

/// The seven header fields, with `\|` and `\\` undone, and the extension behind them.
fn split_header(text: &str) -> Result<([String; 7], &str), String> {
    let mut fields: [String; 7] = Default::default();
    let mut index = 0;
    let mut chars = text.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            '|' => {
                index += 1;
                if index == fields.len() {
                    return Ok((fields, &text[at + 1..]));
                }
            }
            '\\' => match chars.next() {
                Some((_, escaped @ ('|' | '\\'))) => fields[index].push(escaped),
                Some((_, other)) => fields[index].extend(['\\', other]),
                None => fields[index].push('\\'),
            },
            other => fields[index].push(other),
        }
    }
    // An event without an extension may end behind its severity.
    if index == fields.len() - 1 {
        return Ok((fields, ""));
    }
    Err(format!("the header has {} of its 7 fields (Version|Vendor|Product|Version|Class ID|Name|Severity)", index + 1))
}

/// The pairs of an extension. A key is a word before `=`, at the start or behind a blank; its value runs to the blank before the next.
fn extensions(text: &str) -> Vec<(&str, String)> {
    let mut keys: Vec<(usize, usize)> = Vec::new();
    let bytes = text.as_bytes();
    let mut word = 0;
    for (at, byte) in bytes.iter().enumerate() {
        match byte {
            b' ' | b'\t' => word = at + 1,
            b'=' if at > word && bytes[word..at].iter().all(|byte| is_key_byte(*byte)) => {
                keys.push((word, at));
                // What follows belongs to the value until a blank.
                word = text.len();
            }
            _ => {}
        }
    }
    let mut pairs = Vec::with_capacity(keys.len());
    for (index, &(start, equals)) in keys.iter().enumerate() {
        let end = keys.get(index + 1).map_or(text.len(), |next| next.0);
        pairs.push((&text[start..equals], unescape(text[equals + 1..end].trim_end())));
    }
    pairs
}

fn is_key_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.' | b'-' | b'[' | b']' | b':')
}

fn unescape(text: &str) -> String {
    if !text.contains('\\') {
        return text.to_owned();
    }
    let mut value = String::with_capacity(text.len());
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        if c != '\\' {
            value.push(c);
            continue;
        }
        match chars.next() {
            Some('n') => value.push('\n'),
            Some('r') => value.push('\r'),
            Some(escaped @ ('=' | '\\' | '|')) => value.push(escaped),
            Some(other) => value.extend(['\\', other]),
            None => value.push('\\'),
        }
    }
    value
}

/// `cs1=eth0 cs1Label=Interface` is also `Interface: eth0`.
fn label_custom_fields(draft: &mut Draft<'_>) {
    let labelled: Vec<(String, Value)> = draft
        .details
        .iter()
        .filter_map(|(key, label)| {
            let value = draft.details.get(key.strip_suffix("Label")?)?;
            let label = label.as_str().filter(|label| !label.is_empty())?;
            Some((label.to_owned(), value.clone()))
        })
        .collect();
    for (label, value) in labelled {
        draft.detail(label, value);
    }
}

/// Severity is 0 to 10, or a word for a part of that range, of which the highest number counts.
fn set_severity(draft: &mut Draft<'_>, text: &str) {
    let code = match text.trim().to_ascii_lowercase().as_str() {
        "low" => 3,
        "medium" => 6,
        "high" => 8,
        "very-high" => 10,
        "unknown" | "" => return,
        other => match other.parse() {
            Ok(code @ 0..=10) => code,
            _ => {
                draft.mark_unparsed();
                return;
            }
        },
    };
    draft.put("event.severity", Value::from(code));
}

#[cfg(test)]
mod tests;
