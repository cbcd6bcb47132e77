use redoubt_engine::resource::Kind;
use serde_json::json;

use super::site::{Site, bad_rule, good_rule, key, rule, status};
use crate::config::index::{About, Answer, Event, Keep, Notice, Role, Version};

fn version(generation: i64, field: &str) -> Version {
    Version { generation, spec: good_rule(field).to_string().into() }
}

#[test]
fn the_last_good_version_is_kept_while_a_resource_is_bad() {
    let mut site = Site::new();
    site.put(&rule("r"), good_rule("a"));
    let accepted = site.settle();
    assert_eq!((accepted[0].keep.clone(), status(&accepted[0]).notice.clone()), (None, None));

    site.put(&rule("r"), bad_rule());
    let refused = site.settle();

    assert_eq!(refused[0].keep, Some(Keep::Store(version(1, "a"))));
    assert_eq!(site.says(&rule("r"))[1], "False LastGoodVersion: generation 1, the last good one, is programmed in 0 of 0 workers");
    let notice = status(&refused[0]).notice.clone().unwrap();
    assert_eq!((notice.warning, notice.reason), (true, "Invalid"));
    assert!(notice.note.contains("spec.sigma.detection.condition"), "{}", notice.note);

    site.put(&rule("r"), good_rule("b"));
    let mended = site.settle();

    assert_eq!(mended[0].keep, Some(Keep::Discard));
    assert_eq!(status(&mended[0]).notice, Some(Notice { warning: false, reason: "Accepted", note: "compiles".to_owned() }));
    assert!(site.kept.is_empty());
}

#[test]
fn a_resource_that_was_never_good_has_nothing_to_keep() {
    let mut site = Site::new();
    site.put(&rule("r"), bad_rule());
    site.put(&rule("r"), bad_rule());

    let changes = site.settle();

    assert!(changes.iter().all(|change| change.keep.is_none()), "{changes:?}");
}

#[test]
fn a_bad_version_after_a_bad_one_leaves_the_last_good_one() {
    let mut site = Site::new();
    site.put(&rule("r"), good_rule("a"));
    site.settle();
    site.put(&rule("r"), bad_rule());
    site.settle();

    site.put(&rule("r"), json!({"sigma": "nonsense"}));
    let changes = site.settle();

    assert_eq!(changes.iter().filter(|change| change.keep.is_some()).count(), 0, "{changes:?}");
    assert_eq!(site.kept[&rule("r")].good.generation, 1);
}

#[test]
fn what_is_kept_outlives_the_operator() {
    let mut site = Site::new();
    let (list, mark) = (key(Kind::Watchlist, "bad"), key(Kind::Enrichment, "mark"));
    site.put(&rule("r"), good_rule("a"));
    site.put(&list, json!({"match": "exact", "entries": [{"value": "x"}]}));
    site.put(&mark, json!({"lookup": {"watchlist": "bad", "field": "user.name", "target": "threat.indicator"}}));
    site.settle();
    site.put(&rule("r"), bad_rule());
    site.put(&list, json!({"match": "cidr", "entries": [{"value": "no network"}]}));
    site.settle();
    // The Enrichment goes on with the Watchlist's last good version.
    assert!(site.says(&mark)[0].starts_with("True"), "{:?}", site.says(&mark));
    assert_eq!(site.kept.keys().cloned().collect::<Vec<_>>(), [list.clone(), rule("r")]);

    site.restart();

    assert_eq!(site.settle(), [], "nothing has changed, so nothing is written");
    site.pod("p", Role::Process, true);
    site.runs("p", json!({"AlertRule": {"r": 1}}));
    site.settle();
    site.pass(60);
    site.settle();
    assert_eq!(site.says(&rule("r"))[1], "False LastGoodVersion: generation 1, the last good one, is programmed in 1 of 1 worker");
}

#[test]
fn a_kept_version_that_somebody_takes_away_or_changes_is_put_back() {
    let mut site = Site::new();
    site.put(&rule("r"), good_rule("a"));
    site.settle();
    site.put(&rule("r"), bad_rule());
    site.settle();

    let deleted_at = site.next_version();
    site.apply(Event::KeptNoLonger(rule("r"), deleted_at));
    let put_back = site.settle();
    let mut changed = site.kept[&rule("r")].clone();
    changed.good.spec = "{}".into();
    changed.version = site.next_version();
    site.apply(Event::Kept(changed));
    let changed_back = site.settle();

    let expected = Some(Keep::Store(version(1, "a")));
    assert_eq!([put_back.len(), changed_back.len()], [1, 1]);
    assert_eq!((&put_back[0].keep, &changed_back[0].keep), (&expected, &expected));
    assert!(put_back[0].status.is_none());
}

#[test]
fn one_that_is_left_over_is_let_go() {
    let mut site = Site::new();
    site.put(&rule("r"), good_rule("a"));
    site.settle();
    site.put(&rule("r"), bad_rule());
    site.settle();
    site.put(&rule("r"), good_rule("b"));
    // The operator ends after it has written the status, and before it could let go.
    let kept = site.kept.clone();
    site.settle();
    site.kept = kept;

    site.restart();
    let changes = site.settle();

    assert_eq!((changes.len(), &changes[0].keep, &changes[0].status), (1, &Some(Keep::Discard), &None));
}

#[test]
fn a_version_too_large_for_a_config_map_is_not_kept() {
    let mut site = Site::new();
    let mut large = good_rule("a");
    large["description"] = json!("x".repeat(1_000_001));
    site.put(&key(Kind::Watchlist, "w"), json!({"match": "exact", "entries": [{"value": "x".repeat(1_000_001)}]}));
    site.settle();
    site.put(&key(Kind::Watchlist, "w"), json!({"match": "nonsense"}));

    let changes = site.settle();

    assert!(changes.iter().all(|change| change.keep.is_none()));
}

#[test]
fn what_is_kept_of_a_resource_is_not_of_another_one_with_its_name() {
    let mut site = Site::new();
    site.put(&rule("r"), good_rule("a"));
    site.settle();
    site.put(&rule("r"), bad_rule());
    site.settle();

    site.delete(&rule("r"));
    site.put(&rule("r"), bad_rule());
    site.settle();

    assert_eq!(site.says(&rule("r"))[1], "False NotAccepted: no version of it has been accepted, so none runs");
}

#[test]
fn a_version_that_only_workers_know_is_asked_for_and_kept() {
    let mut site = Site::new();
    site.put(&rule("r"), good_rule("a"));
    site.settle();
    // The operator is away while the rule becomes bad, and nothing keeps the version before.
    site.put(&rule("r"), bad_rule());
    site.restart();
    site.pod("p", Role::Process, true);
    site.settle();
    assert_eq!(site.says(&rule("r"))[1], "False NotAccepted: no version of it has been accepted, so none runs");

    site.runs("p", json!({"AlertRule": {"r": 1}}));
    let question = site.round().questions.into_iter().find(|question| question.about == About::Version(rule("r"))).unwrap();
    assert_eq!(site.round().questions, [], "it is asked once in a while");
    site.answer(&question, Answer::Version(rule("r"), Some(version(1, "a"))));
    let changes = site.settle();

    assert_eq!(changes[0].keep, Some(Keep::Store(version(1, "a"))));
    site.pass(5);
    site.settle();
    assert_eq!(site.says(&rule("r"))[1], "False LastGoodVersion: generation 1, the last good one, is programmed in 1 of 1 worker");
}
