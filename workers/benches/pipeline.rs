//! The whole path on this machine: events over HTTP, through the queue, past all rules, into the store; and how fast they are accepted.
//!
//! `cargo bench -p redoubt --bench pipeline`; it needs the corpora, by `REDOUBT_CORPORA` or beside the repository. Sender and SIEM share
//! the machine's cores. The events are the records of the corpora over and over. Of the ordinary stream one in a hundred is one that some
//! rule finds, which is still far more than a network sends; the stream of attacks is the corpora as they are, where about one event in
//! five raises an alert. Limits, on the ordinary stream: 10,000 events a second end to end with all rules, less than 400 MB resident.

use std::{
    net::IpAddr,
    path::Path,
    sync::Arc,
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
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::load::{ADDRESS, Body, Run};

mod load;

/// Events of one run.
const EVENTS: usize = 150_000;

fn main() {
    let Some(corpora) = load::corpora() else {
        println!("skipped: no corpora; set REDOUBT_CORPORA to the folder that holds sigma/ and cloudtrail/");
        return;
    };
    let folder = tempfile::tempdir().expect("a temporary folder");
    let rules = folder.path().join("rules");
    load::import(&corpora, &rules);
    load::write_token(&folder.path().join("secrets"));
    let records = load::records(&corpora);
    let ordinary = Arc::new(load::bodies(&load::ordinary(&records, &rules)));
    let attacks = Arc::new(load::bodies(&records));
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime");
    runtime.block_on(accept_only(folder.path(), Arc::clone(&ordinary)));
    runtime.block_on(end_to_end("ordinary stream", folder.path(), &rules, ordinary));
    runtime.block_on(end_to_end("stream of attacks", folder.path(), &rules, attacks));
}

/// Ingest and its queue alone; nothing takes events out.
async fn accept_only(folder: &Path, bodies: Arc<Vec<Body>>) {
    let options = redoubt::broker::embedded::Options { max_bytes: 16 << 30, ..Default::default() };
    let broker: Arc<dyn Broker> = Arc::new(EmbeddedBroker::open(&folder.join("accept"), options).expect("a queue"));
    let plan = load_and_compile(&[load::samples()]).plan;
    let (_keep, plans) = watch::channel(Arc::new(IngestPlan { sources: plan.sources.clone(), spec: plan.siem.ingest.clone() }));
    let listening = IngestOptions { bind: IpAddr::V4(ADDRESS), ..IngestOptions::default() };
    let ingest =
        Ingest::new(plans, Arc::clone(&broker), Secrets::new(folder.join("secrets")), Metrics::new(), Arc::new(now_millis), listening);
    let stop = CancellationToken::new();
    let running = tokio::spawn(ingest.run(stop.clone()));
    load::ready().await;

    let (started, cpu_before) = (Instant::now(), load::cpu_seconds("self"));
    load::send(bodies).await;
    let (seconds, cpu) = (started.elapsed().as_secs_f64(), load::cpu_seconds("self") - cpu_before);
    stop.cancel();
    drop(running.await);
    broker.close().await;
    println!("accept only: {EVENTS} events in {seconds:.2} s, {:.0} events/s", EVENTS as f64 / seconds);
    println!("accept only: {:.0} events/s a core, the sender's own work counted in", EVENTS as f64 / cpu);
}

async fn end_to_end(name: &str, folder: &Path, rules: &Path, bodies: Arc<Vec<Body>>) {
    let started = Instant::now();
    let mut siem = load::start(&[&load::samples().join("siem.yaml"), rules], &folder.join(name), &folder.join("secrets"));
    load::ready().await;
    println!("start with all rules: {:.2} s", started.elapsed().as_secs_f64());

    let process = siem.id().to_string();
    let cpu_before = load::cpu_seconds(&process);
    let Run { accepted, indexed, peak_mb } = load::feed(&siem, bodies).await;
    let rate = EVENTS as f64 / indexed;
    println!(
        "{name}: {EVENTS} events accepted in {accepted:.2} s, indexed in {indexed:.2} s: {rate:.0} events/s{}",
        limit(name, " (at least 10,000: ", rate >= 10_000.0)
    );
    let started = Instant::now();
    while load::metric("redoubt_queue_messages", "").await > 0.0 && started.elapsed() < Duration::from_secs(300) {
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    println!(
        "{name}: {} matches, {} alerts, all queues empty {:.2} s later",
        load::metric("redoubt_matches_total", "").await,
        load::metric("redoubt_alerts_total", "").await,
        started.elapsed().as_secs_f64()
    );
    let cpu = load::cpu_seconds(&process) - cpu_before;
    println!("{name}: {:.0} us of processor time an event, all of its way", cpu * 1e6 / EVENTS as f64);
    println!("{name}: {peak_mb} MB resident at the peak{}", limit(name, " (below 400: ", peak_mb < 400));
    load::end(&mut siem);
}

/// Whether a limit holds, for the stream that has limits.
fn limit(name: &str, limit: &str, holds: bool) -> String {
    match (name, holds) {
        ("ordinary stream", true) => format!("{limit}holds)"),
        ("ordinary stream", false) => format!("{limit}MISSED)"),
        _ => String::new(),
    }
}
