//! How one rule counts: its windows, steps and holding time, as plain numbers.

use redoubt_crds::{AlertRuleSpec, Duration};

/// The event count of an alert is exact up to this number or twice the threshold, whichever is more, and stands still there.
const MIN_COUNTED: usize = 1_000;

/// How a rule's matches become alerts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Policy {
    /// What makes an alert.
    pub(super) counting: Counting,
    /// How long a match is held after it came in, in milliseconds.
    pub(super) hold_millis: i64,
}

/// What makes an alert.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Counting {
    /// Each match by itself.
    Each,
    /// Enough matches of a group within a window, once a step.
    Windows(Windows),
}

/// Windows and steps of event time. All lengths are milliseconds, at least 1, and `step >= window`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Windows {
    /// How many matches, or different values, fill a window; at least 1.
    pub(super) count: usize,
    /// The field whose different values are counted instead of the matches.
    pub(super) distinct: Option<String>,
    /// Length of the window.
    pub(super) window: i64,
    /// Length of the step.
    pub(super) step: i64,
    /// Where an alert's event count stands still.
    pub(super) max_counted: usize,
}

impl Policy {
    /// Reads the numbers off a rule.
    pub(super) fn of(spec: &AlertRuleSpec) -> Self {
        let suppressed = spec.suppress.as_ref().map(|suppress| positive(suppress.period));
        let counting = match (&spec.threshold, suppressed) {
            (Some(threshold), _) => {
                let count = usize::try_from(threshold.count).unwrap_or(usize::MAX).max(1);
                let window = positive(threshold.window);
                Counting::Windows(Windows {
                    count,
                    distinct: threshold.distinct.clone(),
                    window,
                    step: suppressed.unwrap_or(0).max(window),
                    max_counted: count.saturating_mul(2).max(MIN_COUNTED),
                })
            }
            // One match fills a window by itself, so the shortest window there is will do.
            (None, Some(step)) => Counting::Windows(Windows { count: 1, distinct: None, window: 1, step, max_counted: MIN_COUNTED }),
            (None, None) => Counting::Each,
        };
        let lateness = spec.allowed_lateness.as_millis().max(0);
        let hold_millis = match &counting {
            Counting::Each => lateness,
            Counting::Windows(windows) => windows.window.saturating_add(windows.step).saturating_add(lateness),
        };
        Self { counting, hold_millis }
    }
}

impl Windows {
    /// The step that a time lies in.
    pub(super) fn step_of(&self, time: i64) -> i64 {
        time.div_euclid(self.step)
    }

    /// The first millisecond of a step.
    pub(super) fn step_start(&self, step: i64) -> i64 {
        step.saturating_mul(self.step)
    }

    /// The cell of window length that a time lies in; documents are kept by the cell.
    pub(super) fn cell_of(&self, time: i64) -> i64 {
        time.div_euclid(self.window)
    }

    /// Whether the window that ends at `end` holds `time`, which is no later: the window is open at its start.
    pub(super) fn holds(&self, end: i64, time: i64) -> bool {
        end.saturating_sub(time) < self.window
    }

    /// The last step whose windows can hold `time`: its own or the next.
    pub(super) fn last_step_of(&self, time: i64) -> i64 {
        self.step_of(time.saturating_add(self.window - 1))
    }

    /// How many matches of one group are held at most.
    pub(super) fn max_held(&self) -> usize {
        self.max_counted.saturating_mul(4)
    }
}

fn positive(length: Duration) -> i64 {
    length.as_millis().max(1)
}

#[cfg(test)]
mod tests {
    use redoubt_crds::{Matcher, Suppression, Threshold};

    use super::*;

    fn threshold(window: &str) -> Option<Threshold> {
        let window = window.parse().unwrap();
        Some(Threshold { matcher: Matcher::default(), group_by: Vec::new(), count: 3, distinct: None, window })
    }

    fn suppress(period: &str) -> Option<Suppression> {
        Some(Suppression { by: Vec::new(), period: period.parse().unwrap() })
    }

    #[test]
    fn a_rule_without_suppression_or_threshold_makes_each_match_an_alert() {
        let policy = Policy::of(&AlertRuleSpec { allowed_lateness: "5s".parse().unwrap(), ..AlertRuleSpec::default() });

        assert_eq!(policy, Policy { counting: Counting::Each, hold_millis: 5_000 });
    }

    #[test]
    fn a_step_is_as_long_as_the_longer_of_window_and_suppression() {
        let minute = 60_000;
        for (name, threshold, suppress, window, step) in [
            ("a threshold alone", threshold("2m"), None, 2 * minute, 2 * minute),
            ("a shorter suppression", threshold("2m"), suppress("1m"), 2 * minute, 2 * minute),
            ("a longer suppression", threshold("2m"), suppress("1h"), 2 * minute, 60 * minute),
            ("a suppression alone", None, suppress("1h"), 1, 60 * minute),
            ("lengths of nothing", threshold("0s"), suppress("0s"), 1, 1),
        ] {
            let spec = AlertRuleSpec { threshold, suppress, allowed_lateness: "10s".parse().unwrap(), ..AlertRuleSpec::default() };

            let policy = Policy::of(&spec);

            let Counting::Windows(windows) = policy.counting else { panic!("{name}: no windows") };
            assert_eq!((windows.window, windows.step), (window, step), "{name}");
            assert_eq!(policy.hold_millis, window + step + 10_000, "{name}");
        }
    }

    #[test]
    fn times_before_1970_and_at_the_ends_of_the_scale_have_steps_of_their_own() {
        let windows = Windows { count: 1, distinct: None, window: 10, step: 10, max_counted: MIN_COUNTED };

        assert_eq!(windows.step_of(-1), -1);
        assert_eq!(windows.step_of(0), 0);
        assert_eq!(windows.step_start(-1), -10);
        assert!(windows.step_of(i64::MIN) < windows.step_of(i64::MAX));
        assert_eq!(windows.step_start(windows.step_of(i64::MIN)), i64::MIN);
        assert_eq!(windows.last_step_of(i64::MAX), windows.step_of(i64::MAX));
        assert!(!windows.holds(i64::MAX, i64::MIN));
    }
}
