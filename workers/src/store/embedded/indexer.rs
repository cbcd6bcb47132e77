//! The thread that writes time series.
//!
//! It takes bulks from a queue, adds all that is waiting to the indices of their days, commits, and answers: the more bulks arrive, the
//! more share a commit. A document that may be a repeat first deletes its like in its day's index; the index of the day before is dealt
//! with after the commit, so that a crash between the two leaves the document twice (and unacknowledged, so it comes again) rather than
//! not at all. A writer that fails is thrown away with all that it had not committed; those bulks are told so, and the next bulk gets a
//! new writer.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, TryRecvError};
use std::time::{Duration, Instant};

use jiff::civil::Date;
use tantivy::{IndexWriter, Searcher, TantivyError, Term};
use tokio::sync::{OwnedSemaphorePermit, oneshot};
use tracing::{info, warn};

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
    /// Whether something was added since the last commit.
    dirty: bool,
}

impl Writer {
    fn commit(&mut self) -> tantivy::Result<()> {
        self.index.commit()?;
        self.dirty = false;
        self.partition.committed();
        Ok(())
    }
}

/// What happened to a group of bulks so far.
#[derive(Default)]
struct Group {
    touched: BTreeSet<Place>,
    failed: BTreeMap<Place, String>,
    /// Ids that may stand in the index of the day before, by the day they were written to.
    repeats: BTreeMap<Place, Vec<String>>,
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
                        let _ = answer.send(self.remove(family, before));
                    }
                    Command::Close => return self.close_all(),
                }
            }
        }
        self.close_all();
    }

    /// Writes, commits and answers a group of bulks.
    fn write(&mut self, mut bulks: Vec<Bulk>) {
        let mut group = Group::default();
        let mut places_of_bulks: Vec<BTreeSet<Place>> = Vec::with_capacity(bulks.len());
        for bulk in &mut bulks {
            let mut places = BTreeSet::new();
            for write in bulk.writes.drain(..) {
                places.insert(write.place);
                self.add(write, &mut group);
            }
            places_of_bulks.push(places);
        }
        for place in group.touched.clone() {
            self.commit(place, &mut group);
        }
        for ((family, day), ids) in std::mem::take(&mut group.repeats) {
            if let Err(error) = self.delete_the_day_before(family, day, &ids) {
                group.fail((family, day), &error);
            }
        }
        for (bulk, places) in bulks.into_iter().zip(places_of_bulks) {
            let failure = places.iter().find_map(|place| group.failed.get(place));
            let answer = match failure {
                None => Ok(bulk.results),
                Some(reason) => Err(StoreError::Unavailable(reason.clone())),
            };
            // The sender may be gone; what is committed stays.
            let _ = bulk.answer.send(answer);
            drop(bulk.permit);
        }
    }

    /// Adds a document to its day's index.
    fn add(&mut self, write: Write, group: &mut Group) {
        let Write { place, may_repeat, document } = write;
        if group.failed.contains_key(&place) {
            return;
        }
        group.touched.insert(place);
        if let Err(error) = self.make_room(place, group) {
            return group.fail(place, &error);
        }
        let id = may_repeat.then(|| document.id.clone());
        let added = self.writer(place).and_then(|writer| {
            if let Some(id) = &id {
                writer.index.delete_term(Term::from_field_text(FIELDS.id, id));
            }
            writer.dirty = true;
            writer.index.add_document(document).map_err(|error| index_failed(&error))
        });
        match (added, id) {
            (Ok(_), Some(id)) => group.repeats.entry(place).or_default().push(id),
            (Ok(_), None) => {}
            (Err(error), _) => {
                self.writers.remove(&place);
                group.fail(place, &error);
            }
        }
    }

    /// Commits a day's index, if there is something to commit.
    fn commit(&mut self, place: Place, group: &mut Group) {
        let Some(writer) = self.writers.get_mut(&place) else { return };
        if writer.dirty
            && let Err(error) = writer.commit()
        {
            self.writers.remove(&place);
            group.fail(place, &index_failed(&error));
        }
    }

    /// Deletes ids that were written anew from the index of the day before.
    fn delete_the_day_before(&mut self, family: Family, day: Date, ids: &[String]) -> Result<(), StoreError> {
        let (Ok(before), Some(series)) = (day.yesterday(), self.series.get(&family)) else { return Ok(()) };
        let Some(partition) = series.get(before)? else { return Ok(()) };
        let searcher = partition.searcher(Duration::ZERO).map_err(|error| index_failed(&error))?;
        let mut found = Vec::new();
        for id in ids {
            let term = Term::from_field_text(FIELDS.id, id);
            if contains(&searcher, &term).map_err(|error| index_failed(&error))? {
                found.push(term);
            }
        }
        if found.is_empty() {
            return Ok(());
        }
        let place = (family, before);
        let mut unrelated = Group::default();
        self.make_room(place, &mut unrelated)?;
        let writer = self.writer(place)?;
        for term in found {
            writer.index.delete_term(term);
        }
        writer.commit().map_err(|error| {
            self.writers.remove(&place);
            index_failed(&error)
        })
    }

    /// The writer of an index; opened if need be.
    fn writer(&mut self, place: Place) -> Result<&mut Writer, StoreError> {
        if !self.writers.contains_key(&place) {
            let series = self.series.get(&place.0).ok_or_else(|| StoreError::BadRequest(format!("{} are no time series", place.0)))?;
            let partition = series.get_or_create(place.1)?;
            let index = partition.writer(self.buffer_bytes).map_err(|error| index_failed(&error))?;
            self.writers.insert(place, Writer { partition, index, last_use: Instant::now(), dirty: false });
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

/// Whether an index holds a term, be it in a deleted document.
fn contains(searcher: &Searcher, term: &Term) -> Result<bool, TantivyError> {
    for segment in searcher.segment_readers() {
        if segment.inverted_index(term.field())?.get_term_info(term)?.is_some() {
            return Ok(true);
        }
    }
    Ok(false)
}
