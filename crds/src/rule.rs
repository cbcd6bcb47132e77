//! CEL rules that are put into a schema by hand, where the derive cannot put them.

use schemars::Schema;
use serde_json::{Value, json};

/// Adds a rule and the message that people see when it does not hold.
pub(crate) fn add(schema: &mut Schema, rule: &str, message: &str) {
    let rules = schema.ensure_object().entry("x-kubernetes-validations").or_insert_with(|| json!([]));
    if let Value::Array(rules) = rules {
        rules.push(json!({ "rule": rule, "message": message }));
    }
}
