//! Records: the truth, in one redb file.
//!
//! A write is a transaction and is durable when it returns. With it goes a line in the family's list of changes, which the index of the
//! family follows ([`super::follower`]).
//!
//! | table | key | value |
//! |---|---|---|
//! | `alerts`, `responses` | id | version, receive time, JSON |
//! | `alerts-changes`, `responses-changes` | version of the last change | id; one without a record was deleted |
//! | `last-version` | nothing | the version last given |
//!
//! Versions rise over all records, so that none comes twice for an id, not even after a deletion. After a failure of the disk redb answers
//! nothing more; the file is then opened anew.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::{PoisonError, RwLock};

use redb::{Database, ReadableDatabase, ReadableTable, TableDefinition, WriteTransaction};
use serde_json::{Map, Value};

use super::document::Prepared;
use super::partition::unavailable;
use crate::store::{Expected, Family, Put, PutOutcome, Record, StoreError};

/// The families that are records.
pub(super) const FAMILIES: [Family; 2] = [Family::Alerts, Family::Responses];

const LAST_VERSION: TableDefinition<'_, (), u64> = TableDefinition::new("last-version");
/// Memory for pages of the file, in bytes.
const CACHE_BYTES: usize = 32 << 20;
/// So many changes are read at a time.
const MAX_CHANGES: usize = 2_000;
/// So many records are deleted in one transaction.
const MAX_DELETIONS: usize = 5_000;

/// A record as it lies in its table: version, receive time, JSON.
type Row = (u64, i64, &'static [u8]);

fn rows(family: Family) -> TableDefinition<'static, &'static str, Row> {
    TableDefinition::new(family.as_str())
}

fn changes(family: Family) -> TableDefinition<'static, u64, &'static str> {
    TableDefinition::new(match family {
        Family::Responses => "responses-changes",
        _ => "alerts-changes",
    })
}

/// A change of a record.
pub(super) struct Change {
    pub(super) version: u64,
    pub(super) id: String,
    /// Receive time in milliseconds since 1970, and the document; `None` where it was deleted.
    pub(super) record: Option<(i64, Map<String, Value>)>,
}

/// All records.
pub(super) struct Records {
    path: PathBuf,
    /// `None` after a failure, until it is opened anew.
    database: RwLock<Option<Database>>,
}

impl Records {
    /// Opens the file in a folder, or makes it.
    pub(super) fn open(folder: &Path) -> Result<Self, StoreError> {
        let records = Self { path: folder.join("records.redb"), database: RwLock::new(None) };
        records.with(|_| Ok(()))?;
        Ok(records)
    }

    /// Writes records in one transaction; durable when it returns.
    pub(super) fn put(&self, puts: Vec<Put>) -> Result<Vec<PutOutcome>, StoreError> {
        let writes = puts.into_iter().map(Write::new).collect::<Result<Vec<Write>, StoreError>>()?;
        self.with(|database| {
            let transaction = database.begin_write()?;
            let outcomes = writes.iter().map(|write| write.run(&transaction)).collect::<Result<_, _>>()?;
            transaction.commit()?;
            Ok(outcomes)
        })
    }

    /// The record of an id.
    pub(super) fn get(&self, family: Family, id: &str) -> Result<Option<Record>, StoreError> {
        self.with(|database| {
            let rows = database.begin_read()?.open_table(rows(family))?;
            let Some(row) = rows.get(id)? else { return Ok(None) };
            let (version, _, json) = row.value();
            Ok(Some(Record { version, body: read(id, json)? }))
        })
    }

    /// Deletes the records received before a time; returns how many.
    pub(super) fn delete_older_than(&self, family: Family, received_millis: i64) -> Result<u64, StoreError> {
        let mut deleted = 0;
        loop {
            let count = self.with(|database| {
                let transaction = database.begin_write()?;
                let count = delete_some(&transaction, family, received_millis)?;
                transaction.commit()?;
                Ok(count)
            })?;
            deleted += count as u64;
            if count < MAX_DELETIONS {
                return Ok(deleted);
            }
        }
    }

    /// The version last given.
    pub(super) fn last_version(&self) -> Result<u64, StoreError> {
        self.with(|database| Ok(database.begin_read()?.open_table(LAST_VERSION)?.get(())?.map_or(0, |last| last.value())))
    }

    /// The changes of a family after a version, in order, as many as go into one commit.
    pub(super) fn changes_after(&self, family: Family, version: u64) -> Result<Vec<Change>, StoreError> {
        self.with(|database| {
            let transaction = database.begin_read()?;
            let rows = transaction.open_table(rows(family))?;
            let changes = transaction.open_table(changes(family))?;
            let mut found = Vec::new();
            for change in changes.range(version + 1..)?.take(MAX_CHANGES) {
                let (version, id) = change?;
                let id = id.value().to_owned();
                let record = match rows.get(id.as_str())? {
                    None => None,
                    Some(row) => {
                        let (_, received_millis, json) = row.value();
                        Some((received_millis, read(&id, json)?))
                    }
                };
                found.push(Change { version: version.value(), id, record });
            }
            Ok(found)
        })
    }

    /// Forgets deletions that the index has followed.
    pub(super) fn forget_deletions(&self, family: Family, versions: &[u64]) -> Result<(), StoreError> {
        if versions.is_empty() {
            return Ok(());
        }
        self.with(|database| {
            let transaction = database.begin_write()?;
            {
                let mut changes = transaction.open_table(changes(family))?;
                for version in versions {
                    changes.remove(version)?;
                }
            }
            Ok(transaction.commit()?)
        })
    }

    /// Works on the file; opens it first where that is needed. After an error nothing is kept of it in memory.
    fn with<T>(&self, work: impl Fn(&Database) -> Result<T, redb::Error>) -> Result<T, StoreError> {
        let failed = |error: &redb::Error| unavailable(&self.path, error);
        if self.database.read().unwrap_or_else(PoisonError::into_inner).is_none() {
            let mut database = self.database.write().unwrap_or_else(PoisonError::into_inner);
            if database.is_none() {
                *database = Some(open(&self.path).map_err(|error| failed(&error))?);
            }
        }
        let outcome = match &*self.database.read().unwrap_or_else(PoisonError::into_inner) {
            Some(database) => work(database),
            None => Err(redb::Error::PreviousIo),
        };
        outcome.map_err(|error| {
            *self.database.write().unwrap_or_else(PoisonError::into_inner) = None;
            failed(&error)
        })
    }
}

/// Opens the file, and makes it and its tables where there are none.
fn open(path: &Path) -> Result<Database, redb::Error> {
    let is_new = !path.exists();
    let database = Database::builder().set_cache_size(CACHE_BYTES).create(path)?;
    if let Some(folder) = path.parent().filter(|_| is_new) {
        // A new file outlives a power failure only if the folder that names it is synced too.
        File::open(folder)?.sync_all()?;
    }
    let transaction = database.begin_write()?;
    transaction.open_table(LAST_VERSION)?;
    for family in FAMILIES {
        transaction.open_table(rows(family))?;
        transaction.open_table(changes(family))?;
    }
    transaction.commit()?;
    Ok(database)
}

/// A put that has been looked through.
struct Write {
    family: Family,
    id: String,
    expected: Expected,
    received_millis: i64,
    json: Vec<u8>,
}

impl Write {
    /// Refuses what its index could not take.
    fn new(put: Put) -> Result<Self, StoreError> {
        let Put { family, id, expected, received_millis, body } = put;
        if !FAMILIES.contains(&family) {
            return Err(StoreError::BadRequest(format!("{family} are a time series; write them with bulk")));
        }
        match Prepared::record(id.clone(), received_millis, body) {
            Ok(prepared) => Ok(Self { family, id, expected, received_millis, json: prepared.source }),
            Err(refusal) => Err(StoreError::BadRequest(format!("{family} {id}: {refusal}"))),
        }
    }

    fn run(&self, transaction: &WriteTransaction) -> Result<PutOutcome, redb::Error> {
        let mut rows = transaction.open_table(rows(self.family))?;
        let there = match rows.get(self.id.as_str())? {
            None => None,
            Some(row) => {
                let (version, _, json) = row.value();
                Some(Record { version, body: read(&self.id, json)? })
            }
        };
        let found = there.as_ref().map_or(Expected::Absent, |record| Expected::Version(record.version));
        if found != self.expected {
            return Ok(PutOutcome::Conflict(there));
        }
        let version = next_version(transaction)?;
        rows.insert(self.id.as_str(), (version, self.received_millis, self.json.as_slice()))?;
        let mut changes = transaction.open_table(changes(self.family))?;
        if let Some(before) = there {
            changes.remove(before.version)?;
        }
        changes.insert(version, self.id.as_str())?;
        Ok(PutOutcome::Written(version))
    }
}

fn delete_some(transaction: &WriteTransaction, family: Family, received_millis: i64) -> Result<usize, redb::Error> {
    let mut rows = transaction.open_table(rows(family))?;
    let mut old = Vec::new();
    for row in rows.iter()? {
        let (id, row) = row?;
        let (version, received, _) = row.value();
        if received < received_millis {
            old.push((id.value().to_owned(), version));
            if old.len() == MAX_DELETIONS {
                break;
            }
        }
    }
    let mut changes = transaction.open_table(changes(family))?;
    for (id, version) in &old {
        rows.remove(id.as_str())?;
        changes.remove(version)?;
        changes.insert(next_version(transaction)?, id.as_str())?;
    }
    Ok(old.len())
}

fn next_version(transaction: &WriteTransaction) -> Result<u64, redb::Error> {
    let mut table = transaction.open_table(LAST_VERSION)?;
    let version = table.get(())?.map_or(0, |last| last.value()) + 1;
    table.insert((), version)?;
    Ok(version)
}

fn read(id: &str, json: &[u8]) -> Result<Map<String, Value>, redb::Error> {
    serde_json::from_slice(json).map_err(|error| redb::Error::Corrupted(format!("the record {id} cannot be read: {error}")))
}
