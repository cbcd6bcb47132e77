//! The store in one folder: the suite, and what is its own.

use std::{io::Write, path::Path, sync::Arc, time::Duration};

use async_trait::async_trait;
use redoubt::store::{
    Expected, Family, SearchRequest, Store, StoreError,
    embedded::{EmbeddedStore, Options},
};
use serde_json::json;
use tempfile::TempDir;

use super::fixture::{DAY, Harness, TEN, alert, all, event, ids, object, query, repeated, search, write};

struct Embedded {
    folder: TempDir,
    store: Arc<EmbeddedStore>,
    /// Stores that "crashed": alive, so that nothing they do in dropping can help, and out of reach.
    crashed: Vec<(TempDir, Arc<EmbeddedStore>)>,
}

fn options() -> Options {
    Options { refresh: Duration::from_millis(50), index_buffer_bytes: 15 << 20 }
}

fn open(folder: &Path) -> Arc<EmbeddedStore> {
    Arc::new(EmbeddedStore::open(folder, &options()).unwrap())
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &target);
        } else {
            std::fs::copy(entry.path(), target).unwrap();
        }
    }
}

#[async_trait]
impl Harness for Embedded {
    async fn fresh() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let store = open(folder.path());
        Self { folder, store, crashed: Vec::new() }
    }

    fn store(&self) -> Arc<dyn Store> {
        Arc::clone(&self.store) as Arc<dyn Store>
    }

    /// What a killed process leaves is its files as they are now. The store is at rest, so a copy has all that was answered and nothing
    /// of what is only in memory.
    async fn crash_and_reopen(&mut self) {
        let folder = tempfile::tempdir().unwrap();
        copy(self.folder.path(), folder.path());
        let store = open(folder.path());
        self.crashed.push((std::mem::replace(&mut self.folder, folder), std::mem::replace(&mut self.store, store)));
    }
}

store_conformance!(Embedded);

#[tokio::test]
async fn a_folder_in_use_is_refused_with_the_remedy() {
    let folder = tempfile::tempdir().unwrap();
    let first = open(folder.path());

    let refused = EmbeddedStore::open(folder.path(), &options()).err().expect("it is in use");
    assert!(refused.to_string().contains("another process has"), "{refused}");
    assert!(refused.to_string().contains("a folder of its own"), "{refused}");

    // It is free once it is closed, or dropped.
    first.close().await;
    drop(first);
    drop(open(folder.path()));
    open(folder.path()).close().await;
}

#[tokio::test]
async fn a_closed_store_refuses_work_and_keeps_what_it_has() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path());
    store.bulk(vec![event("a", TEN, json!({}))]).await.unwrap();

    store.close().await;
    store.close().await;

    let refused = store.bulk(vec![event("b", TEN, json!({}))]).await;
    assert!(matches!(refused, Err(StoreError::Unavailable(_))), "{refused:?}");
    drop(store);
    assert_eq!(open(folder.path()).search(Family::Events, all()).await.unwrap().total, 1);
}

#[tokio::test]
async fn leftovers_of_a_crash_are_no_hindrance() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path());
    store.bulk(vec![event("a", TEN, json!({}))]).await.unwrap();
    store.close().await;
    drop(store);
    let events = folder.path().join("events");
    // A day whose first commit never came, a day half removed, files of tantivy that nobody holds, and a stranger's file.
    std::fs::create_dir(events.join("2026-11-20")).unwrap();
    copy(&events.join("2026-11-24"), &events.join("2026-11-23.removed"));
    std::fs::write(events.join("2026-11-24/.tantivy-writer.lock"), "").unwrap();
    std::fs::write(events.join("2026-11-24/.tmpAbCdEf"), "half a file").unwrap();
    std::fs::write(events.join("notes.txt"), "mine").unwrap();

    let store: Arc<dyn Store> = open(folder.path());

    assert_eq!(search(&store, all()).await.total, 1);
    write(&store, vec![event("b", TEN, json!({})), event("c", TEN - 4 * DAY, json!({}))]).await;
    assert_eq!(search(&store, all()).await.total, 3);
    assert!(!events.join("2026-11-23.removed").exists());
}

#[tokio::test]
async fn an_index_of_records_that_is_lost_is_built_anew() {
    for (what, damage) in [
        ("gone", (|index: &Path| std::fs::remove_dir_all(index).unwrap()) as fn(&Path)),
        ("not readable", |index: &Path| std::fs::write(index.join("meta.json"), "{").unwrap()),
    ] {
        let folder = tempfile::tempdir().unwrap();
        let store = open(folder.path());
        store.put(vec![alert("a", Expected::Absent, json!({"n": 1}))]).await.unwrap();
        store.close().await;
        drop(store);

        damage(&folder.path().join("alerts"));

        let store = open(folder.path());
        store.refresh().await.unwrap();
        assert_eq!(store.search(Family::Alerts, query("n:1")).await.unwrap().total, 1, "{what}");
    }
}

#[tokio::test]
async fn latecomers_of_many_days_take_turns() {
    let folder = tempfile::tempdir().unwrap();
    let store: Arc<dyn Store> = open(folder.path());

    // More days than writers that may be open, there and back within one bulk.
    let days = (0..8).chain((0..8).rev()).enumerate();
    write(&store, days.map(|(n, day)| event(&n.to_string(), TEN + day * DAY, json!({}))).collect()).await;

    assert_eq!(search(&store, all()).await.total, 16);
}

#[tokio::test]
async fn what_is_not_searched_is_still_kept() {
    let folder = tempfile::tempdir().unwrap();
    let store: Arc<dyn Store> = open(folder.path());
    let deep = (0..100).fold(json!("bottom"), |inner, _| json!({"in": inner}));
    let body = json!({"event": {"original": "<13>raw text"}, "details": {"deep": deep, "": "no name", "k".repeat(600): "long name"}, "plain": "yes"});
    let document = event("a", TEN, body);

    write(&store, vec![document.clone()]).await;

    let found = search(&store, query("plain:yes")).await;
    assert_eq!(found.hits[0].body, document.body);
    for text in ["raw", "bottom", "event.original:*", "_exists_:details"] {
        assert_eq!(search(&store, query(text)).await.total, 0, "{text}");
    }
    // The words of any string of more than one can be searched, wherever it lies.
    assert_eq!(search(&store, query("name")).await.total, 1);
}

#[tokio::test]
async fn a_document_that_cannot_be_read_back_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let store: Arc<dyn Store> = open(folder.path());
    let nested = |levels| (0..levels).fold(json!("bottom"), |inner, _| json!([inner]));
    let many: Vec<u32> = (0..30_000).collect();
    let mut no_date = event("no date", TEN, json!({}));
    no_date.received_millis = i64::MAX;

    let results = store
        .bulk(vec![
            event("fine", TEN, json!({"x": nested(100)})),
            event("too deep", TEN, json!({"x": nested(500)})),
            event("too many", TEN, json!({"x": many})),
            event("", TEN, json!({})),
            no_date,
        ])
        .await
        .unwrap();

    let reasons: Vec<String> = results.into_iter().filter_map(Result::err).map(|rejection| rejection.reason).collect();
    assert_eq!(reasons.len(), 4, "{reasons:?}");
    for (reason, part) in reasons.iter().zip(["nested deeper than 120 levels", "30001 values", "the id has 0 bytes", "the receive time"]) {
        assert!(reason.contains(part), "{reason}");
    }
}

#[tokio::test]
async fn the_new_document_of_a_refused_one_does_not_take_the_old_away() {
    let folder = tempfile::tempdir().unwrap();
    let store: Arc<dyn Store> = open(folder.path());
    let nested = (0..500).fold(json!("bottom"), |inner, _| json!([inner]));

    let results = store.bulk(vec![event("a", TEN, json!({"n": 1})), event("a", TEN, json!({"n": nested}))]).await.unwrap();

    assert!(matches!(results.as_slice(), [Ok(()), Err(_)]), "{results:?}");
    store.refresh().await.unwrap();
    assert_eq!(search(&store, query("n:1")).await.total, 1);
}

#[tokio::test]
async fn a_query_says_where_it_is_wrong_and_what_to_do() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path());

    for (text, reason) in [
        ("a (b", "query, character 3: this parenthesis is never closed; add `)`, or write `\\(` if it is part of a value"),
        ("a:b)", "query, character 4: unexpected `)`; remove it, or write `\\)` if it is part of a value"),
        ("message:/fail.*/", "character 9: a value that begins with `/` is a regular expression, which this store does not know"),
        ("user.name:bob~1", "character 1: `~` after a word asks for similar words"),
        ("@timestamp:soon", "character 1: `soon` is no time; write 2026-11-24, 2026-11-24T10:30:00Z, now or now-15m"),
        ("[1 TO 2]", "character 1: a range needs one field: event.severity:[3 TO 5]"),
        (&"(".repeat(60), "character 51: parentheses nest deeper than 50; simplify the query"),
        (&"a ".repeat(2000), "more than 1024 clauses; ask for fewer, or use a wildcard or a range"),
    ] {
        let refused = store.search(Family::Events, query(text)).await;

        assert!(matches!(&refused, Err(StoreError::BadRequest(message)) if message.contains(reason)), "{text}: {refused:?}");
    }
}

#[tokio::test]
async fn too_many_buckets_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let store: Arc<dyn Store> = open(folder.path());
    write(&store, vec![event("a", TEN, json!({})), event("b", TEN + 2 * DAY, json!({}))]).await;
    let aggregations = object(json!({"a": {"date_histogram": {"field": "@timestamp", "fixed_interval": "1s"}}}));

    let refused = store.search(Family::Events, SearchRequest { aggregations, ..all() }).await;

    assert!(matches!(&refused, Err(StoreError::BadRequest(message)) if message.contains("ucket")), "{refused:?}");
}

#[tokio::test]
async fn relative_times_are_of_now() {
    let folder = tempfile::tempdir().unwrap();
    let store: Arc<dyn Store> = open(folder.path());
    let now = jiff::Timestamp::now().as_millisecond();
    write(
        &store,
        vec![event("old", now - 3_600_000, json!({})), event("new", now - 60_000, json!({})), event("next", now + 3_600_000, json!({}))],
    )
    .await;

    for (text, expected) in [
        ("@timestamp:>=now-15m", vec!["next", "new"]),
        ("@timestamp:[now-2h TO now]", vec!["new", "old"]),
        ("@timestamp:>now", vec!["next"]),
        ("@timestamp:[now-1d TO now+1w]", vec!["next", "new", "old"]),
    ] {
        assert_eq!(ids(&search(&store, query(text)).await), expected, "{text}");
    }
}

/// Writes that fail say so, and the same writes are taken once the disk is well again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_folder_that_cannot_be_written_is_told_and_recovered_from() {
    let folder = tempfile::tempdir().unwrap();
    let store: Arc<dyn Store> = open(folder.path());
    write(&store, vec![event("before", TEN, json!({})), event("other day", TEN + DAY, json!({}))]).await;
    let (day, aside) = (folder.path().join("events/2026-11-24"), folder.path().join("aside"));
    let bulk = || vec![repeated("during", TEN, json!({})), repeated("other day", TEN + DAY, json!({}))];

    std::fs::rename(&day, &aside).unwrap();
    for _ in 0..3 {
        let refused = store.bulk(bulk()).await;
        assert!(matches!(refused, Err(StoreError::Unavailable(_))), "{refused:?}");
    }
    // Other days are not concerned.
    write(&store, vec![event("apart", TEN + 2 * DAY, json!({}))]).await;
    std::fs::remove_dir_all(&day).ok();
    std::fs::rename(&aside, &day).unwrap();

    write(&store, bulk()).await;
    assert_eq!(ids(&search(&store, all()).await), ["apart", "other day", "during", "before"]);
    drop(store);
    let reopened: Arc<dyn Store> = open(folder.path());
    assert_eq!(ids(&search(&reopened, all()).await), ["apart", "other day", "during", "before"]);
}

/// Needs a disk of its own that can be filled, such as a tmpfs of 96 MB; its folder is named by `REDOUBT_TEST_SMALL_DISK`.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_disk_is_told_and_recovered_from() {
    let Some(disk) = std::env::var_os("REDOUBT_TEST_SMALL_DISK") else {
        eprintln!("skipped: REDOUBT_TEST_SMALL_DISK names no folder on a small disk");
        return;
    };
    let folder = tempfile::tempdir_in(disk).unwrap();
    let store: Arc<dyn Store> = open(folder.path());
    let alert_of = |n: usize| alert(&n.to_string(), Expected::Absent, json!({"text": "x".repeat(20_000)}));
    let bulk =
        |n: usize| (0..50).map(|m| repeated(&format!("{n}-{m}"), TEN, json!({"text": format!("{n} {m} {}", "x".repeat(2_000))}))).collect();
    store.bulk(bulk(0)).await.unwrap();
    store.put(vec![alert_of(0)]).await.unwrap();

    let filler = folder.path().join("filler");
    let mut file = std::fs::File::create(&filler).unwrap();
    while file.write_all(&[0; 4096]).is_ok() {}
    let mut answered = (1, 1);
    let refused = loop {
        match store.bulk(bulk(answered.0)).await {
            Ok(_) => answered.0 += 1,
            Err(error) => break error,
        }
    };
    assert!(matches!(refused, StoreError::Unavailable(_)), "{refused}");
    let refused = loop {
        match store.put(vec![alert_of(answered.1)]).await {
            Ok(_) => answered.1 += 1,
            Err(error) => break error,
        }
    };
    assert!(matches!(refused, StoreError::Unavailable(_)), "{refused}");
    drop(file);
    std::fs::remove_file(&filler).unwrap();

    write(&store, bulk(answered.0)).await;
    store.put(vec![alert_of(answered.1)]).await.unwrap();
    store.refresh().await.unwrap();
    let mut store = store;
    for reopened in [false, true] {
        if reopened {
            drop(store);
            store = open(folder.path());
        }
        store.refresh().await.unwrap();
        assert_eq!(search(&store, all()).await.total, (answered.0 as u64 + 1) * 50, "reopened: {reopened}");
        assert_eq!(store.search(Family::Alerts, all()).await.unwrap().total, answered.1 as u64 + 1, "reopened: {reopened}");
        for n in 0..=answered.1 {
            assert!(store.get(Family::Alerts, &n.to_string()).await.unwrap().is_some(), "alert {n}, reopened: {reopened}");
        }
    }
}
