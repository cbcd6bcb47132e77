//! The structure of an object: types, required and unknown fields, and the bounds of texts, numbers, lists and maps.
//!
//! Only the part of OpenAPI that the manifests use is known here; a test fails when a schema brings a keyword that this module would
//! pass over.

use std::collections::BTreeMap;

use kube::core::cel::{CompiledSchema, compile_schema};
use regex::Regex;
use serde_json::{Map, Value, json};

use super::Violation;

/// A compiled schema of one value.
#[derive(Debug)]
pub(super) struct Node {
    pub(super) shape: Shape,
    pub(super) default: Option<Value>,
    /// The CEL rules of this very value; those of its fields stand at the fields.
    pub(super) rules: Option<CompiledSchema>,
    /// Whether this value or anything in it has rules.
    pub(super) has_rules: bool,
}

/// What kind of value it is, and its bounds.
#[derive(Debug)]
pub(super) enum Shape {
    Object(Object),
    List { items: Box<Node>, size: Size },
    Text(Text),
    Integer { least: Option<i64>, most: Option<i64> },
    Boolean,
}

#[derive(Debug)]
pub(super) struct Object {
    pub(super) fields: BTreeMap<String, Node>,
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

/// Every keyword that [`Node::compile`] heeds, or may pass over because it says nothing about values.
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
        let shape = Shape::compile(schema);
        let rules = schema.get("x-kubernetes-validations");
        let has_rules = rules.is_some() || shape.children().any(|child| child.has_rules);
        let rules = rules.map(|rules| compile_schema(&json!({ "type": schema["type"], "x-kubernetes-validations": rules })));
        Self { shape, default: schema.get("default").cloned(), rules, has_rules }
    }

    /// Adds to `violations` whatever is wrong with the value at `path` and below it.
    pub(super) fn check(&self, value: &Value, path: &str, violations: &mut Vec<Violation>) {
        let mut report = |message: String| violations.push(Violation { field: path.to_owned(), message });
        match (&self.shape, value) {
            (Shape::Object(object), Value::Object(members)) => object.check(members, path, violations),
            (Shape::List { items, size }, Value::Array(values)) => {
                size.check(values.len(), "items", &mut report);
                for (index, item) in values.iter().enumerate() {
                    items.check(item, &format!("{path}[{index}]"), violations);
                }
            }
            (Shape::Text(text), Value::String(value)) => text.check(value, &mut report),
            (Shape::Integer { least, most }, Value::Number(number)) => match (number.as_i64(), least, most) {
                (None, _, _) => report("must be a whole number of 64 bits".to_owned()),
                (Some(number), Some(least), _) if number < *least => report(format!("must be at least {least}, is {number}")),
                (Some(number), _, Some(most)) if number > *most => report(format!("must be at most {most}, is {number}")),
                _ => {}
            },
            (Shape::Boolean, Value::Bool(_)) => {}
            (expected, found) => report(format!("must be {}, is {}", expected.name(), name_of(found))),
        }
    }
}

impl Shape {
    fn compile(schema: &Value) -> Self {
        match schema["type"].as_str() {
            Some("array") => {
                Self::List { items: Box::new(Node::compile(&schema["items"])), size: Size::of(schema, "minItems", "maxItems") }
            }
            Some("string") => Self::Text(Text {
                size: Size::of(schema, "minLength", "maxLength"),
                // A test compiles every pattern, so none gets lost here.
                pattern: schema["pattern"].as_str().and_then(|pattern| Regex::new(pattern).ok()),
                words: strings(&schema["enum"]),
            }),
            Some("integer") => Self::Integer { least: whole(&schema["minimum"]), most: whole(&schema["maximum"]) },
            Some("boolean") => Self::Boolean,
            _ => {
                let properties = schema["properties"].as_object().into_iter().flatten();
                let values = &schema["additionalProperties"];
                Self::Object(Object {
                    fields: properties.map(|(name, field)| (name.clone(), Node::compile(field))).collect(),
                    required: strings(&schema["required"]),
                    values: values.is_object().then(|| Box::new(Node::compile(values))),
                    open: schema["x-kubernetes-preserve-unknown-fields"] == true,
                    size: Size::of(schema, "minProperties", "maxProperties"),
                })
            }
        }
    }

    fn children(&self) -> Box<dyn Iterator<Item = &Node> + '_> {
        match self {
            Self::Object(object) => Box::new(object.fields.values().chain(object.values.as_deref())),
            Self::List { items, .. } => Box::new(std::iter::once(&**items)),
            Self::Text(_) | Self::Integer { .. } | Self::Boolean => Box::new(std::iter::empty()),
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
    /// The schema of a member, if it is a known field or this is a map.
    pub(super) fn field(&self, name: &str) -> Option<&Node> {
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
