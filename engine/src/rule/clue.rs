//! What an event must have about it for a Sigma rule to be true of it.
//!
//! A [`Clue`] is cheap to look for in many rules at once, and that is what [`Candidates`](super::candidates::Candidates) does. A rule has
//! a set of clues of which at least one shows in every event that the rule is true of. Of a conjunction the best part is taken, of a
//! disjunction every part is needed, and what cannot be understood gives none: too few clues cost time, a wrong one would lose an alert.
//!
//! Texts are folded as the detection core folds them before it compares. A rule that heeds case has its texts folded too, which only
//! widens what fits; but one that is not ASCII is passed over, since some letters fold by their place in the word.

use std::collections::HashMap;

use regex_syntax::hir::{Hir, HirKind};
use rsigma_eval::{CompiledDetection, CompiledDetectionItem, CompiledMatcher, CompiledRule, matcher::GroupMode};
use rsigma_parser::{ArrayQuantifier, ConditionExpr, Quantifier};

/// Shorter texts are in nearly every event.
const TELLING: usize = 8;
/// Shorter literals of a regular expression say too little.
const LEAST_LITERAL: usize = 3;

/// One thing that an event may have about it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Clue {
    /// The folded value of the field, or a member of it, is this.
    Is { field: String, text: String },
    /// The folded value of the field, or a member of it, holds this.
    Holds { field: String, text: String },
    /// Some text of the event holds this.
    Somewhere { text: String },
    /// The field is there.
    Present { field: String },
}

impl Clue {
    /// The lower, the fewer events have it.
    fn commonness(&self) -> u8 {
        match self {
            Self::Is { .. } => 0,
            Self::Holds { text, .. } if text.len() >= TELLING => 1,
            Self::Holds { .. } => 2,
            Self::Somewhere { text } if text.len() >= TELLING => 3,
            Self::Somewhere { .. } => 4,
            Self::Present { .. } => 5,
        }
    }
}

/// Clues of which at least one must show; `None` where nothing is known, so that the rule has to be asked of every event.
pub(super) type Clues = Option<Vec<Clue>>;

/// The clues of a rule.
pub(super) fn clues(rule: &CompiledRule) -> Clues {
    if rule.conditions.is_empty() {
        return None;
    }
    let mut clues = any_of(rule.conditions.iter().map(|condition| of_condition(condition, &rule.detections)))?;
    clues.sort();
    clues.dedup();
    Some(clues)
}

/// Whichever part holds, its clues are among them.
fn any_of(parts: impl Iterator<Item = Clues>) -> Clues {
    let all: Vec<Vec<Clue>> = parts.collect::<Option<_>>()?;
    Some(all.concat()).filter(|clues| !clues.is_empty())
}

/// All parts hold, so that the clues of any of them will do: the ones that the fewest events have.
fn all_of(parts: impl Iterator<Item = Clues>) -> Clues {
    let worth = |clues: &Vec<Clue>| (clues.iter().map(Clue::commonness).max(), clues.len());
    parts.flatten().min_by_key(worth)
}

fn of_condition(condition: &ConditionExpr, detections: &HashMap<String, CompiledDetection>) -> Clues {
    match condition {
        ConditionExpr::Identifier(name) => of_detection(detections.get(name)?),
        ConditionExpr::And(parts) => all_of(parts.iter().map(|part| of_condition(part, detections))),
        ConditionExpr::Or(parts) => any_of(parts.iter().map(|part| of_condition(part, detections))),
        ConditionExpr::Not(_) => None,
        ConditionExpr::Selector { quantifier, pattern } => {
            let selected =
                detections.iter().filter(|(name, _)| pattern.matches_detection_name(name)).map(|(_, detection)| of_detection(detection));
            match quantifier {
                Quantifier::All => all_of(selected),
                Quantifier::Count(0) => None,
                Quantifier::Any | Quantifier::Count(_) => any_of(selected),
            }
        }
    }
}

fn of_detection(detection: &CompiledDetection) -> Clues {
    match detection {
        CompiledDetection::AllOf(items) => all_of(items.iter().map(of_item)),
        CompiledDetection::AnyOf(parts) => any_of(parts.iter().map(of_detection)),
        CompiledDetection::And(parts) => all_of(parts.iter().map(of_detection)),
        CompiledDetection::Keywords(matcher) => of_matcher(matcher, None),
        // What is asked of the members is not looked into; those that need a member need the list.
        CompiledDetection::ArrayMatch { field, quantifier: ArrayQuantifier::Any | ArrayQuantifier::All, .. } => present(field),
        CompiledDetection::ArrayMatch { .. } | CompiledDetection::Conditional { .. } => None,
    }
}

fn of_item(item: &CompiledDetectionItem) -> Clues {
    let Some(field) = item.field.as_deref() else { return of_matcher(&item.matcher, None) };
    match (item.exists, &item.matcher) {
        (Some(false), _) | (None, CompiledMatcher::Null) => None,
        (Some(true), _) => present(field),
        // Only `null` is true of a field that is not there.
        (None, matcher) => of_matcher(matcher, Some(field)).or_else(|| present(field)),
    }
}

fn present(field: &str) -> Clues {
    Some(vec![Clue::Present { field: field.to_owned() }])
}

/// `field` is where the matcher looks; a keyword looks everywhere.
fn of_matcher(matcher: &CompiledMatcher, field: Option<&str>) -> Clues {
    match matcher {
        CompiledMatcher::Exact { value, case_insensitive } => {
            let text = folded(value, *case_insensitive)?;
            Some(vec![match field {
                Some(field) => Clue::Is { field: field.to_owned(), text },
                None => Clue::Somewhere { text },
            }])
        }
        CompiledMatcher::Contains { value, case_insensitive }
        | CompiledMatcher::StartsWith { value, case_insensitive }
        | CompiledMatcher::EndsWith { value, case_insensitive } => holds(value, *case_insensitive, field),
        CompiledMatcher::AhoCorasickSet { needles, case_insensitive, .. } => {
            any_of(needles.iter().map(|needle| holds(needle, *case_insensitive, field)))
        }
        CompiledMatcher::Regex(regex) => of_regex(regex.as_str(), field),
        CompiledMatcher::RegexSetMatch { set, mode } => grouped(*mode, set.patterns().iter().map(|pattern| of_regex(pattern, field))),
        CompiledMatcher::AnyOf(parts) => grouped(GroupMode::Any, parts.iter().map(|part| of_matcher(part, field))),
        CompiledMatcher::AllOf(parts) => grouped(GroupMode::All, parts.iter().map(|part| of_matcher(part, field))),
        CompiledMatcher::CaseInsensitiveGroup { children, mode } => grouped(*mode, children.iter().map(|part| of_matcher(part, field))),
        // These are true of values whose text is not known.
        CompiledMatcher::Cidr(_)
        | CompiledMatcher::NumericEq(_)
        | CompiledMatcher::NumericGt(_)
        | CompiledMatcher::NumericGte(_)
        | CompiledMatcher::NumericLt(_)
        | CompiledMatcher::NumericLte(_)
        | CompiledMatcher::Exists(_)
        | CompiledMatcher::FieldRef { .. }
        | CompiledMatcher::Null
        | CompiledMatcher::BoolEq(_)
        | CompiledMatcher::Expand { .. }
        | CompiledMatcher::TimestampPart { .. }
        | CompiledMatcher::Not(_) => None,
    }
}

fn grouped(mode: GroupMode, parts: impl Iterator<Item = Clues>) -> Clues {
    match mode {
        GroupMode::Any => any_of(parts),
        GroupMode::All => all_of(parts),
    }
}

fn holds(value: &str, case_insensitive: bool, field: Option<&str>) -> Clues {
    let text = folded(value, case_insensitive)?;
    Some(vec![match field {
        Some(field) => Clue::Holds { field: field.to_owned(), text },
        None => Clue::Somewhere { text },
    }])
}

/// A text that does not heed case is folded already.
fn folded(value: &str, case_insensitive: bool) -> Option<String> {
    match value {
        "" => None,
        _ if case_insensitive => Some(value.to_owned()),
        _ => value.is_ascii().then(|| value.to_ascii_lowercase()),
    }
}

fn of_regex(pattern: &str, field: Option<&str>) -> Clues {
    let hir = regex_syntax::ParserBuilder::new().utf8(false).build().parse(pattern).ok()?;
    any_of(literals(&hir)?.iter().map(|literal| holds(literal, false, field)))
}

/// Texts of which each match of the expression holds at least one.
fn literals(hir: &Hir) -> Option<Vec<String>> {
    let least = |found: &Vec<String>| found.iter().map(String::len).min().unwrap_or(0);
    let found = match hir.kind() {
        HirKind::Literal(literal) => Some(vec![String::from_utf8(literal.0.to_vec()).ok()?]),
        HirKind::Concat(parts) => parts.iter().filter_map(literals).max_by_key(least),
        HirKind::Alternation(parts) => Some(parts.iter().map(literals).collect::<Option<Vec<_>>>()?.concat()),
        HirKind::Repetition(repeated) if repeated.min > 0 => literals(&repeated.sub),
        HirKind::Capture(group) => literals(&group.sub),
        _ => None,
    };
    found.filter(|found| least(found) >= LEAST_LITERAL)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn clues_of(detection: &Value) -> Clues {
        let rule = json!({"title": "t", "logsource": {"product": "p"}, "detection": detection});
        let parsed = rsigma_parser::parse_sigma_yaml(&rule.to_string()).unwrap();
        assert!(parsed.errors.is_empty(), "{:?}", parsed.errors);
        clues(&rsigma_eval::compile_rule(&parsed.rules[0]).unwrap())
    }

    fn is(field: &str, text: &str) -> Clue {
        Clue::Is { field: field.to_owned(), text: text.to_owned() }
    }

    fn has(field: &str, text: &str) -> Clue {
        Clue::Holds { field: field.to_owned(), text: text.to_owned() }
    }

    fn there(field: &str) -> Clue {
        Clue::Present { field: field.to_owned() }
    }

    #[test]
    fn a_rule_has_the_clues_without_one_of_which_it_cannot_be_true() {
        let somewhere = Clue::Somewhere { text: "mimikatz".to_owned() };
        for (name, detection, expected) in [
            ("equal", json!({"s": {"a": "Login"}, "condition": "s"}), Some(vec![is("a", "login")])),
            ("one of", json!({"s": {"a": ["x", "y"]}, "condition": "s"}), Some(vec![is("a", "x"), is("a", "y")])),
            ("with case", json!({"s": {"a|contains|cased": "WhoAmI"}, "condition": "s"}), Some(vec![has("a", "whoami")])),
            ("both", json!({"s": {"a|contains": "xy", "b": "login"}, "condition": "s"}), Some(vec![is("b", "login")])),
            ("not", json!({"s": {"a": "x"}, "condition": "not s"}), None),
            ("and not", json!({"s": {"a": "x"}, "f": {"b": "y"}, "condition": "s and not f"}), Some(vec![is("a", "x")])),
            ("either", json!({"s": {"a": "x"}, "t": {"b": "y"}, "condition": "s or t"}), Some(vec![is("a", "x"), is("b", "y")])),
            ("either or none", json!({"s": {"a": "x"}, "f": {"b": "y"}, "condition": "s or not f"}), None),
            ("1 of", json!({"s1": {"a": "x"}, "s2": {"b": "y"}, "condition": "1 of s*"}), Some(vec![is("a", "x"), is("b", "y")])),
            ("all of", json!({"s1": {"a|contains": "xy"}, "s2": {"b": "y"}, "condition": "all of s*"}), Some(vec![is("b", "y")])),
            ("keyword", json!({"s": ["Mimikatz"], "condition": "s"}), Some(vec![somewhere])),
            ("number", json!({"s": {"a|gt": 5}, "condition": "s"}), Some(vec![there("a")])),
            ("network", json!({"s": {"a|cidr": "10.0.0.0/8"}, "condition": "s"}), Some(vec![there("a")])),
            ("null", json!({"s": {"a": null}, "condition": "s"}), None),
            ("absent", json!({"s": {"a|exists": false}, "condition": "s"}), None),
            ("present", json!({"s": {"a|exists": true}, "condition": "s"}), Some(vec![there("a")])),
            ("letters that fold by place", json!({"s": {"a|cased": "ΟΔΟΣ"}, "condition": "s"}), Some(vec![there("a")])),
            ("expression", json!({"s": {"a|re": "^(get|put)-[a-z]+\\.exe$"}, "condition": "s"}), Some(vec![has("a", ".exe")])),
            ("expression of choices", json!({"s": {"a|re": "abc|def"}, "condition": "s"}), Some(vec![has("a", "abc"), has("a", "def")])),
            ("expression of a choice too short", json!({"s": {"a|re": "abc|d"}, "condition": "s"}), Some(vec![there("a")])),
            ("expression that may be empty", json!({"s": {"a|re": "(abc)*"}, "condition": "s"}), Some(vec![there("a")])),
        ] {
            assert_eq!(clues_of(&detection), expected, "{name}");
        }
    }
}
