use redoubt_engine::resource::Kind;
use serde_json::{Value, json};

use super::site::{Site, bad_rule, good_rule, key, rule, status};
use crate::config::index::{Budget, Watched};

#[test]
fn a_good_rule_is_accepted_and_a_bad_one_is_told_where_it_is_wrong() {
    let mut site = Site::new();
    let mut tested = good_rule("a");
    tested["tests"] = json!([{"name": "one", "events": [{"details": {"a": 1}}], "expect": {"fires": true}}]);
    let mut failing = tested.clone();
    failing["tests"][0]["expect"]["fires"] = json!(false);

    site.put(&rule("good"), good_rule("a"));
    site.put(&rule("tested"), tested);
    site.put(&rule("failing"), failing);
    site.put(&rule("bad"), bad_rule());
    site.put(&rule("shapeless"), json!({"sigma": "no object"}));
    site.settle();

    let no_workers = "Unknown NoWorkers: no worker that would run it is ready";
    let not_accepted = "False NotAccepted: no version of it has been accepted, so none runs";
    assert_eq!(site.says(&rule("good")), ["True Compiled: compiles", no_workers]);
    assert_eq!(site.says(&rule("tested")), ["True Compiled: compiles, and its test passes", no_workers]);
    // kubectl prints 12 lines before `spec:`, and its fields in the order of their names.
    let [failing, ready] = site.says(&rule("failing"));
    assert!(failing.starts_with("False TestsFailed: AlertRule/failing:26:5: spec.tests[0].expect"), "{failing}");
    assert_eq!(ready, not_accepted);
    let [bad, ready] = site.says(&rule("bad"));
    assert!(bad.starts_with("False Invalid: AlertRule/bad:16:18: spec.sigma.detection.condition: "), "{bad}");
    assert!(bad.ends_with("(it can combine these selections: s)"), "{bad}");
    assert_eq!(ready, not_accepted);
    let [shapeless, _] = site.says(&rule("shapeless"));
    assert!(shapeless.starts_with("False Invalid: AlertRule/shapeless:14:10: "), "{shapeless}");
}

#[test]
fn a_program_is_told_of_by_its_own_lines() {
    let mut site = Site::new();

    site.put(&key(Kind::Enrichment, "paint"), json!({"vrl": {"source": ".a = 1\n.b = oops\n"}}));
    site.settle();

    let [accepted, _] = site.says(&key(Kind::Enrichment, "paint"));
    assert!(accepted.starts_with("False Invalid: Enrichment/paint:17:12: spec.vrl.source: "), "{accepted}");
}

#[test]
fn nothing_is_said_before_everything_has_been_seen() {
    let mut site = Site::unlisted();
    let spec = json!({"lookup": {"watchlist": "bad", "field": "user.name", "target": "threat.indicator"}});
    site.put(&key(Kind::Enrichment, "mark"), spec);

    for of in Watched::ALL {
        assert_eq!(site.settle(), [], "before {of:?}");
        site.put(&key(Kind::Watchlist, "bad"), json!({"match": "exact", "entries": [{"value": "x"}]}));
        site.list(of);
    }
    site.settle();

    assert!(site.index.is_complete());
    assert!(site.says(&key(Kind::Enrichment, "mark"))[0].starts_with("True Compiled"), "{:?}", site.statuses);
}

#[test]
fn of_two_siems_the_older_one_counts_whatever_their_names() {
    let mut site = Site::new();
    let (older, newer) = (key(Kind::Siem, "z"), key(Kind::Siem, "a"));
    site.put(&older, json!({}));
    site.pass(5);
    site.put(&newer, json!({}));
    site.settle();

    assert_eq!(site.says(&older), ["True Compiled: compiles", ""]);
    assert!(site.says(&newer)[0].starts_with("False NotTheOnlySiem: "), "{:?}", site.says(&newer));

    site.delete(&older);
    site.settle();

    assert_eq!(site.says(&newer), ["True Compiled: compiles", ""]);
}

#[test]
fn a_siem_has_another_writer_for_all_but_accepted() {
    let mut site = Site::new();
    site.put(&key(Kind::Siem, "soc"), json!({}));

    let changes = site.settle();

    let types: Vec<&str> = status(&changes[0]).conditions.iter().map(|condition| condition.type_.as_str()).collect();
    assert_eq!((types, status(&changes[0]).observed_generation), (vec!["Accepted"], None));
}

#[test]
fn resources_are_judged_anew_when_what_they_depend_on_changes() {
    let mut site = Site::new();
    let (list, mark) = (key(Kind::Watchlist, "bad"), key(Kind::Enrichment, "mark"));
    let (one, two) = (key(Kind::LogSource, "one"), key(Kind::LogSource, "two"));
    let syslog = json!({"syslog": {"udpPort": 514}});
    site.put(&mark, json!({"lookup": {"watchlist": "bad", "field": "user.name", "target": "threat.indicator"}}));
    site.put(&two, syslog.clone());
    site.pass(1);
    site.put(&one, syslog);
    site.settle();
    let accepted = |site: &Site| [&list, &mark, &one, &two].map(|key| site.says(key)[0].starts_with("True"));
    assert_eq!(accepted(&site), [false, false, false, true]);
    assert!(site.says(&one)[0].contains("udp port 514 belongs to LogSource/two"), "{:?}", site.says(&one));

    site.put(&list, json!({"match": "exact", "entries": [{"value": "x"}]}));
    site.delete(&two);
    site.settle();

    assert_eq!(accepted(&site), [true, true, true, false]);
}

#[test]
fn a_response_is_warned_of_a_rule_that_does_not_run() {
    let mut site = Site::new();
    let action = key(Kind::ResponseAction, "call");
    site.put(&action, json!({"alerts": {"rules": ["brute-force"]}, "log": {}}));
    site.settle();
    let [warned, _] = site.says(&action);
    assert!(warned.starts_with("True Compiled: compiles; but ResponseAction/call:"), "{warned}");
    assert!(warned.contains("AlertRule/brute-force does not run"), "{warned}");

    site.put(&rule("brute-force"), good_rule("a"));
    site.settle();
    assert_eq!(site.says(&action)[0], "True Compiled: compiles");

    site.delete(&rule("brute-force"));
    site.settle();
    assert_eq!(site.says(&action)[0], warned);
}

#[test]
fn whether_a_geoip_database_is_there_is_for_the_workers_to_say() {
    let mut site = Site::new();
    let place = |fields: Value| json!({"geoip": {"city": "/geo/city.mmdb", "fields": fields}});
    site.put(&key(Kind::Enrichment, "good"), place(json!(["source.ip"])));
    site.put(&key(Kind::Enrichment, "bad"), place(json!(["source.name"])));

    site.settle();

    let [good, _] = site.says(&key(Kind::Enrichment, "good"));
    assert!(good.starts_with("True Compiled: compiles; but Enrichment/good:15:11:"), "{good}");
    let [bad, _] = site.says(&key(Kind::Enrichment, "bad"));
    assert!(bad.starts_with("False Invalid: ") && !bad.contains("city"), "{bad}");
}

#[test]
fn thousands_of_rules_are_judged_in_slices_and_other_kinds_do_not_wait_for_them() {
    let mut site = Site::new();
    for number in 0..100 {
        site.put(&rule(&format!("r{number}")), good_rule("a"));
    }
    site.put(&key(Kind::LogSource, "web"), json!({"syslog": {"udpPort": 514}}));
    site.pass(1);

    let round = site.index.recompute(site.now, Budget { judge: 10, changes: 5, questions: 1 });

    assert_eq!((round.judged[&Kind::AlertRule], round.judged[&Kind::LogSource], round.more), (10, 1, true));
    assert_eq!(round.changes.len(), 5);
    assert_eq!(round.changes[0].key, key(Kind::LogSource, "web"));
}

#[test]
fn a_burst_of_resources_is_compiled_once_but_not_put_off_for_ever() {
    let mut site = Site::new();
    let milliseconds = |site: &mut Site, count| site.now += jiff::SignedDuration::from_millis(count);
    let mut compiled = Vec::new();
    for number in 0..30 {
        site.put(&key(Kind::LogSource, &format!("s{number}")), json!({"amqp": "nonsense"}));
        milliseconds(&mut site, 50);
        compiled.push(!site.round().judged.is_empty());
    }

    assert_eq!(compiled.iter().filter(|compiled| **compiled).count(), 1, "{compiled:?}");
    assert!(compiled[19], "after a second, and not before: {compiled:?}");
}
