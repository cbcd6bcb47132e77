//! All Enrichments in order, run over one event after the other.

use std::sync::Arc;

use super::{Applied, FAILED_TAG, Failure, Step, Verdict, transit::Transit};
use crate::event::Event;

/// All Enrichments in order.
#[derive(Debug, Default)]
pub struct Chain {
    steps: Vec<Arc<Step>>,
}

impl Chain {
    /// Puts steps in order: by `order`, then by name.
    #[must_use]
    pub fn new(mut steps: Vec<Arc<Step>>) -> Self {
        steps.sort_by(|a, b| (a.order, &a.name).cmp(&(b.order, &b.name)));
        Self { steps }
    }

    /// The names of the steps, in the order in which they run.
    #[cfg(test)]
    pub(super) fn names(&self) -> impl Iterator<Item = &str> {
        self.steps.iter().map(|step| &*step.name)
    }

    /// Runs all steps over an event. A step that fails leaves the event as it was before the step, tags it [`FAILED_TAG`], and is
    /// reported in `failures`; the next step runs.
    ///
    /// A dropped event holds what the steps before the drop made of it.
    pub fn run(&self, event: &mut Event, failures: &mut Vec<Failure>) -> Verdict {
        let mut transit = Transit::new(event);
        let mut verdict = Verdict::Keep;
        for step in &self.steps {
            match step.apply(&mut transit) {
                Ok(Applied::NotMeant | Applied::Kept) => {}
                Ok(Applied::Dropped { reason }) => {
                    verdict = Verdict::Drop { enrichment: step.name.to_string(), reason };
                    break;
                }
                Err(message) => {
                    transit.tag(FAILED_TAG);
                    failures.push(Failure { enrichment: step.name.to_string(), message });
                }
            }
        }
        transit.finish();
        verdict
    }
}
