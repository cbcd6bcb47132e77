//! The whole path on this machine: events over HTTP, through the queue, past all rules, into the store; and how fast they are accepted.
//!
//! `cargo bench -p redoubt --bench pipeline`; it needs the corpora, by `REDOUBT_CORPORA` or beside the repository. Sender and SIEM share
//! the machine's cores. Limits: 10,000 events a second end to end with all rules, less than 400 MB resident.

use std::{
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
use redoubt_engine::format::frame;
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
    let bodies = Arc::new(bodies(&corpora));
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime");
    runtime.block_on(accept_only(folder.path(), &samples, Arc::clone(&bodies)));
    runtime.block_on(end_to_end(folder.path(), &samples, &rules, bodies));
}

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

async fn end_to_end(folder: &Path, samples: &Path, rules: &Path, bodies: Arc<Vec<Body>>) {
    let mut siem = Command::new(env!("CARGO_BIN_EXE_redoubt"))
        .args(["run", "--log", "error", "--bind", &ADDRESS.to_string(), "-f"])
        .args([
            &samples.join("siem.yaml"),
            &samples.join("sources.yaml"),
            &samples.join("enrichments.yaml"),
            &samples.join("watchlists.yaml"),
        ])
        .arg(if std::env::var_os("NO_RULES").is_some() { samples.join("sources.yaml") } else { rules.to_owned() })
        .arg("--data")
        .arg(folder.join("data"))
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
    send(bodies).await;
    let accepted = started.elapsed().as_secs_f64();
    while metric("redoubt_events_processed_total", "").await < EVENTS as f64 {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let indexed = started.elapsed().as_secs_f64();
    while metric("redoubt_queue_messages", "").await > 0.0 && started.elapsed() < Duration::from_secs(300) {
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let rate = EVENTS as f64 / indexed;
    println!(
        "end to end: {EVENTS} events accepted in {accepted:.2} s, indexed in {indexed:.2} s: {rate:.0} events/s (at least 10,000: {})",
        holds(rate >= 10_000.0)
    );
    println!(
        "end to end: {} matches, {} alerts, all queues empty after {:.2} s",
        metric("redoubt_matches_total", "").await,
        metric("redoubt_alerts_total", "").await,
        started.elapsed().as_secs_f64()
    );
    let cpu = cpu_seconds(&process) - cpu_before;
    println!("end to end: {:.0} us of processor time an event, all of its way", cpu * 1e6 / EVENTS as f64);
    let resident = peak_resident_mb(siem.id());
    println!("end to end: {resident} MB resident at the peak (below 400: {})", holds(resident < 400));
    end(&mut siem);
}

fn holds(holds: bool) -> &'static str {
    if holds { "holds" } else { "MISSED" }
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

fn peak_resident_mb(pid: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    // RssAnon leaves out the pages of index files that the system may drop at any time; the peak counter has no such part.
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

/// Requests that hold the regression cases and the CloudTrail records over and over, each CloudTrail record with an id of its own.
fn bodies(corpora: &Path) -> Vec<Body> {
    let read = |folder: &str, extension: &str, format: Format| -> Vec<String> {
        let entries = fs::read_dir(corpora.join(folder)).expect("the corpora are there").flatten().map(|entry| entry.path());
        let mut files: Vec<PathBuf> = entries.filter(|path| path.extension().is_some_and(|other| other == extension)).collect();
        files.sort();
        let texts = files.iter().map(|path| fs::read_to_string(path).expect("an event file can be read"));
        texts.flat_map(|text| frame(format, &text).into_iter().flatten().map(str::to_owned).collect::<Vec<_>>()).collect()
    };
    let windows = read("sigma/regression", "ndjson", Format::Windows);
    let cloudtrail = read("cloudtrail", "json", Format::Cloudtrail);
    let mut bodies = Vec::new();
    let share = windows.len() as f64 / (windows.len() + cloudtrail.len()) as f64;
    let mut windows_due = 0.0;
    let (mut from_windows, mut from_cloudtrail) = (windows.iter().cycle(), cloudtrail.iter().cycle());
    for request in 0..EVENTS / BATCH {
        windows_due += share;
        let take_windows = windows_due >= 1.0;
        let mut body = String::new();
        for number in 0..BATCH {
            if take_windows {
                body.push_str(from_windows.next().expect("a cycle has no end"));
            } else {
                let own = format!("\"eventID\":\"{request}-{number}-");
                body.push_str(&from_cloudtrail.next().expect("a cycle has no end").replacen("\"eventID\":\"", &own, 1));
            }
            body.push('\n');
        }
        if take_windows {
            windows_due -= 1.0;
        }
        bodies.push((if take_windows { "windows" } else { "cloudtrail" }, BATCH, body));
    }
    bodies
}
