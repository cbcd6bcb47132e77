//! The store in one folder: what `redoubt run` keeps its events and alerts in.
//!
//! ```text
//! FOLDER/lock                    held while open: one process at a time
//! FOLDER/events/2026-11-24/      a tantivy index for each day of receipt; matches/ and dead-letters/ likewise
//! FOLDER/records.redb            alerts and responses, the truth, with versions
//! FOLDER/alerts/, responses/     indices of them, derived
//! ```
//!
//! Time series are written by one thread ([`indexer`]), records by whoever calls, and followed by a second thread ([`follower`]). A write is
//! durable when it is answered: a process killed at any moment leaves a store that opens, with all that was answered in it. Nothing here
//! blocks the async runtime, but for dropping a store that was not closed, which waits for the threads to end.

mod aggregations;
mod document;
mod follower;
mod ids;
mod indexer;
mod newest;
mod partition;
mod query;
mod reader;
mod records;
mod scan;
mod schema;
mod search;
mod series;

use std::collections::{HashMap, HashSet};
use std::fs::{File, TryLockError};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use async_trait::async_trait;
use tantivy::Searcher;
use tokio::sync::{Semaphore, oneshot};
use tracing::warn;

use self::document::Prepared;
use self::follower::{Follower, Indices, open_indices};
use self::indexer::{Bulk, Indexer, Write};
use self::partition::{Partition, index_failed, sweep, unavailable};
pub use self::reader::StoreReader;
use self::records::Records;
use self::search::Search;
use self::series::{Series, day_of, start_of};
use super::{Document, Family, ItemResult, Packed, Put, PutOutcome, Record, Rejection, SearchRequest, SearchResponse, Store, StoreError};

/// So many bulks are prepared or written at a time; more wait.
const MAX_BULKS: usize = 64;
/// So many searches run at a time; more wait.
const MAX_SEARCHES: usize = 16;
/// The least memory that tantivy takes for a writer, in bytes.
const MIN_INDEX_BUFFER: usize = 15_000_000;
/// The memory of a writer of records, in bytes: they are few.
const RECORDS_BUFFER: usize = MIN_INDEX_BUFFER;

/// How the store in a folder works.
#[derive(Debug, Clone)]
pub struct Options {
    /// What was written is found by searches after this time.
    pub refresh: Duration,
    /// Memory in which new documents are indexed before they go to disk, in bytes, for each day that is written to (at most four at a
    /// time). Less than 15 MB count as 15 MB.
    pub index_buffer_bytes: usize,
}

impl Default for Options {
    fn default() -> Self {
        Self { refresh: Duration::from_secs(1), index_buffer_bytes: 32 << 20 }
    }
}

/// The store in one folder.
pub struct EmbeddedStore {
    refresh: Duration,
    series: Arc<HashMap<Family, Series>>,
    records: Arc<Records>,
    /// Of the records.
    indices: Arc<Indices>,
    bulks: Arc<Semaphore>,
    searches: Arc<Semaphore>,
    index: Sender<indexer::Command>,
    follow: Sender<follower::Command>,
    threads: Mutex<Vec<JoinHandle<()>>>,
    _lock: Arc<File>,
}

impl EmbeddedStore {
    /// Opens the store in a folder, or makes it. Blocks; what was written before is searchable at once, but for records that a crash kept
    /// from their index, which follow in a moment.
    ///
    /// # Errors
    ///
    /// If another process has the folder open, or if the disk fails.
    pub fn open(folder: &Path, options: &Options) -> Result<Self, StoreError> {
        std::fs::create_dir_all(folder).map_err(|error| unavailable(folder, &error))?;
        let lock = Arc::new(lock(folder)?);
        let mut series = HashMap::new();
        for family in Family::ALL.into_iter().filter(|family| is_series(*family)) {
            series.insert(family, Series::open(folder.join(family.as_str()))?);
        }
        let series = Arc::new(series);
        sweep(folder).map_err(|error| unavailable(folder, &error))?;
        let records = Arc::new(Records::open(folder)?);
        let indices = Arc::new(open_indices(folder, &records)?);

        let (index, index_commands) = channel();
        let (follow, follow_commands) = channel();
        let indexer = Indexer::new(Arc::clone(&series), options.index_buffer_bytes.max(MIN_INDEX_BUFFER));
        let follower = Follower::new(Arc::clone(&records), Arc::clone(&indices), RECORDS_BUFFER, options.refresh);
        // Each thread holds the lock, so that the folder is free only when the last of them has ended.
        let (indexer_lock, follower_lock) = (Arc::clone(&lock), Arc::clone(&lock));
        let threads = vec![
            spawn("store-index", move || {
                indexer.run(&index_commands);
                drop(indexer_lock);
            })?,
            spawn("store-records", move || {
                follower.run(&follow_commands);
                drop(follower_lock);
            })?,
        ];
        Ok(Self {
            refresh: options.refresh,
            series,
            records,
            indices,
            bulks: Arc::new(Semaphore::new(MAX_BULKS)),
            searches: Arc::new(Semaphore::new(MAX_SEARCHES)),
            index,
            follow,
            threads: Mutex::new(threads),
            _lock: lock,
        })
    }

    /// Tells the thread that follows the records of a change. A change that is committed stands, whoever follows: a thread that is gone
    /// makes [`Store::refresh`] fail, and the next opening catches up.
    fn follow_records(&self) {
        if self.follow.send(follower::Command::Changed).is_err() {
            warn!("a record is written, but will be found by search only after the store is opened again");
        }
    }

    /// Tells the threads to end, and gives out what they are waited for by.
    fn stop(&self) -> Vec<JoinHandle<()>> {
        // A thread that is gone needs no telling.
        let _ = self.index.send(indexer::Command::Close);
        let _ = self.follow.send(follower::Command::Close);
        std::mem::take(&mut *self.threads.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Drop for EmbeddedStore {
    fn drop(&mut self) {
        join(self.stop());
    }
}

#[async_trait]
impl Store for EmbeddedStore {
    fn pack(&self, document: Document) -> Packed {
        let Document { family, received_millis, may_repeat, .. } = document;
        let day = day_of(received_millis).ok_or_else(|| Rejection { reason: format!("the receive time {received_millis} ms is no date") });
        Packed::new(day.and_then(|day| Ok(Write { place: (family, day), may_repeat, document: Prepared::new(document)? })))
    }

    async fn write(&self, packed: Vec<Packed>) -> Result<Vec<ItemResult>, StoreError> {
        if packed.is_empty() {
            return Ok(Vec::new());
        }
        let permit = Arc::clone(&self.bulks).acquire_owned().await.map_err(|_| closed())?;
        let (answer, answered) = oneshot::channel();
        let (writes, results) = firsts(packed)?;
        self.index.send(indexer::Command::Write(Bulk { writes, results, answer, permit })).map_err(|_| closed())?;
        answered.await.map_err(|_| closed())?
    }

    async fn put(&self, puts: Vec<Put>) -> Result<Vec<PutOutcome>, StoreError> {
        if puts.is_empty() {
            return Ok(Vec::new());
        }
        let records = Arc::clone(&self.records);
        let outcomes = blocking(move || records.put(puts)).await?;
        self.follow_records();
        Ok(outcomes)
    }

    async fn get(&self, family: Family, id: &str) -> Result<Option<Record>, StoreError> {
        if is_series(family) {
            return Err(StoreError::BadRequest(format!("{family} are a time series; find them by search")));
        }
        let (records, id) = (Arc::clone(&self.records), id.to_owned());
        blocking(move || records.get(family, &id)).await
    }

    async fn search(&self, family: Family, request: SearchRequest) -> Result<SearchResponse, StoreError> {
        let search = Search::new(&request, jiff::Timestamp::now())?;
        let _permit = Arc::clone(&self.searches).acquire_owned().await.map_err(|_| closed())?;
        let (series, indices, refresh) = (Arc::clone(&self.series), Arc::clone(&self.indices), self.refresh);
        blocking(move || {
            let mut searchers: Vec<Searcher> = Vec::new();
            let mut add = |partition: &Partition| -> Result<(), StoreError> {
                searchers.push(partition.searcher(refresh).map_err(|error| index_failed(&error))?);
                Ok(())
            };
            if let Some(partition) = indices.get(&family) {
                add(partition)?;
            }
            if let Some(series) = series.get(&family) {
                for day in series.days() {
                    let ends = day.tomorrow().ok().and_then(start_of);
                    let too_old = request.received_from_millis.zip(ends).is_some_and(|(from, ends)| ends <= from);
                    if !too_old && let Some(partition) = series.get(day)? {
                        add(&partition)?;
                    }
                }
            }
            search.run(&searchers)
        })
        .await
    }

    async fn refresh(&self) -> Result<(), StoreError> {
        let (asker, caught_up) = oneshot::channel();
        self.follow.send(follower::Command::CatchUp(asker)).map_err(|_| closed())?;
        caught_up.await.map_err(|_| closed())??;
        let (series, indices) = (Arc::clone(&self.series), Arc::clone(&self.indices));
        blocking(move || {
            let open_days = series.values().flat_map(Series::open_partitions);
            for partition in open_days.chain(indices.values().cloned()) {
                partition.searcher(Duration::ZERO).map_err(|error| index_failed(&error))?;
            }
            Ok(())
        })
        .await
    }

    async fn delete_older_than(&self, family: Family, received_millis: i64) -> Result<u64, StoreError> {
        if is_series(family) {
            let before = day_of(received_millis)
                .ok_or_else(|| StoreError::BadRequest(format!("{received_millis} ms lie outside the years -9999 to 9999")))?;
            let (answer, answered) = oneshot::channel();
            self.index.send(indexer::Command::Remove { family, before, answer }).map_err(|_| closed())?;
            return answered.await.map_err(|_| closed())?;
        }
        let records = Arc::clone(&self.records);
        let deleted = blocking(move || records.delete_older_than(family, received_millis)).await?;
        self.follow_records();
        Ok(deleted)
    }

    async fn close(&self) {
        let threads = self.stop();
        // Fails only if a thread panicked, which its own report tells of.
        let _ = tokio::task::spawn_blocking(move || join(threads)).await;
    }
}

/// Whether a family is a time series.
fn is_series(family: Family) -> bool {
    !records::FAMILIES.contains(&family)
}

/// What of a bulk can be written, and what the answer to each document will be. Of several documents with one id only the first is written.
fn firsts(packed: Vec<Packed>) -> Result<(Vec<Write>, Vec<ItemResult>), StoreError> {
    let mut writes: Vec<Write> = Vec::with_capacity(packed.len());
    let mut results = Vec::with_capacity(packed.len());
    for packed in packed {
        let write: Result<Write, Rejection> = packed.unpack()?;
        results.push(write.map(|write| writes.push(write)));
    }
    let mut ids: HashSet<(Family, &str)> = HashSet::with_capacity(writes.len());
    let first_of_id: Vec<bool> = writes.iter().map(|write| ids.insert((write.place.0, write.document.id.as_str()))).collect();
    if ids.len() < writes.len() {
        let mut first_of_id = first_of_id.into_iter();
        writes.retain(|_| first_of_id.next().unwrap_or(true));
    }
    Ok((writes, results))
}

/// Runs what blocks where it may.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T, StoreError> + Send + 'static) -> Result<T, StoreError> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(error) => Err(StoreError::Unavailable(format!("the work ended early: {error}"))),
    }
}

/// Does a thread's work so that a panic in it is a failure of this work, not the end of the thread: a store without its threads would
/// look healthy and keep nothing. The caller throws away what the work may have left half done.
fn contained<T>(work: impl FnOnce() -> Result<T, StoreError>) -> Result<T, StoreError> {
    // The panic itself was reported where it happened.
    catch_unwind(AssertUnwindSafe(work))
        .unwrap_or_else(|_| Err(StoreError::Unavailable("a panic ended the work, which the log tells of; please report it".to_owned())))
}

fn spawn(name: &str, work: impl FnOnce() + Send + 'static) -> Result<JoinHandle<()>, StoreError> {
    let thread = std::thread::Builder::new().name(name.to_owned());
    thread.spawn(work).map_err(|error| StoreError::Unavailable(format!("no thread for the store: {error}")))
}

fn join(threads: Vec<JoinHandle<()>>) {
    for thread in threads {
        // A panic was reported when it happened.
        let _ = thread.join();
    }
}

fn closed() -> StoreError {
    StoreError::Unavailable("it is closed; open it again".to_owned())
}

/// Takes the lock on a folder. The system lets go of it when the process ends, however it ends.
fn lock(folder: &Path) -> Result<File, StoreError> {
    let path = folder.join("lock");
    let file = File::options().create(true).truncate(false).write(true).open(&path).map_err(|error| unavailable(&path, &error))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(StoreError::Unavailable(format!(
            "another process has {} open; end it, or give this one a folder of its own",
            folder.display()
        ))),
        Err(TryLockError::Error(error)) => Err(unavailable(&path, &error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_is_a_failure_of_the_work_and_not_of_the_thread() {
        let panicked = contained::<()>(|| panic!("a defect"));
        let worked = contained(|| Ok(1));

        assert!(matches!(panicked, Err(StoreError::Unavailable(_))), "{panicked:?}");
        assert!(matches!(worked, Ok(1)), "{worked:?}");
    }
}
