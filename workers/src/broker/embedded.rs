//! The queue in one file.
//!
//! [`EmbeddedBroker`] keeps all topics in `broker.redb`, a [redb] database, so that one process can play all roles without a broker
//! beside it. One process at a time has the file open; redb's lock sees to that.
//!
//! **Durable.** `publish`, `ack` and `reject` return when what they did is synced. One thread writes (`writer`), and what is asked for
//! during a sync shares the next one: throughput comes from callers at the same time, or from many messages a call. The contract does
//! not need a durable `ack`; it costs little this way, and what may come again after a crash is then exactly what is in flight.
//!
//! **Poison.** A message that takes the process down is counted all the same, without a write for each delivery: see
//! [`Options::delivery_limit`].
//!
//! **Bounds.** A topic over [`Options::max_bytes`] refuses with [`BrokerError::Full`]. When no more dead messages are taken, a message
//! over the delivery limit stays first in its queue and is handed out every few seconds: the queue stands still and fills up, and
//! publishers are refused, but nothing is lost. [`Broker::replay_dead`] and [`Broker::drop_dead`] make room. Memory holds the messages in
//! flight and at most 128 MiB of bodies on their way in, never the queue.
//!
//! **The file** grows to about twice the largest backlog and is shrunk as far as its tail is free; what is mostly empty space is
//! compacted when it is opened. After a crash the open checks the file, which reads it once.
//!
//! **A full or failing disk** makes calls fail with [`BrokerError::Unavailable`] and the system's own words; when it works again, so
//! does the broker, without a restart.

mod command;
mod consumer;
mod drain;
#[cfg(test)]
mod fault_tests;
mod file;
mod queue;
mod work;
mod writer;

use std::{
    collections::{BTreeMap, HashMap},
    path::{Path, PathBuf},
    sync::{Arc, PoisonError, RwLock},
};

use async_trait::async_trait;
use redb::{Database, ReadableDatabase, ReadableTable};
use tokio_util::sync::CancellationToken;

use self::{
    command::{Change, Link, Outcome},
    consumer::{ALONE_FROM, EmbeddedConsumer},
    file::{DEAD, FILE_NAME, Ledger, Opener},
    queue::Queue,
    writer::Writer,
};
use super::{Broker, BrokerError, Consumer, DeadMessage, Depth, Topic};

/// A larger message is refused.
const MAX_MESSAGE_BYTES: u64 = 64 << 20;

/// Bounds of an [`EmbeddedBroker`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Options {
    /// Bytes that each topic may hold, waiting or handed out, in all of its subscriptions together; a message weighs its body and 64
    /// bytes for each subscription. An empty topic takes one publish of any size.
    pub max_bytes: u64,
    /// How often a message is handed out before it is set aside. A message counts as handed out again when it was rejected, when its
    /// consumer was dropped, and when it may have been in a consumer's hands as the process died (that is, when it is within the
    /// prefetch from the front of the queue). From the third time on, a message is handed out alone and counted before, so that only
    /// the one which does the harm reaches the limit; a limit below 3 does not spare its neighbours. 0 is taken as 1.
    pub delivery_limit: u32,
    /// Dead messages that are kept.
    pub max_dead_messages: u64,
    /// Bytes of dead messages that are kept.
    pub max_dead_bytes: u64,
    /// Memory for pages of the file, in bytes.
    pub cache_bytes: usize,
}

impl Default for Options {
    fn default() -> Self {
        Self { max_bytes: 2 << 30, delivery_limit: 5, max_dead_messages: 10_000, max_dead_bytes: 1 << 30, cache_bytes: 32 << 20 }
    }
}

/// Why the file could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Another process, or another broker in this one, has the file open.
    #[error("{path} is in use by another process: stop that one, or give this one a folder of its own")]
    InUse {
        /// The file.
        path: PathBuf,
    },
    /// The disk failed, or the file is not a queue or damaged.
    #[error("cannot open {path}: {source}")]
    Unusable {
        /// The file.
        path: PathBuf,
        /// What redb or the system says.
        source: Box<redb::Error>,
    },
    /// Another version of this program wrote the file.
    #[error("{path} has layout {found}, and this program reads layout {expected}: empty the queue with the program that wrote it")]
    OtherVersion {
        /// The file.
        path: PathBuf,
        /// The layout's version in the file.
        found: u64,
        /// The layout's version that is understood.
        expected: u64,
    },
    /// The system gives no thread.
    #[error("cannot start the writer of {path}: {source}")]
    NoThread {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: std::io::Error,
    },
}

/// What the handles, the consumers and the writer share.
struct Shared {
    path: PathBuf,
    delivery_limit: u32,
    /// `None` after a failure, until the writer opens it again, and after the end.
    database: RwLock<Option<Database>>,
    queues: RwLock<BTreeMap<u32, Arc<Queue>>>,
    /// What is set aside, as of the last commit.
    dead: RwLock<Depth>,
    /// Nothing more is taken or handed out.
    closed: CancellationToken,
    /// The database is closed.
    ended: CancellationToken,
}

impl Shared {
    /// A message that came back so often is handed out alone.
    fn alone_from(&self) -> u32 {
        ALONE_FROM.min(self.delivery_limit)
    }

    fn queue(&self, topic: Topic, subscription: &str) -> Result<Arc<Queue>, BrokerError> {
        let queues = self.queues.read().unwrap_or_else(PoisonError::into_inner);
        let found = queues.values().find(|queue| queue.topic == topic && queue.subscription == subscription);
        let undeclared = || BrokerError::Unavailable(format!("{topic} has no subscription `{subscription}`: declare it first"));
        found.cloned().ok_or_else(undeclared)
    }

    /// Shows readers where the queues stand after a commit.
    fn show(&self, ledger: &Ledger) {
        *self.dead.write().unwrap_or_else(PoisonError::into_inner) = ledger.dead.into();
        for (&id, row) in &ledger.rows {
            let known = self.queues.read().unwrap_or_else(PoisonError::into_inner).get(&id).cloned();
            match known {
                Some(queue) => queue.show(row),
                None => {
                    let queue = Arc::new(Queue::new(id, row, BTreeMap::new()));
                    self.queues.write().unwrap_or_else(PoisonError::into_inner).insert(id, queue);
                }
            }
        }
    }
}

/// A [`Broker`] in one file.
pub struct EmbeddedBroker {
    shared: Arc<Shared>,
    link: Link,
}

impl EmbeddedBroker {
    /// Opens or creates `broker.redb` in a folder, which is created too. Blocks for as long as a file takes that must be checked after
    /// a crash, or compacted.
    pub fn open(dir: &Path, options: Options) -> Result<Self, OpenError> {
        Self::open_with(dir.join(FILE_NAME), options, file::opener(dir, options.cache_bytes))
    }

    fn open_with(path: PathBuf, options: Options, open: Opener) -> Result<Self, OpenError> {
        // Every message is handed out at least once.
        let delivery_limit = options.delivery_limit.max(1);
        let mut loaded = file::load(&path, &open, Some(ALONE_FROM.min(delivery_limit)))?;
        let mut queues = BTreeMap::new();
        for (&id, row) in &loaded.ledger.rows {
            queues.insert(id, Arc::new(Queue::new(id, row, loaded.returns.remove(&id).unwrap_or_default())));
        }
        let shared = Arc::new(Shared {
            path: path.clone(),
            delivery_limit,
            database: RwLock::new(Some(loaded.database)),
            queues: RwLock::new(queues),
            dead: RwLock::new(loaded.ledger.dead.into()),
            closed: CancellationToken::new(),
            ended: CancellationToken::new(),
        });
        let (link, letters) = Link::new();
        let writer = Writer { shared: Arc::clone(&shared), open, options, ledger: loaded.ledger, drains: HashMap::new() };
        std::thread::Builder::new()
            .name("broker-writer".to_owned())
            .spawn(move || writer.run(letters))
            .map_err(|source| OpenError::NoThread { path, source })?;
        Ok(Self { shared, link })
    }

    async fn call(&self, change: Change) -> Result<Outcome, BrokerError> {
        if self.shared.closed.is_cancelled() {
            return Err(BrokerError::Closed);
        }
        self.link.call(change).await
    }
}

#[async_trait]
impl Broker for EmbeddedBroker {
    async fn declare(&self, topic: Topic, subscription: &str) -> Result<(), BrokerError> {
        self.call(Change::Declare { topic, subscription: subscription.to_owned() }).await?;
        Ok(())
    }

    async fn publish(&self, topic: Topic, bodies: Vec<Vec<u8>>) -> Result<(), BrokerError> {
        let largest = bodies.iter().map(|body| body.len() as u64).max().unwrap_or(0);
        if largest > MAX_MESSAGE_BYTES {
            return Err(BrokerError::TooLarge { bytes: largest, limit: MAX_MESSAGE_BYTES });
        }
        self.call(Change::Publish { topic, bodies }).await?;
        Ok(())
    }

    async fn consume(&self, topic: Topic, subscription: &str, prefetch_bytes: usize) -> Result<Box<dyn Consumer>, BrokerError> {
        let queue = self.shared.queue(topic, subscription)?;
        let consumer = EmbeddedConsumer::take(Arc::clone(&self.shared), self.link.clone(), queue, prefetch_bytes).await?;
        Ok(Box::new(consumer))
    }

    async fn depth(&self, topic: Topic, subscription: &str) -> Result<Depth, BrokerError> {
        if self.shared.closed.is_cancelled() {
            return Err(BrokerError::Closed);
        }
        Ok(self.shared.queue(topic, subscription)?.depth())
    }

    async fn dead_messages(&self, limit: usize) -> Result<Vec<DeadMessage>, BrokerError> {
        let shared = Arc::clone(&self.shared);
        let read = tokio::task::spawn_blocking(move || read_dead(&shared, limit).map_err(|error| unavailable(&shared.path, &error)));
        match read.await {
            Ok(dead) => dead,
            Err(stopped) => Err(BrokerError::Unavailable(format!("reading the dead messages was broken off: {stopped}"))),
        }
    }

    async fn dead_depth(&self) -> Result<Depth, BrokerError> {
        if self.shared.closed.is_cancelled() {
            return Err(BrokerError::Closed);
        }
        Ok(*self.shared.dead.read().unwrap_or_else(PoisonError::into_inner))
    }

    async fn replay_dead(&self, id: &str) -> Result<bool, BrokerError> {
        let Ok(number) = id.parse() else { return Ok(false) };
        Ok(self.call(Change::Replay { number }).await? != Outcome::NotThere)
    }

    async fn drop_dead(&self, id: &str) -> Result<bool, BrokerError> {
        let Ok(number) = id.parse() else { return Ok(false) };
        Ok(self.call(Change::Discard { number }).await? != Outcome::NotThere)
    }

    async fn close(&self) {
        self.shared.closed.cancel();
        self.link.close().await;
        self.shared.ended.cancelled().await;
    }
}

impl Drop for EmbeddedBroker {
    /// Consumers get `None`. The writer finishes what it was asked for and closes the file when the last consumer has gone too;
    /// [`Broker::close`] does it at once, and waits.
    fn drop(&mut self) {
        self.shared.closed.cancel();
    }
}

fn read_dead(shared: &Shared, limit: usize) -> Result<Vec<DeadMessage>, redb::Error> {
    let database = shared.database.read().unwrap_or_else(PoisonError::into_inner);
    let Some(database) = database.as_ref() else { return Err(redb::Error::DatabaseClosed) };
    let table = database.begin_read()?.open_table(DEAD)?;
    let mut dead = Vec::new();
    for entry in table.iter()?.take(limit) {
        let (number, value) = entry?;
        let (topic, subscription, reason, body) = value.value();
        dead.push(DeadMessage {
            id: number.value().to_string(),
            topic: topic.to_owned(),
            subscription: subscription.to_owned(),
            reason: reason.to_owned(),
            body: body.to_vec(),
        });
    }
    Ok(dead)
}

/// A failure in words: which file, and what redb or the system says.
fn unavailable(path: &Path, error: &redb::Error) -> BrokerError {
    BrokerError::Unavailable(format!("{}: {error}", path.display()))
}
