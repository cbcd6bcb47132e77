//! How fast a topic empties, so that a refused publisher is told when to come back.

use std::time::{Duration, Instant};

const WINDOW: Duration = Duration::from_secs(1);
const SOONEST: Duration = Duration::from_secs(1);
const LATEST: Duration = Duration::from_secs(30);

/// Bytes a second that acknowledgements took out of a topic, smoothed: half the last second, half what came before.
#[derive(Debug)]
pub(super) struct Drain {
    since: Instant,
    removed: u64,
    rate: f64,
}

impl Drain {
    pub(super) fn new(now: Instant) -> Self {
        Self { since: now, removed: 0, rate: 0.0 }
    }

    pub(super) fn record(&mut self, removed: u64, now: Instant) {
        self.removed += removed;
        let elapsed = now.saturating_duration_since(self.since);
        if elapsed < WINDOW {
            return;
        }
        let latest = self.removed as f64 / elapsed.as_secs_f64();
        self.rate = if self.rate == 0.0 { latest } else { f64::midpoint(self.rate, latest) };
        self.removed = 0;
        self.since = now;
    }

    /// When `bytes` will have gone at the present rate; between 1 and 30 seconds, 30 when nothing goes.
    pub(super) fn time_for(&mut self, bytes: u64, now: Instant) -> Duration {
        self.record(0, now);
        let seconds = bytes as f64 / self.rate;
        Duration::try_from_secs_f64(seconds).map_or(LATEST, |time| time.clamp(SOONEST, LATEST))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_time_to_come_back_follows_the_rate_within_its_bounds() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        for (removed_a_second, wanted, expected_seconds) in
            [(0, 1000, 30), (0, 0, 30), (100, 1000, 10), (100, 5, 1), (1, 1_000_000, 30), (1000, 2000, 2)]
        {
            let mut drain = Drain::new(start);
            for second in 1..=20 {
                drain.record(removed_a_second, at(second));
            }

            let time = drain.time_for(wanted, at(20));

            assert_eq!(time, Duration::from_secs(expected_seconds), "{removed_a_second} B/s, {wanted} B");
        }
    }

    #[test]
    fn a_drain_that_stopped_is_noticed() {
        let start = Instant::now();
        let mut drain = Drain::new(start);
        drain.record(1000, start + Duration::from_secs(1));

        let soon = drain.time_for(2000, start + Duration::from_secs(1));
        let later = drain.time_for(2000, start + Duration::from_secs(60));

        assert_eq!(soon, Duration::from_secs(2));
        assert!(later > soon, "{later:?}");
    }
}
