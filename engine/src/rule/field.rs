//! How a field name of a rule finds its value in an event.
//!
//! The same name may stand for the source's own field or for an Elastic Common Schema field. The order is fixed, so that a rule means
//! the same everywhere: first `details.NAME`, what the source itself said; then `NAME` as a path of the document; then, where the name is
//! one of Sigma's generic fields, the ECS field that it stands for ([`ecs_name`]). An object of the document is never the value
//! of a name: `user` does not find the `user.name` of an event.

use serde_json::{Map, Value};

use crate::event::Event;

/// What a path leads to. Paths fan out over arrays of objects, so that it can be more than one value.
#[derive(Default)]
pub(super) struct Found<'a> {
    pub(super) first: Option<&'a Value>,
    pub(super) more: Vec<&'a Value>,
}

impl<'a> Found<'a> {
    fn push(&mut self, value: &'a Value) {
        if self.first.is_none() {
            self.first = Some(value);
        } else {
            self.more.push(value);
        }
    }

    fn len(&self) -> usize {
        self.more.len() + usize::from(self.first.is_some())
    }
}

/// The values at a dotted path. As with [`crate::event::lookup`], a key may itself hold dots; besides, an array on the way stands for each
/// of its members.
fn collect<'a>(object: &'a Map<String, Value>, path: &str) -> Found<'a> {
    let mut found = Found::default();
    collect_from_object(object, path, &mut found);
    found
}

fn collect_from_object<'a>(object: &'a Map<String, Value>, path: &str, found: &mut Found<'a>) {
    if let Some(value) = object.get(path) {
        found.push(value);
        return;
    }
    for (dot, _) in path.match_indices('.') {
        if let Some(inner) = object.get(&path[..dot]) {
            let before = found.len();
            collect_from_value(inner, &path[dot + 1..], found);
            if found.len() > before {
                return;
            }
        }
    }
}

fn collect_from_value<'a>(value: &'a Value, path: &str, found: &mut Found<'a>) {
    match value {
        Value::Object(object) => collect_from_object(object, path, found),
        Value::Array(members) => members.iter().for_each(|member| collect_from_value(member, path, found)),
        _ => {}
    }
}

/// What a rule's field name finds in a document.
pub(super) fn resolve<'a>(document: &'a Map<String, Value>, name: &str) -> Found<'a> {
    if let Some(Value::Object(details)) = document.get("details") {
        let found = collect(details, name);
        if found.first.is_some() {
            return found;
        }
    }
    let found = leaf(document, name);
    if found.first.is_some() {
        return found;
    }
    ecs_name(name).map_or_else(Found::default, |path| leaf(document, path))
}

/// The values at a path of the document, but for an object.
pub(super) fn leaf<'a>(document: &'a Map<String, Value>, path: &str) -> Found<'a> {
    let found = collect(document, path);
    if matches!(found.first, Some(Value::Object(_))) { Found::default() } else { found }
}

/// The text by which an event is grouped or counted: the value at the document's path where there is one, so that an ECS name means the
/// ECS field; else what the rule's field name finds. `None` where that is not one scalar.
pub(super) fn group_text(event: &Event, name: &str) -> Option<String> {
    event.get_text(name).or_else(|| {
        let found = resolve(&event.document, name);
        if found.more.is_empty() { found.first.and_then(crate::event::scalar_text) } else { None }
    })
}

/// Sigma's generic field names, and the ECS fields that hold the same thing (Sigma taxonomy 2.1; ECS 8). Only pairs whose values
/// are written alike: a field that ECS splits or spells otherwise would make a filter miss in silence.
pub(super) const ECS_NAMES: [(&str, &str); 44] = [
    ("CommandLine", "process.command_line"),
    ("Computer", "host.name"),
    ("CurrentDirectory", "process.working_directory"),
    ("DestinationHostname", "destination.domain"),
    ("DestinationIp", "destination.ip"),
    ("DestinationPort", "destination.port"),
    ("EventID", "event.code"),
    ("Image", "process.executable"),
    ("ImageLoaded", "dll.path"),
    ("OriginalFileName", "process.pe.original_file_name"),
    ("ParentCommandLine", "process.parent.command_line"),
    ("ParentImage", "process.parent.executable"),
    ("ParentProcessGuid", "process.parent.entity_id"),
    ("ParentProcessId", "process.parent.pid"),
    ("ProcessGuid", "process.entity_id"),
    ("ProcessId", "process.pid"),
    ("Protocol", "network.transport"),
    ("Provider_Name", "event.provider"),
    ("QueryName", "dns.question.name"),
    ("SourceHostname", "source.domain"),
    ("SourceIp", "source.ip"),
    ("SourcePort", "source.port"),
    ("TargetFilename", "file.path"),
    ("TargetObject", "registry.path"),
    ("User", "user.name"),
    ("c-ip", "source.ip"),
    ("c-uri", "url.original"),
    ("c-uri-extension", "url.extension"),
    ("c-uri-query", "url.query"),
    ("c-useragent", "user_agent.original"),
    ("cs-bytes", "http.request.bytes"),
    ("cs-host", "url.domain"),
    ("cs-method", "http.request.method"),
    ("cs-referer", "http.request.referrer"),
    ("cs-uri-query", "url.query"),
    ("cs-uri-stem", "url.path"),
    ("cs-user-agent", "user_agent.original"),
    ("cs-username", "user.name"),
    ("dst_ip", "destination.ip"),
    ("dst_port", "destination.port"),
    ("query", "dns.question.name"),
    ("sc-status", "http.response.status_code"),
    ("src_ip", "source.ip"),
    ("src_port", "source.port"),
];

/// The ECS field that one of Sigma's generic names stands for.
pub(super) fn ecs_name(name: &str) -> Option<&'static str> {
    ECS_NAMES.binary_search_by(|(sigma, _)| (*sigma).cmp(name)).ok().map(|at| ECS_NAMES[at].1)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn found(document: &Value, name: &str) -> Vec<Value> {
        let found = resolve(document.as_object().unwrap(), name);
        found.first.into_iter().chain(found.more).cloned().collect()
    }

    #[test]
    fn a_name_finds_the_native_field_then_the_ecs_field_then_what_it_stands_for() {
        let document = json!({
            "details": {"Image": "native", "Threat Name": "Eicar", "id.orig_h": "10.0.0.1", "a": {"b": 1}, "empty": null},
            "process": {"executable": "ecs", "command_line": "whoami /all"},
            "user": {"name": "alice"},
        });

        for (name, values) in [
            ("Image", vec![json!("native")]),
            ("process.executable", vec![json!("ecs")]),
            ("CommandLine", vec![json!("whoami /all")]),
            ("User", vec![json!("alice")]),
            ("Threat Name", vec![json!("Eicar")]),
            ("id.orig_h", vec![json!("10.0.0.1")]),
            ("a.b", vec![json!(1)]),
            ("empty", vec![Value::Null]),
            ("details.Image", vec![json!("native")]),
            ("user", vec![]),
            ("absent", vec![]),
            ("a.c", vec![]),
        ] {
            assert_eq!(found(&document, name), values, "{name}");
        }
    }

    #[test]
    fn a_path_fans_out_over_arrays_of_objects() {
        let document = json!({"details": {"items": [{"ip": "1.1.1.1"}, {"other": 1}, {"ip": "2.2.2.2"}]}});

        assert_eq!(found(&document, "items.ip"), [json!("1.1.1.1"), json!("2.2.2.2")]);
    }

    #[test]
    fn the_ecs_names_are_in_order_so_that_a_search_finds_each() {
        assert!(ECS_NAMES.is_sorted_by(|left, right| left.0 < right.0));
        for (sigma, ecs) in ECS_NAMES {
            assert_eq!(ecs_name(sigma), Some(ecs));
        }
    }
}
