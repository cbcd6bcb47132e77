//! The manifests keep to what an API server demands of a definition, and to what people need to find their way.
//!
//! The demands: <https://kubernetes.io/docs/tasks/extend-kubernetes/custom-resources/custom-resource-definitions/#specifying-a-structural-schema>.

#![allow(clippy::unwrap_used, reason = "these are tests, though clippy does not see that of their helpers")]

use std::{collections::BTreeSet, path::Path};

use redoubt_crds::{definitions, generate};
use serde_json::Value;

/// Past this size the annotation that `kubectl apply` keeps does not fit.
const MAX_MANIFEST_BYTES: usize = 262_144;

/// Calls `visit` for every schema of every kind, with its path.
fn for_each_schema(mut visit: impl FnMut(&str, &Value)) {
    fn walk(path: &str, schema: &Value, visit: &mut impl FnMut(&str, &Value)) {
        visit(path, schema);
        for (name, field) in schema["properties"].as_object().into_iter().flatten() {
            walk(&format!("{path}.{name}"), field, visit);
        }
        for (keyword, suffix) in [("items", "[]"), ("additionalProperties", "{}")] {
            if schema[keyword].is_object() {
                walk(&format!("{path}{suffix}"), &schema[keyword], visit);
            }
        }
    }
    for definition in definitions() {
        for version in &definition.spec.versions {
            let root = version.schema.as_ref().unwrap().open_api_v3_schema.as_ref().unwrap();
            walk(&definition.spec.names.kind, &serde_json::to_value(root).unwrap(), &mut visit);
        }
    }
}

#[test]
fn a_manifest_can_be_applied_by_kubectl() {
    let files = generate::files(&Path::new(env!("CARGO_MANIFEST_DIR")).join("..")).unwrap();
    let manifests: Vec<_> = files.iter().filter(|(path, _)| path.parent() == Some(Path::new("crds"))).collect();

    assert_eq!(manifests.len(), definitions().len());
    for (path, text) in manifests {
        assert!(text.len() < MAX_MANIFEST_BYTES, "{} has {} bytes", path.display(), text.len());
    }
}

#[test]
fn every_schema_has_a_type_and_no_keyword_that_a_structural_schema_forbids() {
    let forbidden = ["$ref", "$schema", "definitions", "allOf", "anyOf", "oneOf", "not", "nullable", "uniqueItems", "patternProperties"];
    for_each_schema(|path, schema| {
        assert!(schema["type"].is_string(), "{path} has no type");
        for keyword in forbidden {
            assert!(schema.get(keyword).is_none(), "{path} has {keyword}");
        }
        assert!(schema["additionalProperties"] != false, "{path} closes a map");
        assert!(schema.get("properties").is_none() || schema.get("additionalProperties").is_none(), "{path} is both object and map");
        assert!(schema["type"] != "array" || schema["items"].is_object(), "{path} is a list of nothing");
    });
}

#[test]
fn every_format_is_one_that_kubernetes_knows() {
    for_each_schema(|path, schema| {
        if let Some(format) = schema["format"].as_str() {
            assert!(["int32", "int64", "date-time"].contains(&format), "{path} has the format {format}");
        }
    });
}

#[test]
fn every_field_is_described() {
    for_each_schema(|path, schema| {
        let is_member = path.ends_with("[]") || path.ends_with("{}");
        assert!(is_member || schema["description"].as_str().is_some_and(|text| text.len() > 8), "{path} has no description");
    });
}

#[test]
fn whatever_people_can_make_long_has_a_bound() {
    for_each_schema(|path, schema| {
        // The operator alone writes a status, in Kubernetes' own type.
        if path.contains(".status") {
            return;
        }
        let bound = match schema["type"].as_str() {
            Some("string") if schema.get("enum").is_none() => "maxLength",
            Some("array") => "maxItems",
            Some("object") if schema.get("additionalProperties").is_some() => "maxProperties",
            Some("integer") if !path.ends_with("spec.order") => "maximum",
            _ => return,
        };
        assert!(schema[bound].is_number(), "{path} has no {bound}");
    });
}

#[test]
fn what_has_a_default_in_the_types_has_it_in_the_schema() {
    let mut defaults = BTreeSet::new();
    for_each_schema(|path, schema| {
        if schema.get("default").is_some() {
            defaults.insert(format!("{path}={}", schema["default"]));
        }
    });

    for expected in [
        "Siem.spec.ingest.port=8080",
        "Siem.spec.retention.events=\"30d\"",
        "Siem.spec.store={\"indexBufferBytes\":33554432,\"refresh\":\"1s\"}",
        "Enrichment.spec.order=100",
        "Enrichment.spec.geoip.fields=[\"source.ip\",\"destination.ip\"]",
        "AlertRule.spec.enabled=true",
        "AlertRule.spec.allowedLateness=\"10m\"",
        "ResponseAction.spec.dryRun=true",
        "ResponseAction.spec.alerts={}",
        "ResponseAction.spec.webhook.attempts=8",
        "ResponseAction.spec.webhook.timeout=\"10s\"",
    ] {
        assert!(defaults.contains(expected), "{expected} is not among {defaults:#?}");
    }
}

#[test]
fn a_choice_keeps_its_field_s_text_and_says_what_each_word_means() {
    let mut choices = 0;
    for_each_schema(|path, schema| {
        for word in schema["enum"].as_array().into_iter().flatten() {
            choices += 1;
            let word = word.as_str().unwrap_or_else(|| panic!("{path} allows {word}"));
            assert!(schema["description"].as_str().unwrap().contains(&format!("- `{word}`: ")), "{path} does not explain {word}");
        }
    });
    for_each_schema(|path, schema| {
        if path == "ResponseAction.spec.alerts.minSeverity" {
            assert!(schema["description"].as_str().unwrap().starts_with("The least severity."));
        }
    });

    assert!(choices > 20, "only {choices} words were found");
}

#[test]
fn names_for_kubectl_are_told_apart_from_each_other_and_from_common_ones() {
    // kubectl's own, and those of widespread add-ons: Kueue's Workload is `wl`, for one.
    let mut taken = BTreeSet::from(
        ["po", "svc", "cm", "ns", "no", "ep", "ev", "sa", "pv", "pvc", "rs", "rc", "sts", "ds", "wl", "app", "sm"].map(str::to_owned),
    );
    for definition in definitions() {
        let names = definition.spec.names;

        let all = [Some(names.plural), names.singular].into_iter().flatten().chain(names.short_names.into_iter().flatten());
        for name in all {
            assert!(taken.insert(name.clone()), "{name} is taken");
        }
        assert_eq!(names.categories, Some(vec!["redoubt".to_owned()]));
    }
}

#[test]
fn kubectl_get_tells_whether_a_resource_works_and_on_request_why_not() {
    for definition in definitions() {
        let kind = &definition.spec.names.kind;
        let columns = definition.spec.versions[0].additional_printer_columns.as_ref().unwrap();
        let priority = |name: &str| columns.iter().find(|column| column.name == name).map(|column| column.priority.unwrap_or(0));

        assert_eq!(priority("Ready"), Some(0), "{kind}");
        assert_eq!(priority("Message"), Some(1), "{kind}");
        assert_eq!(columns.last().map(|column| column.name.as_str()), Some("Age"), "{kind}");
        assert!(definition.spec.versions[0].subresources.as_ref().is_some_and(|all| all.status.is_some()), "{kind} has no status");
    }
}
