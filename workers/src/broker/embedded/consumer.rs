//! One hold on a queue.
//!
//! Messages are read a few megabytes ahead, and count as handed out only when `next` returns them. A message that came back
//! [`ALONE_FROM`] times may be what brings its consumers down; its neighbours must not be blamed for it. So it is handed out alone,
//! and counted in the file before. When it came back as often as the delivery limit says, it is set aside.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::{Arc, PoisonError},
    time::Duration,
};

use async_trait::async_trait;
use redb::ReadableDatabase;
use tokio::{
    sync::OwnedMutexGuard,
    time::{Instant, sleep_until},
};

use super::{
    Shared,
    command::{Change, Link, Outcome},
    file::{MAX_IN_FLIGHT, MESSAGES},
    queue::{Past, Queue},
    unavailable,
};
use crate::broker::{BrokerError, Consumer, Delivery};

/// A message that came back so often is handed out alone.
pub(super) const ALONE_FROM: u32 = 2;

/// One read stops when it has so many bytes.
const READ_BYTES: usize = 4 << 20;

/// ... or so many messages.
const READ_MESSAGES: usize = 1024;

/// When no more dead messages are taken, a message over the delivery limit is handed out once in this time.
const NO_ROOM_PAUSE: Duration = Duration::from_secs(5);

pub(super) struct EmbeddedConsumer {
    shared: Arc<Shared>,
    link: Link,
    queue: Arc<Queue>,
    prefetch_bytes: usize,
    /// Handed out and not acknowledged: sequence numbers (which are the tags) with the bytes of the bodies.
    in_flight: BTreeMap<u64, usize>,
    in_flight_bytes: usize,
    /// Read and not yet handed out, in order. All of it fits in the prefetch.
    ready: VecDeque<Message>,
    /// The message over the delivery limit that could not be set aside, and when it is handed out again.
    no_room: Option<(u64, Instant)>,
    _hold: OwnedMutexGuard<()>,
}

#[derive(Debug)]
struct Message {
    sequence: u64,
    body: Vec<u8>,
}

/// What can be handed out.
enum Found {
    Several(Vec<Message>),
    Alone(Message),
    Nothing,
}

/// How much more may be handed out.
#[derive(Debug, Clone, Copy)]
struct Room {
    bytes: usize,
    messages: usize,
    /// Nothing is out, so one message may go whatever its size.
    idle: bool,
}

impl EmbeddedConsumer {
    /// Waits for the hold on the queue, and makes it known in the file.
    pub(super) async fn take(shared: Arc<Shared>, link: Link, queue: Arc<Queue>, prefetch_bytes: usize) -> Result<Self, BrokerError> {
        let hold = tokio::select! {
            hold = Arc::clone(&queue.holder).lock_owned() => hold,
            () = shared.closed.cancelled() => return Err(BrokerError::Closed),
        };
        let counts = queue.handing().counts();
        link.call(Change::Hold { queue: queue.id, prefetch: prefetch_bytes as u64, counts }).await?;
        Ok(Self {
            shared,
            link,
            queue,
            prefetch_bytes,
            in_flight: BTreeMap::new(),
            in_flight_bytes: 0,
            ready: VecDeque::new(),
            no_room: None,
            _hold: hold,
        })
    }

    fn room(&self) -> Room {
        Room {
            bytes: self.prefetch_bytes.saturating_sub(self.in_flight_bytes),
            messages: MAX_IN_FLIGHT.saturating_sub(self.in_flight.len()),
            idle: self.in_flight.is_empty(),
        }
    }

    /// Whether the one message in flight must not have company.
    fn is_alone(&self) -> bool {
        let alone_from = self.shared.alone_from();
        self.in_flight.first_key_value().is_some_and(|(&sequence, _)| self.queue.handing().times(sequence) >= alone_from)
    }

    fn hand_out(&mut self, message: Message) -> Delivery {
        let Message { sequence, body } = message;
        self.in_flight.insert(sequence, body.len());
        self.in_flight_bytes += body.len();
        let mut handing = self.queue.handing();
        handing.hand_out(sequence);
        Delivery { tag: sequence, redeliveries: handing.times(sequence), hold: 0, body }
    }

    fn land(&mut self, sequence: u64) {
        if let Some(bytes) = self.in_flight.remove(&sequence) {
            self.in_flight_bytes -= bytes;
        }
    }

    /// Looks for messages; where that fails, once more on a database that was opened again.
    async fn find(&self) -> Result<Found, BrokerError> {
        if let Ok(found) = self.read().await {
            return Ok(found);
        }
        // Only the writer can open it, and it may have nothing to write that would show it the need.
        self.link.call(Change::Reopen).await?;
        self.read().await
    }

    async fn read(&self) -> Result<Found, BrokerError> {
        let (shared, queue, room) = (Arc::clone(&self.shared), Arc::clone(&self.queue), self.room());
        match tokio::task::spawn_blocking(move || find(&shared, &queue, room)).await {
            Ok(found) => found.map_err(|error| unavailable(&self.shared.path, &error)),
            Err(stopped) => Err(BrokerError::Unavailable(format!("reading {} was broken off: {stopped}", self.shared.path.display()))),
        }
    }

    async fn wait(&mut self) -> Result<Option<Delivery>, BrokerError> {
        loop {
            if self.shared.closed.is_cancelled() {
                return Ok(None);
            }
            if let Some(message) = self.ready.pop_front() {
                return Ok(Some(self.hand_out(message)));
            }
            let room = self.room();
            let may_have_more = room.idle || (room.bytes > 0 && room.messages > 0 && !self.is_alone());
            if !may_have_more {
                // Only acknowledging makes room, and that needs this consumer.
                self.shared.closed.cancelled().await;
                return Ok(None);
            }
            match self.find().await? {
                Found::Several(messages) => self.ready = messages.into(),
                Found::Alone(message) => {
                    if let Some(delivery) = self.hand_out_alone(message).await? {
                        return Ok(Some(delivery));
                    }
                }
                Found::Nothing => {
                    tokio::select! {
                        // Remembers one call from before, so what arrived since the look is not missed.
                        () = self.queue.arrived.notified() => {}
                        () = self.shared.closed.cancelled() => {}
                    }
                }
            }
        }
    }

    /// Hands out a suspect, or sets it aside. `None`: look again.
    async fn hand_out_alone(&mut self, message: Message) -> Result<Option<Delivery>, BrokerError> {
        let Message { sequence, .. } = message;
        let past = self.queue.handing().past(sequence);
        if past.times >= self.shared.delivery_limit {
            match self.no_room {
                Some((waiting, at)) if waiting == sequence => {
                    tokio::select! {
                        () = sleep_until(at) => self.no_room = None,
                        () = self.shared.closed.cancelled() => return Ok(None),
                    }
                }
                _ => {
                    if !self.set_aside(sequence, past).await? {
                        self.no_room = Some((sequence, Instant::now() + NO_ROOM_PAUSE));
                    }
                    return Ok(None);
                }
            }
        }
        let times = self.queue.handing().times(sequence).saturating_add(1);
        self.link.call(Change::Count { queue: self.queue.id, sequence, times }).await?;
        Ok(Some(self.hand_out(message)))
    }

    /// Whether there was room among the dead messages.
    async fn set_aside(&mut self, sequence: u64, past: Past) -> Result<bool, BrokerError> {
        let unanswered =
            || format!("handed out {} times and never acknowledged: its consumer stopped or crashed over it each time", past.times);
        let reason = past.reason.unwrap_or_else(unanswered);
        let outcome = self.link.call(Change::SetAside { queue: self.queue.id, sequence, reason }).await?;
        if outcome == Outcome::NoRoom {
            let (topic, subscription) = (self.queue.topic, &self.queue.subscription);
            tracing::error!(%topic, subscription, "no room for more dead messages: the queue stands still until they are looked at");
            return Ok(false);
        }
        self.queue.handing().forget(sequence);
        Ok(true)
    }
}

#[async_trait]
impl Consumer for EmbeddedConsumer {
    async fn next(&mut self) -> Result<Option<Delivery>, BrokerError> {
        match self.wait().await {
            // The end, not a failure.
            Err(_) if self.shared.closed.is_cancelled() => Ok(None),
            result => result,
        }
    }

    async fn ack(&mut self, tags: &[u64]) -> Result<(), BrokerError> {
        let sequences: Vec<u64> = tags.iter().copied().filter(|tag| self.in_flight.contains_key(tag)).collect();
        if sequences.is_empty() {
            return Ok(());
        }
        self.link.call(Change::Acknowledge { queue: self.queue.id, sequences: sequences.clone() }).await?;
        for sequence in sequences {
            self.land(sequence);
            self.queue.handing().forget(sequence);
        }
        Ok(())
    }

    async fn reject(&mut self, tag: u64, reason: &str) -> Result<(), BrokerError> {
        if !self.in_flight.contains_key(&tag) {
            return Ok(());
        }
        let times = self.queue.handing().times(tag).saturating_add(1);
        let past = Past { times, reason: Some(reason.to_owned()) };
        if times >= self.shared.delivery_limit && self.set_aside(tag, past).await? {
            self.land(tag);
            return Ok(());
        }
        self.link.call(Change::Count { queue: self.queue.id, sequence: tag, times }).await?;
        self.land(tag);
        self.queue.handing().give_back(tag, Some(reason.to_owned()));
        // It comes before what was read ahead.
        self.ready.clear();
        Ok(())
    }
}

impl Drop for EmbeddedConsumer {
    fn drop(&mut self) {
        // Counts reach the file with the next hold; until then the row says that the queue was held, which counts them as well.
        let mut handing = self.queue.handing();
        for &sequence in self.in_flight.keys() {
            handing.give_back(sequence, None);
        }
    }
}

/// Reads what can be handed out next: first what came back, then what never went out.
fn find(shared: &Shared, queue: &Queue, room: Room) -> Result<Found, redb::Error> {
    let database = shared.database.read().unwrap_or_else(PoisonError::into_inner);
    let Some(database) = database.as_ref() else { return Err(redb::Error::DatabaseClosed) };
    let table = database.begin_read()?.open_table(MESSAGES)?;
    let (returned, cursor) = {
        let handing = queue.handing();
        (handing.returned(), handing.cursor())
    };
    let mut gone = Vec::new();
    let came_back = returned.into_iter().filter_map(|sequence| match table.get((queue.id, sequence)) {
        Ok(Some(body)) => Some(Ok((sequence, body))),
        Ok(None) => {
            gone.push(sequence);
            None
        }
        Err(error) => Some(Err(error)),
    });
    let fresh = table.range((queue.id, cursor)..=(queue.id, u64::MAX))?;
    let fresh = fresh.map(|entry| entry.map(|(key, body)| (key.value().1, body)));

    let mut found = Vec::new();
    let mut bytes = 0;
    for entry in came_back.chain(fresh) {
        let (sequence, body) = entry?;
        let body = body.value();
        let is_first = room.idle && found.is_empty();
        if queue.handing().times(sequence) >= shared.alone_from() {
            if is_first {
                return Ok(Found::Alone(Message { sequence, body: body.to_vec() }));
            }
            break;
        }
        let fits = bytes + body.len() <= room.bytes && found.len() < room.messages;
        if !fits && !is_first {
            break;
        }
        bytes += body.len();
        found.push(Message { sequence, body: body.to_vec() });
        if bytes >= READ_BYTES || found.len() >= READ_MESSAGES {
            break;
        }
    }
    for sequence in gone {
        // Its acknowledgement was durable, though the answer said that this is not known.
        queue.handing().forget(sequence);
    }
    Ok(if found.is_empty() { Found::Nothing } else { Found::Several(found) })
}
