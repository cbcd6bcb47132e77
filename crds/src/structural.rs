//! From the definition that the derive makes to the one that a cluster takes.
//!
//! Rust knows more about numbers than Kubernetes, and schemars more about absence: unsigned formats become ranges, `nullable` goes
//! (a field without a value is left out, so that `has()` in a rule means what it says), and texts are put on one line each.

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{
    CustomResourceDefinition, JSON, JSONSchemaProps, JSONSchemaPropsOrArray, JSONSchemaPropsOrBool,
};
use serde_json::{Map, Value};

use crate::choice::{self, Meaning};

/// Makes every version's schema structural and readable.
pub(crate) fn finish(mut definition: CustomResourceDefinition) -> CustomResourceDefinition {
    let choices = choice::all();
    let schemas = definition.spec.versions.iter_mut().filter_map(|version| version.schema.as_mut()?.open_api_v3_schema.as_mut());
    for root in schemas {
        tidy(root, &choices);
        describe_root(root);
    }
    definition
}

/// The derive describes the resource by the name of a Rust type; what people should read stands at the spec.
fn describe_root(root: &mut JSONSchemaProps) {
    let Some(spec) = root.properties.as_mut().and_then(|properties| properties.get_mut("spec")) else { return };
    root.description = spec.description.replace("What is wanted.".to_owned());
}

fn tidy(schema: &mut JSONSchemaProps, choices: &[Vec<Meaning>]) {
    schema.nullable = None;
    if let Some(description) = &mut schema.description {
        *description = unwrap_lines(description);
    }
    if let Some(JSON(default)) = &mut schema.default {
        *default = sorted(default);
    }
    bound_integer(schema);
    describe_choice(schema, choices);

    for property in schema.properties.iter_mut().flat_map(|properties| properties.values_mut()) {
        tidy(property, choices);
    }
    match &mut schema.items {
        Some(JSONSchemaPropsOrArray::Schema(items)) => tidy(items, choices),
        Some(JSONSchemaPropsOrArray::Schemas(all)) => all.iter_mut().for_each(|items| tidy(items, choices)),
        None => {}
    }
    if let Some(JSONSchemaPropsOrBool::Schema(values)) = &mut schema.additional_properties {
        tidy(values, choices);
    }
}

/// Kubernetes knows `int32` and `int64` only, so what an unsigned type cannot hold becomes a range.
fn bound_integer(schema: &mut JSONSchemaProps) {
    let (format, maximum) = match schema.format.as_deref() {
        Some("uint8") => ("int32", Some(f64::from(u8::MAX))),
        Some("uint16") => ("int32", Some(f64::from(u16::MAX))),
        Some("uint32") => ("int64", Some(f64::from(u32::MAX))),
        Some("uint64") => ("int64", None),
        _ => return,
    };
    schema.format = Some(format.to_owned());
    schema.minimum.get_or_insert(0.0);
    schema.maximum = schema.maximum.or(maximum);
}

/// Writes what the words of an enum mean behind the field's own text.
fn describe_choice(schema: &mut JSONSchemaProps, choices: &[Vec<Meaning>]) {
    let Some(words) = &mut schema.enum_ else { return };
    words.retain(|JSON(word)| !word.is_null());
    let same = |choice: &&Vec<Meaning>| choice.iter().map(|(word, _)| Some(word.as_str())).eq(words.iter().map(|JSON(word)| word.as_str()));
    let Some(choice) = choices.iter().find(same) else { return };
    let mut description = schema.description.take().unwrap_or_default();
    description.push('\n');
    for (word, meaning) in choice {
        description.push_str(&format!("\n- `{word}`: {}", unwrap_lines(meaning)));
    }
    schema.description = Some(description);
}

/// Doc comments are wrapped for the source; a reader's window wraps by itself. An empty line stays the end of a paragraph.
fn unwrap_lines(text: &str) -> String {
    text.split("\n\n").map(|paragraph| paragraph.split_whitespace().collect::<Vec<_>>().join(" ")).collect::<Vec<_>>().join("\n\n")
}

/// The same value with the keys of its objects in order, whichever map `serde_json` was built with, so that equal values are the same
/// bytes.
#[must_use]
pub fn sorted(value: &Value) -> Value {
    match value {
        Value::Object(members) => {
            let mut members: Vec<_> = members.iter().collect();
            members.sort_by_key(|(key, _)| *key);
            Value::Object(members.into_iter().map(|(key, member)| (key.clone(), sorted(member))).collect::<Map<_, _>>())
        }
        Value::Array(items) => Value::Array(items.iter().map(sorted).collect()),
        other => other.clone(),
    }
}
