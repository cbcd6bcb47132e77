//! The thread that writes time series.
//!
//! It takes bulks from a queue, adds all that is waiting to the indices of their days, commits, and answers: the more bulks arrive, the
//! more share a commit. A document that may be a repeat is looked for first, in the index of its day and of the days beside it, among
//! what is committed and what is not yet; where its id is found, the copy that is there stands and the document is done. Nothing is ever
//! deleted but whole days. A writer that fails is thrown away with all that it had not committed; those bulks are told so, and the next
//! bulk gets a new writer. A panic counts as such a failure, of all writers.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, TryRecvError};
use std::time::{Duration, Instant};

use jiff::civil::Date;
use tantivy::schema::IndexRecordOption;
use tantivy::{DocSet, IndexWriter, Searcher, TERMINATED, TantivyError, Term};
use tokio::sync::{OwnedSemaphorePermit, oneshot};
use tracing::{info, warn};

use super::contained;
use super::document::Prepared;
use super::partition::{Partition, index_failed};
use super::schema::FIELDS;
use super::series::Series;
use crate::store::{Family, ItemResult, StoreError};

/// More writers than this are not open at a time: today's of each family, and one for latecomers.
const MAX_WRITERS: usize = 4;
/// A writer that nothing came for is closed after this time, which frees its memory.
const IDLE: Duration = Duration::from_secs(300);
/// A group of bulks is committed when it holds so many documents, even if more wait.
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

/// What happened to a group of bulks so far.
#[derive(Default)]
struct Group {
    touched: BTreeSet<Place>,
    failed: BTreeMap<Place, String>,
}

impl Group {
    fn fail(&mut self, place: Place, error: &dyn std::fmt::Display) {
        warn!(family = %place.0, day = %place.1, %error, "a bulk could not be committed; its sender will repeat it");
        self.failed.insert(place, error.to_string());
    }
}

impl Indexer {
    pub(super) fn new(series: Arc<HashMap<Family, Series>>, buffer_bytes: usize) -> Self {
        Self { series, buffer_bytes, writers: HashMap::new() }
    }

    /// Works until told to close, or until nobody can ask any more.
    pub(super) fn run(mut self, commands: &Receiver<Command>) {
        loop {
            let mut next = match commands.recv_timeout(IDLE) {
                Ok(command) => Some(command),
                Err(RecvTimeoutError::Timeout) => {
                    self.close_idle();
                    continue;
                }
                Err(RecvTimeoutError::Disconnected) => break,
            };
            while let Some(command) = next.take() {
                match command {
                    Command::Write(bulk) => {
                        let (bulks, other) = gather(bulk, commands);
                        self.write(bulks);
                        next = other;
                    }
                    Command::Remove { family, before, answer } => {
                        // The asker may be gone; the days are removed all the same.
                        let _ = answer.send(contained(|| self.remove(family, before)));
                    }
                    Command::Close => return self.close_all(),
                }
            }
        }
        self.close_all();
    }

    /// Writes, commits and answers a group of bulks.
    fn write(&mut self, mut bulks: Vec<Bulk>) {
        let writes: Vec<Vec<Write>> = bulks.iter_mut().map(|bulk| std::mem::take(&mut bulk.writes)).collect();
        let outcomes = contained(|| Ok(self.write_group(writes))).unwrap_or_else(|error| {
            // What a panic left half done is not trusted: new writers start from the last commit.
            self.writers.clear();
            warn!(%error, "bulks could not be written; their senders will repeat them");
            bulks.iter().map(|_| Err(error.to_string())).collect()
        });
        for (bulk, outcome) in bulks.into_iter().zip(outcomes) {
            let answer = outcome.map(|()| bulk.results).map_err(StoreError::Unavailable);
            // The sender may be gone; what is committed stays.
            let _ = bulk.answer.send(answer);
            drop(bulk.permit);
        }
    }

    /// Writes and commits the documents of several bulks; for each bulk whether all of it is durable, or why not.
    fn write_group(&mut self, bulks: Vec<Vec<Write>>) -> Vec<Result<(), String>> {
        let mut group = Group::default();
        let mut places_of_bulks: Vec<BTreeSet<Place>> = Vec::with_capacity(bulks.len());
        for writes in bulks {
            places_of_bulks.push(writes.into_iter().map(|write| self.add(write, &mut group)).collect());
        }
        for place in group.touched.clone() {
            self.commit(place, &mut group);
        }
        let failure = |places: BTreeSet<Place>| places.iter().find_map(|place| group.failed.get(place).cloned());
        places_of_bulks.into_iter().map(|places| failure(places).map_or(Ok(()), Err)).collect()
    }

    /// Adds a document to its day's index, unless a copy of it is there. The place whose commit makes the document durable: that of the
    /// copy, if there is one.
    fn add(&mut self, write: Write, group: &mut Group) -> Place {
        let Write { place, may_repeat, document } = write;
        if group.failed.contains_key(&place) {
            return place;
        }
        if may_repeat {
            match self.find(place, &document.id) {
                Ok(None) => {}
                Ok(Some(there)) => return there,
                Err(error) => {
                    group.fail(place, &error);
                    return place;
                }
            }
        }
        group.touched.insert(place);
        if let Err(error) = self.make_room(place, group) {
            group.fail(place, &error);
            return place;
        }
        let added = self.writer(place).and_then(|writer| {
            writer.uncommitted.insert(document.id.clone());
            writer.index.add_document(document).map_err(|error| index_failed(&error))
        });
        if let Err(error) = added {
            self.writers.remove(&place);
            group.fail(place, &error);
        }
        place
    }

    /// Where a copy of a document is: on its day, the day before or the day after. A repeat comes later, but two that were received on
    /// either side of midnight may be written in the other order.
    fn find(&self, (family, day): Place, id: &str) -> Result<Option<Place>, StoreError> {
        let Some(series) = self.series.get(&family) else { return Ok(None) };
        let term = Term::from_field_text(FIELDS.id, id);
        for day in [Some(day), day.yesterday().ok(), day.tomorrow().ok()].into_iter().flatten() {
            let place = (family, day);
            if self.writers.get(&place).is_some_and(|writer| writer.uncommitted.contains(id)) {
                return Ok(Some(place));
            }
            // Reloads only after a commit, so once for a group.
            if let Some(partition) = series.get(day)?
                && partition
                    .searcher(Duration::ZERO)
                    .and_then(|searcher| contains(&searcher, &term))
                    .map_err(|error| index_failed(&error))?
            {
                return Ok(Some(place));
            }
        }
        Ok(None)
    }

    /// Commits a day's index, if there is something to commit.
    fn commit(&mut self, place: Place, group: &mut Group) {
        let Some(writer) = self.writers.get_mut(&place) else { return };
        if !writer.uncommitted.is_empty()
            && let Err(error) = writer.commit()
        {
            self.writers.remove(&place);
            group.fail(place, &index_failed(&error));
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
    fn make_room(&mut self, place: Place, group: &mut Group) -> Result<(), StoreError> {
        if self.writers.contains_key(&place) || self.writers.len() < MAX_WRITERS {
            return Ok(());
        }
        let oldest = self.writers.iter().min_by_key(|(_, writer)| writer.last_use).map(|(place, _)| *place);
        if let Some(oldest) = oldest {
            self.commit(oldest, group);
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

/// All bulks that wait, up to the bounds of a group; and the command that ended it, if it was another.
fn gather(first: Bulk, commands: &Receiver<Command>) -> (Vec<Bulk>, Option<Command>) {
    let size = |bulk: &Bulk| (bulk.writes.len(), bulk.writes.iter().map(|write| write.document.source_bytes).sum::<usize>());
    let (mut documents, mut bytes) = size(&first);
    let mut bulks = vec![first];
    while documents < MAX_GROUP_DOCUMENTS && bytes < MAX_GROUP_BYTES {
        match commands.try_recv() {
            Ok(Command::Write(bulk)) => {
                let (more_documents, more_bytes) = size(&bulk);
                documents += more_documents;
                bytes += more_bytes;
                bulks.push(bulk);
            }
            Ok(other) => return (bulks, Some(other)),
            Err(TryRecvError::Empty | TryRecvError::Disconnected) => break,
        }
    }
    (bulks, None)
}

/// Whether an index holds a term in a document that is not deleted.
fn contains(searcher: &Searcher, term: &Term) -> Result<bool, TantivyError> {
    for segment in searcher.segment_readers() {
        let index = segment.inverted_index(term.field())?;
        let Some(found) = index.get_term_info(term)? else { continue };
        let Some(alive) = segment.alive_bitset() else { return Ok(true) };
        let mut documents = index.read_postings_from_terminfo(&found, IndexRecordOption::Basic)?;
        while documents.doc() != TERMINATED {
            if alive.is_alive(documents.doc()) {
                return Ok(true);
            }
            documents.advance();
        }
    }
    Ok(false)
}
