//! A real process, killed by SIGKILL while it writes: what it said was answered is there, once.

use std::{
    collections::BTreeMap,
    io::{BufRead, BufReader, Write},
    path::Path,
    process::{Command, Stdio},
    sync::Arc,
    time::{Duration, Instant},
};

use redoubt::store::{
    Document, Expected, Family, SearchRequest, Store,
    embedded::{EmbeddedStore, Options},
};
use serde_json::json;

use super::fixture::{DAY, TEN, alert, all, repeated};

const FOLDER: &str = "REDOUBT_TEST_WRITER_FOLDER";
const FIRST: &str = "REDOUBT_TEST_WRITER_FIRST";
/// Documents in a bulk.
const BULK: u64 = 20;

/// The documents of a bulk. They span midnight, so that a bulk is of two days. A kill may have cut it short, so they may be repeats, and
/// every second time they come on the next day.
fn bulk(number: u64, shift: i64) -> Vec<Document> {
    (0..BULK)
        .map(|n| {
            let millis = TEN + (n as i64 % 2) * DAY + shift;
            repeated(&format!("{number:06}-{n:02}"), millis, json!({"message": "a few words to index", "bulk": number, "shift": shift}))
        })
        .collect()
}

/// Not a test by itself: the process that is killed. It writes bulks and alerts, and says so when each is answered.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "runs in a process of its own, started by the test below"]
async fn writer() {
    let folder = std::env::var(FOLDER).expect("started by the test below");
    let first: u64 = std::env::var(FIRST).unwrap().parse().unwrap();
    let store = Arc::new(EmbeddedStore::open(Path::new(&folder), &Options::default()).unwrap());

    for number in first.. {
        // The first is the one that the kill before may have met: it comes again, and a day later.
        let shift = if number == first { DAY } else { 0 };
        let results = store.bulk(bulk(number, shift)).await.unwrap();
        assert!(results.iter().all(Result::is_ok), "{results:?}");
        store.put(vec![alert(&number.to_string(), Expected::Absent, json!({"number": number}))]).await.unwrap();
        let mut out = std::io::stdout().lock();
        writeln!(out, "answered {number}").unwrap();
        out.flush().unwrap();
    }
}

/// Runs the writer from a number on, kills it after so many answers and some microseconds more; the last number it had an answer for.
fn write_until_killed(folder: &Path, first: u64, answers: u64, then: Duration) -> u64 {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["store::embedded_kill::writer", "--exact", "--ignored", "--nocapture"])
        .env(FOLDER, folder)
        .env(FIRST, first.to_string())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let answered = |line: String| line.rsplit_once("answered ").and_then(|(_, number)| number.parse::<u64>().ok());
    let mut last = 0;
    let enough = first + answers - 1;
    for line in lines.by_ref() {
        last = answered(line.unwrap()).unwrap_or(last);
        if last >= enough {
            break;
        }
    }
    assert!(last >= enough, "the writer ended by itself");

    // Not a wait for a condition: the moment of the kill is the variable.
    let kill_at = Instant::now() + then;
    while Instant::now() < kill_at {
        std::hint::spin_loop();
    }
    child.kill().unwrap();
    child.wait().unwrap();
    for line in lines {
        last = answered(line.unwrap()).unwrap_or(last);
    }
    last
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_killed_process_had_an_answer_for_is_there_once() {
    let folder = tempfile::tempdir().unwrap();
    let mut next = 1;
    for round in 0_u64..10 {
        // What had no answer is sent again, as its sender would.
        next = 1 + write_until_killed(folder.path(), next, 1 + round % 3, Duration::from_micros(round * 3_700));
    }
    let store = EmbeddedStore::open(folder.path(), &Options::default()).unwrap();
    store.bulk(bulk(next, DAY)).await.unwrap();
    store.refresh().await.unwrap();

    let mut found: BTreeMap<String, u32> = BTreeMap::new();
    let mut after = None;
    loop {
        let page = store.search(Family::Events, SearchRequest { size: 1000, after, ..all() }).await.unwrap();
        let Some(last) = page.hits.last() else { break };
        after = Some(last.sort.clone());
        for hit in page.hits {
            *found.entry(hit.id).or_default() += 1;
        }
    }
    for number in 1..=next {
        for document in bulk(number, 0) {
            assert_eq!(found.remove(&document.id), Some(1), "{}", document.id);
        }
    }
    assert!(found.is_empty(), "from nowhere: {found:?}");

    let alerts = store.search(Family::Alerts, SearchRequest { size: 10_000, ..all() }).await.unwrap();
    for number in 1..next {
        assert!(store.get(Family::Alerts, &number.to_string()).await.unwrap().is_some(), "alert {number}");
        assert_eq!(alerts.hits.iter().filter(|hit| hit.body["number"] == number).count(), 1, "alert {number} in the index");
    }
}
