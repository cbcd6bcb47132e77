//! A log line that a sender could cause a thousand times a second, written at most every ten seconds.

use std::{
    sync::{Mutex, PoisonError},
    time::Duration,
};

use tokio::time::Instant;

const EVERY: Duration = Duration::from_secs(10);

/// Lets one line through every ten seconds and counts the others.
#[derive(Debug, Default)]
pub(super) struct LogThrottle {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    last: Option<Instant>,
    held_back: u64,
}

impl LogThrottle {
    /// `Some` when a line is due: how many happenings it stands for, this one included.
    pub(super) fn due(&self, now: Instant) -> Option<u64> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.held_back += 1;
        if state.last.is_some_and(|last| now.saturating_duration_since(last) < EVERY) {
            return None;
        }
        state.last = Some(now);
        Some(std::mem::take(&mut state.held_back))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_line_in_ten_seconds_stands_for_all_that_happened() {
        let throttle = LogThrottle::default();
        let start = Instant::now();

        assert_eq!(throttle.due(start), Some(1));
        assert_eq!(throttle.due(start + Duration::from_secs(1)), None);
        assert_eq!(throttle.due(start + Duration::from_secs(9)), None);
        assert_eq!(throttle.due(start + EVERY), Some(3));
    }
}
