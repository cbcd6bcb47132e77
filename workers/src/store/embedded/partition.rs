//! One tantivy index in one folder: a day of a time series, or all records of a family.
//!
//! What is committed is durable; it is seen by searches once the reader is reloaded, which happens on the first search that finds the
//! reader out of date for longer than the refresh time. Nothing runs in the background for it.

use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tantivy::directory::MmapDirectory;
use tantivy::indexer::{IndexWriterOptions, LogMergePolicy};
use tantivy::schema::IndexRecordOption;
use tantivy::{DocSet, Index, IndexReader, IndexWriter, ReloadPolicy, Searcher, TERMINATED, TantivyError, Term};

use super::document::Prepared;
use super::ids::Ids;
use super::schema::{FIELDS, register_tokenizers};
use crate::store::StoreError;

/// Segments larger than this are left as they are: merging them costs more than searching them.
const MAX_DOCS_TO_MERGE: usize = 2_000_000;
/// Segments smaller than this are of one size to the merge policy; about a commit's worth.
const SMALL_SEGMENT_DOCS: u32 = 20_000;
/// Blocks of stored documents that a reader keeps unpacked, 16 KiB each.
const CACHED_BLOCKS: usize = 64;

/// An open index.
pub(super) struct Partition {
    index: Index,
    reader: IndexReader,
    freshness: Mutex<Freshness>,
    /// The ids that were added, once somebody asked for one.
    ids: Mutex<Option<Ids>>,
}

/// How far the reader is behind.
struct Freshness {
    /// When the reader was last opened.
    reloaded: Instant,
    /// Whether something was committed since.
    stale: bool,
}

impl Partition {
    /// Opens the index in a folder, or makes it.
    pub(super) fn open(folder: &Path) -> Result<Self, StoreError> {
        create_folder(folder).map_err(|error| unavailable(folder, &error))?;
        Self::over(folder, || Index::open_or_create(MmapDirectory::open(folder)?, FIELDS.schema.clone()))
    }

    /// Opens the index in a folder, if there is one.
    pub(super) fn open_existing(folder: &Path) -> Result<Option<Self>, StoreError> {
        if !folder.join("meta.json").is_file() {
            return Ok(None);
        }
        Self::over(folder, || Index::open_in_dir(folder)).map(Some)
    }

    fn over(folder: &Path, index: impl FnOnce() -> tantivy::Result<Index>) -> Result<Self, StoreError> {
        let open = || -> tantivy::Result<(Index, IndexReader)> {
            let index = index()?;
            register_tokenizers(&index);
            let reader = index.reader_builder().reload_policy(ReloadPolicy::Manual).doc_store_cache_num_blocks(CACHED_BLOCKS).try_into()?;
            Ok((index, reader))
        };
        let (index, reader) = open().map_err(|error| match error {
            TantivyError::SchemaError(_) => StoreError::Unavailable(format!(
                "the index {} was written by another version; move it away to start anew, or read it with that version",
                folder.display()
            )),
            error => unavailable(folder, &error),
        })?;
        Ok(Self { index, reader, freshness: Mutex::new(Freshness { reloaded: Instant::now(), stale: false }), ids: Mutex::new(None) })
    }

    /// A writer; there can be only one at a time. It has one indexing thread and one for merges.
    pub(super) fn writer(&self, buffer_bytes: usize) -> tantivy::Result<IndexWriter<Prepared>> {
        let options =
            IndexWriterOptions::builder().num_worker_threads(1).num_merge_threads(1).memory_budget_per_thread(buffer_bytes).build();
        let writer = self.index.writer_with_options(options)?;
        let mut policy = LogMergePolicy::default();
        policy.set_max_docs_before_merge(MAX_DOCS_TO_MERGE);
        policy.set_min_layer_size(SMALL_SEGMENT_DOCS);
        writer.set_merge_policy(Box::new(policy));
        Ok(writer)
    }

    /// Notes that a document is added, for [`Partition::contains`].
    pub(super) fn note(&self, id: &str) {
        if let Some(ids) = &mut *self.ids() {
            ids.insert(id.as_bytes());
        }
    }

    /// Whether what is committed holds a document of this id. The first time it reads all ids, so that most answers need no look into the
    /// index; from then on it relies on [`Partition::note`]. `uncommitted`: those that were added before the first time.
    pub(super) fn contains<'a>(&self, id: &str, uncommitted: impl Iterator<Item = &'a String>) -> tantivy::Result<bool> {
        // Reloads only after a commit.
        let searcher = self.searcher(Duration::ZERO)?;
        let mut ids = self.ids();
        let ids = match &mut *ids {
            Some(ids) => ids,
            unread => unread.insert(read_ids(&searcher, uncommitted)?),
        };
        Ok(ids.may_hold(id.as_bytes()) && holds(&searcher, &Term::from_field_text(FIELDS.id, id))?)
    }

    fn ids(&self) -> MutexGuard<'_, Option<Ids>> {
        self.ids.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What the last commit said of itself.
    pub(super) fn commit_payload(&self) -> tantivy::Result<Option<String>> {
        Ok(self.index.load_metas()?.payload)
    }

    /// Tells that something was committed.
    pub(super) fn committed(&self) {
        self.freshness().stale = true;
    }

    /// What can be searched now: at most `max_age` behind what is committed.
    pub(super) fn searcher(&self, max_age: Duration) -> tantivy::Result<Searcher> {
        let mut freshness = self.freshness();
        if freshness.stale && freshness.reloaded.elapsed() >= max_age {
            self.reader.reload()?;
            *freshness = Freshness { reloaded: Instant::now(), stale: false };
        }
        Ok(self.reader.searcher())
    }

    fn freshness(&self) -> MutexGuard<'_, Freshness> {
        self.freshness.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn read_ids<'a>(searcher: &Searcher, uncommitted: impl Iterator<Item = &'a String>) -> tantivy::Result<Ids> {
    let mut ids = Ids::new();
    uncommitted.for_each(|id| ids.insert(id.as_bytes()));
    for segment in searcher.segment_readers() {
        let index = segment.inverted_index(FIELDS.id)?;
        let mut terms = index.terms().stream()?;
        while terms.advance() {
            ids.insert(terms.key());
        }
    }
    Ok(ids)
}

/// Whether an index holds a term in a document that is not deleted.
fn holds(searcher: &Searcher, term: &Term) -> tantivy::Result<bool> {
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

/// Makes a folder where there is none. Its parent is synced, or it would not outlive a power failure with all that is synced in it.
fn create_folder(folder: &Path) -> std::io::Result<()> {
    if !folder.exists() {
        std::fs::create_dir_all(folder)?;
        if let Some(parent) = folder.parent() {
            std::fs::File::open(parent)?.sync_all()?;
        }
    }
    Ok(())
}

/// An error of the disk or of an index, as the store's.
pub(super) fn unavailable(path: &Path, error: &dyn std::fmt::Display) -> StoreError {
    StoreError::Unavailable(format!("{}: {error}; check the disk's space and rights", path.display()))
}

/// An error of an index without a known place.
pub(super) fn index_failed(error: &TantivyError) -> StoreError {
    StoreError::Unavailable(format!("the index failed: {error}; check the disk's space"))
}

/// Removes a folder so that a crash in between leaves it whole or gone: it is renamed first, and [`sweep`] finds it by its new name.
pub(super) fn remove_folder(folder: &Path) -> std::io::Result<()> {
    let mut name = folder.file_name().unwrap_or_default().to_owned();
    name.push(REMOVED);
    let removed: PathBuf = folder.with_file_name(name);
    std::fs::rename(folder, &removed)?;
    std::fs::remove_dir_all(&removed)
}

/// How a folder ends that is being removed.
const REMOVED: &str = ".removed";

/// Ends the removals that a crash cut short.
pub(super) fn sweep(parent: &Path) -> std::io::Result<()> {
    for entry in std::fs::read_dir(parent)? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == &REMOVED[1..]) {
            std::fs::remove_dir_all(&path)?;
        }
    }
    Ok(())
}
