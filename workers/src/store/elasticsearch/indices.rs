//! The indices of time series: which there are, which one is written, and when the next one takes over.
//!
//! A day of receipt has one or more generations, numbered from 1; the highest is written. The next one takes over when the highest is too
//! large or too old, by being made: there is no alias to switch, so nothing can be half switched, and of several processes that make
//! it at the same time one does and the others find it made. One that has not heard of it yet writes on in the one before, which does no
//! harm; it hears within [`HEARSAY`].

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use jiff::civil::Date;
use redoubt_crds::Rollover;
use serde::Deserialize;
use serde_json::{Value, json};
use tracing::info;

use super::names::{Generation, Names};
use super::transport::{Request, Transport};
use crate::store::{Family, StoreError};

/// For so long what is known of a day is taken to be so, where it matters little.
pub(super) const HEARSAY: Duration = Duration::from_secs(10);
/// Of more days than this, all indices are listed instead of each day's.
const MAX_PATTERNS: usize = 40;

/// The indices of one SIEM.
pub(super) struct Indices {
    names: Names,
    rollover: Rollover,
    known: Mutex<BTreeMap<(Family, Date), Known>>,
}

/// The generations of a day, and when that was heard.
struct Known {
    /// Number, and when it was made, milliseconds since 1970.
    generations: BTreeMap<u32, i64>,
    heard: Instant,
    /// Whether something was written to it since the last look at its size.
    written: bool,
}

/// Days of families.
pub(super) type Days = BTreeSet<(Family, Date)>;

impl Indices {
    pub(super) fn new(names: Names, rollover: Rollover) -> Self {
        Self { names, rollover, known: Mutex::default() }
    }

    pub(super) const fn names(&self) -> &Names {
        &self.names
    }

    /// The index of a day that is written now; made where there is none.
    pub(super) async fn current(&self, transport: &Transport, family: Family, day: Date) -> Result<String, StoreError> {
        let heard = self.with(|known| {
            let day = known.get_mut(&(family, day)).filter(|day| day.heard.elapsed() < HEARSAY)?;
            day.written = true;
            day.generations.keys().next_back().copied()
        });
        let number = match heard {
            Some(number) => number,
            None => {
                let listed = self.list(transport, &Days::from([(family, day)])).await?;
                let number = match listed.last() {
                    Some((_, generation)) => generation.number,
                    None => self.create(transport, family, Generation { day, number: 1 }).await?,
                };
                self.with(|known| {
                    known.entry((family, day)).and_modify(|day| day.written = true);
                });
                number
            }
        };
        Ok(self.names.series(family, &Generation { day, number }))
    }

    /// Forgets what is known of a day.
    pub(super) fn forget(&self, family: Family, day: Date) {
        self.with(|known| known.remove(&(family, day)));
    }

    /// The indices of these days, in order, as the cluster has them now.
    pub(super) async fn list(&self, transport: &Transport, days: &Days) -> Result<Vec<(Family, Generation)>, StoreError> {
        let families: BTreeSet<Family> = days.iter().map(|(family, _)| *family).collect();
        let patterns: Vec<String> = if days.len() > MAX_PATTERNS {
            families.iter().map(|family| self.names.all(*family)).collect()
        } else {
            days.iter().map(|(family, day)| self.names.day(*family, *day)).collect()
        };
        let found = fetch(transport, &patterns.join(",")).await?;
        let mut listed = Vec::new();
        let mut by_day: BTreeMap<(Family, Date), BTreeMap<u32, i64>> = days.iter().map(|day| (*day, BTreeMap::new())).collect();
        for (name, made_millis) in found {
            for family in &families {
                if let Some(generation) = self.names.parse(*family, &name)
                    && let Some(generations) = by_day.get_mut(&(*family, generation.day))
                {
                    generations.insert(generation.number, made_millis);
                    listed.push((*family, generation));
                }
            }
        }
        let heard = Instant::now();
        self.with(|known| {
            for (day, generations) in by_day {
                if generations.is_empty() {
                    known.remove(&day);
                } else {
                    let written = known.get(&day).is_some_and(|known| known.written);
                    known.insert(day, Known { generations, heard, written });
                }
            }
        });
        listed.sort_unstable();
        Ok(listed)
    }

    /// All indices of a family, oldest first.
    pub(super) async fn all(&self, transport: &Transport, family: Family) -> Result<Vec<Generation>, StoreError> {
        let found = fetch(transport, &self.names.all(family)).await?;
        let mut all: Vec<Generation> = found.keys().filter_map(|name| self.names.parse(family, name)).collect();
        all.sort_unstable();
        Ok(all)
    }

    /// Deletes the days before one; returns how many documents went. An index that another process deletes first is not counted.
    pub(super) async fn delete_before(&self, transport: &Transport, family: Family, before: Date) -> Result<u64, StoreError> {
        let mut deleted = 0;
        for generation in self.all(transport, family).await?.into_iter().take_while(|generation| generation.day < before) {
            let name = self.names.series(family, &generation);
            let documents = count(transport, &name).await?;
            let answer = transport.ask(&Request::delete(format!("/{name}"))).await?;
            self.forget(family, generation.day);
            if answer.status != 404 {
                answer.done::<Value>()?;
                deleted += documents;
            }
        }
        Ok(deleted)
    }

    /// Lets the next generation take over where the present one is too large or too old. Looks only at days that were written to.
    pub(super) async fn roll_over(&self, transport: &Transport, now_millis: i64) -> Result<(), StoreError> {
        let written: Days =
            self.with(|known| known.iter_mut().filter_map(|(day, known)| std::mem::take(&mut known.written).then_some(*day)).collect());
        if written.is_empty() {
            return Ok(());
        }
        // The highest of each day: the list is in order.
        let highest: BTreeMap<(Family, Date), Generation> =
            self.list(transport, &written).await?.into_iter().map(|(family, generation)| ((family, generation.day), generation)).collect();
        for ((family, day), generation) in highest {
            let name = self.names.series(family, &generation);
            let bytes = size_of(transport, &name).await?;
            let made = self.with(|known| known.get(&(family, day)).and_then(|day| day.generations.get(&generation.number)).copied());
            let age = Duration::from_millis(u64::try_from(now_millis - made.unwrap_or(now_millis)).unwrap_or(0));
            if bytes >= self.rollover.max_bytes || age >= self.rollover.max_age.as_std() {
                let number = self.create(transport, family, Generation { day, number: generation.number + 1 }).await?;
                info!(index = name, bytes, next = number, "the next index takes over");
            }
        }
        Ok(())
    }

    /// Makes an index; one that is there already is as good. Returns its number.
    async fn create(&self, transport: &Transport, family: Family, generation: Generation) -> Result<u32, StoreError> {
        create(transport, &self.names.series(family, &generation)).await?;
        let now_millis = jiff::Timestamp::now().as_millisecond();
        self.with(|known| {
            let fresh = || Known { generations: BTreeMap::new(), heard: Instant::now(), written: false };
            known.entry((family, generation.day)).or_insert_with(fresh).generations.insert(generation.number, now_millis);
        });
        Ok(generation.number)
    }

    fn with<T>(&self, work: impl FnOnce(&mut BTreeMap<(Family, Date), Known>) -> T) -> T {
        work(&mut self.known.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Makes an index by its template; one that is there already is as good.
pub(super) async fn create(transport: &Transport, name: &str) -> Result<(), StoreError> {
    let answer = transport.ask(&Request::put(format!("/{name}"), &json!({}))).await?;
    if answer.is_ok() || answer.names("resource_already_exists_exception") {
        return Ok(());
    }
    // Whatever the reason (a full cluster, mostly), no document is to blame.
    Err(StoreError::Unavailable(format!("the index {name} cannot be made: {}", answer.reason())))
}

/// The indices that fit some patterns, with the time at which each was made, milliseconds since 1970.
async fn fetch(transport: &Transport, patterns: &str) -> Result<BTreeMap<String, i64>, StoreError> {
    #[derive(Deserialize)]
    struct Found {
        #[serde(default)]
        settings: Settings,
    }
    #[derive(Deserialize, Default)]
    struct Settings {
        #[serde(default)]
        index: Index,
    }
    #[derive(Deserialize, Default)]
    struct Index {
        #[serde(default)]
        creation_date: String,
    }
    let path = format!("/{patterns}/_settings/index.creation_date?allow_no_indices=true&ignore_unavailable=true&expand_wildcards=open");
    let found: BTreeMap<String, Found> = transport.ask(&Request::get(path)).await?.done()?;
    Ok(found.into_iter().map(|(name, found)| (name, found.settings.index.creation_date.parse().unwrap_or(i64::MAX))).collect())
}

/// The size of an index' primary shards together, in bytes.
async fn size_of(transport: &Transport, index: &str) -> Result<u64, StoreError> {
    let stats: Value =
        transport.ask(&Request::get(format!("/{index}/_stats/store?filter_path=indices.*.primaries.store.size_in_bytes"))).await?.done()?;
    Ok(stats["indices"][index]["primaries"]["store"]["size_in_bytes"].as_u64().unwrap_or(0))
}

/// How many documents an index has.
async fn count(transport: &Transport, index: &str) -> Result<u64, StoreError> {
    let stats: Value =
        transport.ask(&Request::get(format!("/{index}/_stats/docs?filter_path=indices.*.primaries.docs.count"))).await?.done()?;
    Ok(stats["indices"][index]["primaries"]["docs"]["count"].as_u64().unwrap_or(0))
}
