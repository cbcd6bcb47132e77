//! Resources, read once or followed: from files, or from the Kubernetes API.
//!
//! ```text
//! files ---------+
//!                +--> Loaded --> compile --> Plan --> whoever holds a receiver of Watched::plans
//! Kubernetes ----+
//! ```
//!
//! Wherever they come from, what is read is one [`Loaded`], and [`Watched`] compiles it into a plan and hands out a new plan after each
//! change; a resource that has become wrong keeps its last good version. The roles do not know which of the two it was.

mod assets;
mod cluster;
mod files;

use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant},
};

use redoubt_crds::SiemSpec;
use redoubt_engine::{
    compile::{Compiled, Input, Plan, compile},
    diagnostic::{Diagnostic, Level},
    resource::{Kind, Resource},
};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use self::{cluster::Cluster, files::Files};
use crate::{
    health::Readiness,
    kubernetes::Namespace,
    metrics::{Metrics, ResourceLabels, ResultLabels},
};

/// What was read, and what could not be.
#[derive(Debug, Default)]
pub struct Loaded {
    /// For the compiler.
    pub input: Input,
    /// What could not be read.
    pub diagnostics: Vec<Diagnostic>,
    /// Versions that others saw run, of resources whose newest version is bad.
    last_good: Vec<Resource>,
}

/// Reads all resources below the given paths.
#[must_use]
pub fn load(paths: &[PathBuf]) -> Loaded {
    Files::new(paths.to_vec()).load()
}

/// Reads and compiles all resources below the given paths.
#[must_use]
pub fn load_and_compile(paths: &[PathBuf]) -> Compiled {
    load(paths).compile(None)
}

impl Loaded {
    /// Compiles what was read. The diagnostics are those of both, errors first.
    fn compile(&self, previous: Option<&Plan>) -> Compiled {
        let resumed = self.resume(previous);
        let mut compiled = compile(&self.input, resumed.as_ref().or(previous));
        compiled.diagnostics.extend(self.diagnostics.iter().cloned());
        compiled.diagnostics.sort_by(|a, b| (b.level, &a.location).cmp(&(a.level, &b.location)));
        compiled
    }

    /// The plan as it would be, had this process seen the last good versions that others saw; `None` where it has seen all of them.
    fn resume(&self, previous: Option<&Plan>) -> Option<Plan> {
        let running = previous.into_iter().flat_map(Plan::running);
        let generations: BTreeMap<(Kind, &str), Option<i64>> =
            running.map(|running| ((running.kind, running.name), running.generation)).collect();
        let missed = |good: &&Resource| match generations.get(&(good.kind, good.name.as_str())) {
            Some(generation) => *generation < good.generation,
            None => true,
        };
        let missed: Vec<&Resource> = self.last_good.iter().filter(missed).collect();
        if missed.is_empty() {
            return None;
        }
        let mut input = self.input.clone();
        for good in missed {
            input.refused.remove(&(good.kind, good.name.clone()));
            match input.resources.iter_mut().find(|resource| (resource.kind, &resource.name) == (good.kind, &good.name)) {
                Some(resource) => *resource = good.clone(),
                None => input.resources.push(good.clone()),
            }
        }
        Some(compile(&input, previous).plan)
    }

    /// Lets go of what only finding the places of problems needs: thousands of rules have texts of tens of megabytes.
    fn forget_texts(&mut self) {
        self.input.resources.iter_mut().for_each(|resource| resource.origin.forget_text());
    }
}

/// Resources that are followed.
pub struct Watched {
    source: Source,
    metrics: Arc<Metrics>,
    readiness: Readiness,
    /// What the plan was made from.
    loaded: Option<Loaded>,
    /// What the log says already.
    said: BTreeSet<String>,
    plans: watch::Sender<Arc<Plan>>,
}

enum Source {
    Files(Files),
    Cluster(Box<Cluster>),
}

impl Watched {
    /// Reads and compiles the resources of files for the first time. Returns the diagnostics too, for whoever starts the process to show.
    #[must_use]
    pub fn start(paths: Vec<PathBuf>, metrics: Arc<Metrics>) -> (Self, Vec<Diagnostic>) {
        let mut files = Files::new(paths);
        let mut loaded = files.load();
        let compiled = loaded.compile(None);
        loaded.forget_texts();
        count_resources(&metrics, &compiled);
        let said = compiled.diagnostics.iter().map(ToString::to_string).collect();
        let (plans, _) = watch::channel(Arc::new(compiled.plan));
        (
            Self { source: Source::Files(files), metrics, readiness: Readiness::default(), loaded: Some(loaded), said, plans },
            compiled.diagnostics,
        )
    }

    /// The resources of these kinds in a namespace. The plan is empty until all of them are there, which [`Watched::run`] waits for.
    pub(crate) fn of_namespace(namespace: &Namespace, kinds: &[Kind], metrics: Arc<Metrics>) -> Self {
        let readiness = Readiness::default();
        let cluster = Cluster::new(namespace, kinds, &metrics, readiness.clone());
        let (plans, _) = watch::channel(Arc::default());
        let source = Source::Cluster(Box::new(cluster));
        Self { source, metrics, readiness, loaded: None, said: BTreeSet::new(), plans }
    }

    /// The plan in force, now and after each change.
    #[must_use]
    pub fn plans(&self) -> watch::Receiver<Arc<Plan>> {
        self.plans.subscribe()
    }

    /// The namespace, where the resources are those of one.
    pub(crate) fn namespace(&self) -> Option<&Namespace> {
        match &self.source {
            Source::Files(_) => None,
            Source::Cluster(cluster) => Some(cluster.namespace()),
        }
    }

    /// What the process waits for before it can start.
    pub(crate) fn readiness(&self) -> Readiness {
        self.readiness.clone()
    }

    /// Follows the resources until told to stop.
    pub async fn run(mut self, shutdown: CancellationToken) {
        loop {
            tokio::select! {
                () = shutdown.cancelled() => return,
                () = self.source.changed() => {}
            }
            self = match tokio::task::spawn_blocking(move || self.reload()).await {
                Ok(watched) => watched,
                Err(panicked) => {
                    error!(%panicked, "reloading the resources failed; what runs goes on, and changes are no longer followed");
                    return;
                }
            };
        }
    }

    fn reload(mut self) -> Self {
        let Some(mut loaded) = self.source.load() else { return self };
        if self.loaded.as_ref().is_some_and(|before| same(before, &loaded)) {
            return self;
        }
        let previous = Arc::clone(&self.plans.borrow());
        let started = Instant::now();
        let compiled = loaded.compile(Some(&previous));
        loaded.forget_texts();
        self.source.compiled(&compiled, started.elapsed());
        self.tell(&compiled);
        for field in settings_of_a_start(&previous.siem, &compiled.plan.siem).filter(|_| self.readiness.has_started()) {
            warn!(field, "the Siem says something else now; it takes effect with the next start");
        }
        self.plans.send_replace(Arc::new(compiled.plan));
        self.loaded = Some(loaded);
        self
    }

    /// Logs what is new, and counts.
    fn tell(&mut self, compiled: &Compiled) {
        let mut said = BTreeSet::new();
        for diagnostic in &compiled.diagnostics {
            let line = diagnostic.to_string();
            if !self.said.contains(&line) {
                match diagnostic.level {
                    Level::Error => error!(target: "redoubt::resources", "{line}"),
                    Level::Warning => warn!(target: "redoubt::resources", "{line}"),
                }
            }
            said.insert(line);
        }
        self.said = said;
        count_resources(&self.metrics, compiled);
        let clean = compiled.diagnostics.iter().all(|diagnostic| diagnostic.level != Level::Error);
        self.metrics.reloads.get_or_create(&ResultLabels { result: if clean { "clean" } else { "with_errors" } }).inc();
        let counts: Vec<String> = compiled.plan.counts().iter().map(|(kind, count)| format!("{count} {kind}")).collect();
        info!(running = counts.join(", "), "resources reloaded");
    }
}

impl Source {
    /// Waits until something may have changed.
    async fn changed(&mut self) {
        match self {
            Self::Files(files) => files.changed().await,
            Self::Cluster(cluster) => cluster.changed().await,
        }
    }

    /// All resources as they are now; `None` where it is not the time to compile them.
    fn load(&mut self) -> Option<Loaded> {
        match self {
            Self::Files(files) => Some(files.load()),
            Self::Cluster(cluster) => cluster.load(),
        }
    }

    /// What was loaded last has been compiled, in this time.
    fn compiled(&mut self, compiled: &Compiled, took: Duration) {
        match self {
            Self::Files(_) => {}
            Self::Cluster(cluster) => cluster.compiled(compiled, took),
        }
    }
}

/// The settings that differ and are read only at the start. How many pods there are and what they are given is not among them: a process
/// reads none of it.
fn settings_of_a_start(before: &SiemSpec, after: &SiemSpec) -> impl Iterator<Item = &'static str> {
    let broker = |siem: &SiemSpec| (siem.broker.max_bytes, siem.broker.delivery_limit, siem.broker.external.clone());
    let store = |siem: &SiemSpec| (siem.store.index_buffer_bytes, siem.store.refresh, siem.store.external.clone());
    let correlate = |siem: &SiemSpec| (siem.correlate.partitions, siem.correlate.max_groups);
    let differs = [
        ("spec.broker", broker(before) != broker(after)),
        ("spec.store", store(before) != store(after)),
        ("spec.correlate", correlate(before) != correlate(after)),
    ];
    differs.into_iter().filter(|(_, differs)| *differs).map(|(field, _)| field)
}

fn count_resources(metrics: &Metrics, compiled: &Compiled) {
    let counts = compiled.plan.counts();
    for kind in Kind::ALL {
        let mut refused: Vec<&(String, String)> = compiled
            .diagnostics
            .iter()
            .filter(|diagnostic| diagnostic.level == Level::Error)
            .filter_map(|diagnostic| diagnostic.resource.as_ref().filter(|(name, _)| name == kind.as_str()))
            .collect();
        refused.sort();
        refused.dedup();
        for (state, count) in [("accepted", counts.get(&kind).copied().unwrap_or(0)), ("rejected", refused.len())] {
            let labels = ResourceLabels { kind: kind.as_str(), state };
            metrics.resources.get_or_create(&labels).set(i64::try_from(count).unwrap_or(i64::MAX));
        }
    }
}

/// Whether two readings say the same.
fn same(a: &Loaded, b: &Loaded) -> bool {
    let says = |a: &Resource, b: &Resource| {
        (a.kind, &a.name, a.generation, &a.spec, &a.origin.file) == (b.kind, &b.name, b.generation, &b.spec, &b.origin.file)
    };
    let all_say = |a: &[Resource], b: &[Resource]| a.len() == b.len() && a.iter().zip(b).all(|(a, b)| says(a, b));
    let (one, other) = (&a.input, &b.input);
    a.diagnostics == b.diagnostics
        && one.incomplete_paths == other.incomplete_paths
        && one.refused == other.refused
        && one.assets == other.assets
        && all_say(&one.resources, &other.resources)
        && all_say(&a.last_good, &b.last_good)
}

#[cfg(test)]
mod tests;
