//! Enrichments: what happens to events between parsing and matching, in declared order.
//!
//! [`Step::compile`] makes one Enrichment ready: a VRL program, a look-up in a [`Watchlist`], GeoIP, or a drop, each behind an optional
//! `when`. A [`Chain`] runs all of them over an event. What comes out is a function of the event and the resources alone; no clock is
//! read (a Watchlist entry's expiry is held against the time of the event's *receipt*), so a redelivered event meets the same fate.
//!
//! A step that fails changes nothing: the event stands as it was before the step, plus the tag [`FAILED_TAG`].

mod chain;
mod geoip;
mod lookup;
mod path;
mod testing;
#[cfg(test)]
mod tests;
mod transit;
pub mod vrl;
mod watchlist;

use std::{collections::BTreeMap, fmt, path::PathBuf, sync::Arc};

use redoubt_crds::{EnrichmentSpec, EnrichmentTest};

use self::{geoip::GeoIp, lookup::Lookup, transit::Transit};
use crate::{diagnostic::Problem, rule::TestOutcome};

pub use self::{
    chain::Chain,
    vrl::{Predicate, VrlEvent},
    watchlist::Watchlist,
};

/// The tag of an event that a step failed on.
pub const FAILED_TAG: &str = "_enrichment_failed";

/// Bytes that resources refer to by path, read by whoever calls the engine.
pub type Assets = BTreeMap<PathBuf, Arc<[u8]>>;

/// One Enrichment made ready.
pub struct Step {
    name: Arc<str>,
    order: i32,
    when: Option<Predicate>,
    action: Action,
    tests: Vec<EnrichmentTest>,
}

/// What a step does to an event.
enum Action {
    Vrl(vrl::Program),
    Lookup(Lookup),
    GeoIp(GeoIp),
    Drop { reason: String },
}

impl Step {
    /// Makes an Enrichment ready. Its tests are not run here; see [`Step::run_tests`].
    ///
    /// # Errors
    /// Every problem found: a program that does not compile (with its line and column), a Watchlist or database that is not there, a
    /// path that cannot be written.
    pub fn compile(
        name: &str,
        spec: &EnrichmentSpec,
        watchlists: &BTreeMap<String, Arc<Watchlist>>,
        assets: &Assets,
    ) -> Result<Self, Vec<Problem>> {
        let mut problems = Vec::new();
        let when = spec.when.as_deref().and_then(|source| keep(Predicate::compile(source, "spec.when"), &mut problems));
        let action = match (&spec.vrl, &spec.lookup, &spec.geoip, &spec.drop) {
            (Some(program), None, None, None) => {
                keep(vrl::Program::compile(&program.source, "spec.vrl.source"), &mut problems).map(Action::Vrl)
            }
            (None, Some(lookup), None, None) => keep(Lookup::compile(lookup, watchlists), &mut problems).map(Action::Lookup),
            (None, None, Some(geoip), None) => keep(GeoIp::compile(geoip, assets), &mut problems).map(Action::GeoIp),
            (None, None, None, Some(drop)) => Some(Action::Drop { reason: drop.reason.clone() }),
            _ => {
                problems.push(Problem::new("spec", "an Enrichment does one thing", "declare exactly one of vrl, lookup, geoip and drop"));
                None
            }
        };
        match action {
            Some(action) if problems.is_empty() => {
                Ok(Self { name: name.into(), order: spec.order, when, action, tests: spec.tests.clone() })
            }
            _ => Err(problems),
        }
    }

    /// Name of the Enrichment.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Runs the Enrichment's own tests through this step alone, in their order.
    #[must_use]
    pub fn run_tests(&self) -> Vec<TestOutcome> {
        self.tests.iter().enumerate().map(|(index, test)| testing::run(self, index, test)).collect()
    }

    /// Runs the step over one event. After an error the event is as it was.
    fn apply(&self, event: &mut Transit<'_>) -> Result<Applied, String> {
        if let Some(when) = &self.when
            && !event.test(when).map_err(|error| format!("when: {error}"))?
        {
            return Ok(Applied::NotMeant);
        }
        match &self.action {
            Action::Vrl(program) => event.run(program)?,
            Action::Lookup(lookup) => lookup.apply(event),
            Action::GeoIp(geoip) => geoip.apply(event)?,
            Action::Drop { reason } => return Ok(Applied::Dropped { reason: reason.clone() }),
        }
        Ok(Applied::Kept)
    }
}

impl fmt::Debug for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Step").field("name", &self.name).field("order", &self.order).finish_non_exhaustive()
    }
}

/// What a step did.
enum Applied {
    /// Nothing: its `when` is not true of the event.
    NotMeant,
    /// Its work; the event goes on.
    Kept,
    /// The event goes no further.
    Dropped { reason: String },
}

/// The value of a result, its problems put with the others.
fn keep<T>(result: Result<T, Vec<Problem>>, problems: &mut Vec<Problem>) -> Option<T> {
    match result {
        Ok(value) => Some(value),
        Err(found) => {
            problems.extend(found);
            None
        }
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
