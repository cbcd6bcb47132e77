//! The days of a time series: one index for each day (UTC) on which something was received.
//!
//! Indices are opened when they are first needed; of the open ones, those not used for longest are let go past a bound.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use jiff::Timestamp;
use jiff::civil::Date;
use jiff::tz::TimeZone;

use super::partition::{Partition, remove_folder, sweep, unavailable};
use crate::store::StoreError;

/// More days than this are not held open at a time, for each series.
const MAX_OPEN_DAYS: usize = 128;

/// All days of one family.
pub(super) struct Series {
    folder: PathBuf,
    days: Mutex<Days>,
}

#[derive(Default)]
struct Days {
    /// Each day on disk, and its index where open.
    known: BTreeMap<Date, Option<Open>>,
    /// Counts uses; tells which was used last.
    uses: u64,
}

struct Open {
    partition: Arc<Partition>,
    last_use: u64,
}

impl Series {
    /// Finds the days that are there.
    pub(super) fn open(folder: PathBuf) -> Result<Self, StoreError> {
        let read = || -> std::io::Result<BTreeMap<Date, Option<Open>>> {
            std::fs::create_dir_all(&folder)?;
            sweep(&folder)?;
            let mut known = BTreeMap::new();
            for entry in std::fs::read_dir(&folder)? {
                if let Some(day) = entry?.file_name().to_str().and_then(|name| name.parse().ok()) {
                    known.insert(day, None);
                }
            }
            Ok(known)
        };
        let known = read().map_err(|error| unavailable(&folder, &error))?;
        Ok(Self { folder, days: Mutex::new(Days { known, uses: 0 }) })
    }

    /// The days that are there, oldest first.
    pub(super) fn days(&self) -> Vec<Date> {
        self.lock().known.keys().copied().collect()
    }

    /// The index of a day, if there is one.
    pub(super) fn get(&self, day: Date) -> Result<Option<Arc<Partition>>, StoreError> {
        let mut days = self.lock();
        if days.known.contains_key(&day) { self.opened(&mut days, day).map(Some) } else { Ok(None) }
    }

    /// The index of a day, made if there is none.
    pub(super) fn get_or_create(&self, day: Date) -> Result<Arc<Partition>, StoreError> {
        self.opened(&mut self.lock(), day)
    }

    /// The indices that are open.
    pub(super) fn open_partitions(&self) -> Vec<Arc<Partition>> {
        self.lock().known.values().flatten().map(|open| Arc::clone(&open.partition)).collect()
    }

    /// Removes a day. Searches that are under way end undisturbed. The day's writer must be closed.
    pub(super) fn remove(&self, day: Date) -> Result<(), StoreError> {
        let mut days = self.lock();
        let folder = self.day_folder(day);
        remove_folder(&folder).map_err(|error| unavailable(&folder, &error))?;
        days.known.remove(&day);
        Ok(())
    }

    fn opened(&self, days: &mut Days, day: Date) -> Result<Arc<Partition>, StoreError> {
        days.uses += 1;
        let last_use = days.uses;
        if let Some(Some(open)) = days.known.get_mut(&day) {
            open.last_use = last_use;
            return Ok(Arc::clone(&open.partition));
        }
        let partition = Arc::new(Partition::open(&self.day_folder(day))?);
        days.known.insert(day, Some(Open { partition: Arc::clone(&partition), last_use }));
        days.close_oldest();
        Ok(partition)
    }

    fn day_folder(&self, day: Date) -> PathBuf {
        day_folder(&self.folder, day)
    }

    fn lock(&self) -> MutexGuard<'_, Days> {
        self.days.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Days {
    /// Closes days that nobody holds, the one not used for longest first, until the bound is kept.
    fn close_oldest(&mut self) {
        let mut open: Vec<(u64, Date)> = Vec::new();
        for (day, slot) in &self.known {
            if let Some(slot) = slot {
                open.push((slot.last_use, *day));
            }
        }
        open.sort_unstable();
        let excess = open.len().saturating_sub(MAX_OPEN_DAYS);
        for (_, day) in open.into_iter().take(excess) {
            if let Some(slot) = self.known.get_mut(&day)
                && slot.as_ref().is_some_and(|open| Arc::strong_count(&open.partition) == 1)
            {
                *slot = None;
            }
        }
    }
}

fn day_folder(series: &Path, day: Date) -> PathBuf {
    series.join(day.to_string())
}

/// The day on which a time lies, UTC.
pub(super) fn day_of(millis: i64) -> Option<Date> {
    Some(Timestamp::from_millisecond(millis).ok()?.to_zoned(TimeZone::UTC).date())
}

/// The first millisecond of a day, UTC.
pub(super) fn start_of(day: Date) -> Option<i64> {
    Some(day.to_zoned(TimeZone::UTC).ok()?.timestamp().as_millisecond())
}
