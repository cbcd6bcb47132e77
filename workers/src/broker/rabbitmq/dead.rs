//! What was set aside: how it is written, listed without being taken, and found by id.
//!
//! A message that a consumer gave up carries the reason in headers of ours. One that the server itself set aside, because its consumers
//! died over it and none came to look at it again, carries what the server says in `x-death`.

use lapin::{
    message::{BasicGetMessage, Delivery},
    options::{BasicAckOptions, BasicGetOptions, QueueDeclareOptions},
    types::{AMQPValue, FieldTable},
};
use redoubt_engine::event::digest;

use super::{Shared, publisher::Outgoing};
use crate::broker::{BrokerError, DeadMessage, Depth, Topic};

const TOPIC: &str = "redoubt-topic";
const SUBSCRIPTION: &str = "redoubt-subscription";
const REASON: &str = "redoubt-reason";
/// A reason is cut to so many bytes.
const REASON_BYTES: usize = 1024;
/// An id is cut to so many digits: enough to tell ten thousand messages apart, and short enough to type.
const ID_DIGITS: usize = 16;

/// A message on its way to the dead ones.
pub(super) fn letter(topic: Topic, subscription: &str, reason: &str, id: Option<String>, body: Vec<u8>) -> Outgoing {
    let reason = &reason[..reason.floor_char_boundary(REASON_BYTES)];
    let mut headers = FieldTable::default();
    for (name, value) in [(TOPIC, topic.to_string().as_str()), (SUBSCRIPTION, subscription), (REASON, reason)] {
        headers.insert(name.into(), AMQPValue::LongString(value.into()));
    }
    Outgoing { body, headers, id }
}

/// The oldest dead messages.
pub(super) async fn list(shared: &Shared, limit: usize) -> Result<Vec<DeadMessage>, BrokerError> {
    let mut dead = Vec::new();
    let channel = shared.channel().await?;
    while dead.len() < limit {
        let Some(message) = get(shared, &channel).await? else { break };
        dead.push(read(message.delivery));
    }
    // What was looked at goes back when the channel goes.
    shared.leave(channel).await;
    Ok(dead)
}

pub(super) async fn depth(shared: &Shared) -> Result<Depth, BrokerError> {
    let channel = shared.channel().await?;
    let passive = QueueDeclareOptions { passive: true, ..Default::default() };
    let declared = shared.asked(channel.queue_declare(shared.topology.dead().into(), passive, FieldTable::default())).await?;
    shared.leave(channel).await;
    Ok(Depth { messages: u64::from(declared.message_count()), bytes: None })
}

/// Does something with the dead messages of an id and takes them out; whether there was one. There may be several: a consumer that died
/// between setting a message aside and acknowledging it made another set it aside again.
pub(super) async fn take_out(shared: &Shared, id: &str, replay: bool) -> Result<bool, BrokerError> {
    let channel = shared.channel().await?;
    let mut found = false;
    while let Some(message) = get(shared, &channel).await? {
        let tag = message.delivery.delivery_tag;
        let dead = read(message.delivery);
        if dead.id != id {
            continue;
        }
        if replay && !found {
            give_back(shared, dead).await?;
        }
        found = true;
        shared.asked(channel.basic_ack(tag, BasicAckOptions::default())).await?;
    }
    shared.leave(channel).await;
    Ok(found)
}

/// Publishes a dead message to the one queue that it came from.
async fn give_back(shared: &Shared, dead: DeadMessage) -> Result<(), BrokerError> {
    let DeadMessage { topic, subscription, body, .. } = dead;
    let unknown = |reason: String| BrokerError::Unavailable(format!("{reason}, so the message stays among the dead"));
    let topic: Topic = topic.parse().map_err(|error| unknown(format!("{error}")))?;
    let queue = shared.topology.queue(topic, &subscription);
    let sent = shared.publisher.send("", &queue, vec![Outgoing::from(body)]).await;
    sent.map_err(|refusal| shared.error(topic, refusal, &format!("there is no queue {queue}")))
}

async fn get(shared: &Shared, channel: &lapin::Channel) -> Result<Option<BasicGetMessage>, BrokerError> {
    let got = shared.asked_raw(channel.basic_get(shared.topology.dead().into(), BasicGetOptions::default())).await?;
    match got {
        Ok(got) => Ok(got),
        // Nothing was declared yet, so nothing died.
        Err(error) if super::topology::is_missing(&error) => Ok(None),
        Err(error) => Err(BrokerError::Unavailable(error.to_string())),
    }
}

fn read(delivery: Delivery) -> DeadMessage {
    let headers = delivery.properties.headers().clone().unwrap_or_default();
    let text = |name: &str| match headers.inner().get(name) {
        Some(AMQPValue::LongString(text)) => Some(String::from_utf8_lossy(text.as_bytes()).into_owned()),
        Some(AMQPValue::ShortString(text)) => Some(text.to_string()),
        _ => None,
    };
    let (topic, subscription) = (text(TOPIC).unwrap_or_default(), text(SUBSCRIPTION).unwrap_or_default());
    let reason = text(REASON).unwrap_or_else(|| "unknown: not published by Redoubt".to_owned());
    let own =
        delivery.properties.message_id().as_ref().map_or_else(|| String::from_utf8_lossy(&delivery.data).into_owned(), ToString::to_string);
    let mut id = digest(&["dead", &topic, &subscription, &own]);
    id.truncate(ID_DIGITS);
    DeadMessage { id, topic, subscription, reason, body: delivery.data }
}
