//! The broker in a RabbitMQ: the suite, and what is its own. All cases share one node, each under a prefix of its own.

use std::sync::{
    Arc,
    atomic::{AtomicU32, Ordering},
};

use async_trait::async_trait;
use redoubt::{
    broker::{
        Broker, BrokerError, Topic,
        rabbitmq::{self, RabbitMq},
    },
    secrets::Secrets,
};
use redoubt_crds::ExternalBroker;
use tempfile::TempDir;

use super::suite::{Bounds, Harness};
use crate::servers::{
    proxy::Proxy,
    rabbitmq::{available, shared},
};

/// Credentials that every node knows, as a Secret named `rabbit`.
pub(super) fn secrets() -> (TempDir, Secrets) {
    let folder = tempfile::tempdir().unwrap();
    std::fs::create_dir(folder.path().join("rabbit")).unwrap();
    for key in ["username", "password"] {
        std::fs::write(folder.path().join("rabbit").join(key), "guest\n").unwrap();
    }
    let secrets = Secrets::new(folder.path());
    (folder, secrets)
}

/// What a Siem would say of a server.
pub(super) fn spec(urls: &[String], prefix: &str) -> ExternalBroker {
    serde_json::from_value(serde_json::json!({
        "urls": urls,
        "credentialsSecretRef": { "name": "rabbit" },
        "prefix": prefix,
    }))
    .unwrap()
}

/// A prefix that no other case uses.
pub(super) fn prefix() -> String {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    format!("case-{}", COUNT.fetch_add(1, Ordering::Relaxed))
}

struct Site {
    prefix: String,
    bounds: rabbitmq::Bounds,
    proxy: Proxy,
    broker: Arc<RabbitMq>,
    secrets: (TempDir, Secrets),
    /// Brokers that "crashed": alive, so that nothing they do in dropping can help, and cut off.
    crashed: Vec<(Proxy, Arc<RabbitMq>)>,
}

impl Site {
    async fn open(bounds: rabbitmq::Bounds) -> Self {
        let (proxy, prefix, secrets) = (Proxy::to(shared().address("a")).await, prefix(), secrets());
        let broker = connect(&proxy, &prefix, bounds, &secrets.1);
        Self { prefix, bounds, proxy, broker, secrets, crashed: Vec::new() }
    }
}

fn connect(proxy: &Proxy, prefix: &str, bounds: rabbitmq::Bounds, secrets: &Secrets) -> Arc<RabbitMq> {
    Arc::new(RabbitMq::new(&spec(&[proxy.url()], prefix), bounds, secrets.clone(), "test"))
}

#[async_trait]
impl Harness for Site {
    fn available() -> bool {
        available()
    }

    async fn fresh(bounds: Bounds) -> Self {
        Self::open(rabbitmq::Bounds { max_bytes: bounds.max_bytes, delivery_limit: bounds.delivery_limit }).await
    }

    fn broker(&self) -> Arc<dyn Broker> {
        Arc::clone(&self.broker) as Arc<dyn Broker>
    }

    async fn crash_and_reopen(&mut self) {
        // An acknowledgement that is still on its way at a crash may be lost with it, which the contract allows and the suite cannot
        // know. An answer over the same connection shows that what was sent before has arrived.
        self.broker.dead_depth().await.unwrap();
        self.proxy.cut().await;
        let proxy = Proxy::to(shared().address("a")).await;
        let broker = connect(&proxy, &self.prefix, self.bounds, &self.secrets.1);
        self.crashed.push((std::mem::replace(&mut self.proxy, proxy), std::mem::replace(&mut self.broker, broker)));
    }
}

broker_conformance!(Site);

const ROOMY: rabbitmq::Bounds = rabbitmq::Bounds { max_bytes: 1 << 30, delivery_limit: 5 };

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wrong_password_is_told() {
    if !available() {
        return;
    }
    let site = Site::open(ROOMY).await;
    std::fs::write(site.secrets.0.path().join("rabbit/password"), "wrong").unwrap();

    let error = site.broker.declare(Topic::Events, "s").await.unwrap_err().to_string();

    assert!(error.contains("ACCESS_REFUSED"), "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bounds_that_changed_leave_the_queue_in_use() {
    if !available() {
        return;
    }
    let site = Site::open(ROOMY).await;
    site.broker.declare(Topic::Events, "s").await.unwrap();
    site.broker.publish(Topic::Events, vec![b"kept".to_vec()]).await.unwrap();

    let other = connect(&site.proxy, &site.prefix, rabbitmq::Bounds { max_bytes: 2 << 30, delivery_limit: 9 }, &site.secrets.1);
    other.declare(Topic::Events, "s").await.unwrap();

    let mut consumer = other.consume(Topic::Events, "s", 1 << 20).await.unwrap();
    assert_eq!(consumer.next().await.unwrap().unwrap().body, b"kept");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_message_over_64_mib_is_refused() {
    if !available() {
        return;
    }
    let site = Site::open(ROOMY).await;

    let outcome = site.broker.publish(Topic::Events, vec![vec![0; (64 << 20) + 1]]).await;

    assert!(matches!(outcome, Err(BrokerError::TooLarge { .. })), "{outcome:?}");
}
