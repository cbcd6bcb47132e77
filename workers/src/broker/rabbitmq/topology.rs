//! What there is on the server, by name, and how it is made.
//!
//! | what | name | made as |
//! |---|---|---|
//! | exchange | `PREFIX` | direct, durable; routing keys are the names of topics |
//! | queue | `PREFIX.TOPIC.SUBSCRIPTION` | quorum queue bound to it by the topic's name |
//! | exchange | `PREFIX.dead` | fanout, durable |
//! | queue | `PREFIX.dead` | quorum queue bound to it |

use std::time::Duration;

use lapin::{
    ExchangeKind,
    options::{ExchangeDeclareOptions, QueueBindOptions, QueueDeclareOptions},
    types::{AMQPValue, FieldTable},
};
use tracing::warn;

use super::Bounds;
use crate::{
    amqp::{Live, code},
    broker::Topic,
};

/// Dead messages that are kept.
const MAX_DEAD_MESSAGES: i64 = 10_000;
/// Bytes of dead messages that are kept.
const MAX_DEAD_BYTES: i64 = 1 << 30;
/// The delivery limit is kept by consumers, which know the reason, see [`super::consumer`]. The server's own would drop a message, from
/// version 4.0 on after 20 times unless told otherwise ("never" has no word that 3.x knows too); and its dead lettering that drops nothing
/// (`at-least-once`) may leave a queue without a leader after a crash (rabbitmq-server#16652).
const NEVER: i64 = i32::MAX as i64;

/// A new quorum queue is used only after this time. Its node writes which log belongs to it within half a second, unasked; one that is
/// killed before starts the queue again empty, and what was confirmed is gone (seen with 3.10.8; rabbitmq-server#15725).
const REGISTERED: Duration = Duration::from_secs(1);

/// AMQP's code for a queue or exchange that is there with other settings.
const PRECONDITION_FAILED: u16 = 406;
/// ... and for one that is not there.
const NOT_FOUND: u16 = 404;

/// The names and settings of one SIEM on a server.
#[derive(Debug, Clone)]
pub(super) struct Topology {
    pub(super) prefix: String,
    pub(super) replicas: u8,
    pub(super) bounds: Bounds,
}

impl Topology {
    pub(super) fn exchange(&self) -> &str {
        &self.prefix
    }

    pub(super) fn queue(&self, topic: Topic, subscription: &str) -> String {
        format!("{}.{topic}.{subscription}", self.prefix)
    }

    /// The exchange and the queue of what was set aside.
    pub(super) fn dead(&self) -> String {
        format!("{}.dead", self.prefix)
    }

    /// Makes sure that a subscription is there, and all that it needs. The server closes a channel on which something was refused, so
    /// what may be refused gets its own.
    pub(super) async fn declare(&self, live: &Live, topic: Topic, subscription: &str) -> Result<(), String> {
        let channel = live.channel().await?;
        let durable = ExchangeDeclareOptions { durable: true, ..Default::default() };
        let dead = self.dead();
        let said = |error: lapin::Error| error.to_string();
        for (name, kind) in [(self.exchange(), ExchangeKind::Direct), (dead.as_str(), ExchangeKind::Fanout)] {
            channel.exchange_declare(name.into(), kind, durable, FieldTable::default()).await.map_err(said)?;
        }
        let new_dead = declare_queue(live, &dead, self.dead_arguments()).await?;
        channel.queue_bind(dead.as_str().into(), dead.as_str().into(), "".into(), bind(), FieldTable::default()).await.map_err(said)?;
        let queue = self.queue(topic, subscription);
        let new = declare_queue(live, &queue, self.arguments(topic)).await?;
        let key = topic.to_string();
        channel.queue_bind(queue.into(), self.exchange().into(), key.into(), bind(), FieldTable::default()).await.map_err(said)?;
        if new || new_dead {
            tokio::time::sleep(REGISTERED).await;
        }
        Ok(())
    }

    fn arguments(&self, topic: Topic) -> FieldTable {
        let mut arguments = self.quorum(i64::try_from(self.bounds.max_bytes).unwrap_or(i64::MAX));
        if topic.is_exclusive() {
            arguments.insert("x-single-active-consumer".into(), AMQPValue::Boolean(true));
        }
        arguments
    }

    fn dead_arguments(&self) -> FieldTable {
        let mut arguments = self.quorum(MAX_DEAD_BYTES);
        arguments.insert("x-max-length".into(), AMQPValue::LongLongInt(MAX_DEAD_MESSAGES));
        arguments
    }

    fn quorum(&self, max_bytes: i64) -> FieldTable {
        let mut arguments = FieldTable::default();
        arguments.insert("x-queue-type".into(), AMQPValue::LongString("quorum".into()));
        arguments.insert("x-quorum-initial-group-size".into(), AMQPValue::LongLongInt(i64::from(self.replicas)));
        arguments.insert("x-max-length-bytes".into(), AMQPValue::LongLongInt(max_bytes));
        arguments.insert("x-overflow".into(), AMQPValue::LongString("reject-publish".into()));
        arguments.insert("x-delivery-limit".into(), AMQPValue::LongLongInt(NEVER));
        arguments
    }
}

/// Declares a queue; whether it is new. One that is there with other bounds (the declaration has changed since) is used as it is: what it holds is worth
/// more than its settings. One of another type, or without a reader at a time where the topic needs one, is refused.
async fn declare_queue(live: &Live, name: &str, arguments: FieldTable) -> Result<bool, String> {
    let durable = QueueDeclareOptions { durable: true, ..Default::default() };
    let passive = QueueDeclareOptions { passive: true, ..durable };
    let found = live.channel().await?.queue_declare(name.into(), passive, FieldTable::default()).await;
    let new = found.is_err_and(|error| is_missing(&error));
    let Err(error) = live.channel().await?.queue_declare(name.into(), durable, arguments).await else { return Ok(new) };
    let text = error.to_string();
    let essential = ["x-queue-type", "x-single-active-consumer", "'durable'", "'exclusive'"];
    if code(&error) != Some(PRECONDITION_FAILED) || essential.iter().any(|argument| text.contains(argument)) {
        return Err(format!("the queue {name} cannot be used: {text}"));
    }
    warn!(
        queue = name,
        reason = text,
        "the queue is there with other bounds, which stay in force; set a policy on the server, or delete the queue when it is empty"
    );
    let found = live.channel().await?.queue_declare(name.into(), passive, FieldTable::default()).await;
    found.map(|_| false).map_err(|error| format!("the queue {name} cannot be used: {error}"))
}

fn bind() -> QueueBindOptions {
    QueueBindOptions::default()
}

/// Whether the server said that there is no such queue.
pub(super) fn is_missing(error: &lapin::Error) -> bool {
    code(error) == Some(NOT_FOUND)
}
