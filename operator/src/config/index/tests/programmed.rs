use redoubt_engine::resource::Kind;
use serde_json::{Value, json};

use super::site::{Site, good_rule, key, rule};
use crate::config::index::{About, Answer, Change, Question, Role};

/// A rule in generation 1, and the named pods, all ready.
fn site(pods: &[(&str, Role)]) -> Site {
    let mut site = Site::new();
    site.put(&rule("r"), good_rule("a"));
    for (name, role) in pods {
        site.pod(name, *role, true);
    }
    site.settle();
    site
}

fn ready(site: &Site) -> String {
    site.says(&rule("r"))[1].clone()
}

#[test]
fn a_resource_is_ready_when_every_worker_that_needs_it_runs_it() {
    let mut site = site(&[("p0", Role::Process), ("p1", Role::Process), ("c0", Role::Correlate), ("i0", Role::Ingest)]);
    assert_eq!(ready(&site), "Unknown Programming: programmed in 0 of 3 workers; 3 do not say what they run");

    site.runs("p0", json!({"AlertRule": {"r": 1}}));
    site.runs("p1", json!({"AlertRule": {"r": 1}}));
    site.runs("c0", json!({}));
    site.settle();
    site.pass(5);
    site.settle();
    assert_eq!(ready(&site), "False Programming: programmed in 2 of 3 workers");

    site.runs("c0", json!({"AlertRule": {"r": 1}}));
    site.settle();
    assert_eq!(ready(&site), "True Programmed: programmed in 3 of 3 workers");

    site.put(&rule("r"), good_rule("b"));
    site.settle();
    assert_eq!(ready(&site), "False Programming: programmed in 0 of 3 workers");
}

#[test]
fn each_kind_is_needed_by_the_roles_that_do_something_with_it() {
    for (kind, needed_by) in [
        (Kind::LogSource, vec![Role::Ingest, Role::Process]),
        (Kind::Watchlist, vec![Role::Process]),
        (Kind::Enrichment, vec![Role::Process]),
        (Kind::AlertRule, vec![Role::Process, Role::Correlate]),
        (Kind::ResponseAction, vec![Role::Respond]),
    ] {
        for role in [Role::Ingest, Role::Process, Role::Correlate, Role::Respond] {
            let mut site = Site::new();
            let name = key(kind, "x");
            let spec: Value = match kind {
                Kind::AlertRule => good_rule("a"),
                Kind::LogSource => json!({"syslog": {"udpPort": 514}}),
                Kind::Watchlist => json!({"match": "exact", "entries": [{"value": "x"}]}),
                Kind::Enrichment => json!({"drop": {"reason": "noise"}, "when": "true"}),
                Kind::Siem | Kind::ResponseAction => json!({"alerts": {"minSeverity": "high"}, "log": {}}),
            };
            site.put(&name, spec);
            site.pod("p", role, true);
            site.settle();

            let counts = site.says(&name)[1].contains("of 1 worker");
            assert_eq!(counts, needed_by.contains(&role), "{kind} {role:?}: {:?}", site.says(&name));
        }
    }
}

#[test]
fn a_worker_that_comes_or_goes_writes_nothing_until_it_has_stayed_so() {
    let mut site = site(&[("p0", Role::Process), ("p1", Role::Process)]);
    let runs = json!({"AlertRule": {"r": 1}});
    site.runs("p0", runs.clone());
    site.runs("p1", runs.clone());
    site.settle();
    let write = |site: &mut Site, seconds| -> Vec<Change> {
        site.pass(seconds);
        site.settle()
    };

    site.pod("p1", Role::Process, false);
    assert_eq!(write(&mut site, 20), []);
    site.pod("p1", Role::Process, true);
    assert_eq!(write(&mut site, 60), [], "it came back in time");

    site.pod("p1", Role::Process, false);
    site.settle();
    assert_eq!(write(&mut site, 27), []);
    assert_eq!(write(&mut site, 2).len(), 1);
    assert_eq!(ready(&site), "True Programmed: programmed in 1 of 1 worker");
}

#[test]
fn progress_is_told_now_and_then_and_its_end_at_once() {
    let mut site = site(&[("p0", Role::Process), ("p1", Role::Process)]);
    site.runs("p0", json!({"AlertRule": {"r": 1}}));
    assert_eq!(site.settle(), []);

    site.runs("p1", json!({"AlertRule": {"r": 1}}));
    site.settle();

    assert_eq!(ready(&site), "True Programmed: programmed in 2 of 2 workers");
}

#[test]
fn a_pod_of_the_same_name_is_another_pod() {
    let mut site = site(&[("p0", Role::Process)]);
    site.runs("p0", json!({"AlertRule": {"r": 1}}));
    site.settle();
    let question = Question {
        namespace: "soc".into(),
        pod: "p0".into(),
        uid: "uid-of-another".into(),
        address: "10.0.0.1".parse().unwrap(),
        about: About::Programmed(None),
    };

    site.answer(&question, Answer::Nothing);
    site.pass(60);
    site.settle();

    assert_eq!(ready(&site), "True Programmed: programmed in 1 of 1 worker");
}

#[test]
fn workers_are_asked_at_once_then_often_until_all_is_programmed_then_rarely() {
    let mut site = Site::new();
    site.pod("p0", Role::Process, true);
    site.pod("p1", Role::Process, false);

    let first = site.round().questions;
    let none_while_one_is_under_way = site.round().questions;
    site.runs("p0", json!({}));
    let asked = |site: &mut Site, seconds: i64| {
        let mut times = Vec::new();
        for second in 0..seconds {
            for question in site.round().questions {
                times.push(second);
                site.answer(&question, Answer::Same);
            }
            site.pass(1);
        }
        times
    };
    let at_rest = asked(&mut site, 31);
    site.put(&rule("r"), good_rule("a"));
    let waiting = asked(&mut site, 6);

    assert_eq!(first.len(), 1);
    assert_eq!((&*first[0].pod, &first[0].about), ("p0", &About::Programmed(None)));
    assert_eq!(none_while_one_is_under_way, []);
    assert_eq!(at_rest, [15, 30]);
    assert_eq!(waiting, [1, 2, 3, 4, 5]);
}

#[test]
fn a_worker_that_does_not_answer_is_asked_less_and_less() {
    let mut site = Site::new();
    site.pod("p0", Role::Process, true);
    let mut times = Vec::new();
    for second in 0..60 {
        for question in site.round().questions {
            times.push(second);
            site.answer(&question, Answer::Nothing);
        }
        site.pass(1);
    }

    assert_eq!(times, [0, 1, 3, 7, 15, 30, 45]);
}
