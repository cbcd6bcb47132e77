//! Throughput of the store in an Elasticsearch, beside raw `_bulk` requests of the same documents in the same run.
//!
//! `cargo bench -p redoubt --bench elastic`. The server and the senders share the machine's cores. Raw: two clients, bodies of about 5 MB that
//! are ready before the clock starts, so that the difference is what the store itself costs: encoding, ids, looking at each answer.
#![allow(clippy::unwrap_used, reason = "a benchmark that fails has no result")]

use std::sync::Arc;
use std::time::{Duration, Instant};

use redoubt::secrets::Secrets;
use redoubt::store::elasticsearch::{ElasticsearchStore, Options};
use redoubt::store::{Document, Family, Store};
use redoubt_crds::ExternalStore;
use serde_json::{Map, Value, json};

#[path = "load/raw.rs"]
mod raw;
#[path = "../tests/servers/elasticsearch.rs"]
#[allow(dead_code, reason = "the tests need more of it")]
mod server;

/// Documents in each run.
const DOCUMENTS: usize = 100_000;
/// Runs of each kind, in turn; the first warms up the server and does not count.
const ROUNDS: usize = 4;
const CLIENTS: usize = 2;
/// Bytes in a raw request, about.
const RAW_BYTES: usize = 5 << 20;
/// Documents in a bulk of the store.
const BULK: usize = 5_000;
/// 2026-11-24, 10:00 UTC.
const START: i64 = 1_795_514_400_000;

fn main() {
    let server = match server::Server::start() {
        Ok(server) => server,
        Err(why) => return println!("skipped: {why}"),
    };
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(compare(server.url()));
}

async fn compare(url: &str) {
    let (mut raw, mut ours, mut repeats) = (Duration::ZERO, Duration::ZERO, Duration::ZERO);
    for round in 0..ROUNDS {
        let times = [run_raw(url, round).await, run_store(url, round, false).await, run_store(url, round, true).await];
        if round > 0 {
            raw += times[0];
            ours += times[1];
            repeats += times[2];
        }
    }
    let rate = |time: Duration| (DOCUMENTS * (ROUNDS - 1)) as f64 / time.as_secs_f64();
    println!("raw _bulk, {CLIENTS} clients, 5 MB       {:>8.0} docs/s", rate(raw));
    println!("the store                        {:>8.0} docs/s, {:.2} of raw", rate(ours), rate(ours) / rate(raw));
    println!("the store, each may be a repeat  {:>8.0} docs/s, {:.2} of raw", rate(repeats), rate(repeats) / rate(raw));
}

/// A store under a prefix of its own, which makes the templates that the raw run uses too.
async fn store(url: &str, prefix: &str) -> Arc<ElasticsearchStore> {
    let spec: ExternalStore = serde_json::from_value(json!({"urls": [url], "prefix": prefix, "replicas": 0})).unwrap();
    Arc::new(ElasticsearchStore::open(&spec, Secrets::new("no-secrets"), &Options::default()).await.unwrap())
}

async fn run_raw(url: &str, round: usize) -> Duration {
    let prefix = format!("raw-{round}");
    store(url, &prefix).await.close().await;
    let index = format!("{prefix}-events-2026.11.24-000001");
    let mut bodies = vec![Vec::new()];
    for number in 0..DOCUMENTS {
        if bodies.last().unwrap().len() >= RAW_BYTES {
            bodies.push(Vec::new());
        }
        let lines = bodies.last_mut().unwrap();
        let mut body = body(number);
        // What the store adds.
        body.insert("redoubt".to_owned(), json!({"id": id(number), "received": START}));
        serde_json::to_writer(&mut *lines, &json!({"create": {"_index": index, "_id": id(number)}})).unwrap();
        lines.push(b'\n');
        serde_json::to_writer(&mut *lines, &body).unwrap();
        lines.push(b'\n');
    }
    raw::send(url, bodies, CLIENTS).await
}

async fn run_store(url: &str, round: usize, may_repeat: bool) -> Duration {
    let store = store(url, &format!("store-{round}-{may_repeat}")).await;
    let bulks: Vec<Vec<Document>> = (0..DOCUMENTS / BULK)
        .map(|bulk| {
            let document =
                |number| Document { family: Family::Events, id: id(number), received_millis: START, may_repeat, body: body(number) };
            (bulk * BULK..(bulk + 1) * BULK).map(document).collect()
        })
        .collect();
    let bulks = Arc::new(std::sync::Mutex::new(bulks.into_iter()));
    let started = Instant::now();
    let clients = (0..CLIENTS).map(|_| {
        let (store, bulks) = (Arc::clone(&store), Arc::clone(&bulks));
        tokio::spawn(async move {
            loop {
                let Some(bulk) = bulks.lock().unwrap().next() else { break };
                assert!(store.bulk(bulk).await.unwrap().iter().all(Result::is_ok));
            }
        })
    });
    futures::future::join_all(clients).await.into_iter().for_each(Result::unwrap);
    started.elapsed()
}

/// An event of about 450 bytes.
fn body(number: usize) -> Map<String, Value> {
    let value = json!({
        "@timestamp": jiff::Timestamp::from_millisecond(START + number as i64).unwrap().to_string(),
        "event": {"id": id(number), "dataset": "sshd", "category": ["authentication"], "kind": "event", "outcome": "failure"},
        "host": {"name": format!("host-{:03}", number % 500)},
        "source": {"ip": format!("10.{}.{}.{}", number % 4, number % 250, number % 251), "port": 1024 + number % 60_000},
        "user": {"name": format!("user{:02}", number % 97)},
        "message": format!("Failed password for user{:02} from 10.0.0.1 port {} ssh2", number % 97, number % 60_000),
        "details": {"facility": "auth", "pid": number % 65_536},
    });
    value.as_object().unwrap().clone()
}

fn id(number: usize) -> String {
    format!("{:016x}{:016x}", number.wrapping_mul(0x9E37_79B9_7F4A_7C15), number)
}
