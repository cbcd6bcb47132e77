//! The state of one group: its matches by event time, and the steps that have fired.
//!
//! The *union* of a fired step is what its alert speaks of: the matches from the start of the window that the step's earliest
//! completing event ends, up to the end of the step. More matches can only make that event earlier and the union larger.
//!
//! Documents are heavy, so few are kept: those of the first [`MAX_EVENTS`] matches in each *cell* of window length. An alert shows the
//! first [`MAX_EVENTS`] of its union that have one. There always is one: the cell of the completing event begins inside its window.
//! Which matches come first never depends on when they arrived, hence neither does what an alert shows.
//!
//! Nothing here knows rules, alerts or how many groups there are.

use std::{
    collections::{BTreeMap, HashMap, HashSet, VecDeque},
    ops::Range,
    sync::Arc,
};

use super::{fingerprint::fingerprint, policy::Windows};
use crate::{
    alert::{AlertEvent, MAX_EVENTS, evidence},
    rule::{Match, Reason},
};

/// How many documents one group keeps at most.
pub(super) const MAX_DOCUMENTS: usize = 512;

/// An event behind an alert, and why it matched.
#[derive(Debug, PartialEq)]
pub(super) struct Evidence {
    pub(super) event: Arc<AlertEvent>,
    pub(super) reasons: Vec<Reason>,
}

/// What is held of a match.
#[derive(Debug)]
pub(super) struct Held {
    pub(super) time: i64,
    /// Fingerprint of the event's id.
    pub(super) id: u128,
    /// The partition's clock when it came in.
    pub(super) arrived: i64,
    /// Fingerprint of the value whose different ones are counted; 0 where matches are.
    pub(super) value: u128,
    pub(super) evidence: Option<Box<Evidence>>,
}

/// A step that has fired.
#[derive(Debug)]
pub(super) struct Fired {
    /// Time of the earliest event that ends a full window.
    pub(super) completed: i64,
    /// Part of its union is gone, so what is known of it must not change any more.
    pub(super) closed: bool,
    /// The partition's clock when it last changed.
    pub(super) touched: i64,
}

/// A step whose alert is new or has changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Firing {
    pub(super) step: i64,
    /// Whether the step had not fired before.
    pub(super) first: bool,
}

/// What an alert says of a step.
#[derive(Debug, PartialEq)]
pub(super) struct Union {
    /// Time of the earliest event that ends a full window.
    pub(super) completed: i64,
    /// Number of matches in the union, at most [`Windows::max_counted`].
    pub(super) count: usize,
    /// The first events, by time.
    pub(super) events: Vec<Arc<AlertEvent>>,
    /// Why the first of them matched.
    pub(super) reasons: Vec<Reason>,
}

/// The state of one group.
#[derive(Debug, Default)]
pub(super) struct Group {
    /// By time, then id.
    pub(super) held: VecDeque<Held>,
    /// The ids in `held`.
    pub(super) ids: HashSet<u128>,
    /// How often each value is in `held`; empty where matches are counted.
    pub(super) values: HashMap<u128, u32>,
    pub(super) fired: BTreeMap<i64, Fired>,
    /// How many of `held` have their document.
    pub(super) documents: usize,
    /// When it is worth looking for matches that have been held long enough.
    next_sweep: i64,
}

impl Group {
    /// Takes in a match; tells which steps' alerts are new or changed. `clock` is the partition's, `hold` as in
    /// [`super::policy::Policy`].
    pub(super) fn insert(&mut self, windows: &Windows, hold: i64, found: Match, clock: i64) -> Vec<Firing> {
        self.sweep(windows, hold, clock);
        let value = match (&windows.distinct, &found.distinct) {
            (None, _) => 0,
            (Some(_), Some(value)) => fingerprint([value.as_str()]),
            (Some(_), None) => return Vec::new(),
        };
        let id = fingerprint([found.event_id.as_str()]);
        if !self.ids.insert(id) {
            return Vec::new();
        }
        if windows.distinct.is_some() {
            *self.values.entry(value).or_default() += 1;
        }
        let time = found.timestamp_millis;
        let at = self.place_of(time, id);
        self.held.insert(at, Held { time, id, arrived: clock, value, evidence: None });
        let pushed_out = self.document(windows, at, found);

        let last_time = pushed_out.map_or(time, |place| self.held[place].time);
        let steps = windows.step_of(time)..=windows.last_step_of(last_time);
        steps.filter_map(|step| self.check(windows, step, at, pushed_out, clock)).collect()
    }

    /// What the alert of a fired step says; `None` for a step that has not fired.
    pub(super) fn union(&self, windows: &Windows, step: i64) -> Option<Union> {
        let completed = self.fired.get(&step)?.completed;
        let range = self.union_range(windows, step, completed);
        let shown: Vec<&Evidence> = self.held.range(range.clone()).filter_map(|held| held.evidence.as_deref()).take(MAX_EVENTS).collect();
        Some(Union {
            completed,
            count: range.len().min(windows.max_counted),
            reasons: shown.first().map(|first| first.reasons.clone()).unwrap_or_default(),
            events: shown.into_iter().map(|evidence| Arc::clone(&evidence.event)).collect(),
        })
    }

    /// The places of a step's union.
    pub(super) fn union_range(&self, windows: &Windows, step: i64, completed: i64) -> Range<usize> {
        let start = self.held.partition_point(|held| held.time <= completed && !windows.holds(completed, held.time));
        start..self.end_of_step(windows, step).max(start)
    }

    fn place_of(&self, time: i64, id: u128) -> usize {
        match self.held.back() {
            Some(last) if (last.time, last.id) > (time, id) => self.held.partition_point(|held| (held.time, held.id) < (time, id)),
            _ => self.held.len(),
        }
    }

    /// The place after the last match of a step.
    fn end_of_step(&self, windows: &Windows, step: i64) -> usize {
        match self.held.back() {
            Some(last) if windows.step_of(last.time) > step => self.held.partition_point(|held| windows.step_of(held.time) <= step),
            _ => self.held.len(),
        }
    }

    /// Keeps the document of the new match if it is among the first of its cell, and lets go of the one that no longer is; returns
    /// that one's place.
    fn document(&mut self, windows: &Windows, at: usize, found: Match) -> Option<usize> {
        let cell = windows.cell_of(found.timestamp_millis);
        let first = self.held.partition_point(|held| windows.cell_of(held.time) < cell);
        if at - first >= MAX_EVENTS {
            return None;
        }
        let (event, reasons) = evidence::of(found);
        self.held[at].evidence = Some(Box::new(Evidence { event: Arc::new(event), reasons }));
        self.documents += 1;
        let next = first + MAX_EVENTS;
        let pushed_out = self.held.get(next).is_some_and(|held| windows.cell_of(held.time) == cell && held.evidence.is_some());
        if pushed_out {
            self.forget_document(next);
        }
        pushed_out.then_some(next)
    }

    fn forget_document(&mut self, at: usize) {
        if self.held[at].evidence.take().is_some() {
            self.documents -= 1;
        }
    }

    /// Looks at one step after the match at `at` came in and the document at `pushed_out` went.
    fn check(&mut self, windows: &Windows, step: i64, at: usize, pushed_out: Option<usize>, clock: i64) -> Option<Firing> {
        let known = match self.fired.get(&step) {
            Some(fired) if fired.closed => return None,
            Some(fired) => Some(fired.completed),
            None => None,
        };
        if let Some(completed) = self.earliest_completed(windows, step, at, known) {
            self.fired.insert(step, Fired { completed, closed: false, touched: clock });
            self.forget_spent_documents(windows, step, completed);
            return Some(Firing { step, first: known.is_none() });
        }
        let completed = known?;
        let union = self.union_range(windows, step, completed);
        let mut changed = pushed_out.is_some_and(|place| union.contains(&place));
        if union.contains(&at) {
            if let Some(fired) = self.fired.get_mut(&step) {
                fired.touched = clock;
            }
            self.forget_spent_document(windows, step, completed, at);
            changed |= at - union.start < windows.max_counted || self.held[at].evidence.is_some();
        }
        changed.then_some(Firing { step, first: false })
    }

    /// Time of the earliest event in a step, before `known`, whose window is full and holds the match at `at`.
    fn earliest_completed(&self, windows: &Windows, step: i64, at: usize, known: Option<i64>) -> Option<i64> {
        let new_time = self.held[at].time;
        if known.is_some_and(|known| new_time >= known) {
            return None;
        }
        let start = if windows.step_of(new_time) == step { at } else { self.end_of_step(windows, step - 1) };
        let ends = self
            .held
            .range(start..)
            .take_while(|end| windows.holds(end.time, new_time) && windows.step_of(end.time) == step)
            .take_while(|end| known.is_none_or(|known| end.time < known));
        if windows.distinct.is_some() {
            return self.earliest_distinct(windows, start, ends);
        }
        for (last_of_window, end) in (start..).zip(ends) {
            let first_of_window = (last_of_window + 1).checked_sub(windows.count);
            if first_of_window.is_some_and(|first| windows.holds(end.time, self.held[first].time)) {
                return Some(end.time);
            }
        }
        None
    }

    /// The same for different values: a window slides over the candidates, with the number of matches of each value in it.
    fn earliest_distinct<'a>(&self, windows: &Windows, start: usize, ends: impl Iterator<Item = &'a Held>) -> Option<i64> {
        if self.values.len() < windows.count {
            return None;
        }
        let start_time = self.held.get(start)?.time;
        let mut oldest = self.held.partition_point(|held| held.time <= start_time && !windows.holds(start_time, held.time));
        let mut inside: HashMap<u128, u32> = HashMap::new();
        for held in self.held.range(oldest..start) {
            *inside.entry(held.value).or_default() += 1;
        }
        for end in ends {
            *inside.entry(end.value).or_default() += 1;
            while !windows.holds(end.time, self.held[oldest].time) {
                decrement(&mut inside, self.held[oldest].value);
                oldest += 1;
            }
            if inside.len() >= windows.count {
                return Some(end.time);
            }
        }
        None
    }

    /// Lets go of the documents of a fired step that no alert will show: not its own, because [`MAX_EVENTS`] come before them from the
    /// cell of the completing event on, nor the next step's, because their cells end before its first window begins.
    fn forget_spent_documents(&mut self, windows: &Windows, step: i64, completed: i64) {
        let mut shown = 0;
        for at in self.sure_range(windows, step, completed) {
            if self.reaches_on(windows, step, at) {
                return;
            }
            if self.held[at].evidence.is_some() {
                shown += 1;
                if shown > MAX_EVENTS {
                    self.forget_document(at);
                }
            }
        }
    }

    /// The same after the match at `at` came in with its document: that one, or the next after those shown, may be one too many.
    fn forget_spent_document(&mut self, windows: &Windows, step: i64, completed: i64, at: usize) {
        let range = self.sure_range(windows, step, completed);
        if self.held[at].evidence.is_none() || !range.contains(&at) {
            return;
        }
        let mut shown = 0;
        for place in range {
            if shown < MAX_EVENTS {
                shown += usize::from(self.held[place].evidence.is_some());
            } else if at >= place || self.held[place].evidence.is_some() {
                let spent = place.max(at);
                if !self.reaches_on(windows, step, spent) {
                    self.forget_document(spent);
                }
                return;
            }
        }
    }

    /// The places of a step's union from the cell of the completing event on. That cell lies in the union whole, so a match that comes
    /// in outside the union cannot push a document out of this range.
    fn sure_range(&self, windows: &Windows, step: i64, completed: i64) -> Range<usize> {
        let cell = windows.cell_of(completed);
        let start = self.held.partition_point(|held| windows.cell_of(held.time) < cell);
        start..self.end_of_step(windows, step).max(start)
    }

    /// Whether the cell of the match at `at` reaches into a window of the step after.
    pub(super) fn reaches_on(&self, windows: &Windows, step: i64, at: usize) -> bool {
        let last_of_cell = windows.cell_of(self.held[at].time).saturating_add(1).saturating_mul(windows.window).saturating_sub(1);
        windows.last_step_of(last_of_cell) > step
    }

    /// Lets go of what has been held long enough, and closes the steps that it leaves incomplete. Runs eight times in a holding time.
    fn sweep(&mut self, windows: &Windows, hold: i64, clock: i64) {
        if clock < self.next_sweep {
            return;
        }
        self.next_sweep = clock.saturating_add(hold / 8).saturating_add(1);
        self.remove(windows, true, |held, _| clock.saturating_sub(held.arrived) > hold);
        self.fired.retain(|_, fired| clock.saturating_sub(fired.touched) <= hold);
    }

    /// Lets go of matches; returns how many. `closes` tells whether alerts miss them, so that the steps whose unions held them must not
    /// change any more. The predicate is given each match and its place.
    pub(super) fn remove(&mut self, windows: &Windows, closes: bool, mut goes: impl FnMut(&Held, usize) -> bool) -> u64 {
        let Self { held, ids, values, fired, documents, .. } = self;
        let mut place = 0;
        let mut removed = 0;
        held.retain(|held| {
            let stays = !goes(held, place);
            place += 1;
            if !stays {
                removed += 1;
                ids.remove(&held.id);
                decrement(values, held.value);
                *documents -= usize::from(held.evidence.is_some());
                if closes {
                    close(fired, windows, held.time);
                }
            }
            stays
        });
        removed
    }
}

/// Closes the steps whose union held a time.
fn close(fired: &mut BTreeMap<i64, Fired>, windows: &Windows, time: i64) {
    for step in windows.step_of(time)..=windows.last_step_of(time) {
        if let Some(fired) = fired.get_mut(&step)
            && (time > fired.completed || windows.holds(fired.completed, time))
        {
            fired.closed = true;
        }
    }
}

fn decrement(counts: &mut HashMap<u128, u32>, value: u128) {
    if let Some(count) = counts.get_mut(&value) {
        *count -= 1;
        if *count == 0 {
            counts.remove(&value);
        }
    }
}

#[cfg(test)]
mod tests;
