//! What a group must do, by tables and against the [`oracle`](crate::correlate::oracle).

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::{
    super::oracle::{self, Expected, found},
    *,
};

const FOREVER: i64 = i64::MAX;

fn windows(count: usize, window: i64, step: i64) -> Windows {
    Windows { count, distinct: None, window, step, max_counted: 1_000 }
}

fn distinct(count: usize, window: i64, step: i64) -> Windows {
    Windows { distinct: Some("user.name".into()), ..windows(count, window, step) }
}

fn with_value(found: Match, value: &str) -> Match {
    Match { distinct: Some(value.into()), ..found }
}

/// A group with what its alerts last said, as a writer of alerts would have it.
#[derive(Default)]
struct Written {
    group: Group,
    clock: i64,
    alerts: BTreeMap<i64, Expected>,
    missed: u64,
    raised: Vec<i64>,
    /// Lets go of what is spent after each match, and of nothing else.
    only_spent: bool,
}

impl Written {
    fn apply(&mut self, windows: &Windows, hold: i64, found: Match) -> Vec<Firing> {
        self.clock = self.clock.max(found.received_millis);
        let time = found.timestamp_millis;
        let firings = self.group.insert(windows, hold, found, self.clock);
        for firing in &firings {
            let union = self.group.union(windows, firing.step).expect("a step that fired has a union");
            let events = union.events.iter().map(|event| event.id.clone()).collect();
            self.alerts.insert(firing.step, Expected { completed: union.completed, count: union.count, events });
            if firing.first {
                self.raised.push(firing.step);
            }
        }
        if self.only_spent {
            self.group.remove_spent(windows);
        } else {
            self.missed += self.group.compact(windows, time);
        }
        self.assert_consistent();
        firings
    }

    /// What is kept beside the matches fits them.
    fn assert_consistent(&self) {
        let group = &self.group;
        assert!(group.held.iter().is_sorted_by_key(|held| (held.time, held.id)));
        assert_eq!(group.ids.len(), group.held.len());
        assert_eq!(group.documents, group.held.iter().filter(|held| held.evidence.is_some()).count());
        let values: usize = group.values.values().map(|count| *count as usize).sum();
        assert!(values == 0 || values == group.held.len());
    }
}

fn written(windows: &Windows, matches: impl IntoIterator<Item = Match>) -> Written {
    let mut written = Written::default();
    for found in matches {
        written.apply(windows, FOREVER, found);
    }
    written
}

fn at_times(times: &[i64]) -> Vec<Match> {
    times.iter().enumerate().map(|(number, time)| found(&format!("e{number}"), *time)).collect()
}

#[test]
fn a_window_is_open_at_its_start_and_closed_at_its_end() {
    for (name, times, expected) in [
        ("both at once", vec![100, 100], vec![100]),
        ("one millisecond less than the window apart", vec![100, 109], vec![109]),
        ("the window apart", vec![100, 110], vec![]),
        ("alone", vec![100], vec![]),
        ("across the edge of a step", vec![99, 100], vec![100]),
        ("before 1970", vec![-15, -11], vec![-11]),
        ("across 1970", vec![-1, 0], vec![0]),
        ("the window apart, across 1970", vec![-5, 5], vec![]),
        ("at the start of the scale", vec![i64::MIN, i64::MIN], vec![i64::MIN]),
        ("at the end of the scale", vec![i64::MAX - 1, i64::MAX], vec![i64::MAX]),
        ("at both ends of the scale", vec![i64::MIN, i64::MAX], vec![]),
    ] {
        for (order, times) in [("in order", times.clone()), ("reversed", times.into_iter().rev().collect())] {
            let written = written(&windows(2, 10, 10), at_times(&times));

            let completed: Vec<i64> = written.alerts.values().map(|alert| alert.completed).collect();
            assert_eq!(completed, expected, "{name}, {order}");
        }
    }
}

#[test]
fn a_step_makes_one_alert_and_the_next_step_another() {
    let written = written(&windows(2, 10, 100), at_times(&[10, 11, 12, 50, 51, 99, 108, 120]));

    assert_eq!(written.raised, [0, 1]);
    assert_eq!(written.alerts[&0].count, 6);
    assert_eq!(written.alerts[&1], Expected { completed: 108, count: 3, events: vec!["e5".into(), "e6".into(), "e7".into()] });
}

#[test]
fn a_late_match_can_complete_windows_of_two_steps_at_once() {
    let windows = windows(3, 10, 10);
    let mut written = written(&windows, at_times(&[12, 19, 20]));
    assert_eq!(written.alerts.len(), 1);

    let firings = written.apply(&windows, FOREVER, found("late", 14));

    assert_eq!(firings, [Firing { step: 1, first: true }, Firing { step: 2, first: false }]);
    assert_eq!(written.alerts[&1].completed, 19);
    assert_eq!(written.alerts[&2].count, 4);
}

#[test]
fn a_late_match_moves_an_alert_to_the_earlier_window_that_it_completes() {
    let windows = windows(2, 10, 100);
    let mut written = written(&windows, at_times(&[5, 40, 41]));
    assert_eq!(written.alerts[&0].completed, 41);

    let firings = written.apply(&windows, FOREVER, found("late", 7));

    assert_eq!(firings, [Firing { step: 0, first: false }]);
    assert_eq!(written.alerts[&0].completed, 7);
    assert_eq!(written.alerts[&0].count, 4);
}

#[test]
fn an_event_counts_once_however_often_it_is_found() {
    let windows = windows(2, 10, 10);
    let mut written = written(&windows, vec![found("e1", 1), found("e1", 1), found("e1", 4)]);
    assert!(written.alerts.is_empty());

    written.apply(&windows, FOREVER, found("e2", 2));

    assert_eq!(written.alerts[&0].count, 2);
    assert_eq!(written.apply(&windows, FOREVER, found("e2", 2)), []);
}

#[test]
fn different_values_are_counted_and_repeated_ones_are_not() {
    let windows = distinct(3, 10, 10);
    let of = |values: &[&str]| -> Vec<Match> {
        values.iter().enumerate().map(|(number, value)| with_value(found(&format!("e{number}"), number as i64), value)).collect()
    };

    assert!(written(&windows, of(&["a", "b", "a", "b", "a"])).alerts.is_empty());
    assert_eq!(written(&windows, of(&["a", "a", "b", "c"])).alerts[&0].completed, 3);
    assert_eq!(written(&windows, of(&["a", "b", "c", "c"])).alerts[&0].count, 4);
}

#[test]
fn a_match_without_the_value_that_is_counted_does_not_count() {
    let windows = distinct(1, 10, 10);

    assert!(written(&windows, vec![found("e1", 1)]).alerts.is_empty());
}

#[test]
fn a_match_is_held_for_the_holding_time_after_it_came_in_and_then_let_go() {
    let windows = windows(2, 10, 10);
    let hold = 80;
    for (name, received, expected) in [("within", 80, 1), ("past", 200, 0)] {
        let mut written = Written::default();
        written.apply(&windows, hold, found("e1", 1));

        written.apply(&windows, hold, Match { received_millis: received, ..found("e2", 2) });

        assert_eq!(written.alerts.len(), expected, "{name}");
    }
}

#[test]
fn an_alert_whose_matches_are_partly_let_go_stands_as_it_was() {
    let windows = windows(2, 10, 10);
    let hold = 80;
    let mut written = Written::default();
    for (id, received) in [("e1", 0), ("e2", 0), ("e3", 70)] {
        written.apply(&windows, hold, Match { received_millis: received, ..found(id, 1) });
    }
    let before = written.alerts.clone();

    let firings = written.apply(&windows, hold, Match { received_millis: 140, ..found("e4", 1) });

    assert_eq!(firings, []);
    assert_eq!(written.alerts, before);
    assert_eq!(written.group.held.len(), 2);
}

#[test]
fn a_match_that_was_long_under_way_is_held_from_its_arrival() {
    let windows = windows(2, 10, 10);
    let hold = 80;
    let mut written = Written::default();
    written.apply(&windows, hold, found("newer", 10_000));

    written.apply(&windows, hold, found("e1", 1));
    written.apply(&windows, hold, found("e2", 2));

    assert_eq!(written.raised, [0]);
}

#[test]
fn an_alert_carries_the_first_documents_and_the_group_few_others() {
    let windows = windows(50, 1_000, 1_000);
    let times: Vec<i64> = (0..900).rev().collect();

    let written = written(&windows, at_times(&times));

    let expected: Vec<String> = (0..10).map(|time| format!("e{}", 899 - time)).collect();
    assert_eq!(written.alerts[&0], Expected { completed: 49, count: 900, events: expected });
    assert_eq!(written.group.documents, MAX_EVENTS);
}

#[test]
fn a_flood_of_one_group_stays_within_bounds_and_fires_in_every_step() {
    let windows = windows(10, 1_000, 1_000);
    let total = 60_000;
    let mut written = Written::default();

    for number in 0..total {
        let firings = written.group.insert(&windows, FOREVER, found(&format!("e{number}"), number / 10), number / 10);
        written.raised.extend(firings.iter().filter(|firing| firing.first).map(|firing| firing.step));
        written.group.compact(&windows, number / 10);
        assert!(written.group.held.len() <= windows.max_held());
        assert!(written.group.documents <= MAX_DOCUMENTS);
    }

    assert_eq!(written.raised, (0..6).collect::<Vec<i64>>());
    assert_eq!(written.group.union(&windows, 5).unwrap().count, windows.max_counted);
    written.assert_consistent();
}

#[test]
fn more_quiet_matches_than_a_long_step_can_hold_do_not_hide_the_burst_after_them() {
    let windows = Windows { max_counted: 20, ..windows(5, 10, 1_000_000) };
    let quiet = (0..2_000).map(|number| found(&format!("quiet{number}"), number * 100));
    let burst = (0..5).map(|number| found(&format!("burst{number}"), 500_000 + number));

    let written = written(&windows, quiet.chain(burst));

    assert!(written.missed > 0);
    assert_eq!(written.alerts[&0].completed, 500_004);
}

#[test]
fn documents_of_a_group_have_a_bound_of_their_own() {
    let windows = windows(2, 1, 1_000_000);

    let written = written(&windows, (0..5_000).map(|number| found(&format!("e{number}"), number)));

    assert!(written.group.documents <= MAX_DOCUMENTS);
    assert!(written.missed > 0);
}

#[derive(Debug, Clone)]
struct Case {
    windows: Windows,
    /// In the order of their arrival, with repetitions.
    arrivals: Vec<Match>,
    matches: Vec<Match>,
}

/// Matches over a few windows, each once, twice or three times, in any order.
fn cases(most: usize, max_counted: usize) -> impl Strategy<Value = Case> {
    let numbers = (1_usize..5, any::<bool>(), 1_i64..30, 1_i64..4, 0_i64..30, -200_i64..200);
    // From sparse to crowded.
    let times = (5_i64..200).prop_flat_map(move |span| prop::collection::vec((0..span, 0_u8..5, 1_usize..3), 0..most));
    (numbers, times).prop_flat_map(move |((count, is_distinct, window, times_step, more_step, origin), times)| {
        let step = window * times_step + more_step;
        let shape = if is_distinct { distinct(count, window, step) } else { windows(count, window, step) };
        let windows = Windows { max_counted, ..shape };
        let mut matches = Vec::new();
        let mut arrivals = Vec::new();
        for (number, (time, value, copies)) in times.into_iter().enumerate() {
            let found = with_value(found(&format!("e{number}"), origin + time), &value.to_string());
            arrivals.extend(std::iter::repeat_n(found.clone(), copies));
            matches.push(found);
        }
        Just(arrivals).prop_shuffle().prop_map(move |arrivals| Case { windows: windows.clone(), arrivals, matches: matches.clone() })
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn alerts_are_those_of_the_definitions_in_any_order_and_with_any_repetition(case in cases(60, 1_000)) {
        let written = written(&case.windows, case.arrivals);

        prop_assert_eq!(written.alerts, oracle::alerts(&case.windows, &case.matches));
    }

    #[test]
    fn a_restart_in_between_changes_nothing(case in cases(40, 1_000), cut in any::<prop::sample::Index>(), seed in any::<u64>()) {
        let cut = cut.index(case.arrivals.len() + 1);
        let mut before = written(&case.windows, case.arrivals[..cut].to_vec());
        let mut again = case.arrivals[..cut].to_vec();
        again.sort_by_key(|found| fingerprint([found.event_id.as_str(), &seed.to_string()]));

        let after = written(&case.windows, again.into_iter().chain(case.arrivals[cut..].to_vec()));

        for found in case.arrivals[cut..].iter().cloned() {
            before.apply(&case.windows, FOREVER, found);
        }
        prop_assert_eq!(after.alerts, before.alerts);
    }

    #[test]
    fn more_matches_never_take_an_alert_back_nor_make_it_say_less(case in cases(40, 1_000)) {
        let mut written = Written::default();
        for found in case.arrivals {
            let before = written.alerts.clone();

            written.apply(&case.windows, FOREVER, found);

            for (step, old) in before {
                let new = &written.alerts[&step];
                prop_assert!(new.count >= old.count && new.completed <= old.completed);
            }
        }
    }

    #[test]
    fn what_goes_as_spent_is_missed_by_no_alert(case in cases(250, 12)) {
        let mut written = Written { only_spent: true, ..Written::default() };

        for found in case.arrivals {
            written.apply(&case.windows, FOREVER, found);
        }

        prop_assert_eq!(written.alerts, oracle::alerts(&case.windows, &case.matches));
    }

    #[test]
    fn letting_go_never_hides_what_arrives_within_the_lateness(case in cases(60, 1_000), lateness in 0_i64..50) {
        // Each match is received at most `lateness` after it happened, in the order of receipt.
        let hold = case.windows.window + case.windows.step + lateness;
        let mut received: Vec<Match> = case
            .arrivals
            .into_iter()
            .enumerate()
            .map(|(number, found)| Match { received_millis: found.timestamp_millis + (number as i64 * 7) % (lateness + 1), ..found })
            .collect();
        received.sort_by_key(|found| found.received_millis);
        let mut written = Written { clock: i64::MIN, ..Written::default() };

        for found in received {
            written.apply(&case.windows, hold, found);
        }

        prop_assert_eq!(written.alerts, oracle::alerts(&case.windows, &case.matches));
    }
}
