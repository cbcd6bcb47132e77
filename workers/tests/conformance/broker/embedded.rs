//! The embedded broker: the suite, and what is its own.

use std::{path::Path, sync::Arc, time::Duration};

use async_trait::async_trait;
use redoubt::broker::{
    Broker, BrokerError, Consumer, Delivery, Depth, Topic,
    embedded::{EmbeddedBroker, OpenError, Options},
};
use tempfile::TempDir;

use super::suite::{Bounds, Harness};

struct Embedded {
    options: Options,
    folder: TempDir,
    broker: Arc<EmbeddedBroker>,
    /// Brokers that "crashed": alive, so that nothing they do in dropping can help, and out of reach.
    crashed: Vec<(TempDir, Arc<EmbeddedBroker>)>,
}

impl Embedded {
    fn open(options: Options) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let broker = Arc::new(EmbeddedBroker::open(folder.path(), options).unwrap());
        Self { options, folder, broker, crashed: Vec::new() }
    }

    /// What a killed process leaves is the file as it is now. The broker is at rest, so a copy has all that was confirmed and nothing
    /// of what is only in memory.
    fn crash(&mut self) {
        let folder = tempfile::tempdir().unwrap();
        std::fs::copy(self.folder.path().join("broker.redb"), folder.path().join("broker.redb")).unwrap();
        let broker = Arc::new(EmbeddedBroker::open(folder.path(), self.options).unwrap());
        self.crashed.push((std::mem::replace(&mut self.folder, folder), std::mem::replace(&mut self.broker, broker)));
    }
}

#[async_trait]
impl Harness for Embedded {
    async fn fresh(bounds: Bounds) -> Self {
        Self::open(Options { max_bytes: bounds.max_bytes, delivery_limit: bounds.delivery_limit, ..Options::default() })
    }

    fn broker(&self) -> Arc<dyn Broker> {
        Arc::clone(&self.broker) as Arc<dyn Broker>
    }

    async fn crash_and_reopen(&mut self) {
        self.crash();
    }
}

broker_conformance!(Embedded);

async fn consume(broker: &EmbeddedBroker) -> Box<dyn Consumer> {
    broker.consume(Topic::Events, "s", 1 << 20).await.unwrap()
}

async fn next(consumer: &mut Box<dyn Consumer>) -> Delivery {
    tokio::time::timeout(Duration::from_secs(30), consumer.next()).await.expect("a message within the deadline").unwrap().unwrap()
}

async fn with_messages(options: Options, bodies: &[&str]) -> Embedded {
    let embedded = Embedded::open(options);
    embedded.broker.declare(Topic::Events, "s").await.unwrap();
    embedded.broker.publish(Topic::Events, bodies.iter().map(|body| body.as_bytes().to_vec()).collect()).await.unwrap();
    embedded
}

#[tokio::test]
async fn a_file_in_use_is_refused_with_the_remedy() {
    let embedded = Embedded::open(Options::default());

    let error = EmbeddedBroker::open(embedded.folder.path(), Options::default()).err().expect("it is in use");

    assert!(matches!(error, OpenError::InUse { .. }), "{error:?}");
    assert!(error.to_string().contains("stop that one"), "{error}");
}

#[tokio::test]
async fn a_file_that_is_no_queue_is_refused_by_name() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("broker.redb");
    std::fs::write(&path, "not a queue").unwrap();

    let error = EmbeddedBroker::open(folder.path(), Options::default()).err().expect("it is no queue");

    assert!(error.to_string().contains(&*path.to_string_lossy()), "{error}");
    assert_eq!(std::fs::read(&path).unwrap(), b"not a queue");
}

#[tokio::test]
async fn a_message_over_64_mib_is_refused() {
    let embedded = with_messages(Options::default(), &[]).await;

    let outcome = embedded.broker.publish(Topic::Events, vec![vec![0; (64 << 20) + 1]]).await;

    assert!(matches!(outcome, Err(BrokerError::TooLarge { .. })), "{outcome:?}");
}

#[tokio::test]
async fn the_same_folder_can_be_opened_right_after_close() {
    let embedded = with_messages(Options::default(), &["a"]).await;

    embedded.broker.close().await;

    let again = EmbeddedBroker::open(embedded.folder.path(), embedded.options).unwrap();
    assert_eq!(next(&mut consume(&again).await).await.body, b"a");
}

/// A process that dies over one message must end up without it, and its neighbours in the prefetch must not pay.
#[tokio::test]
async fn a_message_that_kills_the_process_each_time_ends_among_the_dead_and_its_neighbours_do_not() {
    let mut embedded = with_messages(Options { delivery_limit: 4, ..Options::default() }, &["a", "b", "POISON", "c", "d", "e"]).await;
    let mut processed: Vec<String> = Vec::new();
    let mut crashes = 0;

    while processed.len() < 5 {
        let mut consumer = consume(&embedded.broker).await;
        // A pipeline with several messages in flight; what it takes from the poison on dies unacknowledged.
        let mut in_flight: Vec<Delivery> = Vec::new();
        loop {
            let delivery = match tokio::time::timeout(Duration::from_millis(100), consumer.next()).await {
                Ok(delivery) => delivery.unwrap().unwrap(),
                Err(_) => break,
            };
            in_flight.push(delivery);
        }
        if in_flight.iter().any(|delivery| delivery.body == b"POISON") {
            crashes += 1;
            embedded.crash();
        } else {
            consumer.ack(&in_flight.iter().map(|delivery| delivery.tag).collect::<Vec<_>>()).await.unwrap();
            processed.extend(in_flight.into_iter().map(|delivery| String::from_utf8(delivery.body).unwrap()));
        }
        assert!(crashes <= 4, "the poison was handed out more often than the limit allows");
    }

    let dead = embedded.broker.dead_messages(10).await.unwrap();
    assert_eq!(dead.iter().map(|dead| dead.body.as_slice()).collect::<Vec<_>>(), [b"POISON"]);
    assert!(dead[0].reason.contains("handed out 4 times"), "{}", dead[0].reason);
    assert_eq!(processed, ["a", "b", "c", "d", "e"]);
    assert_eq!(crashes, 4);
}

/// A panic drops the consumer; the next one of the same process meets the message again.
#[tokio::test]
async fn a_message_that_its_consumers_are_dropped_over_ends_among_the_dead() {
    let embedded = with_messages(Options { delivery_limit: 3, ..Options::default() }, &["POISON", "a"]).await;

    for expected in [0, 1, 2] {
        let mut consumer = consume(&embedded.broker).await;
        let delivery = next(&mut consumer).await;
        assert_eq!((delivery.body.as_slice(), delivery.redeliveries), (b"POISON".as_slice(), expected));
    }

    assert_eq!(next(&mut consume(&embedded.broker).await).await.body, b"a");
    assert_eq!(embedded.broker.dead_messages(10).await.unwrap().len(), 1);
}

#[tokio::test]
async fn when_no_more_dead_are_taken_the_queue_stands_still_and_nothing_is_lost() {
    let options = Options { delivery_limit: 1, max_dead_messages: 1, ..Options::default() };
    let embedded = with_messages(options, &["first", "second", "third"]).await;
    let mut consumer = consume(&embedded.broker).await;
    for _ in 0..2 {
        let delivery = next(&mut consumer).await;
        consumer.reject(delivery.tag, "bad").await.unwrap();
    }

    let standing = tokio::time::timeout(Duration::from_millis(200), consumer.next()).await;
    assert!(standing.is_err(), "handed out without a pause: {standing:?}");
    assert_eq!(embedded.broker.depth(Topic::Events, "s").await.unwrap().messages, 2);
    let dead = embedded.broker.dead_messages(10).await.unwrap();
    assert!(embedded.broker.replay_dead(&dead[0].id).await.unwrap());

    // It is handed out once more, and can then be set aside; the replayed one comes last, with a clean slate.
    let again = next(&mut consumer).await;
    assert_eq!((again.body.as_slice(), again.redeliveries), (b"second".as_slice(), 1));
    consumer.reject(again.tag, "still bad").await.unwrap();
    let rest = [next(&mut consumer).await, next(&mut consumer).await];
    assert_eq!(rest.each_ref().map(|delivery| delivery.body.as_slice()), [b"third".as_slice(), b"first"]);
    assert_eq!(rest[1].redeliveries, 0);
    assert_eq!(embedded.broker.dead_messages(10).await.unwrap()[0].reason, "still bad");
}

#[tokio::test]
async fn a_full_queue_takes_nothing_of_a_publish_and_is_sharp_about_its_bound() {
    let bound = 100_000;
    let embedded = with_messages(Options { max_bytes: bound, ..Options::default() }, &[]).await;
    let mut taken = 0;
    while embedded.broker.publish(Topic::Events, vec![vec![0; 1000]; 10]).await.is_ok() {
        taken += 10;
    }

    let depth = embedded.broker.depth(Topic::Events, "s").await.unwrap();

    assert_eq!(depth, Depth { messages: taken, bytes: Some(taken * 1000) });
    assert!(taken * 1000 <= bound && taken * 1064 + 10 * 1064 > bound, "{taken}");
}

#[tokio::test]
async fn a_mostly_empty_file_is_compacted_when_it_is_opened() {
    let embedded = with_messages(Options::default(), &[]).await;
    embedded.broker.publish(Topic::Events, vec![vec![7; 1 << 20]; 100]).await.unwrap();
    let mut consumer = embedded.broker.consume(Topic::Events, "s", 1 << 30).await.unwrap();
    let mut tags = Vec::new();
    for _ in 0..99 {
        tags.push(next(&mut consumer).await.tag);
    }
    consumer.ack(&tags).await.unwrap();
    let kept = file_bytes(embedded.folder.path());
    drop(consumer);
    embedded.broker.close().await;

    let again = EmbeddedBroker::open(embedded.folder.path(), embedded.options).unwrap();

    assert!(kept > 64 << 20, "{kept}: the file shrinks by itself, so nothing is shown");
    assert!(file_bytes(embedded.folder.path()) < 16 << 20, "{}", file_bytes(embedded.folder.path()));
    assert_eq!(next(&mut consume(&again).await).await.body, vec![7; 1 << 20]);
}

fn file_bytes(folder: &Path) -> u64 {
    std::fs::metadata(folder.join("broker.redb")).unwrap().len()
}
