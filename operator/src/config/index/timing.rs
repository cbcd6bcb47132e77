//! When something is done: at once where people wait for it, later where it may pass by itself.

use jiff::{SignedDuration, Timestamp};

/// How long the kinds that are compiled together must be quiet before they are.
pub(super) const QUIET: SignedDuration = SignedDuration::from_millis(100);
/// How long their compiling is put off at most.
pub(super) const LATEST: SignedDuration = SignedDuration::from_secs(1);

/// How long a resource that all workers ran may seem to be run by fewer, or by another number of them, before its status says so. Pods
/// are replaced and added all the time; thousands of statuses must not be written for each.
pub(super) const SETTLE: SignedDuration = SignedDuration::from_secs(30);
/// How often the progress of workers is told, until all of them run a resource.
pub(super) const PROGRESS: SignedDuration = SignedDuration::from_secs(4);

/// The shortest time between two questions to one worker.
pub(super) const ASK_SOON: SignedDuration = SignedDuration::from_secs(1);
/// The longest.
pub(super) const ASK_LATE: SignedDuration = SignedDuration::from_secs(15);

/// The longest pause between two attempts.
const LONGEST_PAUSE: SignedDuration = SignedDuration::from_secs(300);

/// The pause after so many failures in a row: 1 s, then twice as long each time, up to 5 minutes. `spread` moves it by up to a quarter, so
/// that what failed together does not come back together.
pub(super) fn pause(failures: u32, spread: u64) -> SignedDuration {
    let pause = ASK_SOON.saturating_mul(1_i32.checked_shl(failures.saturating_sub(1).min(16)).unwrap_or(i32::MAX)).min(LONGEST_PAUSE);
    let quarter = i64::try_from(pause.as_millis() / 4).unwrap_or(0).max(1);
    pause + SignedDuration::from_millis(i64::try_from(spread % 1000).unwrap_or(0) * quarter / 1000)
}

/// The time between two questions to a worker, while something is not run by all that should: a second, and longer the longer nothing
/// has changed.
pub(super) fn until_next_question(waiting: bool, last_change: Timestamp, now: Timestamp) -> SignedDuration {
    if !waiting {
        return ASK_LATE;
    }
    (now.duration_since(last_change) / 8).clamp(ASK_SOON, ASK_LATE)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_and_end_at_five_minutes() {
        let seconds: Vec<i64> = [1, 2, 3, 9, 10, 40, u32::MAX].map(|failures| pause(failures, 0).as_secs()).into();

        assert_eq!(seconds, [1, 2, 4, 256, 300, 300, 300]);
        assert_eq!(pause(3, 999).as_millis(), 4_999);
    }

    #[test]
    fn workers_are_asked_less_often_the_longer_nothing_changes() {
        let start = Timestamp::from_second(1_760_000_000).unwrap();
        let after = |waiting, seconds| until_next_question(waiting, start, start + SignedDuration::from_secs(seconds)).as_secs();

        assert_eq!([after(true, 0), after(true, 8), after(true, 40), after(true, 9999), after(false, 0)], [1, 1, 5, 15, 15]);
    }
}
