//! The whole path on real servers: events over HTTP, through a RabbitMQ, past the rules, into an Elasticsearch; beside raw `_bulk` requests
//! of the same documents to the same Elasticsearch, in the same run.
//!
//! `cargo bench -p redoubt --bench servers`; it needs the corpora and both servers (`tests/setup servers`). All of it shares the
//! machine's cores: the sender, Redoubt in one process, one RabbitMQ node, one Elasticsearch. The stream is the ordinary one of the
//! benchmark `pipeline`. Raw and whole path take turns, since the machine's speed changes by the minute. Limits: with a tenth of the rules 0.8 of
//! raw, with all of them 0.6. Then, at half the rate that was reached, the
//! time from an event's acceptance (its 202) to its alert on the broker's topic (99 of 100 within 300 ms), and to its being found in
//! Elasticsearch (2 s).
//!
//! `REDOUBT_BENCH_MINUTES=10` adds so many minutes of full load with all rules, and the memory of the process in each (below 500 MB).
//!
//! At last the same with Elasticsearch on one core of its own and all else on another, raw and whole path: what it is to have cores for each,
//! at half the scale of a machine with twice as many.
#![allow(clippy::unwrap_used, reason = "a benchmark that fails has no result")]

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    process::{Child, Command},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use bytes::Bytes;
use redoubt::{
    batch,
    broker::{
        Broker, Topic,
        rabbitmq::{Bounds, RabbitMq},
    },
    resources::load_and_compile,
    run::now_millis,
    secrets::Secrets,
    store::{
        Family, SearchRequest, Store,
        elasticsearch::{ElasticsearchStore, Options},
    },
};
use redoubt_crds::ExternalBroker;
use redoubt_engine::{alert::Alert, compile::Outcome, event::RawEvent, format::frame};
use serde_json::{Map, Value, json};
use tokio::task::JoinHandle;
use uuid::Uuid;

use crate::{
    load::Body,
    servers::{elasticsearch::Server, rabbitmq, rabbitmq::Nodes},
};

mod load;
#[path = "load/raw.rs"]
mod raw;
#[path = "../tests/servers/servers.rs"]
mod servers;

/// Events of one run: enough that the server merges and refreshes within it what it took, as it does day in, day out.
const EVENTS: usize = 450_000;
/// Client settings that the raw run tries.
const RAW_SETTINGS: [Settings; 4] = [(2, 5), (1, 5), (4, 5), (2, 10)];
/// Those for a server that is warm, with cores of its own.
const RAW_SETTINGS_APART: [Settings; 2] = [(2, 5), (2, 10)];
/// Raw requests and whole paths in turns: as many as it takes for a median that a slow minute does not move.
const ROUNDS: usize = 3;
const ROUNDS_APART: usize = 1;
/// Whole paths with each set of rules before those that count.
const WARMING_ROUNDS: usize = 2;
/// So long the server may take to merge what the run before gave it, which the next one is not to pay for.
const MERGING: Duration = Duration::from_secs(120);
/// Events whose alerts are timed, and the pause between two.
const MARKS: usize = 1_500;
const MARK_EVERY: Duration = Duration::from_millis(20);
/// How often Elasticsearch is asked for new alerts: the resolution of that time.
const ASK_EVERY: Duration = Duration::from_millis(50);
/// How many it looks at: those of four seconds. More would be work of its own for the server that is measured.
const ASK_FOR: usize = 200;

/// What the timed events come by, and what finds them.
const MARK: &str = "
apiVersion: redoubt.dev/v1alpha1
kind: LogSource
metadata: {name: marks}
spec:
  http: {auth: {bearer: {name: ingest, key: token}}}
  logsource: {product: bench}
---
apiVersion: redoubt.dev/v1alpha1
kind: AlertRule
metadata: {name: mark}
spec:
  sigma:
    title: A timed event
    logsource: {product: bench}
    detection: {mark: {mark: true}, condition: mark}
";

fn main() {
    let Some(corpora) = load::corpora() else {
        println!("skipped: no corpora; set REDOUBT_CORPORA to the folder that holds sigma/ and cloudtrail/");
        return;
    };
    if !rabbitmq::available() {
        return;
    }
    let server = match Server::start() {
        Ok(server) => server,
        Err(why) => return println!("skipped: {why}"),
    };
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(measure(&corpora, server));
}

async fn measure(corpora: &Path, server: Server) {
    let site = Site { folder: tempfile::tempdir().unwrap(), nodes: Nodes::start(&["a"]), server };
    let all = site.path("rules");
    load::import(corpora, &all);
    load::write_token(&site.path("secrets"));
    let tenth = site.path("tenth");
    fs::create_dir_all(&tenth).unwrap();
    for (number, file) in files_below(&all).iter().step_by(10).enumerate() {
        fs::copy(file, tenth.join(format!("{number}.yaml"))).unwrap();
    }
    fs::write(site.path("mark.yaml"), MARK).unwrap();
    let bodies = Arc::new(load::bodies(&load::ordinary(&load::records(corpora), &all)));

    let documents = documents(&bodies);
    site.alike(&tenth, &documents, &bodies[0]).await;
    let runs = [("a tenth of the rules", tenth.as_path(), 0.8), ("all rules", all.as_path(), 0.6)];
    // The first runs warm the server up and do not count: its compiler is done with a kind of request after a million documents.
    site.raw("warming up", &documents, RAW_SETTINGS[0]).await;
    for round in 1..=WARMING_ROUNDS {
        for (what, rules, _) in runs {
            site.whole_path(&format!("warming up {round}, {what}"), rules, &bodies).await;
        }
    }
    let settings = site.best_settings("together", &documents, &RAW_SETTINGS).await;
    let [_, reached] = site.in_turns("together", ROUNDS, (&documents, settings), (&bodies, runs)).await;
    site.latency(&all, &bodies, reached / 2.0).await;
    if let Some(minutes) = std::env::var("REDOUBT_BENCH_MINUTES").ok().and_then(|minutes| minutes.parse().ok()) {
        site.endure(&all, &bodies, minutes).await;
    }
    site.bind("0", "1");
    let settings = site.best_settings("apart", &documents, &RAW_SETTINGS_APART).await;
    site.in_turns("apart", ROUNDS_APART, (&documents, settings), (&bodies, runs)).await;
}

/// The documents that the SIEM makes of bodies, as it sends them, with their ids.
fn documents(bodies: &[Body]) -> Vec<Document> {
    let plan = load_and_compile(&[load::samples()]).plan;
    let mut documents = Vec::with_capacity(EVENTS);
    for (source, _, body) in bodies {
        for record in frame(plan.sources[*source].format, text(body)).into_iter().flatten() {
            // As ingest stamps it: what an id costs the server depends on how it looks.
            let id = Uuid::now_v7().to_string();
            let (received_millis, source) = (now_millis(), (*source).into());
            let sender = Some("127.0.0.1".into());
            let raw = RawEvent { id, received_millis, source, sender, body: record.into() };
            let Outcome::Event { mut event, .. } = plan.process(&raw) else { continue };
            event.document.insert("redoubt".to_owned(), json!({"id": event.id, "received": event.received_millis}));
            documents.push((event.id, serde_json::to_vec(&event.document).unwrap()));
        }
    }
    documents
}

fn text(body: &Bytes) -> &str {
    std::str::from_utf8(body).unwrap()
}

fn files_below(folder: &Path) -> Vec<PathBuf> {
    let mut entries: Vec<PathBuf> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    entries.sort();
    entries.into_iter().flat_map(|entry| if entry.is_dir() { files_below(&entry) } else { vec![entry] }).collect()
}

struct Site {
    folder: tempfile::TempDir,
    nodes: Nodes,
    server: Server,
}

impl Site {
    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn broker(&self, prefix: &str) -> ExternalBroker {
        let spec = json!({"urls": [self.nodes.url("a")], "credentialsSecretRef": {"name": "rabbitmq"}, "prefix": prefix});
        serde_json::from_value(spec).unwrap()
    }

    async fn store(&self, prefix: &str) -> ElasticsearchStore {
        let spec = serde_json::from_value(json!({"urls": [self.server.url()], "prefix": prefix, "replicas": 0})).unwrap();
        ElasticsearchStore::open(&spec, Secrets::new("none"), &Options::default()).await.unwrap()
    }

    /// Has the server run on some processors, and all else on others.
    fn bind(&self, server: &str, others: &str) {
        for (pid, processors) in [(self.server.pid(), server), (self.nodes.pid("a"), others), (std::process::id().to_string(), others)] {
            let bound = Command::new("taskset").args(["--all-tasks", "--cpu-list", "--pid", processors, &pid]).output().unwrap();
            assert!(bound.status.success(), "taskset {processors} {pid}: {}", String::from_utf8_lossy(&bound.stderr));
        }
    }

    /// Takes away the events of a run, which nobody needs any more.
    async fn forget(&self, prefix: &str) {
        let day = jiff::Timestamp::now().strftime("%Y.%m.%d");
        let url = format!("{}/{prefix}-events-{day}-000001?ignore_unavailable=true", self.server.url());
        assert!(reqwest::Client::new().delete(&url).send().await.unwrap().status().is_success(), "{prefix} is deleted");
    }

    /// Waits until the server has merged what it is to merge.
    async fn settled(&self) {
        let url = format!("{}/_nodes/stats/thread_pool?filter_path=nodes.*.thread_pool.merge", self.server.url());
        let started = Instant::now();
        loop {
            let told: Value = reqwest::get(&url).await.unwrap().json().await.unwrap();
            let pools = told["nodes"].as_object().unwrap().values().map(|node| &node["thread_pool"]["merge"]);
            let merging = pools.map(|pool| pool["active"].as_u64().unwrap() + pool["queue"].as_u64().unwrap()).sum::<u64>() > 0;
            if !merging {
                return;
            }
            assert!(started.elapsed() < MERGING, "the server merges on and on");
            tokio::time::sleep(ASK_EVERY).await;
        }
    }

    /// The best of some client settings for raw requests.
    async fn best_settings(&self, name: &str, documents: &[Document], settings: &[Settings]) -> Settings {
        let mut best = (0.0, settings[0]);
        for (round, &settings) in settings.iter().enumerate() {
            let rate = self.raw(&format!("{name} trial {round}"), documents, settings).await;
            if rate > best.0 {
                best = (rate, settings);
            }
        }
        best.1
    }

    /// Documents a second by raw requests.
    async fn raw(&self, name: &str, documents: &[Document], (clients, megabytes): Settings) -> f64 {
        let prefix = format!("raw-{}", name.replace(' ', "-"));
        let day = jiff::Timestamp::now().strftime("%Y.%m.%d");
        self.store(&prefix).await.close().await;
        let mut requests = vec![Vec::new()];
        for (id, document) in documents {
            if requests.last().unwrap().len() >= megabytes << 20 {
                requests.push(Vec::new());
            }
            let request = requests.last_mut().unwrap();
            let action = json!({"create": {"_index": format!("{prefix}-events-{day}-000001"), "_id": id}});
            request.extend_from_slice(action.to_string().as_bytes());
            request.push(b'\n');
            request.extend_from_slice(document);
            request.push(b'\n');
        }
        self.settled().await;
        let before = [self.server.pid().as_str(), "self"].map(load::cpu_seconds);
        let rate = documents.len() as f64 / raw::send(self.server.url(), requests, clients).await.as_secs_f64();
        let spent = [self.server.pid().as_str(), "self"].map(load::cpu_seconds);
        let [server, client] = [0, 1].map(|who| (spent[who] - before[who]) * 1e6 / documents.len() as f64);
        println!(
            "raw _bulk, {name}, {clients} at a time, {megabytes} MB: {rate:.0} docs/s; us of processor time: Elasticsearch {server:.0}, client {client:.0}"
        );
        self.forget(&prefix).await;
        rate
    }

    /// Raw requests, then the whole path with each set of rules, again and again, so that all of them meet the machine as it is in those
    /// minutes. What counts is the median of the rounds' ratios. Returns the median rates of the whole paths.
    async fn in_turns(
        &self,
        name: &str,
        rounds: usize,
        (documents, settings): (&[Document], Settings),
        (bodies, runs): (&Arc<Vec<Body>>, Runs<'_>),
    ) -> [f64; 2] {
        let mut reached = [Vec::new(), Vec::new()];
        for round in 1..=rounds {
            let raw = self.raw(&format!("{name} {round}"), documents, settings).await;
            for ((what, rules, _), reached) in runs.iter().zip(&mut reached) {
                let rate = self.whole_path(&format!("{name} {round}, {what}"), rules, bodies).await;
                reached.push((rate / raw, rate));
            }
        }
        let mut rates = [0.0; 2];
        for (at, ((what, _, limit), reached)) in runs.iter().zip(&mut reached).enumerate() {
            reached.sort_by(|one, other| one.0.total_cmp(&other.0));
            let ratio = reached[rounds / 2].0;
            let holds = if ratio >= *limit { "holds" } else { "MISSED" };
            let all: Vec<String> = reached.iter().map(|(ratio, _)| format!("{ratio:.2}")).collect();
            println!("whole path over raw _bulk, {name}, {what}: {ratio:.2} (at least {limit}: {holds}), of {}", all.join(", "));
            reached.sort_by(|one, other| one.1.total_cmp(&other.1));
            rates[at] = reached[rounds / 2].1;
        }
        rates
    }

    /// Starts the SIEM on the servers, on rules and the resources of the timed events.
    async fn start(&self, prefix: &str, rules: &Path) -> Child {
        let siem = json!({
            "apiVersion": "redoubt.dev/v1alpha1", "kind": "Siem", "metadata": {"name": "bench"},
            "spec": {
                "broker": {"external": self.broker(prefix)},
                "store": {"external": {"urls": [self.server.url()], "prefix": prefix, "replicas": 0}},
            },
        });
        let file = self.path(&format!("{prefix}.yaml"));
        fs::write(&file, siem.to_string()).unwrap();
        let secret = self.path("secrets/rabbitmq");
        fs::create_dir_all(&secret).unwrap();
        for key in ["username", "password"] {
            fs::write(secret.join(key), "guest").unwrap();
        }
        let siem = load::start(&[&file, &self.path("mark.yaml"), rules], &self.path(prefix), &self.path("secrets"));
        load::ready().await;
        siem
    }

    /// Processor seconds so far of all that takes part.
    fn spent(&self, siem: &Child) -> BTreeMap<&'static str, f64> {
        let seconds = |pid: &str| load::cpu_seconds(pid);
        BTreeMap::from([
            ("redoubt", seconds(&siem.id().to_string())),
            ("RabbitMQ", seconds(&self.nodes.pid("a"))),
            ("Elasticsearch", seconds(&self.server.pid())),
            ("the sender", seconds("self")),
        ])
    }

    /// Makes sure that raw requests carry what the SIEM stores. Ids and times differ, but are as long.
    async fn alike(&self, rules: &Path, documents: &[Document], (source, count, body): &Body) {
        let mut siem = self.start("alike", rules).await;
        load::post(&reqwest::Client::new(), source, body.clone()).await;
        let store = self.store("alike").await;
        let started = Instant::now();
        let stored = loop {
            let request = SearchRequest { query: "*".to_owned(), size: *count, ..SearchRequest::default() };
            let found = store.search(Family::Events, request).await.unwrap();
            if found.hits.len() == *count {
                break found.hits;
            }
            assert!(started.elapsed() < Duration::from_secs(60), "{} of {count} events are found", found.hits.len());
            tokio::time::sleep(ASK_EVERY).await;
        };
        let length = |id: &str, mut document: Map<String, Value>| {
            document.remove("redoubt");
            (id.len(), json!(document).to_string().len())
        };
        let mut stored: Vec<_> = stored.into_iter().map(|hit| length(&hit.id, hit.body)).collect();
        let mut raw: Vec<_> = documents[..*count].iter().map(|(id, json)| length(id, serde_json::from_slice(json).unwrap())).collect();
        stored.sort_unstable();
        raw.sort_unstable();
        assert_eq!(raw, stored, "raw requests carry other documents than the SIEM stores");
        store.close().await;
        load::end(&mut siem);
        self.forget("alike").await;
    }

    /// Events a second from HTTP to the answer of Elasticsearch.
    async fn whole_path(&self, name: &str, rules: &Path, bodies: &Arc<Vec<Body>>) -> f64 {
        let prefix = format!("path-{}", name.replace([' ', ','], "-"));
        let mut siem = self.start(&prefix, rules).await;
        self.settled().await;
        let before = self.spent(&siem);
        let run = load::feed(&siem, Arc::clone(bodies)).await;
        let spent = self.spent(&siem);
        let rate = EVENTS as f64 / run.indexed;
        let shares = before.iter().map(|(who, before)| format!("{who} {:.0}", (spent[who] - before) * 1e6 / EVENTS as f64));
        println!(
            "whole path, {name}: {rate:.0} events/s; us of processor time: {}; {} MB at the peak",
            shares.collect::<Vec<_>>().join(", "),
            run.peak_mb
        );
        load::end(&mut siem);
        self.forget(&prefix).await;
        rate
    }

    /// How long alerts take while events come at a rate.
    async fn latency(&self, rules: &Path, bodies: &Arc<Vec<Body>>, rate: f64) {
        let prefix = "latency";
        let mut siem = self.start(prefix, rules).await;
        self.settled().await;
        let stop = Arc::new(AtomicBool::new(false));
        let background = load_at(rate, Arc::clone(bodies), Arc::clone(&stop));
        let on_topic: Seen = Arc::default();
        let topic = self.watch_topic(prefix, Arc::clone(&on_topic)).await;
        let found: Seen = Arc::default();
        let searching = self.watch_store(prefix, Arc::clone(&found), Arc::clone(&stop)).await;

        let mut accepted = BTreeMap::new();
        let client = reqwest::Client::new();
        let mut clock = tokio::time::interval(MARK_EVERY);
        for number in 0..MARKS {
            clock.tick().await;
            let id = format!("mark-{number}");
            load::post(&client, "marks", json!({"event": {"id": id}, "mark": true}).to_string().into()).await;
            accepted.insert(id, Instant::now());
        }
        let deadline = Instant::now() + Duration::from_secs(60);
        while found.lock().unwrap().len() < MARKS || on_topic.lock().unwrap().len() < MARKS {
            assert!(Instant::now() < deadline, "alerts are missing");
            tokio::time::sleep(ASK_EVERY).await;
        }
        stop.store(true, Ordering::Relaxed);
        background.await.unwrap();
        searching.await.unwrap();
        topic.abort();
        load::end(&mut siem);
        self.forget(prefix).await;
        for (what, seen, limit) in [("on the alert topic", on_topic, 300), ("found in Elasticsearch", found, 2_000)] {
            let seen = seen.lock().unwrap();
            let mut millis: Vec<u128> = accepted.iter().map(|(id, at)| seen[id].saturating_duration_since(*at).as_millis()).collect();
            millis.sort_unstable();
            let at = |part: f64| millis[((millis.len() - 1) as f64 * part) as usize];
            let holds = if at(0.99) < limit { "holds" } else { "MISSED" };
            println!(
                "alert {what} at {rate:.0} events/s: p50 {} ms, p95 {} ms, p99 {} ms (below {limit}: {holds}), all {} ms",
                at(0.5),
                at(0.95),
                at(0.99),
                at(1.0)
            );
        }
    }

    /// Notes when the alert of each timed event comes by on the topic.
    async fn watch_topic(&self, prefix: &str, seen: Seen) -> JoinHandle<()> {
        let bounds = Bounds { max_bytes: 1 << 30, delivery_limit: 5 };
        let broker = RabbitMq::new(&self.broker(prefix), bounds, Secrets::new(self.path("secrets")), "bench");
        broker.declare(Topic::Alerts, "bench").await.unwrap();
        let mut consumer = broker.consume(Topic::Alerts, "bench", 1 << 20).await.unwrap();
        tokio::spawn(async move {
            while let Some(delivery) = consumer.next().await.unwrap() {
                let now = Instant::now();
                for alert in batch::decode::<Alert>(batch::Kind::Alerts, &delivery.body).unwrap() {
                    if &*alert.rule.name == "mark" {
                        let id = alert.events[0].document["event"]["id"].as_str().unwrap().to_owned();
                        seen.lock().unwrap().entry(id).or_insert(now);
                    }
                }
                consumer.ack(&[delivery.tag]).await.unwrap();
            }
            broker.close().await;
        })
    }

    /// Notes when the alert of each timed event is first found.
    async fn watch_store(&self, prefix: &str, seen: Seen, stop: Arc<AtomicBool>) -> JoinHandle<()> {
        let store = self.store(prefix).await;
        tokio::spawn(async move {
            while !stop.load(Ordering::Relaxed) {
                let request = SearchRequest { query: "rule.name:mark".to_owned(), size: ASK_FOR, ..SearchRequest::default() };
                let found = store.search(Family::Alerts, request).await.unwrap();
                let now = Instant::now();
                for hit in found.hits {
                    seen.lock()
                        .unwrap()
                        .entry(hit.body["events"][0]["document"]["event"]["id"].as_str().unwrap().to_owned())
                        .or_insert(now);
                }
                tokio::time::sleep(ASK_EVERY).await;
            }
        })
    }

    /// Minutes of as much as goes through, and what the process holds.
    async fn endure(&self, rules: &Path, bodies: &Arc<Vec<Body>>, minutes: u32) {
        let mut siem = self.start("endure", rules).await;
        let stop = Arc::new(AtomicBool::new(false));
        let background = load_at(f64::INFINITY, Arc::clone(bodies), Arc::clone(&stop));
        let mut before = 0.0;
        for minute in 1..=minutes {
            let (until, mut peak) = (Instant::now() + Duration::from_secs(60), 0);
            while Instant::now() < until {
                peak = peak.max(load::resident_mb(siem.id()));
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
            let done = load::metric("redoubt_events_processed_total", "").await;
            let holds = if peak < 500 { "holds" } else { "MISSED" };
            println!("minute {minute} of full load: {:.0} events/s, {peak} MB at the peak (below 500: {holds})", (done - before) / 60.0);
            before = done;
        }
        stop.store(true, Ordering::Relaxed);
        background.await.unwrap();
        load::end(&mut siem);
        self.forget("endure").await;
    }
}

/// An id and the JSON that goes with it.
type Document = (String, Vec<u8>);

/// What two runs of the whole path are called, their rules, and how much of the rate of raw requests they are to reach.
type Runs<'a> = [(&'a str, &'a Path, f64); 2];

/// Requests at a time, and megabytes in each.
type Settings = (usize, usize);

/// When something was first seen, by the id of its event.
type Seen = Arc<Mutex<BTreeMap<String, Instant>>>;

/// Sends bodies over and over at a rate, until told to stop; each time with other ids, so that all of it has to be written.
fn load_at(rate: f64, bodies: Arc<Vec<Body>>, stop: Arc<AtomicBool>) -> JoinHandle<()> {
    tokio::spawn(async move {
        let client = reqwest::Client::new();
        let (started, mut sent) = (Instant::now(), 0);
        for pass in 0.. {
            for (source, count, body) in bodies.iter() {
                if stop.load(Ordering::Relaxed) {
                    return;
                }
                let body = text(body).replace("\"eventID\":\"", &format!("\"eventID\":\"{pass}."));
                tokio::time::sleep_until((started + Duration::from_secs_f64(f64::from(sent) / rate)).into()).await;
                load::post(&client, source, body.into()).await;
                sent += u32::try_from(*count).unwrap();
            }
        }
    })
}
