//! The thread that writes time series.
//!
//! It takes bulks from a queue and adds them to the indices of their days as they come; then it commits, and answers all of them. A commit
//! costs much that does not depend on its size, so the next one waits in proportion to what the last one took ([`COMMIT_SHARE`]): a lone
//! bulk is committed at once, and the more arrive, the more share a commit. A document that may be a repeat is looked for first, in the index of its day and of the days beside it, among
//! what is committed and what is not yet; where its id is found, the copy that is there stands and the document is done. Nothing is ever
//! deleted but whole days. A writer that fails is thrown away with all that it had not committed; those bulks are told so, and the next
//! bulk gets a new writer. A panic counts as such a failure, of all writers.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

use jiff::civil::Date;
use tantivy::IndexWriter;
use tokio::sync::{OwnedSemaphorePermit, oneshot};
use tracing::{info, warn};

use super::contained;
use super::document::Prepared;
use super::partition::{Partition, index_failed};
use super::series::Series;
use crate::store::{Family, ItemResult, StoreError};

/// More writers than this are not open at a time: today's of each family, and one for latecomers.
const MAX_WRITERS: usize = 4;
/// A writer that nothing came for is closed after this time, which frees its memory.
const IDLE: Duration = Duration::from_secs(300);
/// After a commit, bulks are gathered for so many times its duration before the next.
const COMMIT_SHARE: u32 = 3;
/// But no longer than this.
const MAX_GATHERING: Duration = Duration::from_millis(400);
/// A group of bulks is committed when it holds so many documents, even if it is not time yet.
const MAX_GROUP_DOCUMENTS: usize = 20_000;
/// As [`MAX_GROUP_DOCUMENTS`], in bytes of JSON.
const MAX_GROUP_BYTES: usize = 64 << 20;

/// The index that a document goes to.
pub(super) type Place = (Family, Date);

/// What the thread is asked to do.
pub(super) enum Command {
    /// Write documents.
    Write(Bulk),
    /// Remove all days of a family before this one; answers with the number of documents.
    Remove { family: Family, before: Date, answer: oneshot::Sender<Result<u64, StoreError>> },
    /// Commit, close and end.
    Close,
}

/// A bulk, looked through.
pub(super) struct Bulk {
    /// The documents that can be written.
    pub(super) writes: Vec<Write>,
    /// The answer, if all of them are.
    pub(super) results: Vec<ItemResult>,
    /// Where the answer goes.
    pub(super) answer: oneshot::Sender<Result<Vec<ItemResult>, StoreError>>,
    /// The place in the queue.
    pub(super) permit: OwnedSemaphorePermit,
}

/// One document of a bulk.
pub(super) struct Write {
    pub(super) place: Place,
    pub(super) may_repeat: bool,
    pub(super) document: Prepared,
}

/// The thread's state.
pub(super) struct Indexer {
    series: Arc<HashMap<Family, Series>>,
    buffer_bytes: usize,
    writers: HashMap<Place, Writer>,
    group: Group,
    /// Before this time no commit begins, unless the group is full.
    next_commit: Instant,
}

struct Writer {
    partition: Arc<Partition>,
    index: IndexWriter<Prepared>,
    last_use: Instant,
    /// The ids that were added since the last commit, which no searcher finds yet. A group's bounds are theirs.
    uncommitted: HashSet<String>,
}

impl Writer {
    fn commit(&mut self) -> tantivy::Result<()> {
        self.index.commit()?;
        self.uncommitted.clear();
        self.partition.committed();
        Ok(())
    }
}

/// The bulks that share the next commit, and what happened to them so far.
#[derive(Default)]
struct Group {
    bulks: Vec<Added>,
    documents: usize,
    bytes: usize,
    touched: BTreeSet<Place>,
    failed: BTreeMap<Place, String>,
}

/// A bulk whose documents are added, and wait for the commit of their places.
struct Added {
    places: BTreeSet<Place>,
    /// Why none of it counts, whatever its places say.
    failure: Option<String>,
    results: Vec<ItemResult>,
    answer: oneshot::Sender<Result<Vec<ItemResult>, StoreError>>,
    permit: OwnedSemaphorePermit,
}

impl Group {
    fn is_full(&self) -> bool {
        self.documents >= MAX_GROUP_DOCUMENTS || self.bytes >= MAX_GROUP_BYTES
    }

    /// Answers all bulks; what is not failed by now is durable.
    fn answer(self) {
        for bulk in self.bulks {
            let failure = bulk.failure.or_else(|| bulk.places.iter().find_map(|place| self.failed.get(place).cloned()));
            let answer = failure.map_or(Ok(bulk.results), |reason| Err(StoreError::Unavailable(reason)));
            // The sender may be gone; what is committed stays.
            let _ = bulk.answer.send(answer);
            drop(bulk.permit);
        }
    }

    fn fail(&mut self, place: Place, error: &dyn std::fmt::Display) {
        warn!(family = %place.0, day = %place.1, %error, "a bulk could not be committed; its sender will repeat it");
        self.failed.insert(place, error.to_string());
    }
}

impl Indexer {
    pub(super) fn new(series: Arc<HashMap<Family, Series>>, buffer_bytes: usize) -> Self {
        Self { series, buffer_bytes, writers: HashMap::new(), group: Group::default(), next_commit: Instant::now() }
    }

    /// Works until told to close, or until nobody can ask any more.
    pub(super) fn run(mut self, commands: &Receiver<Command>) {
        loop {
            let waiting = !self.group.bulks.is_empty();
            let patience = if waiting { self.next_commit.saturating_duration_since(Instant::now()) } else { IDLE };
            match commands.recv_timeout(patience) {
                Ok(Command::Write(bulk)) => {
                    self.add_bulk(bulk);
                    if self.group.is_full() || Instant::now() >= self.next_commit {
                        self.commit_group();
                    }
                }
                Ok(Command::Remove { family, before, answer }) => {
                    self.commit_group();
                    // The asker may be gone; the days are removed all the same.
                    let _ = answer.send(contained(|| self.remove(family, before)));
                }
                Err(RecvTimeoutError::Timeout) if waiting => self.commit_group(),
                Err(RecvTimeoutError::Timeout) => self.close_idle(),
                Ok(Command::Close) | Err(RecvTimeoutError::Disconnected) => break,
            }
        }
        self.commit_group();
        self.close_all();
    }

    /// Adds the documents of a bulk to the group.
    fn add_bulk(&mut self, bulk: Bulk) {
        let Bulk { writes, results, answer, permit } = bulk;
        self.group.documents += writes.len();
        self.group.bytes += writes.iter().map(|write| write.document.source_bytes).sum::<usize>();
        let added = contained(|| Ok(writes.into_iter().map(|write| self.add(write)).collect()));
        let (places, failure) = match added {
            Ok(places) => (places, None),
            Err(error) => (BTreeSet::new(), Some(error.to_string())),
        };
        self.group.bulks.push(Added { places, failure, results, answer, permit });
        if self.group.bulks.last().is_some_and(|bulk| bulk.failure.is_some()) {
            self.distrust();
        }
    }

    /// Commits what the group has added, and answers.
    fn commit_group(&mut self) {
        let started = Instant::now();
        let committed = contained(|| {
            for place in self.group.touched.clone() {
                self.commit(place);
            }
            Ok(())
        });
        if committed.is_err() {
            self.distrust();
        }
        std::mem::take(&mut self.group).answer();
        self.next_commit = Instant::now() + (started.elapsed() * COMMIT_SHARE).min(MAX_GATHERING);
    }

    /// After a panic: what it left half done is not trusted. New writers start from the last commit, and all that shared the group is sent
    /// again.
    fn distrust(&mut self) {
        self.writers.clear();
        warn!("bulks could not be written; their senders will repeat them");
        for bulk in &mut self.group.bulks {
            bulk.failure.get_or_insert_with(|| "a panic ended the work on it or on what shared its commit".to_owned());
        }
    }

    /// Adds a document to its day's index, unless a copy of it is there. The place whose commit makes the document durable: that of the
    /// copy, if there is one.
    fn add(&mut self, write: Write) -> Place {
        let Write { place, may_repeat, document } = write;
        if self.group.failed.contains_key(&place) {
            return place;
        }
        if may_repeat {
            match self.find(place, &document.id) {
                Ok(None) => {}
                Ok(Some(there)) => return there,
                Err(error) => {
                    self.group.fail(place, &error);
                    return place;
                }
            }
        }
        self.group.touched.insert(place);
        if let Err(error) = self.make_room(place) {
            self.group.fail(place, &error);
            return place;
        }
        let added = self.writer(place).and_then(|writer| {
            writer.partition.note(&document.id);
            writer.uncommitted.insert(document.id.clone());
            writer.index.add_document(document).map_err(|error| index_failed(&error))
        });
        if let Err(error) = added {
            self.writers.remove(&place);
            self.group.fail(place, &error);
        }
        place
    }

    /// Where a copy of a document is: on its day, the day before or the day after. A repeat comes later, but two that were received on
    /// either side of midnight may be written in the other order.
    fn find(&self, (family, day): Place, id: &str) -> Result<Option<Place>, StoreError> {
        let Some(series) = self.series.get(&family) else { return Ok(None) };
        for day in [Some(day), day.yesterday().ok(), day.tomorrow().ok()].into_iter().flatten() {
            let place = (family, day);
            let uncommitted = self.writers.get(&place).map(|writer| &writer.uncommitted);
            if uncommitted.is_some_and(|ids| ids.contains(id)) {
                return Ok(Some(place));
            }
            if let Some(partition) = series.get(day)?
                && partition.contains(id, uncommitted.into_iter().flatten()).map_err(|error| index_failed(&error))?
            {
                return Ok(Some(place));
            }
        }
        Ok(None)
    }

    /// Commits a day's index, if there is something to commit.
    fn commit(&mut self, place: Place) {
        let Some(writer) = self.writers.get_mut(&place) else { return };
        if !writer.uncommitted.is_empty()
            && let Err(error) = writer.commit()
        {
            self.writers.remove(&place);
            self.group.fail(place, &index_failed(&error));
        }
    }

    /// The writer of an index; opened if need be.
    fn writer(&mut self, place: Place) -> Result<&mut Writer, StoreError> {
        if !self.writers.contains_key(&place) {
            let series = self.series.get(&place.0).ok_or_else(|| StoreError::BadRequest(format!("{} are no time series", place.0)))?;
            let partition = series.get_or_create(place.1)?;
            let index = partition.writer(self.buffer_bytes).map_err(|error| index_failed(&error))?;
            self.writers.insert(place, Writer { partition, index, last_use: Instant::now(), uncommitted: HashSet::new() });
        }
        let writer = self.writers.get_mut(&place).ok_or_else(|| StoreError::Unavailable("the writer is gone".to_owned()))?;
        writer.last_use = Instant::now();
        Ok(writer)
    }

    /// Makes sure that the writer of an index may be open: closes the one that was not used for longest if too many are.
    fn make_room(&mut self, place: Place) -> Result<(), StoreError> {
        if self.writers.contains_key(&place) || self.writers.len() < MAX_WRITERS {
            return Ok(());
        }
        let oldest = self.writers.iter().min_by_key(|(_, writer)| writer.last_use).map(|(place, _)| *place);
        if let Some(oldest) = oldest {
            self.commit(oldest);
            self.close(oldest);
        }
        Ok(())
    }

    /// Closes a writer that has nothing to commit; its merges end first.
    fn close(&mut self, place: Place) {
        if let Some(writer) = self.writers.remove(&place)
            && let Err(error) = writer.index.wait_merging_threads()
        {
            warn!(family = %place.0, day = %place.1, %error, "a merge failed; the segments stay as they are");
        }
    }

    fn close_idle(&mut self) {
        let idle: Vec<Place> =
            self.writers.iter().filter(|(_, writer)| writer.last_use.elapsed() >= IDLE).map(|(place, _)| *place).collect();
        for place in idle {
            self.close(place);
        }
    }

    fn close_all(mut self) {
        let places: Vec<Place> = self.writers.keys().copied().collect();
        for place in places {
            self.close(place);
        }
    }

    /// Removes the days before a day; returns how many documents they held.
    fn remove(&mut self, family: Family, before: Date) -> Result<u64, StoreError> {
        let series = Arc::clone(&self.series);
        let Some(series) = series.get(&family) else { return Ok(0) };
        let mut removed = 0;
        for day in series.days().into_iter().filter(|day| *day < before) {
            self.close((family, day));
            if let Some(partition) = series.get(day)? {
                removed += partition.searcher(Duration::ZERO).map_err(|error| index_failed(&error))?.num_docs();
            }
            series.remove(day)?;
            info!(%family, %day, "removed a day past its retention");
        }
        Ok(removed)
    }
}
