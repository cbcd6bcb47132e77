//! The queue between the roles: the first of the two seams.
//!
//! A [`Broker`] carries opaque messages (a message is a batch of events, matches or alerts; the roles encode them) and promises three
//! things: what `publish` confirmed survives a crash; what was handed out and not acknowledged is handed out again; and one consumer
//! at a time holds a subscription of an exclusive topic, in order of publication. It never promises exactly once: the roles make
//! repeats harmless.
//!
//! [`embedded`] keeps messages in one file, for one process. [`rabbitmq`] keeps them in a RabbitMQ, for many. Every implementation
//! passes the suite in `tests/conformance/broker`.

pub mod embedded;
pub mod rabbitmq;

use std::{fmt, str::FromStr, time::Duration};

use async_trait::async_trait;
use tokio_util::sync::CancellationToken;
use tracing::warn;

use crate::backoff::Backoff;

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

impl Topic {
    /// Whether one consumer at a time holds a subscription of this topic, in order: matches, whose reader keeps state in memory. The
    /// others are work that several processes may share, where the broker is one for several processes.
    #[must_use]
    pub const fn is_exclusive(self) -> bool {
        matches!(self, Self::Matches(_))
    }
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

/// A text that names no topic.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is no topic: expected `events`, `matches-PARTITION` or `alerts`")]
pub struct UnknownTopic(String);

impl FromStr for Topic {
    type Err = UnknownTopic;

    /// Reads what `Display` writes.
    fn from_str(text: &str) -> Result<Self, UnknownTopic> {
        let partition = text.strip_prefix("matches-").and_then(|partition| partition.parse().ok());
        match (text, partition) {
            ("events", _) => Ok(Self::Events),
            ("alerts", _) => Ok(Self::Alerts),
            (_, Some(partition)) => Ok(Self::Matches(partition)),
            _ => Err(UnknownTopic(text.to_owned())),
        }
    }
}

/// Why the broker did not take or give a message.
#[derive(Debug, thiserror::Error)]
pub enum BrokerError {
    /// A bound is reached. Come back after the given time, with all of it: where the broker cannot refuse several messages in one step,
    /// some of them may have been taken.
    #[error("the queue of {topic} is full: it holds {limit} bytes")]
    Full {
        /// Which queue.
        topic: Topic,
        /// The bound.
        limit: u64,
        /// When it is worth trying again.
        retry_after: Duration,
    },
    /// A message is larger than any queue takes; nothing was taken, and sending it again does not help.
    #[error("a message of {bytes} bytes is over the bound of {limit} bytes: split it")]
    TooLarge {
        /// Bytes of the message.
        bytes: u64,
        /// The bound.
        limit: u64,
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
    /// How often it was handed out before, at most: what a consumer that is gone may not have looked at counts too.
    pub redeliveries: u32,
    /// Rises when another may have held the subscription since the delivery before. What was kept in memory of an exclusive topic is
    /// then to be built again, before this delivery is worked on.
    pub hold: u64,
    /// The message.
    pub body: Vec<u8>,
}

/// A message that was handed out too often, or refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeadMessage {
    /// What to call it by; the same for as long as it is kept.
    pub id: String,
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
    /// Messages waiting, and those handed out where the broker counts them too.
    pub messages: u64,
    /// Bytes of them, where the broker tells.
    pub bytes: Option<u64>,
}

/// The queue between the roles.
#[async_trait]
pub trait Broker: Send + Sync + 'static {
    /// Makes sure that a subscription exists: from now on it gets every message of the topic, consumer or not.
    async fn declare(&self, topic: Topic, subscription: &str) -> Result<(), BrokerError>;

    /// Publishes messages and returns when all of them are durable, in order. After an error, publish all of them again. A topic that no
    /// subscription was ever declared on takes nothing ([`BrokerError::Unavailable`]): a confirmed message that nobody keeps would be a
    /// lost one. Answers within half a minute, whatever the broker does.
    async fn publish(&self, topic: Topic, bodies: Vec<Vec<u8>>) -> Result<(), BrokerError>;

    /// Takes hold of a declared subscription. A second consumer of an exclusive topic waits, here or for its first message, until the
    /// first is dropped, and then gets again what the first had not acknowledged; consumers of other topics may share the messages. At
    /// most `prefetch_bytes` (but at least one message) are handed out without acknowledgement; a message that came back several times
    /// may be handed out alone. So acknowledge what you have rather than wait for more.
    ///
    /// A broker that went away and came back is hidden: the consumer goes on, and what was handed out before comes again.
    async fn consume(&self, topic: Topic, subscription: &str, prefetch_bytes: usize) -> Result<Box<dyn Consumer>, BrokerError>;

    /// How full a subscription is.
    async fn depth(&self, topic: Topic, subscription: &str) -> Result<Depth, BrokerError>;

    /// The messages set aside, oldest first, at most `limit`. They stay.
    async fn dead_messages(&self, limit: usize) -> Result<Vec<DeadMessage>, BrokerError>;

    /// How many messages are set aside.
    async fn dead_depth(&self) -> Result<Depth, BrokerError>;

    /// Puts a dead message at the end of the queue that it came from, with a clean slate, and takes it out of the dead ones when that is
    /// durable. Whether there was one of this id.
    async fn replay_dead(&self, id: &str) -> Result<bool, BrokerError>;

    /// Deletes a dead message. Whether there was one of this id.
    async fn drop_dead(&self, id: &str) -> Result<bool, BrokerError>;

    /// Refuses new messages, lets running calls end, and flushes. Consumers get `None`.
    async fn close(&self);
}

/// One hold on a subscription. Dropping it gives back what was not acknowledged.
#[async_trait]
pub trait Consumer: Send {
    /// The next message; waits for one, and for room in the prefetch. `None` when the broker closes. A call that is given up loses nothing.
    async fn next(&mut self) -> Result<Option<Delivery>, BrokerError>;

    /// Acknowledges messages: they are not handed out again, unless the way to the broker breaks at this very moment. Tags that this
    /// consumer does not hold are passed over, and so are those from before a broker went away. After an error, or when the call was given
    /// up, acknowledge again.
    async fn ack(&mut self, tags: &[u64]) -> Result<(), BrokerError>;

    /// Gives a message back: it is handed out again, until the delivery limit sets it aside with this reason.
    async fn reject(&mut self, tag: u64, reason: &str) -> Result<(), BrokerError>;
}

/// Declares a subscription, however long the broker takes to answer.
///
/// # Errors
/// A shutdown began, or the broker is closed.
pub async fn declare_until_done(
    broker: &dyn Broker,
    topic: Topic,
    subscription: &str,
    shutdown: &CancellationToken,
) -> Result<(), BrokerError> {
    let mut backoff = Backoff::default();
    loop {
        match broker.declare(topic, subscription).await {
            Err(error @ (BrokerError::Unavailable(_) | BrokerError::Full { .. })) => {
                warn!(%error, %topic, subscription, "the queue is not there yet; trying again");
                if backoff.pause(shutdown).await.is_err() {
                    return Err(error);
                }
            }
            done => return done,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_topic_is_read_as_it_is_written() {
        for topic in [Topic::Events, Topic::Matches(0), Topic::Matches(u16::MAX), Topic::Alerts] {
            assert_eq!(topic.to_string().parse(), Ok(topic));
        }
        for text in ["", "matches", "matches-", "matches-65536", "matches--1", "Events"] {
            assert!(text.parse::<Topic>().is_err(), "{text}");
        }
    }
}
