//! The CEL rules of an object, evaluated where they stand.
//!
//! An API server prunes and defaults an object before it looks at its rules, so that is done here first. Each rule then gets the value
//! that it is about and no more: most of an AlertRule is a Sigma rule and test events, which no rule looks into.

use kube::core::cel::{ErrorKind, Validator};
use serde_json::Value;

use super::structure::{Node, Object, Shape};

/// A rule that does not hold, or could not be evaluated.
pub(super) struct BrokenRule {
    pub(super) field: String,
    pub(super) message: String,
    /// The rule is `false` of the value, as opposed to: it stumbled over it.
    pub(super) is_false: bool,
}

thread_local! {
    /// The functions that rules may call. Not to be shared between threads.
    static VALIDATOR: Validator = Validator::new();
}

/// Every rule that does not hold of the value at `path` or of something in it.
pub(super) fn broken_rules(node: &Node, value: &Value, path: &str) -> Vec<BrokenRule> {
    let mut broken = Vec::new();
    if node.has_rules {
        let mut stored = value.clone();
        settle(node, &mut stored);
        VALIDATOR.with(|validator| evaluate(node, &stored, path, validator, &mut broken));
    }
    broken
}

/// Makes of the value what an API server would store: a known field that is `null` counts as left out, and what is left out gets its
/// default. What its author may shape freely stays as it is.
fn settle(node: &Node, value: &mut Value) {
    match (&node.shape, value) {
        (Shape::Object(object), Value::Object(members)) => {
            members.retain(|name, member| !member.is_null() || object.field(name).is_none());
            for (name, default) in defaults(object) {
                if !members.contains_key(name) {
                    members.insert(name.clone(), default.clone());
                }
            }
            for (name, member) in members {
                if let Some(field) = object.field(name) {
                    settle(field, member);
                }
            }
        }
        (Shape::List { items, .. }, Value::Array(values)) => values.iter_mut().for_each(|item| settle(items, item)),
        _ => {}
    }
}

fn defaults(object: &Object) -> impl Iterator<Item = (&String, &Value)> {
    object.fields.iter().filter_map(|(name, field)| Some((name, field.default.as_ref()?)))
}

fn evaluate(node: &Node, value: &Value, path: &str, validator: &Validator, broken: &mut Vec<BrokenRule>) {
    let outcome = node.rules.as_ref().map(|rules| validator.validate_compiled(rules, value, None));
    if let Some(Err(errors)) = outcome {
        broken.extend(errors.into_iter().map(|error| BrokenRule {
            field: path.to_owned(),
            message: error.message,
            is_false: error.kind == ErrorKind::ValidationFailure,
        }));
    }
    match (&node.shape, value) {
        (Shape::Object(object), Value::Object(members)) => {
            for (name, member) in members {
                if let Some(field) = object.field(name).filter(|field| field.has_rules) {
                    evaluate(field, member, &format!("{path}.{name}"), validator, broken);
                }
            }
        }
        (Shape::List { items, .. }, Value::Array(values)) if items.has_rules => {
            for (index, item) in values.iter().enumerate() {
                evaluate(items, item, &format!("{path}[{index}]"), validator, broken);
            }
        }
        _ => {}
    }
}
