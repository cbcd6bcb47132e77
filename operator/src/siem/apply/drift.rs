//! Whether an object is as it is to be. The API server fills in defaults and others add their own fields and items, so more may be there
//! than is wanted; what is wanted must be there. An item that others have added cannot be taken away by applying, and need not be.

use serde_json::Value;

use crate::siem::quantity;

/// Whether something of what is wanted is missing or otherwise.
pub(super) fn differs(wanted: &Value, there: &Value) -> bool {
    !holds(&mut Vec::new(), wanted, there)
}

fn holds<'a>(path: &mut Vec<&'a str>, wanted: &'a Value, there: &Value) -> bool {
    match (wanted, there) {
        // The API server does not write down what is empty.
        (wanted, Value::Null) => is_empty(wanted),
        (Value::Object(wanted), Value::Object(there)) => wanted.iter().all(|(key, wanted)| {
            path.push(key);
            let same = holds(path, wanted, there.get(key).unwrap_or(&Value::Null));
            path.pop();
            same
        }),
        (Value::Array(wanted), Value::Array(there)) if !keys(path).is_empty() => {
            let is_same = |one: &Value, other: &Value| keys(path).iter().all(|key| one[*key] == other[*key]);
            wanted.iter().all(|wanted| {
                there.iter().find(|there| is_same(wanted, there)).is_some_and(|there| holds(&mut path.clone(), wanted, there))
            })
        }
        (Value::Array(wanted), Value::Array(there)) => {
            wanted.len() == there.len() && wanted.iter().zip(there).all(|(wanted, there)| holds(path, wanted, there))
        }
        (Value::String(wanted), Value::String(there)) => wanted == there || (is_amount(path) && same_amount(wanted, there)),
        (wanted, there) => wanted == there,
    }
}

/// By which fields the items of a list are told apart that is merged item by item; none where a list is one value
/// (`x-kubernetes-list-map-keys`).
fn keys(path: &[&str]) -> &'static [&'static str] {
    match path {
        ["metadata", "ownerReferences"] => &["uid"],
        [.., "spec", "containers" | "initContainers" | "volumes"] | [.., "containers" | "initContainers", "env"] => &["name"],
        [.., "containers" | "initContainers", "volumeMounts"] => &["mountPath"],
        [.., "containers" | "initContainers", "ports"] => &["containerPort", "protocol"],
        ["spec", "ports"] => &["port", "protocol"],
        _ => &[],
    }
}

fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Object(fields) => fields.values().all(is_empty),
        Value::Array(items) => items.is_empty(),
        Value::String(text) => text.is_empty(),
        Value::Bool(_) | Value::Number(_) => false,
    }
}

/// Whether the value here is an amount, which the API server writes its own way.
fn is_amount(path: &[&str]) -> bool {
    matches!(path, [.., "requests" | "limits", _] | [.., "sizeLimit"])
}

fn same_amount(one: &str, other: &str) -> bool {
    quantity::thousandths(one).is_some_and(|amount| Some(amount) == quantity::thousandths(other))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn an_object_differs_when_something_wanted_is_missing_or_otherwise() {
        let cases = [
            ("the same", json!({"a": 1}), json!({"a": 1}), false),
            ("a default was filled in", json!({"a": {"b": 1}}), json!({"a": {"b": 1, "c": 2}, "d": 3}), false),
            ("another value", json!({"a": 1}), json!({"a": 2}), true),
            ("missing", json!({"a": {"b": 1}}), json!({"a": {}}), true),
            ("a default within an item", json!({"a": [{"b": 1}]}), json!({"a": [{"b": 1, "c": 2}]}), false),
            ("one item more", json!({"a": [1]}), json!({"a": [1, 2]}), true),
            (
                "another owner beside",
                json!({"metadata": {"ownerReferences": [{"uid": "x"}]}}),
                json!({"metadata": {"ownerReferences": [{"uid": "y"}, {"uid": "x"}]}}),
                false,
            ),
            (
                "another item beside, of a list with keys",
                json!({"spec": {"containers": [{"name": "x", "env": [{"name": "A", "value": "1"}]}]}}),
                json!({"spec": {"containers": [{"name": "y"}, {"name": "x", "env": [{"name": "B"}, {"name": "A", "value": "1"}]}]}}),
                false,
            ),
            (
                "another value in an item with a key",
                json!({"spec": {"ports": [{"port": 1, "protocol": "TCP", "name": "a"}]}}),
                json!({"spec": {"ports": [{"port": 1, "protocol": "TCP", "name": "b"}]}}),
                true,
            ),
            (
                "an item with a key is missing",
                json!({"spec": {"ports": [{"port": 1, "protocol": "TCP"}]}}),
                json!({"spec": {"ports": [{"port": 1, "protocol": "UDP"}]}}),
                true,
            ),
            ("nothing is not written down", json!({"a": {}, "b": [], "c": "", "d": {"e": {}}}), json!({}), false),
            ("false is not nothing", json!({"a": false}), json!({}), true),
            ("the same amount", json!({"limits": {"cpu": "1000m"}}), json!({"limits": {"cpu": "1"}}), false),
            ("another amount", json!({"limits": {"cpu": "1000m"}}), json!({"limits": {"cpu": "2"}}), true),
            ("a text that looks like an amount", json!({"value": "1000m"}), json!({"value": "1"}), true),
        ];

        for (name, wanted, there, expected) in cases {
            assert_eq!(differs(&wanted, &there), expected, "{name}");
        }
    }
}
