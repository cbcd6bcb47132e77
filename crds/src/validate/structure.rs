//! The structure of an object: types, required and unknown fields, and the bounds of texts, numbers, lists and maps.
//!
//! Only the part of OpenAPI that the manifests use is known here; a test fails when a schema brings a keyword that this module would
//! pass over.

use std::{borrow::Cow, collections::BTreeMap};

use regex::Regex;
use serde_json::{Map, Value};

use super::Violation;

/// A compiled schema of one value.
#[derive(Debug)]
pub(super) enum Node {
    Object(Object),
    List { items: Box<Node>, size: Size },
    Text(Text),
    Integer { least: Option<i64>, most: Option<i64> },
    Boolean,
}

#[derive(Debug)]
pub(super) struct Object {
    fields: BTreeMap<String, Node>,
    required: Vec<String>,
    /// The schema of all further members: this is a map.
    values: Option<Box<Node>>,
    /// Further members are the author's own.
    open: bool,
    size: Size,
}

#[derive(Debug)]
pub(super) struct Text {
    size: Size,
    pattern: Option<Regex>,
    /// The only texts allowed; empty means any.
    words: Vec<String>,
}

/// How many characters, items or members there may be.
#[derive(Debug)]
pub(super) struct Size {
    least: usize,
    most: usize,
}

/// Every keyword that [`Node::compile`] heeds, or may pass over because the CEL engine heeds it or it says nothing about values.
#[cfg(test)]
pub(super) const KEYWORDS: [&str; 20] = [
    "type",
    "properties",
    "required",
    "additionalProperties",
    "x-kubernetes-preserve-unknown-fields",
    "minProperties",
    "maxProperties",
    "items",
    "minItems",
    "maxItems",
    "minLength",
    "maxLength",
    "pattern",
    "enum",
    "minimum",
    "maximum",
    "format",
    "x-kubernetes-validations",
    "default",
    "description",
];

impl Node {
    pub(super) fn compile(schema: &Value) -> Self {
        match schema["type"].as_str() {
            Some("array") => {
                Self::List { items: Box::new(Self::compile(&schema["items"])), size: Size::of(schema, "minItems", "maxItems") }
            }
            Some("string") => Self::Text(Text {
                size: Size::of(schema, "minLength", "maxLength"),
                pattern: schema["pattern"].as_str().and_then(|pattern| Regex::new(pattern).ok()),
                words: strings(&schema["enum"]),
            }),
            Some("integer") => Self::Integer { least: whole(&schema["minimum"]), most: whole(&schema["maximum"]) },
            Some("boolean") => Self::Boolean,
            _ => Self::Object(Object {
                fields: schema["properties"]
                    .as_object()
                    .into_iter()
                    .flatten()
                    .map(|(name, field)| (name.clone(), Self::compile(field)))
                    .collect(),
                required: strings(&schema["required"]),
                values: schema["additionalProperties"].is_object().then(|| Box::new(Self::compile(&schema["additionalProperties"]))),
                open: schema["x-kubernetes-preserve-unknown-fields"] == true,
                size: Size::of(schema, "minProperties", "maxProperties"),
            }),
        }
    }

    /// Adds to `violations` whatever is wrong with the value at `path` and below it.
    pub(super) fn check(&self, value: &Value, path: &str, violations: &mut Vec<Violation>) {
        let mut report = |message: String| violations.push(Violation { field: path.to_owned(), message });
        match (self, value) {
            (Self::Object(object), Value::Object(members)) => object.check(members, path, violations),
            (Self::List { items, size }, Value::Array(values)) => {
                size.check(values.len(), "items", &mut report);
                for (index, item) in values.iter().enumerate() {
                    items.check(item, &format!("{path}[{index}]"), violations);
                }
            }
            (Self::Text(text), Value::String(value)) => text.check(value, &mut report),
            (Self::Integer { least, most }, Value::Number(number)) => match number.as_i64() {
                None => report("must be a whole number of 64 bits".to_owned()),
                Some(number) if least.is_some_and(|least| number < least) => {
                    report(format!("must be at least {}, is {number}", text_of(*least)))
                }
                Some(number) if most.is_some_and(|most| number > most) => {
                    report(format!("must be at most {}, is {number}", text_of(*most)))
                }
                Some(_) => {}
            },
            (Self::Boolean, Value::Bool(_)) => {}
            (expected, found) => report(format!("must be {}, is {}", expected.name(), name_of(found))),
        }
    }

    /// The value as the API server reads it: a field whose value is `null` counts as left out, except where the author's own shape begins.
    pub(super) fn without_nulls<'v>(&self, value: &'v Value) -> Cow<'v, Value> {
        match (self, value) {
            (Self::Object(object), Value::Object(members)) => {
                let kept = members.iter().filter(|(name, member)| !(member.is_null() && object.field(name).is_some()));
                let pruned: Vec<_> = kept
                    .map(|(name, member)| (name, object.field(name).map_or(Cow::Borrowed(member), |node| node.without_nulls(member))))
                    .collect();
                if pruned.len() == members.len() && pruned.iter().all(|(_, member)| matches!(member, Cow::Borrowed(_))) {
                    return Cow::Borrowed(value);
                }
                Cow::Owned(Value::Object(pruned.into_iter().map(|(name, member)| (name.clone(), member.into_owned())).collect()))
            }
            (Self::List { items, .. }, Value::Array(values)) => {
                let pruned: Vec<_> = values.iter().map(|item| items.without_nulls(item)).collect();
                if pruned.iter().all(|item| matches!(item, Cow::Borrowed(_))) {
                    return Cow::Borrowed(value);
                }
                Cow::Owned(Value::Array(pruned.into_iter().map(Cow::into_owned).collect()))
            }
            _ => Cow::Borrowed(value),
        }
    }

    fn name(&self) -> &'static str {
        match self {
            Self::Object(_) => "an object",
            Self::List { .. } => "a list",
            Self::Text(_) => "a string",
            Self::Integer { .. } => "a whole number",
            Self::Boolean => "true or false",
        }
    }
}

impl Object {
    fn field(&self, name: &str) -> Option<&Node> {
        self.fields.get(name).or(self.values.as_deref())
    }

    fn check(&self, members: &Map<String, Value>, path: &str, violations: &mut Vec<Violation>) {
        self.size.check(members.len(), "members", &mut |message| violations.push(Violation { field: path.to_owned(), message }));
        let present = |name: &str| members.get(name).is_some_and(|member| !member.is_null());
        for name in self.required.iter().filter(|name| !present(name)) {
            violations.push(Violation { field: format!("{path}.{name}"), message: "is required".to_owned() });
        }
        for (name, member) in members {
            let path = format!("{path}.{name}");
            match self.field(name) {
                Some(_) if member.is_null() => {}
                Some(node) => node.check(member, &path, violations),
                None if self.open => {}
                None => {
                    let known = self.fields.keys().map(String::as_str).collect::<Vec<_>>().join(", ");
                    violations.push(Violation { field: path, message: format!("there is no such field; there are {known}") });
                }
            }
        }
    }
}

impl Text {
    fn check(&self, value: &str, report: &mut impl FnMut(String)) {
        self.size.check(value.chars().count(), "characters", report);
        if let Some(pattern) = self.pattern.as_ref().filter(|pattern| !pattern.is_match(value)) {
            report(format!("{value:?} does not fit the pattern {pattern}"));
        }
        if !self.words.is_empty() && !self.words.iter().any(|word| word == value) {
            report(format!("{value:?} is not one of {}", self.words.join(", ")));
        }
    }
}

impl Size {
    fn of(schema: &Value, least: &str, most: &str) -> Self {
        let bound = |keyword: &str| schema[keyword].as_u64().and_then(|bound| usize::try_from(bound).ok());
        Self { least: bound(least).unwrap_or(0), most: bound(most).unwrap_or(usize::MAX) }
    }

    fn check(&self, size: usize, unit: &str, report: &mut impl FnMut(String)) {
        if size < self.least {
            report(format!("must have at least {} {unit}, has {size}", self.least));
        } else if size > self.most {
            report(format!("must have at most {} {unit}, has {size}", self.most));
        }
    }
}

fn strings(list: &Value) -> Vec<String> {
    list.as_array().into_iter().flatten().filter_map(|item| item.as_str().map(ToOwned::to_owned)).collect()
}

/// The bounds are whole numbers below 2^53 that the definition's Rust type keeps as floating-point ones.
#[expect(clippy::cast_possible_truncation, reason = "every bound is whole, and small enough to be exact")]
fn whole(bound: &Value) -> Option<i64> {
    bound.as_f64().map(|bound| bound as i64)
}

fn text_of(bound: Option<i64>) -> String {
    bound.map(|bound| bound.to_string()).unwrap_or_default()
}

fn name_of(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "true or false",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}
