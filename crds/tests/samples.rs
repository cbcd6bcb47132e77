//! The example of each kind is a resource that a cluster and the program would both take, and shows what the kind can do.

#![allow(clippy::unwrap_used, reason = "these are tests, though clippy does not see that of their helpers")]

use std::{collections::BTreeSet, fs, path::Path};

use redoubt_crds::{AlertRule, Enrichment, LogSource, ResponseAction, Siem, Watchlist, definitions, generate, validate};
use serde::Deserialize as _;
use serde_json::Value;

fn examples(kind: &str) -> Vec<Value> {
    documents(&Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(generate::example_path(kind)))
}

fn documents(path: &Path) -> Vec<Value> {
    let text = fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    serde_yaml::Deserializer::from_str(&text).map(|document| Value::deserialize(document).unwrap()).collect()
}

fn read_as(kind: &str, object: Value) -> Result<(), serde_json::Error> {
    match kind {
        "Siem" => serde_json::from_value::<Siem>(object).map(drop),
        "LogSource" => serde_json::from_value::<LogSource>(object).map(drop),
        "Enrichment" => serde_json::from_value::<Enrichment>(object).map(drop),
        "Watchlist" => serde_json::from_value::<Watchlist>(object).map(drop),
        "AlertRule" => serde_json::from_value::<AlertRule>(object).map(drop),
        "ResponseAction" => serde_json::from_value::<ResponseAction>(object).map(drop),
        other => panic!("a new kind, {other}, needs a line here"),
    }
}

#[test]
fn every_example_is_valid_and_can_be_read() {
    for definition in definitions() {
        let kind = &definition.spec.names.kind;

        for example in examples(kind) {
            let name = &example["metadata"]["name"];
            assert_eq!(example["kind"], kind.as_str(), "{name}");
            assert_eq!(example["apiVersion"], redoubt_crds::API_VERSION, "{name}");
            assert_eq!(validate(kind, &example), [], "{kind} {name}");
            read_as(kind, example.clone()).unwrap_or_else(|error| panic!("{kind} {name}: {error}"));
        }
    }
}

#[test]
fn whole_installations_are_valid_resource_by_resource() {
    let samples = Path::new(env!("CARGO_MANIFEST_DIR")).join("../config/samples");
    let kinds: BTreeSet<String> = definitions().iter().map(|definition| definition.spec.names.kind.clone()).collect();
    for folder in ["quickstart", "production"] {
        let files = fs::read_dir(samples.join(folder)).unwrap().map(|entry| entry.unwrap().path());
        let resources: Vec<Value> =
            files.flat_map(|path| documents(&path)).filter(|object| object["apiVersion"] == redoubt_crds::API_VERSION).collect();

        assert!(resources.iter().any(|resource| resource["kind"] == "Siem"), "{folder} has no Siem");
        for resource in resources {
            let (kind, name) = (resource["kind"].as_str().unwrap(), &resource["metadata"]["name"]);
            assert!(kinds.contains(kind), "{folder}: {kind} {name}");
            assert_eq!(validate(kind, &resource), [], "{folder}: {kind} {name}");
        }
    }
}

#[test]
fn the_examples_of_a_kind_show_every_field_of_its_spec() {
    for definition in definitions() {
        let kind = &definition.spec.names.kind;
        let examples = examples(kind);
        let shown: BTreeSet<&String> =
            examples.iter().filter_map(|example| example["spec"].as_object()).flat_map(|spec| spec.keys()).collect();

        let root = definition.spec.versions[0].schema.as_ref().unwrap().open_api_v3_schema.as_ref().unwrap();
        for field in root.properties.as_ref().unwrap()["spec"].properties.as_ref().unwrap().keys() {
            assert!(shown.contains(field), "{kind}: spec.{field} is in no example");
        }
    }
}
