//! How many requests are under way at a time: more while the cluster takes them, half as many when it says that it cannot.
//!
//! Additive increase, multiplicative decrease, as TCP finds its rate (Chiu and Jain, 1989). One overload counts once: requests that were
//! under way when the limit was lowered do not lower it again.

use std::sync::{Mutex, PoisonError};

use tokio::sync::Notify;

/// How it starts.
const FIRST: f64 = 4.0;
/// Never more than so many.
const MOST: f64 = 64.0;

/// The limit and what is under way.
pub(super) struct Limiter {
    state: Mutex<State>,
    freed: Notify,
}

struct State {
    limit: f64,
    under_way: usize,
    /// Counts the times that the limit was lowered.
    lowered: u64,
}

/// The right to one request. Dropped, it is given back without a word on how it went.
pub(super) struct Permit<'a> {
    limiter: &'a Limiter,
    /// The count of lowerings when it began.
    lowered: u64,
}

impl Default for Limiter {
    fn default() -> Self {
        Self { state: Mutex::new(State { limit: FIRST, under_way: 0, lowered: 0 }), freed: Notify::new() }
    }
}

impl Limiter {
    /// Waits until one more request may be under way.
    pub(super) async fn acquire(&self) -> Permit<'_> {
        loop {
            let freed = self.freed.notified();
            if let Some(permit) = self.try_acquire() {
                // What is left may be for the next in line.
                self.freed.notify_one();
                return permit;
            }
            freed.await;
        }
    }

    fn try_acquire(&self) -> Option<Permit<'_>> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "from 1 to 64")]
        let most = state.limit as usize;
        if state.under_way >= most {
            return None;
        }
        state.under_way += 1;
        Some(Permit { limiter: self, lowered: state.lowered })
    }

    fn change(&self, change: impl FnOnce(&mut State)) {
        change(&mut self.state.lock().unwrap_or_else(PoisonError::into_inner));
    }

    #[cfg(test)]
    fn limit(&self) -> f64 {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).limit
    }
}

impl Permit<'_> {
    /// The cluster took the request: after a round of such the limit is one higher.
    pub(super) fn went_well(self) {
        self.limiter.change(|state| state.limit = (state.limit + 1.0 / state.limit).min(MOST));
    }

    /// The cluster has too much to do, or did not answer in time.
    pub(super) fn was_too_much(self) {
        let lowered = self.lowered;
        self.limiter.change(|state| {
            if state.lowered == lowered {
                state.lowered += 1;
                state.limit = (state.limit / 2.0).max(1.0);
            }
        });
    }
}

impl Drop for Permit<'_> {
    fn drop(&mut self) {
        self.limiter.change(|state| state.under_way -= 1);
        self.limiter.freed.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn successes_raise_the_limit_slowly_and_an_overload_halves_it_once() {
        let limiter = Limiter::default();
        for _ in 0..100 {
            limiter.acquire().await.went_well();
        }
        let raised = limiter.limit();
        assert!((10.0..20.0).contains(&raised), "{raised}");

        let (one, other, late) = (limiter.acquire().await, limiter.acquire().await, limiter.acquire().await);
        one.was_too_much();
        other.was_too_much();
        late.was_too_much();

        assert!((limiter.limit() - raised / 2.0).abs() < 1e-9);
        for _ in 0..20 {
            limiter.acquire().await.was_too_much();
        }
        assert!((limiter.limit() - 1.0).abs() < 1e-9);
    }

    #[tokio::test]
    async fn no_more_are_under_way_than_the_limit_and_each_that_ends_lets_one_in() {
        let limiter = Limiter::default();
        let mut permits = Vec::new();
        while let Some(permit) = limiter.try_acquire() {
            permits.push(permit);
        }
        assert_eq!(permits.len(), 4);

        let mut waiting = Box::pin(limiter.acquire());
        assert!(futures::poll!(&mut waiting).is_pending());
        permits.pop();

        waiting.await.went_well();
    }
}
