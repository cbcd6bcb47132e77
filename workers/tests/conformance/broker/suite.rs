//! The contract of [`Broker`], case by case.
//!
//! An implementation joins by a [`Harness`] and one line: `broker_conformance!(ItsHarness);`. The cases share nothing, so they may
//! run at the same time against one server when `fresh` keeps them apart.

use std::{collections::BTreeSet, future::Future, sync::Arc, time::Duration};

use async_trait::async_trait;
use redoubt::broker::{Broker, BrokerError, Consumer, DeadMessage, Delivery, Topic};

/// Bounds that a case needs of its broker.
#[derive(Debug, Clone, Copy)]
pub(super) struct Bounds {
    /// Bytes that a topic may hold.
    pub(super) max_bytes: u64,
    /// How often a message is handed out before it is set aside.
    pub(super) delivery_limit: u32,
}

const ROOMY: Bounds = Bounds { max_bytes: 1 << 30, delivery_limit: 5 };

/// How a case gets its broker.
#[async_trait]
pub(super) trait Harness: Sized + Send {
    /// Whether there is what it takes; it says itself what is missing.
    fn available() -> bool {
        true
    }

    /// A broker without subscriptions or messages.
    async fn fresh(bounds: Bounds) -> Self;

    /// The broker of now.
    fn broker(&self) -> Arc<dyn Broker>;

    /// Ends the broker as a crash would, without a word to it, and starts another one on what is durable.
    async fn crash_and_reopen(&mut self);
}

/// Runs every case of the suite against a harness, each as a test of its own.
macro_rules! broker_conformance {
    ($harness:ty) => {
        broker_conformance!(
            $harness:
            what_was_confirmed_survives_a_crash_in_order,
            what_was_not_acknowledged_comes_again_in_order_when_the_consumer_is_dropped,
            what_was_not_acknowledged_comes_again_in_order_after_a_crash,
            what_was_acknowledged_never_comes_again,
            a_second_consumer_waits_and_takes_over,
            every_subscription_gets_every_message,
            topics_are_apart,
            a_subscription_starts_where_it_was_declared,
            to_declare_twice_changes_nothing,
            a_publish_that_nobody_would_keep_is_refused,
            no_more_than_the_prefetch_is_out,
            a_message_over_the_prefetch_is_handed_out_by_itself,
            a_full_queue_refuses_and_recovers,
            consumers_of_a_shared_topic_lose_and_double_nothing,
            a_rejected_message_of_a_shared_topic_comes_again,
            a_rejected_message_comes_again_before_later_ones,
            the_delivery_limit_sets_aside_with_the_reason,
            the_delivery_limit_holds_on_a_shared_topic,
            a_message_set_aside_survives_a_crash,
            dead_messages_stay_when_they_are_listed,
            a_replayed_message_goes_to_the_subscription_that_it_came_from_with_a_clean_slate,
            a_dropped_dead_message_is_gone,
            an_unknown_dead_message_is_told,
            close_wakes_waiting_consumers_and_refuses_work,
            a_call_of_next_that_is_given_up_loses_nothing,
            an_empty_publish_and_an_empty_message_are_fine,
            a_large_message_arrives_whole,
            concurrent_publishers_lose_and_double_nothing,
            any_schedule_of_acks_drops_and_crashes_loses_nothing
        );
    };
    ($harness:ty: $($case:ident),+) => {
        $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
        async fn $case() {
            if <$harness as $crate::broker::suite::Harness>::available() {
                $crate::broker::suite::$case::<$harness>().await;
            }
        })+
    };
}

const LARGE: usize = 64 << 20;
const DEADLINE: Duration = Duration::from_secs(120);
/// The topic of most cases: an exclusive one, which promises all that there is to promise.
const TOPIC: Topic = Topic::Matches(0);

/// Fails a test that would hang.
async fn within<T>(what: &str, future: impl Future<Output = T>) -> T {
    tokio::time::timeout(DEADLINE, future).await.unwrap_or_else(|_| panic!("no end of: {what}"))
}

/// That a future is pending, as far as a tenth of a second can show.
async fn assert_waits<T>(future: impl Future<Output = T>) {
    assert!(tokio::time::timeout(Duration::from_millis(100), future).await.is_err(), "it did not wait");
}

/// That so many messages are in the queue, as soon as the broker has counted what came back.
async fn assert_depth(broker: &Arc<dyn Broker>, messages: u64) {
    let counted = async {
        while broker.depth(TOPIC, "s").await.unwrap().messages != messages {
            tokio::task::yield_now().await;
        }
    };
    within(&format!("a depth of {messages}"), counted).await;
}

/// That so many messages are set aside.
async fn assert_dead(broker: &Arc<dyn Broker>, messages: u64) {
    let counted = async {
        while broker.dead_depth().await.unwrap().messages != messages {
            tokio::task::yield_now().await;
        }
    };
    within(&format!("{messages} dead messages"), counted).await;
}

fn numbered(numbers: std::ops::Range<u32>) -> Vec<Vec<u8>> {
    numbers.map(|number| number.to_string().into_bytes()).collect()
}

fn number_of(delivery: &Delivery) -> u32 {
    String::from_utf8(delivery.body.clone()).unwrap().parse().unwrap()
}

async fn next(consumer: &mut Box<dyn Consumer>) -> Delivery {
    within("next", consumer.next()).await.unwrap().expect("the broker is open")
}

async fn take(consumer: &mut Box<dyn Consumer>, count: usize) -> Vec<Delivery> {
    let mut taken = Vec::new();
    for _ in 0..count {
        taken.push(next(consumer).await);
    }
    taken
}

fn numbers(deliveries: &[Delivery]) -> Vec<u32> {
    deliveries.iter().map(number_of).collect()
}

fn redeliveries(deliveries: &[Delivery]) -> Vec<u32> {
    deliveries.iter().map(|delivery| delivery.redeliveries).collect()
}

async fn consume(broker: &Arc<dyn Broker>, subscription: &str) -> Box<dyn Consumer> {
    within("consume", broker.consume(TOPIC, subscription, LARGE)).await.unwrap()
}

/// A broker with the subscription `s` of the topic.
async fn with_subscription<H: Harness>(bounds: Bounds) -> H {
    let harness = H::fresh(bounds).await;
    harness.broker().declare(TOPIC, "s").await.unwrap();
    harness
}

async fn publish(broker: &Arc<dyn Broker>, bodies: Vec<Vec<u8>>) -> Result<(), BrokerError> {
    within("publish", broker.publish(TOPIC, bodies)).await
}

pub(super) async fn what_was_confirmed_survives_a_crash_in_order<H: Harness>() {
    let mut harness = with_subscription::<H>(ROOMY).await;
    publish(&harness.broker(), numbered(0..3)).await.unwrap();
    publish(&harness.broker(), numbered(3..5)).await.unwrap();

    harness.crash_and_reopen().await;

    let depth = harness.broker().depth(TOPIC, "s").await.unwrap();
    assert_eq!(depth.messages, 5);
    assert!(depth.bytes.is_none_or(|bytes| bytes == 5), "{depth:?}");
    let mut consumer = consume(&harness.broker(), "s").await;
    assert_eq!(numbers(&take(&mut consumer, 5).await), [0, 1, 2, 3, 4]);
}

pub(super) async fn what_was_not_acknowledged_comes_again_in_order_when_the_consumer_is_dropped<H: Harness>() {
    let harness = with_subscription::<H>(ROOMY).await;
    let broker = harness.broker();
    publish(&broker, numbered(0..5)).await.unwrap();
    let mut consumer = consume(&broker, "s").await;
    let taken = take(&mut consumer, 4).await;
    consumer.ack(&[taken[1].tag]).await.unwrap();

    drop(consumer);

    let mut consumer = consume(&broker, "s").await;
    let again = take(&mut consumer, 4).await;
    assert_eq!(redeliveries(&taken), [0, 0, 0, 0]);
    assert_eq!(numbers(&again), [0, 2, 3, 4]);
    // What was not handed out may be announced as a repeat.
    assert_eq!(redeliveries(&again[..3]), [1, 1, 1]);
}

pub(super) async fn what_was_not_acknowledged_comes_again_in_order_after_a_crash<H: Harness>() {
    let mut harness = with_subscription::<H>(ROOMY).await;
    publish(&harness.broker(), numbered(0..4)).await.unwrap();
    let mut consumer = consume(&harness.broker(), "s").await;
    let taken = take(&mut consumer, 3).await;
    consumer.ack(&[taken[0].tag]).await.unwrap();

    harness.crash_and_reopen().await;

    let mut consumer = consume(&harness.broker(), "s").await;
    let again = take(&mut consumer, 3).await;
    assert_eq!(numbers(&again), [1, 2, 3]);
    // Whether the last one was out is the implementation's guess; those before it were.
    assert_eq!(redeliveries(&again[..2]), [1, 1]);
}

pub(super) async fn what_was_acknowledged_never_comes_again<H: Harness>() {
    let mut harness = with_subscription::<H>(ROOMY).await;
    publish(&harness.broker(), numbered(0..4)).await.unwrap();
    let mut consumer = consume(&harness.broker(), "s").await;
    let taken = take(&mut consumer, 3).await;
    consumer.ack(&taken.iter().map(|delivery| delivery.tag).collect::<Vec<_>>()).await.unwrap();
    consumer.ack(&[taken[0].tag, 999]).await.unwrap();

    harness.crash_and_reopen().await;

    let mut consumer = consume(&harness.broker(), "s").await;
    assert_eq!(number_of(&next(&mut consumer).await), 3);
    drop(consumer);
    assert_depth(&harness.broker(), 1).await;
}

pub(super) async fn a_second_consumer_waits_and_takes_over<H: Harness>() {
    let harness = with_subscription::<H>(ROOMY).await;
    let broker = harness.broker();
    publish(&broker, numbered(0..2)).await.unwrap();
    let mut first = consume(&broker, "s").await;
    take(&mut first, 1).await;
    let mut second = Box::pin(async {
        let mut second = broker.consume(TOPIC, "s", LARGE).await.unwrap();
        let first = second.next().await.unwrap().unwrap();
        (second, first)
    });
    assert_waits(&mut second).await;

    drop(first);

    let (mut second, again) = within("a message", second).await;
    assert_eq!(number_of(&again), 0);
    assert_eq!(number_of(&next(&mut second).await), 1);
}

pub(super) async fn every_subscription_gets_every_message<H: Harness>() {
    let harness = with_subscription::<H>(ROOMY).await;
    let broker = harness.broker();
    broker.declare(TOPIC, "t").await.unwrap();
    publish(&broker, numbered(0..3)).await.unwrap();

    let mut s = consume(&broker, "s").await;
    let of_s = take(&mut s, 3).await;
    s.ack(&of_s.iter().map(|delivery| delivery.tag).collect::<Vec<_>>()).await.unwrap();
    let mut t = consume(&broker, "t").await;
    let of_t = take(&mut t, 3).await;

    assert_eq!(numbers(&of_s), [0, 1, 2]);
    assert_eq!(numbers(&of_t), [0, 1, 2]);
    assert_eq!(redeliveries(&of_t), [0, 0, 0]);
}

pub(super) async fn topics_are_apart<H: Harness>() {
    let harness = H::fresh(ROOMY).await;
    let broker = harness.broker();
    let topics = [Topic::Events, Topic::Matches(0), Topic::Matches(1), Topic::Alerts];
    for topic in topics {
        broker.declare(topic, "s").await.unwrap();
    }

    for topic in topics {
        broker.publish(topic, vec![topic.to_string().into_bytes()]).await.unwrap();
    }

    for topic in topics {
        let mut consumer = broker.consume(topic, "s", LARGE).await.unwrap();
        assert_eq!(next(&mut consumer).await.body, topic.to_string().into_bytes());
        assert_waits(consumer.next()).await;
    }
}

pub(super) async fn a_subscription_starts_where_it_was_declared<H: Harness>() {
    let harness = with_subscription::<H>(ROOMY).await;
    let broker = harness.broker();
    publish(&broker, numbered(0..3)).await.unwrap();

    broker.declare(TOPIC, "late").await.unwrap();
    publish(&broker, numbered(3..4)).await.unwrap();

    let mut consumer = consume(&broker, "late").await;
    assert_eq!(number_of(&next(&mut consumer).await), 3);
    assert_waits(consumer.next()).await;
}

pub(super) async fn to_declare_twice_changes_nothing<H: Harness>() {
    let mut harness = with_subscription::<H>(ROOMY).await;
    publish(&harness.broker(), numbered(0..2)).await.unwrap();

    harness.broker().declare(TOPIC, "s").await.unwrap();
    harness.crash_and_reopen().await;
    harness.broker().declare(TOPIC, "s").await.unwrap();

    let mut consumer = consume(&harness.broker(), "s").await;
    assert_eq!(numbers(&take(&mut consumer, 2).await), [0, 1]);
    assert_waits(consumer.next()).await;
}

pub(super) async fn a_publish_that_nobody_would_keep_is_refused<H: Harness>() {
    let harness = with_subscription::<H>(ROOMY).await;

    let outcome = within("publish", harness.broker().publish(Topic::Alerts, numbered(0..1))).await;

    assert!(matches!(outcome, Err(BrokerError::Unavailable(_))), "{outcome:?}");
}

pub(super) async fn no_more_than_the_prefetch_is_out<H: Harness>() {
    let harness = with_subscription::<H>(ROOMY).await;
    let broker = harness.broker();
    publish(&broker, vec![vec![0; 100]; 5]).await.unwrap();
    let mut consumer = broker.consume(TOPIC, "s", 250).await.unwrap();
    let taken = take(&mut consumer, 2).await;
    assert_waits(consumer.next()).await;

    consumer.ack(&[taken[0].tag]).await.unwrap();

    next(&mut consumer).await;
    assert_waits(consumer.next()).await;
}

pub(super) async fn a_message_over_the_prefetch_is_handed_out_by_itself<H: Harness>() {
    let harness = with_subscription::<H>(ROOMY).await;
    let broker = harness.broker();
    publish(&broker, vec![vec![1; 10], vec![2; 1000], vec![3; 10]]).await.unwrap();
    let mut consumer = broker.consume(TOPIC, "s", 100).await.unwrap();

    for (number, bytes) in [(1, 10), (2, 1000), (3, 10)] {
        let delivery = next(&mut consumer).await;
        assert_eq!(delivery.body, vec![number; bytes]);
        if number < 3 {
            assert_waits(consumer.next()).await;
        }
        consumer.ack(&[delivery.tag]).await.unwrap();
    }
}

pub(super) async fn a_full_queue_refuses_and_recovers<H: Harness>() {
    let bound = 100_000;
    let harness = with_subscription::<H>(Bounds { max_bytes: bound, ..ROOMY }).await;
    let broker = harness.broker();
    let mut taken = 0;
    let refusal = loop {
        match publish(&broker, vec![vec![0; 1000]; 10]).await {
            Ok(()) => taken += 10,
            Err(refusal) => break refusal,
        }
        // The bound is not sharp where the broker measures now and then.
        assert!(taken <= 200, "the bound is not kept");
    };

    let BrokerError::Full { topic, limit, retry_after } = refusal else { panic!("{refusal:?}") };
    assert_eq!((topic, limit), (TOPIC, bound));
    assert!((Duration::from_secs(1)..=Duration::from_secs(30)).contains(&retry_after), "{retry_after:?}");
    assert!(broker.depth(TOPIC, "s").await.unwrap().messages >= taken);

    let mut consumer = consume(&broker, "s").await;
    within("room", async {
        loop {
            let delivery = next(&mut consumer).await;
            consumer.ack(&[delivery.tag]).await.unwrap();
            if publish(&broker, vec![vec![0; 1000]]).await.is_ok() {
                break;
            }
        }
    })
    .await;
}

/// Two processes that work on one queue: each message is done once, by one of them.
pub(super) async fn consumers_of_a_shared_topic_lose_and_double_nothing<H: Harness>() {
    const MESSAGES: u32 = 200;
    let harness = H::fresh(ROOMY).await;
    let broker = harness.broker();
    broker.declare(Topic::Events, "s").await.unwrap();
    broker.publish(Topic::Events, numbered(0..MESSAGES)).await.unwrap();
    let (done, mut all_done) = tokio::sync::mpsc::unbounded_channel();

    let workers: Vec<_> = (0..2)
        .map(|_| {
            let (broker, done) = (Arc::clone(&broker), done.clone());
            tokio::spawn(async move {
                let mut consumer = broker.consume(Topic::Events, "s", LARGE).await?;
                while let Some(delivery) = consumer.next().await? {
                    consumer.ack(&[delivery.tag]).await?;
                    let _ = done.send(number_of(&delivery));
                }
                Ok::<(), BrokerError>(())
            })
        })
        .collect();

    let mut got = Vec::new();
    for _ in 0..MESSAGES {
        got.push(within("all messages", all_done.recv()).await.unwrap());
    }
    within("close", broker.close()).await;
    for worker in workers {
        // One that still waited for its turn is told that the broker is closed.
        assert!(matches!(worker.await.unwrap(), Ok(()) | Err(BrokerError::Closed)));
    }
    got.sort_unstable();
    assert_eq!(got, (0..MESSAGES).collect::<Vec<_>>());
}

pub(super) async fn a_rejected_message_of_a_shared_topic_comes_again<H: Harness>() {
    let harness = H::fresh(ROOMY).await;
    let broker = harness.broker();
    broker.declare(Topic::Events, "s").await.unwrap();
    broker.publish(Topic::Events, numbered(0..1)).await.unwrap();
    let mut consumer = broker.consume(Topic::Events, "s", LARGE).await.unwrap();

    for redeliveries in 0..3 {
        let delivery = next(&mut consumer).await;
        assert_eq!((number_of(&delivery), delivery.redeliveries), (0, redeliveries));
        consumer.reject(delivery.tag, "not now").await.unwrap();
    }

    let delivery = next(&mut consumer).await;
    consumer.ack(&[delivery.tag]).await.unwrap();
    assert_waits(consumer.next()).await;
}

pub(super) async fn a_rejected_message_comes_again_before_later_ones<H: Harness>() {
    let harness = with_subscription::<H>(ROOMY).await;
    let broker = harness.broker();
    publish(&broker, numbered(0..4)).await.unwrap();
    let mut consumer = consume(&broker, "s").await;
    let taken = take(&mut consumer, 2).await;

    consumer.reject(taken[0].tag, "not now").await.unwrap();

    let again = take(&mut consumer, 3).await;
    assert_eq!(numbers(&again), [0, 2, 3]);
    assert_eq!(redeliveries(&again), [1, 0, 0]);
}

pub(super) async fn the_delivery_limit_sets_aside_with_the_reason<H: Harness>() {
    let harness = with_subscription::<H>(Bounds { delivery_limit: 3, ..ROOMY }).await;
    let broker = harness.broker();
    publish(&broker, numbered(0..2)).await.unwrap();
    let mut consumer = consume(&broker, "s").await;

    for redeliveries in 0..3 {
        let delivery = next(&mut consumer).await;
        assert_eq!((number_of(&delivery), delivery.redeliveries), (0, redeliveries));
        consumer.reject(delivery.tag, &format!("cannot be read ({redeliveries})")).await.unwrap();
    }

    assert_eq!(number_of(&next(&mut consumer).await), 1);
    let dead = broker.dead_messages(10).await.unwrap();
    assert_eq!(dead.len(), 1);
    assert_eq!((dead[0].topic.as_str(), dead[0].subscription.as_str()), ("matches-0", "s"));
    assert_eq!((dead[0].reason.as_str(), dead[0].body.as_slice()), ("cannot be read (2)", b"0".as_slice()));
    drop(consumer);
    assert_depth(&broker, 1).await;
}

pub(super) async fn the_delivery_limit_holds_on_a_shared_topic<H: Harness>() {
    let harness = H::fresh(Bounds { delivery_limit: 3, ..ROOMY }).await;
    let broker = harness.broker();
    broker.declare(Topic::Alerts, "s").await.unwrap();
    broker.publish(Topic::Alerts, numbered(0..1)).await.unwrap();
    let mut consumer = broker.consume(Topic::Alerts, "s", LARGE).await.unwrap();

    for attempt in 0..3 {
        let delivery = next(&mut consumer).await;
        consumer.reject(delivery.tag, &format!("attempt {attempt}")).await.unwrap();
    }

    assert_waits(consumer.next()).await;
    let dead = broker.dead_messages(10).await.unwrap();
    assert_eq!(dead.len(), 1);
    assert_eq!((dead[0].topic.as_str(), dead[0].reason.as_str()), ("alerts", "attempt 2"));
}

/// A broker with dead messages of the subscription `s`, and beside it a subscription `t`.
async fn with_dead<H: Harness>(numbers: std::ops::Range<u32>) -> H {
    let harness = with_subscription::<H>(Bounds { delivery_limit: 1, ..ROOMY }).await;
    let broker = harness.broker();
    broker.declare(TOPIC, "t").await.unwrap();
    let count = numbers.len();
    publish(&broker, numbered(numbers)).await.unwrap();
    let mut consumer = consume(&broker, "s").await;
    for _ in 0..count {
        let delivery = next(&mut consumer).await;
        consumer.reject(delivery.tag, "bad").await.unwrap();
    }
    harness
}

fn bodies(dead: &[DeadMessage]) -> Vec<Vec<u8>> {
    dead.iter().map(|dead| dead.body.clone()).collect()
}

pub(super) async fn dead_messages_stay_when_they_are_listed<H: Harness>() {
    let harness = with_dead::<H>(0..3).await;
    let broker = harness.broker();

    let first = broker.dead_messages(2).await.unwrap();
    let all = broker.dead_messages(10).await.unwrap();
    let again = broker.dead_messages(10).await.unwrap();

    assert_eq!(bodies(&first), numbered(0..2));
    assert_eq!(bodies(&all), numbered(0..3));
    assert_eq!(all, again);
    let ids: BTreeSet<&str> = all.iter().map(|dead| dead.id.as_str()).collect();
    assert_eq!(ids.len(), 3, "each has an id of its own: {all:?}");
    assert_dead(&broker, 3).await;
}

pub(super) async fn a_replayed_message_goes_to_the_subscription_that_it_came_from_with_a_clean_slate<H: Harness>() {
    let harness = with_dead::<H>(0..2).await;
    let broker = harness.broker();
    let dead = broker.dead_messages(10).await.unwrap();

    assert!(broker.replay_dead(&dead[1].id).await.unwrap());

    assert!(!broker.replay_dead(&dead[1].id).await.unwrap(), "it is among the dead no more");
    assert_eq!(bodies(&broker.dead_messages(10).await.unwrap()), numbered(0..1));
    let mut s = consume(&broker, "s").await;
    let replayed = next(&mut s).await;
    assert_eq!((number_of(&replayed), replayed.redeliveries), (1, 0));
    assert_waits(s.next()).await;
    let mut t = consume(&broker, "t").await;
    assert_eq!(numbers(&take(&mut t, 2).await), [0, 1]);
    assert_waits(t.next()).await;
}

pub(super) async fn a_dropped_dead_message_is_gone<H: Harness>() {
    let harness = with_dead::<H>(0..3).await;
    let broker = harness.broker();
    let dead = broker.dead_messages(10).await.unwrap();

    assert!(broker.drop_dead(&dead[1].id).await.unwrap());

    assert!(!broker.drop_dead(&dead[1].id).await.unwrap());
    assert_eq!(bodies(&broker.dead_messages(10).await.unwrap()), [b"0", b"2"]);
    assert_dead(&broker, 2).await;
    assert_depth(&broker, 0).await;
}

pub(super) async fn an_unknown_dead_message_is_told<H: Harness>() {
    let harness = with_dead::<H>(0..1).await;
    let broker = harness.broker();

    for id in ["", "none", "18446744073709551615", "../0"] {
        assert!(!broker.replay_dead(id).await.unwrap(), "{id}");
        assert!(!broker.drop_dead(id).await.unwrap(), "{id}");
    }
    assert_dead(&broker, 1).await;
}

pub(super) async fn a_message_set_aside_survives_a_crash<H: Harness>() {
    let mut harness = with_subscription::<H>(Bounds { delivery_limit: 1, ..ROOMY }).await;
    publish(&harness.broker(), numbered(0..3)).await.unwrap();
    let mut consumer = consume(&harness.broker(), "s").await;
    for _ in 0..3 {
        let delivery = next(&mut consumer).await;
        consumer.reject(delivery.tag, "bad").await.unwrap();
    }

    harness.crash_and_reopen().await;

    assert_eq!(bodies(&harness.broker().dead_messages(10).await.unwrap()), numbered(0..3));
    assert_eq!(bodies(&harness.broker().dead_messages(2).await.unwrap()), numbered(0..2));
}

pub(super) async fn close_wakes_waiting_consumers_and_refuses_work<H: Harness>() {
    let harness = with_subscription::<H>(ROOMY).await;
    let broker = harness.broker();
    let mut consumer = consume(&broker, "s").await;
    let waiting = tokio::spawn(async move { consumer.next().await });

    within("close", broker.close()).await;

    assert_eq!(within("next", waiting).await.unwrap().unwrap(), None);
    assert!(matches!(publish(&broker, numbered(0..1)).await, Err(BrokerError::Closed)));
    within("a second close", broker.close()).await;
}

pub(super) async fn a_call_of_next_that_is_given_up_loses_nothing<H: Harness>() {
    let harness = with_subscription::<H>(ROOMY).await;
    let broker = harness.broker();
    let mut consumer = consume(&broker, "s").await;
    let mut got = Vec::new();

    let publisher = tokio::spawn({
        let broker = Arc::clone(&broker);
        async move {
            for number in 0..50 {
                publish(&broker, numbered(number..number + 1)).await.unwrap();
            }
        }
    });
    within("all messages", async {
        while got.len() < 50 {
            // Given up at every point where it can wait.
            let attempt = tokio::time::timeout(Duration::from_micros(300), consumer.next()).await;
            if let Ok(delivery) = attempt {
                got.push(delivery.unwrap().unwrap());
            }
        }
    })
    .await;

    publisher.await.unwrap();
    assert_eq!(numbers(&got), (0..50).collect::<Vec<_>>());
    assert!(redeliveries(&got).iter().all(|&times| times == 0));
}

pub(super) async fn an_empty_publish_and_an_empty_message_are_fine<H: Harness>() {
    let harness = with_subscription::<H>(ROOMY).await;
    let broker = harness.broker();

    publish(&broker, Vec::new()).await.unwrap();
    publish(&broker, vec![Vec::new()]).await.unwrap();

    assert_depth(&broker, 1).await;
    let mut consumer = consume(&broker, "s").await;
    assert_eq!(next(&mut consumer).await.body, Vec::<u8>::new());
}

pub(super) async fn a_large_message_arrives_whole<H: Harness>() {
    let mut harness = with_subscription::<H>(ROOMY).await;
    let body: Vec<u8> = (0..8_000_000_u32).map(|place| (place % 251) as u8).collect();

    publish(&harness.broker(), vec![body.clone(), b"after".to_vec()]).await.unwrap();
    harness.crash_and_reopen().await;

    let mut consumer = consume(&harness.broker(), "s").await;
    let delivery = next(&mut consumer).await;
    assert!(delivery.body == body, "the body is not the same");
    consumer.ack(&[delivery.tag]).await.unwrap();
    assert_eq!(next(&mut consumer).await.body, b"after");
}

pub(super) async fn concurrent_publishers_lose_and_double_nothing<H: Harness>() {
    const PUBLISHERS: u32 = 8;
    const MESSAGES: u32 = 60;
    let harness = with_subscription::<H>(ROOMY).await;
    let broker = harness.broker();
    let publishers: Vec<_> = (0..PUBLISHERS)
        .map(|publisher| {
            let broker = Arc::clone(&broker);
            tokio::spawn(async move {
                let mut next = publisher * MESSAGES;
                let end = next + MESSAGES;
                for size in (1..=3).cycle() {
                    let until = end.min(next + size);
                    publish(&broker, numbered(next..until)).await.unwrap();
                    next = until;
                    if next == end {
                        break;
                    }
                }
            })
        })
        .collect();

    let mut consumer = consume(&broker, "s").await;
    let mut got = Vec::new();
    for _ in 0..PUBLISHERS * MESSAGES {
        let delivery = next(&mut consumer).await;
        got.push(number_of(&delivery));
        consumer.ack(&[delivery.tag]).await.unwrap();
    }
    for publisher in publishers {
        publisher.await.unwrap();
    }

    for publisher in 0..PUBLISHERS {
        let own: Vec<u32> = got.iter().copied().filter(|number| number / MESSAGES == publisher).collect();
        assert_eq!(own, (publisher * MESSAGES..(publisher + 1) * MESSAGES).collect::<Vec<_>>(), "of publisher {publisher}");
    }
    assert_depth(&broker, 0).await;
}

pub(super) async fn any_schedule_of_acks_drops_and_crashes_loses_nothing<H: Harness>() {
    for seed in 0..8 {
        let mut random = Random(seed);
        let mut harness = with_subscription::<H>(Bounds { delivery_limit: 1_000, ..ROOMY }).await;
        let mut published = 0;
        // What is durable and not acknowledged; and of that, what the present consumer holds.
        let mut owed = BTreeSet::new();
        let mut in_hand: Vec<(u32, u64)> = Vec::new();
        let mut consumer = None;

        for _ in 0..60 {
            match random.below(10) {
                0..3 => {
                    let count = random.below(4);
                    publish(&harness.broker(), numbered(published..published + count)).await.unwrap();
                    owed.extend(published..published + count);
                    published += count;
                }
                3..6 => {
                    let consumer = match &mut consumer {
                        Some(consumer) => consumer,
                        none => none.insert(consume(&harness.broker(), "s").await),
                    };
                    // A message that came back often comes alone, so only an empty hand may insist.
                    if in_hand.is_empty() && !owed.is_empty() {
                        let delivery = next(consumer).await;
                        let number = number_of(&delivery);
                        assert_eq!(Some(&number), owed.first(), "seed {seed}: out of order or acknowledged");
                        in_hand.push((number, delivery.tag));
                    } else if let Ok(delivery) = tokio::time::timeout(Duration::from_millis(20), consumer.next()).await {
                        let delivery = delivery.unwrap().unwrap();
                        let number = number_of(&delivery);
                        assert!(owed.contains(&number), "seed {seed}: {number} was acknowledged");
                        assert!(in_hand.iter().all(|&(held, _)| held != number), "seed {seed}: {number} is out twice");
                        in_hand.push((number, delivery.tag));
                    }
                }
                6..8 if !in_hand.is_empty() => {
                    let (number, tag) = in_hand.remove(random.below(in_hand.len() as u32) as usize);
                    let consumer = consumer.as_mut().expect("messages are in its hand");
                    if random.below(3) == 0 {
                        consumer.reject(tag, "again").await.unwrap();
                    } else {
                        consumer.ack(&[tag]).await.unwrap();
                        owed.remove(&number);
                    }
                }
                8 => {
                    consumer = None;
                    in_hand.clear();
                }
                9 if random.below(3) == 0 => {
                    harness.crash_and_reopen().await;
                    consumer = None;
                    in_hand.clear();
                }
                _ => {}
            }
        }

        drop(consumer);
        assert_depth(&harness.broker(), owed.len() as u64).await;
        let mut consumer = consume(&harness.broker(), "s").await;
        for number in owed {
            let delivery = next(&mut consumer).await;
            assert_eq!(number_of(&delivery), number, "seed {seed}");
            consumer.ack(&[delivery.tag]).await.unwrap();
        }
    }
}

/// SplitMix64: the same schedule for the same seed on every machine.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: u32) -> u32 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((mixed ^ (mixed >> 31)) % u64::from(bound)) as u32
    }
}
