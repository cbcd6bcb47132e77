//! One namespace.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::Arc,
};

use jiff::Timestamp;
use redoubt_engine::{
    compile::judge,
    resource::{Kind, Spec},
};

use super::{
    Answer, Answered, Budget, Census, Change, Done, Event, Kept, Key, Round, Seen, Watched,
    entry::{Entry, Wants},
    others::{self, Others},
    timing,
    workers::Workers,
};
use crate::config::document;

/// All that is known of a namespace.
#[derive(Default)]
pub(super) struct Namespace {
    entries: BTreeMap<Key, Entry>,
    /// AlertRules to be judged.
    stale_rules: BTreeSet<Arc<str>>,
    /// Whether other AlertRules run than when the others were last compiled.
    rules_differ: bool,
    others: Others,
    /// Last good versions in ConfigMaps.
    kept: BTreeMap<Key, Kept>,
    workers: Workers,
    /// Resources to be looked at; those of which there are thousands come last.
    few: VecDeque<Key>,
    many: VecDeque<Key>,
    /// Resources to be looked at later.
    put_off: BTreeSet<(Timestamp, Key)>,
    /// Resources of which a version should run and does not in every worker.
    waiting: BTreeSet<Key>,
    /// Resources of which a version may run that is not known here.
    lost: BTreeSet<Key>,
    /// When a resource or a worker was last another one than before.
    last_change: Timestamp,
}

impl Namespace {
    pub(super) fn is_empty(&self) -> bool {
        self.entries.is_empty() && self.kept.is_empty() && self.workers.is_empty()
    }

    pub(super) fn has_to_judge(&self) -> bool {
        !self.stale_rules.is_empty() || self.others.due().is_some()
    }

    pub(super) fn apply(&mut self, event: Event, now: Timestamp) {
        match event {
            Event::Seen(seen) => self.see(seen, now),
            Event::Gone(key, version) => {
                if self.entries.get(&key).is_some_and(|entry| entry.ends_at(version)) {
                    self.remove(&key, now);
                }
            }
            Event::Kept(kept) => {
                if self.kept.get(&kept.key).is_none_or(|known| known.version <= kept.version) {
                    self.queue(kept.key.clone());
                    self.kept.insert(kept.key.clone(), kept);
                }
            }
            Event::KeptNoLonger(key, version) => {
                if self.kept.get(&key).is_some_and(|known| version == 0 || known.version <= version) {
                    self.kept.remove(&key);
                    self.queue(key);
                }
            }
            Event::Pod(pod) => {
                if self.workers.apply(pod, now) {
                    self.workers_differ(now);
                }
            }
            Event::PodGone(name) => {
                if self.workers.remove(&name) {
                    self.workers_differ(now);
                }
            }
            Event::Done(done) => self.done(done, now),
            Event::Answered(Answered { answer: Answer::Version(key, version), .. }) => {
                if let (Some(entry), Some(version)) = (self.entries.get_mut(&key), version)
                    && entry.recover(version)
                {
                    self.rules_differ |= key.kind == Kind::AlertRule;
                    self.others.recover(now);
                    self.queue(key);
                }
            }
            Event::Answered(answered) => {
                if self.workers.answered(answered, !self.waiting.is_empty(), self.last_change, now) {
                    self.queue_all();
                }
            }
        }
    }

    /// Forgets what a full listing did not show.
    pub(super) fn retain(&mut self, of: Watched, keep: impl Fn(&Arc<str>) -> bool, now: Timestamp) {
        match of {
            Watched::Kind(kind) => {
                let gone: Vec<Key> = self.entries.keys().filter(|key| key.kind == kind && !keep(&key.name)).cloned().collect();
                for key in gone {
                    self.remove(&key, now);
                }
            }
            Watched::LastGood => {
                let gone: Vec<Key> = self.kept.keys().filter(|key| !keep(&Arc::from(document::kept_name(key)))).cloned().collect();
                for key in gone {
                    self.kept.remove(&key);
                    self.queue(key);
                }
            }
            Watched::Pods => {
                if self.workers.retain(keep) {
                    self.workers_differ(now);
                }
            }
        }
    }

    /// Judges what has changed, as far as the budget goes, and finds what is to be written and asked.
    pub(super) fn recompute(&mut self, name: &Arc<str>, now: Timestamp, budget: Budget, round: &mut Round) {
        self.judge_rules(budget.judge, now, round);
        if self.rules_differ && self.stale_rules.is_empty() {
            self.rules_differ = false;
            self.others.touch(now);
        }
        match self.others.due() {
            Some(due) if due <= now => self.compile_others(now, round),
            Some(due) => round.again(due),
            None => {}
        }
        round.more |= !self.stale_rules.is_empty();

        while self.put_off.first().is_some_and(|(at, _)| *at <= now) {
            if let Some((_, key)) = self.put_off.pop_first() {
                self.queue(key);
            }
        }
        while round.changes.len() < budget.changes {
            let Some(key) = self.few.pop_front().or_else(|| self.many.pop_front()) else { break };
            round.changes.extend(self.look_at(name, key, now));
        }
        if let Some((at, _)) = self.put_off.first() {
            round.again(*at);
        }
        self.workers.questions(name, now, budget, round);
        self.look_for_lost(name, now, budget, round);
    }

    pub(super) fn count(&self, census: &mut Census) {
        for (key, entry) in &self.entries {
            let state = match entry.accepted() {
                Some(true) => 0,
                Some(false) => 1,
                None => 2,
            };
            census.kinds.entry(key.kind).or_default()[state] += 1;
        }
        census.unprogrammed += self.waiting.len() as u64;
        census.kept += self.kept.len() as u64;
    }

    fn see(&mut self, seen: Seen, now: Timestamp) {
        let key = seen.key.clone();
        let judge = match self.entries.get_mut(&key).filter(|entry| entry.uid == seen.uid) {
            Some(entry) => entry.see(seen),
            None => {
                self.entries.insert(key.clone(), Entry::new(seen));
                true
            }
        };
        if judge {
            self.last_change = now;
            if key.kind == Kind::AlertRule {
                self.stale_rules.insert(Arc::clone(&key.name));
            } else {
                if let Some(spec) = self.entries.get(&key).and_then(|entry| entry.spec.clone()) {
                    self.others.put(&key, spec);
                }
                self.others.touch(now);
            }
        }
        self.queue(key);
    }

    fn remove(&mut self, key: &Key, now: Timestamp) {
        self.entries.remove(key);
        self.waiting.remove(key);
        self.lost.remove(key);
        if key.kind == Kind::AlertRule {
            self.stale_rules.remove(&key.name);
            self.rules_differ = true;
        } else {
            self.others.remove(key);
            self.others.touch(now);
        }
    }

    fn done(&mut self, done: Done, now: Timestamp) {
        let Some(entry) = self.entries.get_mut(&done.key).filter(|entry| entry.uid == done.uid) else { return };
        match entry.done(&done.key, done.keep, done.status, now) {
            Some(Some(kept)) => drop(self.kept.insert(done.key.clone(), kept)),
            Some(None) => drop(self.kept.remove(&done.key)),
            None => {}
        }
        self.queue(done.key);
    }

    fn judge_rules(&mut self, budget: usize, now: Timestamp, round: &mut Round) {
        for _ in 0..budget {
            let Some(name) = self.stale_rules.pop_first() else { break };
            let key = Key { kind: Kind::AlertRule, name };
            let Some(entry) = self.entries.get_mut(&key) else { continue };
            let Some(spec) = entry.spec.clone() else { continue };
            let ran = entry.runs();
            entry.judge(judge_rule(&key, &spec, entry.lines_before_spec), self.kept.get(&key));
            entry.spec = None;
            self.rules_differ |= ran != entry.runs();
            *round.judged.entry(key.kind).or_default() += 1;
            self.queue(key);
            self.workers.expect(now);
        }
    }

    fn compile_others(&mut self, now: Timestamp, round: &mut Round) {
        let others = self.entries.iter().filter(|(key, _)| key.kind != Kind::AlertRule);
        let facts = others.map(|(key, entry)| (key.clone(), (entry.created, entry.lines_before_spec))).collect();
        let runs = |name: &str| {
            let key = Key { kind: Kind::AlertRule, name: Arc::from(name) };
            self.entries.get(&key).is_some_and(Entry::runs)
        };
        let others = self.entries.iter().filter(|(key, _)| key.kind != Kind::AlertRule);
        let goods = others.filter_map(|(key, entry)| Some((key, entry.last_good(self.kept.get(key))?)));
        for (key, says) in self.others.compile(&facts, runs, goods) {
            let Some(entry) = self.entries.get_mut(&key) else { continue };
            if entry.verdict.as_ref() == Some(&says) {
                continue;
            }
            entry.judge(says, self.kept.get(&key));
            *round.judged.entry(key.kind).or_default() += 1;
            self.queue(key);
            self.workers.expect(now);
        }
    }

    /// What is to be written of one resource.
    fn look_at(&mut self, namespace: &Arc<str>, key: Key, now: Timestamp) -> Option<Change> {
        let entry = self.entries.get_mut(&key)?;
        entry.queued = false;
        let (wants, waits) = entry.want(&key, self.kept.get(&key), &self.workers, now);
        if waits {
            self.waiting.insert(key.clone());
        } else {
            self.waiting.remove(&key);
        }
        if entry.is_lost() {
            self.lost.insert(key.clone());
        } else {
            self.lost.remove(&key);
        }
        match wants {
            Wants::Nothing => None,
            Wants::Later(at) => {
                if entry.put_off.is_none_or(|known| known <= now || at < known) {
                    entry.put_off = Some(at);
                    self.put_off.insert((at, key));
                }
                None
            }
            Wants::Writes { keep, status } => {
                Some(Change { namespace: Arc::clone(namespace), uid: Arc::clone(&entry.uid), key, keep, status })
            }
        }
    }

    /// Asks workers for versions that this process does not know.
    fn look_for_lost(&mut self, namespace: &Arc<str>, now: Timestamp, budget: Budget, round: &mut Round) {
        for key in &self.lost {
            let Some(entry) = self.entries.get_mut(key) else { continue };
            if round.questions.len() >= budget.questions {
                round.again(now + timing::ASK_SOON);
                return;
            }
            let Some(question) = self.workers.question_for(namespace, key, entry.generation) else { continue };
            if entry.ask_at <= now {
                entry.ask_at = now + timing::ASK_LATE;
                round.questions.push(question);
            }
            round.again(entry.ask_at);
        }
    }

    fn workers_differ(&mut self, now: Timestamp) {
        self.last_change = now;
        self.queue_all();
    }

    fn queue(&mut self, key: Key) {
        let Some(entry) = self.entries.get_mut(&key).filter(|entry| !entry.queued) else { return };
        entry.queued = true;
        if key.kind == Kind::AlertRule { self.many.push_back(key) } else { self.few.push_back(key) }
    }

    fn queue_all(&mut self) {
        let keys: Vec<Key> = self.entries.keys().cloned().collect();
        for key in keys {
            self.queue(key);
        }
    }
}

/// Judges an AlertRule. Its text is made only where there is something to be told of it.
fn judge_rule(key: &Key, spec: &str, lines_before_spec: usize) -> super::conditions::Says {
    let judged = |text: &str| {
        let file = others::read(key, spec, text);
        let mut diagnostics = file.diagnostics;
        let (mut tests, mut failed) = (0, false);
        for resource in &file.resources {
            let judgement = judge(resource);
            failed |= judgement.tests.iter().any(|outcome| outcome.result.is_err());
            if let Spec::AlertRule(spec) = &resource.spec {
                tests = spec.tests.len();
            }
            diagnostics.extend(judgement.diagnostics);
        }
        (diagnostics, tests, failed)
    };
    let (mut diagnostics, tests, failed) = judged("");
    if !diagnostics.is_empty() {
        diagnostics = judged(&document::with_places(key, spec)).0;
    }
    others::verdict(key, diagnostics, tests, failed, lines_before_spec)
}
