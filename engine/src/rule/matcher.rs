//! Which events are meant: by Sigma, or by an expression in VRL. Rules, thresholds and exceptions ask in the same way.

use std::sync::Arc;

use redoubt_crds::Object;

use super::{
    event_view::EventView,
    finding::{Finding, Step},
    sigma::{About, Sigma, Use},
};
use crate::{diagnostic::Problem, enrich::vrl::Predicate, event::Event};

/// One question to an event.
pub(super) enum Matcher {
    /// A Sigma detection.
    Sigma(Arc<Sigma>),
    /// A VRL expression, and its source.
    When(Box<Predicate>, String),
    /// Others ask it, and only what they found is counted here: it is true of no event.
    Elsewhere,
}

impl Matcher {
    /// Makes the question ready. `field` is where `sigma` and `when` stand in the resource.
    pub(super) fn compile(sigma: Option<&Object>, when: Option<&str>, field: &str, usage: Use) -> Result<(Self, About), Vec<Problem>> {
        match (sigma, when) {
            (Some(object), None) => {
                Sigma::compile(&object.0, &format!("{field}.sigma"), usage).map(|(sigma, about)| (Self::Sigma(Arc::new(sigma)), about))
            }
            (None, Some(source)) => Predicate::compile(source, &format!("{field}.when"))
                .map(|predicate| (Self::When(Box::new(predicate), source.to_owned()), About::default())),
            _ => Err(vec![Problem::new(field, "exactly one of sigma and when is needed", "keep one of them")]),
        }
    }

    /// Whether it is true of the event. The logsource is not asked.
    ///
    /// # Errors
    /// The expression came to no answer, such as a division by zero.
    pub(super) fn holds(&self, event: &Event, view: &EventView<'_>) -> Result<bool, String> {
        match self {
            Self::Sigma(sigma) => Ok(sigma.holds(view)),
            Self::When(predicate, _) => predicate.test(event),
            Self::Elsewhere => Ok(false),
        }
    }

    /// What it asks, and what the event says to it.
    pub(super) fn explain(&self, event: &Event, view: &EventView<'_>) -> Finding {
        match self {
            Self::Sigma(sigma) => sigma.explain(view),
            Self::When(predicate, source) => {
                let answer = predicate.test(event);
                let held = answer.as_ref().is_ok_and(|held| *held);
                let what = match answer {
                    Ok(_) => format!("when: {source}"),
                    Err(error) => format!("when: {source}, which came to no answer: {error}"),
                };
                Finding { step: Step::Test, held, what, actual: None, children: Vec::new() }
            }
            Self::Elsewhere => {
                Finding { step: Step::Test, held: false, what: "asked elsewhere".to_owned(), actual: None, children: Vec::new() }
            }
        }
    }
}
