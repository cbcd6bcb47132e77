use jiff::Timestamp;

use super::site::{Site, bad_rule, good_rule, rule, status};
use crate::config::index::{Change, Done, Event, Failed, Seen, Watched};

fn failed(site: &mut Site, change: &Change) {
    let failed = Some(Err(Failed));
    let done = Done {
        key: change.key.clone(),
        uid: change.uid.clone(),
        keep: change.keep.as_ref().and(failed),
        status: change.status.as_ref().and(failed),
    };
    site.apply(Event::Done(done));
}

#[test]
fn nothing_is_written_at_rest_nor_by_an_operator_that_starts() {
    let mut site = Site::new();
    site.put(&rule("good"), good_rule("a"));
    site.put(&rule("bad"), bad_rule());
    site.settle();

    for _ in 0..10 {
        site.pass(3600);
        assert_eq!(site.settle(), []);
    }
    site.restart();

    assert_eq!(site.settle(), []);
}

#[test]
fn the_time_of_a_condition_is_that_of_the_last_change_of_its_status() {
    let mut site = Site::new();
    let since = |change: &Change| status(change).conditions.iter().map(|condition| condition.last_transition_time.0).collect::<Vec<_>>();
    site.put(&rule("r"), bad_rule());
    let refused = since(&site.settle()[0]);
    site.pass(100);

    site.put(&rule("r"), serde_json::json!({"sigma": "nonsense"}));
    let still_refused = since(&site.settle()[0]);
    site.restart();
    site.pass(100);
    site.put(&rule("r"), good_rule("a"));
    let before = site.now;
    let accepted = since(&site.settle()[0]);

    assert_eq!(refused, still_refused);
    assert_eq!(accepted, [before, before]);
    assert!(refused[0] < Timestamp::from_second(1_760_000_010).unwrap());
}

#[test]
fn what_could_not_be_written_is_tried_again_after_growing_pauses() {
    let mut site = Site::new();
    site.put(&rule("r"), good_rule("a"));
    let mut times = Vec::new();
    for second in 0..40 {
        for change in site.round().changes {
            times.push(second);
            failed(&mut site, &change);
        }
        site.pass(1);
    }
    let pauses: Vec<i64> = times.windows(2).map(|pair| pair[1] - pair[0]).collect();

    // 1, 2, 4, 8, 16 s, each up to a quarter more.
    for (pause, expected) in pauses.iter().zip([1..=2, 2..=3, 4..=5, 8..=10, 16..=20]) {
        assert!(expected.contains(pause), "{pauses:?}");
    }
    assert!(times.len() >= 5, "{times:?}");

    site.put(&rule("r"), good_rule("b"));
    assert_eq!(site.round().changes.len(), 1, "a new version does not wait for the pauses of the one before");
}

#[test]
fn there_is_one_change_of_a_resource_at_a_time() {
    let mut site = Site::new();
    site.put(&rule("r"), good_rule("a"));
    let first = site.round().changes;

    site.put(&rule("r"), bad_rule());
    assert_eq!(site.round().changes, []);
    site.write(&first[0]);

    let second = site.settle();
    assert_eq!(status(&second[0]).observed_generation, Some(2));
}

#[test]
fn a_watch_that_lags_behind_does_not_write_again_what_is_written() {
    let mut site = Site::new();
    site.put(&rule("r"), good_rule("a"));
    let before = site.seen(&rule("r"));
    site.settle();

    site.apply(Event::Seen(before));

    assert_eq!(site.settle(), []);
}

#[test]
fn a_status_that_somebody_else_changes_is_put_right() {
    let mut site = Site::new();
    site.put(&rule("r"), good_rule("a"));
    site.settle();

    site.next_version();
    let wiped = Seen { reported: Default::default(), ..site.seen(&rule("r")) };
    site.apply(Event::Seen(wiped));

    assert_eq!(site.settle().len(), 1);
}

#[test]
fn a_resource_made_anew_under_its_old_name_is_another_one() {
    let mut site = Site::new();
    site.put(&rule("r"), good_rule("a"));
    site.settle();
    let old = site.seen(&rule("r"));

    site.delete(&rule("r"));
    site.put(&rule("r"), bad_rule());
    site.apply(Event::Gone(rule("r"), old.version));
    let changes = site.settle();

    assert_eq!((changes.len(), &changes[0].keep), (1, &None), "the good version was of the other one");
    assert_ne!(changes[0].uid, old.uid);
}

#[test]
fn what_a_listing_does_not_show_is_gone() {
    let mut site = Site::new();
    site.put(&rule("stays"), good_rule("a"));
    site.settle();
    let ghost = Seen { key: rule("ghost"), uid: "uid-ghost".into(), ..site.seen(&rule("stays")) };
    site.apply(Event::Seen(ghost));

    site.list(Watched::Kind(redoubt_engine::resource::Kind::AlertRule));

    assert_eq!(site.settle(), []);
    assert_eq!(site.index.census().kinds[&redoubt_engine::resource::Kind::AlertRule], [1, 0, 0]);
}
