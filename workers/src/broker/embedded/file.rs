//! What lies in the file, and how it is opened.
//!
//! Each subscription is a queue of its own with its own copy of each message: one delete acknowledges, and no message waits for the
//! slowest reader. Sequence numbers are counted in the queue's row, so they rise across restarts, also through an empty queue.
//!
//! | table | key | value |
//! |---|---|---|
//! | `queues` | queue | topic, subscription, next sequence number, messages, bytes, prefetch of the consumer that holds it (0: nobody) |
//! | `messages` | queue, sequence number | body |
//! | `returns` | queue, sequence number | how often the message was handed out and came back; no row: never |
//! | `dead` | number | topic, subscription, reason, body |
//! | `state` | name | number: version of this layout, messages and bytes in `dead` |

use std::{collections::BTreeMap, fs::File, path::Path};

use redb::{Database, DatabaseError, ReadableDatabase, ReadableTable, Table, TableDefinition, WriteTransaction};

use super::OpenError;
use crate::broker::{Depth, Topic, UnknownTopic};

pub(super) const FILE_NAME: &str = "broker.redb";

type QueueValue = (&'static str, &'static str, u64, u64, u64, u64);
type DeadValue = (&'static str, &'static str, &'static str, &'static [u8]);

const QUEUES: TableDefinition<'_, u32, QueueValue> = TableDefinition::new("queues");
pub(super) const MESSAGES: TableDefinition<'_, (u32, u64), &[u8]> = TableDefinition::new("messages");
const RETURNS: TableDefinition<'_, (u32, u64), u32> = TableDefinition::new("returns");
pub(super) const DEAD: TableDefinition<'_, u64, DeadValue> = TableDefinition::new("dead");
const STATE: TableDefinition<'_, &str, u64> = TableDefinition::new("state");

const LAYOUT: u64 = 1;

/// A file smaller than this is left as it is, however empty.
const COMPACT_FROM_BYTES: u64 = 64 << 20;

/// At most so many messages are handed out without acknowledgement, so that empty bodies are bounded too.
pub(super) const MAX_IN_FLIGHT: usize = 10_000;

/// Messages and the bytes of their bodies.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Fill {
    pub(super) messages: u64,
    pub(super) bytes: u64,
}

impl From<Fill> for Depth {
    fn from(Fill { messages, bytes }: Fill) -> Self {
        Self { messages, bytes: Some(bytes) }
    }
}

/// The row of a queue.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Row {
    pub(super) topic: Topic,
    pub(super) subscription: String,
    pub(super) next: u64,
    pub(super) fill: Fill,
    /// Prefetch of the consumer that holds the queue, in bytes; 0 when nobody held it since the file was opened.
    pub(super) held: u64,
}

/// What the writer knows of the file without reading it. The file is the truth: after a failed transaction it is read again.
#[derive(Debug, Clone, Default)]
pub(super) struct Ledger {
    pub(super) rows: BTreeMap<u32, Row>,
    /// Messages set aside.
    pub(super) dead: Fill,
}

impl Ledger {
    pub(super) fn find(&self, topic: Topic, subscription: &str) -> Option<u32> {
        self.rows.iter().find(|(_, row)| row.topic == topic && row.subscription == subscription).map(|(&id, _)| id)
    }

    /// Writes every row that `before` does not have in the same form.
    pub(super) fn save(&self, before: &Self, tables: &mut Tables<'_>) -> Result<(), redb::Error> {
        for (id, row) in &self.rows {
            if before.rows.get(id) != Some(row) {
                let topic = row.topic.to_string();
                let value = (topic.as_str(), row.subscription.as_str(), row.next, row.fill.messages, row.fill.bytes, row.held);
                tables.queues.insert(id, value)?;
            }
        }
        if self.dead != before.dead {
            tables.state.insert("dead-messages", self.dead.messages)?;
            tables.state.insert("dead-bytes", self.dead.bytes)?;
        }
        Ok(())
    }
}

/// The tables of one write transaction.
pub(super) struct Tables<'txn> {
    queues: Table<'txn, u32, QueueValue>,
    pub(super) messages: Table<'txn, (u32, u64), &'static [u8]>,
    pub(super) returns: Table<'txn, (u32, u64), u32>,
    pub(super) dead: Table<'txn, u64, DeadValue>,
    state: Table<'txn, &'static str, u64>,
}

impl<'txn> Tables<'txn> {
    pub(super) fn open(transaction: &'txn WriteTransaction) -> Result<Self, redb::Error> {
        Ok(Self {
            queues: transaction.open_table(QUEUES)?,
            messages: transaction.open_table(MESSAGES)?,
            returns: transaction.open_table(RETURNS)?,
            dead: transaction.open_table(DEAD)?,
            state: transaction.open_table(STATE)?,
        })
    }
}

/// How a database is opened; tests put a failing disk here.
pub(super) type Opener = Box<dyn Fn() -> Result<Database, DatabaseError> + Send>;

/// Opens the file in a folder, creating both.
pub(super) fn opener(dir: &Path, cache_bytes: usize) -> Opener {
    let dir = dir.to_owned();
    Box::new(move || {
        std::fs::create_dir_all(&dir)?;
        let path = dir.join(FILE_NAME);
        let is_new = !path.exists();
        let database = Database::builder().set_cache_size(cache_bytes).create(&path)?;
        if is_new {
            // A file survives a power failure only when the folder that names it was synced too.
            File::open(&dir)?.sync_all()?;
        }
        Ok(database)
    })
}

/// What [`load`] found.
pub(super) struct Loaded {
    pub(super) database: Database,
    pub(super) ledger: Ledger,
    /// By queue: how often messages came back, where they did.
    pub(super) returns: BTreeMap<u32, BTreeMap<u64, u32>>,
}

/// Opens the database and reads the ledger. Compacts a file that is mostly empty space.
///
/// `start` is given when the process starts: what its predecessor may have had in flight is counted, see [`count_in_flight`].
pub(super) fn load(path: &Path, open: &Opener, start: Option<u32>) -> Result<Loaded, OpenError> {
    let unusable = |source: redb::Error| OpenError::Unusable { path: path.to_owned(), source: Box::new(source) };
    let mut database = open().map_err(|error| match error {
        DatabaseError::DatabaseAlreadyOpen => OpenError::InUse { path: path.to_owned() },
        error => unusable(error.into()),
    })?;
    let mut ledger = read_ledger(path, &database)?;
    if is_mostly_empty(path, &ledger) {
        tracing::info!(path = %path.display(), "the queue's file is mostly empty space: compacting it");
        database.compact().map_err(|error| unusable(error.into()))?;
    }
    if let Some(alone_from) = start {
        count_in_flight(&database, &mut ledger, alone_from).map_err(unusable)?;
    }
    let returns = read_returns(&database).map_err(unusable)?;
    Ok(Loaded { database, ledger, returns })
}

fn is_mostly_empty(path: &Path, ledger: &Ledger) -> bool {
    // A file that cannot be measured is one of a test's own storage, or about to fail with a better message than this could give.
    let on_disk = std::fs::metadata(path).map_or(0, |metadata| metadata.len());
    let kept: u64 = ledger.rows.values().map(|row| row.fill.bytes).sum::<u64>() + ledger.dead.bytes;
    on_disk >= COMPACT_FROM_BYTES && kept < on_disk / 4
}

fn read_ledger(path: &Path, database: &Database) -> Result<Ledger, OpenError> {
    let unusable = |source: redb::Error| OpenError::Unusable { path: path.to_owned(), source: Box::new(source) };
    create_tables(database).map_err(unusable)?;
    let read = || -> Result<(u64, Ledger), redb::Error> {
        let transaction = database.begin_read()?;
        let state = transaction.open_table(STATE)?;
        let number = |name: &str| -> Result<u64, redb::Error> { Ok(state.get(name)?.map_or(0, |value| value.value())) };
        let dead = Fill { messages: number("dead-messages")?, bytes: number("dead-bytes")? };
        let mut rows = BTreeMap::new();
        for entry in transaction.open_table(QUEUES)?.iter()? {
            let (id, value) = entry?;
            let (topic, subscription, next, messages, bytes, held) = value.value();
            let topic = topic.parse().map_err(|error: UnknownTopic| redb::Error::Corrupted(error.to_string()))?;
            let row = Row { topic, subscription: subscription.to_owned(), next, fill: Fill { messages, bytes }, held };
            rows.insert(id.value(), row);
        }
        Ok((number("layout")?, Ledger { rows, dead }))
    };
    let (layout, ledger) = read().map_err(unusable)?;
    if layout != LAYOUT {
        return Err(OpenError::OtherVersion { path: path.to_owned(), found: layout, expected: LAYOUT });
    }
    Ok(ledger)
}

/// A new file gets its tables, so that reading never meets a missing one.
fn create_tables(database: &Database) -> Result<(), redb::Error> {
    let has_tables = database.begin_read()?.list_tables()?.next().is_some();
    if has_tables {
        return Ok(());
    }
    let transaction = database.begin_write()?;
    Tables::open(&transaction)?.state.insert("layout", LAYOUT)?;
    transaction.commit()?;
    Ok(())
}

fn read_returns(database: &Database) -> Result<BTreeMap<u32, BTreeMap<u64, u32>>, redb::Error> {
    let transaction = database.begin_read()?;
    let mut returns: BTreeMap<u32, BTreeMap<u64, u32>> = BTreeMap::new();
    for entry in transaction.open_table(RETURNS)?.iter()? {
        let (key, times) = entry?;
        let (queue, sequence) = key.value();
        returns.entry(queue).or_default().insert(sequence, times.value());
    }
    Ok(returns)
}

/// Counts what may have been in a consumer's hands when the process died, in one transaction, and forgets the holders.
///
/// No write marks a message as handed out; that would cost a sync for each. It need not: messages are handed out in order and within
/// the prefetch, so what was in flight lies among the first `held` bytes of the queue. All of those count as handed out once more: a
/// message that was not is merely announced as a repeat. `alone_from` ends the guess: such a message was handed out alone, and
/// counted before.
fn count_in_flight(database: &Database, ledger: &mut Ledger, alone_from: u32) -> Result<(), redb::Error> {
    if ledger.rows.values().all(|row| row.held == 0) {
        return Ok(());
    }
    let before = ledger.clone();
    let transaction = database.begin_write()?;
    {
        let mut tables = Tables::open(&transaction)?;
        for (&id, row) in &mut ledger.rows {
            let held = std::mem::take(&mut row.held);
            if held == 0 {
                continue;
            }
            let mut bytes = 0;
            for (counted, entry) in tables.messages.range((id, 0)..=(id, u64::MAX))?.take(MAX_IN_FLIGHT).enumerate() {
                let (key, body) = entry?;
                bytes += body.value().len() as u64;
                let times = tables.returns.get(key.value())?.map_or(0, |times| times.value());
                if (bytes > held && counted > 0) || times >= alone_from {
                    break;
                }
                tables.returns.insert(key.value(), times + 1)?;
            }
        }
        ledger.save(&before, &mut tables)?;
    }
    transaction.commit()?;
    Ok(())
}
