//! How the API server brings a patch and an object together: server-side apply, as far as the fields of the kinds here need it, and JSON
//! merge patch (RFC 7396).

use serde_json::{Value, json};

/// What a manager applies now, in the place of what it applied before: fields that it applies no more go, unless somebody has changed them
/// since. Lists whose items have keys are merged by them, others are replaced.
pub(super) fn apply(live: &mut Value, before: &Value, now: &Value) {
    apply_at(&mut Vec::new(), live, before, now);
}

fn apply_at(path: &mut Vec<String>, live: &mut Value, before: &Value, now: &Value) {
    if now.is_object() && !is_atomic(path) {
        if !live.is_object() {
            *live = json!({});
        }
        apply_fields(path, live, before, now);
    } else if now.is_array() && !keys(path).is_empty() {
        if !live.is_array() {
            *live = json!([]);
        }
        apply_items(path, live, before, now);
    } else {
        *live = now.clone();
    }
}

fn apply_fields(path: &mut Vec<String>, live: &mut Value, before: &Value, now: &Value) {
    for (key, applied) in before.as_object().into_iter().flatten().filter(|(key, _)| now.get(key).is_none()) {
        path.push(key.clone());
        if live.get_mut(key).is_some_and(|field| is_emptied(path, field, applied)) {
            live.as_object_mut().unwrap().remove(key);
        }
        path.pop();
    }
    for (key, value) in now.as_object().unwrap() {
        path.push(key.clone());
        apply_at(path, &mut live[key], &before[key], value);
        path.pop();
    }
}

fn apply_items(path: &mut Vec<String>, live: &mut Value, before: &Value, now: &Value) {
    let (items, wanted, before) = (live.as_array_mut().unwrap(), now.as_array().unwrap(), before.as_array().cloned().unwrap_or_default());
    let keys = keys(path);
    let is_same = |one: &Value, other: &Value| keys.iter().all(|key| one[*key] == other[*key]);
    for applied in before.iter().filter(|applied| !wanted.iter().any(|item| is_same(item, applied))) {
        if let Some(at) = items.iter().position(|item| is_same(item, applied))
            && is_emptied(path, &mut items[at], applied)
        {
            items.remove(at);
        }
    }
    for item in wanted {
        let at = items.iter().position(|there| is_same(there, item)).unwrap_or(items.len());
        if at == items.len() {
            items.push(json!({}));
        }
        let applied = before.iter().find(|applied| is_same(applied, item)).unwrap_or(&Value::Null);
        apply_fields(path, &mut items[at], applied, item);
    }
}

/// Takes away what was applied here, and tells whether nothing is left then. What others have written stays.
fn is_emptied(path: &mut Vec<String>, live: &mut Value, applied: &Value) -> bool {
    if is_atomic(path) || !(live.is_object() && applied.is_object()) {
        return live == applied;
    }
    for (key, applied) in applied.as_object().unwrap() {
        path.push(key.clone());
        if live.get_mut(key).is_some_and(|field| is_emptied(path, field, applied)) {
            live.as_object_mut().unwrap().remove(key);
        }
        path.pop();
    }
    live.as_object().unwrap().is_empty()
}

/// By which fields the items of this list are told apart; none where the list is one value. From the OpenAPI document of Kubernetes
/// (`x-kubernetes-list-map-keys`).
fn keys(path: &[String]) -> &'static [&'static str] {
    let path: Vec<&str> = path.iter().map(String::as_str).collect();
    match path.as_slice() {
        ["metadata", "ownerReferences"] => &["uid"],
        ["status", "conditions"] => &["type"],
        [.., "spec", "containers" | "initContainers" | "volumes"] | [.., "containers" | "initContainers", "env"] => &["name"],
        [.., "containers" | "initContainers", "volumeMounts"] => &["mountPath"],
        [.., "containers" | "initContainers", "ports"] => &["containerPort", "protocol"],
        ["spec", "ports"] => &["port", "protocol"],
        _ => &[],
    }
}

/// Whether a map is one value (`x-kubernetes-map-type: atomic`).
fn is_atomic(path: &[String]) -> bool {
    matches!(
        path.last().map(String::as_str),
        Some("selector" | "labelSelector" | "podSelector" | "roleRef" | "fieldRef" | "secretKeyRef" | "configMapKeyRef")
    )
}

/// A JSON merge patch.
pub(super) fn merge(live: &mut Value, patch: &Value) {
    let Some(fields) = patch.as_object() else {
        *live = patch.clone();
        return;
    };
    if !live.is_object() {
        *live = json!({});
    }
    for (key, value) in fields {
        if value.is_null() {
            live.as_object_mut().unwrap().remove(key);
        } else {
            merge(&mut live[key], value);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_applied_no_more_goes_and_what_others_wrote_stays() {
        let container = |env: Value| json!({"spec": {"template": {"spec": {"containers": [{"name": "c", "env": env}]}}}});
        let cases = [
            (
                "a field less",
                json!({"data": {"a": "1", "b": "2"}}),
                json!({"data": {"a": "1", "b": "2", "c": "theirs"}}),
                json!({"data": {"a": "1"}}),
                json!({"data": {"a": "1", "c": "theirs"}}),
            ),
            (
                "a field less, which somebody has changed",
                json!({"data": {"a": "1", "b": "2"}}),
                json!({"data": {"a": "1", "b": "3"}}),
                json!({"data": {"a": "1"}}),
                json!({"data": {"a": "1", "b": "3"}}),
            ),
            (
                "a field is taken back",
                json!({"data": {"a": "1"}}),
                json!({"data": {"a": "2"}}),
                json!({"data": {"a": "1"}}),
                json!({"data": {"a": "1"}}),
            ),
            (
                "an item with a key",
                container(json!([{"name": "A", "value": "1"}, {"name": "B", "value": "2"}])),
                container(json!([{"name": "T", "value": "theirs"}, {"name": "A", "value": "1"}, {"name": "B", "value": "2"}])),
                container(json!([{"name": "A", "value": "3"}])),
                container(json!([{"name": "T", "value": "theirs"}, {"name": "A", "value": "3"}])),
            ),
            (
                "a list that is one value",
                json!({"rules": [1, 2]}),
                json!({"rules": [1, 2, 3]}),
                json!({"rules": [1]}),
                json!({"rules": [1]}),
            ),
        ];

        for (name, before, mut live, now, expected) in cases {
            apply(&mut live, &before, &now);

            assert_eq!(live, expected, "{name}");
        }
    }
}
