//! The files that are made from the types: a manifest and a reference page for each kind, and the list of the pages.
//!
//! Nothing is written here. `cargo run -p redoubt-crds` writes what [`files`] returns, and a test compares it with what is committed.

mod reference;

use std::{
    collections::BTreeMap,
    fs, io,
    path::{Path, PathBuf},
};

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use serde_json::{Map, Number, Value};

use crate::structural::sorted;

/// Why a file could not be made.
#[derive(Debug, thiserror::Error)]
pub enum GenerateError {
    /// A page needs the example of its kind.
    #[error("cannot read the example {path}, which the reference page shows: {source}", path = .path.display())]
    Example {
        /// Where the example should be.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// A definition cannot be written as YAML.
    #[error("cannot write the definition of {kind} as YAML: {source}")]
    Manifest {
        /// The kind that is defined.
        kind: String,
        /// What the writer says.
        source: serde_yaml::Error,
    },
}

/// Every generated file: its path below the repository's root, and its text. The examples in the pages are read from
/// `config/samples/kinds/` below `root`.
///
/// # Errors
/// When an example is missing or a definition cannot be written.
pub fn files(root: &Path) -> Result<BTreeMap<PathBuf, String>, GenerateError> {
    let definitions = crate::definitions();
    let mut files = BTreeMap::new();
    for definition in &definitions {
        let names = &definition.spec.names;
        let example_path = example_path(&names.kind);
        let example =
            fs::read_to_string(root.join(&example_path)).map_err(|source| GenerateError::Example { path: example_path.clone(), source })?;
        let manifest = manifest(definition)?;
        let name = format!("{}.yaml", names.plural);
        files.insert(Path::new("crds").join(&name), manifest.clone());
        // A chart takes in nothing from outside its own folder.
        files.insert(Path::new("charts/redoubt/definitions").join(&name), manifest);
        files.insert(page_path(&names.kind), reference::page(definition, &example_path, &example));
    }
    files.insert(Path::new("docs/resources/README.md").to_owned(), reference::contents(&definitions));
    Ok(files)
}

/// Where the example of a kind is, below the repository's root.
#[must_use]
pub fn example_path(kind: &str) -> PathBuf {
    Path::new("config/samples/kinds").join(format!("{}.yaml", kind.to_lowercase()))
}

fn page_path(kind: &str) -> PathBuf {
    Path::new("docs/resources").join(format!("{}.md", kind.to_lowercase()))
}

fn manifest(definition: &CustomResourceDefinition) -> Result<String, GenerateError> {
    let value = serde_yaml::to_value(definition).and_then(serde_yaml::from_value::<Value>);
    let text = value.and_then(|value| serde_yaml::to_string(&whole_numbers(&sorted(&value))));
    let text = text.map_err(|source| GenerateError::Manifest { kind: definition.spec.names.kind.clone(), source })?;
    Ok(format!("# Generated from crds/src by `cargo run -p redoubt-crds`. Do not edit.\n{text}"))
}

/// The definition's Rust type holds bounds as floating-point numbers; `maximum: 65535` reads better than `65535.0`.
fn whole_numbers(value: &Value) -> Value {
    match value {
        Value::Number(number) => Value::Number(whole(number)),
        Value::Array(items) => Value::Array(items.iter().map(whole_numbers).collect()),
        Value::Object(members) => {
            Value::Object(members.iter().map(|(key, member)| (key.clone(), whole_numbers(member))).collect::<Map<_, _>>())
        }
        other => other.clone(),
    }
}

fn whole(number: &Number) -> Number {
    format!("{number}").strip_suffix(".0").and_then(|digits| digits.parse::<i64>().ok()).map_or_else(|| number.clone(), Number::from)
}
