//! An Enrichment's own tests: an event goes in, and what comes out is compared with what the author expects.

use std::sync::Arc;

use jiff::Timestamp;
use redoubt_crds::EnrichmentTest;
use serde_json::{Map, Value};

use super::{Applied, Step, transit::Transit};
use crate::{
    diagnostic::Problem,
    event::{Event, lookup},
    rule::TestOutcome,
};

/// How many differing fields a message names.
const MAX_DIFFERENCES: usize = 8;
/// Longest value in a message, in characters.
const MAX_VALUE_CHARS: usize = 120;

/// Runs one test through a step.
///
/// The test's event is a whole document, as the step finds it. It was received at its `event.ingested`, or in 1970 where it says none,
/// so that Watchlist entries have not expired unless the test wants it.
pub(super) fn run(step: &Step, index: usize, test: &EnrichmentTest) -> TestOutcome {
    let mut event = event_of(&test.event.0);
    let mut transit = Transit::new(&mut event);
    let applied = step.apply(&mut transit);
    transit.finish();

    let differences = match (applied, &test.expect.event, test.expect.dropped) {
        (_, Some(_), Some(_)) | (_, None, None) => vec!["expect needs exactly one of event and dropped".to_owned()],
        (Err(message), ..) => vec![format!("the step failed: {message}")],
        (Ok(Applied::Dropped { reason }), Some(_), None) => vec![format!("expected an event, but it was dropped ({reason})")],
        (Ok(Applied::Dropped { reason }), None, Some(false)) => vec![format!("expected the event to go on, but it was dropped ({reason})")],
        (Ok(Applied::NotMeant), None, Some(true)) => vec![format!("expected a drop, but {NOT_MEANT}")],
        (Ok(Applied::Kept), None, Some(true)) => vec!["expected a drop, but the event goes on".to_owned()],
        (Ok(Applied::Dropped { .. }), None, Some(true)) | (Ok(Applied::Kept | Applied::NotMeant), None, Some(false)) => Vec::new(),
        (Ok(applied), Some(expected), None) => {
            let mut differences = Vec::new();
            compare(&expected.0, &event.document, "", &mut differences);
            if !differences.is_empty() && matches!(applied, Applied::NotMeant) {
                differences.insert(0, NOT_MEANT.to_owned());
            }
            differences
        }
    };
    TestOutcome { name: test.name.clone(), result: verdict(index, &test.name, differences) }
}

const NOT_MEANT: &str = "the step's `when` is not true of this event";

fn verdict(index: usize, name: &str, mut differences: Vec<String>) -> Result<(), Problem> {
    if differences.is_empty() {
        return Ok(());
    }
    let more = differences.len().saturating_sub(MAX_DIFFERENCES);
    differences.truncate(MAX_DIFFERENCES);
    if more > 0 {
        differences.push(format!("and {more} more"));
    }
    Err(Problem::new(
        format!("spec.tests[{index}]"),
        format!("test {name:?}: {}", differences.join("; ")),
        "mend the step, or the test where it expects the wrong thing",
    ))
}

fn event_of(document: &Map<String, Value>) -> Event {
    let millis = |path: &str| {
        let text = lookup(document, path).and_then(Value::as_str);
        text.and_then(|text| text.parse::<Timestamp>().ok()).map_or(0, Timestamp::as_millisecond)
    };
    Event {
        id: lookup(document, "event.id").and_then(Value::as_str).unwrap_or("test").to_owned(),
        natural_id: false,
        received_millis: millis("event.ingested"),
        timestamp_millis: millis("@timestamp"),
        logsource: Arc::default(),
        document: document.clone(),
    }
}

/// Notes every expected field that is not as expected. Keys may be nested or dotted paths; `null` wants the field absent.
fn compare(expected: &Map<String, Value>, document: &Map<String, Value>, prefix: &str, differences: &mut Vec<String>) {
    for (key, wanted) in expected {
        let path = if prefix.is_empty() { key.clone() } else { format!("{prefix}.{key}") };
        let found = lookup(document, &path).filter(|value| !value.is_null());
        match (wanted, found) {
            (Value::Null, None) => {}
            (Value::Null, Some(found)) => differences.push(format!("{path}: expected it absent, found {}", show(found))),
            (Value::Object(inner), Some(Value::Object(_))) => compare(inner, document, &path, differences),
            (wanted, Some(found)) if same(wanted, found) => {}
            // All that is wanted inside may be absence.
            (Value::Object(inner), None) if !inner.is_empty() => compare(inner, document, &path, differences),
            (wanted, Some(found)) => differences.push(format!("{path}: expected {}, found {}", show(wanted), show(found))),
            (wanted, None) => differences.push(format!("{path}: expected {}, found nothing", show(wanted))),
        }
    }
}

/// Equality, but 1 is 1.0: YAML's writers do not think of the difference.
fn same(wanted: &Value, found: &Value) -> bool {
    match (wanted, found) {
        (Value::Number(a), Value::Number(b)) if a.is_f64() != b.is_f64() => a.as_f64() == b.as_f64(),
        (Value::Array(a), Value::Array(b)) => a.len() == b.len() && a.iter().zip(b).all(|(a, b)| same(a, b)),
        _ => wanted == found,
    }
}

fn show(value: &Value) -> String {
    let mut text = value.to_string();
    if let Some((end, _)) = text.char_indices().nth(MAX_VALUE_CHARS) {
        text.truncate(end);
        text.push('…');
    }
    text
}
