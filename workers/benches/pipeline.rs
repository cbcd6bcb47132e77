//! The whole path on this machine: events over HTTP, through the queue, past all rules, into the store; and how fast they are accepted.
//!
//! `cargo bench -p redoubt --bench pipeline`; it needs the corpora, by `REDOUBT_CORPORA` or beside the repository. Sender and SIEM share
//! the machine's cores. The events are the records of the corpora over and over. Of the ordinary stream one in a hundred is one that some
//! rule finds, which is still far more than a network sends; the stream of attacks is the corpora as they are, where about one event in
//! five raises an alert. Limits, on the ordinary stream: 10,000 events a second end to end with all rules, less than 400 MB resident.

use std::{
    collections::BTreeMap,
    fs,
    net::{IpAddr, Ipv4Addr},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use redoubt::{
    broker::{Broker, embedded::EmbeddedBroker},
    ingest::{Ingest, IngestOptions, IngestPlan},
    metrics::Metrics,
    resources::load_and_compile,
    run::now_millis,
    secrets::Secrets,
};
use redoubt_crds::Format;
use redoubt_engine::{compile::Outcome, event::RawEvent, format::frame};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

const EVENTS: usize = 150_000;
const BATCH: usize = 500;
const SENDERS: usize = 2;
const ADDRESS: Ipv4Addr = Ipv4Addr::new(127, 99, 0, 1);

fn main() {
    let Some(corpora) = corpora() else {
        println!("skipped: no corpora; set REDOUBT_CORPORA to the folder that holds sigma/ and cloudtrail/");
        return;
    };
    let folder = tempfile::tempdir().expect("a temporary folder");
    let samples = Path::new(env!("CARGO_MANIFEST_DIR")).join("../config/samples/quickstart");
    let rules = folder.path().join("rules");
    import(&corpora, &rules);
    let token = folder.path().join("secrets/ingest");
    fs::create_dir_all(&token).expect("a folder for the token");
    fs::write(token.join("token"), "bench").expect("a token");
    let records = records(&corpora);
    let ordinary = Arc::new(bodies(&ordinary(&records, &samples, &rules)));
    let attacks = Arc::new(bodies(&records));
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime");
    runtime.block_on(accept_only(folder.path(), &samples, Arc::clone(&ordinary)));
    runtime.block_on(end_to_end("ordinary stream", folder.path(), &samples, &rules, ordinary));
    runtime.block_on(end_to_end("stream of attacks", folder.path(), &samples, &rules, attacks));
}

/// A record as it is sent, and its source.
type Record = (&'static str, String);

/// A request: its source, its events, its body.
type Body = (&'static str, usize, String);

/// Ingest and its queue alone; nothing takes events out.
async fn accept_only(folder: &Path, samples: &Path, bodies: Arc<Vec<Body>>) {
    let options = redoubt::broker::embedded::Options { max_bytes: 16 << 30, ..Default::default() };
    let broker: Arc<dyn Broker> = Arc::new(EmbeddedBroker::open(&folder.join("accept"), options).expect("a queue"));
    let plan = load_and_compile(&[samples.to_owned()]).plan;
    let (_keep, plans) = watch::channel(Arc::new(IngestPlan { sources: plan.sources.clone(), spec: plan.siem.ingest.clone() }));
    let listening = IngestOptions { bind: IpAddr::V4(ADDRESS), ..IngestOptions::default() };
    let ingest =
        Ingest::new(plans, Arc::clone(&broker), Secrets::new(folder.join("secrets")), Metrics::new(), Arc::new(now_millis), listening);
    let stop = CancellationToken::new();
    let running = tokio::spawn(ingest.run(stop.clone()));
    ready().await;

    let (started, cpu_before) = (Instant::now(), cpu_seconds("self"));
    send(bodies).await;
    let (seconds, cpu) = (started.elapsed().as_secs_f64(), cpu_seconds("self") - cpu_before);
    stop.cancel();
    drop(running.await);
    broker.close().await;
    println!("accept only: {EVENTS} events in {seconds:.2} s, {:.0} events/s", EVENTS as f64 / seconds);
    println!("accept only: {:.0} events/s a core, the sender's own work counted in", EVENTS as f64 / cpu);
}

async fn end_to_end(name: &str, folder: &Path, samples: &Path, rules: &Path, bodies: Arc<Vec<Body>>) {
    let mut siem = Command::new(env!("CARGO_BIN_EXE_redoubt"))
        .args(["run", "--log", "error", "--bind", &ADDRESS.to_string(), "-f"])
        .args([
            &samples.join("siem.yaml"),
            &samples.join("sources.yaml"),
            &samples.join("enrichments.yaml"),
            &samples.join("watchlists.yaml"),
        ])
        .arg(rules)
        .arg("--data")
        .arg(folder.join(name))
        .arg("--secrets")
        .arg(folder.join("secrets"))
        .stderr(Stdio::inherit())
        .spawn()
        .expect("redoubt starts");
    let started = Instant::now();
    ready().await;
    println!("start with all rules: {:.2} s", started.elapsed().as_secs_f64());

    let process = siem.id().to_string();
    let (started, cpu_before) = (Instant::now(), cpu_seconds(&process));
    let sending = tokio::spawn(send(bodies));
    let mut peak = 0;
    while !sending.is_finished() {
        peak = peak.max(resident_mb(siem.id()));
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    sending.await.expect("all is sent");
    let accepted = started.elapsed().as_secs_f64();
    while metric("redoubt_events_processed_total", "").await < EVENTS as f64 {
        peak = peak.max(resident_mb(siem.id()));
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let indexed = started.elapsed().as_secs_f64();
    while metric("redoubt_queue_messages", "").await > 0.0 && started.elapsed() < Duration::from_secs(300) {
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let rate = EVENTS as f64 / indexed;
    println!(
        "{name}: {EVENTS} events accepted in {accepted:.2} s, indexed in {indexed:.2} s: {rate:.0} events/s{}",
        limit(name, " (at least 10,000: ", rate >= 10_000.0)
    );
    println!(
        "{name}: {} matches, {} alerts, all queues empty after {:.2} s",
        metric("redoubt_matches_total", "").await,
        metric("redoubt_alerts_total", "").await,
        started.elapsed().as_secs_f64()
    );
    let cpu = cpu_seconds(&process) - cpu_before;
    println!("{name}: {:.0} us of processor time an event, all of its way", cpu * 1e6 / EVENTS as f64);
    let resident = peak.max(resident_mb(siem.id()));
    println!("{name}: {resident} MB resident at the peak{}", limit(name, " (below 400: ", resident < 400));
    end(&mut siem);
}

/// Whether a limit holds, for the stream that has limits.
fn limit(name: &str, limit: &str, holds: bool) -> String {
    match (name, holds) {
        ("ordinary stream", true) => format!("{limit}holds)"),
        ("ordinary stream", false) => format!("{limit}MISSED)"),
        _ => String::new(),
    }
}

fn end(siem: &mut Child) {
    drop(Command::new("kill").args(["-INT", &siem.id().to_string()]).status());
    drop(siem.wait());
}

async fn send(bodies: Arc<Vec<Body>>) {
    let next = Arc::new(AtomicUsize::new(0));
    let mut senders = tokio::task::JoinSet::new();
    for _ in 0..SENDERS {
        let (bodies, next) = (Arc::clone(&bodies), Arc::clone(&next));
        senders.spawn(async move {
            let client = reqwest::Client::new();
            while let Some((source, _, body)) = bodies.get(next.fetch_add(1, Ordering::Relaxed)) {
                let url = format!("http://{ADDRESS}:8080/v1/sources/{source}");
                loop {
                    let answer = client.post(&url).bearer_auth("bench").body(body.clone()).send().await.expect("an answer");
                    match answer.status().as_u16() {
                        202 => break,
                        429 | 503 => tokio::time::sleep(Duration::from_millis(20)).await,
                        other => panic!("answered with {other}: {:?}", answer.text().await),
                    }
                }
            }
        });
    }
    while let Some(sent) = senders.join_next().await {
        sent.expect("a sender gets through");
    }
}

async fn ready() {
    let url = format!("http://{ADDRESS}:8080/readyz");
    let started = Instant::now();
    while !reqwest::get(&url).await.is_ok_and(|answer| answer.status().is_success()) {
        assert!(started.elapsed() < Duration::from_secs(60), "not ready in a minute");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

async fn metric(name: &str, labels: &str) -> f64 {
    let page = reqwest::get(format!("http://{ADDRESS}:8080/metrics")).await.expect("metrics").text().await.expect("text");
    let series = page.lines().filter(|line| line.starts_with(name) && line.contains(labels));
    series.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum()
}

/// Processor time of a process, user and system, all threads.
fn cpu_seconds(process: &str) -> f64 {
    let stat = fs::read_to_string(format!("/proc/{process}/stat")).unwrap_or_default();
    let fields: Vec<&str> = stat.rsplit(") ").next().unwrap_or_default().split(' ').collect();
    let ticks: u64 = [11, 12].iter().filter_map(|index| fields.get(*index)?.parse::<u64>().ok()).sum();
    // Linux counts these in hundredths of a second on every common platform (proc(5), sysconf(_SC_CLK_TCK)).
    ticks as f64 / 100.0
}

fn resident_mb(pid: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    // RssAnon leaves out the pages of index files, which the system may drop at any time.
    let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:")).unwrap_or_default();
    line.trim().trim_end_matches("kB").trim().parse::<u64>().unwrap_or(0) / 1024
}

fn corpora() -> Option<PathBuf> {
    let given = std::env::var_os("REDOUBT_CORPORA").map(PathBuf::from);
    let path = given.unwrap_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/corpora"));
    path.join("sigma").is_dir().then_some(path)
}

fn import(corpora: &Path, output: &Path) {
    let sigma = corpora.join("sigma");
    let folders = ["rules", "rules-compliance", "rules-emerging-threats", "rules-threat-hunting"].map(|folder| sigma.join(folder));
    let started = Instant::now();
    let imported = Command::new(env!("CARGO_BIN_EXE_redoubt")).args(["import", "sigma"]).args(folders).arg("-o").arg(output).status();
    assert!(imported.is_ok_and(|status| status.success()), "the rules are imported");
    println!("import of all Sigma rules: {:.2} s", started.elapsed().as_secs_f64());
}

/// The regression cases and the CloudTrail records, in turns by their share.
fn records(corpora: &Path) -> Vec<Record> {
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
fn ordinary(records: &[Record], samples: &Path, rules: &Path) -> Vec<Record> {
    let plan = load_and_compile(&[samples.join("siem.yaml"), samples.join("sources.yaml"), rules.to_owned()]).plan;
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
fn bodies(records: &[Record]) -> Vec<Body> {
    let mut open: BTreeMap<&'static str, (usize, String)> = BTreeMap::new();
    let mut bodies = Vec::new();
    for (number, (source, record)) in records.iter().cycle().enumerate() {
        let (count, body) = open.entry(source).or_default();
        let own = format!("\"eventID\":\"{number}-");
        body.push_str(&record.replacen("\"eventID\":\"", &own, 1));
        body.push('\n');
        *count += 1;
        if *count == BATCH {
            bodies.push((*source, *count, std::mem::take(body)));
            *count = 0;
        }
        if bodies.len() == EVENTS / BATCH {
            break;
        }
    }
    bodies
}
