//! The kinds that depend on each other: compiled together, as the workers compile them.
//!
//! Of two Siems the older one counts, and of two LogSources that want one port; an Enrichment needs its Watchlist; a ResponseAction is
//! warned of rules that do not run. All of that is the compiler's to say. AlertRules take no part in it: they are judged one by one, and
//! only the names of those that run are known here.

use std::{
    borrow::Cow,
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use jiff::Timestamp;
use redoubt_engine::{
    compile::{Compiled, Input, Plan, compile},
    diagnostic::{Diagnostic, Level},
    resource::{self, Kind, Resource, Spec},
};

use super::{
    Key, Version,
    conditions::{Says, Truth},
    timing,
};
use crate::config::document;

/// All resources of a namespace but the AlertRules.
#[derive(Default)]
pub(super) struct Others {
    input: Input,
    /// Specs that have come since the last compiling.
    unread: BTreeMap<Key, Arc<str>>,
    /// What could not be read, and why.
    unreadable: BTreeMap<Key, Vec<Diagnostic>>,
    /// What the workers run, as far as it is known here: the last good versions of all of them.
    plan: Option<Plan>,
    /// When the first and the last change came that has not been compiled.
    stale: Option<(Timestamp, Timestamp)>,
}

impl Others {
    /// Something has changed.
    pub(super) fn touch(&mut self, now: Timestamp) {
        let first = self.stale.map_or(now, |(first, _)| first);
        self.stale = Some((first, now));
    }

    /// When they are to be compiled: after a moment of quiet, but not too late.
    pub(super) fn due(&self) -> Option<Timestamp> {
        self.stale.map(|(first, last)| (last + timing::QUIET).min(first + timing::LATEST))
    }

    /// Takes a resource over, in place of its version before.
    pub(super) fn put(&mut self, key: &Key, spec: Arc<str>) {
        self.unread.insert(key.clone(), spec);
    }

    fn read(&mut self, key: &Key, spec: &str) {
        self.forget(key);
        let file = read(key, spec, &document::with_places(key, spec));
        self.input.resources.extend(file.resources);
        if !file.diagnostics.is_empty() {
            self.input.refused.insert((key.kind, key.name.to_string()));
            self.unreadable.insert(key.clone(), file.diagnostics);
        }
    }

    /// A last good version has become known that this process has never seen: what runs is made anew from all of them.
    pub(super) fn recover(&mut self, now: Timestamp) {
        self.plan = None;
        self.touch(now);
    }

    /// Forgets a resource.
    pub(super) fn remove(&mut self, key: &Key) {
        self.unread.remove(key);
        self.forget(key);
    }

    fn forget(&mut self, key: &Key) {
        self.input.resources.retain(|resource| !is(key, resource));
        self.input.refused.remove(&(key.kind, key.name.to_string()));
        self.unreadable.remove(key);
    }

    /// Names of AlertRules that resources here refer to.
    fn named_rules(&self) -> BTreeSet<String> {
        let actions = self.input.resources.iter().filter_map(|resource| match &resource.spec {
            Spec::ResponseAction(spec) => Some(spec.alerts.rules.iter().cloned()),
            _ => None,
        });
        actions.flatten().collect()
    }

    /// Compiles them all. `created` tells of each when it was made, and the lines before its spec; `rule_runs`, whether an AlertRule does.
    /// `goods` are the last good versions, as far as they are known.
    pub(super) fn compile<'k>(
        &mut self,
        facts: &BTreeMap<Key, (Timestamp, usize)>,
        rule_runs: impl Fn(&str) -> bool,
        goods: impl Iterator<Item = (&'k Key, &'k Version)>,
    ) -> BTreeMap<Key, Says> {
        self.stale = None;
        for (key, spec) in std::mem::take(&mut self.unread) {
            self.read(&key, &spec);
        }
        let age = |resource: &Resource| facts.get(&key(resource)).map(|(created, _)| *created);
        self.input.resources.sort_by_cached_key(|resource| (age(resource), resource.name.clone(), resource.kind));
        let runs = self.named_rules().into_iter().filter(|name| rule_runs(name));
        self.input.apart = runs.map(|name| (Kind::AlertRule, name)).collect();
        let before = self.plan.take().unwrap_or_else(|| last_good(goods));
        let compiled = compile(&self.input, Some(&before));
        let says = self.say(&compiled, facts);
        self.plan = Some(compiled.plan);
        says
    }

    fn say(&self, compiled: &Compiled, facts: &BTreeMap<Key, (Timestamp, usize)>) -> BTreeMap<Key, Says> {
        let mut found: BTreeMap<Key, Vec<Diagnostic>> = self.unreadable.clone();
        for diagnostic in &compiled.diagnostics {
            if let Some(key) = key_of(diagnostic) {
                found.entry(key).or_default().push(diagnostic.clone());
            }
        }
        let failed: BTreeSet<(Kind, &str)> = compiled
            .tests
            .iter()
            .filter(|tests| tests.outcomes.iter().any(|outcome| outcome.result.is_err()))
            .map(|tests| (tests.kind, tests.name.as_str()))
            .collect();
        let read = self.input.resources.iter().map(|resource| (key(resource), tests(resource)));
        let all: BTreeMap<Key, usize> = self.unreadable.keys().map(|key| (key.clone(), 0)).chain(read).collect();
        let mut says = BTreeMap::new();
        for (key, tests) in all {
            let lines = facts.get(&key).map_or(0, |(_, lines)| *lines);
            let mut diagnostics = found.remove(&key).unwrap_or_default();
            excuse_databases(&key, &mut diagnostics);
            let fails = failed.contains(&(key.kind, &*key.name));
            let verdict = verdict(&key, diagnostics, tests, fails, lines);
            says.insert(key, verdict);
        }
        says
    }
}

/// What is to be said of a resource of which this was found.
pub(super) fn verdict(key: &Key, diagnostics: Vec<Diagnostic>, tests: usize, tests_failed: bool, lines_before_spec: usize) -> Says {
    let second_siem = |diagnostic: &Diagnostic| key.kind == Kind::Siem && diagnostic.field == "kind";
    if diagnostics.iter().any(second_siem) {
        let message = "a namespace has one Siem, and an older one is there already; delete one of them, or move it to another namespace";
        return Says::new(Truth::False, "NotTheOnlySiem", message);
    }
    let (errors, warnings): (Vec<_>, Vec<_>) = diagnostics.into_iter().partition(|diagnostic| diagnostic.level == Level::Error);
    let print = |diagnostics: Vec<Diagnostic>| {
        let lines: Vec<String> = diagnostics.into_iter().map(|diagnostic| print(diagnostic, lines_before_spec)).collect();
        lines.join("; ")
    };
    if !errors.is_empty() {
        let reason = if tests_failed { "TestsFailed" } else { "Invalid" };
        return Says::new(Truth::False, reason, print(errors));
    }
    let message: Cow<'static, str> = match tests {
        0 => "compiles".into(),
        1 => "compiles, and its test passes".into(),
        tests => format!("compiles, and its {tests} tests pass").into(),
    };
    let message = if warnings.is_empty() { message } else { format!("{message}; but {}", print(warnings)).into() };
    Says::new(Truth::True, "Compiled", message)
}

/// A diagnostic as `redoubt check` prints it, at its line of what kubectl prints. Its resource need not be named: it is told there.
fn print(mut diagnostic: Diagnostic, lines_before_spec: usize) -> String {
    diagnostic.resource = None;
    let line = &mut diagnostic.location.line;
    *line = (*line + lines_before_spec).saturating_sub(document::LINES_BEFORE_SPEC).max(1);
    diagnostic.to_string()
}

/// A GeoIP database is a file of the workers, which the operator does not have: that it is not here says nothing.
fn excuse_databases(key: &Key, diagnostics: &mut [Diagnostic]) {
    if key.kind != Kind::Enrichment {
        return;
    }
    for diagnostic in diagnostics.iter_mut().filter(|found| matches!(found.field.as_str(), "spec.geoip.city" | "spec.geoip.asn")) {
        diagnostic.level = Level::Warning;
        diagnostic.message = "whether the workers have this database, and whether the tests pass with it, is theirs to say".to_owned();
        diagnostic.remedy.clear();
    }
}

/// Reads a resource as the workers do, with the places of the given text.
pub(super) fn read(key: &Key, spec: &str, text: &str) -> resource::File {
    // What came as JSON is JSON; and if it were not, null is refused like any other spec.
    let spec = serde_json::from_str(spec).unwrap_or_default();
    resource::read_object_as(key.kind, &key.name, None, spec, text)
}

/// What these versions are together.
fn last_good<'k>(versions: impl Iterator<Item = (&'k Key, &'k Version)>) -> Plan {
    let resources = versions.flat_map(|(key, good)| read(key, &good.spec, "").resources).collect();
    compile(&Input { resources, ..Input::default() }, None).plan
}

fn tests(resource: &Resource) -> usize {
    match &resource.spec {
        Spec::Enrichment(spec) => spec.tests.len(),
        Spec::AlertRule(spec) => spec.tests.len(),
        Spec::Siem(_) | Spec::LogSource(_) | Spec::Watchlist(_) | Spec::ResponseAction(_) => 0,
    }
}

fn is(key: &Key, resource: &Resource) -> bool {
    key.kind == resource.kind && *key.name == *resource.name
}

fn key(resource: &Resource) -> Key {
    Key { kind: resource.kind, name: Arc::from(resource.name.as_str()) }
}

fn key_of(diagnostic: &Diagnostic) -> Option<Key> {
    let (kind, name) = diagnostic.resource.as_ref()?;
    Some(Key { kind: Kind::of(kind)?, name: Arc::from(name.as_str()) })
}
