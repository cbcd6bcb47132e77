//! Throughput of the embedded store, beside bare tantivy with the same schema in the same run.
//!
//! `cargo bench --bench store` prints documents a second. The store takes bulks from several senders and answers each when it is durable;
//! tantivy gets all documents ready-made and commits as rarely as the store may, so that the difference is what durability, the queue and
//! the walk over the JSON cost.
#![allow(clippy::unwrap_used, reason = "a benchmark that fails has no result")]

use std::sync::Arc;
use std::time::{Duration, Instant};

use redoubt::store::{
    Document, Family, SearchRequest, Store,
    embedded::{EmbeddedStore, Options},
};
use serde_json::{Map, Value, json};
use tantivy::indexer::IndexWriterOptions;
use tantivy::schema::{
    DateOptions, DateTimePrecision, FAST, IndexRecordOption, JsonObjectOptions, STORED, Schema, TextFieldIndexing, TextOptions,
};
use tantivy::{DateTime, Index, IndexWriter, TantivyDocument};

/// Documents in all.
const DOCUMENTS: usize = 200_000;
/// Documents in a bulk.
const BULK: usize = 1_000;
/// Senders that each wait for the answer to a bulk before the next.
const SENDERS: usize = 8;
/// 2026-11-24, 10:00 UTC.
const START: i64 = 1_795_514_400_000;
/// Tantivy alone commits after so many documents: as many as the store puts into a commit at most.
const COMMIT: usize = 20_000;

/// An event of about 1 KB, like a parsed process creation.
fn body(number: usize) -> Map<String, Value> {
    let host = number % 500;
    let user = number % 97;
    let value = json!({
        "@timestamp": jiff::Timestamp::from_millisecond(START + number as i64).unwrap().to_string(),
        "event": {
            "id": id(number), "dataset": "windows.security", "category": ["process"], "kind": "event", "severity": number % 7, "outcome": "success",
            "created": "2026-11-24T09:59:58.250Z", "ingested": "2026-11-24T10:00:00.125Z",
        },
        "host": {"name": format!("host-{host:03}.corp.example.net"), "os": {"family": "windows"}},
        "source": {"ip": format!("10.{}.{}.{}", host % 4, host % 250, number % 251), "port": 1024 + number % 60_000},
        "user": {"name": format!("user{user:02}"), "domain": "CORP"},
        "process": {
            "pid": number % 65_536, "executable": "C:\\Windows\\System32\\WindowsPowerShell\\v1.0\\powershell.exe",
            "command_line": format!("powershell.exe -NoProfile -File C:\\jobs\\task{}.ps1 -Run {number}", number % 1_000),
            "parent": {"executable": "C:\\Windows\\System32\\svchost.exe", "pid": number % 4_096},
        },
        "message": format!("A new process has been created by user{user:02} on host-{host:03}: powershell.exe with id {number}"),
        "tags": ["windows", "process", "endpoint"],
        "details": {
            "EventID": 4688, "Channel": "Security", "SubjectUserSid": format!("S-1-5-21-3623811015-3361044348-30300820-{}", 1_000 + user),
            "SubjectLogonId": format!("0x{:x}", number % 10_000), "TokenElevationType": "%%1938", "MandatoryLabel": "S-1-16-8192",
        },
    });
    match value {
        Value::Object(body) => body,
        _ => unreachable!("it is written as an object above"),
    }
}

fn id(number: usize) -> String {
    format!("{:016x}{:016x}", number.wrapping_mul(0x9E37_79B9_7F4A_7C15), number)
}

fn documents(numbers: std::ops::Range<usize>) -> Vec<Document> {
    numbers
        .map(|number| Document {
            family: Family::Events,
            id: id(number),
            received_millis: START + number as i64,
            may_repeat: false,
            body: body(number),
        })
        .collect()
}

fn report(what: &str, documents: usize, took: Duration, cpu: Duration) {
    let rate = |time: Duration| documents as f64 / time.as_secs_f64();
    println!("{what:<34} {:>9.0} docs/s  {:>9.0} docs/s of one core's time", rate(took), rate(cpu));
}

/// Processor time of this process so far, all threads. From /proc, in ticks of 10 ms; nothing elsewhere.
fn cpu() -> Duration {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let fields: Vec<&str> = stat.rsplit(") ").next().unwrap_or_default().split(' ').collect();
    let ticks = |n: usize| fields.get(n).and_then(|ticks| ticks.parse::<u64>().ok()).unwrap_or(0);
    Duration::from_millis((ticks(11) + ticks(12)) * 10)
}

fn bytes(folder: &std::path::Path) -> u64 {
    let mut sum = 0;
    for entry in std::fs::read_dir(folder).unwrap().flatten() {
        let metadata = entry.metadata().unwrap();
        sum += if metadata.is_dir() { bytes(&entry.path()) } else { metadata.len() };
    }
    sum
}

fn bare_tantivy() {
    let exact = || TextFieldIndexing::default().set_tokenizer("raw").set_index_option(IndexRecordOption::Basic).set_fieldnorms(false);
    let words = TextOptions::default().set_indexing_options(
        TextFieldIndexing::default()
            .set_tokenizer("default")
            .set_index_option(IndexRecordOption::WithFreqsAndPositions)
            .set_fieldnorms(false),
    );
    let mut builder = Schema::builder();
    let id_field = builder.add_text_field("id", TextOptions::default().set_indexing_options(exact()).set_fast("raw"));
    let time = builder.add_date_field("time", DateOptions::from(FAST).set_precision(DateTimePrecision::Milliseconds));
    let source = builder.add_bytes_field("source", STORED);
    let message = builder.add_text_field("message", words.clone());
    let all_words = builder.add_text_field("words", words);
    let json_options = JsonObjectOptions::default().set_indexing_options(exact()).set_fast("raw").set_expand_dots_enabled();
    let keyword = builder.add_json_field("keyword", json_options);
    let folder = tempfile::tempdir().unwrap();
    let index = Index::create_in_dir(folder.path(), builder.build()).unwrap();
    let prepared: Vec<TantivyDocument> = (0..DOCUMENTS)
        .map(|number| {
            let mut body = body(number);
            let mut document = TantivyDocument::new();
            document.add_text(id_field, id(number));
            document.add_date(time, DateTime::from_timestamp_millis(START + number as i64));
            document.add_bytes(source, &serde_json::to_vec(&body).unwrap());
            document.add_text(message, body.remove("message").unwrap().as_str().unwrap());
            document.add_text(all_words, body["process"]["command_line"].as_str().unwrap());
            body.remove("@timestamp");
            document.add_field_value(keyword, &Value::Object(body));
            document
        })
        .collect();

    let options = IndexWriterOptions::builder().num_worker_threads(1).num_merge_threads(1).memory_budget_per_thread(64 << 20).build();
    let mut writer: IndexWriter = index.writer_with_options(options).unwrap();
    let (start, start_cpu) = (Instant::now(), cpu());
    for (number, document) in prepared.into_iter().enumerate() {
        writer.add_document(document).unwrap();
        if (number + 1) % COMMIT == 0 {
            writer.commit().unwrap();
        }
    }
    writer.commit().unwrap();
    report("tantivy, ready-made documents", DOCUMENTS, start.elapsed(), cpu() - start_cpu);
    writer.wait_merging_threads().unwrap();
    println!("{:<34} {:>9} bytes a document", "", bytes(folder.path()) / DOCUMENTS as u64);
}

async fn store(may_repeat: bool) {
    let folder = tempfile::tempdir().unwrap();
    let store = Arc::new(EmbeddedStore::open(folder.path(), &Options::default()).unwrap());
    let mut bulks: Vec<Vec<Document>> = (0..DOCUMENTS / BULK).map(|n| documents(n * BULK..(n + 1) * BULK)).collect();
    for document in bulks.iter_mut().flatten() {
        document.may_repeat = may_repeat;
    }
    let queue = Arc::new(std::sync::Mutex::new(bulks));
    let (start, start_cpu) = (Instant::now(), cpu());
    let mut senders = Vec::new();
    for _ in 0..SENDERS {
        let (store, queue) = (Arc::clone(&store), Arc::clone(&queue));
        senders.push(tokio::spawn(async move {
            loop {
                let next = queue.lock().unwrap().pop();
                let Some(bulk) = next else { break };
                assert!(store.bulk(bulk).await.unwrap().iter().all(Result::is_ok));
            }
        }));
    }
    for sender in senders {
        sender.await.unwrap();
    }
    let what = if may_repeat { "store, ids that may repeat" } else { "store, answered when durable" };
    report(what, DOCUMENTS, start.elapsed(), cpu() - start_cpu);
    if !may_repeat {
        searches(&store).await;
    }
    store.close().await;
    println!("{:<34} {:>9} bytes a document", "", bytes(folder.path()) / DOCUMENTS as u64);
}

async fn searches(store: &EmbeddedStore) {
    store.refresh().await.unwrap();
    for text in [
        "",
        "details.EventID:4688 AND user.name:user07",
        "message:\"user07 on\"",
        "user07",
        "process.executable:*\\\\powershell.exe",
        "source.ip:10.1.0.0/16",
    ] {
        let request = SearchRequest { query: text.to_owned(), size: 50, ..SearchRequest::default() };
        let start = Instant::now();
        let found = store.search(Family::Events, request).await.unwrap();
        println!("  search {text:?}: {} found, {:.1} ms", found.total, start.elapsed().as_secs_f64() * 1e3);
    }
    let aggregations = json!({"users": {"terms": {"field": "user.name"}, "aggs": {"days": {"date_histogram": {"field": "@timestamp", "fixed_interval": "1h"}}}}});
    let Value::Object(aggregations) = aggregations else { unreachable!("it is written as an object above") };
    let start = Instant::now();
    store.search(Family::Events, SearchRequest { aggregations, ..SearchRequest::default() }).await.unwrap();
    println!("  aggregation: {:.1} ms", start.elapsed().as_secs_f64() * 1e3);
}

fn main() {
    println!("{DOCUMENTS} documents of {} bytes", serde_json::to_vec(&body(7)).unwrap().len());
    bare_tantivy();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(store(false));
    runtime.block_on(store(true));
}
