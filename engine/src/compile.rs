//! Resources in, plan and diagnostics out: the one place that decides what runs.
//!
//! The workers compile for work, the operator for status, `redoubt check` for people; all get the same answer. A resource that does
//! not compile, or whose own tests fail, is left out, and every other one runs. Where a plan was running before, the last good version
//! of that resource goes on in its stead.

mod ports;
#[cfg(test)]
mod tests;

use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
    sync::Arc,
};

use redoubt_crds::SiemSpec;

use ports::Ports;

use crate::{
    diagnostic::{Diagnostic, Level, Problem},
    enrich::{Assets, Chain, Failure, Step, Verdict, Watchlist},
    event::{Event, RawEvent},
    format,
    resource::{Kind, Origin, Resource, Spec},
    respond::Action,
    rule::{self, Evaluation, Rule, RuleSet, TestOutcome},
    source::Source,
};

/// All that a plan is made from.
#[derive(Debug, Clone, Default)]
pub struct Input {
    /// What could be read.
    pub resources: Vec<Resource>,
    /// Resources that are there and could not be read: their last good versions go on.
    pub refused: BTreeSet<(Kind, String)>,
    /// Files of which some document could not be read at all, and folders that could not be looked into: a resource that came from one
    /// of them before has not been deleted.
    pub incomplete_paths: BTreeSet<PathBuf>,
    /// Resources that are not in `resources` since they are judged one by one (see [`judge`]), and that run.
    pub apart: BTreeSet<(Kind, String)>,
    /// Bytes that resources refer to by path.
    pub assets: Assets,
    /// Whether matches are only counted here, and found elsewhere: rules are judged all the same, and what finds them is not kept.
    pub counts_only: bool,
}

/// How the tests of one resource went.
#[derive(Debug, Clone)]
pub struct ResourceTests {
    /// Its kind.
    pub kind: Kind,
    /// Its name.
    pub name: String,
    /// Its tests in order.
    pub outcomes: Vec<TestOutcome>,
}

/// What came of compiling.
pub struct Compiled {
    /// What runs.
    pub plan: Plan,
    /// What is wrong, in the order of files and lines.
    pub diagnostics: Vec<Diagnostic>,
    /// How the resources' own tests went. Resources that have not changed since the plan before were not tested again.
    pub tests: Vec<ResourceTests>,
}

/// What runs: everything that happens to an event is decided here.
#[derive(Default)]
pub struct Plan {
    /// The installation's settings.
    pub siem: SiemSpec,
    /// LogSources by name.
    pub sources: BTreeMap<String, Arc<Source>>,
    /// Enrichments in order.
    pub chain: Chain,
    /// Enabled rules.
    pub rules: Arc<RuleSet>,
    /// ResponseActions by name.
    pub actions: Vec<Arc<Action>>,
    live: BTreeMap<(Kind, String), Live>,
}

/// What became of an accepted event.
#[derive(Debug)]
pub enum Outcome {
    /// It is to be stored, and these rules found it.
    Event {
        /// The event. Boxed, since it is by far the largest.
        event: Box<Event>,
        /// What rules made of it.
        evaluation: Evaluation,
        /// Enrichments that failed on it.
        failures: Vec<Failure>,
    },
    /// An Enrichment dropped it as declared.
    Dropped {
        /// Name of the Enrichment.
        enrichment: String,
        /// The declared reason.
        reason: String,
    },
    /// It cannot be understood; to be kept as it came, with this reason.
    DeadLetter {
        /// Why.
        reason: String,
    },
}

impl Plan {
    /// Parses, enriches and matches one accepted event.
    #[must_use]
    pub fn process(&self, raw: &RawEvent) -> Outcome {
        let Some(source) = self.sources.get(&*raw.source) else {
            return Outcome::DeadLetter { reason: format!("LogSource/{} is gone", raw.source) };
        };
        let mut event = match format::parse(source, raw) {
            Ok(event) => event,
            Err(error) => return Outcome::DeadLetter { reason: error.to_string() },
        };
        let mut failures = Vec::new();
        if let Verdict::Drop { enrichment, reason } = self.chain.run(&mut event, &mut failures) {
            return Outcome::Dropped { enrichment, reason };
        }
        let evaluation = self.rules.evaluate(&event);
        Outcome::Event { event: Box::new(event), evaluation, failures }
    }

    /// The resources that run, by kind and name. Of one whose newest version is bad, this is the last good one.
    pub fn running(&self) -> impl Iterator<Item = Running<'_>> {
        self.live.iter().map(|((kind, name), live)| Running { kind: *kind, name, generation: live.generation, spec: &live.spec })
    }

    /// How many resources of each kind run.
    #[must_use]
    pub fn counts(&self) -> BTreeMap<Kind, usize> {
        let mut counts = BTreeMap::new();
        for (kind, _) in self.live.keys() {
            *counts.entry(*kind).or_default() += 1;
        }
        counts
    }
}

/// A resource that runs, in the version that runs.
#[derive(Debug, Clone, Copy)]
pub struct Running<'p> {
    /// Its kind.
    pub kind: Kind,
    /// Its name.
    pub name: &'p str,
    /// Its `metadata.generation`, where it had one.
    pub generation: Option<i64>,
    /// What it says.
    pub spec: &'p Spec,
}

/// A resource that runs, as it was when it last compiled.
#[derive(Clone)]
struct Live {
    generation: Option<i64>,
    spec: Spec,
    file: Arc<PathBuf>,
    part: Part,
}

/// What a resource was made into.
#[derive(Clone)]
enum Part {
    Siem(Box<SiemSpec>),
    Source(Arc<Source>),
    Watchlist(Arc<Watchlist>),
    Step(Arc<Step>),
    Rule(Arc<Rule>),
    Action(Arc<Action>),
}

/// What is to be said of one resource.
#[derive(Debug, Clone, Default)]
pub struct Judgement {
    /// What is wrong with it. It runs where none of them is an error.
    pub diagnostics: Vec<Diagnostic>,
    /// How its own tests went.
    pub tests: Vec<TestOutcome>,
}

/// Judges one resource that depends on no other, which is true of every AlertRule, as [`compile`] does, and keeps nothing of it: thousands
/// can be judged one by one in little memory.
#[must_use]
pub fn judge(resource: &Resource) -> Judgement {
    let nothing_else = Input::default();
    let mut compiler = Compiler::new(&nothing_else, None);
    let problems = compiler.build(resource).err().unwrap_or_default();
    let diagnostics = problems.into_iter().map(|problem| diagnostic(Level::Error, resource, problem)).collect();
    Judgement { diagnostics, tests: compiler.tests.into_iter().flat_map(|tests| tests.outcomes).collect() }
}

/// Compiles resources into a plan. `previous` is the plan that runs now, whose unchanged parts are taken over as they are.
#[must_use]
pub fn compile(input: &Input, previous: Option<&Plan>) -> Compiled {
    let mut compiler = Compiler::new(input, previous);
    for (key, resource) in compiler.unique(&input.resources) {
        compiler.add(key, resource);
    }
    compiler.keep_unread();
    compiler.finish()
}

struct Compiler<'a> {
    input: &'a Input,
    previous: Option<&'a Plan>,
    live: BTreeMap<(Kind, String), Live>,
    diagnostics: Vec<Diagnostic>,
    tests: Vec<ResourceTests>,
}

impl<'a> Compiler<'a> {
    fn new(input: &'a Input, previous: Option<&'a Plan>) -> Self {
        Self { input, previous, live: BTreeMap::new(), diagnostics: Vec::new(), tests: Vec::new() }
    }

    /// The resources by kind and name, those that others depend on first. Of two that cannot both be, the first stands; of the second
    /// the last good version goes on, where there is one.
    fn unique(&mut self, resources: &'a [Resource]) -> BTreeMap<(Kind, String), &'a Resource> {
        let mut unique: BTreeMap<(Kind, String), &Resource> = BTreeMap::new();
        let mut siem: Option<&Resource> = None;
        let mut ports = Ports::new(resources);
        for resource in resources {
            let key = (resource.kind, resource.name.clone());
            let first_of_name = unique.get(&key);
            let clash = match (first_of_name, siem) {
                (Some(first), _) => Some(("metadata.name", format!("{}/{} is declared before, at {}", key.0, key.1, place(first)))),
                (None, Some(first)) if resource.kind == Kind::Siem => {
                    Some(("kind", format!("there can be one Siem, and Siem/{} is declared at {}", first.name, place(first))))
                }
                _ => ports.claim(resource),
            };
            if let Some((field, message)) = clash {
                self.report(Level::Error, resource, Problem::new(field, message, "take one of them away, or change it"));
                if first_of_name.is_none() {
                    self.keep(&key);
                }
                continue;
            }
            if resource.kind == Kind::Siem {
                siem = Some(resource);
            }
            unique.insert(key, resource);
        }
        unique
    }

    fn add(&mut self, key: (Kind, String), resource: &Resource) {
        if let Some(live) = self.unchanged(&key, resource) {
            self.warn_of_unknown_rules(resource);
            self.live.insert(key, live);
            return;
        }
        match self.build(resource) {
            Ok(part) => {
                let live =
                    Live { generation: resource.generation, spec: resource.spec.clone(), file: Arc::clone(&resource.origin.file), part };
                self.live.insert(key, live);
            }
            Err(problems) => {
                for problem in problems {
                    self.report(Level::Error, resource, problem);
                }
                self.keep(&key);
            }
        }
    }

    /// The part that an unchanged resource was made into, unless what it depends on may have changed.
    fn unchanged(&self, key: &(Kind, String), resource: &Resource) -> Option<Live> {
        let live = self.previous?.live.get(key)?;
        if live.spec != resource.spec {
            return None;
        }
        if let Spec::Enrichment(spec) = &resource.spec {
            if spec.geoip.is_some() {
                return None;
            }
            if let Some(lookup) = &spec.lookup {
                let list = (Kind::Watchlist, lookup.watchlist.clone());
                let part = |live: Option<&Live>| match live.map(|live| &live.part) {
                    Some(Part::Watchlist(list)) => Some(Arc::as_ptr(list)),
                    _ => None,
                };
                if part(self.live.get(&list)) != part(self.previous?.live.get(&list)) {
                    return None;
                }
            }
        }
        Some(Live { generation: resource.generation, file: Arc::clone(&resource.origin.file), ..live.clone() })
    }

    fn build(&mut self, resource: &Resource) -> Result<Part, Vec<Problem>> {
        let name = &resource.name;
        match &resource.spec {
            Spec::Siem(spec) => Ok(Part::Siem(spec.clone())),
            Spec::LogSource(spec) => Ok(Part::Source(Arc::new(Source::compile(name, spec)?))),
            Spec::Watchlist(spec) => Ok(Part::Watchlist(Arc::new(Watchlist::compile(name, spec)?))),
            Spec::Enrichment(spec) => {
                let watchlists = self
                    .live
                    .iter()
                    .filter_map(|((_, name), live)| match &live.part {
                        Part::Watchlist(list) => Some((name.clone(), Arc::clone(list))),
                        _ => None,
                    })
                    .collect();
                let step = Step::compile(name, spec, &watchlists, &self.input.assets)?;
                self.tested(resource, step.run_tests())?;
                Ok(Part::Step(Arc::new(step)))
            }
            Spec::AlertRule(spec) => {
                let rule = Arc::new(Rule::compile(name, spec)?);
                self.tested(resource, rule::run_tests(&rule))?;
                Ok(Part::Rule(if self.input.counts_only { Arc::new(rule.counting()) } else { rule }))
            }
            Spec::ResponseAction(spec) => {
                let action = Action::compile(name, spec)?;
                self.warn_of_unknown_rules(resource);
                Ok(Part::Action(Arc::new(action)))
            }
        }
    }

    fn tested(&mut self, resource: &Resource, outcomes: Vec<TestOutcome>) -> Result<(), Vec<Problem>> {
        let failures: Vec<Problem> = outcomes.iter().filter_map(|outcome| outcome.result.clone().err()).collect();
        if !outcomes.is_empty() {
            self.tests.push(ResourceTests { kind: resource.kind, name: resource.name.clone(), outcomes });
        }
        if failures.is_empty() { Ok(()) } else { Err(failures) }
    }

    fn warn_of_unknown_rules(&mut self, resource: &Resource) {
        let Spec::ResponseAction(spec) = &resource.spec else { return };
        for (index, rule) in spec.alerts.rules.iter().enumerate() {
            let key = (Kind::AlertRule, rule.clone());
            if !self.live.contains_key(&key) && !self.input.apart.contains(&key) {
                let field = format!("spec.alerts.rules[{index}]");
                let problem = Problem::new(field, format!("AlertRule/{rule} does not run"), "correct the name, or mend that rule");
                self.report(Level::Warning, resource, problem);
            }
        }
    }

    /// Goes on with the last good version of a resource, if there is one.
    fn keep(&mut self, key: &(Kind, String)) {
        if let Some(live) = self.previous.and_then(|plan| plan.live.get(key)) {
            self.live.entry(key.clone()).or_insert_with(|| live.clone());
        }
    }

    /// Goes on with what has not been deleted, but cannot be read.
    fn keep_unread(&mut self) {
        let Some(previous) = self.previous else { return };
        for (key, live) in &previous.live {
            let unread = self.input.refused.contains(key) || self.input.incomplete_paths.iter().any(|path| live.file.starts_with(path));
            if unread {
                self.keep(key);
            }
        }
    }

    fn report(&mut self, level: Level, resource: &Resource, problem: Problem) {
        self.diagnostics.push(diagnostic(level, resource, problem));
    }

    fn finish(mut self) -> Compiled {
        let mut plan = Plan::default();
        let mut steps = Vec::new();
        let mut rules = Vec::new();
        for ((_, name), live) in &self.live {
            match &live.part {
                Part::Siem(spec) => plan.siem = (**spec).clone(),
                Part::Source(source) => {
                    plan.sources.insert(name.clone(), Arc::clone(source));
                }
                Part::Watchlist(_) => {}
                Part::Step(step) => steps.push(Arc::clone(step)),
                Part::Rule(rule) => rules.push(Arc::clone(rule)),
                Part::Action(action) => plan.actions.push(Arc::clone(action)),
            }
        }
        plan.chain = Chain::new(steps);
        plan.rules = match self.previous {
            Some(previous) if self.same_rules(previous) => Arc::clone(&previous.rules),
            previous => Arc::new(RuleSet::after(previous.map(|previous| &*previous.rules), rules)),
        };
        plan.live = self.live;
        self.diagnostics.sort_by(|a, b| (&a.location, &a.field).cmp(&(&b.location, &b.field)));
        Compiled { plan, diagnostics: self.diagnostics, tests: self.tests }
    }

    /// Whether the rules are those that are indexed already; indexing thousands takes most of a second.
    fn same_rules(&self, previous: &Plan) -> bool {
        fn rules(live: &BTreeMap<(Kind, String), Live>) -> impl Iterator<Item = *const Rule> {
            live.values().filter_map(|live| match &live.part {
                Part::Rule(rule) => Some(Arc::as_ptr(rule)),
                _ => None,
            })
        }
        rules(&self.live).eq(rules(&previous.live))
    }
}

/// A problem of a resource, with its place.
fn diagnostic(level: Level, resource: &Resource, problem: Problem) -> Diagnostic {
    Diagnostic {
        level,
        resource: Some((resource.kind.to_string(), resource.name.clone())),
        location: resource.origin.locate(&problem),
        field: problem.field,
        message: problem.message,
        remedy: problem.remedy,
    }
}

fn place(resource: &Resource) -> String {
    let origin: &Origin = &resource.origin;
    origin.locate(&Problem::new("metadata.name", "", "")).to_string()
}
