use std::sync::Mutex;

use async_trait::async_trait;
use redoubt_crds::Severity;
use redoubt_engine::rule::{RuleInfo, RuleSet};
use serde_json::{Map, json};

use super::*;
use crate::{
    broker::{Consumer, DeadMessage, Depth},
    store::{Document, ItemResult, Packed, Record, SearchResponse},
};

/// A broker and a store that note, in one list, what they take.
#[derive(Default)]
struct Outside {
    notes: Mutex<Vec<String>>,
    /// Alerts of this id are refused for good.
    refused: Option<&'static str>,
    /// Nothing is published while this holds.
    full: Mutex<bool>,
    known: HashMap<String, Record>,
}

#[async_trait]
impl Broker for Outside {
    async fn declare(&self, _: Topic, _: &str) -> Result<(), BrokerError> {
        Ok(())
    }

    async fn publish(&self, topic: Topic, bodies: Vec<Vec<u8>>) -> Result<(), BrokerError> {
        if let Topic::Matches(number) = topic {
            let matches = bodies.iter().flat_map(|body| batch::decode::<Match>(batch::Kind::Matches, body).unwrap());
            self.notes.lock().unwrap().extend(matches.map(|found| format!("{} to {number}", found.event_id)));
            return Ok(());
        }
        if *self.full.lock().unwrap() {
            return Err(BrokerError::Unavailable("full".into()));
        }
        for body in bodies {
            let alerts: Vec<Alert> = batch::decode(batch::Kind::Alerts, &body).unwrap();
            self.notes.lock().unwrap().extend(alerts.iter().map(|alert| format!("announced {}", alert.id)));
        }
        Ok(())
    }

    async fn consume(&self, _: Topic, _: &str, _: usize) -> Result<Box<dyn Consumer>, BrokerError> {
        Err(BrokerError::Closed)
    }

    async fn depth(&self, _: Topic, _: &str) -> Result<Depth, BrokerError> {
        Ok(Depth::default())
    }

    async fn dead_messages(&self, _: usize) -> Result<Vec<DeadMessage>, BrokerError> {
        Ok(Vec::new())
    }

    async fn dead_depth(&self) -> Result<Depth, BrokerError> {
        Ok(Depth::default())
    }

    async fn replay_dead(&self, _: &str) -> Result<bool, BrokerError> {
        Ok(false)
    }

    async fn drop_dead(&self, _: &str) -> Result<bool, BrokerError> {
        Ok(false)
    }

    async fn close(&self) {}
}

#[async_trait]
impl Store for Outside {
    fn pack(&self, document: Document) -> Packed {
        Packed::new(document)
    }

    async fn write(&self, _: Vec<Packed>) -> Result<Vec<ItemResult>, StoreError> {
        Ok(Vec::new())
    }

    async fn put(&self, puts: Vec<Put>) -> Result<Vec<PutOutcome>, StoreError> {
        if puts.iter().any(|put| Some(put.id.as_str()) == self.refused) {
            return Err(StoreError::BadRequest("too large".into()));
        }
        self.notes.lock().unwrap().extend(puts.iter().map(|put| format!("written {}", put.id)));
        Ok(puts.iter().map(|_| PutOutcome::Written(1)).collect())
    }

    async fn get(&self, _: Family, id: &str) -> Result<Option<Record>, StoreError> {
        Ok(self.known.get(id).cloned())
    }

    async fn search(&self, _: Family, _: SearchRequest) -> Result<SearchResponse, StoreError> {
        Ok(SearchResponse::default())
    }

    async fn refresh(&self) -> Result<(), StoreError> {
        Ok(())
    }

    async fn delete_older_than(&self, _: Family, _: i64) -> Result<u64, StoreError> {
        Ok(0)
    }

    async fn close(&self) {}
}

fn alert(id: &str, event_count: u64) -> Alert {
    let rule = json!({"name": "r", "id": "r", "title": "R", "severity": "high", "tags": [], "attack": []});
    Alert {
        id: id.into(),
        timestamp: "2026-01-01T00:00:00.000Z".into(),
        rule: serde_json::from_value::<RuleInfo>(rule).unwrap(),
        severity: Severity::High,
        group: Map::new(),
        reasons: vec![],
        summary: String::new(),
        event_count,
        events: vec![],
    }
}

/// A partition with these alerts raised and pending.
fn partition_with(outside: &Arc<Outside>, raised: Vec<Alert>) -> Partition {
    let rules = Arc::new(RuleSet::new(vec![]));
    let (_, plan) = watch::channel(Arc::new(Plan::default()));
    let role = Correlate {
        plan,
        broker: Arc::clone(outside) as Arc<dyn Broker>,
        store: Arc::clone(outside) as Arc<dyn Store>,
        metrics: Metrics::new(),
        partitions: 1,
        max_groups: 10,
        now_millis: || 0,
    };
    let mut pending = Pending::default();
    pending.note(raised.into_iter().map(Change::Raised).collect(), 0);
    Partition { role: Arc::new(role), number: 0, hold: 0, state: Correlator::new(rules, 10), pending, versions: HashMap::new() }
}

#[tokio::test]
async fn an_alert_is_announced_before_it_is_written() {
    let outside = Arc::new(Outside::default());
    let mut partition = partition_with(&outside, vec![alert("a", 1), alert("b", 1)]);

    partition.announce_and_write(&CancellationToken::new()).await.unwrap();

    assert_eq!(*outside.notes.lock().unwrap(), ["announced a", "announced b", "written a", "written b"]);
    assert!(partition.pending.0.is_empty());
}

#[tokio::test]
async fn an_alert_that_the_store_refuses_is_counted_and_holds_up_no_other() {
    let outside = Arc::new(Outside { refused: Some("b"), ..Outside::default() });
    let mut partition = partition_with(&outside, vec![alert("a", 1), alert("b", 1), alert("c", 1)]);

    partition.announce_and_write(&CancellationToken::new()).await.unwrap();

    assert_eq!(outside.notes.lock().unwrap()[3..], ["written a", "written c"]);
    assert_eq!(partition.role.metrics.correlate_overflow.get_or_create(&KindLabels { kind: "refused" }).get(), 1);
}

#[tokio::test]
async fn what_a_failed_attempt_did_not_announce_is_part_of_the_next() {
    let outside = Arc::new(Outside { full: Mutex::new(true), ..Outside::default() });
    let mut partition = partition_with(&outside, vec![alert("a", 1)]);
    let stopped = CancellationToken::new();
    stopped.cancel();
    partition.announce_and_write(&stopped).await.unwrap_err();
    *outside.full.lock().unwrap() = false;

    partition.announce_and_write(&CancellationToken::new()).await.unwrap();

    assert_eq!(*outside.notes.lock().unwrap(), ["announced a", "written a"]);
}

#[tokio::test]
async fn after_a_restart_only_alerts_without_a_record_are_announced_and_only_those_that_say_more_are_written() {
    let record = |event_count| Record { version: 4, body: alert("", event_count).to_document() };
    let known = HashMap::from([("same".to_owned(), record(2)), ("grown".to_owned(), record(1))]);
    let outside = Arc::new(Outside { known, ..Outside::default() });
    let mut partition = partition_with(&outside, vec![alert("same", 2), alert("grown", 2), alert("new", 2)]);

    partition.recall(&CancellationToken::new()).await.unwrap();
    partition.announce_and_write(&CancellationToken::new()).await.unwrap();

    assert_eq!(*outside.notes.lock().unwrap(), ["announced new", "written grown", "written new"]);
}

/// The number of partitions was changed, and matches lie where they belonged before.
#[tokio::test]
async fn matches_of_other_partitions_are_sent_on_to_them() {
    let outside = Arc::new(Outside::default());
    let mut work = partition_with(&outside, vec![]);
    Arc::get_mut(&mut work.role).unwrap().partitions = 4;
    let matches: Vec<Match> = (0..20)
        .map(|number| Match {
            rule: "r".into(),
            group: vec![("user.name".into(), number.to_string())],
            distinct: None,
            event_id: number.to_string(),
            timestamp_millis: 0,
            received_millis: 0,
            reasons: vec![],
            document: Map::new(),
        })
        .collect();
    let body = batch::encode(batch::Kind::Matches, &matches).unwrap();

    let delivery = Delivery { tag: 1, redeliveries: 0, hold: 0, body };
    assert_eq!(work.work(vec![delivery], &CancellationToken::new()).await, [(1, Ok(()))]);

    let mut sent = outside.notes.lock().unwrap().clone();
    let foreign = matches.iter().filter(|found| partition(found, 4) != 0);
    let mut expected: Vec<String> = foreign.map(|found| format!("{} to {}", found.event_id, partition(found, 4))).collect();
    sent.sort();
    expected.sort();
    assert!(!expected.is_empty());
    assert_eq!(sent, expected);
}

#[tokio::test]
async fn a_new_hold_builds_the_state_anew_and_forgets_nothing_that_is_pending() {
    let outside = Arc::new(Outside::default());
    let mut work = partition_with(&outside, vec![alert("a", 1)]);
    let body = batch::encode::<Match>(batch::Kind::Matches, &[]).unwrap();

    let delivery = Delivery { tag: 1, redeliveries: 0, hold: 2, body };
    assert_eq!(work.work(vec![delivery], &CancellationToken::new()).await, [(1, Ok(()))]);

    assert_eq!(work.hold, 2);
    assert_eq!(*outside.notes.lock().unwrap(), ["announced a"]);
    assert!(work.pending.0.contains_key("a"), "it is to be written");
}
