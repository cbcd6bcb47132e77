//! What a RabbitMQ and the network may do to their clients: nothing that was confirmed is lost, and no call hangs.

use std::{
    collections::BTreeSet,
    sync::{Arc, OnceLock},
    time::{Duration, Instant},
};

use redoubt::{
    backoff::Backoff,
    broker::{
        Broker, BrokerError, Consumer, Topic,
        rabbitmq::{Bounds, RabbitMq},
    },
    secrets::Secrets,
};
use tempfile::TempDir;
use tokio::{
    sync::{Mutex, MutexGuard, watch},
    task::{JoinHandle, spawn_blocking},
};
use tokio_util::sync::CancellationToken;

use super::rabbitmq::{prefix, secrets, spec};
use crate::servers::{
    proxy::Proxy,
    rabbitmq::{Nodes, available, shared},
};

const DEADLINE: Duration = Duration::from_secs(120);
const BOUNDS: Bounds = Bounds { max_bytes: 1 << 30, delivery_limit: 20 };
/// A subscription of a topic that several may share.
const WORK: (Topic, &str) = (Topic::Events, "s");

/// A node that tests may harm, one test at a time.
async fn faulty() -> (MutexGuard<'static, ()>, &'static Nodes) {
    static TURN: Mutex<()> = Mutex::const_new(());
    static NODE: OnceLock<Nodes> = OnceLock::new();
    let turn = TURN.lock().await;
    let node = spawn_blocking(|| NODE.get_or_init(|| Nodes::start(&["n"]))).await.unwrap();
    (turn, node)
}

async fn within<T>(what: &str, future: impl Future<Output = T>) -> T {
    tokio::time::timeout(DEADLINE, future).await.unwrap_or_else(|_| panic!("no end of: {what}"))
}

/// A broker with the subscription, and numbers on their way through it.
struct Traffic {
    broker: Arc<RabbitMq>,
    _secrets: (TempDir, Secrets),
    confirmed: watch::Receiver<u32>,
    publishing: JoinHandle<()>,
    got: watch::Receiver<BTreeSet<u32>>,
    consuming: JoinHandle<()>,
    enough: watch::Sender<bool>,
    /// The last error of publishing, for a test that fails.
    refused: watch::Receiver<String>,
}

impl Traffic {
    async fn over(urls: &[String]) -> Self {
        let secrets = secrets();
        let broker = Arc::new(RabbitMq::new(&spec(urls, &prefix()), BOUNDS, secrets.1.clone(), "test"));
        broker.declare(WORK.0, WORK.1).await.unwrap();
        let (count, confirmed) = watch::channel(0);
        let (enough, stop) = watch::channel(false);
        let publisher = Arc::clone(&broker);
        let (refusal, refused) = watch::channel(String::new());
        let publishing = tokio::spawn(async move {
            for number in 0_u32.. {
                if *stop.borrow() {
                    return;
                }
                let mut backoff = Backoff::between(Duration::from_millis(20), Duration::from_secs(1));
                while let Err(error) = publisher.publish(WORK.0, vec![number.to_string().into_bytes()]).await {
                    refusal.send_replace(error.to_string());
                    backoff.pause(&CancellationToken::new()).await.unwrap();
                }
                count.send_replace(number + 1);
            }
        });
        let (seen, got) = watch::channel(BTreeSet::new());
        let mut consumer: Box<dyn Consumer> = broker.consume(WORK.0, WORK.1, 8 << 20).await.unwrap();
        let consuming = tokio::spawn(async move {
            while let Ok(Some(delivery)) = consumer.next().await {
                let number = String::from_utf8(delivery.body).unwrap().parse().unwrap();
                seen.send_modify(|numbers| {
                    numbers.insert(number);
                });
                consumer.ack(&[delivery.tag]).await.unwrap();
            }
        });
        Self { broker, _secrets: secrets, confirmed, publishing, got, consuming, enough, refused }
    }

    /// Waits for so many more to come all the way.
    async fn flow(&mut self, more: usize) {
        let goal = self.got.borrow().len() + more;
        let refused = self.refused.clone();
        let came = tokio::time::timeout(DEADLINE, self.got.wait_for(|numbers| numbers.len() >= goal)).await;
        let confirmed = *self.confirmed.borrow();
        assert!(came.is_ok(), "no traffic; {confirmed} confirmed, of {goal} to come; publishing said last: {}", *refused.borrow());
    }

    /// Ends publishing; what was confirmed must all arrive.
    async fn end(mut self) -> u32 {
        self.enough.send_replace(true);
        within("publishing", self.publishing).await.unwrap();
        let confirmed = *self.confirmed.borrow();
        within("all that was confirmed", self.got.wait_for(|numbers| (0..confirmed).all(|number| numbers.contains(&number))))
            .await
            .unwrap();
        self.broker.close().await;
        within("consuming", self.consuming).await.unwrap();
        confirmed
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_is_killed_in_the_middle_loses_nothing() {
    if !available() {
        return;
    }
    let (_turn, nodes) = faulty().await;
    let mut traffic = Traffic::over(&[nodes.url("n")]).await;

    for _ in 0..2 {
        traffic.flow(200).await;
        spawn_blocking(|| nodes.kill("n")).await.unwrap();
        spawn_blocking(|| nodes.again("n")).await.unwrap();
    }
    traffic.flow(200).await;

    assert!(traffic.end().await >= 600);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cluster_of_three_goes_on_without_the_node_that_clients_were_on() {
    if !available() {
        return;
    }
    // While its nodes start, nothing else of this file has the processors.
    let (_turn, _) = faulty().await;
    let nodes = Arc::new(spawn_blocking(|| Nodes::start(&["a", "b", "c"])).await.unwrap());
    let mut traffic = Traffic::over(&["a", "b", "c"].map(|node| nodes.url(node))).await;
    traffic.flow(100).await;

    let killed = Arc::clone(&nodes);
    spawn_blocking(move || killed.kill("a")).await.unwrap();

    traffic.flow(200).await;
    traffic.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_network_that_is_cut_and_healed_loses_nothing() {
    if !available() {
        return;
    }
    let proxy = Proxy::to(shared().address("a")).await;
    let mut traffic = Traffic::over(&[proxy.url()]).await;

    for _ in 0..3 {
        traffic.flow(50).await;
        proxy.cut().await;
        let refused = within("a publish without a network", traffic.broker.publish(WORK.0, vec![b"0".to_vec()])).await;
        assert!(matches!(refused, Err(BrokerError::Unavailable(_))), "{refused:?}");
        proxy.heal();
    }
    traffic.flow(50).await;

    traffic.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_network_that_falls_silent_is_noticed_in_bounded_time() {
    if !available() {
        return;
    }
    let proxy = Proxy::to(shared().address("a")).await;
    let mut traffic = Traffic::over(&[proxy.url()]).await;
    traffic.flow(10).await;

    proxy.silence();
    let started = Instant::now();
    let refused = within("a publish into silence", traffic.broker.publish(WORK.0, vec![b"0".to_vec()])).await;
    let waited = started.elapsed();

    assert!(matches!(refused, Err(BrokerError::Unavailable(_))), "{refused:?}");
    assert!(waited < Duration::from_secs(30), "{waited:?}");
    proxy.heal();
    traffic.flow(50).await;
    traffic.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_short_of_memory_refuses_at_once_and_takes_messages_again_later() {
    if !available() {
        return;
    }
    let (_turn, nodes) = faulty().await;
    let secrets = secrets();
    let broker = RabbitMq::new(&spec(&[nodes.url("n")], &prefix()), BOUNDS, secrets.1.clone(), "test");
    broker.declare(WORK.0, WORK.1).await.unwrap();
    broker.publish(WORK.0, vec![b"before".to_vec()]).await.unwrap();

    spawn_blocking(|| nodes.ctl("n", &["set_vm_memory_high_watermark", "0.00001"])).await.unwrap();
    let refused = within("a refusal", async {
        loop {
            // The server notices within a few seconds; until then it takes messages.
            let started = Instant::now();
            if let Err(refused) = broker.publish(WORK.0, vec![b"during".to_vec()]).await {
                break (refused, started.elapsed());
            }
        }
    })
    .await;
    let started = Instant::now();
    let again = broker.publish(WORK.0, vec![b"during".to_vec()]).await;
    let depth = broker.depth(WORK.0, WORK.1).await;
    let answered = started.elapsed();
    spawn_blocking(|| nodes.ctl("n", &["set_vm_memory_high_watermark", "0.4"])).await.unwrap();

    assert!(matches!(&refused.0, BrokerError::Unavailable(reason) if reason.contains("memory")), "{refused:?}");
    assert!(refused.1 < Duration::from_secs(10), "{refused:?}");
    assert!(again.is_err() && answered < Duration::from_secs(2), "{again:?} {answered:?}");
    depth.expect("what does not publish is not held up");
    within("room again", async {
        while broker.publish(WORK.0, vec![b"after".to_vec()]).await.is_err() {
            tokio::task::yield_now().await;
        }
    })
    .await;
    broker.close().await;
}

/// The second consumer of an exclusive topic learns that others had the subscription.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hold_that_may_have_been_lost_is_told() {
    if !available() {
        return;
    }
    let proxy = Proxy::to(shared().address("a")).await;
    let secrets = secrets();
    let broker = RabbitMq::new(&spec(&[proxy.url()], &prefix()), BOUNDS, secrets.1.clone(), "test");
    broker.declare(Topic::Matches(0), "s").await.unwrap();
    broker.publish(Topic::Matches(0), vec![b"a".to_vec(), b"b".to_vec()]).await.unwrap();
    let mut consumer = broker.consume(Topic::Matches(0), "s", 8 << 20).await.unwrap();
    let first = within("a message", consumer.next()).await.unwrap().unwrap();
    let second = within("a message", consumer.next()).await.unwrap().unwrap();

    proxy.cut().await;
    proxy.heal();
    let again = within("a message", consumer.next()).await.unwrap().unwrap();
    consumer.ack(&[first.tag, second.tag]).await.unwrap();

    assert_eq!(first.hold, second.hold);
    assert!(again.hold > second.hold, "{again:?}");
    assert_eq!((again.body.as_slice(), again.redeliveries), (b"a".as_slice(), 1), "an old tag acknowledges nothing new");
    drop(consumer);
    let mut consumer = broker.consume(Topic::Matches(0), "s", 8 << 20).await.unwrap();
    assert_eq!(within("a message", consumer.next()).await.unwrap().unwrap().body, b"a");
}
