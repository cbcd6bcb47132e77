//! A reference page: all of a kind's fields, made from its definition.
//!
//! A page goes from the outside in: what the kind is, an example, then one table for each object, `spec` first and below it whatever
//! `spec` holds, each under its path.

use std::{fmt::Write as _, path::Path};

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{
    CustomResourceColumnDefinition, CustomResourceDefinition, JSON, JSONSchemaProps, JSONSchemaPropsOrArray, JSONSchemaPropsOrBool,
};
use serde_json::Value;

use crate::duration;

const HEADER: &str = "<!-- Generated from crds/src by `cargo run -p redoubt-crds`. Do not edit. -->\n";

/// The page of one kind.
pub(super) fn page(definition: &CustomResourceDefinition, example_path: &Path, example: &str) -> String {
    let names = &definition.spec.names;
    let mut page = format!("{HEADER}\n# {}\n", names.kind);
    for version in &definition.spec.versions {
        let root = version.schema.as_ref().and_then(|schema| schema.open_api_v3_schema.as_ref());
        let short_names = names.short_names.iter().flatten().map(|name| format!(", `{name}`")).collect::<String>();
        let categories = names.categories.iter().flatten().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ");
        let description = root.and_then(|root| root.description.as_deref()).unwrap_or_default();
        let _ = write!(
            page,
            "\n{description}\n\n| | |\n|---|---|\n| API version | `{}/{}` |\n| Kind | `{}` |\n| Names for `kubectl` | `{}`, `{}`{short_names} |\n| Category | {categories} |\n| Scope | {} |\n",
            definition.spec.group,
            version.name,
            names.kind,
            names.plural,
            names.singular.as_deref().unwrap_or_default(),
            definition.spec.scope,
        );
        let _ =
            write!(page, "\n## Example\n\nAs in [`{0}`](../../{0}).\n\n```yaml\n{1}\n```\n", example_path.display(), example.trim_end());
        for (name, schema) in root.iter().flat_map(|root| root.properties.iter().flatten()) {
            sections(&mut page, name, schema);
        }
        columns(&mut page, version.additional_printer_columns.as_deref().unwrap_or_default());
    }
    page
}

/// The list of all pages.
pub(super) fn contents(definitions: &[CustomResourceDefinition]) -> String {
    let mut page = format!(
        "{HEADER}\n# Resources\n\nA SIEM is declared in these kinds. `kubectl explain KIND.spec` shows the same texts.\n\n| Kind | What it is |\n|---|---|\n"
    );
    for definition in definitions {
        let kind = &definition.spec.names.kind;
        let root = definition.spec.versions.first().and_then(|version| version.schema.as_ref()?.open_api_v3_schema.as_ref());
        let description = root.and_then(|root| root.description.as_deref()).unwrap_or_default();
        let _ = writeln!(page, "| [{kind}]({}.md) | {} |", kind.to_lowercase(), cell(description));
    }
    page
}

/// A section for the object at `path`, and after it one for each object that it holds.
fn sections(page: &mut String, path: &str, schema: &JSONSchemaProps) {
    let level = if path.contains('.') { "###" } else { "##" };
    let _ = write!(page, "\n{level} `{path}`\n\n{}\n", schema.description.as_deref().unwrap_or_default());
    rules(page, schema);
    page.push_str("\n| Field | Type | Default | Description |\n|---|---|---|---|\n");
    let fields = in_reading_order(schema);
    for (name, field) in &fields {
        row(page, name, field, is_required(schema, name), &below(path, name, field));
    }
    for (name, field) in fields {
        if let Some(object) = object_in(field) {
            sections(page, &below(path, name, field), object);
        }
    }
}

/// Required fields come first; otherwise the order is that of `kubectl explain`.
fn in_reading_order(schema: &JSONSchemaProps) -> Vec<(&String, &JSONSchemaProps)> {
    let mut fields: Vec<_> = schema.properties.iter().flatten().collect();
    fields.sort_by_key(|(name, _)| !is_required(schema, name));
    fields
}

fn is_required(schema: &JSONSchemaProps, name: &str) -> bool {
    schema.required.iter().flatten().any(|required| required == name)
}

fn row(page: &mut String, name: &str, field: &JSONSchemaProps, required: bool, path: &str) {
    let mut label = format!("`{name}`");
    if object_in(field).is_some() {
        label = format!("[{label}](#{})", anchor(path));
    }
    if required {
        label.push_str("<br>**required**");
    }
    let default = field.default.as_ref().map(|JSON(default)| default_text(default)).unwrap_or_default();
    let mut description = field.description.clone().unwrap_or_default();
    // The rules of an object stand in its own section.
    if object_in(field).is_none() {
        for (_, message) in messages(field) {
            let _ = write!(description, " It {message}.");
        }
    }
    let _ = writeln!(page, "| {label} | {} | {default} | {} |", cell(&type_text(field)), cell(&description));
}

fn rules(page: &mut String, schema: &JSONSchemaProps) {
    let mut rules = messages(schema).peekable();
    if rules.peek().is_none() {
        return;
    }
    page.push_str("\nRules:\n\n");
    for (rule, message) in rules {
        let _ = writeln!(page, "- {message}: `{rule}`");
    }
}

fn messages(schema: &JSONSchemaProps) -> impl Iterator<Item = (&str, &str)> {
    schema.x_kubernetes_validations.iter().flatten().map(|rule| (rule.rule.as_str(), rule.message.as_deref().unwrap_or(&rule.rule)))
}

fn columns(page: &mut String, columns: &[CustomResourceColumnDefinition]) {
    page.push_str("\n## Columns of `kubectl get`\n\n| Column | Value | Shown |\n|---|---|---|\n");
    for column in columns {
        let shown = if column.priority.unwrap_or(0) > 0 { "with `-o wide`" } else { "always" };
        let _ = writeln!(page, "| {} | `{}` | {shown} |", column.name, column.json_path);
    }
}

/// The object that a field is, or that it is a list or map of, if its fields are known.
fn object_in(field: &JSONSchemaProps) -> Option<&JSONSchemaProps> {
    let inner = match (&field.items, &field.additional_properties) {
        (Some(JSONSchemaPropsOrArray::Schema(items)), _) => items,
        (_, Some(JSONSchemaPropsOrBool::Schema(values))) => values,
        _ => field,
    };
    inner.properties.as_ref().map(|_| inner)
}

fn below(path: &str, name: &str, field: &JSONSchemaProps) -> String {
    let suffix = if field.items.is_some() { "[]" } else { "" };
    format!("{path}.{name}{suffix}")
}

/// The type and its bounds in words.
fn type_text(field: &JSONSchemaProps) -> String {
    let mut parts = vec![type_name(field)];
    parts.extend(bounds(field));
    parts.join(", ")
}

fn type_name(field: &JSONSchemaProps) -> String {
    match (&field.items, &field.additional_properties) {
        (Some(JSONSchemaPropsOrArray::Schema(items)), _) => format!("list of {}", member_text(items)),
        (_, Some(JSONSchemaPropsOrBool::Schema(values))) => format!("map of {}", member_text(values)),
        _ if field.enum_.is_some() => words(field),
        _ if field.x_kubernetes_preserve_unknown_fields == Some(true) => "object of any shape".to_owned(),
        _ if field.pattern.as_deref() == Some(duration::PATTERN) => "duration, such as `90s`, `1h30m` or `30d`".to_owned(),
        _ => field.type_.clone().unwrap_or_default(),
    }
}

fn member_text(member: &JSONSchemaProps) -> String {
    match bounds(member).join(", ") {
        bounds if bounds.is_empty() => type_name(member),
        bounds => format!("{} ({bounds})", type_name(member)),
    }
}

fn bounds(field: &JSONSchemaProps) -> Vec<String> {
    if field.pattern.as_deref() == Some(duration::PATTERN) {
        return Vec::new();
    }
    let sizes = [
        (field.min_length, field.max_length, "characters"),
        (field.min_items, field.max_items, "items"),
        (field.min_properties, field.max_properties, "members"),
    ];
    let sizes = sizes.into_iter().filter_map(|(least, most, unit)| Some(format!("{} {unit}", range(least, most)?)));
    let pattern = field.pattern.iter().map(|pattern| format!("pattern `{pattern}`"));
    sizes.chain(range(field.minimum, field.maximum)).chain(pattern).collect()
}

fn range<T: std::fmt::Display + PartialEq>(least: Option<T>, most: Option<T>) -> Option<String> {
    match (least, most) {
        (Some(least), Some(most)) if least == most => Some(format!("exactly {least}")),
        (Some(least), Some(most)) => Some(format!("{least} to {most}")),
        (Some(least), None) => Some(format!("at least {least}")),
        (None, Some(most)) => Some(format!("at most {most}")),
        (None, None) => None,
    }
}

fn words(field: &JSONSchemaProps) -> String {
    let words = field.enum_.iter().flatten().filter_map(|JSON(word)| word.as_str());
    format!("one of {}", words.map(|word| format!("`{word}`")).collect::<Vec<_>>().join(", "))
}

/// The default of an object is told by its own fields.
fn default_text(default: &Value) -> String {
    match default {
        Value::Object(_) => String::new(),
        Value::String(text) => format!("`{text}`"),
        other => format!("`{other}`"),
    }
}

/// A text that fits a table's cell.
fn cell(text: &str) -> String {
    text.replace('|', "\\|").replace("\n\n", "<br>").replace('\n', "<br>")
}

/// The anchor that Markdown renderers give the heading of a path.
fn anchor(path: &str) -> String {
    path.to_lowercase().chars().filter(|c| c.is_alphanumeric() || *c == '-' || *c == '_').collect()
}
