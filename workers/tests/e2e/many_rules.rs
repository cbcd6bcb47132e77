//! What thousands of rules in a namespace cost: `REDOUBT_CORPORA` names the folder that holds SigmaHQ's rules in `sigma`.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::Instant,
};

use futures::{StreamExt as _, stream};
use serde::Deserialize as _;
use serde_json::{Value, json};

use crate::{
    cluster::Namespace,
    external::{elasticsearch_beside_rabbitmq, siem_on},
    harness::Siem,
    namespace::{LIVE, PROCESS, write_secrets},
    servers::{elasticsearch as search_server, rabbitmq},
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn all_rules_of_sigmahq_are_programmed_from_a_namespace() {
    let Some(corpora) = corpora() else { return };
    let Some(namespace) = Namespace::new().await else { return };
    let Some(elasticsearch) = elasticsearch_beside_rabbitmq() else { return };
    write_secrets(&namespace).await;
    namespace.apply(&siem_on(&search_server::unique_prefix(), &[&rabbitmq::shared().url("a")], elasticsearch)).await;
    let mut siem = Siem::of_namespace(&namespace.name, &namespace.kubeconfig);
    siem.start_role("process", Some(PROCESS));
    siem.until_ready(PROCESS).await;
    let rules = rules(&corpora, siem.path("rules"));

    // All of them at once, into a process that runs.
    let started = Instant::now();
    let applied = stream::iter(&rules).map(|rule| namespace.apply_object(rule)).buffer_unordered(8);
    let generations: BTreeMap<String, i64> =
        applied.map(|object| (object.metadata.name.unwrap(), object.metadata.generation.unwrap())).collect().await;
    let applied = started.elapsed();
    let all = json!(generations);
    siem.until("all rules run", async || siem.programmed(PROCESS, "AlertRule").await == all).await;
    eprintln!("{} rules applied in {applied:?}, all live {:?} later; {}", rules.len(), started.elapsed() - applied, memory(&siem));

    // A process that starts on them.
    siem.kill_role("process");
    let started = Instant::now();
    siem.start_role("process", Some(PROCESS));
    siem.until("all rules run again", async || {
        siem.page(PROCESS, "/programmed").await.is_some() && siem.programmed(PROCESS, "AlertRule").await == all
    })
    .await;
    let programmed = started.elapsed();
    siem.until_ready(PROCESS).await;
    eprintln!(
        "a process that starts has programmed all after {programmed:?} and is ready after {:?}; {}",
        started.elapsed(),
        memory(&siem)
    );

    // One of them changes.
    for enabled in [false, true] {
        let mut rule = rules[rules.len() / 2].clone();
        rule["spec"]["enabled"] = json!(enabled);
        let changed = namespace.apply_object(&rule).await;
        let took =
            siem.until_programmed(&[PROCESS], "AlertRule", &changed.metadata.name.unwrap(), changed.metadata.generation.unwrap()).await;
        eprintln!("one changed rule of {} is live after {took:?}; {}", rules.len(), memory(&siem));
        assert!(took < LIVE, "{took:?}");
    }
    siem.stop();
}

fn corpora() -> Option<PathBuf> {
    let given = std::env::var_os("REDOUBT_CORPORA").map(PathBuf::from);
    let path = given.unwrap_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/corpora"));
    if path.join("sigma").is_dir() {
        return Some(path);
    }
    eprintln!("skipped: no Sigma rules in {}", path.join("sigma").display());
    None
}

/// SigmaHQ's rules as resources.
fn rules(corpora: &Path, output: PathBuf) -> Vec<Value> {
    let sigma = corpora.join("sigma");
    let folders = ["rules", "rules-compliance", "rules-emerging-threats", "rules-threat-hunting"].map(|folder| sigma.join(folder));
    let imported = Command::new(env!("CARGO_BIN_EXE_redoubt")).args(["import", "sigma"]).args(folders).arg("-o").arg(&output).output();
    assert!(imported.unwrap().status.success());
    let (mut folders, mut rules) = (vec![output], Vec::new());
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else {
                let text = fs::read_to_string(path).unwrap();
                rules.extend(serde_yaml::Deserializer::from_str(&text).map(|document| Value::deserialize(document).unwrap()));
            }
        }
    }
    rules
}

/// What the process of the process role holds in memory.
fn memory(siem: &Siem) -> String {
    let status = fs::read_to_string(format!("/proc/{}/status", siem.pid("process"))).unwrap();
    let line = |name: &str| status.lines().find_map(|line| line.strip_prefix(name)).unwrap().trim().to_owned();
    format!("memory now {}, at most {}", line("VmRSS:"), line("VmHWM:"))
}
