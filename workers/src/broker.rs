//! The queue between the roles: the first of the two seams.
//!
//! A [`Broker`] carries opaque messages (a message is a batch of events, matches or alerts; the roles encode them) and promises three
//! things: what `publish` confirmed survives a crash; what was handed out and not acknowledged is handed out again; and one consumer
//! at a time holds a subscription, in order of publication. It never promises exactly once: the roles make repeats harmless.
//!
//! [`embedded`] keeps messages in one file. Every implementation passes the suite in `tests/broker_conformance`.

pub mod embedded;

use std::{fmt, time::Duration};

use async_trait::async_trait;

/// What messages are about. Each subscription of a topic gets every message of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Topic {
    /// Accepted events, in batches.
    Events,
    /// Matches of one partition.
    Matches(u16),
    /// Alerts that are new or have grown.
    Alerts,
}

impl fmt::Display for Topic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Events => f.write_str("events"),
            Self::Matches(partition) => write!(f, "matches-{partition}"),
            Self::Alerts => f.write_str("alerts"),
        }
    }
}

/// Why the broker did not take or give a message.
#[derive(Debug, thiserror::Error)]
pub enum BrokerError {
    /// A bound is reached; nothing was taken. Come back after the given time.
    #[error("the queue of {topic} is full ({bytes} of {limit} bytes)")]
    Full {
        /// Which queue.
        topic: Topic,
        /// Bytes queued.
        bytes: u64,
        /// The bound.
        limit: u64,
        /// When it is worth trying again.
        retry_after: Duration,
    },
    /// The broker cannot be reached or its disk failed; whether the message was taken is not known, so publish it again.
    #[error("the broker does not answer: {0}")]
    Unavailable(String),
    /// The broker is shutting down.
    #[error("the broker is closed")]
    Closed,
}

/// A message as it was handed out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Delivery {
    /// What to acknowledge it by; valid for the consumer that got it.
    pub tag: u64,
    /// How often it was handed out before.
    pub redeliveries: u32,
    /// The message.
    pub body: Vec<u8>,
}

/// A message that was handed out too often, or refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeadMessage {
    /// Which topic it was on.
    pub topic: String,
    /// Which subscription could not take it.
    pub subscription: String,
    /// Why.
    pub reason: String,
    /// The message.
    pub body: Vec<u8>,
}

/// How full a subscription is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Depth {
    /// Messages waiting or handed out.
    pub messages: u64,
    /// Bytes of them.
    pub bytes: u64,
}

/// The queue between the roles.
#[async_trait]
pub trait Broker: Send + Sync + 'static {
    /// Makes sure that a subscription exists: from now on it gets every message of the topic, consumer or not.
    async fn declare(&self, topic: Topic, subscription: &str) -> Result<(), BrokerError>;

    /// Publishes messages and returns when all of them are durable, in order. All or nothing.
    async fn publish(&self, topic: Topic, bodies: Vec<Vec<u8>>) -> Result<(), BrokerError>;

    /// Takes hold of a declared subscription. A second consumer waits until the first is dropped, and then gets again what the first
    /// had not acknowledged. At most `prefetch_bytes` (but at least one message) are handed out without acknowledgement.
    async fn consume(&self, topic: Topic, subscription: &str, prefetch_bytes: usize) -> Result<Box<dyn Consumer>, BrokerError>;

    /// How full a subscription is.
    async fn depth(&self, topic: Topic, subscription: &str) -> Result<Depth, BrokerError>;

    /// The messages set aside, oldest first, at most `limit`.
    async fn dead_messages(&self, limit: usize) -> Result<Vec<DeadMessage>, BrokerError>;

    /// Refuses new messages, lets running calls end, and flushes. Consumers get `None`.
    async fn close(&self);
}

/// One hold on a subscription. Dropping it gives back what was not acknowledged.
#[async_trait]
pub trait Consumer: Send {
    /// The next message; waits for one. `None` when the broker closes.
    async fn next(&mut self) -> Result<Option<Delivery>, BrokerError>;

    /// Acknowledges messages: they are never handed out again.
    async fn ack(&mut self, tags: &[u64]) -> Result<(), BrokerError>;

    /// Gives a message back: it is handed out again, until the delivery limit sets it aside with this reason.
    async fn reject(&mut self, tag: u64, reason: &str) -> Result<(), BrokerError>;
}
