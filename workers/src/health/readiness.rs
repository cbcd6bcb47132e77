//! How far a process has come, and what it waits for.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tracing::info;

/// How far a process has come. Clones are one.
#[derive(Debug, Clone)]
pub(crate) struct Readiness(Arc<Mutex<Stage>>);

#[derive(Debug, Clone, PartialEq, Eq)]
enum Stage {
    /// It has not started, for this reason.
    Waiting(String),
    Started,
    Stopping,
}

impl Default for Readiness {
    fn default() -> Self {
        Self(Arc::new(Mutex::new(Stage::Waiting("it begins".to_owned()))))
    }
}

impl Readiness {
    /// The start waits for this. Once it has started, nothing that is missing takes it back: what runs goes on.
    pub(crate) fn waits_for(&self, reason: impl Into<String>) {
        let reason = reason.into();
        let mut stage = self.stage();
        if let Stage::Waiting(before) = &mut *stage
            && *before != reason
        {
            info!(waiting = true, "not started yet: {reason}");
            *before = reason;
        }
    }

    pub(crate) fn started(&self) {
        *self.stage() = Stage::Started;
    }

    pub(crate) fn stopping(&self) {
        *self.stage() = Stage::Stopping;
    }

    pub(crate) fn has_started(&self) -> bool {
        *self.stage() == Stage::Started
    }

    /// Why it is not ready, if it is not.
    pub(crate) fn get(&self) -> Result<(), String> {
        match &*self.stage() {
            Stage::Waiting(reason) => Err(format!("not started: {reason}")),
            Stage::Started => Ok(()),
            Stage::Stopping => Err("shutting down".to_owned()),
        }
    }

    fn stage(&self) -> MutexGuard<'_, Stage> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_missing_counts_until_the_start_and_not_after() {
        let readiness = Readiness::default();

        readiness.waits_for("there is no Siem");
        assert_eq!(readiness.get(), Err("not started: there is no Siem".to_owned()));
        readiness.started();
        readiness.waits_for("the API is away");
        assert_eq!(readiness.get(), Ok(()));
        readiness.stopping();
        assert_eq!(readiness.get(), Err("shutting down".to_owned()));
    }
}
