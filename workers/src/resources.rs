//! Resources from files: read once, or watched.
//!
//! Paths are files or folders (all `.yaml` and `.yml` below them). [`Watched`] compiles what it reads into a plan and hands out a new
//! plan when a file has changed; a resource that has become wrong keeps its last good version.

use std::{
    collections::BTreeMap,
    io,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use notify::{RecursiveMode, Watcher as _};
use redoubt_crds::SiemSpec;
use redoubt_engine::{
    compile::{Compiled, Input, Plan, compile},
    diagnostic::{Diagnostic, Level, Location},
    enrich::Assets,
    resource::{self, Kind, Resource, Spec},
};
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use crate::metrics::{Metrics, ResourceLabels, ResultLabels};

/// How long after a change the files are read: editors write in several steps.
const SETTLE: Duration = Duration::from_millis(200);
/// How often the files are looked at where the system does not tell of changes, as on some network file systems.
const POLL: Duration = Duration::from_secs(30);
/// Largest file that is read as resources, in bytes.
const MAX_FILE: u64 = 64 << 20;

/// Largest GeoIP database that is read, in bytes.
const MAX_DATABASE: u64 = 1 << 30;

/// What was read, and what could not be.
#[derive(Debug, Default)]
pub struct Loaded {
    /// For the compiler.
    pub input: Input,
    /// What could not be read.
    pub diagnostics: Vec<Diagnostic>,
}

/// Reads all resources below the given paths.
#[must_use]
pub fn load(paths: &[PathBuf]) -> Loaded {
    let mut loaded = Loaded::default();
    let mut files = Vec::new();
    for path in paths {
        loaded.find_files(path, &mut files);
    }
    files.sort();
    files.dedup();
    for path in files {
        match read_text(&path) {
            Ok(text) => {
                let file = resource::read(&path, &text);
                if file.incomplete {
                    loaded.input.incomplete_paths.insert(path);
                }
                loaded.input.resources.extend(file.resources);
                loaded.input.refused.extend(file.refused);
                loaded.diagnostics.extend(file.diagnostics);
            }
            Err(error) => loaded.unreadable(&path, &error),
        }
    }
    loaded.input.assets = read_assets(&loaded.input.resources);
    loaded
}

/// Reads and compiles all resources below the given paths.
#[must_use]
pub fn load_and_compile(paths: &[PathBuf]) -> Compiled {
    compile_loaded(&load(paths), None)
}

/// Compiles what was read. The diagnostics are those of both, errors first.
fn compile_loaded(loaded: &Loaded, previous: Option<&Plan>) -> Compiled {
    let mut compiled = compile(&loaded.input, previous);
    compiled.diagnostics.extend(loaded.diagnostics.iter().cloned());
    compiled.diagnostics.sort_by(|a, b| (b.level, &a.location).cmp(&(a.level, &b.location)));
    compiled
}

impl Loaded {
    /// Finds the files below a path. What cannot be looked into is noted; the search goes on beside it.
    fn find_files(&mut self, path: &Path, files: &mut Vec<PathBuf>) {
        if path.is_file() {
            files.push(path.to_owned());
            return;
        }
        let entries = match std::fs::read_dir(path).and_then(Iterator::collect::<io::Result<Vec<_>>>) {
            Ok(entries) => entries,
            Err(error) => return self.unreadable(path, &error),
        };
        for inner in entries.into_iter().map(|entry| entry.path()) {
            let hidden = inner.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"."));
            let yaml = inner.extension().is_some_and(|extension| extension == "yaml" || extension == "yml");
            if inner.is_dir() && !hidden {
                self.find_files(&inner, files);
            } else if yaml && !hidden {
                files.push(inner);
            }
        }
    }

    /// Lets go of what only finding the places of problems needs: thousands of rules have texts of tens of megabytes.
    fn forget_texts(&mut self) {
        self.input.resources.iter_mut().for_each(|resource| resource.origin.forget_text());
    }

    fn unreadable(&mut self, path: &Path, error: &io::Error) {
        self.input.incomplete_paths.insert(path.to_owned());
        self.diagnostics.push(Diagnostic {
            level: Level::Error,
            resource: None,
            location: Location { file: Arc::new(path.to_owned()), line: 1, column: 1 },
            field: String::new(),
            message: format!("cannot be read: {error}"),
            remedy: "name a file, or a folder with .yaml files, that this user may read".to_owned(),
        });
    }
}

fn read_text(path: &Path) -> io::Result<String> {
    let size = std::fs::metadata(path)?.len();
    if size > MAX_FILE {
        return Err(io::Error::other(format!("{size} bytes are more than a file of resources may have ({MAX_FILE})")));
    }
    std::fs::read_to_string(path)
}

/// The GeoIP databases that resources name. One that is not there is left for the compiler to report, at its field.
fn read_assets(resources: &[Resource]) -> Assets {
    let mut assets = BTreeMap::new();
    for resource in resources {
        let Spec::Enrichment(spec) = &resource.spec else { continue };
        let Some(geoip) = &spec.geoip else { continue };
        for path in [&geoip.city, &geoip.asn].into_iter().flatten() {
            match read_database(Path::new(path)) {
                Ok(bytes) => drop(assets.insert(PathBuf::from(path), Arc::from(bytes))),
                Err(error) => warn!(path, %error, "a GeoIP database cannot be read"),
            }
        }
    }
    assets
}

fn read_database(path: &Path) -> io::Result<Vec<u8>> {
    let found = std::fs::metadata(path)?;
    if !found.is_file() || found.len() > MAX_DATABASE {
        return Err(io::Error::other(format!("not a file of at most {MAX_DATABASE} bytes")));
    }
    std::fs::read(path)
}

/// Resources that are watched for changes.
pub struct Watched {
    paths: Vec<PathBuf>,
    metrics: Arc<Metrics>,
    loaded: Loaded,
    plans: watch::Sender<Arc<Plan>>,
}

impl Watched {
    /// Reads and compiles the resources for the first time. Returns the diagnostics too, for whoever starts the process to show.
    #[must_use]
    pub fn start(paths: Vec<PathBuf>, metrics: Arc<Metrics>) -> (Self, Vec<Diagnostic>) {
        let mut loaded = load(&paths);
        let compiled = compile_loaded(&loaded, None);
        loaded.forget_texts();
        count_resources(&metrics, &compiled);
        let (plans, _) = watch::channel(Arc::new(compiled.plan));
        (Self { paths, metrics, loaded, plans }, compiled.diagnostics)
    }

    /// The plan in force, now and after each change.
    #[must_use]
    pub fn plans(&self) -> watch::Receiver<Arc<Plan>> {
        self.plans.subscribe()
    }

    /// Follows the files until told to stop.
    pub async fn run(mut self, shutdown: CancellationToken) {
        let (sender, mut changes) = mpsc::channel(1);
        // The watcher must live as long as this loop; without one, polling still finds each change.
        let _watcher = watcher(&self.paths, sender.clone());
        loop {
            tokio::select! {
                () = shutdown.cancelled() => return,
                Some(()) = changes.recv() => {}
                () = tokio::time::sleep(POLL) => {}
            }
            tokio::time::sleep(SETTLE).await;
            while changes.try_recv().is_ok() {}
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
        let previous = Arc::clone(&self.plans.borrow());
        let mut loaded = load(&self.paths);
        if same(&self.loaded, &loaded) {
            return self;
        }
        let compiled = compile_loaded(&loaded, Some(&previous));
        loaded.forget_texts();
        for diagnostic in &compiled.diagnostics {
            match diagnostic.level {
                Level::Error => error!(target: "redoubt::resources", "{diagnostic}"),
                Level::Warning => warn!(target: "redoubt::resources", "{diagnostic}"),
            }
        }
        for field in settings_of_a_start(&previous.siem, &compiled.plan.siem) {
            warn!(field, "the Siem says something else now; it takes effect with the next start");
        }
        count_resources(&self.metrics, &compiled);
        let clean = compiled.diagnostics.iter().all(|diagnostic| diagnostic.level != Level::Error);
        self.metrics.reloads.get_or_create(&ResultLabels { result: if clean { "clean" } else { "with_errors" } }).inc();
        let counts: Vec<String> = compiled.plan.counts().iter().map(|(kind, count)| format!("{count} {kind}")).collect();
        info!(running = counts.join(", "), "resources reloaded");
        self.plans.send_replace(Arc::new(compiled.plan));
        self.loaded = loaded;
        self
    }
}

/// The settings that differ and are read only at the start.
fn settings_of_a_start(before: &SiemSpec, after: &SiemSpec) -> impl Iterator<Item = &'static str> {
    let differs = [
        ("spec.broker", before.broker != after.broker),
        ("spec.store", before.store != after.store),
        ("spec.correlate", before.correlate != after.correlate),
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
    let says = |a: &Resource, b: &Resource| (a.kind, &a.name, &a.spec, &a.origin.file) == (b.kind, &b.name, &b.spec, &b.origin.file);
    let (one, other) = (&a.input, &b.input);
    a.diagnostics == b.diagnostics
        && one.incomplete_paths == other.incomplete_paths
        && one.refused == other.refused
        && one.assets == other.assets
        && one.resources.len() == other.resources.len()
        && one.resources.iter().zip(&other.resources).all(|(a, b)| says(a, b))
}

fn watcher(paths: &[PathBuf], sender: mpsc::Sender<()>) -> Option<notify::RecommendedWatcher> {
    let watcher = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
        if event.is_ok_and(|event| !event.kind.is_access()) {
            // A full channel means that a reload is due already.
            let _ = sender.try_send(());
        }
    });
    let mut watcher = match watcher {
        Ok(watcher) => watcher,
        Err(error) => {
            warn!(%error, poll = ?POLL, "the system does not tell of changed files; they are looked at now and then");
            return None;
        }
    };
    for path in paths {
        // Editors replace a file by renaming another over it, which only its folder sees.
        let (watched, mode) = match path.parent() {
            Some(parent) if path.is_file() => {
                let folder = if parent.as_os_str().is_empty() { Path::new(".") } else { parent };
                (folder, RecursiveMode::NonRecursive)
            }
            _ => (path.as_path(), RecursiveMode::Recursive),
        };
        if let Err(error) = watcher.watch(watched, mode) {
            warn!(path = %path.display(), %error, poll = ?POLL, "changes here are not told; it is looked at now and then");
        }
    }
    Some(watcher)
}
