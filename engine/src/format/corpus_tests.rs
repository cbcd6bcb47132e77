//! Every event of the corpora is read, and comes by the logsource that its rule asks for.
//!
//! The corpora are not part of the repository: `REDOUBT_CORPORA` names their folder. Without it these tests say so and end.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use redoubt_crds::{Format, SigmaLogsource};
use serde_json::Value;

use super::{
    event_tests::{raw, source},
    *,
};

fn corpora() -> Option<PathBuf> {
    let folder = match std::env::var_os("REDOUBT_CORPORA") {
        Some(folder) => PathBuf::from(folder),
        None => Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/corpora"),
    };
    if !folder.is_dir() {
        println!("skipped: no corpora at {}", folder.display());
        return None;
    }
    Some(folder)
}

fn files_under(folder: &Path, extension: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|known| known == extension) {
                found.push(path);
            }
        }
    }
    found.sort();
    found
}

/// The logsources of all rules, by rule id.
fn rules(corpora: &Path) -> BTreeMap<String, SigmaLogsource> {
    let mut rules = BTreeMap::new();
    for folder in ["rules", "rules-emerging-threats", "rules-threat-hunting"] {
        for file in files_under(&corpora.join("sigma").join(folder), "yml") {
            let rule: serde_yaml::Value = serde_yaml::from_str(&fs::read_to_string(file).unwrap()).unwrap();
            let text = |value: &serde_yaml::Value, key: &str| value.get(key).and_then(serde_yaml::Value::as_str).map(str::to_owned);
            if let (Some(id), Some(logsource)) = (text(&rule, "id"), rule.get("logsource")) {
                let [product, service, category] = ["product", "service", "category"].map(|key| text(logsource, key));
                rules.insert(id, SigmaLogsource { product, service, category });
            }
        }
    }
    rules
}

/// Whether a rule's logsource asks for nothing that the event's does not have.
fn fits(rule: &SigmaLogsource, event: &SigmaLogsource) -> bool {
    let same = |asked: &Option<String>, has: &Option<String>| asked.is_none() || asked == has;
    let category = same(&rule.category, &event.category)
        || rule.category.as_deref() == Some("registry_event")
            && event.category.as_deref().is_some_and(|category| category.starts_with("registry_"));
    same(&rule.product, &event.product) && same(&rule.service, &event.service) && category
}

#[test]
fn every_regression_event_comes_by_its_rules_logsource() {
    let Some(corpora) = corpora() else { return };
    let rules = rules(&corpora);
    let source = source(Format::Windows);
    let mut events = 0;

    for file in files_under(&corpora.join("sigma/regression"), "ndjson") {
        let id = file.file_stem().unwrap().to_str().unwrap();
        let body = fs::read_to_string(&file).unwrap();
        for text in frame(Format::Windows, &body) {
            let event = parse(&source, &raw(text.unwrap())).unwrap();
            events += 1;

            assert!(fits(&rules[id], &event.logsource), "{id}: {:?} for {:?}", event.logsource, rules[id]);
            assert_ne!(event.timestamp_millis, event.received_millis, "{id}");
            assert_eq!(event.get("tags"), None, "{id}");
            assert!(event.get("host.name").is_some(), "{id}");
            let native: Value = serde_json::from_str(text_of(&event, &body)).unwrap();
            if let Some(Value::Object(data)) = native.pointer("/Event/EventData") {
                for (name, value) in data.iter().filter(|(name, _)| !name.starts_with('#')) {
                    assert_eq!(event.document["details"].get(name), Some(value), "{id}: {name}");
                }
            }
        }
    }

    assert_eq!(events, 183);
}

/// The line of a body that an event came from: that of its record id.
fn text_of<'b>(event: &Event, body: &'b str) -> &'b str {
    let record = format!("\"EventRecordID\": {}", event.get_text("details.EventRecordID").unwrap());
    body.lines().find(|line| line.contains(&record)).unwrap()
}

#[test]
fn every_cloudtrail_record_is_read_untouched() {
    let Some(corpora) = corpora() else { return };
    let source = source(Format::Cloudtrail);
    let mut events = 0;

    for file in files_under(&corpora.join("cloudtrail"), "json") {
        let body = fs::read_to_string(&file).unwrap();
        for text in frame(Format::Cloudtrail, &body) {
            let text = text.unwrap();
            let event = parse(&source, &raw(text)).unwrap();
            events += 1;

            assert_eq!(event.document["details"], serde_json::from_str::<Value>(text).unwrap());
            assert_eq!(event.logsource.product.as_deref(), Some("aws"));
            assert_eq!(event.logsource.service.as_deref(), Some("cloudtrail"));
            assert!(event.natural_id);
            assert_eq!(event.get("tags"), None, "{text}");
            for path in ["event.action", "event.provider", "event.outcome", "cloud.region", "cloud.account.id"] {
                assert!(event.get(path).is_some(), "{path} of {text}");
            }
        }
    }

    assert_eq!(events, 1_688);
}

#[test]
fn every_windows_logsource_that_rules_ask_for_can_be_reached() {
    let Some(corpora) = corpora() else { return };
    let reachable = windows_logsource::logsources(&SigmaLogsource::default());

    let missing: Vec<SigmaLogsource> = rules(&corpora)
        .into_values()
        .filter(|rule| rule.product.as_deref() == Some("windows"))
        .filter(|rule| !reachable.iter().any(|logsource| fits(rule, logsource)))
        .collect();

    assert_eq!(missing, []);
}

#[test]
fn every_zeek_logsource_that_rules_ask_for_can_be_reached() {
    let Some(corpora) = corpora() else { return };
    let reachable = zeek_logsource::logsources(&SigmaLogsource::default());

    let missing: Vec<SigmaLogsource> = rules(&corpora)
        .into_values()
        .filter(|rule| rule.product.as_deref() == Some("zeek"))
        .filter(|rule| !reachable.iter().any(|logsource| fits(rule, logsource)))
        .collect();

    assert_eq!(missing, []);
}
