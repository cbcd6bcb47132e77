//! How a group stays within its bounds.
//!
//! First goes what no alert can miss. In a step that has fired, the matches after its completing event serve three ends only: they are
//! counted, up to [`Windows::max_counted`]; they carry documents; and the last of them fill windows of the next step. The rest goes
//! without a trace: like a sketch that keeps the first and the last `k` of a set, what stays depends on the set alone, and a match
//! that went and comes again goes again.
//!
//! If that is not enough, whole steps go, the one longest without a match first, and at last the earliest matches. Those are counted:
//! a late match may miss them. Matches that come in by the order of their times never do.

use std::{collections::HashSet, ops::Range};

use super::{
    group::{Group, MAX_DOCUMENTS},
    policy::Windows,
};

impl Group {
    /// Brings the group back within its bounds, if it has passed one, after a match of time `latest` came in. Returns how many matches
    /// went that an alert may miss. Frees a quarter each time, so that the work is a constant for each match.
    pub(super) fn compact(&mut self, windows: &Windows, latest: i64) -> u64 {
        if self.held.len() <= windows.max_held() && self.documents <= MAX_DOCUMENTS {
            return 0;
        }
        self.remove_spent(windows);
        let mut missed = self.remove_idle_steps(windows, windows.step_of(latest));
        let (mut surplus, mut documents) = self.surplus(windows);
        missed += self.remove(windows, true, |held, _| {
            let goes = surplus > 0 || documents > 0;
            surplus = surplus.saturating_sub(1);
            documents = documents.saturating_sub(usize::from(held.evidence.is_some()));
            goes
        });
        missed
    }

    /// By how many matches and documents the group is above three quarters of its bounds.
    fn surplus(&self, windows: &Windows) -> (usize, usize) {
        let goal = windows.max_held() / 4 * 3;
        (self.held.len().saturating_sub(goal), self.documents.saturating_sub(MAX_DOCUMENTS / 4 * 3))
    }

    /// Lets go of what no alert can miss.
    pub(super) fn remove_spent(&mut self, windows: &Windows) {
        let mut needed = vec![false; self.held.len()];
        for (step, range) in self.steps(windows) {
            match self.fired.get(&step) {
                Some(fired) => self.mark_needed(windows, step, range, fired.completed, &mut needed),
                None => needed[range].fill(true),
            }
        }
        self.remove(windows, false, |_, place| !needed[place]);
    }

    /// Marks the matches of a fired step that its own alert or the next step needs.
    fn mark_needed(&self, windows: &Windows, step: i64, range: Range<usize>, completed: i64, needed: &mut [bool]) {
        let union = self.union_range(windows, step, completed);
        let counted = union.start.saturating_add(windows.max_counted);
        let mut last_values = HashSet::new();
        for (from_end, at) in range.rev().enumerate() {
            let held = &self.held[at];
            let fills_next = windows.last_step_of(held.time) > step
                && (from_end < windows.max_counted
                    || windows.distinct.is_some() && last_values.len() < windows.count && !last_values.contains(&held.value));
            if fills_next && windows.distinct.is_some() {
                last_values.insert(held.value);
            }
            needed[at] = held.time <= completed || at < counted || held.evidence.is_some() || fills_next;
        }
    }

    /// Lets go of whole steps, the one longest without a match first, but not of the current one nor of the one before, whose matches
    /// it may need.
    fn remove_idle_steps(&mut self, windows: &Windows, current: i64) -> u64 {
        let (mut surplus, mut documents) = self.surplus(windows);
        let mut steps: Vec<(i64, i64, Range<usize>)> = self
            .steps(windows)
            .into_iter()
            .filter(|(step, _)| *step != current && step.checked_add(1) != Some(current))
            .map(|(step, range)| (self.held.range(range.clone()).map(|held| held.arrived).max().unwrap_or(i64::MIN), step, range))
            .collect();
        steps.sort_unstable_by_key(|(arrived, step, _)| (*arrived, *step));

        let mut goes = vec![false; self.held.len()];
        for (_, _, range) in steps {
            if surplus == 0 && documents == 0 {
                break;
            }
            surplus = surplus.saturating_sub(range.len());
            documents = documents.saturating_sub(self.held.range(range.clone()).filter(|held| held.evidence.is_some()).count());
            goes[range].fill(true);
        }
        self.remove(windows, true, |_, place| goes[place])
    }

    /// The steps that hold matches, and the places of those.
    fn steps(&self, windows: &Windows) -> Vec<(i64, Range<usize>)> {
        let mut steps: Vec<(i64, Range<usize>)> = Vec::new();
        for (place, held) in self.held.iter().enumerate() {
            let step = windows.step_of(held.time);
            match steps.last_mut() {
                Some((last, range)) if *last == step => range.end = place + 1,
                _ => steps.push((step, place..place + 1)),
            }
        }
        steps
    }
}
