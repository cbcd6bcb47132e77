//! Events and rules for the tests of this module.

use std::sync::Arc;

use redoubt_crds::{AlertRuleSpec, SigmaLogsource};
use serde_json::Value;

use super::Rule;
use crate::event::Event;

/// An event with the document, of no known logsource.
pub(super) fn event(document: Value) -> Event {
    event_of("-/-/-", document)
}

/// An event of a logsource, written `product/service/category` with `-` for none.
pub(super) fn event_of(logsource: &str, document: Value) -> Event {
    let mut parts = logsource.split('/').map(|part| (part != "-").then(|| part.to_owned()));
    let mut next = || parts.next().flatten();
    let logsource = Arc::new(SigmaLogsource { product: next(), service: next(), category: next() });
    let Value::Object(document) = document else { panic!("not an object: {document}") };
    Event { id: "event".to_owned(), natural_id: false, received_millis: 2, timestamp_millis: 1, logsource, document }
}

/// The spec as a resource file has it, defaults filled in.
pub(super) fn spec(value: Value) -> AlertRuleSpec {
    serde_json::from_value(value).unwrap()
}

/// A rule that compiles.
pub(super) fn rule(name: &str, value: Value) -> Arc<Rule> {
    match Rule::compile(name, &spec(value).into()) {
        Ok(rule) => Arc::new(rule),
        Err(problems) => panic!("{name}: {problems:?}"),
    }
}
