//! A namespace whose API server does what it is told.

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};
use redoubt_engine::resource::Kind;
use serde_json::{Value, json};

use crate::{
    config::index::{
        Answer, Answered, Budget, Change, Done, Event, Index, Keep, Kept, Key, Listing, NewStatus, Pod, Programmed, Question, Reported,
        Role, Round, Seen, Watched,
    },
    options::Scope,
};

pub(super) const ENOUGH: Budget = Budget { judge: 1000, changes: 1000, questions: 1000 };

/// An index, and the objects that it has been told of.
pub(super) struct Site {
    pub(super) index: Index,
    pub(super) now: Timestamp,
    /// `status` of each resource, as it was last written.
    pub(super) statuses: BTreeMap<Key, Value>,
    objects: BTreeMap<Key, Object>,
    /// Last good versions in ConfigMaps.
    pub(super) kept: BTreeMap<Key, Kept>,
    /// What each worker says when it is asked.
    answers: BTreeMap<String, Answer>,
    version: u64,
}

#[derive(Clone)]
struct Object {
    uid: String,
    generation: i64,
    created: Timestamp,
    spec: Value,
}

pub(super) fn key(kind: Kind, name: &str) -> Key {
    Key { kind, name: name.into() }
}

pub(super) fn rule(name: &str) -> Key {
    key(Kind::AlertRule, name)
}

/// A rule that is good, and tells a version by its field.
pub(super) fn good_rule(field: &str) -> Value {
    json!({"sigma": {"title": "t", "logsource": {"product": "p"}, "detection": {"s": {field: 1}, "condition": "s"}}})
}

pub(super) fn bad_rule() -> Value {
    json!({"sigma": {"title": "t", "logsource": {"product": "p"}, "detection": {"s": {"a": 1}, "condition": "s and"}}})
}

impl Site {
    /// One that has seen every listing, and nothing in them.
    pub(super) fn new() -> Self {
        let mut site = Self::unlisted();
        site.list_all();
        site
    }

    pub(super) fn unlisted() -> Self {
        Self {
            index: Index::new(&Scope::All),
            now: Timestamp::from_second(1_760_000_000).unwrap(),
            statuses: BTreeMap::new(),
            objects: BTreeMap::new(),
            kept: BTreeMap::new(),
            answers: BTreeMap::new(),
            version: 100,
        }
    }

    fn list_all(&mut self) {
        for of in Watched::ALL {
            self.list(of);
        }
    }

    /// A full listing of what there is.
    pub(super) fn list(&mut self, of: Watched) {
        let present = self.objects.keys().filter(|key| of == Watched::Kind(key.kind)).map(|key| ("soc".into(), key.name.clone()));
        let listing = Listing { of, namespace: None, present: present.collect() };
        self.index.listed(&listing, self.now);
    }

    /// The operator starts anew, and reads what there is.
    pub(super) fn restart(&mut self) {
        self.index = Index::new(&Scope::All);
        let keys: Vec<Key> = self.objects.keys().cloned().collect();
        for key in &keys {
            self.tell(key);
        }
        for kept in self.kept.clone().into_values() {
            self.apply(Event::Kept(kept));
        }
        for of in Watched::ALL.into_iter().filter(|of| *of != Watched::LastGood) {
            self.list(of);
        }
        let names = self.kept.keys().map(|key| ("soc".into(), crate::config::document::kept_name(key).into()));
        let listing = Listing { of: Watched::LastGood, namespace: None, present: names.collect() };
        self.index.listed(&listing, self.now);
    }

    pub(super) fn apply(&mut self, event: Event) {
        self.index.apply(&"soc".into(), event, self.now);
    }

    /// Somebody applies a resource.
    pub(super) fn put(&mut self, key: &Key, spec: Value) {
        let (now, version) = (self.now, self.next_version());
        let object = self.objects.entry(key.clone()).or_insert_with(|| Object {
            uid: format!("uid-{version}"),
            generation: 0,
            created: now,
            spec: Value::Null,
        });
        object.generation += 1;
        object.spec = spec;
        self.tell(key);
    }

    /// Somebody deletes a resource.
    pub(super) fn delete(&mut self, key: &Key) {
        self.objects.remove(key);
        self.statuses.remove(key);
        let version = self.next_version();
        self.apply(Event::Gone(key.clone(), version));
    }

    /// A resource as the watch shows it.
    pub(super) fn seen(&self, key: &Key) -> Seen {
        let object = &self.objects[key];
        Seen {
            key: key.clone(),
            uid: object.uid.as_str().into(),
            generation: object.generation,
            version: self.version,
            created: object.created,
            lines_before_spec: 12,
            spec: object.spec.to_string().into(),
            reported: Reported::of(self.statuses.get(key).unwrap_or(&Value::Null)),
        }
    }

    fn tell(&mut self, key: &Key) {
        let seen = self.seen(key);
        self.apply(Event::Seen(seen));
    }

    pub(super) fn pass(&mut self, seconds: i64) {
        self.now += SignedDuration::from_secs(seconds);
    }

    pub(super) fn round(&mut self) -> Round {
        self.index.recompute(self.now, ENOUGH)
    }

    /// Rounds until nothing is left to be done within a second. Every change is written, and the watch tells of it.
    pub(super) fn settle(&mut self) -> Vec<Change> {
        let mut changes = Vec::new();
        let until = self.now + SignedDuration::from_secs(1);
        for _ in 0..1000 {
            let round = self.round();
            for question in &round.questions {
                let answer = self.answers.get(&*question.pod).cloned().unwrap_or(Answer::Nothing);
                self.answer(question, answer);
            }
            for change in &round.changes {
                self.write(change);
            }
            let idle = round.changes.is_empty() && round.questions.is_empty() && !round.more;
            changes.extend(round.changes);
            if idle && self.now == until {
                return changes;
            }
            if idle {
                self.now = round.again_at.map_or(until, |at| at.clamp(self.now, until));
            }
        }
        panic!("the index does not come to rest: {changes:#?}");
    }

    /// The API server takes a change, the index hears of it, and the watch tells of it once more.
    pub(super) fn write(&mut self, change: &Change) {
        let keep = change.keep.as_ref().map(|keep| Ok(self.keep(&change.key, keep)));
        let status = change.status.as_ref().map(|new| {
            self.statuses.insert(change.key.clone(), json!({"observedGeneration": new.observed_generation, "conditions": new.conditions}));
            Ok(self.next_version())
        });
        self.apply(Event::Done(Done { key: change.key.clone(), uid: change.uid.clone(), keep, status }));
        self.tell(&change.key);
    }

    fn keep(&mut self, key: &Key, keep: &Keep) -> u64 {
        let version = self.next_version();
        match keep {
            Keep::Store(good) => {
                let uid = self.objects[key].uid.as_str().into();
                let kept = Kept { key: key.clone(), uid, good: good.clone(), version };
                self.kept.insert(key.clone(), kept);
            }
            Keep::Discard => drop(self.kept.remove(key)),
        }
        version
    }

    pub(super) fn next_version(&mut self) -> u64 {
        self.version += 1;
        self.version
    }

    pub(super) fn pod(&mut self, name: &str, role: Role, ready: bool) {
        let uid = format!("uid-{name}").into();
        self.apply(Event::Pod(Pod { name: name.into(), uid, role, address: "10.0.0.1".parse().ok(), ready }));
    }

    pub(super) fn answer(&mut self, question: &Question, answer: Answer) {
        self.apply(Event::Answered(Answered { pod: question.pod.clone(), uid: question.uid.clone(), answer }));
    }

    /// A worker runs this from now on, and has been asked.
    #[expect(clippy::needless_pass_by_value, reason = "it is made for this")]
    pub(super) fn runs(&mut self, pod: &str, resources: Value) {
        let programmed = Programmed::read(&json!({ "resources": resources }), Some("\"tag\"")).unwrap();
        let answer = Answer::Runs(programmed);
        self.answers.insert(pod.to_owned(), answer.clone());
        self.apply(Event::Answered(Answered { pod: pod.into(), uid: format!("uid-{pod}").into(), answer }));
    }

    /// What a resource's status says: `Accepted` and `Ready`, each as `status reason: message`.
    pub(super) fn says(&self, key: &Key) -> [String; 2] {
        let status = self.statuses.get(key).cloned().unwrap_or_default();
        ["Accepted", "Ready"].map(|type_| {
            let conditions = status["conditions"].as_array().cloned().unwrap_or_default();
            let text = |condition: &Value, field: &str| condition[field].as_str().unwrap_or_default().to_owned();
            let found = conditions.iter().find(|condition| condition["type"] == type_);
            found.map(|it| format!("{} {}: {}", text(it, "status"), text(it, "reason"), text(it, "message"))).unwrap_or_default()
        })
    }
}

pub(super) fn status(change: &Change) -> &NewStatus {
    change.status.as_ref().expect("a status is written")
}
