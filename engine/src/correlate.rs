//! From matches to alerts, in event time, whatever the order of arrival.
//!
//! The set of alerts is a function of the set of matches alone. A threshold with window `W` fires in a step `b` of event time (steps
//! of `max(W, suppress.for)` since 1970) when some window of length `W` that ends at an event inside `b` holds enough matches. More
//! matches can only make more steps fire, never fewer, so an alert may go out as soon as it is known, without waiting for
//! latecomers, and order, duplicates, restarts and the number of partitions make no difference. What an alert says is a function of
//! that set too: see [`Alert`].
//!
//! A match is held for window + step + allowed lateness after it was *received*: old logs that are sent in together still find each
//! other. The clock by which this is measured is the latest time of receipt that the partition has seen.
//!
//! ```text
//! Match -> Correlator --by rule--> Tally --by group--> Group --steps that fired--> Alert
//!              clock                 bounds on groups     windows, bounds on matches
//! ```
//!
//! Nothing here waits, reads a clock or keeps anything on disk: after a restart the matches of the last
//! [`hold_millis`] are applied again, by [`Correlator::apply`] like any other.

mod compact;
mod fingerprint;
mod group;
#[cfg(test)]
mod oracle;
mod policy;
mod tally;
#[cfg(test)]
mod tests;

use std::{collections::HashMap, sync::Arc};

use redoubt_crds::AlertRuleSpec;

use self::{policy::Policy, tally::Tally};
use crate::{
    alert::Alert,
    rule::{Match, RuleSet},
};

/// How often groups that no match comes to are looked through, in milliseconds of the partition's clock.
const EXPIRE_EVERY_MILLIS: i64 = 10_000;

/// What a match led to.
#[derive(Debug, Clone, PartialEq)]
pub enum Change {
    /// A new alert.
    Raised(Alert),
    /// An alert that is already out counts one more event; the whole alert as it now stands.
    Grown(Alert),
}

impl Change {
    /// The alert as it now stands.
    #[must_use]
    pub fn alert(&self) -> &Alert {
        match self {
            Self::Raised(alert) | Self::Grown(alert) => alert,
        }
    }

    /// The alert as it now stands.
    #[must_use]
    pub fn into_alert(self) -> Alert {
        match self {
            Self::Raised(alert) | Self::Grown(alert) => alert,
        }
    }
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
pub struct Correlator {
    rules: Arc<RuleSet>,
    state: State,
}

impl Correlator {
    /// An empty state that holds at most `max_groups` groups a rule.
    #[must_use]
    pub fn new(rules: Arc<RuleSet>, max_groups: usize) -> Self {
        Self { rules, state: State::new(max_groups) }
    }

    /// Goes on with other rules; groups of rules that are gone or count differently are let go.
    pub fn replace_rules(&mut self, rules: Arc<RuleSet>) {
        self.state.tallies.retain(|name, tally| rules.get(name).is_some_and(|rule| tally.replace(rule.info.clone(), &rule.spec)));
        self.rules = rules;
    }

    /// Takes in one match. A match of an unknown rule, or one seen before, changes nothing. One near the end of a step may change two
    /// alerts: this step's and, by filling a window that reaches on, the next step's.
    pub fn apply(&mut self, found: Match) -> Vec<Change> {
        let Some(rule) = self.rules.get(&found.rule) else {
            return Vec::new();
        };
        self.state.apply(found, || Tally::new(rule.info.clone(), &rule.spec))
    }

    /// What was let go so far.
    #[must_use]
    pub fn overflow(&self) -> Overflow {
        self.state.overflow
    }
}

/// How long a rule's matches are held after their receipt, in milliseconds: how far back a restart has to read them again.
#[must_use]
pub fn hold_millis(spec: &AlertRuleSpec) -> i64 {
    Policy::of(spec).hold_millis
}

/// The partition that a match belongs to: a stable hash of rule and group, so that matches that may share an alert meet. All matches of
/// a rule without a group go to one partition.
///
/// `partitions` must be at least 1; 0 counts as 1.
#[must_use]
pub fn partition(found: &Match, partitions: u16) -> u16 {
    let place = fingerprint::group(&found.rule, &found.group) % u128::from(partitions.max(1));
    u16::try_from(place).unwrap_or_default()
}

/// All that the partition holds, apart from where the rules come from.
struct State {
    max_groups: usize,
    tallies: HashMap<Arc<str>, Tally>,
    /// The latest time of receipt seen.
    clock: i64,
    next_expiry: i64,
    overflow: Overflow,
}

impl State {
    fn new(max_groups: usize) -> Self {
        Self { max_groups, tallies: HashMap::new(), clock: i64::MIN, next_expiry: i64::MIN, overflow: Overflow::default() }
    }

    fn apply(&mut self, found: Match, new_tally: impl FnOnce() -> Tally) -> Vec<Change> {
        self.clock = self.clock.max(found.received_millis);
        if self.clock >= self.next_expiry {
            self.next_expiry = self.clock.saturating_add(EXPIRE_EVERY_MILLIS);
            for tally in self.tallies.values_mut() {
                tally.expire(self.clock);
            }
        }
        let tally = self.tallies.entry(Arc::clone(&found.rule)).or_insert_with(new_tally);
        tally.apply(found, self.clock, self.max_groups, &mut self.overflow)
    }
}
