//! A Windows event in one of the shapes that shippers send it in:
//!
//! - the event log's XML as JSON: `{"Event": {"System": {...}, "EventData": {...}}}`;
//! - winlogbeat's: `{"winlog": {"channel": ..., "event_id": ..., "event_data": {...}}}`;
//! - flat, as NXLog and many Sysmon shippers write it: `{"EventID": 1, "Channel": ..., "Image": ...}`.
//!
//! All come out alike: the event's own data under `details` by its own names, as Sigma's rules name it, and beside it `EventID`,
//! `Channel`, `Provider_Name` and `Computer`. ECS fields are copies of these.

use std::sync::Arc;

use serde_json::{Map, Value};

use super::{
    ParseError,
    convert::long,
    draft::{Draft, json_object, says_nothing},
    ecs, json,
    windows_logsource::{Facts, index},
};
use crate::{
    event::{Event, RawEvent, scalar_text},
    source::Source,
};

mod ecs_fields;
mod xml;

const EXPECTED: &str = "a Windows event";

/// What other shippers call the four fields that every event has, and the name it has here.
const ALIASES: [(&str, &[&str]); 4] = [
    ("EventID", &["EventID", "EventId", "event_id", "Event_ID", "Id"]),
    ("Channel", &["Channel", "LogName", "channel", "log_name"]),
    ("Provider_Name", &["Provider_Name", "SourceName", "ProviderName", "provider_name", "source_name", "Provider", "Source"]),
    ("Computer", &["Computer", "Hostname", "MachineName", "computer_name", "ComputerName", "hostname"]),
];

/// Where a time stands in a flat event, most telling first.
const TIMES: [&str; 6] = ["TimeCreated", "SystemTime", "UtcTime", "EventTime", "time_created", "EventReceivedTime"];

pub(super) fn parse(source: &Source, raw: &RawEvent) -> Result<Event, ParseError> {
    let mut object = json_object(raw, EXPECTED)?;
    let mut draft = Draft::new(source, raw);
    if let Some(Value::Object(event)) = object.remove("Event") {
        xml::take(&mut draft, event);
        // What a shipper adds beside the event; most add nothing.
        if !object.is_empty() {
            json::take(&mut draft, object);
        }
    } else if object.get("System").is_some_and(Value::is_object) {
        xml::take(&mut draft, object);
    } else if let Some(Value::Object(winlog)) = object.remove("winlog") {
        take_winlog(&mut draft, winlog);
        json::take(&mut draft, object);
    } else {
        take_flat(&mut draft, object);
    }
    if !draft.details.contains_key("EventID") {
        let message = "no event id found (Event.System.EventID, winlog.event_id or EventID)".to_owned();
        return Err(ParseError { expected: EXPECTED, message });
    }

    let event_id = draft.details.get("EventID").and_then(long);
    if let (Some(number), Some(value)) = (event_id, draft.details.get_mut("EventID")) {
        *value = Value::from(number);
    }
    let text = |name: &str| draft.details.get(name).and_then(Value::as_str);
    let facts = Facts { channel: text("Channel"), provider: text("Provider_Name"), event_id, event_type: text("EventType") };
    let logsource = source.logsources.get(index(&facts)).map(Arc::clone);
    draft.logsource = logsource;
    ecs_fields::fill(&mut draft, event_id);
    Ok(draft.finish())
}

/// Takes the event's time; Windows writes UTC, with or without saying so.
fn set_utc_time(draft: &mut Draft<'_>, name: &str, value: &Value) {
    if draft.timestamp_millis.is_some() || says_nothing(value) {
        return;
    }
    let clock = super::time::Clock { zone: &jiff::tz::TimeZone::UTC, ..draft.clock() };
    match clock.read(value) {
        Some(millis) => draft.timestamp_millis = Some(millis),
        None => {
            if !draft.details.contains_key(name) {
                draft.detail(name.to_owned(), json::as_text(value.clone()));
            }
            draft.mark_unparsed();
        }
    }
}

/// winlogbeat's shape; what else the object holds is ECS.
fn take_winlog(draft: &mut Draft<'_>, mut winlog: Map<String, Value>) {
    for (name, from) in [("EventID", "event_id"), ("Channel", "channel"), ("Provider_Name", "provider_name"), ("Computer", "computer_name")]
    {
        if let Some(value) = winlog.remove(from) {
            draft.detail(name.to_owned(), value);
        }
    }
    for key in ["event_data", "user_data"] {
        match winlog.remove(key) {
            Some(Value::Object(data)) => draft.merge_details(data),
            Some(other) => draft.detail(key.to_owned(), other),
            None => {}
        }
    }
    for (name, from) in [
        ("EventRecordID", "record_id"),
        ("Provider_Guid", "provider_guid"),
        ("Task", "task"),
        ("Opcode", "opcode"),
        ("Keywords", "keywords"),
        ("Version", "version"),
        ("Correlation_ActivityID", "activity_id"),
    ] {
        if let Some(value) = winlog.remove(from) {
            draft.detail(name.to_owned(), value);
        }
    }
    if let Some(Value::Object(process)) = winlog.get("process") {
        let process_id = process.get("pid").cloned();
        let thread_id = process.get("thread").and_then(|thread| thread.get("id")).cloned();
        for (name, value) in [("Execution_ProcessID", process_id), ("Execution_ThreadID", thread_id)] {
            if let Some(value) = value {
                draft.detail(name.to_owned(), value);
            }
        }
    }
    if let Some(value) = winlog.get("user").and_then(|user| user.get("identifier")).cloned() {
        draft.detail("Security_UserID".to_owned(), value);
    }
    if !winlog.is_empty() {
        draft.detail("winlog".to_owned(), Value::Object(winlog));
    }
}

/// Everything at the top, by whatever names the shipper has for the common ones.
fn take_flat(draft: &mut Draft<'_>, object: Map<String, Value>) {
    let mut own = Map::new();
    for (key, value) in object {
        match (key.as_str(), value) {
            ("EventData" | "event_data" | "UserData", Value::Object(data)) => draft.merge_details(data),
            ("Message", Value::String(text)) => {
                draft.put_text("message", &text);
                draft.detail(key, Value::String(text));
            }
            ("@timestamp" | "tags" | "message" | "details", value) => {
                own.insert(key, value);
            }
            (name, value) if ecs::is_field_set(name) => {
                own.insert(key, value);
            }
            (_, value) => draft.detail(key, value),
        }
    }
    for (name, aliases) in ALIASES {
        let value = aliases.iter().find_map(|alias| draft.details.get(*alias).filter(|value| scalar_text(value).is_some()));
        if let Some(value) = value.cloned() {
            draft.details.entry(name).or_insert(value);
        }
    }
    for name in TIMES {
        if let Some(value) = draft.details.get(name).cloned() {
            set_utc_time(draft, name, &value);
        }
    }
    json::take(draft, own);
}

#[cfg(test)]
mod tests;
