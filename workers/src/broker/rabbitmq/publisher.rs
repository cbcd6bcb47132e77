//! The way in: one channel with publisher confirms, which all callers share.
//!
//! A publish writes all of its messages and then waits for all confirms together. It ends in a bounded time: with the server's word,
//! with its refusal, at once when the server says that it takes no messages for now, or after [`CONFIRM`] with the connection given
//! up, since one that is silent for so long is better replaced. What is on its way to the server is bounded in bytes.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use futures::future::join_all;
use lapin::{
    BasicProperties, Channel, Confirmation,
    options::{BasicPublishOptions, ConfirmSelectOptions},
    types::FieldTable,
};
use tokio::{
    sync::{Mutex, Semaphore},
    time::{Instant, timeout},
};
use uuid::Uuid;

use crate::amqp::{ANSWER, Link, Live};

/// How long the server may take to confirm. A quorum queue that lost its leader has another one within a few seconds.
const CONFIRM: Duration = Duration::from_secs(10);
/// At most so many bytes of bodies are on their way to the server, in KiB. One publish that is larger waits until it is alone.
const ON_THE_WAY_KIB: usize = 128 << 10;
/// How long a publish waits for others to make room.
const ROOM: Duration = Duration::from_secs(5);
/// A channel on which the queue was full is replaced when it is older than this.
const RENEW: Duration = Duration::from_secs(1);
/// `delivery_mode` of a message that survives a restart.
const PERSISTENT: u8 = 2;

/// Why messages were not taken.
#[derive(Debug)]
pub(crate) enum Refusal {
    /// The queue is full.
    Full,
    /// No queue is bound for them.
    NoQueue,
    /// A message is over the server's own bound.
    TooLarge { bytes: u64, limit: u64 },
    /// Anything else: whether they were taken is not known.
    Unavailable(String),
}

/// A message and where it goes.
#[derive(Debug)]
pub(crate) struct Outgoing {
    pub(crate) body: Vec<u8>,
    pub(crate) headers: FieldTable,
    /// The message's own id; a new one where there is none yet.
    pub(crate) id: Option<String>,
}

impl From<Vec<u8>> for Outgoing {
    fn from(body: Vec<u8>) -> Self {
        Self { body, headers: FieldTable::default(), id: None }
    }
}

#[derive(Debug)]
pub(crate) struct Publisher {
    link: Link,
    open: Mutex<Option<Open>>,
    room: Arc<Semaphore>,
    /// The largest message that the server takes, as far as it said.
    largest: Arc<AtomicU64>,
}

#[derive(Debug, Clone)]
struct Open {
    live: Arc<Live>,
    channel: Channel,
    since: Instant,
}

impl Publisher {
    pub(crate) fn new(link: Link) -> Self {
        Self { link, open: Mutex::default(), room: Arc::new(Semaphore::new(ON_THE_WAY_KIB)), largest: Arc::new(AtomicU64::new(u64::MAX)) }
    }

    /// Publishes messages, in order, and returns when the server has confirmed all of them.
    pub(crate) async fn send(&self, exchange: &str, key: &str, messages: Vec<Outgoing>) -> Result<(), Refusal> {
        let limit = self.largest.load(Ordering::Relaxed);
        let largest = messages.iter().map(|message| message.body.len() as u64).max().unwrap_or(0);
        if largest > limit {
            return Err(Refusal::TooLarge { bytes: largest, limit });
        }
        let open = self.open().await.map_err(Refusal::Unavailable)?;
        let mut blocked = open.live.blocked();
        if let Some(reason) = &*blocked.borrow_and_update() {
            return Err(stopped(reason));
        }
        let kib = messages.iter().map(|message| message.body.len() / 1024 + 1).sum::<usize>().min(ON_THE_WAY_KIB);
        let room = Arc::clone(&self.room).acquire_many_owned(u32::try_from(kib).unwrap_or(u32::MAX));
        // The semaphore is never closed, so the only failure is the time.
        let Ok(Ok(room)) = timeout(ROOM, room).await else {
            return Err(Refusal::Unavailable(format!("RabbitMQ confirms too slowly: no room within {ROOM:?}")));
        };
        // In a task of its own: confirms must be awaited even if the caller goes, or they would gather in the channel.
        let (exchange, key) = (exchange.to_owned(), key.to_owned());
        let (channel, said) = (open.channel.clone(), Arc::clone(&self.largest));
        let mut publishing = tokio::spawn(async move {
            let outcome = publish(&channel, &exchange, &key, messages, &said).await;
            drop(room);
            outcome
        });
        let refused = async {
            // Ends with an error when the connection breaks; then the publish ends by itself.
            match blocked.wait_for(Option::is_some).await.map(|reason| reason.clone().unwrap_or_default()) {
                Ok(reason) => reason,
                Err(_) => std::future::pending().await,
            }
        };
        let outcome = tokio::select! {
            biased;
            outcome = timeout(CONFIRM, &mut publishing) => outcome,
            reason = refused => return Err(stopped(&reason)),
        };
        match outcome {
            Ok(Ok(Err(refusal @ (Refusal::Unavailable(_) | Refusal::TooLarge { .. })))) => {
                self.forget(&open).await;
                Err(refusal)
            }
            Ok(Ok(Err(Refusal::Full))) => {
                // Up to 3.10 at least, a channel that was opened before a lost leader was replaced takes the queue for full for ever.
                if open.since.elapsed() > RENEW {
                    self.forget(&open).await;
                }
                Err(Refusal::Full)
            }
            Ok(Ok(outcome)) => outcome,
            Ok(Err(panicked)) => Err(Refusal::Unavailable(panicked.to_string())),
            Err(_) => {
                open.live.give_up();
                self.forget(&open).await;
                Err(Refusal::Unavailable(format!("RabbitMQ did not confirm within {CONFIRM:?}")))
            }
        }
    }

    async fn open(&self) -> Result<Open, String> {
        let mut open = self.open.lock().await;
        let live = self.link.get().await?;
        if let Some(known) = open.as_ref().filter(|known| Arc::ptr_eq(&known.live, &live) && known.channel.status().connected()) {
            return Ok(known.clone());
        }
        let channel = live.channel().await?;
        match timeout(ANSWER, channel.confirm_select(ConfirmSelectOptions::default())).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => return Err(error.to_string()),
            Err(_) => {
                live.give_up();
                return Err(format!("no answer within {ANSWER:?}"));
            }
        }
        let opened = Open { live, channel, since: Instant::now() };
        *open = Some(opened.clone());
        Ok(opened)
    }

    /// The next publish opens another channel.
    async fn forget(&self, broken: &Open) {
        let mut open = self.open.lock().await;
        if open.as_ref().is_some_and(|known| Arc::ptr_eq(&known.live, &broken.live) && known.channel.id() == broken.channel.id()) {
            *open = None;
        }
    }

    pub(crate) async fn close(&self) {
        // What is on its way has all of the room, so with all of it in hand nothing is.
        let all = u32::try_from(ON_THE_WAY_KIB).unwrap_or(u32::MAX);
        let _ = timeout(ANSWER, self.room.acquire_many(all)).await;
        self.link.close().await;
    }
}

fn stopped(reason: &str) -> Refusal {
    Refusal::Unavailable(format!("RabbitMQ takes no messages for now: {reason}"))
}

async fn publish(channel: &Channel, exchange: &str, key: &str, messages: Vec<Outgoing>, largest: &AtomicU64) -> Result<(), Refusal> {
    let options = BasicPublishOptions { mandatory: true, ..Default::default() };
    let bytes = messages.iter().map(|message| message.body.len() as u64).max().unwrap_or(0);
    // Polled in order, and each puts its message in line at its first poll.
    let written = join_all(messages.into_iter().map(|Outgoing { body, headers, id }| async move {
        let id = id.unwrap_or_else(|| Uuid::now_v7().to_string());
        let properties = BasicProperties::default().with_delivery_mode(PERSISTENT).with_message_id(id.into()).with_headers(headers);
        channel.basic_publish(exchange.into(), key.into(), options, &body, properties).await
    }));
    let refused = |error: &lapin::Error| match limit_in(&error.to_string()) {
        Some(limit) => {
            largest.fetch_min(limit, Ordering::Relaxed);
            if bytes > limit { Refusal::TooLarge { bytes, limit } } else { Refusal::Unavailable(error.to_string()) }
        }
        None => Refusal::Unavailable(error.to_string()),
    };
    let mut confirms = Vec::new();
    let mut outcome = Ok(());
    for written in written.await {
        match written {
            Ok(confirm) => confirms.push(confirm),
            Err(error) => outcome = Err(refused(&error)),
        }
    }
    for confirmation in join_all(confirms).await {
        let one = match confirmation {
            Ok(Confirmation::Ack(None)) => Ok(()),
            Ok(Confirmation::Ack(Some(_))) => Err(Refusal::NoQueue),
            Ok(Confirmation::Nack(_)) => Err(Refusal::Full),
            Ok(Confirmation::NotRequested) => Err(Refusal::Unavailable("the channel confirms nothing".to_owned())),
            Err(error) => Err(refused(&error)),
        };
        outcome = outcome.and(one);
    }
    outcome
}

/// The bound that the server names when it closes a channel over a message that is too large.
fn limit_in(text: &str) -> Option<u64> {
    let (_, rest) = text.split_once("message size ")?;
    let (_, limit) = rest.split_once("larger than ")?;
    let digits: String = limit.chars().skip_while(|letter| !letter.is_ascii_digit()).take_while(char::is_ascii_digit).collect();
    digits.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_servers_bound_is_read_from_its_refusal() {
        for (text, expected) in [
            ("PRECONDITION_FAILED - message size 135000000 is larger than configured max size 134217728", Some(134_217_728)),
            ("PRECONDITION_FAILED - message size 20 is larger than max size 16", Some(16)),
            ("PRECONDITION_FAILED - inequivalent arg 'x-overflow'", None),
        ] {
            assert_eq!(limit_in(text), expected, "{text}");
        }
    }
}
