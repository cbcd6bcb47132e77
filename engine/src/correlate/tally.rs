//! The state of one rule: its groups, the ids of what it has seen, and how it words its alerts.

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};

use redoubt_crds::AlertRuleSpec;
use serde_json::Value;

use super::{
    Change, Overflow,
    fingerprint::{self, fingerprint},
    group::{Group, Union},
    policy::{Counting, Policy, Windows},
};
use crate::{
    alert::{Alert, evidence},
    event::{digest, rfc3339},
    rule::{Match, RuleInfo},
};

/// How many ids are remembered of a rule whose every match is an alert. One that is forgotten may only be raised again, as itself.
const MAX_SEEN: usize = 100_000;

/// The longest text of a group's value in a summary, in characters.
const MAX_VALUE_CHARS: usize = 64;

/// The state of one rule.
pub(super) struct Tally {
    info: RuleInfo,
    policy: Policy,
    /// The threshold in words; `None` where one match is enough.
    condition: Option<String>,
    seen: Seen,
    groups: Groups,
}

impl Tally {
    pub(super) fn new(info: RuleInfo, spec: &AlertRuleSpec) -> Self {
        Self { info, policy: Policy::of(spec), condition: condition(spec), seen: Seen::default(), groups: Groups::default() }
    }

    /// Goes on with another version of the rule. Returns whether the state still fits; where it does not, nothing is done.
    pub(super) fn replace(&mut self, info: RuleInfo, spec: &AlertRuleSpec) -> bool {
        let policy = Policy::of(spec);
        let fits = policy.counting == self.policy.counting;
        if fits {
            self.info = info;
            self.policy = policy;
            self.condition = condition(spec);
        }
        fits
    }

    /// Takes in a match. `clock` is the partition's and never falls.
    pub(super) fn apply(&mut self, mut found: Match, clock: i64, max_groups: usize, overflow: &mut Overflow) -> Vec<Change> {
        let hold = self.policy.hold_millis;
        let Counting::Windows(windows) = &self.policy.counting else {
            self.seen.expire(hold, clock);
            let new = self.seen.insert(&found.event_id, clock, overflow);
            return if new { vec![Change::Raised(alert_of_match(&self.info, found))] } else { Vec::new() };
        };
        self.groups.expire(hold, clock);
        let time = found.timestamp_millis;
        let pairs = std::mem::take(&mut found.group);
        let group = self.groups.touch(fingerprint::group(&found.rule, &pairs), clock, max_groups, overflow);
        let firings = group.insert(windows, hold, found, clock);
        let changes = firings
            .into_iter()
            .filter_map(|firing| {
                let union = group.union(windows, firing.step)?;
                let alert = alert_of_step(&self.info, self.condition.as_deref(), windows, &pairs, firing.step, union);
                Some(if firing.first { Change::Raised(alert) } else { Change::Grown(alert) })
            })
            .collect();
        overflow.matches += group.compact(windows, time);
        changes
    }

    /// Lets go of what has been held long enough in groups that no match comes to.
    pub(super) fn expire(&mut self, clock: i64) {
        self.seen.expire(self.policy.hold_millis, clock);
        self.groups.expire(self.policy.hold_millis, clock);
    }

    #[cfg(test)]
    pub(super) fn is_empty(&self) -> bool {
        self.seen.ids.is_empty() && self.groups.by_key.is_empty()
    }
}

/// The ids that a rule has seen, where each match is an alert.
#[derive(Default)]
struct Seen {
    ids: HashSet<u128>,
    /// With the clock at their coming, which never falls.
    order: VecDeque<(i64, u128)>,
}

impl Seen {
    fn insert(&mut self, event_id: &str, clock: i64, overflow: &mut Overflow) -> bool {
        let id = fingerprint([event_id]);
        if !self.ids.insert(id) {
            return false;
        }
        self.order.push_back((clock, id));
        if self.order.len() > MAX_SEEN
            && let Some((_, oldest)) = self.order.pop_front()
        {
            self.ids.remove(&oldest);
            overflow.matches += 1;
        }
        true
    }

    fn expire(&mut self, hold: i64, clock: i64) {
        while let Some((arrived, id)) = self.order.front()
            && clock.saturating_sub(*arrived) > hold
        {
            self.ids.remove(id);
            self.order.pop_front();
        }
    }
}

/// The groups of a rule, and which of them is longest without a match.
#[derive(Default)]
struct Groups {
    by_key: HashMap<u128, Place>,
    /// By turn, which grows with each match.
    order: BTreeMap<u64, u128>,
    next_turn: u64,
}

struct Place {
    group: Group,
    turn: u64,
    /// The clock at the last match.
    arrived: i64,
}

impl Groups {
    /// The group of a key, which is now the one with the latest match. Makes room for it where it is new.
    fn touch(&mut self, key: u128, clock: i64, max_groups: usize, overflow: &mut Overflow) -> &mut Group {
        let turn = self.next_turn;
        self.next_turn += 1;
        if let Some(place) = self.by_key.get(&key) {
            self.order.remove(&place.turn);
        } else {
            while self.by_key.len() >= max_groups.max(1)
                && let Some((_, idle)) = self.order.pop_first()
            {
                self.by_key.remove(&idle);
                overflow.groups += 1;
            }
        }
        self.order.insert(turn, key);
        let place = self.by_key.entry(key).or_insert_with(|| Place { group: Group::default(), turn, arrived: clock });
        place.turn = turn;
        place.arrived = clock;
        &mut place.group
    }

    fn expire(&mut self, hold: i64, clock: i64) {
        while let Some(first) = self.order.first_entry()
            && self.by_key.get(first.get()).is_none_or(|place| clock.saturating_sub(place.arrived) > hold)
        {
            self.by_key.remove(&first.remove());
        }
    }
}

fn condition(spec: &AlertRuleSpec) -> Option<String> {
    let threshold = spec.threshold.as_ref()?;
    Some(format!("threshold {} in {}", threshold.count, threshold.window))
}

fn alert_of_match(info: &RuleInfo, mut found: Match) -> Alert {
    let id = digest(&["alert", &found.rule, &found.event_id]);
    let group = std::mem::take(&mut found.group);
    let (event, reasons) = evidence::of(found);
    Alert {
        id,
        timestamp: event.timestamp.clone(),
        rule: info.clone(),
        severity: info.severity,
        group: group.into_iter().map(|(field, value)| (field, Value::String(value))).collect(),
        reasons,
        summary: info.title.clone(),
        event_count: 1,
        events: vec![event.into()],
    }
}

fn alert_of_step(
    info: &RuleInfo,
    condition: Option<&str>,
    windows: &Windows,
    group: &[(String, String)],
    step: i64,
    union: Union,
) -> Alert {
    let start = windows.step_start(step).to_string();
    let mut parts = vec!["alert", &info.name];
    parts.extend(group.iter().flat_map(|(field, value)| [field.as_str(), value.as_str()]));
    parts.push(&start);
    Alert {
        id: digest(&parts),
        timestamp: rfc3339(union.completed),
        rule: info.clone(),
        severity: info.severity,
        group: group.iter().map(|(field, value)| (field.clone(), Value::String(value.clone()))).collect(),
        summary: summary(info, condition, windows, group, union.count),
        reasons: union.reasons,
        event_count: union.count as u64,
        events: union.events,
    }
}

fn summary(info: &RuleInfo, condition: Option<&str>, windows: &Windows, group: &[(String, String)], count: usize) -> String {
    let or_more = if count >= windows.max_counted { " or more" } else { "" };
    let events = format!("{count}{or_more} event{}", if count == 1 { "" } else { "s" });
    let from = if group.is_empty() {
        String::new()
    } else {
        let pairs: Vec<String> = group.iter().map(|(field, value)| format!("{field}={}", shortened(value))).collect();
        format!(" from {}", pairs.join(", "))
    };
    match (condition, &windows.distinct) {
        (Some(condition), Some(field)) => {
            format!("{events} with {} or more different {field}{from} ({condition})", windows.count)
        }
        (Some(condition), None) => format!("{events}{from} ({condition})"),
        (None, _) => format!("{}: {events}{from}", info.title),
    }
}

/// A value fit for one line: attackers choose what stands in it.
fn shortened(value: &str) -> String {
    let mut text: String = value.chars().take(MAX_VALUE_CHARS).map(|c| if c.is_control() { ' ' } else { c }).collect();
    if text.len() < value.len() {
        text.push('…');
    }
    text
}
