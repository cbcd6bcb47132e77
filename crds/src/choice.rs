//! Fields that hold one of a few words.
//!
//! schemars describes a documented enum as alternatives, each with its own text. Kubernetes knows only a list of words, and on the way
//! there the text of the field itself would be lost. So the words are flattened here, and what they mean is kept aside until
//! [`structural`](crate::structural) writes it behind the field's own text.

use schemars::{Schema, schema_for};
use serde_json::{Value, json};

use crate::{FieldType, Format, MonitorWhen, NodeRole, OnDelete, Severity, WatchlistMatch};

const MEANINGS: &str = "x-meanings";

/// A word and what it means.
pub(crate) type Meaning = (String, String);

/// Turns documented alternatives into a list of words: `#[schemars(transform = ...)]` of every enum.
pub(crate) fn flatten(schema: &mut Schema) {
    let Some(Value::Array(alternatives)) = schema.remove("oneOf") else { return };
    let meanings = alternatives.iter().map(|one| json!([one["const"], one["description"]])).collect();
    let words = alternatives.iter().map(|one| one["const"].clone()).collect();
    schema.insert("type".to_owned(), json!("string"));
    schema.insert("enum".to_owned(), Value::Array(words));
    schema.insert(MEANINGS.to_owned(), Value::Array(meanings));
}

/// The words of every enum with their meanings, one list an enum.
pub(crate) fn all() -> Vec<Vec<Meaning>> {
    let enums = [
        schema_for!(Severity),
        schema_for!(Format),
        schema_for!(FieldType),
        schema_for!(WatchlistMatch),
        schema_for!(OnDelete),
        schema_for!(NodeRole),
        schema_for!(MonitorWhen),
    ];
    enums.iter().filter_map(|schema| serde_json::from_value(schema.get(MEANINGS)?.clone()).ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_word_of_every_enum_has_a_meaning() {
        let enums = all();

        assert_eq!(enums.len(), 7);
        for (word, meaning) in enums.iter().flatten() {
            assert!(!meaning.is_empty(), "{word}");
        }
    }
}
