//! Pauses between attempts: growing, bounded, and ended at once by a shutdown.

use std::time::Duration;

use tokio_util::sync::CancellationToken;

const FIRST: Duration = Duration::from_millis(100);
const LONGEST: Duration = Duration::from_secs(10);

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
        let pause = self.next;
        self.next = (pause * 2).min(self.longest);
        tokio::select! {
            () = shutdown.cancelled() => Err(Stopped),
            () = tokio::time::sleep(pause) => Ok(()),
        }
    }
}
