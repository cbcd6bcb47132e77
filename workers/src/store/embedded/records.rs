//! Records: the truth in one redb file, and an index of it to search.
//!
//! A write is a redb transaction and is durable when it returns. The index is derived: it follows the list of changes that the same
//! transaction writes, and its commits say how far they got, so that a crash at any moment costs a moment of catching up. An index that is
//! lost or not readable is built anew.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::Duration;

use redb::{Database, ReadableDatabase, ReadableTable, TableDefinition, WriteTransaction};
use serde_json::{Map, Value};
use tantivy::{IndexWriter, Term};
use tokio::sync::oneshot;
use tracing::warn;

use super::contained;
use super::document::Prepared;
use super::partition::{Partition, index_failed, remove_folder, sweep, unavailable};
use super::schema::FIELDS;
use crate::store::{Expected, Family, Put, PutOutcome, Record, StoreError};

/// The families that are records.
pub(super) const FAMILIES: [Family; 2] = [Family::Alerts, Family::Responses];
/// The version last given, under the one key there is. Versions rise over all records, so one never comes twice for an id, not even
/// after a deletion.
const LAST_VERSION: TableDefinition<'_, (), u64> = TableDefinition::new("last-version");
/// So many changes go into one commit of the index.
const MAX_CHANGES: usize = 5_000;
/// So many records are deleted in one transaction.
const MAX_DELETIONS: usize = 5_000;
/// After a failure the index tries to catch up again after this time.
const RETRY: Duration = Duration::from_secs(1);

/// A record as it lies in its table: version, receive time, JSON.
type Row = (u64, i64, &'static [u8]);

/// Records of a family by id.
fn rows(family: Family) -> TableDefinition<'static, &'static str, Row> {
    TableDefinition::new(family.as_str())
}

/// Ids of a family by the version of their last change, the order in which the index follows. An id without a record is a deletion.
fn changes(family: Family) -> TableDefinition<'static, u64, &'static str> {
    TableDefinition::new(match family {
        Family::Responses => "responses-changes",
        _ => "alerts-changes",
    })
}

/// All records.
pub(super) struct Records {
    path: PathBuf,
    database: Database,
    indices: HashMap<Family, Arc<Partition>>,
}

impl Records {
    /// Opens the file and the indices in a folder, or makes them.
    pub(super) fn open(folder: &Path) -> Result<Self, StoreError> {
        let path = folder.join("records.redb");
        let database = Database::create(&path).map_err(|error| unavailable(&path, &error))?;
        sweep(folder).map_err(|error| unavailable(folder, &error))?;
        let mut indices = HashMap::new();
        let records = Self { path, database, indices: HashMap::new() };
        let last = records.create_tables()?;
        for family in FAMILIES {
            indices.insert(family, Arc::new(open_index(&folder.join(family.as_str()), last)?));
        }
        Ok(Self { indices, ..records })
    }

    /// The index of a family.
    pub(super) fn index(&self, family: Family) -> Option<&Arc<Partition>> {
        self.indices.get(&family)
    }

    /// Writes records in one transaction; durable when it returns.
    pub(super) fn put(&self, puts: &[Put]) -> Result<Vec<PutOutcome>, StoreError> {
        for put in puts {
            if !FAMILIES.contains(&put.family) {
                return Err(StoreError::BadRequest(format!("{} are a time series; write them with bulk", put.family)));
            }
            Prepared::from_parts(put.id.clone(), put.received_millis, put.body.clone())
                .map_err(|refusal| StoreError::BadRequest(format!("{} {}: {refusal}", put.family, put.id)))?;
        }
        let transaction = self.begin()?;
        let mut outcomes = Vec::with_capacity(puts.len());
        for put in puts {
            outcomes.push(self.put_one(&transaction, put)?);
        }
        transaction.commit().map_err(|error| self.failed(&error))?;
        Ok(outcomes)
    }

    fn put_one(&self, transaction: &WriteTransaction, put: &Put) -> Result<PutOutcome, StoreError> {
        let mut rows = transaction.open_table(rows(put.family)).map_err(|error| self.failed(&error))?;
        let there = match rows.get(put.id.as_str()).map_err(|error| self.failed(&error))? {
            Some(row) => Some(self.record(&put.id, row.value())?),
            None => None,
        };
        let found = there.as_ref().map_or(Expected::Absent, |record| Expected::Version(record.version));
        if found != put.expected {
            return Ok(PutOutcome::Conflict(there));
        }
        let version = self.next_version(transaction)?;
        let json = serde_json::to_vec(&put.body).map_err(|error| StoreError::BadRequest(format!("{}: {error}", put.id)))?;
        rows.insert(put.id.as_str(), (version, put.received_millis, json.as_slice())).map_err(|error| self.failed(&error))?;
        let mut changes = transaction.open_table(changes(put.family)).map_err(|error| self.failed(&error))?;
        if let Some(before) = there {
            changes.remove(before.version).map_err(|error| self.failed(&error))?;
        }
        changes.insert(version, put.id.as_str()).map_err(|error| self.failed(&error))?;
        Ok(PutOutcome::Written(version))
    }

    /// The record of an id.
    pub(super) fn get(&self, family: Family, id: &str) -> Result<Option<Record>, StoreError> {
        let transaction = self.database.begin_read().map_err(|error| self.failed(&error))?;
        let rows = transaction.open_table(rows(family)).map_err(|error| self.failed(&error))?;
        let row = rows.get(id).map_err(|error| self.failed(&error))?;
        row.map(|row| self.record(id, row.value())).transpose()
    }

    /// Deletes the records received before a time; returns how many.
    pub(super) fn delete_older_than(&self, family: Family, received_millis: i64) -> Result<u64, StoreError> {
        let mut deleted = 0;
        loop {
            let transaction = self.begin()?;
            let count = self.delete_some(&transaction, family, received_millis)?;
            transaction.commit().map_err(|error| self.failed(&error))?;
            deleted += count as u64;
            if count < MAX_DELETIONS {
                return Ok(deleted);
            }
        }
    }

    fn delete_some(&self, transaction: &WriteTransaction, family: Family, received_millis: i64) -> Result<usize, StoreError> {
        let mut rows = transaction.open_table(rows(family)).map_err(|error| self.failed(&error))?;
        let mut old = Vec::new();
        for row in rows.iter().map_err(|error| self.failed(&error))? {
            let (id, row) = row.map_err(|error| self.failed(&error))?;
            let (version, received, _) = row.value();
            if received < received_millis {
                old.push((id.value().to_owned(), version));
                if old.len() == MAX_DELETIONS {
                    break;
                }
            }
        }
        let mut changes = transaction.open_table(changes(family)).map_err(|error| self.failed(&error))?;
        for (id, version) in &old {
            rows.remove(id.as_str()).map_err(|error| self.failed(&error))?;
            changes.remove(version).map_err(|error| self.failed(&error))?;
            changes.insert(self.next_version(transaction)?, id.as_str()).map_err(|error| self.failed(&error))?;
        }
        Ok(old.len())
    }

    /// Makes the tables, so that readers find them; returns the version last given.
    fn create_tables(&self) -> Result<u64, StoreError> {
        let transaction = self.begin()?;
        for family in FAMILIES {
            transaction.open_table(rows(family)).map_err(|error| self.failed(&error))?;
            transaction.open_table(changes(family)).map_err(|error| self.failed(&error))?;
        }
        let last = {
            let table = transaction.open_table(LAST_VERSION).map_err(|error| self.failed(&error))?;
            table.get(()).map_err(|error| self.failed(&error))?.map_or(0, |last| last.value())
        };
        transaction.commit().map_err(|error| self.failed(&error))?;
        Ok(last)
    }

    fn next_version(&self, transaction: &WriteTransaction) -> Result<u64, StoreError> {
        let mut table = transaction.open_table(LAST_VERSION).map_err(|error| self.failed(&error))?;
        let version = table.get(()).map_err(|error| self.failed(&error))?.map_or(0, |last| last.value()) + 1;
        table.insert((), version).map_err(|error| self.failed(&error))?;
        Ok(version)
    }

    fn begin(&self) -> Result<WriteTransaction, StoreError> {
        self.database.begin_write().map_err(|error| self.failed(&error))
    }

    fn record(&self, id: &str, (version, _, json): (u64, i64, &[u8])) -> Result<Record, StoreError> {
        let body: Map<String, Value> =
            serde_json::from_slice(json).map_err(|error| StoreError::Unavailable(format!("{}, {id}: {error}", self.path.display())))?;
        Ok(Record { version, body })
    }

    fn failed(&self, error: &dyn std::fmt::Display) -> StoreError {
        unavailable(&self.path, error)
    }

    /// The changes after a version, at most [`MAX_CHANGES`]: version, id, and the record where it still is.
    #[expect(clippy::type_complexity, reason = "a row of a query, taken apart at once")]
    fn changes_after(&self, family: Family, version: u64) -> Result<Vec<(u64, String, Option<(i64, Record)>)>, StoreError> {
        let transaction = self.database.begin_read().map_err(|error| self.failed(&error))?;
        let rows = transaction.open_table(rows(family)).map_err(|error| self.failed(&error))?;
        let changes = transaction.open_table(changes(family)).map_err(|error| self.failed(&error))?;
        let mut found = Vec::new();
        for change in changes.range(version + 1..).map_err(|error| self.failed(&error))?.take(MAX_CHANGES) {
            let (version, id) = change.map_err(|error| self.failed(&error))?;
            let id = id.value().to_owned();
            let row = rows.get(id.as_str()).map_err(|error| self.failed(&error))?;
            let record = row.map(|row| Ok((row.value().1, self.record(&id, row.value())?))).transpose()?;
            found.push((version.value(), id, record));
        }
        Ok(found)
    }

    /// Forgets deletions that the index has followed.
    fn forget_deletions(&self, family: Family, versions: &[u64]) -> Result<(), StoreError> {
        if versions.is_empty() {
            return Ok(());
        }
        let transaction = self.begin()?;
        {
            let mut changes = transaction.open_table(changes(family)).map_err(|error| self.failed(&error))?;
            for version in versions {
                changes.remove(version).map_err(|error| self.failed(&error))?;
            }
        }
        transaction.commit().map_err(|error| self.failed(&error))
    }
}

/// Opens an index of records. One that cannot be read, or that is ahead of the records, is thrown away to be built anew.
fn open_index(folder: &Path, last_version: u64) -> Result<Partition, StoreError> {
    let usable = Partition::open(folder)
        .and_then(|partition| Ok((followed(&partition)? <= last_version).then_some(partition)))
        .unwrap_or_else(|error| {
            warn!(folder = %folder.display(), %error, "an index of records cannot be read");
            None
        });
    match usable {
        Some(partition) => Ok(partition),
        None => {
            warn!(folder = %folder.display(), "an index of records is built anew");
            remove_folder(folder).map_err(|error| unavailable(folder, &error))?;
            Partition::open(folder)
        }
    }
}

/// The last version that an index has followed.
fn followed(partition: &Partition) -> Result<u64, StoreError> {
    let payload = partition.commit_payload().map_err(|error| index_failed(&error))?;
    Ok(payload.and_then(|payload| payload.parse().ok()).unwrap_or(0))
}

/// What the thread that keeps the indices up to date is asked to do.
pub(super) enum Command {
    /// Something was written.
    Changed,
    /// Catch up now, and answer when done.
    CatchUp(oneshot::Sender<Result<(), StoreError>>),
    /// Catch up and end.
    Close,
}

/// The thread that keeps the indices up to date.
pub(super) struct Follower {
    records: Arc<Records>,
    buffer_bytes: usize,
    writers: HashMap<Family, IndexWriter<Prepared>>,
}

impl Follower {
    pub(super) fn new(records: Arc<Records>, buffer_bytes: usize) -> Self {
        Self { records, buffer_bytes, writers: HashMap::new() }
    }

    /// Works until told to close, or until nobody can ask any more. Catches up at once, then after each change.
    pub(super) fn run(mut self, commands: &Receiver<Command>) {
        let mut behind = self.catch_up_all().is_err();
        loop {
            let command = if behind {
                match commands.recv_timeout(RETRY) {
                    Ok(command) => command,
                    Err(RecvTimeoutError::Timeout) => Command::Changed,
                    Err(RecvTimeoutError::Disconnected) => break,
                }
            } else {
                match commands.recv() {
                    Ok(command) => command,
                    Err(_) => break,
                }
            };
            let mut askers = Vec::new();
            let mut close = false;
            for command in std::iter::once(command).chain(commands.try_iter()) {
                match command {
                    Command::Changed => {}
                    Command::CatchUp(asker) => askers.push(asker),
                    Command::Close => close = true,
                }
            }
            let done = self.catch_up_all();
            behind = done.is_err();
            for asker in askers {
                // The asker may be gone.
                let _ = asker.send(done.as_ref().copied().map_err(|error| StoreError::Unavailable(error.to_string())));
            }
            if close {
                break;
            }
        }
        for (family, writer) in self.writers {
            if let Err(error) = writer.wait_merging_threads() {
                warn!(%family, %error, "a merge failed; the segments stay as they are");
            }
        }
    }

    fn catch_up_all(&mut self) -> Result<(), StoreError> {
        let mut outcome = Ok(());
        for family in FAMILIES {
            if let Err(error) = contained(|| self.catch_up(family)) {
                warn!(%family, %error, "the index of records is behind; trying again soon");
                self.writers.remove(&family);
                outcome = Err(error);
            }
        }
        outcome
    }

    /// Brings the index of a family up to date.
    fn catch_up(&mut self, family: Family) -> Result<(), StoreError> {
        let records = Arc::clone(&self.records);
        let Some(partition) = records.index(family) else { return Ok(()) };
        loop {
            let found = records.changes_after(family, followed(partition)?)?;
            let Some((last, ..)) = found.last() else { return Ok(()) };
            let last = *last;
            let writer = match self.writers.entry(family) {
                std::collections::hash_map::Entry::Occupied(entry) => entry.into_mut(),
                std::collections::hash_map::Entry::Vacant(entry) => {
                    entry.insert(partition.writer(self.buffer_bytes).map_err(|error| index_failed(&error))?)
                }
            };
            let mut deletions = Vec::new();
            for (version, id, record) in found {
                writer.delete_term(Term::from_field_text(FIELDS.id, &id));
                match record {
                    None => deletions.push(version),
                    Some((received, record)) => match Prepared::from_parts(id, received, record.body) {
                        Ok(document) => {
                            writer.add_document(document).map_err(|error| index_failed(&error))?;
                        }
                        Err(refusal) => warn!(%family, %refusal, "a record cannot be searched"),
                    },
                }
            }
            let mut commit = writer.prepare_commit().map_err(|error| index_failed(&error))?;
            commit.set_payload(&last.to_string());
            commit.commit().map_err(|error| index_failed(&error))?;
            partition.committed();
            records.forget_deletions(family, &deletions)?;
        }
    }
}
