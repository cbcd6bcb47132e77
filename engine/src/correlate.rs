//! From matches to alerts, in event time, whatever the order of arrival.
//!
//! The set of alerts is a function of the set of matches alone. A threshold with window `W` fires in a step `b` of event time (steps
//! of `max(W, suppress.for)` since 1970) when some window of length `W` that ends at an event inside `b` holds enough matches. More
//! matches can only make more steps fire, never fewer, so an alert may go out as soon as it is known, without waiting for
//! latecomers, and order, duplicates, restarts and the number of partitions make no difference.
//!
//! A match is held for window + allowed lateness after it was *received*: old logs that are sent in together still find each other.

use std::sync::Arc;

use crate::{
    alert::Alert,
    rule::{Match, RuleSet},
};

/// What a match led to.
#[derive(Debug, Clone, PartialEq)]
pub enum Change {
    /// A new alert.
    Raised(Alert),
    /// An alert that is already out counts one more event; the whole alert as it now stands.
    Grown(Alert),
}

/// Counters of what was let go because a bound was reached.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Overflow {
    /// Groups evicted to make room.
    pub groups: u64,
    /// Matches of one group evicted to make room.
    pub matches: u64,
}

/// The state of one partition.
pub struct Correlator {}

impl Correlator {
    /// An empty state that holds at most `max_groups` groups a rule.
    #[must_use]
    pub fn new(rules: Arc<RuleSet>, max_groups: usize) -> Self {
        let _ = (rules, max_groups);
        unimplemented!()
    }

    /// Goes on with other rules; groups of rules that are gone or count differently are let go.
    pub fn replace_rules(&mut self, rules: Arc<RuleSet>) {
        let _ = rules;
        unimplemented!()
    }

    /// Takes in one match. A match of an unknown rule, or one seen before, changes nothing.
    pub fn apply(&mut self, found: Match) -> Option<Change> {
        let _ = found;
        unimplemented!()
    }

    /// What was let go so far.
    #[must_use]
    pub fn overflow(&self) -> Overflow {
        unimplemented!()
    }
}

/// The partition that a match belongs to: a stable hash of rule and group.
#[must_use]
pub fn partition(found: &Match, partitions: u16) -> u16 {
    let _ = (found, partitions);
    unimplemented!()
}
