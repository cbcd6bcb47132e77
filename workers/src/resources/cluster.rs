//! Resources from the Kubernetes API: those of one namespace, followed.
//!
//! ```text
//! kinds of the role, last-good ConfigMaps --watches--> changes --> Objects, read --quiet for a moment--> Loaded
//! ```
//!
//! The first plan waits until all of them have been listed. After that nothing that the API does or fails to do stops a worker: what runs
//! goes on, and the watches are taken up again. Objects are read and compiled on a thread for blocking work, in bursts: a change that comes
//! alone is compiled when it was quiet for a moment, one of a thousand with those beside it.
//!
//! An object counts by its uid and generation. What changes only its labels or its status, as the operator does all the time, is no news.
//!
//! The rights that this takes, in the namespace and nowhere else:
//!
//! ```yaml
//! - apiGroups: [redoubt.dev]
//!   resources: [siems, logsources, watchlists, enrichments, alertrules, responseactions]
//!   verbs: [get, list, watch]
//! - apiGroups: ['']
//!   resources: [configmaps]      # followed by the label redoubt.dev/last-good alone, which a Role cannot say
//!   verbs: [get, list, watch]
//! ```
//! Those for Secrets are told by [`crate::secrets::mirror`].

mod objects;

use std::{
    fmt,
    sync::Arc,
    time::{Duration, Instant},
};

use futures::{
    StreamExt as _,
    stream::{BoxStream, SelectAll},
};
use kube::{
    api::DynamicObject,
    runtime::watcher::{Config, Event},
};
use redoubt_engine::{compile::Compiled, resource::Kind};

use self::objects::Objects;
use super::Loaded;
use crate::{
    health::Readiness,
    kubernetes::{Followed, Namespace, follow},
    metrics::Metrics,
};

/// The label of the ConfigMaps that hold last good versions; its value is the kind in lower case.
const LAST_GOOD: &str = "redoubt.dev/last-good";
/// How long it must be quiet after a change before it is compiled: changes come in company.
const QUIET: Duration = Duration::from_millis(200);
/// How long a change waits at least, and at most, where it is never quiet. In between it waits three times what compiling takes, so that a
/// long row of changes costs a quarter of one processor and no more.
const PATIENCE: (Duration, Duration) = (Duration::from_millis(800), Duration::from_secs(3));
/// So many changes are read before more are taken: they lie in memory whole until then.
const UNREAD: usize = 128;
/// How often the GeoIP databases that resources name are looked at.
const POLL: Duration = Duration::from_secs(30);

/// What is followed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Watch {
    Kind(Kind),
    LastGood,
}

impl Watch {
    fn all(kinds: &[Kind]) -> impl Iterator<Item = Self> {
        kinds.iter().copied().map(Self::Kind).chain([Self::LastGood])
    }

    fn as_str(self) -> &'static str {
        match self {
            Self::Kind(kind) => kind.as_str(),
            Self::LastGood => "last-good",
        }
    }
}

impl fmt::Display for Watch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Kind(kind) => write!(f, "the objects of kind {kind}"),
            Self::LastGood => f.write_str("the ConfigMaps of last good versions"),
        }
    }
}

/// What the API tells.
type Told = (Watch, Result<Event<DynamicObject>, String>);

/// The resources of a namespace, followed.
pub(super) struct Cluster {
    namespace: Namespace,
    told: SelectAll<BoxStream<'static, Told>>,
    objects: Objects,
    /// Told, and not read yet.
    unread: Vec<(Watch, Event<DynamicObject>)>,
    /// When the first and the last change came that are not compiled.
    waiting: Option<(Instant, Instant)>,
    /// How long compiling took.
    took: Duration,
    databases_seen: Instant,
    readiness: Readiness,
}

impl Cluster {
    /// Nothing is asked before [`Cluster::changed`].
    pub(super) fn new(namespace: &Namespace, kinds: &[Kind], metrics: &Arc<Metrics>, readiness: Readiness) -> Self {
        let kept = kinds.iter().map(|kind| kind.as_str().to_lowercase()).collect::<Vec<_>>().join(",");
        let told = Watch::all(kinds).map(|watch| {
            let what = format!("{watch} in namespace {}", namespace.name());
            let followed = Followed { what, label: watch.as_str(), metrics: Arc::clone(metrics) };
            let (objects, config) = match watch {
                Watch::Kind(kind) => (namespace.objects(redoubt_crds::GROUP, redoubt_crds::VERSION, kind.as_str()), Config::default()),
                Watch::LastGood => {
                    (namespace.objects("", "v1", "ConfigMap"), Config::default().labels(&format!("{LAST_GOOD} in ({kept})")))
                }
            };
            follow(objects, config, followed).map(move |event| (watch, event)).boxed()
        });
        readiness.waits_for(format!("the resources of namespace {} are being listed", namespace.name()));
        Self {
            namespace: namespace.clone(),
            told: told.collect(),
            objects: Objects::new(namespace.name(), kinds),
            unread: Vec::new(),
            waiting: None,
            took: Duration::ZERO,
            databases_seen: Instant::now(),
            readiness,
        }
    }

    pub(super) fn namespace(&self) -> &Namespace {
        &self.namespace
    }

    /// Waits until it is time to look at what was told.
    pub(super) async fn changed(&mut self) {
        while self.unread.len() < UNREAD {
            let look = self.due().unwrap_or(self.databases_seen + POLL);
            tokio::select! {
                Some((watch, event)) = self.told.next() => self.take(watch, event),
                () = tokio::time::sleep_until(look.into()) => return,
            }
        }
    }

    /// When what came is to be compiled.
    fn due(&self) -> Option<Instant> {
        let (first, last) = self.waiting?;
        Some((last + QUIET).min(first + (self.took * 3).clamp(PATIENCE.0, PATIENCE.1)))
    }

    fn take(&mut self, watch: Watch, event: Result<Event<DynamicObject>, String>) {
        match event {
            Ok(event) if self.objects.is_news(watch, &event) => {
                let now = Instant::now();
                let first = self.waiting.map_or(now, |(first, _)| first);
                self.waiting = Some((first, now));
                self.unread.push((watch, event));
            }
            Ok(_) => {}
            Err(reason) => {
                if !self.objects.all_listed() {
                    self.readiness.waits_for(format!("{watch} in namespace {} cannot be listed: {reason}", self.namespace.name()));
                }
            }
        }
    }

    /// Reads what was told. Gives all resources when they are to be compiled.
    pub(super) fn load(&mut self) -> Option<Loaded> {
        for (watch, event) in self.unread.drain(..) {
            self.objects.apply(watch, event);
        }
        if self.due().is_some_and(|due| Instant::now() < due) {
            return None;
        }
        self.waiting = None;
        if !self.objects.all_listed() {
            return None;
        }
        let look_at_databases = self.databases_seen.elapsed() >= POLL && self.objects.name_databases();
        if self.databases_seen.elapsed() >= POLL {
            self.databases_seen = Instant::now();
        }
        (self.objects.take_changed() || look_at_databases).then(|| self.objects.load())
    }

    /// What was loaded has been compiled, in this time.
    pub(super) fn compiled(&mut self, compiled: &Compiled, took: Duration) {
        self.took = took;
        self.objects.forget_texts(&compiled.diagnostics);
        if !compiled.plan.running().any(|running| running.kind == Kind::Siem) {
            self.readiness.waits_for(format!("namespace {} has no Siem, or none that was accepted", self.namespace.name()));
        }
    }
}
