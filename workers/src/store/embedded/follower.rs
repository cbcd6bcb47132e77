//! The thread that keeps the indices of records up to date.
//!
//! It follows the list of changes that [`Records`] keeps: at once after a quiet time, else as often as the refresh time says, since a commit
//! costs the same for one change as for a thousand. Its commits say how far they got, so that a crash at any moment costs a moment
//! of catching up. An index that is lost or cannot be read is built anew.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

use tantivy::{IndexWriter, Term};
use tokio::sync::oneshot;
use tracing::warn;

use super::contained;
use super::document::Prepared;
use super::partition::{Partition, index_failed, remove_folder, unavailable};
use super::records::{Change, FAMILIES, Records};
use super::schema::FIELDS;
use crate::store::{Family, StoreError};

/// After a failure the index tries to catch up again after this time.
const RETRY: Duration = Duration::from_secs(1);

/// The indices, by family.
pub(super) type Indices = HashMap<Family, Arc<Partition>>;

/// Opens the indices in a folder, or makes them.
pub(super) fn open_indices(folder: &Path, records: &Records) -> Result<Indices, StoreError> {
    let last = records.last_version()?;
    let mut indices = HashMap::new();
    for family in FAMILIES {
        indices.insert(family, Arc::new(open_index(&folder.join(family.as_str()), last)?));
    }
    Ok(indices)
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
    indices: Arc<Indices>,
    buffer_bytes: usize,
    refresh: Duration,
    writers: HashMap<Family, IndexWriter<Prepared>>,
}

impl Follower {
    pub(super) fn new(records: Arc<Records>, indices: Arc<Indices>, buffer_bytes: usize, refresh: Duration) -> Self {
        Self { records, indices, buffer_bytes, refresh, writers: HashMap::new() }
    }

    /// Works until told to close, or until nobody can ask any more. Catches up at once, then after changes.
    pub(super) fn run(mut self, commands: &Receiver<Command>) {
        // When there is something to catch up with.
        let mut due = Some(Instant::now());
        let mut rested = Instant::now();
        loop {
            let command = match due {
                Some(due) => commands.recv_timeout(due.saturating_duration_since(Instant::now())),
                None => commands.recv().map_err(|_| RecvTimeoutError::Disconnected),
            };
            let mut askers = Vec::new();
            let mut close = false;
            match command {
                Ok(Command::Changed) => {
                    due.get_or_insert(rested);
                    continue;
                }
                Ok(Command::CatchUp(asker)) => askers.push(asker),
                Ok(Command::Close) | Err(RecvTimeoutError::Disconnected) => close = true,
                Err(RecvTimeoutError::Timeout) => {}
            }
            let done = self.catch_up_all();
            rested = Instant::now() + self.refresh;
            due = done.is_err().then(|| Instant::now() + RETRY);
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
        let indices = Arc::clone(&self.indices);
        let Some(partition) = indices.get(&family) else { return Ok(()) };
        loop {
            let changes = self.records.changes_after(family, followed(partition)?)?;
            let Some(last) = changes.last().map(|change| change.version) else { return Ok(()) };
            let writer = match self.writers.entry(family) {
                Entry::Occupied(entry) => entry.into_mut(),
                Entry::Vacant(entry) => entry.insert(partition.writer(self.buffer_bytes).map_err(|error| index_failed(&error))?),
            };
            let mut deletions = Vec::new();
            for Change { version, id, record } in changes {
                writer.delete_term(Term::from_field_text(FIELDS.id, &id));
                let Some((received_millis, body)) = record else {
                    deletions.push(version);
                    continue;
                };
                match Prepared::record(id, received_millis, body) {
                    Ok(document) => drop(writer.add_document(document).map_err(|error| index_failed(&error))?),
                    Err(refusal) => warn!(%family, %refusal, "a record cannot be searched"),
                }
            }
            let mut commit = writer.prepare_commit().map_err(|error| index_failed(&error))?;
            commit.set_payload(&last.to_string());
            commit.commit().map_err(|error| index_failed(&error))?;
            partition.committed();
            self.records.forget_deletions(family, &deletions)?;
        }
    }
}
