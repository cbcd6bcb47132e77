//! Elasticsearch's `_bulk` body: action lines and documents by turns.
//!
//! Redoubt only appends, so `index` and `create` mean the same and `delete` and `update` are refused one by one. Plain event lines are
//! taken too, since MozDef's `_bulk` took them; an event that merely has a field named `index` is one of these.

use serde::de::IgnoredAny;
use serde_json::{Map, Value};

use super::{
    FrameError,
    frame::{Place, objects},
};

/// One document of a bulk body.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BulkItem<'a> {
    /// The document, one JSON object.
    pub document: &'a str,
    /// `_id` of its action line: the client's own id of the document.
    pub id: Option<String>,
}

enum Action {
    Append { id: Option<String> },
    Refused { name: &'static str, has_body: bool },
}

/// Cuts a `_bulk` body into its documents, in order, at most `limit` of them; what stands behind is not looked at. What is no document is
/// an error in its place; the others stand.
#[must_use]
pub fn frame_bulk(body: &str, limit: usize) -> Vec<Result<BulkItem<'_>, FrameError>> {
    let mut place = Place::new(body);
    let mut items = Vec::new();
    let mut due: Option<(Action, usize)> = None;
    // A document takes two lines with its action.
    for frame in objects(body, false, limit.saturating_mul(2)) {
        let text = match frame {
            Ok(text) => text,
            Err(error) => {
                // The line after an action is its document, broken or not.
                due = None;
                items.push(Err(error));
                continue;
            }
        };
        // Both are slices of the body, so the difference is the frame's offset.
        let offset = text.as_ptr() as usize - body.as_ptr() as usize;
        match due.take() {
            Some((Action::Append { id }, _)) => items.push(Ok(BulkItem { document: text, id })),
            Some((Action::Refused { name, .. }, at)) => items.push(Err(refusal(&mut place, at, name))),
            None => match action(text) {
                None => items.push(Ok(BulkItem { document: text, id: None })),
                Some(Action::Refused { name, has_body: false }) => items.push(Err(refusal(&mut place, offset, name))),
                Some(action) => due = Some((action, offset)),
            },
        }
    }
    match due {
        Some((Action::Append { .. }, at)) => {
            items.push(Err(place.error(at, "the body ends after this action", "send the document that belongs to it")));
        }
        Some((Action::Refused { name, .. }, at)) => items.push(Err(refusal(&mut place, at, name))),
        None => {}
    }
    items.truncate(limit);
    items
}

fn refusal(place: &mut Place<'_>, at: usize, name: &str) -> FrameError {
    place.error(at, format!("{name} is not supported: Redoubt only appends"), "use create")
}

/// The action of a line, if it is one: an object with a single key that names an action and holds an object.
fn action(text: &str) -> Option<Action> {
    let key = text.strip_prefix('{')?.trim_start().strip_prefix('"')?;
    if !["index\"", "create\"", "update\"", "delete\""].iter().any(|name| key.starts_with(name)) {
        return None;
    }
    // Most documents end above. One that begins with such a key is counted first, without being built.
    let members: std::collections::BTreeMap<String, IgnoredAny> = serde_json::from_str(text).ok()?;
    if members.len() != 1 {
        return None;
    }
    let line: Map<String, Value> = serde_json::from_str(text).ok()?;
    let (name, Value::Object(options)) = line.into_iter().next()? else { return None };
    Some(match name.as_str() {
        "index" | "create" => Action::Append { id: options.get("_id").and_then(crate::event::scalar_text) },
        "update" => Action::Refused { name: "update", has_body: true },
        _ => Action::Refused { name: "delete", has_body: false },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(body: &str) -> Vec<String> {
        frame_bulk(body, usize::MAX)
            .into_iter()
            .map(|item| match item {
                Ok(BulkItem { document, id: Some(id) }) => format!("{id}={document}"),
                Ok(BulkItem { document, id: None }) => document.to_owned(),
                Err(error) => format!("line {}: {}", error.line, error.message),
            })
            .collect()
    }

    #[test]
    fn actions_are_paired_with_their_documents() {
        let cases: [(&str, &str, &[&str]); 11] = [
            ("index and create", "{\"index\":{}}\n{\"a\":1}\n{\"create\":{\"_id\":\"x\"}}\n{\"a\":2}\n", &["{\"a\":1}", "x={\"a\":2}"]),
            ("a numeric id", "{ \"index\" : {\"_id\":7}}\n{\"a\":1}", &["7={\"a\":1}"]),
            ("plain events", "{\"a\":1}\n{\"b\":2}", &["{\"a\":1}", "{\"b\":2}"]),
            ("an array of events", "[{\"a\":1},{\"b\":2}]", &["{\"a\":1}", "{\"b\":2}"]),
            ("an event with a field named index", "{\"index\":{\"x\":1},\"a\":1}", &["{\"index\":{\"x\":1},\"a\":1}"]),
            ("an event whose only field is index, as text", "{\"index\":\"main\"}", &["{\"index\":\"main\"}"]),
            ("a document that looks like an action", "{\"index\":{}}\n{\"delete\":{}}", &["{\"delete\":{}}"]),
            (
                "delete and update",
                "{\"delete\":{\"_id\":\"1\"}}\n{\"a\":1}\n{\"update\":{\"_id\":\"1\"}}\n{\"doc\":{}}\n{\"b\":2}",
                &[
                    "line 1: delete is not supported: Redoubt only appends",
                    "{\"a\":1}",
                    "line 3: update is not supported: Redoubt only appends",
                    "{\"b\":2}",
                ],
            ),
            ("an action without a document", "{\"a\":1}\n{\"index\":{}}\n", &["{\"a\":1}", "line 2: the body ends after this action"]),
            (
                "a broken document",
                "{\"index\":{\"_id\":\"1\"}}\n{\"a\":\n{\"index\":{\"_id\":\"2\"}}\n{\"a\":2}",
                &["line 3: the object is not finished", "2={\"a\":2}"],
            ),
            ("nothing", " \n", &[]),
        ];

        for (name, body, expected) in cases {
            assert_eq!(shown(body), expected, "{name}");
        }
    }
}
