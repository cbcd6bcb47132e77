//! The workers of a namespace, and what they run by their own word.

use std::{collections::BTreeMap, net::IpAddr, sync::Arc};

use jiff::{SignedDuration, Timestamp};
use redoubt_engine::resource::Kind;
use serde_json::Value;

use super::{About, Answer, Answered, Budget, Key, Pod, Question, Role, Round, timing};

impl Role {
    /// The role of a pod, by its label `app.kubernetes.io/component`.
    #[must_use]
    pub fn of(component: &str) -> Option<Self> {
        match component {
            "ingest" => Some(Self::Ingest),
            "process" => Some(Self::Process),
            "correlate" => Some(Self::Correlate),
            "respond" => Some(Self::Respond),
            _ => None,
        }
    }

    /// Whether a resource of the kind does nothing in the SIEM until this role runs it.
    const fn needs(self, kind: Kind) -> bool {
        match kind {
            Kind::Siem => true,
            Kind::LogSource => matches!(self, Self::Ingest | Self::Process),
            Kind::Watchlist | Kind::Enrichment => matches!(self, Self::Process),
            Kind::AlertRule => matches!(self, Self::Process | Self::Correlate),
            Kind::ResponseAction => matches!(self, Self::Respond),
        }
    }
}

/// What a worker runs: of each resource the generation of the version that is live; one from a file has none, and is none of
/// this cluster's.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Programmed {
    /// By kind and name.
    resources: BTreeMap<Kind, BTreeMap<Box<str>, i64>>,
    /// The tag by which the worker is asked whether it is still so.
    tag: Option<Arc<str>>,
}

impl Programmed {
    /// Of a worker's answer to `/programmed`: `{"resources": {"AlertRule": {"name": 3}}}`.
    #[must_use]
    pub fn read(body: &Value, tag: Option<&str>) -> Option<Self> {
        let mut resources: BTreeMap<Kind, BTreeMap<Box<str>, i64>> = BTreeMap::new();
        for (kind, names) in body.get("resources")?.as_object()? {
            // A worker of a later release may know kinds that this one does not.
            let Some(kind) = Kind::of(kind) else { continue };
            for (name, generation) in names.as_object()? {
                if !generation.is_null() {
                    resources.entry(kind).or_default().insert(Box::from(name.as_str()), generation.as_i64()?);
                }
            }
        }
        Some(Self { resources, tag: tag.map(Arc::from) })
    }

    fn generation(&self, kind: Kind, name: &str) -> Option<i64> {
        self.resources.get(&kind)?.get(name).copied()
    }
}

struct Worker {
    uid: Arc<str>,
    role: Role,
    address: Option<IpAddr>,
    ready: bool,
    runs: Option<Arc<Programmed>>,
    asked: bool,
    /// When it is to be asked at the earliest.
    next: Timestamp,
    failures: u32,
}

/// In how many workers something runs.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Spread {
    /// In so many.
    pub(super) running: usize,
    /// Of so many that do not answer it is not known.
    pub(super) silent: usize,
    /// Of so many in all.
    pub(super) all: usize,
}

/// All workers of a namespace.
#[derive(Default)]
pub(super) struct Workers {
    pods: BTreeMap<Arc<str>, Worker>,
}

impl Workers {
    pub(super) fn is_empty(&self) -> bool {
        self.pods.is_empty()
    }

    /// Takes note of a pod. Tells whether anything is different for the resources.
    pub(super) fn apply(&mut self, pod: Pod, now: Timestamp) -> bool {
        let new = Worker {
            uid: pod.uid,
            role: pod.role,
            address: pod.address,
            ready: pod.ready,
            runs: None,
            asked: false,
            next: now,
            failures: 0,
        };
        let Some(known) = self.pods.get_mut(&pod.name).filter(|known| known.uid == new.uid) else {
            let ready = new.ready;
            let before = self.pods.insert(pod.name, new);
            return ready || before.is_some_and(|before| before.ready);
        };
        let turned = known.ready != new.ready;
        if turned || known.address != new.address {
            known.next = now;
        }
        (known.role, known.address, known.ready) = (new.role, new.address, new.ready);
        turned
    }

    /// Takes note of a pod's end. Tells whether anything is different for the resources.
    pub(super) fn remove(&mut self, name: &str) -> bool {
        self.pods.remove(name).is_some_and(|worker| worker.ready)
    }

    /// Takes note of an answer. Tells whether anything is different for the resources.
    pub(super) fn answered(&mut self, answered: Answered, waiting: bool, last_change: Timestamp, now: Timestamp) -> bool {
        let same = |answer: &Programmed| {
            self.pods.values().filter_map(|worker| worker.runs.as_ref()).find(|runs| ***runs == *answer).map(Arc::clone)
        };
        // Workers of a namespace mostly run the same: it is held once.
        let runs = match answered.answer {
            Answer::Runs(programmed) => Some(same(&programmed).unwrap_or_else(|| Arc::new(programmed))),
            Answer::Same => self.pods.get(&answered.pod).and_then(|worker| worker.runs.clone()),
            Answer::Nothing => None,
            Answer::Version(..) => return false,
        };
        let Some(worker) = self.pods.get_mut(&answered.pod).filter(|worker| worker.uid == answered.uid) else { return false };
        worker.asked = false;
        worker.failures = if runs.is_some() { 0 } else { worker.failures.saturating_add(1) };
        worker.next = now
            + if runs.is_some() {
                timing::until_next_question(waiting, last_change, now)
            } else {
                timing::pause(worker.failures, 0).min(timing::ASK_LATE)
            };
        let differs = worker.runs != runs;
        worker.runs = runs;
        differs && worker.ready
    }

    /// Something has changed that workers are expected to take over: they are asked soon.
    pub(super) fn expect(&mut self, now: Timestamp) {
        for worker in self.pods.values_mut().filter(|worker| worker.failures == 0) {
            worker.next = worker.next.min(now + timing::ASK_SOON);
        }
    }

    /// Who is to be asked now.
    pub(super) fn questions(&mut self, namespace: &Arc<str>, now: Timestamp, budget: Budget, round: &mut Round) {
        for (name, worker) in &mut self.pods {
            let Some(address) = worker.address.filter(|_| worker.ready && !worker.asked) else { continue };
            if worker.next > now {
                round.again(worker.next);
            } else if round.questions.len() < budget.questions {
                worker.asked = true;
                round.questions.push(Question {
                    namespace: Arc::clone(namespace),
                    pod: Arc::clone(name),
                    uid: Arc::clone(&worker.uid),
                    address,
                    about: About::Programmed(worker.runs.as_ref().and_then(|runs| runs.tag.clone())),
                });
            } else {
                // An answer that is on its way makes room.
                round.again(now + SignedDuration::from_millis(100));
            }
        }
    }

    /// The question for the version of a resource that runs, if some worker runs one that is not newer than the given generation.
    pub(super) fn question_for(&self, namespace: &Arc<str>, key: &Key, newest: i64) -> Option<Question> {
        let runs_one = |worker: &Worker| {
            let generation = worker.runs.as_ref().and_then(|runs| runs.generation(key.kind, &key.name));
            worker.ready && generation.is_some_and(|generation| generation <= newest)
        };
        let (name, worker) = self.pods.iter().find(|(_, worker)| runs_one(worker))?;
        Some(Question {
            namespace: Arc::clone(namespace),
            pod: Arc::clone(name),
            uid: Arc::clone(&worker.uid),
            address: worker.address?,
            about: About::Version(key.clone()),
        })
    }

    /// In how many of the workers that need it this version of a resource is live.
    pub(super) fn spread(&self, kind: Kind, name: &str, generation: i64) -> Spread {
        let mut spread = Spread::default();
        for worker in self.pods.values().filter(|worker| worker.ready && worker.role.needs(kind)) {
            spread.all += 1;
            match &worker.runs {
                None => spread.silent += 1,
                Some(runs) if runs.generation(kind, name) == Some(generation) => spread.running += 1,
                Some(_) => {}
            }
        }
        spread
    }

    pub(super) fn retain(&mut self, keep: impl Fn(&Arc<str>) -> bool) -> bool {
        let gone: Vec<Arc<str>> = self.pods.keys().filter(|name| !keep(name)).cloned().collect();
        let mut differs = false;
        for name in gone {
            differs |= self.remove(&name);
        }
        differs
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn an_answer_is_read_as_far_as_it_is_understood() {
        for (body, live) in [
            (json!({"siem": 1, "resources": {"AlertRule": {"r": 3}, "Wall": {"w": 1}}, "digest": "x"}), Some(Some(3))),
            (json!({"siem": null, "resources": {}}), Some(None)),
            (json!({"resources": {"AlertRule": {"r": "three"}}}), None),
            (json!([]), None),
        ] {
            let programmed = Programmed::read(&body, None);

            assert_eq!(programmed.map(|programmed| programmed.generation(Kind::AlertRule, "r")), live, "{body}");
        }
    }
}
