//! Time series: what is written in bulk is found, in order, once.

use std::collections::BTreeSet;

use redoubt::store::{Family, SearchRequest, StoreError};
use serde_json::{Value, json};

use super::fixture::{DAY, DEADLINE, Harness, MINUTE, TEN, all, event, ids, query, repeated, search, within, write};

pub(super) async fn what_was_answered_is_found_after_a_refresh<H: Harness>() {
    let harness = H::fresh().await;
    let store = harness.store();
    let document =
        event("a", TEN, json!({"message": "hello", "source": {"ip": "10.0.0.1"}, "details": {"n": 1.5, "list": [1, "b", null]}}));

    write(&store, vec![document.clone()]).await;

    let found = search(&store, all()).await;
    assert_eq!(found.total, 1);
    assert_eq!(found.hits[0].id, "a");
    assert_eq!(found.hits[0].body, document.body);
    assert_eq!(found.hits[0].sort, [json!(TEN), json!("a")]);
}

pub(super) async fn what_was_answered_is_found_after_a_while_without_one<H: Harness>() {
    let harness = H::fresh().await;
    let store = harness.store();

    store.bulk(vec![event("a", TEN, json!({}))]).await.unwrap().remove(0).unwrap();

    within("the refresh time", async { while search(&store, all()).await.total < 1 {} }).await;
}

pub(super) async fn what_was_answered_survives_a_crash<H: Harness>() {
    let mut harness = H::fresh().await;
    harness.store().bulk(vec![event("a", TEN, json!({})), event("b", TEN + DAY, json!({}))]).await.unwrap();

    harness.crash_and_reopen().await;

    let store = harness.store();
    store.refresh().await.unwrap();
    assert_eq!(ids(&search(&store, all()).await), ["b", "a"]);
    write(&store, vec![event("c", TEN + 1, json!({}))]).await;
    assert_eq!(search(&store, all()).await.total, 3);
}

pub(super) async fn an_empty_bulk_is_fine<H: Harness>() {
    let harness = H::fresh().await;

    let results = harness.store().bulk(Vec::new()).await.unwrap();

    assert!(results.is_empty());
    assert_eq!(search(&harness.store(), all()).await.total, 0);
}

pub(super) async fn of_one_id_in_a_bulk_the_first_stands<H: Harness>() {
    for may_repeat in [false, true] {
        let harness = H::fresh().await;
        let store = harness.store();
        let mut documents = vec![
            event("a", TEN, json!({"n": 1})),
            event("b", TEN, json!({"n": 2})),
            event("a", TEN + DAY, json!({"n": 3})),
            event("a", TEN, json!({"n": 4})),
        ];
        for document in &mut documents {
            document.may_repeat = may_repeat;
        }

        write(&store, documents).await;

        let found = search(&store, SearchRequest { ascending: true, ..all() }).await;
        let numbers: Vec<&Value> = found.hits.iter().map(|hit| &hit.body["n"]).collect();
        assert_eq!(numbers, [1, 2], "may repeat: {may_repeat}");
    }
}

pub(super) async fn a_repeat_changes_nothing_of_what_was_received_on_the_same_day_or_beside_it<H: Harness>() {
    for (when, later) in [("at the same time", 0), ("on the same day", 60 * MINUTE), ("on the next day", DAY), ("on the day before", -DAY)]
    {
        for crash in [false, true] {
            let mut harness = H::fresh().await;
            write(&harness.store(), vec![event("a", TEN, json!({"n": 1})), event("other", TEN, json!({}))]).await;
            if crash {
                harness.crash_and_reopen().await;
            }
            let store = harness.store();

            write(&store, vec![repeated("a", TEN + later, json!({"n": 2}))]).await;

            let found = search(&store, all()).await;
            assert_eq!(found.total, 2, "{when}, crash: {crash}");
            let again: Vec<&Value> = found.hits.iter().filter(|hit| hit.id == "a").map(|hit| &hit.body["n"]).collect();
            assert_eq!(again, [1], "{when}, crash: {crash}");
        }
    }
}

pub(super) async fn of_repeats_in_bulks_at_the_same_time_one_stands<H: Harness>() {
    let harness = H::fresh().await;
    let store = harness.store();
    // Two days, so that copies meet in one index and in two.
    let bulks = (0..16_i64)
        .map(|n| store.bulk(vec![repeated("a", TEN + n % 2 * DAY, json!({"n": n})), repeated(&format!("own-{n}"), TEN, json!({}))]));

    for results in futures::future::join_all(bulks).await {
        assert_eq!(results.unwrap(), [Ok(()), Ok(())]);
    }
    store.refresh().await.unwrap();

    let found = search(&store, all()).await;
    assert_eq!(found.total, 17);
    let first = found.hits.iter().find(|hit| hit.id == "a").unwrap().body.clone();
    write(&store, vec![repeated("a", TEN + DAY, json!({"n": "later"}))]).await;
    let later = search(&store, all()).await;
    assert_eq!(later.total, 17);
    assert_eq!(later.hits.iter().find(|hit| hit.id == "a").unwrap().body, first);
}

pub(super) async fn hits_come_newest_first_and_then_by_id<H: Harness>() {
    let harness = H::fresh().await;
    let store = harness.store();
    // The receive times go the other way, so that the order is that of the event's time and spans days.
    let mut documents = vec![
        event("b", TEN, json!({})),
        event("a", TEN, json!({})),
        event("c", TEN + 1, json!({})),
        event("d", TEN - DAY, json!({})),
        event("aa", TEN, json!({})),
    ];
    for (document, day) in documents.iter_mut().zip((0..5).rev()) {
        document.received_millis = TEN + day * DAY;
    }

    write(&store, documents).await;

    assert_eq!(ids(&search(&store, all()).await), ["c", "b", "aa", "a", "d"]);
    assert_eq!(ids(&search(&store, SearchRequest { ascending: true, ..all() }).await), ["d", "a", "aa", "b", "c"]);
    assert_eq!(ids(&search(&store, SearchRequest { size: 2, ..all() }).await), ["c", "b"]);
}

pub(super) async fn pages_hold_every_document_once<H: Harness>() {
    let harness = H::fresh().await;
    let store = harness.store();
    // Ids spread over three days and three bulks, with many of the same time.
    let documents =
        |part: usize| (0..40).map(|n| event(&format!("{:03}", n * 3 + part), TEN + (n as i64 % 4) * DAY / 2, json!({}))).collect();
    for part in 0..3 {
        write(&store, documents(part)).await;
    }

    for (size, ascending) in [(1, false), (7, false), (7, true), (50, true), (120, false), (500, false)] {
        let mut seen = Vec::new();
        let mut after = None;
        loop {
            let page = search(&store, SearchRequest { size, ascending, after, ..all() }).await;
            assert_eq!(page.total, 120, "the total does not depend on the page");
            let Some(last) = page.hits.last() else { break };
            after = Some(last.sort.clone());
            seen.extend(page.hits.iter().map(|hit| (hit.sort[0].as_i64().unwrap(), hit.id.clone())));
        }

        let mut expected = seen.clone();
        expected.sort();
        expected.dedup();
        assert_eq!(expected.len(), 120, "size {size}");
        if !ascending {
            expected.reverse();
        }
        assert_eq!(seen, expected, "size {size}");
    }
}

pub(super) async fn a_size_of_none_counts_and_one_too_large_is_refused<H: Harness>() {
    let harness = H::fresh().await;
    let store = harness.store();
    write(&store, vec![event("a", TEN, json!({}))]).await;

    let counted = search(&store, SearchRequest { size: 0, ..all() }).await;
    let most = search(&store, SearchRequest { size: 10_000, ..all() }).await;
    let refused = store.search(Family::Events, SearchRequest { size: 10_001, ..all() }).await;

    assert_eq!((counted.total, counted.hits.len()), (1, 0));
    assert_eq!(most.hits.len(), 1);
    assert!(matches!(refused, Err(StoreError::BadRequest(_))), "{refused:?}");
}

pub(super) async fn a_time_range_takes_in_its_start_and_not_its_end<H: Harness>() {
    let harness = H::fresh().await;
    let store = harness.store();
    write(&store, (0..4).map(|n| event(&n.to_string(), TEN + n * DAY, json!({}))).collect()).await;
    let mut late = event("late", TEN, json!({}));
    late.received_millis = TEN + 5 * DAY;
    write(&store, vec![late]).await;

    for (from, to, received_from, expected) in [
        (Some(TEN + DAY), None, None, vec!["3", "2", "1"]),
        (Some(TEN + DAY + 1), None, None, vec!["3", "2"]),
        (None, Some(TEN + DAY), None, vec!["late", "0"]),
        (None, Some(TEN + DAY + 1), None, vec!["1", "late", "0"]),
        (Some(TEN + DAY), Some(TEN + 2 * DAY), None, vec!["1"]),
        (Some(TEN + DAY), Some(TEN + DAY), None, vec![]),
        (None, None, Some(TEN + 3 * DAY), vec!["3", "late"]),
        (None, None, Some(TEN + 3 * DAY + 1), vec!["late"]),
        (None, Some(TEN + 1), Some(TEN), vec!["late", "0"]),
    ] {
        let request = SearchRequest { from_millis: from, to_millis: to, received_from_millis: received_from, ..all() };
        let found = search(&store, request.clone()).await;

        assert_eq!(ids(&found), expected, "{request:?}");
        assert_eq!(found.total, expected.len() as u64, "{request:?}");
    }
}

pub(super) async fn filters_take_exact_values<H: Harness>() {
    let harness = H::fresh().await;
    let store = harness.store();
    write(
        &store,
        vec![
            event("1", TEN, json!({"user": {"name": "bob"}, "event": {"severity": 5, "outcome": "success"}, "details": {"ok": true}})),
            event("2", TEN + 1, json!({"user": {"name": "Bob"}, "event": {"severity": 3}, "tags": ["a", "b c"], "details": {"ok": false}})),
            event(
                "3",
                TEN + 2,
                json!({"user": {"name": "bob smith"}, "event": {"severity": 5}, "tags": ["a"], "details": {"path": "C:\\x *"}}),
            ),
        ],
    )
    .await;

    for (filters, expected) in [
        (vec![("user.name", json!("bob"))], vec!["1"]),
        (vec![("user.name", json!("bob smith"))], vec!["3"]),
        (vec![("user.name", json!("b*"))], vec![]),
        (vec![("event.severity", json!(5))], vec!["3", "1"]),
        (vec![("event.severity", json!(5)), ("event.outcome", json!("success"))], vec!["1"]),
        (vec![("tags", json!("a"))], vec!["3", "2"]),
        (vec![("tags", json!("b c"))], vec!["2"]),
        (vec![("details.ok", json!(true))], vec!["1"]),
        (vec![("details.path", json!("C:\\x *"))], vec!["3"]),
        (vec![("user.name", json!(["bob", "Bob"]))], vec!["2", "1"]),
        (vec![("nowhere", json!("x"))], vec![]),
    ] {
        let request =
            SearchRequest { filters: filters.iter().map(|(field, value)| ((*field).to_owned(), value.clone())).collect(), ..all() };

        assert_eq!(ids(&search(&store, request).await), expected, "{filters:?}");
    }
}

pub(super) async fn a_document_without_a_time_has_its_receive_time<H: Harness>() {
    for timestamp in [json!("yesterday"), json!(5), json!(null), json!(""), json!("2026-13-01T00:00:00Z")] {
        let harness = H::fresh().await;
        let store = harness.store();
        let mut document = event("a", TEN, json!({}));
        document.body.insert("@timestamp".to_owned(), timestamp.clone());

        write(&store, vec![document.clone()]).await;

        let found = search(&store, SearchRequest { from_millis: Some(TEN), to_millis: Some(TEN + 1), ..all() }).await;
        assert_eq!(found.total, 1, "{timestamp}");
        assert_eq!(found.hits[0].sort[0], json!(TEN), "{timestamp}");
        assert_eq!(found.hits[0].body, document.body, "{timestamp}");
    }
}

pub(super) async fn families_are_apart<H: Harness>() {
    let harness = H::fresh().await;
    let store = harness.store();
    let mut documents = Vec::new();
    for family in [Family::Events, Family::Matches, Family::DeadLetters] {
        let mut document = event("same", TEN, json!({"family": family.as_str()}));
        document.family = family;
        documents.push(document);
    }

    write(&store, documents).await;

    for family in [Family::Events, Family::Matches, Family::DeadLetters] {
        let found = store.search(family, all()).await.unwrap();
        assert_eq!(found.total, 1);
        assert_eq!(found.hits[0].body["family"], family.as_str());
    }
    assert_eq!(store.search(Family::Alerts, all()).await.unwrap().total, 0);
}

pub(super) async fn strange_documents_are_taken_and_come_back_untouched<H: Harness>() {
    let deep = (0..15).fold(json!("bottom"), |inner, _| json!({"in": inner}));
    let strange = [
        ("dots in keys", json!({"details": {"a.b": {"c.d": 1}, "a": {"b": {"e": 2}}}})),
        ("a huge string", json!({"details": {"huge": "x".repeat(200_000)}})),
        ("a huge message", json!({"message": "word ".repeat(50_000)})),
        ("one huge word", json!({"message": "x".repeat(100_000)})),
        ("other alphabets", json!({"message": "пароль 密码 🔑 e\u{301}", "details": {"ключ": "значение", "🔑": "密码"}})),
        ("control characters", json!({"details": {"text": "a\u{0}b\u{1}c\u{7f}\u{ffff}", "tab\tkey": 1}})),
        ("empty values", json!({"details": {"text": "", "list": [], "object": {}, "nothing": null, "blank": " "}})),
        ("lists in lists", json!({"details": {"list": [[1, [2, "three"]], {"four": [4]}]}})),
        ("deep nesting", json!({"details": deep})),
        ("numbers at their ends", json!({"details": {"max": u64::MAX, "min": i64::MIN, "float": 1e300, "tiny": -0.0}})),
        ("a blank and quotes in keys", json!({"details": {"a key": 1, "\"quoted\"": 2, "back\\slash": 3, "*": 4}})),
        ("a message of another type", json!({"message": {"text": "hello"}})),
        ("nothing at all", json!({})),
    ];
    let harness = H::fresh().await;
    let store = harness.store();
    let documents: Vec<_> = strange.iter().enumerate().map(|(n, (_, body))| event(&format!("{n:02}"), TEN, body.clone())).collect();

    write(&store, documents.clone()).await;

    let found = search(&store, SearchRequest { ascending: true, ..all() }).await;
    assert_eq!(found.total, strange.len() as u64);
    for (hit, (document, (what, _))) in found.hits.iter().zip(documents.iter().zip(&strange)) {
        assert_eq!((&hit.id, &hit.body), (&document.id, &document.body), "{what}");
    }
}

pub(super) async fn a_path_may_hold_every_type<H: Harness>() {
    let harness = H::fresh().await;
    let store = harness.store();
    let values = [
        json!("text"),
        json!(7),
        json!(7.5),
        json!(true),
        json!({"inner": 1}),
        json!(["list", 8]),
        json!(null),
        json!("2026-11-24T10:00:00Z"),
    ];
    // Each in a bulk of its own and all in one: neither the first type nor the last decides.
    for (n, value) in values.iter().enumerate() {
        write(&store, vec![event(&format!("single-{n}"), TEN, json!({"details": {"x": value}}))]).await;
    }
    write(
        &store,
        values.iter().enumerate().map(|(n, value)| event(&format!("together-{n}"), TEN, json!({"details": {"x": value}}))).collect(),
    )
    .await;

    for (text, expected) in [
        ("details.x:text", ["single-0", "together-0"]),
        ("details.x:7", ["single-1", "together-1"]),
        ("details.x:7.5", ["single-2", "together-2"]),
        ("details.x:true", ["single-3", "together-3"]),
        ("details.x.inner:1", ["single-4", "together-4"]),
        ("details.x:list AND details.x:8", ["single-5", "together-5"]),
        ("details.x:\"2026-11-24T10:00:00Z\"", ["single-7", "together-7"]),
    ] {
        let found = search(&store, SearchRequest { ascending: true, ..query(text) }).await;
        assert_eq!(ids(&found), expected, "{text}");
    }
    assert_eq!(search(&store, all()).await.total, 2 * values.len() as u64);
}

pub(super) async fn a_refused_document_harms_no_other<H: Harness>() {
    let harness = H::fresh().await;
    let store = harness.store();
    let too_long = "x".repeat(600);

    let results = store.bulk(vec![event("a", TEN, json!({})), event(&too_long, TEN, json!({})), event("b", TEN, json!({}))]).await.unwrap();

    assert!(matches!(results.as_slice(), [Ok(()), Err(_), Ok(())]), "{results:?}");
    assert!(!results[1].as_ref().unwrap_err().reason.is_empty());
    store.refresh().await.unwrap();
    assert_eq!(ids(&search(&store, all()).await), ["b", "a"]);
}

pub(super) async fn records_are_no_documents<H: Harness>() {
    let harness = H::fresh().await;
    let mut document = event("a", TEN, json!({}));
    document.family = Family::Alerts;

    let refused = harness.store().bulk(vec![document]).await;

    assert!(matches!(refused, Err(StoreError::BadRequest(_))), "{refused:?}");
}

pub(super) async fn days_past_their_time_are_deleted_whole<H: Harness>() {
    let mut harness = H::fresh().await;
    let store = harness.store();
    let mut documents: Vec<_> = (0..4).map(|n| event(&n.to_string(), TEN + n * DAY, json!({}))).collect();
    documents.push(event("0b", TEN + MINUTE, json!({})));
    write(&store, documents).await;

    // The day of the time itself stays whole.
    let deleted = store.delete_older_than(Family::Events, TEN + 2 * DAY + MINUTE).await.unwrap();

    assert_eq!(deleted, 3);
    assert_eq!(ids(&search(&store, all()).await), ["3", "2"]);
    assert_eq!(store.delete_older_than(Family::Events, TEN + 2 * DAY + MINUTE).await.unwrap(), 0);
    harness.crash_and_reopen().await;
    assert_eq!(ids(&search(&harness.store(), all()).await), ["3", "2"]);

    // What was deleted can be written anew.
    write(&harness.store(), vec![event("0", TEN, json!({}))]).await;
    assert_eq!(search(&harness.store(), all()).await.total, 3);
}

pub(super) async fn concurrent_bulks_lose_and_double_nothing<H: Harness>() {
    let harness = H::fresh().await;
    let store = harness.store();
    let mut writers = Vec::new();
    for writer in 0..8_i64 {
        let store = harness.store();
        writers.push(tokio::spawn(async move {
            for bulk in 0..10_i64 {
                let documents = (0..10_i64)
                    .map(|n| {
                        let number = writer * 100 + bulk * 10 + n;
                        // Every writer also writes one id that all share.
                        let id = if n == 0 { "shared".to_owned() } else { format!("{number:04}") };
                        repeated(&id, TEN + (number % 2) * DAY, json!({"number": number}))
                    })
                    .collect();
                let results = store.bulk(documents).await.unwrap();
                assert!(results.iter().all(Result::is_ok), "{results:?}");
            }
        }));
    }
    for writer in writers {
        tokio::time::timeout(DEADLINE, writer).await.unwrap().unwrap();
    }
    store.refresh().await.unwrap();

    let found = search(&store, SearchRequest { size: 10_000, ..all() }).await;

    let mut unique: BTreeSet<&str> = BTreeSet::new();
    for hit in &found.hits {
        assert!(unique.insert(&hit.id), "{} is there twice", hit.id);
    }
    assert_eq!(unique.len(), 8 * 10 * 9 + 1);
}
