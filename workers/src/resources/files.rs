//! Resources from files: read once, or followed.
//!
//! Paths are files or folders (all `.yaml` and `.yml` below them).

use std::{
    io,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use notify::{RecursiveMode, Watcher as _};
use redoubt_engine::{
    diagnostic::{Diagnostic, Level, Location},
    resource,
};
use tokio::sync::mpsc;
use tracing::warn;

use super::{Loaded, assets::Databases};

/// How long after a change the files are read: editors write in several steps.
const SETTLE: Duration = Duration::from_millis(200);
/// How often the files are looked at where the system does not tell of changes, as on some network file systems.
const POLL: Duration = Duration::from_secs(30);
/// Largest file that is read as resources, in bytes.
const MAX_FILE: u64 = 64 << 20;

/// Files and folders that are followed.
pub(super) struct Files {
    paths: Vec<PathBuf>,
    databases: Databases,
    watching: Option<Watching>,
}

/// What tells of changes.
struct Watching {
    /// Must live as long as changes are to be told. Without one, polling still finds each.
    _watcher: Option<notify::RecommendedWatcher>,
    changes: mpsc::Receiver<()>,
}

impl Files {
    pub(super) fn new(paths: Vec<PathBuf>) -> Self {
        Self { paths, databases: Databases::default(), watching: None }
    }

    /// Reads all resources.
    pub(super) fn load(&mut self) -> Loaded {
        let mut loaded = Loaded::default();
        let mut files = Vec::new();
        for path in &self.paths {
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
        loaded.input.assets = self.databases.named_by(&loaded.input.resources);
        loaded
    }

    /// Waits until a file may have changed.
    pub(super) async fn changed(&mut self) {
        let changes = &mut self.watching.get_or_insert_with(|| Watching::start(&self.paths)).changes;
        tokio::select! {
            Some(()) = changes.recv() => {}
            () = tokio::time::sleep(POLL) => {}
        }
        tokio::time::sleep(SETTLE).await;
        while changes.try_recv().is_ok() {}
    }
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

impl Watching {
    fn start(paths: &[PathBuf]) -> Self {
        let (sender, changes) = mpsc::channel(1);
        Self { _watcher: watcher(paths, sender), changes }
    }
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
