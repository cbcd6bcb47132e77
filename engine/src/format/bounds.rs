//! How large and how deep one event may be, and what becomes of the rest.
//!
//! A store refuses a document of endless fields or depth, and then the whole event would be lost for the sake of its odd corner. So
//! what goes past a bound is kept as JSON text: still there, still searchable as text, no longer a field.

use serde_json::{Map, Value};

/// Values an event holds as fields, all together; more than any source in earnest sends.
pub(super) const MAX_LEAVES: usize = 10_000;
/// Objects and arrays inside each other below one top-level name. Elasticsearch refuses 20.
const MAX_DEPTH: usize = 16;
/// Where the names past [`MAX_LEAVES`] are kept, under `details`.
pub(super) const OVERFLOW_FIELD: &str = "_overflow";

/// Brings an event within the bounds; true when something had to be turned into text.
pub(super) fn enforce(document: &mut Map<String, Value>, details: &mut Map<String, Value>) -> bool {
    let mut folded = false;
    let mut leaves = 0;
    for value in document.values_mut().chain(details.values_mut()) {
        leaves += measure(value, MAX_DEPTH, &mut folded);
    }
    if leaves <= MAX_LEAVES {
        return folded;
    }

    let mut budget = MAX_LEAVES;
    let mut overflow = Map::new();
    take_past(document, "", &mut budget, &mut overflow);
    take_past(details, "details.", &mut budget, &mut overflow);
    details.insert(OVERFLOW_FIELD.to_owned(), Value::String(Value::Object(overflow).to_string()));
    true
}

/// Counts a value's leaves, turning what lies too deep into text.
fn measure(value: &mut Value, depth_left: usize, folded: &mut bool) -> usize {
    let empty = match value {
        Value::Object(map) => map.is_empty(),
        Value::Array(list) => list.is_empty(),
        _ => true,
    };
    if empty {
        return 1;
    }
    if depth_left == 0 {
        *value = Value::String(value.to_string());
        *folded = true;
        return 1;
    }
    match value {
        Value::Object(map) => map.values_mut().map(|inner| measure(inner, depth_left - 1, folded)).sum(),
        Value::Array(list) => list.iter_mut().map(|inner| measure(inner, depth_left - 1, folded)).sum(),
        _ => 1,
    }
}

/// Takes out the entries that the budget has no room for.
fn take_past(map: &mut Map<String, Value>, prefix: &str, budget: &mut usize, overflow: &mut Map<String, Value>) {
    let mut unused = false;
    let mut past = Vec::new();
    for (key, value) in map.iter_mut() {
        let leaves = measure(value, MAX_DEPTH, &mut unused);
        match budget.checked_sub(leaves) {
            Some(rest) => *budget = rest,
            None => past.push(key.clone()),
        }
    }
    for key in past {
        if let Some(value) = map.remove(&key) {
            overflow.insert(format!("{prefix}{key}"), value);
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn object(value: Value) -> Map<String, Value> {
        match value {
            Value::Object(map) => map,
            other => panic!("not an object: {other}"),
        }
    }

    #[test]
    fn an_ordinary_event_is_left_alone() {
        let mut document = object(json!({"host": {"name": "a"}}));
        let mut details = object(json!({"x": [1, {"y": 2}], "empty": {}}));
        let before = (document.clone(), details.clone());

        assert!(!enforce(&mut document, &mut details));
        assert_eq!((document, details), before);
    }

    #[test]
    fn names_past_the_bound_are_kept_as_text() {
        let many: Map<String, Value> = (0..MAX_LEAVES).map(|n| (format!("k{n}"), json!(n))).collect();
        let mut document = object(json!({"host": {"name": "a"}}));
        let mut details = object(json!({"a": 1, "many": many, "z": 2}));

        assert!(enforce(&mut document, &mut details));

        assert_eq!(details["a"], json!(1));
        assert_eq!(details["z"], json!(2));
        assert!(!details.contains_key("many"));
        let overflow: Value = serde_json::from_str(details[OVERFLOW_FIELD].as_str().unwrap()).unwrap();
        assert_eq!(overflow["details.many"]["k9999"], json!(9999));
    }

    #[test]
    fn what_lies_too_deep_becomes_text_where_it_stands() {
        let mut deep = json!({"end": 1});
        for _ in 0..40 {
            deep = json!({ "n": deep });
        }
        let mut details = object(json!({ "deep": deep }));

        assert!(enforce(&mut Map::new(), &mut details));

        let mut value = &details["deep"];
        let mut depth = 0;
        while let Some(inner) = value.get("n") {
            value = inner;
            depth += 1;
        }
        assert_eq!(depth, MAX_DEPTH);
        assert!(value.as_str().unwrap().ends_with(r#"{"end":1}}}}}}}}}}}}}}}}}}}}}}}}}"#), "{value}");
    }
}
