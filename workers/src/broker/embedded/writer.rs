//! The one thread that changes the file.
//!
//! What callers ask for while a transaction is being synced goes into the next one together, so a sync is paid once for all of them
//! and there is no delay when there is one caller. A transaction holds publishes, acknowledgements and counts in order of arrival;
//! memory is brought up to date, and callers answered, after it is durable.
//!
//! A failed transaction (the disk is full or broken) is answered to all of its callers, and the database is dropped and opened anew
//! for the next one: redb refuses a database that failed once. Nothing needs a restart when the disk works again.

use std::{
    collections::HashMap,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Arc, PoisonError},
    time::Instant,
};

use tokio::sync::mpsc;

use super::{
    Options, Shared,
    command::{Change, Command, Letter},
    drain::Drain,
    file::{self, Ledger, Opener, Tables},
    work::{Verdict, Work},
};
use crate::broker::{BrokerError, Topic};

/// A transaction is closed to further commands when it holds so many bytes of bodies.
const GROUP_BYTES: usize = 32 << 20;

/// ... or so many commands.
const GROUP_COMMANDS: usize = 4096;

pub(super) struct Writer {
    pub(super) shared: Arc<Shared>,
    pub(super) open: Opener,
    pub(super) options: Options,
    pub(super) ledger: Ledger,
    pub(super) drains: HashMap<Topic, Drain>,
}

impl Writer {
    /// Serves until the broker is closed or dropped, and then closes the database.
    pub(super) fn run(mut self, mut letters: mpsc::Receiver<Letter>) {
        while let Some(first) = letters.blocking_recv() {
            let group = gather(first, &mut letters);
            // redb may panic over a damaged file. Memory is only brought up to date after a commit, so all is well once it is open again;
            // the callers learn of it because their replies were dropped.
            let served = catch_unwind(AssertUnwindSafe(|| self.serve(group)));
            if served.is_err() {
                tracing::error!(path = %self.shared.path.display(), "a transaction of the queue panicked; the file is opened again");
                self.close_database();
            }
        }
        self.close_database();
        self.shared.ended.cancel();
    }

    fn serve(&mut self, mut group: Vec<Command>) {
        if group.is_empty() {
            return;
        }
        let reopen = group.iter().any(|command| matches!(command.change, Change::Reopen));
        let verdicts = self.ready(reopen).and_then(|()| {
            self.write(&mut group).map_err(|error| {
                tracing::error!(path = %self.shared.path.display(), %error, "a transaction of the queue failed; the file is opened again");
                self.close_database();
                format!("{}: {error}", self.shared.path.display())
            })
        });
        match verdicts {
            Ok(verdicts) => {
                for (command, verdict) in group.into_iter().zip(verdicts) {
                    // A caller that has gone does not need the answer.
                    let _ = command.reply.send(verdict);
                }
            }
            Err(reason) => {
                for command in group {
                    let _ = command.reply.send(Err(BrokerError::Unavailable(reason.clone())));
                }
            }
        }
    }

    /// Makes sure that there is a database that works.
    fn ready(&mut self, reopen: bool) -> Result<(), String> {
        if reopen {
            self.close_database();
        }
        let is_open = self.shared.database.read().unwrap_or_else(PoisonError::into_inner).is_some();
        if is_open {
            return Ok(());
        }
        let path = &self.shared.path;
        let loaded = file::load(path, &self.open, None).map_err(|error| error.to_string())?;
        tracing::info!(path = %path.display(), "the queue's file is open again");
        // The failed transaction may have become durable after all, so the file's word counts.
        self.ledger = loaded.ledger;
        *self.shared.database.write().unwrap_or_else(PoisonError::into_inner) = Some(loaded.database);
        self.shared.show(&self.ledger);
        Ok(())
    }

    fn close_database(&self) {
        // Waits for readers, which hold the lock for one read.
        let database = self.shared.database.write().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(Err(error)) = database.map(redb::Database::close) {
            tracing::warn!(path = %self.shared.path.display(), %error, "the queue's file was not closed cleanly; the next open repairs it");
        }
    }

    /// One transaction.
    fn write(&mut self, group: &mut [Command]) -> Result<Vec<Verdict>, redb::Error> {
        let mut verdicts = Vec::with_capacity(group.len());
        let done = {
            let database = self.shared.database.read().unwrap_or_else(PoisonError::into_inner);
            let Some(database) = database.as_ref() else { return Err(redb::Error::DatabaseClosed) };
            let transaction = database.begin_write()?;
            let mut work = Work::new(self.ledger.clone(), Tables::open(&transaction)?, self.options, &mut self.drains);
            for command in group {
                verdicts.push(work.apply(&mut command.change)?);
            }
            let done = work.finish(&self.ledger)?;
            if done.changed {
                transaction.commit()?;
            } else {
                transaction.abort()?;
            }
            done
        };
        self.ledger = done.ledger;
        self.shared.show(&self.ledger);
        let now = Instant::now();
        for (topic, bytes) in done.removed {
            self.drains.entry(topic).or_insert_with(|| Drain::new(now)).record(bytes, now);
        }
        Ok(verdicts)
    }
}

/// The first letter and those that came while the last transaction was written.
fn gather(first: Letter, letters: &mut mpsc::Receiver<Letter>) -> Vec<Command> {
    let mut group = Vec::new();
    let mut bytes = 0;
    let mut next = Some(first);
    while let Some(letter) = next {
        match letter {
            // What was sent before is still received; nothing can be sent any more.
            Letter::Close => letters.close(),
            Letter::Command(command) => {
                if let Change::Publish { bodies, .. } = &command.change {
                    bytes += bodies.iter().map(Vec::len).sum::<usize>();
                }
                group.push(command);
            }
        }
        next = if bytes < GROUP_BYTES && group.len() < GROUP_COMMANDS { letters.try_recv().ok() } else { None };
    }
    group
}
