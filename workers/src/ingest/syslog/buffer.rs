//! Messages on their way from the sockets of one listener to the broker.
//!
//! A message waits at most [`WAIT`] for others to share a broker message with. While the broker is full or away, or the quota used up,
//! the batch at hand is tried again and again and the buffer fills behind it; what happens then is for the transport to say.

use std::{sync::Arc, time::Duration};

use redoubt_engine::{event::RawEvent, source::Source};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore, mpsc},
    time::{Instant, sleep, timeout_at},
};

use super::{
    super::{Shared, intake::event_id, lifecycle::Lifecycle, log_throttle::LogThrottle},
    Drops,
};
use crate::{batch, broker::BrokerError};

/// How long a message waits for others.
const WAIT: Duration = Duration::from_millis(50);
/// A batch is closed when it has so many messages,
const BATCH_MESSAGES: usize = 500;
/// or so many bytes of them.
const BATCH_BYTES: usize = 256 << 10;
/// Most messages that wait,
const BUFFER_MESSAGES: usize = 10_000;
/// and most bytes of them.
const BUFFER_BYTES: usize = 16 << 20;
/// What a message takes besides its text.
const OVERHEAD: usize = 256;
/// How long a broker that is away is given.
const AWAY: Duration = Duration::from_secs(1);
/// Shortest and longest time before a batch is tried again.
const AGAIN: (Duration, Duration) = (Duration::from_millis(20), Duration::from_secs(5));

/// The way in. The buffer ends, after its last batch, when all of these are dropped.
#[derive(Debug, Clone)]
pub(super) struct Buffer {
    queue: mpsc::Sender<Waiting>,
    bytes: Arc<Semaphore>,
}

/// The buffer is full, or has ended.
#[derive(Debug)]
pub(super) struct NoRoom;

#[derive(Debug)]
struct Waiting {
    received_millis: i64,
    sender: Arc<str>,
    body: String,
    room: OwnedSemaphorePermit,
}

impl Buffer {
    /// Starts a buffer for a source. Its task is among the listener's.
    pub(super) fn start(source: &str, shared: Arc<Shared>, life: &Lifecycle) -> Self {
        let (queue, waiting) = mpsc::channel(BUFFER_MESSAGES);
        let buffer = Self { queue, bytes: Arc::new(Semaphore::new(BUFFER_BYTES)) };
        let publisher = Publisher {
            source: source.to_owned(),
            shared,
            waiting,
            kill: life.kill.clone(),
            drops: Drops::default(),
            delays: LogThrottle::default(),
        };
        life.tracker.spawn(publisher.run());
        buffer
    }

    /// Adds a message if there is room now.
    pub(super) fn try_push(&self, received_millis: i64, sender: &Arc<str>, body: String) -> Result<(), NoRoom> {
        let room = self.bytes.clone().try_acquire_many_owned(cost(&body)).map_err(|_| NoRoom)?;
        let sender = sender.clone();
        self.queue.try_send(Waiting { received_millis, sender, body, room }).map_err(|_| NoRoom)
    }

    /// Adds a message, waiting for room.
    pub(super) async fn push(&self, received_millis: i64, sender: &Arc<str>, body: String) -> Result<(), NoRoom> {
        let room = self.bytes.clone().acquire_many_owned(cost(&body)).await.map_err(|_| NoRoom)?;
        let sender = sender.clone();
        self.queue.send(Waiting { received_millis, sender, body, room }).await.map_err(|_| NoRoom)
    }
}

/// The room that a message takes: never more than there is in all, or it would wait for ever.
fn cost(body: &str) -> u32 {
    u32::try_from((body.len() + OVERHEAD).min(BUFFER_BYTES)).unwrap_or(u32::MAX)
}

/// The way out.
struct Publisher {
    source: String,
    shared: Arc<Shared>,
    waiting: mpsc::Receiver<Waiting>,
    kill: tokio_util::sync::CancellationToken,
    drops: Drops,
    delays: LogThrottle,
}

impl Publisher {
    async fn run(mut self) {
        let mut last_known = None;
        while let Some(first) = self.waiting.recv().await {
            let batch = self.collect(first).await;
            // A source that was just taken out of the plan still gets its last messages through.
            last_known = self.shared.plan().sources.get(&self.source).cloned().or(last_known);
            if let Some(source) = &last_known {
                self.deliver(source, batch).await;
            }
        }
    }

    async fn collect(&mut self, first: Waiting) -> Vec<Waiting> {
        let until = Instant::now() + WAIT;
        let mut bytes = first.body.len();
        let mut batch = vec![first];
        while batch.len() < BATCH_MESSAGES && bytes < BATCH_BYTES {
            let Ok(Some(next)) = timeout_at(until, self.waiting.recv()).await else { break };
            bytes += next.body.len();
            batch.push(next);
        }
        batch
    }

    /// Publishes a batch, however long it takes; only the end of the drain time gives it up.
    async fn deliver(&self, source: &Arc<Source>, batch: Vec<Waiting>) {
        let mut rooms = Vec::with_capacity(batch.len());
        let mut events = Vec::with_capacity(batch.len());
        for Waiting { received_millis, sender, body, room } in batch {
            rooms.push(room);
            let (id, source) = (event_id(received_millis), source.name.clone());
            events.push(RawEvent { id, received_millis, source, sender: Some(sender), body });
        }
        let bytes = events.iter().map(|event| event.body.len() as u64).sum();
        let message = match batch::encode_events(&events) {
            Ok(message) => message,
            Err(error) => {
                tracing::error!(%error, source = %source.name, "a batch could not be written");
                self.drops.count(&self.shared, source, "too_large", events.len(), None);
                return;
            }
        };
        let count = events.len();
        drop(events);
        tokio::select! {
            () = self.kill.cancelled() => self.drops.count(&self.shared, source, "shutdown", count, None),
            () = self.publish(source, &message, count, bytes) => {}
        }
    }

    async fn publish(&self, source: &Arc<Source>, message: &[u8], count: usize, bytes: u64) {
        loop {
            let wait = match self.shared.quotas.take(source, count, Instant::now()) {
                Ok(()) => match self.shared.publish(source, vec![message.to_vec()], count, bytes).await {
                    Ok(()) => return,
                    Err(BrokerError::TooLarge { .. }) => return self.drops.count(&self.shared, source, "too_large", count, None),
                    Err(error) => {
                        self.delayed(source, &error.to_string());
                        if let BrokerError::Full { retry_after, .. } = error { retry_after } else { AWAY }
                    }
                },
                Err(wait) => {
                    self.delayed(source, "the quota is used up");
                    wait
                }
            };
            sleep(wait.clamp(AGAIN.0, AGAIN.1)).await;
        }
    }

    fn delayed(&self, source: &Source, reason: &str) {
        if let Some(times) = self.delays.due(Instant::now()) {
            tracing::warn!(source = %source.name, reason, times, "syslog messages wait");
        }
    }
}
