//! Which of many Sigma rules may be true of an event, by their [clues](super::clue).
//!
//! An event is looked through once, whatever the number of rules: a table for values that are equal to something, and one automaton a
//! field for texts that hold something. What is found is a candidate, to be asked in earnest; what is not found cannot be true.

use std::{borrow::Cow, collections::HashMap};

use aho_corasick::AhoCorasick;
use rsigma_eval::{CompiledRule, Event as _, EventValue};
use rsigma_parser::fieldpath::unescape_brackets;

use super::{
    clue::{Clue, clues},
    event_view::EventView,
};

/// Tables that are asked for each name and each value of an event. Their keys are the rules' own, so that no event can fill them with keys
/// that clash, and a quicker hash than the standard one will do.
type Table<V> = HashMap<Box<str>, V, foldhash::fast::RandomState>;

/// The place of a rule in the list that the index was made from.
type Place = u32;

/// An index of rules.
#[derive(Default)]
pub(super) struct Candidates {
    rules: usize,
    /// Rules that every event has to be asked about.
    always: Vec<Place>,
    /// Fields with their names, by the first segment of these: an event has few segments, and rules ask for thousands of names.
    fields: Table<Vec<(Box<str>, Field)>>,
    somewhere: Option<Texts>,
}

/// What rules look for in one field.
#[derive(Default)]
struct Field {
    present: Vec<Place>,
    values: Table<Vec<Place>>,
    texts: Option<Texts>,
}

/// Texts that are looked for together.
struct Texts {
    automaton: AhoCorasick,
    /// The rules of each text.
    rules: Vec<Box<[Place]>>,
}

/// Candidates as they are found, each once.
struct Found {
    seen: Vec<bool>,
    places: Vec<Place>,
}

impl Candidates {
    /// Indexes rules by their places in the list.
    pub(super) fn new<'a>(rules: impl Iterator<Item = &'a CompiledRule>) -> Self {
        let mut index = Self::default();
        let mut texts: HashMap<String, HashMap<String, Vec<Place>>> = HashMap::new();
        let mut somewhere: HashMap<String, Vec<Place>> = HashMap::new();
        for (place, rule) in (0..).zip(rules) {
            index.rules += 1;
            let Some(clues) = clues(rule) else {
                index.always.push(place);
                continue;
            };
            for clue in clues {
                match clue {
                    Clue::Is { field, text } => index.field(&field).values.entry(text.into()).or_default().push(place),
                    Clue::Holds { field, text } => texts.entry(field).or_default().entry(text).or_default().push(place),
                    Clue::Somewhere { text } => somewhere.entry(text).or_default().push(place),
                    Clue::Present { field } => index.field(&field).present.push(place),
                }
            }
        }
        for (field, texts) in texts {
            match Texts::new(texts) {
                Ok(texts) => index.field(&field).texts = texts,
                Err(rules) => index.always.extend(rules),
            }
        }
        match Texts::new(somewhere) {
            Ok(texts) => index.somewhere = texts,
            Err(rules) => index.always.extend(rules),
        }
        index
    }

    fn field(&mut self, name: &str) -> &mut Field {
        let fields = self.fields.entry(first_segment(name).into()).or_default();
        let at = fields.iter().position(|(known, _)| **known == *name).unwrap_or_else(|| {
            fields.push((name.into(), Field::default()));
            fields.len() - 1
        });
        &mut fields[at].1
    }

    /// The places of the rules that may be true of the event, in order.
    pub(super) fn of(&self, event: &EventView<'_>) -> Vec<Place> {
        let mut found = Found { seen: vec![false; self.rules], places: Vec::new() };
        found.add(&self.always);
        event.visit_top_level_keys(&mut |key| {
            for (name, field) in self.fields.get(key).into_iter().flatten() {
                if let Some(value) = event.get_field(name) {
                    field.look(&value, &mut found);
                }
            }
        });
        if let Some(texts) = &self.somewhere {
            event.visit_string_values(&mut |text| texts.look(&fold(text), &mut found));
        }
        found.places.sort_unstable();
        found.places
    }
}

/// The key of an event by which a field can be found, as the view of the event tells its keys.
fn first_segment(name: &str) -> String {
    let name = unescape_brackets(name);
    name.split_once('.').map_or(&*name, |(segment, _)| segment).to_owned()
}

impl Field {
    fn look(&self, value: &EventValue<'_>, found: &mut Found) {
        found.add(&self.present);
        if !self.values.is_empty() || self.texts.is_some() {
            self.look_into(value, found);
        }
    }

    /// A list is whatever one of its members is; an object is nothing.
    fn look_into(&self, value: &EventValue<'_>, found: &mut Found) {
        if let EventValue::Array(members) = value {
            members.iter().for_each(|member| self.look_into(member, found));
        } else if let Some(text) = value.as_str() {
            let text = fold(&text);
            if let Some(rules) = self.values.get(&*text) {
                found.add(rules);
            }
            if let Some(texts) = &self.texts {
                texts.look(&text, found);
            }
        }
    }
}

impl Texts {
    /// `Err` with the rules, should there be more texts than an automaton can hold.
    fn new(texts: HashMap<String, Vec<Place>>) -> Result<Option<Self>, Vec<Place>> {
        if texts.is_empty() {
            return Ok(None);
        }
        let (texts, rules): (Vec<String>, Vec<Box<[Place]>>) = texts.into_iter().map(|(text, rules)| (text, rules.into())).unzip();
        match AhoCorasick::new(&texts) {
            Ok(automaton) => Ok(Some(Self { automaton, rules })),
            Err(_) => Err(rules.concat()),
        }
    }

    fn look(&self, text: &str, found: &mut Found) {
        for hit in self.automaton.find_overlapping_iter(text) {
            found.add(&self.rules[hit.pattern().as_usize()]);
        }
    }
}

impl Found {
    fn add(&mut self, places: &[Place]) {
        for place in places {
            let seen = &mut self.seen[*place as usize];
            if !*seen {
                *seen = true;
                self.places.push(*place);
            }
        }
    }
}

/// As the detection core folds a value before it compares.
fn fold(text: &str) -> Cow<'_, str> {
    match (text.is_ascii(), text.bytes().any(|byte| byte.is_ascii_uppercase())) {
        (true, false) => Cow::Borrowed(text),
        (true, true) => Cow::Owned(text.to_ascii_lowercase()),
        (false, _) => Cow::Owned(text.to_lowercase()),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;
    use crate::rule::fixture::event;

    fn rule(detection: &Value) -> CompiledRule {
        let rule = json!({"title": "t", "logsource": {"product": "p"}, "detection": detection});
        let parsed = rsigma_parser::parse_sigma_yaml(&rule.to_string()).unwrap();
        rsigma_eval::compile_rule(&parsed.rules[0]).unwrap()
    }

    #[test]
    fn an_event_meets_the_rules_that_may_be_true_of_it() {
        let rules = [
            rule(&json!({"s": {"Image|endswith": "\\cmd.exe"}, "condition": "s"})),
            rule(&json!({"s": {"User": ["Alice", "Bob"]}, "condition": "s"})),
            rule(&json!({"s": ["mimikatz"], "condition": "s"})),
            rule(&json!({"s": {"userIdentity.type": "Root"}, "condition": "s"})),
            rule(&json!({"s": {"Count|gt": 3}, "condition": "s"})),
            rule(&json!({"s": {"User": "Alice"}, "condition": "not s"})),
        ];
        let index = Candidates::new(rules.iter());

        for (name, details, expected) in [
            ("nothing but what is asked of all", json!({"Other": "x"}), vec![5]),
            ("a text in a field", json!({"Image": "C:\\Windows\\CMD.exe"}), vec![0, 5]),
            ("the text in another field", json!({"Other": "\\cmd.exe"}), vec![5]),
            ("a value", json!({"User": "BOB"}), vec![1, 5]),
            ("more than the value", json!({"User": "BOBBY"}), vec![5]),
            ("a value in a list", json!({"User": ["carol", "alice"]}), vec![1, 5]),
            ("a keyword", json!({"Anything": {"deep": "Invoke-Mimikatz"}}), vec![2, 5]),
            ("a path", json!({"userIdentity": {"type": "Root"}}), vec![3, 5]),
            ("a path written as one key", json!({"userIdentity.type": "Root"}), vec![3, 5]),
            ("a field that is there", json!({"Count": 1}), vec![4, 5]),
        ] {
            assert_eq!(index.of(&EventView::new(&event(json!({"details": details})))), expected, "{name}");
        }
    }

    /// Few fields and few letters, so that rules and events meet often; some letters change their length or their bytes when folded.
    fn text() -> impl Strategy<Value = String> {
        proptest::collection::vec(proptest::sample::select(vec!["a", "A", "b", "1", "ß", "İ", "Σ", "K", "\\", "."]), 1..5)
            .prop_map(|letters| letters.concat())
    }

    fn selection() -> impl Strategy<Value = Value> {
        let field = proptest::sample::select(vec!["a", "b", "a.b", "User"]);
        let modifier = proptest::sample::select(vec![
            "",
            "|contains",
            "|startswith",
            "|endswith",
            "|contains|all",
            "|cased",
            "|contains|cased",
            "|exists",
            "|gt",
            "|neq",
            "|re",
            "|re|i",
            "|windash",
        ]);
        let item = (field, modifier, proptest::collection::vec(text(), 1..4)).prop_map(|(field, modifier, texts)| {
            let value = match modifier {
                "|exists" => json!(texts.len() > 1),
                "|gt" => json!(texts.len()),
                "|re" | "|re|i" => json!(texts.iter().map(|text| regex_syntax::escape(text)).collect::<Vec<_>>().join("|")),
                _ => json!(texts),
            };
            (format!("{field}{modifier}"), value)
        });
        let items = proptest::collection::vec(item, 1..3).prop_map(|items| Value::Object(items.into_iter().collect())).boxed();
        prop_oneof![
            4 => items.clone(),
            1 => proptest::collection::vec(items, 1..3).prop_map(Value::from),
            1 => proptest::collection::vec(text(), 1..3).prop_map(Value::from),
            1 => Just(json!({"a": null})),
        ]
    }

    fn detection() -> impl Strategy<Value = Value> {
        let condition = proptest::sample::select(vec![
            "s1",
            "s1 and s2",
            "s1 or s2",
            "s1 and not s2",
            "not s1",
            "1 of s*",
            "all of s*",
            "not 1 of s*",
            "s1 or not s2",
        ]);
        (selection(), selection(), condition).prop_map(|(s1, s2, condition)| json!({"s1": s1, "s2": s2, "condition": condition}))
    }

    fn details() -> impl Strategy<Value = Value> {
        let scalar = prop_oneof![
            6 => text().prop_map(Value::from), 1 => (0..3_i64).prop_map(Value::from), 1 => any::<bool>().prop_map(Value::from), 1 => Just(Value::Null)
        ];
        let value = prop_oneof![3 => scalar.clone(), 1 => proptest::collection::vec(scalar.clone(), 0..3).prop_map(Value::from),
            1 => scalar.prop_map(|value| json!({"b": value}))];
        proptest::collection::btree_map(proptest::sample::select(vec!["a", "b", "a.b", "User"]).prop_map(str::to_owned), value, 0..4)
            .prop_map(|map| Value::Object(map.into_iter().collect()))
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2000))]

        #[test]
        fn no_rule_that_is_true_is_left_out(detections in proptest::collection::vec(detection(), 1..6), details in details()) {
            let rules: Vec<CompiledRule> = detections
                .iter()
                .filter_map(|detection| {
                    let rule = json!({"title": "t", "logsource": {"product": "p"}, "detection": detection});
                    let parsed = rsigma_parser::parse_sigma_yaml(&rule.to_string()).ok()?;
                    rsigma_eval::compile_rule(parsed.rules.first()?).ok()
                })
                .collect();
            let event = event(json!({"details": details}));
            let view = EventView::new(&event);

            let candidates = Candidates::new(rules.iter()).of(&view);

            for (place, rule) in (0..).zip(&rules) {
                let holds = rsigma_eval::evaluate_rule(rule, &view).is_some();
                prop_assert!(!holds || candidates.contains(&place), "{:?} is true of {:?}", rule.detections, event.document);
            }
        }
    }
}
