//! What a process remembers of a queue: how far it handed out, and what came back.
//!
//! All of it can be lost: after a restart, handing out begins again at the first message that was not acknowledged.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio::sync::Notify;

use super::file::{Fill, Row};
use crate::broker::{Depth, Topic};

/// A subscription's queue.
#[derive(Debug)]
pub(super) struct Queue {
    pub(super) id: u32,
    pub(super) topic: Topic,
    pub(super) subscription: String,
    /// Owned by the consumer that holds the queue; later consumers wait for it in turn.
    pub(super) holder: Arc<tokio::sync::Mutex<()>>,
    /// There may be something new to hand out.
    pub(super) arrived: Notify,
    shown: Mutex<Shown>,
    handing: Mutex<Handing>,
}

impl Queue {
    pub(super) fn new(id: u32, row: &Row, returns: BTreeMap<u64, u32>) -> Self {
        let past = returns.into_iter().map(|(sequence, times)| (sequence, Past { times, reason: None })).collect();
        Self {
            id,
            topic: row.topic,
            subscription: row.subscription.clone(),
            holder: Arc::default(),
            arrived: Notify::new(),
            shown: Mutex::new(Shown { fill: row.fill, next: row.next }),
            handing: Mutex::new(Handing { past, ..Handing::default() }),
        }
    }

    pub(super) fn depth(&self) -> Depth {
        self.shown().fill.into()
    }

    /// Takes over what the file says now, and wakes the consumer when there are new messages.
    pub(super) fn show(&self, row: &Row) {
        let mut shown = self.shown();
        let has_new = row.next > shown.next;
        *shown = Shown { fill: row.fill, next: row.next };
        if has_new {
            self.arrived.notify_one();
        }
    }

    // Both locks guard plain values that are whole at every step, so a panic elsewhere does not spoil them.

    fn shown(&self) -> MutexGuard<'_, Shown> {
        self.shown.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn handing(&self) -> MutexGuard<'_, Handing> {
        self.handing.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The last committed state.
#[derive(Debug)]
struct Shown {
    fill: Fill,
    next: u64,
}

/// How often a message came back.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Past {
    pub(super) times: u32,
    /// Why it came back the last time, where a consumer said so.
    pub(super) reason: Option<String>,
}

/// Where handing out stands. Bounded by what consumers may hold at once, since only that can come back.
#[derive(Debug, Default)]
pub(super) struct Handing {
    /// The first sequence number that this process has not handed out.
    cursor: u64,
    /// Handed out before the cursor, and waiting to be handed out again.
    returned: BTreeSet<u64>,
    past: BTreeMap<u64, Past>,
}

impl Handing {
    pub(super) fn cursor(&self) -> u64 {
        self.cursor
    }

    /// The messages that came back and wait, in order.
    pub(super) fn returned(&self) -> Vec<u64> {
        self.returned.iter().copied().collect()
    }

    pub(super) fn times(&self, sequence: u64) -> u32 {
        self.past.get(&sequence).map_or(0, |past| past.times)
    }

    pub(super) fn past(&self, sequence: u64) -> Past {
        self.past.get(&sequence).cloned().unwrap_or_default()
    }

    /// Every count, for the file.
    pub(super) fn counts(&self) -> Vec<(u64, u32)> {
        self.past.iter().map(|(&sequence, past)| (sequence, past.times)).collect()
    }

    /// A message goes out.
    pub(super) fn hand_out(&mut self, sequence: u64) {
        self.returned.remove(&sequence);
        self.cursor = self.cursor.max(sequence + 1);
    }

    /// A message that was out comes back.
    pub(super) fn give_back(&mut self, sequence: u64, reason: Option<String>) {
        self.returned.insert(sequence);
        let past = self.past.entry(sequence).or_default();
        past.times = past.times.saturating_add(1);
        past.reason = reason;
    }

    /// A message left the queue.
    pub(super) fn forget(&mut self, sequence: u64) {
        self.returned.remove(&sequence);
        self.past.remove(&sequence);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_message_that_comes_back_is_counted_and_waits_before_the_cursor() {
        let mut handing = Handing::default();
        handing.hand_out(0);
        handing.hand_out(1);

        handing.give_back(1, None);
        handing.give_back(0, Some("bad".into()));

        assert_eq!(handing.returned(), [0, 1]);
        assert_eq!(handing.cursor(), 2);
        assert_eq!(handing.past(0), Past { times: 1, reason: Some("bad".into()) });
    }

    proptest! {
        #[test]
        fn what_is_remembered_never_outgrows_what_was_out_at_once(
            steps in prop::collection::vec((0_u8..3, any::<prop::sample::Index>()), 1..200),
        ) {
            let mut handing = Handing::default();
            let mut out: Vec<u64> = Vec::new();
            let mut most = 0;

            for (step, index) in steps {
                match step {
                    0 => {
                        let sequence = handing.returned().first().copied().unwrap_or_else(|| handing.cursor());
                        handing.hand_out(sequence);
                        out.push(sequence);
                    }
                    1 if !out.is_empty() => handing.give_back(out.remove(index.index(out.len())), None),
                    2 if !out.is_empty() => handing.forget(out.remove(index.index(out.len()))),
                    _ => {}
                }
                most = most.max(out.len() + handing.returned().len());

                prop_assert!(handing.counts().len() <= most);
                prop_assert!(handing.returned().iter().all(|&sequence| sequence < handing.cursor()));
            }
        }
    }
}
