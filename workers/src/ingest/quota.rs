//! How fast events of a LogSource may come: a token bucket a source.
//!
//! A token is an event. The bucket holds `burst` of them and fills at `eventsPerSecond`. A batch larger than the whole bucket could
//! never be paid for, so it is let through when the bucket is full, and what it costs above is owed: the rate holds on the long run,
//! and no sender with large batches is shut out.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use redoubt_crds::Quota;
use redoubt_engine::source::Source;
use tokio::time::Instant;

/// The buckets of all sources that have a quota.
#[derive(Debug, Default)]
pub(super) struct Quotas {
    buckets: Mutex<HashMap<Arc<str>, Bucket>>,
}

#[derive(Debug)]
struct Bucket {
    tokens: f64,
    filled: Instant,
}

impl Quotas {
    /// Pays for so many events, or tells how long to wait before it is worth asking again.
    pub(super) fn take(&self, source: &Source, events: usize, now: Instant) -> Result<(), Duration> {
        let Some(quota) = &source.spec.quota else { return Ok(()) };
        let mut buckets = self.buckets.lock().unwrap_or_else(PoisonError::into_inner);
        let bucket = buckets.entry(source.name.clone()).or_insert_with(|| Bucket { tokens: burst(quota), filled: now });
        bucket.take(quota, events, now)
    }

    /// Gives back what was paid for events that were then not taken.
    pub(super) fn give_back(&self, source: &Source, events: usize) {
        let mut buckets = self.buckets.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(bucket) = buckets.get_mut(&source.name) {
            bucket.tokens += events as f64;
        }
    }

    /// Forgets the sources that are no more.
    pub(super) fn retain(&self, sources: &BTreeMap<String, Arc<Source>>) {
        self.buckets.lock().unwrap_or_else(PoisonError::into_inner).retain(|name, _| sources.contains_key(&**name));
    }
}

impl Bucket {
    fn take(&mut self, quota: &Quota, events: usize, now: Instant) -> Result<(), Duration> {
        let rate = f64::from(quota.events_per_second.max(1));
        let passed = now.saturating_duration_since(self.filled).as_secs_f64();
        self.tokens = (self.tokens + passed * rate).min(burst(quota));
        self.filled = now;
        let needed = (events as f64).min(burst(quota));
        if self.tokens < needed {
            return Err(Duration::from_secs_f64((needed - self.tokens) / rate));
        }
        self.tokens -= events as f64;
        Ok(())
    }
}

/// Events that may come at once: as declared, else ten seconds' worth.
fn burst(quota: &Quota) -> f64 {
    quota.burst.map_or(f64::from(quota.events_per_second) * 10.0, f64::from).max(1.0)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use redoubt_crds::LogSourceSpec;

    use super::*;

    fn source(events_per_second: u32, burst: Option<u32>) -> Source {
        let quota = Some(Quota { events_per_second, burst });
        Source::compile("web", &LogSourceSpec { quota, ..LogSourceSpec::default() }).unwrap()
    }

    #[test]
    fn a_burst_passes_and_then_the_rate_holds() {
        let (quotas, source, start) = (Quotas::default(), source(10, Some(20)), Instant::now());

        assert_eq!(quotas.take(&source, 20, start), Ok(()));
        assert_eq!(quotas.take(&source, 5, start), Err(Duration::from_millis(500)));
        assert_eq!(quotas.take(&source, 5, start + Duration::from_millis(500)), Ok(()));
    }

    #[test]
    fn a_batch_above_the_burst_passes_when_the_bucket_is_full_and_is_paid_off_after() {
        let (quotas, source, start) = (Quotas::default(), source(10, Some(20)), Instant::now());

        assert_eq!(quotas.take(&source, 50, start), Ok(()));
        assert_eq!(quotas.take(&source, 1, start), Err(Duration::from_millis(3100)));
    }

    #[test]
    fn without_a_declared_burst_it_is_ten_seconds_worth() {
        let (quotas, source, start) = (Quotas::default(), source(10, None), Instant::now());

        assert_eq!(quotas.take(&source, 100, start), Ok(()));
        assert!(quotas.take(&source, 1, start).is_err());
    }

    #[test]
    fn what_was_not_taken_is_given_back() {
        let (quotas, source, start) = (Quotas::default(), source(10, Some(20)), Instant::now());
        quotas.take(&source, 20, start).unwrap();

        quotas.give_back(&source, 20);

        assert_eq!(quotas.take(&source, 20, start), Ok(()));
    }

    proptest! {
        #[test]
        fn over_any_time_no_more_passes_than_rate_and_one_batch_above_the_burst(
            steps in prop::collection::vec((0_u64..2_000, 1_usize..60), 1..100),
        ) {
            let (quotas, source) = (Quotas::default(), source(10, Some(20)));
            let start = Instant::now();
            let mut now = start;
            let (mut passed, mut largest) = (0, 0);
            for (millis, events) in steps {
                now += Duration::from_millis(millis);
                if quotas.take(&source, events, now).is_ok() {
                    passed += events;
                    largest = largest.max(events);
                }
            }

            let bound = 20.0 + 10.0 * (now - start).as_secs_f64() + largest as f64;
            prop_assert!(passed as f64 <= bound, "{passed} > {bound}");
        }
    }
}
