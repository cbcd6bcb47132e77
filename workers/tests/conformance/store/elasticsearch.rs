//! The store in a real Elasticsearch: the suite, and what is its own.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use redoubt::secrets::Secrets;
use redoubt::store::elasticsearch::{ElasticsearchStore, Options};
use redoubt::store::{Expected, Family, SearchRequest, Store, StoreError};
use redoubt_crds::ExternalStore;
use serde_json::{Value, json};

use super::faults::Proxy;
use super::fixture::{DAY, Harness, TEN, alert, all, event, ids, query, repeated, search, within, write};
use crate::servers::elasticsearch::{Server, shared, unique_prefix};

fn options() -> Options {
    Options { refresh: Duration::from_millis(100), ..Options::default() }
}

/// The cluster at an address, under a prefix.
fn cluster(url: &str, prefix: &str) -> ExternalStore {
    serde_json::from_value(json!({"urls": [url], "prefix": prefix, "replicas": 0})).unwrap()
}

async fn open(spec: &ExternalStore) -> Arc<ElasticsearchStore> {
    Arc::new(ElasticsearchStore::open(spec, Secrets::new("no-secrets"), &options()).await.unwrap())
}

struct Elasticsearch {
    spec: ExternalStore,
    store: Arc<ElasticsearchStore>,
}

#[async_trait]
impl Harness for Elasticsearch {
    fn absent() -> Option<String> {
        shared().err().map(str::to_owned)
    }

    async fn fresh() -> Self {
        let spec = cluster(shared().expect("asked above").url(), &unique_prefix());
        let store = open(&spec).await;
        Self { spec, store }
    }

    fn store(&self) -> Arc<dyn Store> {
        Arc::clone(&self.store) as Arc<dyn Store>
    }

    /// What is durable is the server's, and the server outlives its clients; so a crash is one of the client. That of the server is a test
    /// of its own.
    async fn crash_and_reopen(&mut self) {
        self.store = open(&self.spec).await;
    }
}

store_conformance!(Elasticsearch);

/// The shared server, unless there is none; then the test is passed over.
fn server() -> Option<&'static Server> {
    shared().inspect_err(|why| eprintln!("skipped: {why}")).ok()
}

async fn ask(url: &str, path: &str) -> Value {
    reqwest::get(format!("{url}{path}")).await.unwrap().json().await.unwrap()
}

/// All events, a page at a time; how often each id is there.
async fn counted(store: &Arc<ElasticsearchStore>) -> BTreeMap<String, u32> {
    store.refresh().await.unwrap();
    let mut found = BTreeMap::new();
    let mut request = SearchRequest { size: 1000, ..all() };
    loop {
        let page = store.search(Family::Events, request.clone()).await.unwrap();
        let Some(last) = page.hits.last() else { return found };
        request.after = Some(last.sort.clone());
        for hit in page.hits {
            *found.entry(hit.id).or_default() += 1;
        }
    }
}

/// Writes numbered bulks over two days, as a sender does: what has no answer is sent again as repeats. Returns the ids.
async fn write_bulks(store: Arc<ElasticsearchStore>, writer: usize, bulks: usize, answered: Arc<AtomicUsize>) -> Vec<String> {
    let mut ids = Vec::new();
    for bulk in 0..bulks {
        let mut documents: Vec<_> = (0..50)
            .map(|n| event(&format!("{writer}-{bulk:03}-{n:02}"), TEN + (n % 2) * DAY, json!({"message": "a few words", "writer": writer})))
            .collect();
        ids.extend(documents.iter().map(|document| document.id.clone()));
        loop {
            match store.bulk(documents.clone()).await {
                Ok(results) => break assert!(results.iter().all(Result::is_ok), "{results:?}"),
                Err(StoreError::Unavailable(_)) => documents.iter_mut().for_each(|document| document.may_repeat = true),
                Err(error) => panic!("{error}"),
            }
        }
        answered.fetch_add(1, Ordering::Relaxed);
    }
    ids
}

/// Each of these once, and nothing else.
fn assert_once(found: &BTreeMap<String, u32>, ids: impl IntoIterator<Item = String>) {
    let mut left = found.clone();
    for id in ids {
        assert_eq!(left.remove(&id), Some(1), "{id}");
    }
    assert!(left.is_empty(), "from nowhere: {left:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_is_killed_in_the_middle_of_bulks_loses_and_doubles_nothing() {
    if server().is_none() {
        return;
    }
    let mut server = Server::start().unwrap();
    let store = open(&cluster(server.url(), "killed")).await;
    let answered = Arc::new(AtomicUsize::new(0));
    let writers: Vec<_> = (0..4).map(|writer| tokio::spawn(write_bulks(Arc::clone(&store), writer, 60, Arc::clone(&answered)))).collect();
    let alerts = Arc::clone(&store);
    let alerts = tokio::spawn(async move {
        for number in 0..40 {
            let put = alert(&number.to_string(), Expected::Absent, json!({"number": number}));
            while alerts.put(vec![put.clone()]).await.is_err() {}
        }
    });

    for enough in [40, 120] {
        within("bulks", async {
            while answered.load(Ordering::Relaxed) < enough {
                tokio::task::yield_now().await;
            }
        })
        .await;
        server = tokio::task::spawn_blocking(move || {
            server.kill();
            server.restart();
            server
        })
        .await
        .unwrap();
    }

    let mut ids = Vec::new();
    for writer in writers {
        ids.extend(writer.await.unwrap());
    }
    alerts.await.unwrap();
    assert_once(&counted(&store).await, ids);
    let found = store.search(Family::Alerts, all()).await.unwrap();
    assert_eq!(found.total, 40);
    for number in 0..40 {
        assert_eq!(store.get(Family::Alerts, &number.to_string()).await.unwrap().unwrap().body["number"], number);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cluster_that_refuses_and_a_network_that_loses_answers_lose_and_double_nothing() {
    let Some(server) = server() else { return };
    let proxy = Proxy::start(server.url(), true).await;
    let mut spec = cluster(&proxy.url, &unique_prefix());
    // Nobody listens at the first address: it is passed over.
    spec.urls.insert(0, "http://127.0.0.1:1".to_owned());
    let store = open(&spec).await;
    let answered = Arc::new(AtomicUsize::new(0));

    let writers: Vec<_> = (0..6).map(|writer| tokio::spawn(write_bulks(Arc::clone(&store), writer, 30, Arc::clone(&answered)))).collect();
    let mut ids = Vec::new();
    for writer in writers {
        ids.extend(within("a writer", writer).await.unwrap());
    }
    // Everything once more, as the broker would after a crash.
    let again = ids.iter().map(|id| repeated(id, TEN + DAY, json!({}))).collect();
    assert!(store.bulk(again).await.unwrap().iter().all(Result::is_ok));

    assert!(proxy.faults() > 40, "{}", proxy.faults());
    assert_once(&counted(&store).await, ids);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_the_mapping_refuses_is_told_with_the_reason_and_the_rest_goes_on() {
    let Some(server) = server() else { return };
    let spec = cluster(server.url(), &unique_prefix());
    let store = open(&spec).await;

    let results = store
        .bulk(vec![
            event("a", TEN, json!({"user": {"name": "bob"}})),
            event("b", TEN, json!({"user": "bob"})),
            event("c", TEN, json!({"details": {"null\u{0}key": 1}})),
            event("b", TEN, json!({"user": {"name": "the second of its id"}})),
            event("d", TEN, json!({"source": {"ip": "no address"}, "event": {"severity": "high"}})),
        ])
        .await
        .unwrap();

    assert!(matches!(results.as_slice(), [Ok(()), Err(_), _, Ok(()), Ok(())]), "{results:?}");
    assert!(results[1].as_ref().unwrap_err().reason.contains("user"), "{results:?}");
    let mut taken = vec!["a", "b", "d"];
    match &results[2] {
        Err(rejection) => assert!(rejection.reason.contains("reserved character"), "{results:?}"),
        // A flat_object knows no reserved characters.
        Ok(()) => {
            assert_eq!(kind_of_trees(server, &spec).await, "flat_object");
            taken.push("c");
        }
    }
    assert_once(&counted(&store).await, taken.into_iter().map(str::to_owned));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_repeat_meets_its_first_copy_over_rollovers_and_several_processes() {
    let Some(server) = server() else { return };
    let mut spec = cluster(server.url(), &unique_prefix());
    spec.rollover.max_bytes = 1;
    let (one, other) = (open(&spec).await, open(&spec).await);
    let mut ids = BTreeSet::new();

    for round in 0..4 {
        // Both write the same at the same time; one of them may not have heard of the newest index yet.
        let documents = |by: &str| -> Vec<_> {
            (0..20).map(|n| repeated(&format!("{}", round * 10 + n), TEN + n % 2 * DAY, json!({"by": by}))).collect()
        };
        let (ours, theirs) = tokio::join!(one.bulk(documents("one")), other.bulk(documents("other")));
        assert!(ours.unwrap().iter().chain(&theirs.unwrap()).all(Result::is_ok));
        ids.extend(documents("").into_iter().map(|document| document.id));
        one.refresh().await.unwrap();
        if round == 1 {
            let (ours, theirs) = tokio::join!(one.roll_over(), other.roll_over());
            ours.and(theirs).unwrap();
        } else {
            one.roll_over().await.unwrap();
        }
    }

    let indices = ask(server.url(), &format!("/{}-events-2026.11.24-*/_settings/index.creation_date", spec.prefix)).await;
    assert!(indices.as_object().unwrap().len() >= 4, "{indices}");
    assert_once(&counted(&one).await, ids);
}

/// The type that `details` has in the store of a spec: what the server has for trees.
async fn kind_of_trees(server: &Server, spec: &ExternalStore) -> String {
    let mappings = ask(server.url(), &format!("/{}-events-2*/_mapping", spec.prefix)).await;
    let mapping = mappings.as_object().unwrap().values().next().unwrap();
    let kind = mapping["mappings"]["properties"]["details"]["type"].as_str().unwrap().to_owned();
    assert!(["flattened", "flat_object"].contains(&kind.as_str()), "{kind}");
    kind
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_index_of_before_gets_the_fields_that_are_new() {
    let Some(server) = server() else { return };
    let spec = cluster(server.url(), &unique_prefix());
    let index = format!("{}-alerts", spec.prefix);
    let old = json!({"mappings": {"properties": {"severity": {"type": "long"}, "rule": {"properties": {"name": {"type": "keyword"}}}}}});
    let made = reqwest::Client::new().put(format!("{}/{index}", server.url())).json(&old).send().await.unwrap();
    assert!(made.status().is_success());

    open(&spec).await;

    let mapping = ask(server.url(), &format!("/{index}/_mapping")).await[&index]["mappings"].take();
    assert_eq!(mapping["properties"]["severity"]["type"], "long", "it cannot change in place");
    assert_eq!(mapping["properties"]["events"]["type"], kind_of_trees(server, &spec).await);
    assert_eq!(mapping["properties"]["rule"]["properties"]["id"]["type"], "keyword");
    assert_eq!(mapping["_meta"]["redoubt"]["version"], 1);
}

/// How often the servers' indices of events and of alerts are refreshed.
async fn refresh_intervals(url: &str, prefix: &str) -> [String; 2] {
    let told = ask(url, &format!("/{prefix}-*/_settings?flat_settings=true")).await;
    ["events", "alerts"].map(|family| {
        let of_family = |name: &&String| name.starts_with(&format!("{prefix}-{family}"));
        let index = told.as_object().unwrap().keys().find(of_family).unwrap_or_else(|| panic!("no index of {family} in {told}"));
        told[index]["settings"]["index.refresh_interval"].as_str().unwrap().to_owned()
    })
}

#[tokio::test]
async fn alerts_are_refreshed_twice_as_often_as_events_in_new_indices_and_in_those_that_are_there() {
    let Some(server) = server() else { return };
    let spec = cluster(server.url(), &unique_prefix());
    for (refresh, events, alerts) in [(2000, "2000ms", "1000ms"), (5000, "5000ms", "2500ms"), (1, "1ms", "1ms")] {
        let options = Options { refresh: Duration::from_millis(refresh), ..Options::default() };

        let store = ElasticsearchStore::open(&spec, Secrets::new("no-secrets"), &options).await.unwrap();

        assert_eq!(refresh_intervals(server.url(), &spec.prefix).await, [events, alerts]);
        store.close().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn patterns_and_networks_in_details_find_what_the_key_holds() {
    let Some(server) = server() else { return };
    let store: Arc<dyn Store> = open(&cluster(server.url(), &unique_prefix())).await;
    write(
        &store,
        vec![
            event("a", TEN, json!({"details": {"Image": "C:\\Windows\\cmd.exe", "Parent Image": "C:\\x.exe", "addr": "172.17.3.4"}})),
            event("b", TEN, json!({"details": {"Image": "C:\\x.exe", "ParentImage": "C:\\Windows\\cmd.exe", "addr": "172.18.3.4"}})),
        ],
    )
    .await;

    for (text, expected) in [
        ("details.Image:*\\\\cmd.exe", vec!["a"]),
        ("details.Image:C*cmd.ex?", vec!["a"]),
        ("details.Image:C\\:\\\\W*", vec!["a"]),
        ("details.Image:*", vec!["b", "a"]),
        ("details.Parent\\ Image:*x.exe", vec!["a"]),
        ("details.*:*cmd.exe", vec!["b", "a"]),
        ("details.*:C\\:\\\\?.e*", vec!["b", "a"]),
        ("*\\\\x.exe", vec!["b", "a"]),
        ("*18.3.?", vec!["b"]),
        ("details.addr:172.16.0.0/15", vec!["a"]),
        ("details.addr:172.16.0.0/12", vec!["b", "a"]),
    ] {
        assert_eq!(ids(&search(&store, query(text)).await), expected, "{text}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_record_with_long_texts_comes_back_whole() {
    let Some(server) = server() else { return };
    let store: Arc<dyn Store> = open(&cluster(server.url(), &unique_prefix())).await;
    let body = json!({"events": [{"message": "word ".repeat(20_000), "n": 1}], "group": {"k": "x".repeat(40_000), "user.name": "bob"}});
    let put = alert("a", Expected::Absent, body);

    store.put(vec![put.clone()]).await.unwrap();

    assert_eq!(store.get(Family::Alerts, "a").await.unwrap().unwrap().body, put.body);
    store.refresh().await.unwrap();
    let found = store.search(Family::Alerts, query("group.user.name:bob")).await.unwrap();
    assert_eq!(found.total, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_an_aggregation_of_details_counts_is_right_or_refused() {
    let Some(server) = server() else { return };
    let spec = cluster(server.url(), &unique_prefix());
    let store: Arc<dyn Store> = open(&spec).await;
    write(&store, vec![event("a", TEN, json!({"details": {"Image": "C:\\x.exe", "other": 5}})), event("b", TEN, json!({}))]).await;
    let aggregations = serde_json::from_value(json!({"images": {"terms": {"field": "details.Image"}}})).unwrap();

    let found = store.search(Family::Events, SearchRequest { aggregations, ..all() }).await;

    match found {
        Ok(found) => assert_eq!(found.aggregations["images"]["buckets"], json!([{"key": "C:\\x.exe", "doc_count": 1}])),
        Err(refusal) => {
            assert_eq!(kind_of_trees(server, &spec).await, "flat_object");
            assert!(matches!(&refusal, StoreError::BadRequest(reason) if reason.contains("details.Image")), "{refusal}");
        }
    }
}

#[tokio::test]
async fn the_credentials_are_those_of_the_secrets_and_change_with_them() {
    let Some(server) = server() else { return };
    let proxy = Proxy::start(server.url(), false).await;
    let folder = tempfile::tempdir().unwrap();
    std::fs::create_dir(folder.path().join("elastic")).unwrap();
    for (file, value) in [("username", "siem"), ("password", "secret\n"), ("key", "abc==")] {
        std::fs::write(folder.path().join("elastic").join(file), value).unwrap();
    }

    for (member, reference, expected) in [
        ("credentialsSecretRef", json!({"name": "elastic"}), "Basic c2llbTpzZWNyZXQ="),
        ("apiKeySecretRef", json!({"name": "elastic", "key": "key"}), "ApiKey abc=="),
    ] {
        let mut spec = serde_json::to_value(cluster(&proxy.url, &unique_prefix())).unwrap();
        spec[member] = reference;
        let spec: ExternalStore = serde_json::from_value(spec).unwrap();

        ElasticsearchStore::open(&spec, Secrets::new(folder.path()), &options()).await.unwrap();

        assert_eq!(proxy.authorizations().last().unwrap(), expected);
    }
}

#[tokio::test]
async fn a_cluster_that_is_not_there_is_told_with_its_address() {
    let impatient = Options { patience: Duration::ZERO, ..options() };

    let refused = ElasticsearchStore::open(&cluster("http://127.0.0.1:1", "x"), Secrets::new("no-secrets"), &impatient).await;

    let error = refused.err().expect("nobody listens there");
    assert!(matches!(&error, StoreError::Unavailable(reason) if reason.contains("127.0.0.1:1")), "{error}");
}
