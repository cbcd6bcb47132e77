//! One hold on a queue, through every connection that it takes.
//!
//! Messages come in over a [`Subscription`]: a channel of its own with a bound on the number of messages that the server sends ahead
//! ([`Prefetch`]); the bytes handed out are counted here. When the connection breaks, the next call of `next` subscribes again, and the
//! server sends again what was not acknowledged. Tags count up over all subscriptions, and each message knows the channel that it
//! came over, so that an old tag can never acknowledge a new message.
//!
//! **Poison.** The server counts how often it sent a message, for everything that it sent ahead. So that a message which takes the
//! process down does not take its neighbours along to the delivery limit, a shared queue is first read one message at a time, and only
//! the first message that did not come back several times opens the whole prefetch. One that did is handed out alone.
//!
//! **Refused messages** of an exclusive topic are kept here and handed out again before later ones, which keeps the order; those of a
//! shared topic go back to the server, so that another process may try. A message that came back as often as the delivery limit says
//! is published to the dead ones with the reason, and acknowledged when that is confirmed.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use async_trait::async_trait;
use futures::StreamExt as _;
use lapin::{
    Channel,
    options::{BasicAckOptions, BasicCancelOptions, BasicConsumeOptions, BasicNackOptions, BasicQosOptions},
    types::{AMQPValue, FieldTable},
};
use tokio::time::timeout;
use tokio_util::task::AbortOnDropHandle;
use tracing::{error, info, warn};

use super::{Shared, dead, topology};
use crate::{
    amqp::ANSWER,
    backoff::jittered,
    broker::{BrokerError, Consumer, Delivery, Topic},
};

/// A message that came back so often is handed out alone.
const ALONE_FROM: u32 = 2;
/// What a message weighs in the choice of how many are sent ahead.
const TYPICAL_BYTES: usize = 256 << 10;
/// Fewest and most messages that the server sends ahead.
const AHEAD: (usize, usize) = (8, 256);
/// While no dead messages are taken, how long until the next attempt to set one aside.
const NO_ROOM_PAUSE: Duration = Duration::from_secs(5);

/// How many messages the server sends ahead.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Prefetch {
    One,
    Whole,
}

/// A channel that messages come over.
#[derive(Debug)]
struct Source {
    channel: Channel,
    /// Delivery tags that came and are not settled.
    outstanding: Mutex<BTreeSet<u64>>,
}

impl Source {
    fn outstanding(&self) -> MutexGuard<'_, BTreeSet<u64>> {
        // Whole at every step, so a panic elsewhere does not spoil it.
        self.outstanding.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Acknowledges deliveries, with one word for all that come before any other. A channel that is gone has nothing to acknowledge:
    /// its messages come again.
    async fn ack(&self, tags: &BTreeSet<u64>) {
        let (together, single) = self.split(tags);
        let acks = together.map(|tag| (tag, true)).into_iter().chain(single.into_iter().map(|tag| (tag, false)));
        for (tag, multiple) in acks {
            if let Err(error) = self.channel.basic_ack(tag, BasicAckOptions { multiple }).await {
                info!(%error, "acknowledged over a channel that is gone: these messages come again");
                return;
            }
        }
    }

    /// The last of the tags that come before all others that are outstanding, and those after it. None is outstanding any more.
    fn split(&self, tags: &BTreeSet<u64>) -> (Option<u64>, Vec<u64>) {
        let mut outstanding = self.outstanding();
        let together = outstanding.iter().copied().take_while(|tag| tags.contains(tag)).last();
        let single = tags.iter().copied().filter(|tag| Some(*tag) > together && outstanding.contains(tag)).collect();
        outstanding.retain(|tag| !tags.contains(tag));
        (together, single)
    }

    async fn give_back(&self, tag: u64) {
        self.outstanding().remove(&tag);
        // A channel that is gone has given it back already.
        let _ = self.channel.basic_nack(tag, BasicNackOptions { requeue: true, multiple: false }).await;
    }
}

/// A message that came and is not settled.
#[derive(Debug)]
struct Message {
    source: Arc<Source>,
    delivery_tag: u64,
    id: Option<String>,
    body: Vec<u8>,
    /// How often it was handed out before.
    times: u32,
    /// Why it came back the last time, where this consumer was told.
    reason: Option<String>,
    hold: u64,
}

/// What messages come from.
struct Subscription {
    source: Arc<Source>,
    stream: lapin::Consumer,
    prefetch: Prefetch,
    cancelled: bool,
}

impl Subscription {
    /// Ends the subscription; what came over it can still be settled.
    async fn cancel(mut self) {
        // A channel that is gone has no subscription either.
        let _ = timeout(ANSWER, self.source.channel.basic_cancel(self.stream.tag(), BasicCancelOptions::default())).await;
        self.cancelled = true;
    }
}

impl Drop for Subscription {
    /// Closes the channel, which in one step ends the subscription and gives back what is not acknowledged. Cancelled first, as a dropped
    /// stream would be, the next consumer of the queue could get later messages before those.
    fn drop(&mut self) {
        if self.cancelled {
            return;
        }
        let (channel, stream) = (self.source.channel.clone(), self.stream.clone());
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(async move {
                // A channel that is gone is closed.
                let _ = timeout(ANSWER, channel.close(200, "OK".into())).await;
                drop(stream);
            });
        }
    }
}

/// Why there is no subscription.
#[derive(Debug)]
pub(super) enum Trouble {
    /// There is no such queue.
    Undeclared(String),
    /// The server cannot be reached, or would not.
    Passing(String),
}

pub(super) struct RabbitMqConsumer {
    shared: Arc<Shared>,
    topic: Topic,
    subscription: String,
    prefetch_bytes: usize,
    current: Option<Subscription>,
    /// A subscription under way: calls of `next` that are given up must not begin it anew each time.
    subscribing: Option<AbortOnDropHandle<Result<Subscription, Trouble>>>,
    /// How the next subscription is to be.
    prefetch: Prefetch,
    hold: u64,
    next_tag: u64,
    /// Came and not handed out, by tag: mostly one at a time, since reading stops at what cannot be handed out.
    ready: BTreeMap<u64, Message>,
    /// Handed out and not acknowledged, by tag.
    in_hand: BTreeMap<u64, Message>,
    in_hand_bytes: usize,
}

impl RabbitMqConsumer {
    /// Subscribes. Waits for a server that is away; what stays wrong is an error.
    pub(super) async fn take(shared: Arc<Shared>, topic: Topic, subscription: &str, prefetch_bytes: usize) -> Result<Self, BrokerError> {
        let mut consumer = Self {
            shared,
            topic,
            subscription: subscription.to_owned(),
            prefetch_bytes,
            current: None,
            subscribing: None,
            // An exclusive queue is read whole from the start: to subscribe twice would let another in between.
            prefetch: if topic.is_exclusive() { Prefetch::Whole } else { Prefetch::One },
            hold: 0,
            next_tag: 0,
            ready: BTreeMap::new(),
            in_hand: BTreeMap::new(),
            in_hand_bytes: 0,
        };
        let closed = consumer.shared.closed.clone();
        loop {
            let subscribed = tokio::select! {
                () = closed.cancelled() => return Err(BrokerError::Closed),
                subscribed = consumer.subscribed() => subscribed,
            };
            match subscribed {
                Ok(()) => return Ok(consumer),
                Err(Trouble::Undeclared(reason)) => return Err(BrokerError::Unavailable(reason)),
                Err(Trouble::Passing(reason)) => consumer.pause(&reason).await,
            }
        }
    }

    fn is_subscribed(&self) -> bool {
        self.current.as_ref().is_some_and(|current| current.prefetch == self.prefetch)
    }

    /// Has a subscription of the right prefetch, or what hinders. Goes on where a call that was given up stopped.
    async fn subscribed(&mut self) -> Result<(), Trouble> {
        if self.is_subscribed() {
            return Ok(());
        }
        let (shared, queue) = (Arc::clone(&self.shared), self.shared.topology.queue(self.topic, &self.subscription));
        let ahead = match self.prefetch {
            Prefetch::One => 1,
            Prefetch::Whole => (self.prefetch_bytes / TYPICAL_BYTES).clamp(AHEAD.0, AHEAD.1),
        };
        let prefetch = self.prefetch;
        let old = if self.subscribing.is_none() { self.current.take() } else { None };
        let subscribing =
            self.subscribing.get_or_insert_with(|| AbortOnDropHandle::new(tokio::spawn(subscribe(shared, queue, prefetch, ahead, old))));
        let subscribed = subscribing.await;
        self.subscribing = None;
        let subscribed = subscribed.unwrap_or_else(|panicked| Err(Trouble::Passing(panicked.to_string())))?;
        self.current = Some(subscribed);
        self.hold += 1;
        Ok(())
    }

    async fn pause(&self, reason: &str) {
        let pause = jittered(self.shared.consuming.next_attempt().await.max(Duration::from_millis(100)));
        warn!(topic = %self.topic, subscription = self.subscription, reason, again_in = ?pause, "no messages come: RabbitMQ does not answer");
        tokio::select! {
            () = self.shared.closed.cancelled() => {}
            () = tokio::time::sleep(pause) => {}
        }
    }

    /// The subscription is gone; what came over it and was not handed out comes again.
    fn lose(&mut self, reason: &str) {
        warn!(topic = %self.topic, subscription = self.subscription, reason, "the way to RabbitMQ broke; subscribing again");
        self.current = None;
        self.prefetch = if self.topic.is_exclusive() { Prefetch::Whole } else { Prefetch::One };
        self.ready.clear();
    }

    fn received(&mut self, delivery: lapin::message::Delivery) {
        let Some(current) = &self.current else { return };
        current.source.outstanding().insert(delivery.delivery_tag);
        let message = Message {
            source: Arc::clone(&current.source),
            delivery_tag: delivery.delivery_tag,
            id: delivery.properties.message_id().as_ref().map(ToString::to_string),
            times: times(&delivery),
            body: delivery.data,
            reason: None,
            hold: self.hold,
        };
        if message.times < ALONE_FROM {
            self.prefetch = Prefetch::Whole;
        }
        self.ready.insert(self.next_tag, message);
        self.next_tag += 1;
    }

    /// What may be handed out now, if anything: its tag.
    fn due(&self) -> Option<u64> {
        let (&tag, message) = self.ready.first_key_value()?;
        if self.in_hand.is_empty() {
            return Some(tag);
        }
        let alone = message.times >= ALONE_FROM || self.in_hand.values().any(|held| held.times >= ALONE_FROM);
        (!alone && self.in_hand_bytes + message.body.len() <= self.prefetch_bytes).then_some(tag)
    }

    fn hand_out(&mut self, tag: u64) -> Option<Delivery> {
        let message = self.ready.remove(&tag)?;
        let delivery = Delivery { tag, redeliveries: message.times, hold: message.hold, body: message.body.clone() };
        self.in_hand_bytes += message.body.len();
        self.in_hand.insert(tag, message);
        Some(delivery)
    }

    fn land(&mut self, tag: u64) -> Option<Message> {
        let message = self.in_hand.remove(&tag)?;
        self.in_hand_bytes -= message.body.len();
        Some(message)
    }

    async fn wait(&mut self) -> Option<Delivery> {
        loop {
            // What came over a channel that is gone comes again.
            self.ready.retain(|_, message| message.source.channel.status().connected());
            // A message that may have company is handed out when the company can come, and its channel sends nothing more.
            if !self.is_subscribed()
                && let Err(Trouble::Undeclared(reason) | Trouble::Passing(reason)) = self.subscribed().await
            {
                self.pause(&reason).await;
                continue;
            }
            if let Some(tag) = self.due() {
                if self.ready.get(&tag).is_some_and(|message| message.times < self.shared.topology.bounds.delivery_limit) {
                    return self.hand_out(tag);
                }
                self.set_aside_ready(tag).await;
                continue;
            }
            if !self.ready.is_empty() || self.in_hand_bytes >= self.prefetch_bytes.max(1) {
                // Only acknowledging makes room, and that needs this consumer.
                return std::future::pending().await;
            }
            let Some(current) = &mut self.current else { continue };
            match current.stream.next().await {
                Some(Ok(delivery)) => self.received(delivery),
                Some(Err(error)) => self.lose(&error.to_string()),
                None => self.lose("the server ended the subscription"),
            }
        }
    }

    /// A message that came back too often, before it is handed out once more. Stays ready until it is among the dead.
    async fn set_aside_ready(&mut self, tag: u64) {
        let Some(message) = self.ready.get(&tag) else { return };
        if self.set_aside(message).await {
            if let Some(message) = self.ready.remove(&tag) {
                message.source.ack(&BTreeSet::from([message.delivery_tag])).await;
            }
        } else {
            tokio::time::sleep(NO_ROOM_PAUSE).await;
        }
    }

    /// Whether the message is among the dead now.
    async fn set_aside(&self, message: &Message) -> bool {
        let unanswered =
            || format!("handed out {} times and never acknowledged: its consumer stopped or crashed over it each time", message.times);
        let reason = message.reason.clone().unwrap_or_else(unanswered);
        let letter = dead::letter(self.topic, &self.subscription, &reason, message.id.clone(), message.body.clone());
        match self.shared.publisher.send(&self.shared.topology.dead(), "", vec![letter]).await {
            Ok(()) => {
                warn!(topic = %self.topic, subscription = self.subscription, reason, "a message was set aside");
                true
            }
            Err(refusal) => {
                error!(topic = %self.topic, subscription = self.subscription, ?refusal, "no room for a dead message: its queue stands still");
                false
            }
        }
    }
}

#[async_trait]
impl Consumer for RabbitMqConsumer {
    async fn next(&mut self) -> Result<Option<Delivery>, BrokerError> {
        let closed = self.shared.closed.clone();
        tokio::select! {
            biased;
            () = closed.cancelled() => Ok(None),
            delivery = self.wait() => Ok(delivery),
        }
    }

    async fn ack(&mut self, tags: &[u64]) -> Result<(), BrokerError> {
        let mut by_source: Vec<(Arc<Source>, BTreeSet<u64>)> = Vec::new();
        for tag in tags {
            let Some(Message { source, delivery_tag, .. }) = self.land(*tag) else { continue };
            match by_source.iter_mut().find(|(known, _)| Arc::ptr_eq(known, &source)) {
                Some((_, tags)) => drop(tags.insert(delivery_tag)),
                None => by_source.push((source, BTreeSet::from([delivery_tag]))),
            }
        }
        for (source, tags) in by_source {
            source.ack(&tags).await;
        }
        Ok(())
    }

    async fn reject(&mut self, tag: u64, reason: &str) -> Result<(), BrokerError> {
        let Some(mut message) = self.land(tag) else { return Ok(()) };
        if !message.source.channel.status().connected() {
            // It comes again, and counted by the server.
            return Ok(());
        }
        message.times = message.times.saturating_add(1);
        message.reason = Some(reason.to_owned());
        if message.times >= self.shared.topology.bounds.delivery_limit && self.set_aside(&message).await {
            message.source.ack(&BTreeSet::from([message.delivery_tag])).await;
        } else if self.topic.is_exclusive() {
            self.ready.insert(tag, message);
        } else {
            message.source.give_back(message.delivery_tag).await;
        }
        Ok(())
    }
}

/// Subscribes, after the end of an old subscription, whose messages stay valid.
async fn subscribe(
    shared: Arc<Shared>,
    queue: String,
    prefetch: Prefetch,
    ahead: usize,
    old: Option<Subscription>,
) -> Result<Subscription, Trouble> {
    if let Some(old) = old {
        old.cancel().await;
    }
    let live = shared.consuming.get().await.map_err(Trouble::Passing)?;
    let channel = live.channel().await.map_err(Trouble::Passing)?;
    let asked = async {
        channel.basic_qos(u16::try_from(ahead).unwrap_or(u16::MAX), BasicQosOptions::default()).await?;
        channel.basic_consume(queue.as_str().into(), "".into(), BasicConsumeOptions::default(), FieldTable::default()).await
    };
    match timeout(ANSWER, asked).await {
        Ok(Ok(stream)) => {
            let source = Arc::new(Source { channel, outstanding: Mutex::default() });
            Ok(Subscription { source, stream, prefetch, cancelled: false })
        }
        Ok(Err(error)) if topology::is_missing(&error) => {
            Err(Trouble::Undeclared(format!("there is no queue {queue}: declare the subscription first")))
        }
        Ok(Err(error)) => Err(Trouble::Passing(error.to_string())),
        Err(_) => {
            live.give_up();
            Err(Trouble::Passing(format!("no answer within {ANSWER:?}")))
        }
    }
}

/// How often a message was handed out before. The header says it from the second time on.
fn times(delivery: &lapin::message::Delivery) -> u32 {
    let headers = delivery.properties.headers().as_ref();
    let counted = match headers.and_then(|headers| headers.inner().get("x-delivery-count")) {
        Some(AMQPValue::LongLongInt(count)) => u32::try_from(*count).unwrap_or(u32::MAX),
        Some(AMQPValue::LongInt(count)) => u32::try_from(*count).unwrap_or(u32::MAX),
        Some(AMQPValue::LongUInt(count)) => *count,
        Some(AMQPValue::ShortShortUInt(count)) => u32::from(*count),
        Some(AMQPValue::ShortShortInt(count)) => u32::try_from(*count).unwrap_or(0),
        Some(AMQPValue::ShortInt(count)) => u32::try_from(*count).unwrap_or(0),
        Some(AMQPValue::ShortUInt(count)) => u32::from(*count),
        _ => 0,
    };
    counted.max(u32::from(delivery.redelivered))
}
