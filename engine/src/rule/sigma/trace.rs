//! Why a Sigma detection is or is not true of an event: rsigma's trace, put into words.

use super::Sigma;
use crate::rule::{
    event_view::EventView,
    finding::{Finding, Step},
};
use rsigma_eval::{ConditionTrace, DetectionTrace, ItemTrace, MatchReason, MatcherKind, SelectionBranch, explain_rule};

impl Sigma {
    /// Each selection and field condition of the detection, with what the event says to it.
    pub(in crate::rule) fn explain(&self, event: &EventView<'_>) -> Finding {
        let explanation = explain_rule(&self.compiled(), event);
        let children = explanation.conditions.into_iter().map(condition).collect();
        group(Step::Condition, format!("condition: {}", self.condition), explanation.matched, children)
    }
}

fn group(step: Step, what: impl Into<String>, held: bool, children: Vec<Finding>) -> Finding {
    Finding { step, held, what: what.into(), actual: None, children }
}

fn condition(trace: ConditionTrace) -> Finding {
    match trace {
        ConditionTrace::Selection { name, matched, detection } => selection(&name, matched, detection),
        ConditionTrace::And { matched, children } => {
            group(Step::All, "all of these", matched, children.into_iter().map(condition).collect())
        }
        ConditionTrace::Or { matched, children } => {
            group(Step::Any, "any of these", matched, children.into_iter().map(condition).collect())
        }
        ConditionTrace::Not { matched, child } => group(Step::Not, "not", matched, vec![condition(*child)]),
        ConditionTrace::Quantified { matched, need, got, branches, .. } => {
            let what = format!("at least {need} of these {}, of which {got} hold", branches.len());
            let branches = branches.into_iter().map(|SelectionBranch { name, matched, detection }| selection(&name, matched, detection));
            group(Step::AtLeast, what, matched, branches.collect())
        }
    }
}

fn selection(name: &str, held: bool, trace: DetectionTrace) -> Finding {
    match trace {
        DetectionTrace::AllOf { items, .. } => group(Step::Selection, name, held, items.into_iter().map(item).collect()),
        other => group(Step::Selection, name, held, vec![detection(other)]),
    }
}

fn detection(trace: DetectionTrace) -> Finding {
    match trace {
        DetectionTrace::AllOf { matched, mut items } => match items.pop() {
            Some(only) if items.is_empty() => item(only),
            last => group(Step::All, "all of these", matched, items.into_iter().chain(last).map(item).collect()),
        },
        DetectionTrace::AnyOf { matched, branches } => {
            group(Step::Any, "any of these", matched, branches.into_iter().map(detection).collect())
        }
        DetectionTrace::And { matched, branches } => {
            group(Step::All, "all of these", matched, branches.into_iter().map(detection).collect())
        }
        DetectionTrace::Keywords { item: keywords, .. } => item(keywords),
        DetectionTrace::Conditional { matched, condition: inner } => group(Step::Condition, "condition", matched, vec![condition(*inner)]),
        DetectionTrace::ArrayMatch { field, quantifier, matched, members, .. } => {
            let members = members.into_iter().map(|member| detection(member.detection)).collect();
            group(Step::AtLeast, format!("{quantifier} of the members of {field}"), matched, members)
        }
        DetectionTrace::Other { kind, matched } => group(Step::Test, kind, matched, Vec::new()),
    }
}

fn item(trace: ItemTrace) -> Finding {
    let ItemTrace { field, matcher, pattern, actual, matched, reason } = trace;
    let field = field.unwrap_or_else(|| "some text of the event".to_owned());
    let pattern = pattern.unwrap_or_default();
    let mut what = match matcher {
        MatcherKind::Exact | MatcherKind::Bool | MatcherKind::Expand => format!("{field} is {pattern:?}"),
        MatcherKind::Contains | MatcherKind::Keyword => format!("{field} contains {pattern:?}"),
        MatcherKind::StartsWith => format!("{field} starts with {pattern:?}"),
        MatcherKind::EndsWith => format!("{field} ends with {pattern:?}"),
        MatcherKind::Regex => format!("{field} matches /{pattern}/"),
        MatcherKind::OneOf => format!("{field} fits one or more of: {pattern}"),
        MatcherKind::Cidr => format!("{field} lies in {pattern}"),
        MatcherKind::Numeric | MatcherKind::Timestamp => format!("{field} {pattern}"),
        MatcherKind::Exists => format!("{field} exists: {pattern}"),
        MatcherKind::FieldRef => format!("{field} equals the field {pattern}"),
        MatcherKind::Null => format!("{field} is null or absent"),
    };
    if reason == MatchReason::CaseMismatch {
        what.push_str(" (but for letter case)");
    }
    if reason == MatchReason::FieldAbsent {
        what.push_str(" (the event has no such field)");
    }
    Finding { step: Step::Test, held: matched, what, actual, children: Vec::new() }
}
