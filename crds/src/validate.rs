//! Whether the API server would take a resource, answered without one.
//!
//! [`validate`] holds an object against the same schema that a cluster gets: first its structure ([`structure`]), then the CEL rules
//! ([`rules`]), which the `kube-cel` crate evaluates. Schemas are compiled once a process. Two things are stricter than in a cluster, on purpose:
//! unknown fields are violations (as with `kubectl --validate=strict`), and rules are evaluated even when the structure is broken
//! elsewhere, so that people see all there is to mend at once.
//!
//! What a resource means is never looked at here: whether a Sigma rule or a VRL program compiles is for `redoubt-engine` to say.

mod rules;
mod structure;
#[cfg(test)]
mod tests;

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    sync::LazyLock,
};

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use serde_json::Value;

use rules::broken_rules;
use structure::Node;

/// Something about an object that the API server would not take.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Violation {
    /// Path of the field, such as `spec.threshold.window` or `spec.tests[2].expect`.
    pub field: String,
    /// What is wrong with it, and where that can be said, what would be right.
    pub message: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.field, self.message)
    }
}

/// Everything that the API server would hold against the object's `spec`, in the order of the fields' paths. Empty when it would take it.
///
/// `kind` is one of the six kinds of [`definitions`](crate::definitions); `object` is the whole resource. Its `metadata` and `status` are
/// not looked at.
#[must_use]
pub fn validate(kind: &str, object: &Value) -> Vec<Violation> {
    let Some(schema) = KINDS.get(kind) else {
        let known = KINDS.keys().map(String::as_str).collect::<Vec<_>>().join(", ");
        return vec![Violation { field: "kind".to_owned(), message: format!("{kind:?} is not a kind of Redoubt; there are {known}") }];
    };
    let Some(spec) = object.get("spec") else {
        return vec![Violation { field: "spec".to_owned(), message: "is required".to_owned() }];
    };

    let mut violations = Vec::new();
    schema.check(spec, "spec", &mut violations);
    // A rule that stumbles over a broken structure has nothing to add to what was already said of it.
    let broken_fields: BTreeSet<String> = violations.iter().map(|violation| violation.field.clone()).collect();
    for rule in broken_rules(schema, spec, "spec") {
        if broken_fields.is_empty() || (rule.is_false && !broken_fields.contains(&rule.field)) {
            violations.push(Violation { field: rule.field, message: rule.message });
        }
    }
    violations.sort();
    violations
}

/// The compiled schema of each kind's spec.
static KINDS: LazyLock<BTreeMap<String, Node>> = LazyLock::new(|| {
    crate::definitions().iter().map(|definition| (definition.spec.names.kind.clone(), Node::compile(&spec_schema(definition)))).collect()
});

/// The schema of `spec` as JSON; `null` if the definition has none, which a test rules out.
fn spec_schema(definition: &CustomResourceDefinition) -> Value {
    let properties =
        definition.spec.versions.first().and_then(|version| version.schema.as_ref()?.open_api_v3_schema.as_ref()?.properties.as_ref());
    properties.and_then(|properties| serde_json::to_value(properties.get("spec")?).ok()).unwrap_or_default()
}
