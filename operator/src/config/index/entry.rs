//! One resource: what is known of it, and what is to be said.

use std::{
    hash::{BuildHasher as _, BuildHasherDefault, DefaultHasher},
    sync::Arc,
};

use jiff::Timestamp;
use redoubt_engine::resource::Kind;

use super::{
    Keep, Kept, Key, NewStatus, Notice, Reported, Seen, Version,
    conditions::{ACCEPTED, READY, Says, Truth},
    timing,
    workers::{Spread, Workers},
};

/// Largest last good version that is kept, in bytes of JSON: a ConfigMap holds 1 MiB.
const MAX_KEPT: usize = 1_000_000;

/// One resource.
pub(super) struct Entry {
    pub(super) uid: Arc<str>,
    pub(super) generation: i64,
    pub(super) created: Timestamp,
    pub(super) lines_before_spec: usize,
    /// Its spec as JSON. Of an AlertRule it is let go once it has been judged: nothing can change the verdict but another spec.
    pub(super) spec: Option<Arc<str>>,
    /// `Accepted`, once this generation has been judged.
    pub(super) verdict: Option<Says>,
    /// The last version that was accepted.
    pub(super) good: Option<Version>,
    /// Whether it waits to be looked at.
    pub(super) queued: bool,
    /// Until when looking at it has been put off.
    pub(super) put_off: Option<Timestamp>,
    version: u64,
    reported: Reported,
    /// What is being written.
    writing: Option<Box<Writing>>,
    /// Since when the status differs in a way that may pass.
    differs_since: Option<Timestamp>,
    failures: u32,
    retry_at: Option<Timestamp>,
    /// When a worker may next be asked for a version that was lost.
    pub(super) ask_at: Timestamp,
}

struct Writing {
    reported: Reported,
    keep: Option<Keep>,
}

/// What a resource asks for.
#[derive(Debug, PartialEq)]
pub(super) enum Wants {
    /// Nothing: all that is to be said has been said.
    Nothing,
    /// To be looked at again then.
    Later(Timestamp),
    /// This is to be written.
    Writes { keep: Option<Keep>, status: Option<NewStatus> },
}

/// How the status differs from the one that is shown.
enum Difference {
    No,
    MayPass(jiff::SignedDuration),
    Yes,
}

impl Entry {
    pub(super) fn new(seen: Seen) -> Self {
        Self {
            uid: seen.uid,
            generation: seen.generation,
            created: seen.created,
            lines_before_spec: seen.lines_before_spec,
            spec: Some(seen.spec),
            verdict: None,
            good: None,
            queued: false,
            put_off: None,
            version: seen.version,
            reported: seen.reported,
            writing: None,
            differs_since: None,
            failures: 0,
            retry_at: None,
            ask_at: Timestamp::UNIX_EPOCH,
        }
    }

    /// Takes note of how the API server shows the same object now. Tells whether it is to be judged anew.
    pub(super) fn see(&mut self, seen: Seen) -> bool {
        if seen.version < self.version {
            return false;
        }
        self.version = seen.version;
        self.reported = seen.reported;
        if seen.generation == self.generation {
            return false;
        }
        self.generation = seen.generation;
        self.lines_before_spec = seen.lines_before_spec;
        self.spec = Some(seen.spec);
        self.verdict = None;
        self.differs_since = None;
        // What was tried in vain for the version before says nothing of this one.
        self.failures = 0;
        self.retry_at = None;
        true
    }

    /// Whether the end of an object that has this `resourceVersion` is the end of this one, and not of one before.
    pub(super) fn ends_at(&self, version: u64) -> bool {
        version == 0 || version >= self.version
    }

    pub(super) fn accepted(&self) -> Option<bool> {
        self.verdict.as_ref().map(|says| says.truth == Truth::True)
    }

    /// Whether some version of it runs, or would run if there were workers.
    pub(super) fn runs(&self) -> bool {
        self.good.is_some()
    }

    /// The last version that was accepted, by this process or by one before it. `kept` is what a ConfigMap keeps of a resource of its name.
    pub(super) fn last_good<'k>(&'k self, kept: Option<&'k Kept>) -> Option<&'k Version> {
        let before = || kept.filter(|kept| kept.uid == self.uid && kept.good.generation <= self.generation).map(|kept| &kept.good);
        self.good.as_ref().or_else(before)
    }

    /// Takes note of a verdict on the current version. `kept` is what a ConfigMap keeps of a resource of its name.
    pub(super) fn judge(&mut self, says: Says, kept: Option<&Kept>) {
        if says.truth == Truth::True {
            if let Some(spec) = &self.spec {
                self.good = Some(Version { generation: self.generation, spec: Arc::clone(spec) });
            }
        } else {
            self.good = self.last_good(kept).cloned();
        }
        self.verdict = Some(says);
    }

    /// Whether a version of it may run that is not known here: the process before this one ended between a bad edit and the keeping of
    /// the version before it.
    pub(super) fn is_lost(&self) -> bool {
        self.good.is_none() && self.accepted() == Some(false)
    }

    /// Takes note of the version that a worker runs in place of a bad one. Tells whether it was not known.
    pub(super) fn recover(&mut self, version: Version) -> bool {
        let is_news = self.is_lost() && version.generation <= self.generation;
        if is_news {
            self.good = Some(version);
        }
        is_news
    }

    /// Takes note of what came of a change. Tells what is kept now, where that has changed: `Some(None)` for nothing.
    pub(super) fn done(
        &mut self,
        key: &Key,
        keep: Option<Result<u64, super::Failed>>,
        status: Option<Result<u64, super::Failed>>,
        now: Timestamp,
    ) -> Option<Option<Kept>> {
        let writing = self.writing.take()?;
        let failed = matches!(keep, Some(Err(_))) || matches!(status, Some(Err(_)));
        if let Some(Ok(version)) = status {
            self.reported = writing.reported;
            self.version = self.version.max(version);
        }
        self.failures = if failed { self.failures.saturating_add(1) } else { 0 };
        self.retry_at = failed.then(|| now + timing::pause(self.failures, self.spread()));
        match (keep?, writing.keep?) {
            (Ok(version), Keep::Store(good)) => Some(Some(Kept { key: key.clone(), uid: Arc::clone(&self.uid), good, version })),
            (Ok(_), Keep::Discard) => Some(None),
            (Err(_), _) => None,
        }
    }

    /// What is to be written, if anything; taken down as being written. Tells, too, whether the resource waits for workers.
    pub(super) fn want(&mut self, key: &Key, kept: Option<&Kept>, workers: &Workers, now: Timestamp) -> (Wants, bool) {
        let Some(accepted) = self.verdict.clone() else { return (Wants::Nothing, false) };
        let ready = (key.kind != Kind::Siem).then(|| self.ready(key, accepted.truth == Truth::True, workers));
        let waits = accepted.truth == Truth::True && ready.as_ref().is_some_and(|ready| ready.truth != Truth::True);
        if self.writing.is_some() {
            return (Wants::Nothing, waits);
        }
        let keep = self.keep(accepted.truth == Truth::True, kept);
        let difference = self.difference(&accepted, ready.as_ref(), now);
        match difference {
            Difference::MayPass(_) => {}
            Difference::No | Difference::Yes => self.differs_since = None,
        }
        let writes_status = match difference {
            Difference::No => false,
            Difference::Yes => true,
            Difference::MayPass(time) => {
                let since = *self.differs_since.get_or_insert(now);
                if since + time > now && keep.is_none() {
                    return (Wants::Later(since + time), waits);
                }
                since + time <= now
            }
        };
        if !writes_status && keep.is_none() {
            return (Wants::Nothing, waits);
        }
        if let Some(retry_at) = self.retry_at.filter(|at| *at > now) {
            return (Wants::Later(retry_at), waits);
        }
        let status = writes_status.then(|| self.status(key, &accepted, ready.as_ref(), now));
        let reported = self.will_be_reported(key, &accepted, ready.as_ref(), now);
        self.writing = Some(Box::new(Writing { reported, keep: keep.clone() }));
        (Wants::Writes { keep, status }, waits)
    }

    /// `Ready`: whether the workers run it.
    fn ready(&self, key: &Key, accepted: bool, workers: &Workers) -> Says {
        let Some(good) = &self.good else {
            return Says::new(Truth::False, "NotAccepted", "no version of it has been accepted, so none runs");
        };
        let spread = workers.spread(key.kind, &key.name, good.generation);
        let Spread { running, silent, all } = spread;
        let workers = if all == 1 { "worker" } else { "workers" };
        let not_known = if silent > 0 { format!("; {silent} do not say what they run") } else { String::new() };
        if !accepted {
            let before = good.generation;
            let message = format!("generation {before}, the last good one, is programmed in {running} of {all} {workers}{not_known}");
            return Says::new(Truth::False, "LastGoodVersion", message);
        }
        let message = format!("programmed in {running} of {all} {workers}{not_known}");
        match spread {
            Spread { all: 0, .. } => Says::new(Truth::Unknown, "NoWorkers", "no worker that would run it is ready"),
            Spread { running, all, .. } if running == all => Says::new(Truth::True, "Programmed", message),
            Spread { running, silent, all } if running + silent == all => Says::new(Truth::Unknown, "Programming", message),
            _ => Says::new(Truth::False, "Programming", message),
        }
    }

    /// What is to become of the last good version that is kept for the workers' next start.
    fn keep(&self, accepted: bool, kept: Option<&Kept>) -> Option<Keep> {
        if accepted {
            return kept.map(|_| Keep::Discard);
        }
        let good = self.good.as_ref().filter(|good| good.spec.len() <= MAX_KEPT)?;
        let is_kept = kept.is_some_and(|kept| kept.uid == self.uid && kept.good == *good);
        (!is_kept).then(|| Keep::Store(good.clone()))
    }

    fn difference(&self, accepted: &Says, ready: Option<&Says>, now: Timestamp) -> Difference {
        let print = |says: &Says| says.shown(self.generation, now).print;
        let reported = &self.reported;
        // A Siem's generation is told by who runs it.
        let other_generation = ready.is_some() && reported.observed_generation != Some(self.generation);
        if other_generation || reported.accepted.map(|shown| shown.print) != Some(print(accepted)) {
            return Difference::Yes;
        }
        match (ready, reported.ready) {
            (None, _) => Difference::No,
            (Some(_), None) => Difference::Yes,
            (Some(ready), Some(shown)) if shown.print == print(ready) => Difference::No,
            (Some(_), Some(shown)) if shown.truth == Truth::True => Difference::MayPass(timing::SETTLE),
            (Some(ready), Some(_)) if ready.truth == Truth::True => Difference::Yes,
            (Some(_), Some(_)) => Difference::MayPass(timing::PROGRESS),
        }
    }

    fn status(&self, key: &Key, accepted: &Says, ready: Option<&Says>, now: Timestamp) -> NewStatus {
        let mut conditions = vec![accepted.condition(ACCEPTED, self.generation, self.reported.accepted, now)];
        conditions.extend(ready.map(|ready| ready.condition(READY, self.generation, self.reported.ready, now)));
        let observed_generation = (key.kind != Kind::Siem).then_some(self.generation);
        NewStatus { observed_generation, conditions, notice: self.notice(accepted) }
    }

    /// What people are told of: a resource is refused, or accepted after it was.
    fn notice(&self, accepted: &Says) -> Option<Notice> {
        let before = self.reported.accepted.map(|shown| shown.truth);
        let (warning, reason) = match (before, accepted.truth) {
            (Some(Truth::False), Truth::True) => (false, "Accepted"),
            (None | Some(Truth::True | Truth::Unknown), Truth::False) => (true, accepted.reason),
            _ => return None,
        };
        Some(Notice { warning, reason, note: accepted.message.clone().into_owned() })
    }

    fn will_be_reported(&self, key: &Key, accepted: &Says, ready: Option<&Says>, now: Timestamp) -> Reported {
        let since = |says: &Says, shown: Option<super::conditions::Shown>| {
            let mut new = says.shown(self.generation, now);
            if let Some(shown) = shown.filter(|shown| shown.truth == new.truth) {
                new.since = shown.since;
            }
            new
        };
        Reported {
            observed_generation: if key.kind == Kind::Siem { self.reported.observed_generation } else { Some(self.generation) },
            accepted: Some(since(accepted, self.reported.accepted)),
            ready: ready.map(|ready| since(ready, self.reported.ready)).or(self.reported.ready),
        }
    }

    /// A number of its own, so that not all do the same at the same time.
    fn spread(&self) -> u64 {
        BuildHasherDefault::<DefaultHasher>::default().hash_one(&*self.uid)
    }
}
