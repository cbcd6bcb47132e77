//! The same answers from the definitions alone: every set taken whole, nothing remembered, nothing let go. Slow and plain on purpose.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, json};

use super::{fingerprint::fingerprint, policy::Windows};
use crate::{alert::MAX_EVENTS, rule::Match};

/// What an alert must say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Expected {
    pub(super) completed: i64,
    pub(super) count: usize,
    pub(super) events: Vec<String>,
}

/// The alerts of one group by step, for all its matches.
pub(super) fn alerts(windows: &Windows, matches: &[Match]) -> BTreeMap<i64, Expected> {
    let mut all: Vec<&Match> = matches.iter().collect();
    all.sort_by_key(|found| (found.timestamp_millis, fingerprint([found.event_id.as_str()])));
    all.dedup_by(|a, b| a.event_id == b.event_id);

    let length = i128::from(windows.window);
    let step_of = |found: &Match| i128::from(found.timestamp_millis).div_euclid(i128::from(windows.step));
    let time_of = |found: &Match| i128::from(found.timestamp_millis);
    let mut completed: BTreeMap<i128, i64> = BTreeMap::new();
    for end in &all {
        let inside = all.iter().filter(|found| time_of(found) > time_of(end) - length && time_of(found) <= time_of(end));
        let number = match windows.distinct {
            Some(_) => inside.filter_map(|found| found.distinct.as_ref()).collect::<BTreeSet<_>>().len(),
            None => inside.count(),
        };
        if number >= windows.count {
            let earliest = completed.entry(step_of(end)).or_insert(end.timestamp_millis);
            *earliest = (*earliest).min(end.timestamp_millis);
        }
    }
    let first_of_their_cell: BTreeSet<&str> = all
        .chunk_by(|a, b| time_of(a).div_euclid(length) == time_of(b).div_euclid(length))
        .flat_map(|cell| cell.iter().take(MAX_EVENTS).map(|found| found.event_id.as_str()))
        .collect();
    completed
        .into_iter()
        .map(|(step, completed)| {
            let union: Vec<&&Match> =
                all.iter().filter(|found| time_of(found) > i128::from(completed) - length && step_of(found) <= step).collect();
            let shown = union.iter().filter(|found| first_of_their_cell.contains(found.event_id.as_str())).take(MAX_EVENTS);
            let expected = Expected {
                completed,
                count: union.len().min(windows.max_counted),
                events: shown.map(|found| found.event_id.clone()).collect(),
            };
            (i64::try_from(step).unwrap(), expected)
        })
        .collect()
}

/// A match of an event at a time, received at that time too.
pub(super) fn found(id: &str, time: i64) -> Match {
    Match {
        rule: "rule".into(),
        group: Vec::new(),
        distinct: None,
        event_id: id.to_owned(),
        timestamp_millis: time,
        received_millis: time,
        reasons: Vec::new(),
        document: Map::from_iter([("message".to_owned(), json!(id))]),
    }
}
