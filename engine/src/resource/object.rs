//! An object of the Kubernetes API as text, so that what is wrong with it has a line and a column.
//!
//! Only what counts for what it does is in the text: not labels, not who wrote it when, not its status. The operator, who reports the
//! place, and the workers, who log it, both have it from here.

use serde_json::{Value, json};

use super::Kind;

/// The manifest of an object. Reading it by [`super::read`] gives the same resource as [`super::read_object`].
#[must_use]
pub fn manifest(kind: Kind, name: &str, generation: Option<i64>, spec: Value) -> String {
    to_yaml(&with_head(kind, name, generation, spec))
}

pub(super) fn with_head(kind: Kind, name: &str, generation: Option<i64>, spec: Value) -> Value {
    let mut object = json!({"apiVersion": redoubt_crds::API_VERSION, "kind": kind.as_str(), "metadata": {"name": name}});
    if let Some(generation) = generation {
        object["metadata"]["generation"] = generation.into();
    }
    object["spec"] = spec;
    object
}

/// Written by the library that reads it: a word that another one leaves bare, such as `no`, would come back as something else. Lines are
/// left as long as they are, so that a place in a text is that in its YAML.
pub(super) fn to_yaml(value: &Value) -> String {
    let options = serde_saphyr::ser_options! { folded_wrap_chars: usize::MAX };
    // Writing a JSON value to a string has nothing to fail on; were there something, places would be the first line.
    serde_saphyr::to_string_with_options(value, options).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use proptest::prelude::*;

    use super::*;
    use crate::resource::{Spec, read, read_object};

    fn value() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            any::<u64>().prop_map(Value::from),
            (-1e300..1e300_f64).prop_map(Value::from),
            any::<String>().prop_map(Value::from),
            "[-+0-9a-zA-Z_.:,~!?&*#%@`'\"|>{}\\[\\] \n\t]{0,8}".prop_map(Value::from),
        ];
        leaf.prop_recursive(4, 64, 6, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..6).prop_map(Value::from),
                prop::collection::btree_map(any::<String>(), inner, 0..6).prop_map(|map| Value::Object(map.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn the_text_says_what_the_object_says(value in value()) {
            let object = with_head(Kind::Watchlist, "w", Some(3), value);

            let text = to_yaml(&object);

            prop_assert_eq!(serde_saphyr::from_str::<Value>(&text).unwrap(), object, "{}", text);
        }
    }

    #[test]
    fn words_that_yaml_takes_for_something_else_stay_words() {
        let words = "no off y ~ null 1 -1 1_000 0x1f 0o7 0b1 1e3 .5 .inf .nan 1:30 2026-03-02 2026-03-02T10:30:00Z << = --- ... [a {a *a &a !a | > %a @a `a 'a \"a";
        let with_blanks =
            ["", " ", "a: b", "a #b", "- a", "? a", "a\n", "\na", "a\n\nb", " a\nb", "a\n---\nb", "a\u{85}b", "\u{feff}a", "\t", "a\r\nb"];
        for word in words.split(' ').chain(with_blanks) {
            let object = with_head(Kind::Watchlist, "w", None, json!({"a": word, word: ["b"]}));

            let text = to_yaml(&object);

            assert_eq!(serde_saphyr::from_str::<Value>(&text).unwrap(), object, "{word:?} in\n{text}");
        }
    }

    #[test]
    fn an_object_is_what_its_manifest_is_in_a_file() {
        let spec = json!({"order": 7, "vrl": {"source": ".a = 1\n.b = no(\n"}});
        let from_object = read_object(Kind::Enrichment, "e", Some(4), spec.clone());
        let from_text = read(Path::new("Enrichment/e"), &manifest(Kind::Enrichment, "e", Some(4), spec));

        for file in [from_object, from_text] {
            let [resource] = &file.resources[..] else { panic!("{:?}", file.diagnostics) };
            assert_eq!((resource.kind, resource.name.as_str(), resource.generation), (Kind::Enrichment, "e", Some(4)));
            assert!(matches!(&resource.spec, Spec::Enrichment(spec) if spec.order == 7));
            let place = resource.origin.locate(&crate::diagnostic::Problem::new("spec.vrl.source", "", "").within(2, 6));
            assert_eq!(place.to_string(), "Enrichment/e:11:12");
        }
    }

    #[test]
    fn what_makes_no_sense_is_refused_with_its_place() {
        for (spec, expected) in [
            (json!({"match": "exact", "entrys": []}), "Watchlist/w:7:3: Watchlist/w: "),
            (json!({"match": 3}), "Watchlist/w:7:10: Watchlist/w: "),
            (Value::Null, "Watchlist/w:"),
        ] {
            let file = read_object(Kind::Watchlist, "w", Some(1), spec);

            assert_eq!(file.refused, [(Kind::Watchlist, "w".to_owned())]);
            assert!(file.diagnostics[0].to_string().starts_with(expected), "expected {expected}\n     got {}", file.diagnostics[0]);
        }
    }
}
