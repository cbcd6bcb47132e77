//! The queue in a RabbitMQ, for roles that run in processes of their own. From version 3.10 on; see `docs/rabbitmq.md`.
//!
//! ```text
//! publish --> exchange PREFIX --topic--> quorum queue PREFIX.TOPIC.SUBSCRIPTION --> consumer
//!                                            |  came back too often
//!                                            v
//!                                        exchange PREFIX.dead --> quorum queue PREFIX.dead
//! ```
//!
//! **Durable.** Quorum queues keep a message on a majority of their nodes' disks before they confirm it, and `publish` returns after
//! the confirms ([`publisher`]). What the server cannot route it sends back, and that is an error.
//!
//! **Bounds.** A queue over its bytes refuses, which is [`BrokerError::Full`]; the server measures now and then, so a queue may get
//! somewhat larger, takes messages again when it is down to four fifths, and of several messages in one call some may be taken.
//!
//! **Away.** A server that restarts, a node that is lost, a network that is cut: consumers subscribe again by themselves and publishers
//! get [`BrokerError::Unavailable`] until there is a connection, each within a bounded time. A server that is short of memory or disk
//! says so, and then publishes fail at once.
//!
//! **Counts** of deliveries come from the server (`x-delivery-count`), which counts what it sent ahead as handed out when its consumer
//! goes, and forgets what a consumer refused when the order had to be kept ([`consumer`]).

mod consumer;
mod dead;
pub(crate) mod publisher;
mod topology;

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use lapin::{Channel, options::QueueDeclareOptions, types::FieldTable};
use redoubt_crds::ExternalBroker;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use self::{
    consumer::RabbitMqConsumer,
    publisher::{Outgoing, Publisher, Refusal},
    topology::Topology,
};
use super::{Broker, BrokerError, Consumer, DeadMessage, Depth, Topic};
use crate::{
    amqp::{ANSWER, Link, Server},
    secrets::Secrets,
};

/// A larger message is refused. The server has a bound of its own, by default 128 MiB before version 4.0 and 16 MiB since.
const MAX_MESSAGE_BYTES: u64 = 64 << 20;
/// How long a publisher should wait when a queue is full.
const FULL: Duration = Duration::from_secs(2);

/// Bounds of a [`RabbitMq`], set when a queue is first declared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bounds {
    /// Bytes that each queue may hold, bodies without their overhead.
    pub max_bytes: u64,
    /// How often a message is handed out before it is set aside. 0 is taken as 1.
    pub delivery_limit: u32,
}

/// What the broker and its consumers share.
struct Shared {
    topology: Topology,
    publisher: Publisher,
    /// For all but publishing.
    consuming: Link,
    closed: CancellationToken,
}

/// A [`Broker`] in a RabbitMQ.
pub struct RabbitMq {
    shared: Arc<Shared>,
}

impl RabbitMq {
    /// The broker that a Siem declares. `name` is what RabbitMQ's own tools show the connections as. Connects when it is first needed.
    #[must_use]
    pub fn new(spec: &ExternalBroker, bounds: Bounds, secrets: Secrets, name: &str) -> Self {
        let server = Server {
            urls: spec.urls.clone(),
            vhost: spec.vhost.clone(),
            credentials: spec.credentials_secret_ref.clone(),
            tls: spec.tls.clone(),
            secrets,
        };
        let bounds = Bounds { delivery_limit: bounds.delivery_limit.max(1), ..bounds };
        let shared = Shared {
            topology: Topology { prefix: spec.prefix.clone(), replicas: spec.queue_replicas, bounds },
            publisher: Publisher::new(Link::new(server.clone(), format!("{name}, publishing"))),
            consuming: Link::new(server, format!("{name}, consuming")),
            closed: CancellationToken::new(),
        };
        Self { shared: Arc::new(shared) }
    }

    fn open(&self) -> Result<&Arc<Shared>, BrokerError> {
        if self.shared.closed.is_cancelled() { Err(BrokerError::Closed) } else { Ok(&self.shared) }
    }
}

impl Shared {
    /// A channel for questions; the server closes it when it refuses one.
    async fn channel(&self) -> Result<Channel, BrokerError> {
        let live = self.consuming.get().await.map_err(BrokerError::Unavailable)?;
        live.channel().await.map_err(BrokerError::Unavailable)
    }

    /// Closes a channel and waits until the server has done so.
    async fn leave(&self, channel: Channel) {
        // One that is gone already is closed as well.
        let _ = timeout(ANSWER, channel.close(200, "OK".into())).await;
    }

    async fn asked<T>(&self, question: impl Future<Output = lapin::Result<T>>) -> Result<T, BrokerError> {
        self.asked_raw(question).await?.map_err(|error| BrokerError::Unavailable(error.to_string()))
    }

    /// The server's answer, within a bounded time.
    async fn asked_raw<T>(&self, question: impl Future<Output = lapin::Result<T>>) -> Result<lapin::Result<T>, BrokerError> {
        match timeout(ANSWER, question).await {
            Ok(answer) => Ok(answer),
            Err(_) => {
                if let Ok(live) = self.consuming.get().await {
                    live.give_up();
                }
                Err(BrokerError::Unavailable(format!("no answer within {ANSWER:?}")))
            }
        }
    }

    fn error(&self, topic: Topic, refusal: Refusal, no_queue: &str) -> BrokerError {
        match refusal {
            Refusal::Full => BrokerError::Full { topic, limit: self.topology.bounds.max_bytes, retry_after: FULL },
            Refusal::NoQueue => BrokerError::Unavailable(no_queue.to_owned()),
            Refusal::TooLarge { bytes, limit } => BrokerError::TooLarge { bytes, limit },
            Refusal::Unavailable(reason) => BrokerError::Unavailable(reason),
        }
    }
}

#[async_trait]
impl Broker for RabbitMq {
    async fn declare(&self, topic: Topic, subscription: &str) -> Result<(), BrokerError> {
        let shared = self.open()?;
        let live = shared.consuming.get().await.map_err(BrokerError::Unavailable)?;
        match timeout(ANSWER, shared.topology.declare(&live, topic, subscription)).await {
            Ok(declared) => declared.map_err(BrokerError::Unavailable),
            Err(_) => Err(BrokerError::Unavailable(format!("no answer within {ANSWER:?}"))),
        }
    }

    async fn publish(&self, topic: Topic, bodies: Vec<Vec<u8>>) -> Result<(), BrokerError> {
        let shared = self.open()?;
        let largest = bodies.iter().map(|body| body.len() as u64).max().unwrap_or(0);
        if largest > MAX_MESSAGE_BYTES {
            return Err(BrokerError::TooLarge { bytes: largest, limit: MAX_MESSAGE_BYTES });
        }
        if bodies.is_empty() {
            return Ok(());
        }
        let messages = bodies.into_iter().map(Outgoing::from).collect();
        let sent = shared.publisher.send(shared.topology.exchange(), &topic.to_string(), messages).await;
        sent.map_err(|refusal| {
            let no_queue = format!("no subscription of {topic} is declared, so nobody would keep the messages: declare one first");
            shared.error(topic, refusal, &no_queue)
        })
    }

    async fn consume(&self, topic: Topic, subscription: &str, prefetch_bytes: usize) -> Result<Box<dyn Consumer>, BrokerError> {
        let shared = Arc::clone(self.open()?);
        Ok(Box::new(RabbitMqConsumer::take(shared, topic, subscription, prefetch_bytes).await?))
    }

    async fn depth(&self, topic: Topic, subscription: &str) -> Result<Depth, BrokerError> {
        let shared = self.open()?;
        let channel = shared.channel().await?;
        let passive = QueueDeclareOptions { passive: true, ..Default::default() };
        let queue = shared.topology.queue(topic, subscription);
        let declared = shared.asked(channel.queue_declare(queue.into(), passive, FieldTable::default())).await?;
        Ok(Depth { messages: u64::from(declared.message_count()), bytes: None })
    }

    async fn dead_messages(&self, limit: usize) -> Result<Vec<DeadMessage>, BrokerError> {
        dead::list(self.open()?, limit).await
    }

    async fn dead_depth(&self) -> Result<Depth, BrokerError> {
        dead::depth(self.open()?).await
    }

    async fn replay_dead(&self, id: &str) -> Result<bool, BrokerError> {
        dead::take_out(self.open()?, id, true).await
    }

    async fn drop_dead(&self, id: &str) -> Result<bool, BrokerError> {
        dead::take_out(self.open()?, id, false).await
    }

    async fn close(&self) {
        self.shared.closed.cancel();
        tokio::join!(self.shared.publisher.close(), self.shared.consuming.close());
    }
}
