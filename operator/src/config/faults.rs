//! Whatever happens to any one call, the API server ends up as it would have without: every call of a story is refused, lost, carried
//! out without an answer, or the last one that the operator makes before it is started anew.

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};
use kube::api::DynamicObject;
use redoubt_engine::resource::Kind;
use serde_json::{Value, json};

use super::{
    document,
    index::{About, Answer, Answered, Budget, Event, Index, Kept, Key, Listing, Pod, Programmed, Role, Version, Watched},
    watch::{Watchable as _, api_resource},
    write::Writer,
};
use crate::{
    metrics::Metrics,
    options::Scope,
    testing::{api::Api, fault::Fault},
};

const BUDGET: Budget = Budget { judge: 10, changes: 3, questions: 4 };

/// What somebody does.
type Step = (Kind, &'static str, Option<Value>);

/// Resources become good, bad, good again and go, alone and beside each other.
fn story() -> Vec<Vec<Step>> {
    let rule = |condition: &str| json!({"sigma": {"title": "t", "logsource": {"product": "p"}, "detection": {"s": {"a": 1}, "condition": condition}}});
    let list = |network: &str| json!({"match": "cidr", "entries": [{"value": network}]});
    let mark = json!({"lookup": {"watchlist": "bad", "field": "source.ip", "target": "threat.indicator"}});
    vec![
        vec![
            (Kind::AlertRule, "r", Some(rule("s"))),
            (Kind::Watchlist, "bad", Some(list("10.0.0.0/8"))),
            (Kind::Enrichment, "mark", Some(mark)),
        ],
        vec![(Kind::AlertRule, "r", Some(rule("s and"))), (Kind::Watchlist, "bad", Some(list("10.0.0.0/99")))],
        vec![(Kind::AlertRule, "r", Some(rule("s or s"))), (Kind::AlertRule, "never", Some(rule("")))],
        vec![(Kind::AlertRule, "r", Some(rule("not"))), (Kind::AlertRule, "never", None)],
    ]
}

/// The API server, the workers and an operator, which may be started anew.
struct World {
    api: Api,
    index: Index,
    writer: Writer,
    now: Timestamp,
    /// What the workers run: they know of every good version in time.
    live: BTreeMap<Key, Version>,
}

impl World {
    fn new(fault: Option<(usize, Fault)>) -> Self {
        let api = Api::default();
        api.state().faults.at = fault;
        let mut world = Self {
            index: Index::new(&Scope::All),
            writer: Writer::new(api.client(), "operator-0", Metrics::new()),
            api,
            now: Timestamp::from_second(1_760_000_000).unwrap(),
            live: BTreeMap::new(),
        };
        world.start();
        world
    }

    /// A new operator, which knows only what the API server tells it.
    fn start(&mut self) {
        self.api.state().faults.ended = false;
        self.index = Index::new(&Scope::All);
        self.writer = Writer::new(self.api.client(), "operator-0", Metrics::new());
        self.tell_all();
        let pod = Pod { name: "p".into(), uid: "uid-p".into(), role: Role::Process, address: "10.0.0.1".parse().ok(), ready: true };
        self.index.apply(&"soc".into(), Event::Pod(pod), self.now);
        for of in Watched::ALL {
            self.list(of);
        }
    }

    /// The watches tell what there is.
    fn tell_all(&mut self) {
        let (resources, config_maps): (Vec<Value>, Vec<Value>) = {
            let state = self.api.state();
            let resources = Kind::ALL.into_iter().flat_map(|kind| state.all(&api_resource(kind).plural).cloned().collect::<Vec<_>>());
            (resources.collect(), state.all("configmaps").cloned().collect())
        };
        for object in resources {
            let object: DynamicObject = serde_json::from_value(object).unwrap();
            let kind = Kind::of(&object.types.as_ref().unwrap().kind).unwrap();
            let event = object.seen(Watched::Kind(kind)).unwrap();
            self.index.apply(&"soc".into(), event, self.now);
        }
        for map in config_maps {
            let kept = document::read_config_map(&serde_json::from_value(map).unwrap()).unwrap();
            self.index.apply(&"soc".into(), Event::Kept(kept), self.now);
        }
    }

    fn list(&mut self, of: Watched) {
        let state = self.api.state();
        let named = |plural: &str| state.all(plural).map(|body| body["metadata"]["name"].as_str().unwrap().to_owned()).collect();
        let names: Vec<String> = match of {
            Watched::Kind(kind) => named(&api_resource(kind).plural),
            Watched::LastGood => named("configmaps"),
            Watched::Pods => vec!["p".to_owned()],
        };
        drop(state);
        let present = names.iter().map(|name| ("soc".into(), name.as_str().into())).collect();
        self.index.listed(&Listing { of, namespace: None, present }, self.now);
    }

    /// Somebody applies or deletes a resource, and the workers take it over if it is good.
    fn take(&mut self, (kind, name, spec): &Step) {
        let key = Key { kind: *kind, name: (*name).into() };
        let plural = api_resource(*kind).plural;
        let mut state = self.api.state();
        state.now = self.now;
        let Some(spec) = spec else {
            let version = state.next_version();
            state.remove(&plural, name);
            // The garbage collector of Kubernetes follows.
            state.remove("configmaps", &document::kept_name(&key));
            drop(state);
            self.live.remove(&key);
            self.index.apply(&"soc".into(), Event::Gone(key.clone(), version), self.now);
            return;
        };
        if !state.edit(&plural, name, |live| live["spec"] = spec.clone()) {
            let metadata = json!({"name": name, "namespace": "soc"});
            let (version, kind) = (redoubt_crds::API_VERSION, kind.as_str());
            state.create(&plural, json!({"apiVersion": version, "kind": kind, "metadata": metadata, "spec": spec}));
        }
        let generation = state.get(&plural, name).unwrap()["metadata"]["generation"].as_i64().unwrap();
        drop(state);
        if is_good(*kind, name, spec) {
            self.live.insert(key, Version { generation, spec: spec.to_string().into() });
        }
    }

    /// Lets time go by until nothing more happens: every pause of an operator that has failed is over then.
    async fn come_to_rest(&mut self) {
        let until = self.now + SignedDuration::from_mins(30);
        while self.now < until {
            self.tell_all();
            let round = self.index.recompute(self.now, BUDGET);
            let idle = round.changes.is_empty() && round.questions.is_empty() && !round.more;
            for question in round.questions {
                let answer = match &question.about {
                    About::Programmed(_) => Answer::Runs(self.programmed()),
                    About::Version(key) => Answer::Version(key.clone(), self.live.get(key).cloned()),
                };
                let answered = Answered { pod: question.pod, uid: question.uid, answer };
                self.index.apply(&"soc".into(), Event::Answered(answered), self.now);
            }
            for change in round.changes {
                let done = self.writer.write(change).await;
                if self.api.state().faults.ended {
                    self.start();
                    break;
                }
                self.index.apply(&"soc".into(), Event::Done(done), self.now);
            }
            if idle {
                let next = round.again_at.unwrap_or(until);
                self.now = next.clamp(self.now + SignedDuration::from_millis(100), until);
            }
        }
    }

    fn programmed(&self) -> Programmed {
        let mut resources: BTreeMap<&str, BTreeMap<&str, i64>> = BTreeMap::new();
        for (key, version) in &self.live {
            resources.entry(key.kind.as_str()).or_default().insert(&key.name, version.generation);
        }
        Programmed::read(&json!({ "resources": resources }), None).unwrap()
    }

    /// What is to be seen in the end: statuses without their times, and what is kept.
    fn seen(&self) -> (BTreeMap<String, Value>, Vec<(Key, Version)>) {
        let state = self.api.state();
        let resources = state.objects.iter().filter(|((plural, _), _)| plural != "configmaps" && plural != "events");
        let statuses = resources.map(|((_, name), object)| {
            let mut status = object.body["status"].clone();
            for condition in status["conditions"].as_array_mut().into_iter().flatten() {
                condition["lastTransitionTime"] = Value::Null;
            }
            (name.clone(), status)
        });
        let kept = state.all("configmaps").map(|map| document::read_config_map(&serde_json::from_value(map.clone()).unwrap()).unwrap());
        (statuses.collect(), kept.map(|Kept { key, good, .. }| (key, good)).collect())
    }
}

fn is_good(kind: Kind, name: &str, spec: &Value) -> bool {
    let file = redoubt_engine::resource::read_object(kind, name, None, spec.clone());
    // The Watchlist that the Enrichment needs is good to begin with.
    kind == Kind::Enrichment || file.resources.iter().all(|resource| redoubt_engine::compile::judge(resource).diagnostics.is_empty())
}

/// Lives through the story, and tells what was to be seen after each of its parts, and the calls it took.
async fn live_through(fault: Option<(usize, Fault)>) -> (Vec<(BTreeMap<String, Value>, Vec<(Key, Version)>)>, usize) {
    let mut world = World::new(fault);
    let mut seen = Vec::new();
    for part in story() {
        for step in &part {
            world.take(step);
        }
        world.come_to_rest().await;
        seen.push(world.seen());
    }
    let calls = world.api.state().faults.calls;
    (seen, calls)
}

#[tokio::test(start_paused = true)]
async fn the_story_ends_as_it_should() {
    let (seen, calls) = live_through(None).await;

    let kept = |part: usize| seen[part].1.iter().map(|(key, good)| (key.to_string(), good.generation)).collect::<Vec<_>>();
    let named = |kind: &str, generation: i64| (kind.to_owned(), generation);
    assert_eq!(kept(0), []);
    assert_eq!(kept(1), [named("AlertRule/r", 1), named("Watchlist/bad", 1)]);
    assert_eq!(kept(2), [named("Watchlist/bad", 1)]);
    assert_eq!(kept(3), [named("AlertRule/r", 3), named("Watchlist/bad", 1)]);
    let reasons = |name: &str| {
        let conditions = seen[3].0[name]["conditions"].as_array().unwrap().clone();
        conditions.iter().map(|condition| condition["reason"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(reasons("r"), ["Invalid", "LastGoodVersion"]);
    assert_eq!(reasons("bad"), ["Invalid", "LastGoodVersion"]);
    assert_eq!(reasons("mark"), ["Compiled", "Programmed"]);
    assert!(calls < 40, "{calls} calls for 9 edits");
}

#[tokio::test(start_paused = true)]
async fn whatever_goes_wrong_with_a_call_comes_right_in_the_end() {
    let (expected, calls) = live_through(None).await;

    for number in 0..calls {
        for fault in Fault::ALL {
            let (seen, _) = live_through(Some((number, fault))).await;

            for (part, (seen, expected)) in seen.iter().zip(&expected).enumerate() {
                assert_eq!(seen, expected, "{fault:?} at call {number}, after part {part}");
            }
        }
    }
}
