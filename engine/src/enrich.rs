//! Enrichments: what happens to events between parsing and matching, in declared order.

use std::{collections::BTreeMap, path::PathBuf, sync::Arc};

use redoubt_crds::{EnrichmentSpec, WatchlistSpec};

use crate::{diagnostic::Problem, event::Event};

/// Bytes that resources refer to by path, read by whoever calls the engine.
pub type Assets = BTreeMap<PathBuf, Arc<[u8]>>;

/// A Watchlist made ready for look-ups.
pub struct Watchlist {}

impl Watchlist {
    /// Makes a Watchlist ready.
    ///
    /// # Errors
    /// Every entry that is not of the list's kind, or whose expiry is no time.
    pub fn compile(name: &str, spec: &WatchlistSpec) -> Result<Self, Vec<Problem>> {
        let _ = (name, spec);
        unimplemented!()
    }
}

/// One Enrichment made ready.
pub struct Step {}

impl Step {
    /// Makes an Enrichment ready, and runs its tests.
    ///
    /// # Errors
    /// Every problem found: a program that does not compile (with its line and column), a Watchlist or database that is not there,
    /// a test that does not hold (with what came out instead).
    pub fn compile(
        name: &str,
        spec: &EnrichmentSpec,
        watchlists: &BTreeMap<String, Arc<Watchlist>>,
        assets: &Assets,
    ) -> Result<Self, Vec<Problem>> {
        let _ = (name, spec, watchlists, assets);
        unimplemented!()
    }
}

/// What a step's failure looks like to the counters.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// Name of the Enrichment.
    pub enrichment: String,
    /// What went wrong.
    pub message: String,
}

/// What became of an event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// It goes on.
    Keep,
    /// A declared drop, with the Enrichment's name and reason.
    Drop {
        /// Name of the Enrichment.
        enrichment: String,
        /// The declared reason.
        reason: String,
    },
}

/// All Enrichments in order.
#[derive(Default)]
pub struct Chain {}

impl Chain {
    /// Puts steps in order: by `order`, then by name.
    #[must_use]
    pub fn new(steps: Vec<Arc<Step>>) -> Self {
        let _ = steps;
        unimplemented!()
    }

    /// Runs all steps over an event. A step that fails leaves the event as it was before the step, tags it `_enrichment_failed`, and
    /// is reported in `failures`; the next step runs.
    pub fn run(&self, event: &mut Event, failures: &mut Vec<Failure>) -> Verdict {
        let _ = (event, failures);
        unimplemented!()
    }
}
