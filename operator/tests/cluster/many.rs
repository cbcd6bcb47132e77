//! Thousands of rules at once.

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    fs,
    path::Path,
    time::{Duration, Instant},
};

use kube::api::{DynamicObject, ListParams};
use redoubt_engine::rule::import;
use serde_json::json;

use crate::{
    namespace::{DEADLINE, Namespace, says, within},
    operator::Operator,
};

/// How many rules are made: 1,000, or as `REDOUBT_TEST_RULES` asks.
fn count() -> usize {
    std::env::var("REDOUBT_TEST_RULES").ok().and_then(|text| text.parse().ok()).unwrap_or(1000)
}

/// Applies the files of a folder by one kubectl, and waits until all rules are judged. Says how long it took and how much memory.
async fn apply(namespace: &Namespace, operator: &Operator, folder: &Path, count: usize, what: &str) -> BTreeMap<String, usize> {
    let started = Instant::now();
    namespace.kubectl(&["apply", "--server-side", "-f", folder.to_str().unwrap()]);
    let applied = started.elapsed();
    let reasons = within(DEADLINE * 4, "all rules are judged", async || {
        let mut reasons = BTreeMap::new();
        for rule in all(namespace).await {
            *reasons.entry(says(&rule, "Accepted").split(':').next().unwrap_or_default().to_owned()).or_insert(0) += 1;
        }
        let judged: usize = reasons.iter().filter(|(reason, _)| !reason.is_empty()).map(|(_, count)| count).sum();
        if judged == count { Ok(reasons) } else { Err(format!("{reasons:?}")) }
    })
    .await;
    let judged = started.elapsed();
    let (now, most) = operator.memory();
    let calls = operator.metric("redoubt_operator_api_calls_total", "patch").await;
    eprintln!(
        "{what}: {count} rules applied in {applied:.1?}, all judged after {judged:.1?}; {calls} patches; {now} MB, at most {most} MB"
    );
    assert!(most < 150, "{most} MB");
    assert!(judged < applied + Duration::from_secs(20), "kubectl took {applied:?}, and the operator was done after {judged:?}");
    reasons
}

async fn all(namespace: &Namespace) -> Vec<DynamicObject> {
    let api = namespace.kind("AlertRule");
    let mut rules = Vec::new();
    let mut page = ListParams::default().limit(1000);
    loop {
        let list = api.list(&page).await.unwrap();
        rules.extend(list.items);
        match list.metadata.continue_.filter(|token| !token.is_empty()) {
            Some(token) => page = page.continue_token(&token),
            None => return rules,
        }
    }
}

#[tokio::test]
async fn a_thousand_rules_are_judged_in_seconds_and_in_little_memory() {
    let Some(namespace) = Namespace::new("many").await else { return };
    let kubeconfig = namespace.account("operator", true).await;
    let operator = Operator::start(&kubeconfig, &[]).await;
    let folder = tempfile::tempdir().unwrap();
    let mut text = String::new();
    for number in 0..count() {
        let rule = json!({
            "apiVersion": redoubt_crds::API_VERSION,
            "kind": "AlertRule",
            "metadata": {"name": format!("rule-{number}")},
            "spec": {
                "description": "One of very many rules, with a description as long as those of people who care for the next one on call. ".repeat(4),
                "sigma": {
                    "title": format!("Rule {number}"),
                    "logsource": {"product": "windows", "category": "process_creation"},
                    "detection": {
                        "selection": {"Image|endswith": [format!("\\tool-{number}.exe"), "\\other.exe"], "CommandLine|contains|all": ["-x", "-y"]},
                        "filter": {"ParentImage|startswith": "C:\\Program Files\\", "User": ["SYSTEM", "LOCAL SERVICE"]},
                        "condition": "selection and not filter",
                    },
                    "falsepositives": ["Administrators at work"],
                    "level": "medium",
                    "tags": ["attack.execution", "attack.t1059.001"],
                },
                "tests": [{"name": "fires", "events": [{"Image": "C:\\other.exe", "CommandLine": "-x -y"}], "expect": {"fires": true}}],
            },
        });
        writeln!(text, "{rule}\n---").unwrap();
    }
    fs::write(folder.path().join("rules.yaml"), text).unwrap();

    let reasons = apply(&namespace, &operator, folder.path(), count(), "made for the test").await;

    assert_eq!(reasons, BTreeMap::from([("True Compiled".to_owned(), count())]));
}

#[tokio::test]
async fn all_of_sigmahq_is_accepted() {
    let Some(namespace) = Namespace::new("sigmahq").await else { return };
    let Some(corpora) = std::env::var_os("REDOUBT_CORPORA") else {
        eprintln!("skipped: no corpora; REDOUBT_CORPORA names the folder in which `sigma` holds the rules of SigmaHQ");
        return;
    };
    let kubeconfig = namespace.account("operator", false).await;
    let operator = Operator::start(&kubeconfig, &["--namespaces", &namespace.name]).await;
    let folder = tempfile::tempdir().unwrap();
    let mut count = 0;
    let mut files = Vec::new();
    find(&Path::new(&corpora).join("sigma"), &mut files);
    for file in files {
        for mut rule in import::import(&fs::read_to_string(&file).unwrap(), &file.display().to_string()).unwrap_or_default() {
            count += 1;
            rule.metadata.name = Some(format!("sigma-{count}"));
            fs::write(folder.path().join(format!("{count}.yaml")), import::to_yaml(&rule)).unwrap();
        }
    }

    let reasons = apply(&namespace, &operator, folder.path(), count, "SigmaHQ").await;

    assert_eq!(reasons, BTreeMap::from([("True Compiled".to_owned(), count)]));
}

/// The files of rules below a folder.
fn find(folder: &Path, files: &mut Vec<std::path::PathBuf>) {
    for entry in fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()) {
        if entry.is_dir() && !entry.ends_with("regression") {
            find(&entry, files);
        } else if entry.extension().is_some_and(|extension| extension == "yml") {
            files.push(entry);
        }
    }
}
