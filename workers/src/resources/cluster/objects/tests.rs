use redoubt_engine::compile::compile;
use serde_json::json;

use super::*;

/// An object as the API tells it: with much that does not count.
#[expect(clippy::needless_pass_by_value, reason = "it is made for this")]
fn object(kind: &str, name: &str, generation: i64, spec: Value) -> DynamicObject {
    serde_json::from_value(json!({
        "apiVersion": redoubt_crds::API_VERSION,
        "kind": kind,
        "metadata": {
            "name": name, "namespace": "security", "generation": generation, "uid": format!("uid-of-{name}"), "resourceVersion": "1",
            "creationTimestamp": "2026-03-02T10:30:00Z", "annotations": {"by": "somebody"},
        },
        "spec": spec,
        "status": {"conditions": []},
    }))
    .unwrap()
}

fn watchlist(name: &str, generation: i64) -> DynamicObject {
    object("Watchlist", name, generation, json!({"match": "exact", "entries": [{"value": format!("v{generation}")}]}))
}

fn created(mut object: DynamicObject, time: &str) -> DynamicObject {
    object.metadata.creation_timestamp = serde_json::from_value(json!(time)).unwrap();
    object
}

fn last_good(of: &DynamicObject, owner: &str) -> DynamicObject {
    let text = serde_json::to_string(of).unwrap();
    let name = of.metadata.name.as_deref().unwrap();
    serde_json::from_value(json!({
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {
            "name": format!("redoubt-last-good-{name}"), "resourceVersion": "1",
            "ownerReferences": [{"apiVersion": "redoubt.dev/v1alpha1", "kind": "Watchlist", "name": name, "uid": owner}],
        },
        "data": {"resource.yaml": text},
    }))
    .unwrap()
}

const LISTS: Watch = Watch::Kind(Kind::Watchlist);
const SIEMS: Watch = Watch::Kind(Kind::Siem);

/// Objects after a first list of each kind.
fn listed(objects: &[(Watch, DynamicObject)]) -> Objects {
    let mut known = Objects::new("security", &Kind::ALL);
    for watch in Watch::all(&Kind::ALL) {
        list(&mut known, watch, objects.iter().filter(|(of, _)| *of == watch).map(|(_, object)| object.clone()));
    }
    known
}

fn list(known: &mut Objects, watch: Watch, objects: impl IntoIterator<Item = DynamicObject>) {
    known.apply(watch, Event::Init);
    for object in objects {
        known.apply(watch, Event::InitApply(object));
    }
    known.apply(watch, Event::InitDone);
}

fn names(loaded: &Loaded) -> Vec<String> {
    loaded.input.resources.iter().map(|resource| format!("{}/{}@{}", resource.kind, resource.name, resource.generation.unwrap())).collect()
}

#[test]
fn who_does_not_follow_rules_believes_that_there_are_those_that_are_named() {
    let action = object("ResponseAction", "page", 1, json!({"log": {}, "alerts": {"rules": ["guessing"]}}));
    let says = |kinds: &[Kind]| {
        let mut known = Objects::new("security", kinds);
        for watch in Watch::all(kinds) {
            list(&mut known, watch, (watch == Watch::Kind(Kind::ResponseAction)).then(|| action.clone()));
        }
        assert!(known.all_listed());
        compile(&known.load().input, None).diagnostics.len()
    };

    assert_eq!([says(&[Kind::ResponseAction]), says(&[Kind::ResponseAction, Kind::AlertRule])], [0, 1]);
}

#[test]
fn nothing_is_complete_before_each_kind_has_been_listed() {
    let mut known = Objects::new("security", &Kind::ALL);
    for watch in Watch::all(&Kind::ALL) {
        known.apply(watch, Event::Init);
        assert!(!known.all_listed(), "{watch}");
        known.apply(watch, Event::InitDone);
    }

    assert!(known.all_listed());
    assert!(known.take_changed(), "an empty namespace is told, too");
}

#[test]
fn what_is_told_is_what_is_loaded() {
    let mut known = listed(&[(LISTS, watchlist("a", 1)), (LISTS, watchlist("b", 1))]);

    known.apply(LISTS, Event::Apply(watchlist("a", 2)));
    known.apply(LISTS, Event::Apply(watchlist("c", 1)));
    known.apply(LISTS, Event::Delete(watchlist("b", 1)));

    assert_eq!(names(&known.load()), ["Watchlist/a@2", "Watchlist/c@1"]);
}

#[test]
fn labels_and_status_are_no_news() {
    let mut known = listed(&[(LISTS, watchlist("a", 1))]);
    known.take_changed();
    let mut same = watchlist("a", 1);
    same.metadata.resource_version = Some("2".to_owned());
    same.data["status"] = json!({"conditions": [{"type": "Accepted", "status": "True"}]});

    for event in [Event::Apply(same.clone()), Event::Apply(watchlist("a", 1))] {
        assert!(!known.is_news(LISTS, &event));
        known.apply(LISTS, event);
    }
    list(&mut known, LISTS, [same]);

    assert!(!known.take_changed());
    assert!(known.is_news(LISTS, &Event::Apply(watchlist("a", 2))));
}

#[test]
fn an_object_that_was_made_anew_is_read_anew() {
    let mut known = listed(&[(LISTS, watchlist("a", 1))]);
    let mut other = object("Watchlist", "a", 1, json!({"match": "cidr"}));
    other.metadata.uid = Some("another".to_owned());

    known.apply(LISTS, Event::Apply(other));

    assert!(matches!(&known.load().input.resources[0].spec, Spec::Watchlist(list) if list.entries.is_empty()));
}

#[test]
fn a_list_that_begins_anew_takes_away_what_is_not_in_it_when_it_ends() {
    let mut known = listed(&[(LISTS, watchlist("a", 1)), (LISTS, watchlist("b", 1)), (SIEMS, object("Siem", "soc", 1, json!({})))]);

    known.apply(LISTS, Event::Init);
    known.apply(LISTS, Event::InitApply(watchlist("b", 1)));
    assert_eq!(names(&known.load()), ["Siem/soc@1", "Watchlist/a@1", "Watchlist/b@1"]);
    // The API went away in the middle of it.
    list(&mut known, LISTS, [watchlist("b", 2)]);

    assert_eq!(names(&known.load()), ["Siem/soc@1", "Watchlist/b@2"]);
}

#[test]
fn the_siem_is_the_one_that_its_pods_see_and_the_oldest() {
    let mut known = listed(&[
        (SIEMS, created(object("Siem", "a-new", 1, json!({})), "2026-03-02T10:30:01Z")),
        (SIEMS, created(object("Siem", "soc", 1, json!({})), "2026-03-02T10:30:00Z")),
        (SIEMS, created(object("Siem", "toc", 1, json!({})), "2026-03-02T10:30:00Z")),
    ]);

    let loaded = known.load();

    let [Resource { spec: Spec::Siem(spec), .. }] = &loaded.input.resources[..] else { panic!("{:?}", names(&loaded)) };
    assert_eq!(spec.broker.external.as_ref().unwrap().urls, ["amqps://soc-broker.security.svc:5671"]);
    let said: Vec<String> = loaded.diagnostics.iter().map(ToString::to_string).collect();
    for name in ["toc", "a-new"] {
        let expected = format!("Siem/{name}:1:1: Siem/{name}: a namespace can have one Siem, and Siem/soc is older (delete one of them)");
        assert!(said.contains(&expected), "{said:?}");
    }
}

#[test]
fn a_siem_that_is_gone_goes_on() {
    let mut known = listed(&[(SIEMS, object("Siem", "soc", 1, json!({})))]);
    known.load();

    known.apply(SIEMS, Event::Delete(object("Siem", "soc", 1, json!({}))));
    let loaded = known.load();

    assert!(loaded.input.refused.contains(&(Kind::Siem, "soc".to_owned())));
    assert!(loaded.diagnostics[0].to_string().contains("goes on"), "{}", loaded.diagnostics[0]);
    assert!(listed(&[]).load().input.refused.is_empty(), "where there never was one, none goes on");
}

#[test]
fn older_resources_come_first() {
    let mut known = listed(&[
        (LISTS, created(watchlist("a", 1), "2026-03-02T10:30:02Z")),
        (LISTS, created(watchlist("b", 1), "2026-03-02T10:30:01Z")),
        (LISTS, created(watchlist("c", 1), "2026-03-02T10:30:01Z")),
    ]);

    assert_eq!(names(&known.load()), ["Watchlist/b@1", "Watchlist/c@1", "Watchlist/a@1"]);
}

#[test]
fn what_makes_no_sense_is_there_and_refused() {
    let mut known = listed(&[(LISTS, object("Watchlist", "a", 4, json!({"match": "nonsense"})))]);

    let loaded = known.load();

    assert!(loaded.input.resources.is_empty());
    assert!(loaded.input.refused.contains(&(Kind::Watchlist, "a".to_owned())));
    assert!(loaded.diagnostics[0].to_string().starts_with("Watchlist/a:7:"), "{}", loaded.diagnostics[0]);
}

#[test]
fn last_good_versions_are_those_of_the_objects_that_are_there() {
    let good = |name: &str, owner: &str| (Watch::LastGood, last_good(&watchlist(name, 3), owner));
    let mut known = listed(&[
        (LISTS, watchlist("a", 4)),
        (LISTS, watchlist("b", 1)),
        good("a", "uid-of-a"),
        good("b", "uid-of-one-before"),
        good("gone", "uid-of-gone"),
    ]);

    let kept = |known: &mut Objects| -> Vec<(String, Option<i64>)> {
        known.load().last_good.into_iter().map(|good| (good.name, good.generation)).collect()
    };
    assert_eq!(kept(&mut known), [("a".to_owned(), Some(3))]);
    known.apply(Watch::LastGood, Event::Delete(last_good(&watchlist("a", 3), "uid-of-a")));
    assert!(kept(&mut known).is_empty());
}

#[test]
fn a_last_good_siem_is_the_one_that_its_pods_see() {
    let siem = object("Siem", "soc", 2, json!({}));
    let mut known = listed(&[(SIEMS, object("Siem", "soc", 3, json!({"nonsense": 1}))), (Watch::LastGood, last_good(&siem, "uid-of-soc"))]);

    let loaded = known.load();

    let [Resource { spec: Spec::Siem(spec), .. }] = &loaded.last_good[..] else { panic!("{:?}", loaded.last_good) };
    assert!(spec.broker.external.is_some());
}
