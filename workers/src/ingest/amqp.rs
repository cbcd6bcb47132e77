//! AMQP: messages of others' producers, from a queue of a RabbitMQ.
//!
//! Messages that lie ready are taken together, their events go to the broker in few messages, and all are acknowledged when the broker
//! has confirmed. While it does not, nothing is acknowledged and no more are taken than the prefetch. What is cut short by a crash
//! comes again, so an event without an id of its own may then be stored twice.
//!
//! A message that is no event, or holds one above the limit, would never be anything else. It goes to the queue `QUEUE.refused` with the
//! reason in its headers, confirmed, and is acknowledged then: nothing is lost, and nothing goes round for ever. The good events in it
//! are taken.

use std::{
    collections::{BTreeMap, btree_map::Entry},
    sync::Arc,
    time::Duration,
};

use futures::StreamExt as _;
use lapin::{
    Channel,
    message::Delivery,
    options::{BasicAckOptions, BasicConsumeOptions, BasicQosOptions, QueueBindOptions, QueueDeclareOptions},
    types::{AMQPValue, FieldTable},
};
use redoubt_crds::{AmqpInput, Format};
use redoubt_engine::{event::RawEvent, format::frame_at_most, source::Source};
use tokio::time::{Instant, sleep, timeout, timeout_at};
use tokio_util::sync::CancellationToken;

use super::{
    Shared,
    intake::{MAX_ITEMS, event_id},
    log_throttle::LogThrottle,
};
use crate::{
    amqp::{ANSWER, Link, Live, Server},
    backoff::Backoff,
    batch,
    broker::{
        BrokerError,
        rabbitmq::publisher::{Outgoing, Publisher},
    },
};

/// How long messages are gathered.
const WAIT: Duration = Duration::from_millis(20);
/// Messages are gathered up to so many,
const BATCH_MESSAGES: usize = 500;
/// or so many bytes.
const BATCH_BYTES: usize = 1 << 20;
/// Shortest and longest time before what the broker refused is tried again.
const AGAIN: (Duration, Duration) = (Duration::from_millis(20), Duration::from_secs(5));
/// How long a broker that is away is given.
const AWAY: Duration = Duration::from_secs(1);
/// AMQP's code for a queue that is not there.
const NOT_FOUND: u16 = 404;

/// Follows the plan: each source with an AMQP input has a task, which ends when the input changes or goes.
pub(super) async fn follow(shared: &Arc<Shared>, shutdown: &CancellationToken) {
    let mut plan = shared.plan.clone();
    let mut running: BTreeMap<String, (AmqpInput, CancellationToken)> = BTreeMap::new();
    loop {
        let wanted: BTreeMap<String, AmqpInput> =
            plan.borrow_and_update().sources.iter().filter_map(|(name, source)| Some((name.clone(), source.spec.amqp.clone()?))).collect();
        running.retain(|name, (input, stop)| {
            let keep = wanted.get(name) == Some(input);
            if !keep {
                stop.cancel();
            }
            keep
        });
        for (name, input) in wanted {
            if let Entry::Vacant(place) = running.entry(name) {
                let stop = shutdown.child_token();
                let intake = Input::new(shared.clone(), place.key().clone(), input.clone(), stop.clone());
                shared.tasks.spawn(intake.run());
                place.insert((input, stop));
            }
        }
        if plan.changed().await.is_err() {
            // Nobody can change the plan any more; the tasks end with the shutdown.
            return std::future::pending().await;
        }
    }
}

/// One source's queue at work.
struct Input {
    shared: Arc<Shared>,
    source: String,
    input: AmqpInput,
    link: Link,
    refusals: Publisher,
    stop: CancellationToken,
    delays: LogThrottle,
    refused: LogThrottle,
}

/// Messages that were taken together, and what is in them.
#[derive(Default)]
struct Gathered {
    events: Vec<RawEvent>,
    bytes: u64,
    rejected: usize,
    /// Messages that are refused, each with why.
    refused: Vec<(Outgoing, String)>,
    /// The tag that acknowledges all of them.
    last_tag: u64,
}

impl Input {
    fn new(shared: Arc<Shared>, source: String, input: AmqpInput, stop: CancellationToken) -> Self {
        let server = Server {
            urls: input.urls.clone(),
            vhost: input.vhost.clone(),
            credentials: input.credentials_secret_ref.clone(),
            tls: input.tls.clone(),
            secrets: shared.secrets.clone(),
        };
        let link = Link::new(server.clone(), format!("redoubt source {source}"));
        let refusals = Publisher::new(Link::new(server, format!("redoubt source {source}, refusing")));
        Self { shared, source, input, link, refusals, stop, delays: LogThrottle::default(), refused: LogThrottle::default() }
    }

    async fn run(self) {
        let mut backoff = Backoff::default();
        while !self.stop.is_cancelled() {
            match self.consume().await {
                Ok(()) => backoff = Backoff::default(),
                Err(reason) => tracing::warn!(source = self.source, queue = self.input.queue, reason, "no messages come; trying again"),
            }
            if backoff.pause(&self.stop).await.is_err() {
                break;
            }
        }
        self.link.close().await;
        self.refusals.close().await;
    }

    /// Takes messages until told to stop, or until the connection breaks. `Ok` when some were taken.
    async fn consume(&self) -> Result<(), String> {
        let live = self.link.get().await?;
        self.prepare(&live).await?;
        let channel = live.channel().await?;
        let asked = async {
            channel.basic_qos(self.input.prefetch, BasicQosOptions::default()).await?;
            let queue = self.input.queue.as_str().into();
            channel.basic_consume(queue, "".into(), BasicConsumeOptions::default(), FieldTable::default()).await
        };
        let mut messages = answered(&live, asked).await?.map_err(|error| error.to_string())?;
        tracing::info!(source = self.source, queue = self.input.queue, "taking messages");
        let mut done = Err("the connection broke".to_owned());
        loop {
            let first = tokio::select! {
                () = self.stop.cancelled() => return Ok(()),
                first = messages.next() => first,
            };
            let Some(Ok(first)) = first else { return done };
            let Some(source) = self.shared.plan().sources.get(&self.source).cloned() else { return Ok(()) };
            let gathered = self.gather(&source, first, &mut messages).await;
            let last_tag = gathered.last_tag;
            if !self.deliver(&source, gathered).await {
                return Ok(());
            }
            let acknowledged = channel.basic_ack(last_tag, BasicAckOptions { multiple: true }).await;
            acknowledged.map_err(|error| format!("these messages come again: {error}"))?;
            done = Ok(());
        }
    }

    /// Makes sure of the queues, and binds the one.
    async fn prepare(&self, live: &Live) -> Result<(), String> {
        let AmqpInput { queue, exchange, binding_key, .. } = &self.input;
        make_queue(live, queue).await?;
        make_queue(live, &refused_queue(queue)).await?;
        if let (Some(exchange), Some(key)) = (exchange, binding_key) {
            let channel = live.channel().await?;
            let (queue, exchange) = (queue.as_str().into(), exchange.as_str().into());
            let bound = channel.queue_bind(queue, exchange, key.as_str().into(), QueueBindOptions::default(), FieldTable::default());
            answered(live, bound).await?.map_err(|error| format!("the queue cannot be bound: {error}"))?;
        }
        Ok(())
    }

    /// A message and those that lie ready behind it.
    async fn gather(&self, source: &Arc<Source>, first: Delivery, messages: &mut lapin::Consumer) -> Gathered {
        let until = Instant::now() + WAIT;
        let max_event_bytes = usize::try_from(self.shared.plan().spec.max_event_bytes).unwrap_or(usize::MAX);
        let mut gathered = Gathered::default();
        let (mut count, mut bytes, mut next) = (0, 0, Some(first));
        while let Some(delivery) = next {
            count += 1;
            bytes += delivery.data.len();
            gathered.add(source, delivery, (self.shared.clock)(), max_event_bytes);
            let may_have_more = count < BATCH_MESSAGES.min(usize::from(self.input.prefetch)) && bytes < BATCH_BYTES;
            next = if may_have_more { timeout_at(until, messages.next()).await.ok().flatten().and_then(Result::ok) } else { None };
        }
        gathered
    }

    /// Publishes, however long it takes; whether all is safe.
    async fn deliver(&self, source: &Source, gathered: Gathered) -> bool {
        let Gathered { events, bytes, rejected, refused, .. } = gathered;
        if !events.is_empty() {
            let message = match batch::encode_events(&events) {
                Ok(message) => message,
                // The bound is a hundred times what is gathered.
                Err(error) => {
                    tracing::error!(%error, source = self.source, "a batch could not be written");
                    return false;
                }
            };
            if !self.publish(source, &message, events.len(), bytes).await {
                return false;
            }
        }
        for (letter, reason) in refused {
            if let Some(times) = self.refused.due(Instant::now()) {
                tracing::warn!(
                    source = self.source,
                    reason,
                    times,
                    "messages are refused; they are in the queue {}",
                    refused_queue(&self.input.queue)
                );
            }
            if !self.refuse(letter).await {
                return false;
            }
        }
        self.shared.count_rejected(source, rejected);
        true
    }

    async fn publish(&self, source: &Source, message: &[u8], count: usize, bytes: u64) -> bool {
        loop {
            let (reason, wait) = match self.shared.quotas.take(source, count, Instant::now()) {
                Err(wait) => ("the quota is used up".to_owned(), wait),
                Ok(()) => match self.shared.publish(source, vec![message.to_vec()], count, bytes).await {
                    Ok(()) => return true,
                    Err(error) => {
                        let wait = if let BrokerError::Full { retry_after, .. } = error { retry_after } else { AWAY };
                        (error.to_string(), wait)
                    }
                },
            };
            if let Some(times) = self.delays.due(Instant::now()) {
                tracing::warn!(source = self.source, reason, times, "messages wait in their queue");
            }
            if self.pause(wait.clamp(AGAIN.0, AGAIN.1)).await {
                return false;
            }
        }
    }

    /// Puts a message into the queue of the refused ones, however long it takes; whether it is there.
    async fn refuse(&self, letter: Outgoing) -> bool {
        let queue = refused_queue(&self.input.queue);
        loop {
            let copy = Outgoing { body: letter.body.clone(), headers: letter.headers.clone(), id: letter.id.clone() };
            match self.refusals.send("", &queue, vec![copy]).await {
                Ok(()) => return true,
                Err(refusal) => {
                    if let Some(times) = self.delays.due(Instant::now()) {
                        tracing::warn!(
                            source = self.source,
                            queue,
                            ?refusal,
                            times,
                            "a refused message could not be put aside; trying again"
                        );
                    }
                }
            }
            if self.pause(AWAY).await {
                return false;
            }
        }
    }

    /// Whether the pause was cut short by the order to stop.
    async fn pause(&self, wait: Duration) -> bool {
        tokio::select! {
            () = self.stop.cancelled() => true,
            () = sleep(wait) => false,
        }
    }
}

impl Gathered {
    fn add(&mut self, source: &Arc<Source>, delivery: Delivery, received_millis: i64, max_event_bytes: usize) {
        self.last_tag = delivery.delivery_tag;
        let id = delivery.properties.message_id().as_ref().map(ToString::to_string);
        let text = match String::from_utf8(delivery.data) {
            Ok(text) => text,
            Err(bytes) if matches!(source.format, Format::Syslog | Format::Cef) => String::from_utf8_lossy(bytes.as_bytes()).into_owned(),
            Err(bytes) => {
                self.refuse(bytes.into_bytes(), id, "it is not UTF-8".to_owned());
                return;
            }
        };
        let mut reason = None;
        let mut taken = 0;
        for piece in frame_at_most(source.format, &text, MAX_ITEMS) {
            match piece {
                Ok(event) if event.len() > max_event_bytes => {
                    reason = Some(format!("an event has {} bytes, the limit is {max_event_bytes}", event.len()));
                    self.rejected += 1;
                }
                Ok(event) => {
                    taken += 1;
                    self.bytes += event.len() as u64;
                    let (id, source) = (event_id(received_millis), source.name.clone());
                    self.events.push(RawEvent { id, received_millis, source, sender: None, body: event.to_owned() });
                }
                Err(error) => {
                    reason = Some(format!("line {}, column {}: {}; {}", error.line, error.column, error.message, error.remedy));
                    self.rejected += 1;
                }
            }
        }
        if taken == 0 && reason.is_none() {
            reason = Some("it holds no event".to_owned());
            self.rejected += 1;
        }
        if let Some(reason) = reason {
            self.refused.push((letter(text.into_bytes(), id, &reason), reason));
        }
    }

    fn refuse(&mut self, body: Vec<u8>, id: Option<String>, reason: String) {
        self.rejected += 1;
        self.refused.push((letter(body, id, &reason), reason));
    }
}

fn letter(body: Vec<u8>, id: Option<String>, reason: &str) -> Outgoing {
    let mut headers = FieldTable::default();
    headers.insert("redoubt-reason".into(), AMQPValue::LongString(reason.into()));
    Outgoing { body, headers, id }
}

fn refused_queue(queue: &str) -> String {
    format!("{queue}.refused")
}

/// A queue that is there is used as it is; another is made. The server closes a channel on which it refused something, so each question
/// has its own.
async fn make_queue(live: &Live, name: &str) -> Result<(), String> {
    let durable = QueueDeclareOptions { durable: true, ..Default::default() };
    let passive = QueueDeclareOptions { passive: true, ..durable };
    let channel: Channel = live.channel().await?;
    match answered(live, channel.queue_declare(name.into(), passive, FieldTable::default())).await? {
        Ok(_) => return Ok(()),
        Err(error) if crate::amqp::code(&error) == Some(NOT_FOUND) => {}
        Err(error) => return Err(format!("the queue {name} cannot be used: {error}")),
    }
    let mut arguments = FieldTable::default();
    arguments.insert("x-queue-type".into(), AMQPValue::LongString("quorum".into()));
    // Only its reader can tell what becomes of a message: one that comes again is not lost after some times.
    arguments.insert("x-delivery-limit".into(), AMQPValue::LongLongInt(i64::from(i32::MAX)));
    let channel = live.channel().await?;
    let made = answered(live, channel.queue_declare(name.into(), durable, arguments)).await?;
    made.map(drop).map_err(|error| format!("the queue {name} cannot be made: {error}"))
}

/// The server's answer, within a bounded time.
async fn answered<T>(live: &Live, question: impl Future<Output = lapin::Result<T>>) -> Result<lapin::Result<T>, String> {
    timeout(ANSWER, question).await.map_err(|_| {
        live.give_up();
        format!("no answer within {ANSWER:?}")
    })
}

#[cfg(test)]
mod tests {
    use redoubt_crds::LogSourceSpec;

    use super::*;

    fn gather(format: Format, body: &[u8]) -> Gathered {
        let source = Arc::new(Source::compile("mq", &LogSourceSpec { format: Some(format), ..LogSourceSpec::default() }).unwrap());
        let delivery = Delivery::mock(7, "x".into(), "k".into(), false, body.to_vec());
        let mut gathered = Gathered::default();
        gathered.add(&source, delivery, 1_700_000_000_123, 40);
        gathered
    }

    #[test]
    fn each_message_is_taken_or_refused_with_the_reason_or_both() {
        let large = format!("{{\"a\":\"{}\"}}", "x".repeat(40));

        for (case, format, body, taken, reasons) in [
            ("an event", Format::Mozdef, b"{\"summary\":\"a\"}".as_slice(), 1, vec![]),
            ("a list", Format::Json, b"[{\"a\":1},{\"a\":2}]", 2, vec![]),
            ("no JSON", Format::Json, b"hello", 0, vec!["line 1"]),
            ("nothing", Format::Json, b"", 0, vec!["no event"]),
            ("not UTF-8", Format::Json, b"\xff", 0, vec!["UTF-8"]),
            ("bytes in a text", Format::Syslog, b"<13>Jan  1 00:00:00 h x: \xff", 1, vec![]),
            ("too large", Format::Json, large.as_bytes(), 0, vec!["the limit is 40"]),
            ("one good, one bad", Format::Json, b"{\"a\":1}\n{broken", 1, vec!["line 2"]),
        ] {
            let gathered = gather(format, body);

            assert_eq!(gathered.events.len(), taken, "{case}");
            assert_eq!(gathered.refused.len(), reasons.len(), "{case}");
            for ((letter, reason), expected) in gathered.refused.iter().zip(reasons) {
                assert!(reason.contains(expected), "{case}: {reason}");
                assert_eq!(letter.body, body, "{case}: refused as it came");
            }
            assert_eq!(gathered.last_tag, 7, "{case}");
        }
    }
}
