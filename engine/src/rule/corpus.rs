//! The rules of SigmaHQ, where they are at hand: each must import and compile, and each of their recorded events must be found by its rule.

use std::{
    collections::HashMap,
    fs,
    path::{Path, PathBuf},
    sync::Arc,
};

use redoubt_crds::{Format, LogSourceSpec};

use super::{Rule, RuleSet, explain::explain, import::import};
use crate::{event::RawEvent, format, source::Source};

/// The folder of the rules; `None`, said on standard error, where it is not there.
fn corpus() -> Option<PathBuf> {
    let root = std::env::var_os("REDOUBT_CORPORA")
        .map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/corpora"), PathBuf::from);
    let folder = root.join("sigma");
    if folder.is_dir() {
        return Some(folder);
    }
    eprintln!("skipped: no Sigma rules in {}", folder.display());
    None
}

fn files(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "yml") {
            found.push(path);
        }
    }
}

fn rules(folder: &Path) -> Vec<Arc<Rule>> {
    let mut paths = Vec::new();
    files(folder, &mut paths);
    paths.sort();
    let mut rules = Vec::new();
    for path in &paths {
        match import(&fs::read_to_string(path).unwrap(), path.to_str().unwrap()) {
            Ok(found) => rules.extend(found.into_iter().map(|rule| {
                let name = rule.metadata.name.unwrap();
                Arc::new(Rule::compile(&name, &rule.spec.into()).unwrap_or_else(|problems| panic!("{name}: {problems:?}")))
            })),
            Err(problems) => panic!("{}: {problems:?}", path.display()),
        }
    }
    rules
}

#[test]
fn every_rule_of_sigmahq_imports_and_compiles_under_a_name_of_its_own() {
    let Some(folder) = corpus() else { return };

    let rules = rules(&folder);

    let names: HashMap<&str, ()> = rules.iter().map(|rule| (rule.info.name.as_str(), ())).collect();
    assert!(rules.len() > 3_000, "only {} rules", rules.len());
    assert_eq!(names.len(), rules.len());
}

#[test]
fn every_recorded_event_is_found_by_its_rule() {
    let Some(folder) = corpus() else { return };
    let rules = rules(&folder);
    let by_id: HashMap<String, Arc<Rule>> = rules.iter().map(|rule| (rule.info.id.clone(), rule.clone())).collect();
    let set = RuleSet::new(rules);
    let spec = LogSourceSpec { format: Some(Format::Windows), ..LogSourceSpec::default() };
    let source = Source::compile("windows", &spec).unwrap();

    let mut missed = Vec::new();
    let mut cases = 0;
    for entry in fs::read_dir(folder.join("regression")).unwrap() {
        let path = entry.unwrap().path();
        let rule = &by_id[path.file_stem().unwrap().to_str().unwrap()];
        cases += 1;
        let events: Vec<_> = fs::read_to_string(&path)
            .unwrap()
            .lines()
            .map(|line| {
                let raw =
                    RawEvent { id: "id".to_owned(), received_millis: 0, source: source.name.clone(), sender: None, body: line.to_owned() };
                format::parse(&source, &raw).unwrap()
            })
            .collect();
        if !events.iter().any(|event| set.matches(event).iter().any(|found| *found.rule == *rule.info.name)) {
            missed.push(explain(rule, &events[0]).to_string());
        }
    }

    assert!(cases >= 148, "only {cases} cases");
    assert!(missed.is_empty(), "{} of {cases}:\n{}", missed.len(), missed.join("\n"));
}
