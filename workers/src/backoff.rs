//! Pauses between attempts: growing, bounded, and ended at once by a shutdown.
//!
//! Each pause is drawn between half and all of its length, so that processes which lost the same server do not come back together.

use std::{
    hash::{BuildHasher as _, RandomState},
    time::Duration,
};

use tokio_util::sync::CancellationToken;

const FIRST: Duration = Duration::from_millis(100);
const LONGEST: Duration = Duration::from_secs(10);

/// Between half and all of a pause.
pub(crate) fn jittered(pause: Duration) -> Duration {
    // Each of these hashers starts from another seed.
    let random = RandomState::new().hash_one(0_u8) >> 40;
    pause / 2 + pause.mul_f64(random as f64 / f64::from(1_u32 << 25))
}

/// The pauses of one series of attempts: 100 ms, then twice as long each time, up to 10 s.
#[derive(Debug)]
pub struct Backoff {
    next: Duration,
    longest: Duration,
}

impl Default for Backoff {
    fn default() -> Self {
        Self { next: FIRST, longest: LONGEST }
    }
}

/// The wait was cut short by a shutdown.
#[derive(Debug, thiserror::Error)]
#[error("shutting down")]
pub struct Stopped;

impl Backoff {
    /// Pauses that start and end at other lengths.
    #[must_use]
    pub fn between(first: Duration, longest: Duration) -> Self {
        Self { next: first, longest }
    }

    /// Waits for the next pause.
    ///
    /// # Errors
    /// A shutdown began.
    pub async fn pause(&mut self, shutdown: &CancellationToken) -> Result<(), Stopped> {
        let pause = jittered(self.next);
        self.next = (self.next * 2).min(self.longest);
        tokio::select! {
            () = shutdown.cancelled() => Err(Stopped),
            () = tokio::time::sleep(pause) => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pause_is_drawn_from_its_upper_half() {
        let pauses: Vec<Duration> = (0..1000).map(|_| jittered(Duration::from_secs(8))).collect();

        assert!(pauses.iter().all(|pause| (4.0..=8.0).contains(&pause.as_secs_f64())), "{pauses:?}");
        assert!(pauses.iter().any(|pause| pause.as_secs_f64() < 5.0) && pauses.iter().any(|pause| pause.as_secs_f64() > 7.0));
    }
}
