//! Every role, every node of a RabbitMQ of three and the Elasticsearch killed (-9) over and over while a careful client posts events with
//! known ids: afterwards each accepted event is indexed, dropped as declared or a dead letter, none is lost or doubled, and the alerts are
//! those of a quiet run in one process and one folder.
//!
//! `REDOUBT_SOAK_EVENTS` sets the number of events; `make soak` runs a million of them through a release build.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use redoubt::store::{Family, SearchRequest, Store};
use serde_json::{Value, json};
use tokio::sync::watch;

use crate::{
    external::{reader, siem_on},
    harness::{JSON_SOURCE, Siem, TOKEN},
    known,
    servers::{
        elasticsearch::{self, Server},
        rabbitmq::{self, Nodes},
    },
};

const BATCH: usize = 500;
const SENDERS: usize = 2;
/// Each of these many events is dropped by an Enrichment.
const DISCARDED_EVERY: usize = 500;
/// After each of these many batches one event is posted that no parser can read.
const UNREADABLE_EVERY: usize = 20;
/// Batches of the last, quiet wave, by which the product's own counters are judged.
const QUIET_BATCHES: usize = 20;
/// How often each victim is killed, at least.
const ROUNDS: usize = 5;
const NODES: [&str; 3] = ["a", "b", "c"];
const ROLES: [(&str, u16); 4] = [("ingest", 8080), ("process", 8081), ("correlate", 8082), ("respond", 8083)];

const RESOURCES: &str = "
apiVersion: redoubt.dev/v1alpha1
kind: Enrichment
metadata: {name: noise}
spec:
  when: exists(.details.discard)
  drop: {reason: noise}
---
apiVersion: redoubt.dev/v1alpha1
kind: LogSource
metadata: {name: windows}
spec:
  format: windows
  http: {auth: {bearer: {name: ingest, key: token}}}
";

/// What is posted.
#[derive(Clone, Copy)]
struct Load {
    events: usize,
}

impl Load {
    /// The number that the environment asks for, or one that a test run can bear.
    fn asked_for() -> Self {
        let events = std::env::var("REDOUBT_SOAK_EVENTS").ok().and_then(|events| events.parse().ok()).unwrap_or(100_000);
        Self { events: usize::div_ceil(events, BATCH) * BATCH }
    }

    fn batches(self) -> usize {
        self.events / BATCH
    }

    fn rounds(self) -> usize {
        ROUNDS.max(self.events / 100_000)
    }

    fn event(self, n: usize) -> Value {
        let mut event = known::event(n, self.events);
        if is_discarded(n) {
            event["discard"] = json!(true);
        }
        event
    }

    /// The requests that make up a batch, each with its source; the same each time.
    fn requests(self, number: usize) -> Vec<(&'static str, String)> {
        let events = (number * BATCH..(number + 1) * BATCH).map(|n| self.event(n).to_string() + "\n");
        let mut requests = vec![("app", events.collect())];
        if number.is_multiple_of(UNREADABLE_EVERY) {
            requests.push(("windows", json!({"unreadable": number}).to_string()));
        }
        requests
    }

    /// Ids of the events that must be indexed.
    fn indexed(self) -> BTreeSet<String> {
        (0..self.events).filter(|n| !is_discarded(*n)).map(known::id).collect()
    }

    /// Numbers of the batches with an event that must be a dead letter.
    fn unreadable(self) -> BTreeSet<u64> {
        (0..self.batches()).step_by(UNREADABLE_EVERY).map(|number| number as u64).collect()
    }
}

fn is_discarded(n: usize) -> bool {
    n % DISCARDED_EVERY == DISCARDED_EVERY / 2
}

/// Posts a load batch by batch, as far as it is let.
struct Client {
    posted: Arc<AtomicUsize>,
    repeats: Arc<AtomicUsize>,
    let_go: watch::Sender<usize>,
    senders: tokio::task::JoinSet<()>,
}

impl Client {
    /// Begins with the first batch of a load; there will be so many.
    fn start(siem: &Siem, load: Load, batches: usize) -> Self {
        let (posted, repeats, next) = (Arc::<AtomicUsize>::default(), Arc::<AtomicUsize>::default(), Arc::<AtomicUsize>::default());
        let let_go = watch::Sender::new(0);
        let mut senders = tokio::task::JoinSet::new();
        for _ in 0..SENDERS {
            let (posted, repeats, next, mut bound) = (Arc::clone(&posted), Arc::clone(&repeats), Arc::clone(&next), let_go.subscribe());
            let url = siem.url("/v1/sources");
            senders.spawn(async move {
                let client = reqwest::Client::new();
                loop {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    if number >= batches || bound.wait_for(|bound| *bound > number).await.is_err() {
                        return;
                    }
                    for (source, body) in load.requests(number) {
                        post(&client, &format!("{url}/{source}"), &body, &repeats).await;
                    }
                    posted.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        Self { posted, repeats, let_go, senders }
    }

    /// Lets so many batches go, counted from the first.
    fn let_go(&self, batches: usize) {
        self.let_go.send_replace(batches);
    }

    fn posted(&self) -> usize {
        self.posted.load(Ordering::Relaxed)
    }

    /// Lets all go and waits for the end; returns how often something was sent again.
    async fn finish(mut self) -> usize {
        self.let_go(usize::MAX);
        while let Some(sender) = self.senders.join_next().await {
            sender.unwrap();
        }
        self.repeats.load(Ordering::Relaxed)
    }
}

/// Posts a body until it is taken: again after every failure that is not the body's own fault.
async fn post(client: &reqwest::Client, url: &str, body: &str, repeats: &AtomicUsize) {
    loop {
        let sent = client.post(url).bearer_auth(TOKEN).body(body.to_owned()).timeout(Duration::from_secs(10)).send().await;
        match sent {
            Ok(answer) if answer.status() == 202 => return,
            Ok(answer) if answer.status().is_client_error() && answer.status() != 429 => panic!("refused: {:?}", answer.text().await),
            _ => {
                repeats.fetch_add(1, Ordering::Relaxed);
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        }
    }
}

/// The servers, and the roles on them.
struct Site {
    siem: Siem,
    nodes: Nodes,
    server: Server,
    /// How often each victim was killed.
    kills: BTreeMap<&'static str, usize>,
}

impl Site {
    /// Kills a victim and starts it again.
    async fn strike(&mut self, victim: &'static str, round: usize) {
        *self.kills.entry(victim).or_default() += 1;
        match victim {
            "rabbitmq" => {
                let node = NODES[round % NODES.len()];
                self.nodes.kill(node);
                self.nodes.again(node);
            }
            "elasticsearch" => {
                self.server.kill();
                self.server.restart();
            }
            role => {
                self.siem.kill_role(role);
                let (_, port) = ROLES.into_iter().find(|(name, _)| *name == role).unwrap();
                start(&mut self.siem, role, port).await;
            }
        }
    }
}

async fn start(siem: &mut Siem, role: &'static str, port: u16) {
    siem.start_role(role, (role != "ingest").then_some(port));
    siem.until_ready(port).await;
}

fn siem() -> Siem {
    let source = format!("{JSON_SOURCE}  logsource: {{product: test}}\n");
    Siem::new(&[("source.yaml", &source), ("rules.yaml", known::RULES), ("more.yaml", RESOURCES)])
}

/// Rule and id of each alert that the load raises when nothing disturbs it.
async fn alerts_of_a_quiet_run(load: Load) -> BTreeSet<(String, String)> {
    let mut siem = siem();
    siem.start_ready().await;
    let client = Client::start(&siem, load, load.batches());
    client.finish().await;
    let due = load.indexed().len() as u64;
    until_grown(&siem, "every event is in the folder", due, async || siem.count(Family::Events, "").await).await;
    for topics in ["events", "matches"] {
        siem.until_empty(8080, topics).await;
    }
    siem.stop();
    let mut alerts = BTreeSet::new();
    let mut request = SearchRequest { size: 10_000, ascending: true, ..SearchRequest::default() };
    loop {
        let page = siem.search(Family::Alerts, request.clone()).await;
        alerts.extend(crate::attack::names_and_ids(&page));
        let Some(last) = page.hits.last() else { return alerts };
        request.after = Some(last.sort.clone());
    }
}

/// Waits until a count has reached what is due, and fails only when it stops growing.
async fn until_grown(siem: &Siem, what: &str, due: u64, mut count: impl AsyncFnMut() -> u64) {
    let mut reached = count().await;
    while reached < due {
        siem.until(&format!("{what}: more than {reached} of {due}"), async || {
            let before = std::mem::replace(&mut reached, count().await);
            reached > before
        })
        .await;
    }
}

/// All documents of a family, page by page.
async fn all<T>(store: &impl Store, family: Family, mut of: impl FnMut(&str, &Value) -> T) -> Vec<T> {
    let mut found = Vec::new();
    let mut request = SearchRequest { size: 10_000, ascending: true, ..SearchRequest::default() };
    loop {
        let page = store.search(family, request.clone()).await.unwrap();
        found.extend(page.hits.iter().map(|hit| of(&hit.id, &json!(hit.body))));
        let Some(last) = page.hits.last() else { return found };
        request.after = Some(last.sort.clone());
    }
}

async fn count(store: &impl Store, family: Family) -> u64 {
    // A server that is just coming back has nothing to say yet.
    let counted = async {
        store.refresh().await?;
        store.search(family, SearchRequest::default()).await
    };
    counted.await.map_or(0, |found| found.total)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_lost_or_doubled_while_every_process_and_server_is_killed() {
    if !rabbitmq::available() {
        return;
    }
    let server = match Server::start() {
        Ok(server) => server,
        Err(why) => return eprintln!("skipped: no Elasticsearch: {why}"),
    };
    let load = Load::asked_for();
    let expected_alerts = alerts_of_a_quiet_run(load).await;
    assert_eq!(expected_alerts.len(), known::all_alerts(load.events), "alerts of a quiet run");

    let nodes = Nodes::start(&NODES);
    let prefix = elasticsearch::unique_prefix();
    let urls = NODES.map(|node| nodes.url(node));
    let mut siem = siem();
    siem.write("siem.yaml", &siem_on(&prefix, &urls.each_ref().map(String::as_str), server.url()));
    siem.write_rabbitmq_login();
    for (role, port) in ROLES {
        start(&mut siem, role, port).await;
    }
    let store = reader(&prefix, server.url()).await;
    let mut site = Site { siem, nodes, server, kills: BTreeMap::new() };

    let started = Instant::now();
    let client = Client::start(&site.siem, load, load.batches());
    let victims = ["ingest", "process", "rabbitmq", "correlate", "elasticsearch", "respond"];
    let strikes = load.rounds() * victims.len();
    for strike in 0..strikes {
        // The moment differs from run to run; a part of the load is on its way.
        let due = strike * load.batches() / strikes;
        client.let_go((strike + 1) * load.batches() / strikes);
        site.siem.until("the client gets on", async || client.posted() >= due).await;
        tokio::time::sleep(Duration::from_micros(u64::from(std::process::id()) * 7919 * (strike as u64 + 1) % 300_000)).await;
        site.strike(victims[strike % victims.len()], strike / victims.len()).await;
    }
    let repeats = client.finish().await;
    let expected = load.indexed();
    until_grown(&site.siem, "every event is indexed", expected.len() as u64, async || count(&store, Family::Events).await).await;
    let alerts_due = expected_alerts.len() as u64;
    until_grown(&site.siem, "every alert is stored", alerts_due, async || count(&store, Family::Alerts).await).await;
    until_quiet(&site.siem).await;
    let seconds = started.elapsed().as_secs_f64();

    let ids = all(&store, Family::Events, |_, body| body["event"]["id"].as_str().unwrap().to_owned()).await;
    assert_eq!(ids.len(), expected.len(), "events in the store");
    assert!(ids.into_iter().collect::<BTreeSet<_>>() == expected, "the events in the store are not those that were posted");
    let letters = all(&store, Family::DeadLetters, |_, body| {
        let original: Value = serde_json::from_str(body["event"]["original"].as_str().unwrap()).unwrap();
        original["unreadable"].as_u64().unwrap()
    });
    assert_eq!(letters.await.into_iter().collect::<BTreeSet<_>>(), load.unreadable());
    let alerts = all(&store, Family::Alerts, |id, body| (body["rule"]["name"].as_str().unwrap().to_owned(), id.to_owned())).await;
    assert_eq!(alerts.len() as u64, alerts_due, "alerts in the store");
    let alerts: BTreeSet<_> = alerts.into_iter().collect();
    let unlike: Vec<_> = alerts.symmetric_difference(&expected_alerts).collect();
    assert!(unlike.is_empty(), "the alerts are not those of a quiet run: {unlike:?}");
    println!(
        "{} events in {seconds:.0} s while these were killed: {:?}; {repeats} requests were repeated; {} alerts, {} dead letters, \
         {} dropped; 0 lost, 0 doubled",
        load.events,
        site.kills,
        alerts.len(),
        load.unreadable().len(),
        load.events - expected.len(),
    );

    let before = Counters::read(&site.siem).await;
    assert_eq!(Client::start(&site.siem, load, QUIET_BATCHES).finish().await, 0, "nothing disturbs this wave");
    let posted = (QUIET_BATCHES * BATCH + QUIET_BATCHES.div_ceil(UNREADABLE_EVERY)) as f64;
    site.siem.until("the wave is processed", async || Counters::read(&site.siem).await.ended - before.ended >= posted).await;
    let after = Counters::read(&site.siem).await;
    assert_eq!((after.accepted - before.accepted, after.ended - before.ended), (posted, posted));
    until_quiet(&site.siem).await;
    site.siem.stop();
    assert_eq!(count(&store, Family::Events).await, expected.len() as u64, "repeats of what was stored change nothing");
    assert_eq!(count(&store, Family::Alerts).await, alerts_due);
}

/// Waits until no message waits anywhere.
async fn until_quiet(siem: &Siem) {
    for (topics, port) in [("events", 8081), ("matches", 8082), ("alerts", 8083)] {
        siem.until_empty(port, topics).await;
    }
}

/// The product's own account.
struct Counters {
    accepted: f64,
    /// Indexed, dropped or dead-lettered.
    ended: f64,
}

impl Counters {
    async fn read(siem: &Siem) -> Self {
        Self {
            accepted: siem.metric_at(8080, "redoubt_ingest_events_total", "accepted").await,
            ended: siem.metric_at(8081, "redoubt_events_processed_total", "").await,
        }
    }
}
