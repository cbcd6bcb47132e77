//! The event log's XML as JSON. An element's attributes stand in `#attributes` or have an `@` in front, its text in `#text`; an element
//! with text alone may be that text.

use serde_json::{Map, Value};

use super::{super::draft::Draft, set_utc_time};

/// Takes an `Event` element into the event.
pub(super) fn take(draft: &mut Draft<'_>, mut event: Map<String, Value>) {
    let system = match event.remove("System") {
        Some(Value::Object(system)) => system,
        _ => Map::new(),
    };
    match event.remove("EventData") {
        Some(Value::Object(data)) => take_data(draft, data),
        Some(Value::Null) | None => {}
        Some(other) => draft.detail("Data".to_owned(), other),
    }
    if let Some(Value::Object(data)) = event.remove("UserData") {
        take_user_data(draft, data);
    }
    let rest = core_fields(draft, system);
    system_fields(draft, rest);
    for (key, value) in event {
        match (key.as_str(), value) {
            // Namespaces of the XML.
            ("#attributes" | "xmlns" | "@xmlns", _) => {}
            ("RenderingInfo", value) => {
                if let Some(Value::String(message)) = value.get("Message") {
                    draft.put_text("message", message);
                }
                draft.detail(key, value);
            }
            (_, value) => draft.detail(key, value),
        }
    }
}

/// `EventID`, `Channel`, `Provider_Name`, `Computer` and the time; what is left of `System`. Rules rely on these, so data of the same
/// name makes room for them.
fn core_fields(draft: &mut Draft<'_>, mut system: Map<String, Value>) -> Map<String, Value> {
    if let Some(value) = system.remove("EventID") {
        let (text, mut attributes) = element(value);
        if let Some(value) = text {
            draft.claim_detail("EventID", value);
        }
        if let Some(value) = attributes.remove("Qualifiers") {
            draft.detail("EventID_Qualifiers".to_owned(), value);
        }
    }
    for name in ["Channel", "Computer"] {
        if let Some(value) = system.remove(name).and_then(|value| element(value).0) {
            draft.claim_detail(name, value);
        }
    }
    for name in ["Provider", "TimeCreated"] {
        let Some(value) = system.remove(name) else { continue };
        let (text, attributes) = element(value);
        if name == "TimeCreated" {
            let time = attributes.get("SystemTime").or(text.as_ref()).cloned().unwrap_or_default();
            set_utc_time(draft, "SystemTime", &time);
            continue;
        }
        for (key, value) in attributes {
            draft.claim_detail(&format!("Provider_{key}"), value);
        }
        if let Some(value) = text {
            draft.claim_detail("Provider_Name", value);
        }
    }
    system
}

/// The rest of `System`: texts by their names, attributes as `Execution_ProcessID`.
fn system_fields(draft: &mut Draft<'_>, system: Map<String, Value>) {
    for (key, value) in system {
        let (text, attributes) = element(value);
        for (attribute, value) in attributes {
            draft.detail(format!("{key}_{attribute}"), value);
        }
        if let Some(value) = text {
            draft.detail(key, value);
        }
    }
}

/// `EventData`: named fields, or `Data` elements with or without a name.
fn take_data(draft: &mut Draft<'_>, mut data: Map<String, Value>) {
    let attributes = data.remove("#attributes");
    let elements = match data.remove("Data") {
        None => Vec::new(),
        Some(Value::Array(elements)) => elements,
        Some(single) => vec![single],
    };
    draft.merge_details(data);

    if let Some(Value::Object(attributes)) = attributes {
        for (attribute, value) in attributes {
            draft.detail(format!("EventData_{attribute}"), value);
        }
    }
    let mut unnamed = Vec::new();
    for value in elements {
        data_element(draft, value, &mut unnamed);
    }
    match unnamed.len() {
        0 => {}
        1 => draft.detail("Data".to_owned(), unnamed.swap_remove(0)),
        _ => draft.detail("Data".to_owned(), Value::Array(unnamed)),
    }
}

fn data_element(draft: &mut Draft<'_>, value: Value, unnamed: &mut Vec<Value>) {
    if !value.is_object() {
        unnamed.push(value);
        return;
    }
    let (text, mut attributes) = element(value);
    let text = text.unwrap_or_default();
    match attributes.remove("Name") {
        Some(Value::String(name)) => draft.detail(name, text),
        // The text alone says something; an element of neither has only its attributes.
        _ if attributes.is_empty() => unnamed.push(text),
        _ => {
            attributes.insert("#text".to_owned(), text);
            unnamed.push(Value::Object(attributes));
        }
    }
}

/// `UserData`: the fields of the one element inside it, whatever its name.
fn take_user_data(draft: &mut Draft<'_>, data: Map<String, Value>) {
    for (key, value) in data {
        match value {
            _ if key == "#attributes" => {}
            Value::Object(mut fields) => {
                fields.remove("#attributes");
                take_data(draft, fields);
            }
            other => draft.detail(key, other),
        }
    }
}

/// An element's text, if it has one, and its attributes.
fn element(value: Value) -> (Option<Value>, Map<String, Value>) {
    let Value::Object(mut fields) = value else {
        return (Some(value).filter(|value| !value.is_null()), Map::new());
    };
    let text = fields.remove("#text").or_else(|| fields.remove("$"));
    let attributes = match fields.remove("#attributes") {
        Some(Value::Object(mut attributes)) => {
            attributes.extend(fields);
            attributes
        }
        _ => fields.into_iter().map(|(key, value)| (key.strip_prefix('@').map(str::to_owned).unwrap_or(key), value)).collect(),
    };
    (text, attributes)
}
