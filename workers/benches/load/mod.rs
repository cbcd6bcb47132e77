//! What the benchmarks of the whole path send, and how they watch the SIEM that it is sent to.
#![allow(dead_code, reason = "each benchmark uses a part of it")]
#![allow(missing_docs, reason = "part of benchmarks")]

use std::{
    collections::BTreeMap,
    fs,
    net::Ipv4Addr,
    path::{Path, PathBuf},
    process::{Child, Command},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use bytes::Bytes;
use redoubt::{resources::load_and_compile, run::now_millis};
use redoubt_crds::Format;
use redoubt_engine::{compile::Outcome, event::RawEvent, format::frame};

use crate::EVENTS;

const BATCH: usize = 500;
const SENDERS: usize = 2;
/// Where the SIEM listens.
pub const ADDRESS: Ipv4Addr = Ipv4Addr::new(127, 99, 0, 1);
/// The token in the Secret `ingest`.
const TOKEN: &str = "bench";

/// Where the resources of the quick start lie.
pub fn samples() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../config/samples/quickstart")
}

/// Writes the token that senders show.
pub fn write_token(secrets: &Path) {
    let folder = secrets.join("ingest");
    fs::create_dir_all(&folder).expect("a folder for the token");
    fs::write(folder.join("token"), TOKEN).expect("a token");
}

/// A record as it is sent, and its source.
pub type Record = (&'static str, String);

/// A request: its source, its events, its body, which is sent without a copy of it being made.
pub type Body = (&'static str, usize, Bytes);

/// Starts the whole SIEM on resources, besides the quick start's sources, enrichments and watchlists.
pub fn start(resources: &[&Path], data: &Path, secrets: &Path) -> Child {
    let mut command = Command::new(env!("CARGO_BIN_EXE_redoubt"));
    command.args(["run", "--log", "error", "--bind", &ADDRESS.to_string()]);
    for file in ["sources.yaml", "enrichments.yaml", "watchlists.yaml"] {
        command.arg("-f").arg(samples().join(file));
    }
    for path in resources {
        command.arg("-f").arg(path);
    }
    command.arg("--data").arg(data).arg("--secrets").arg(secrets).spawn().expect("redoubt starts")
}

/// What came of [`feed`].
pub struct Run {
    /// Seconds until all was accepted.
    pub accepted: f64,
    /// Seconds until all was processed.
    pub indexed: f64,
    /// The most memory that the SIEM held meanwhile.
    pub peak_mb: u64,
}

/// Sends [`EVENTS`] events to a SIEM that has had none yet, and waits until it has processed them.
pub async fn feed(siem: &Child, bodies: Arc<Vec<Body>>) -> Run {
    let started = Instant::now();
    let sending = tokio::spawn(send(bodies));
    let (mut accepted, mut peak_mb) = (None, 0);
    while metric("redoubt_events_processed_total", "").await < EVENTS as f64 {
        // The page of metrics costs something, the look at the process hardly anything.
        for _ in 0..5 {
            peak_mb = peak_mb.max(resident_mb(siem.id()));
            if accepted.is_none() && sending.is_finished() {
                accepted = Some(started.elapsed().as_secs_f64());
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
    let indexed = started.elapsed().as_secs_f64();
    sending.await.expect("all is sent");
    Run { accepted: accepted.unwrap_or(indexed), indexed, peak_mb }
}

pub fn end(siem: &mut Child) {
    drop(Command::new("kill").args(["-INT", &siem.id().to_string()]).status());
    drop(siem.wait());
}

/// Sends all bodies as fast as they are taken.
pub async fn send(bodies: Arc<Vec<Body>>) {
    let next = Arc::new(AtomicUsize::new(0));
    let mut senders = tokio::task::JoinSet::new();
    for _ in 0..SENDERS {
        let (bodies, next) = (Arc::clone(&bodies), Arc::clone(&next));
        senders.spawn(async move {
            let client = reqwest::Client::new();
            while let Some((source, _, body)) = bodies.get(next.fetch_add(1, Ordering::Relaxed)) {
                post(&client, source, body.clone()).await;
            }
        });
    }
    while let Some(sent) = senders.join_next().await {
        sent.expect("a sender gets through");
    }
}

/// Posts a body until it is taken.
pub async fn post(client: &reqwest::Client, source: &str, body: Bytes) {
    let url = format!("http://{ADDRESS}:8080/v1/sources/{source}");
    loop {
        let answer = client.post(&url).bearer_auth(TOKEN).body(body.clone()).send().await.expect("an answer");
        match answer.status().as_u16() {
            202 => return,
            429 | 503 => tokio::time::sleep(Duration::from_millis(20)).await,
            other => panic!("answered with {other}: {:?}", answer.text().await),
        }
    }
}

pub async fn ready() {
    let url = format!("http://{ADDRESS}:8080/readyz");
    let started = Instant::now();
    while !reqwest::get(&url).await.is_ok_and(|answer| answer.status().is_success()) {
        assert!(started.elapsed() < Duration::from_secs(60), "not ready in a minute");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

pub async fn metric(name: &str, labels: &str) -> f64 {
    let page = reqwest::get(format!("http://{ADDRESS}:8080/metrics")).await.expect("metrics").text().await.expect("text");
    let series = page.lines().filter(|line| line.starts_with(name) && line.contains(labels));
    series.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum()
}

/// Processor time of a process, user and system, all threads.
pub fn cpu_seconds(process: &str) -> f64 {
    let stat = fs::read_to_string(format!("/proc/{process}/stat")).unwrap_or_default();
    let fields: Vec<&str> = stat.rsplit(") ").next().unwrap_or_default().split(' ').collect();
    let ticks: u64 = [11, 12].iter().filter_map(|index| fields.get(*index)?.parse::<u64>().ok()).sum();
    // Linux counts these in hundredths of a second on every common platform (proc(5), sysconf(_SC_CLK_TCK)).
    ticks as f64 / 100.0
}

pub fn resident_mb(pid: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    // RssAnon leaves out the pages of index files, which the system may drop at any time.
    let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:")).unwrap_or_default();
    line.trim().trim_end_matches("kB").trim().parse::<u64>().unwrap_or(0) / 1024
}

pub fn corpora() -> Option<PathBuf> {
    let given = std::env::var_os("REDOUBT_CORPORA").map(PathBuf::from);
    let path = given.unwrap_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/corpora"));
    path.join("sigma").is_dir().then_some(path)
}

pub fn import(corpora: &Path, output: &Path) {
    let sigma = corpora.join("sigma");
    let folders = ["rules", "rules-compliance", "rules-emerging-threats", "rules-threat-hunting"].map(|folder| sigma.join(folder));
    let started = Instant::now();
    let imported = Command::new(env!("CARGO_BIN_EXE_redoubt")).args(["import", "sigma"]).args(folders).arg("-o").arg(output).status();
    assert!(imported.is_ok_and(|status| status.success()), "the rules are imported");
    println!("import of all Sigma rules: {:.2} s", started.elapsed().as_secs_f64());
}

/// The regression cases and the CloudTrail records, in turns by their share.
pub fn records(corpora: &Path) -> Vec<Record> {
    let read = |folder: &str, extension: &str, source: &'static str, format: Format| -> Vec<Record> {
        let entries = fs::read_dir(corpora.join(folder)).expect("the corpora are there").flatten().map(|entry| entry.path());
        let mut files: Vec<PathBuf> = entries.filter(|path| path.extension().is_some_and(|other| other == extension)).collect();
        files.sort();
        let texts = files.iter().map(|path| fs::read_to_string(path).expect("an event file can be read"));
        texts
            .flat_map(|text| frame(format, &text).into_iter().flatten().map(|line| (source, line.to_owned())).collect::<Vec<_>>())
            .collect()
    };
    let mut records = read("sigma/regression", "ndjson", "windows", Format::Windows);
    records.extend(read("cloudtrail", "json", "cloudtrail", Format::Cloudtrail));
    records
}

/// Those that no rule finds, and after each ninety-nine of them one that some rule does.
pub fn ordinary(records: &[Record], rules: &Path) -> Vec<Record> {
    let plan = load_and_compile(&[samples().join("siem.yaml"), samples().join("sources.yaml"), rules.to_owned()]).plan;
    let found = |(source, body): &&Record| {
        let raw = RawEvent {
            id: "bench".into(),
            received_millis: now_millis(),
            source: (*source).into(),
            sender: None,
            body: body.as_str().into(),
        };
        matches!(plan.process(&raw), Outcome::Event { evaluation, .. } if !evaluation.matches.is_empty())
    };
    let (found, passed): (Vec<&Record>, Vec<&Record>) = records.iter().partition(found);
    println!("of {} records rules find {}", records.len(), found.len());
    let mut found = found.into_iter().cycle();
    passed
        .iter()
        .copied()
        .cycle()
        .take(20_000)
        .enumerate()
        .map(|(at, passed)| if at % 100 == 99 { found.next().unwrap_or(passed) } else { passed })
        .cloned()
        .collect()
}

/// Requests of one source each that hold the records over and over, each CloudTrail record with an id of its own.
pub fn bodies(records: &[Record]) -> Vec<Body> {
    let mut open: BTreeMap<&'static str, (usize, String)> = BTreeMap::new();
    let mut bodies = Vec::new();
    for (number, (source, record)) in records.iter().cycle().enumerate() {
        let (count, body) = open.entry(source).or_default();
        let own = format!("\"eventID\":\"{number}-");
        body.push_str(&record.replacen("\"eventID\":\"", &own, 1));
        body.push('\n');
        *count += 1;
        if *count == BATCH {
            bodies.push((*source, *count, std::mem::take(body).into()));
            *count = 0;
        }
        if bodies.len() == EVENTS / BATCH {
            break;
        }
    }
    bodies
}
