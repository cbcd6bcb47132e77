//! What the writer thread is asked to do, and the way there.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};

use crate::broker::{BrokerError, Topic};

/// At most so many commands wait for the writer; more callers wait in `call`.
const WAITING_COMMANDS: usize = 1024;

/// At most so many bytes of bodies wait for the writer, in KiB. One publish that is larger waits until it is alone.
const WAITING_KIB: usize = 128 << 10;

/// A change of the file.
#[derive(Debug)]
pub(super) enum Change {
    Declare {
        topic: Topic,
        subscription: String,
    },
    Publish {
        topic: Topic,
        bodies: Vec<Vec<u8>>,
    },
    /// Deletes messages.
    Acknowledge {
        queue: u32,
        sequences: Vec<u64>,
    },
    /// A consumer takes a queue. Stores how often messages came back in the hands of those before it.
    Hold {
        queue: u32,
        prefetch: u64,
        counts: Vec<(u64, u32)>,
    },
    /// A message came back so often, or will have when it is not acknowledged now.
    Count {
        queue: u32,
        sequence: u64,
        times: u32,
    },
    /// Moves a message to the dead ones.
    SetAside {
        queue: u32,
        sequence: u64,
        reason: String,
    },
    /// Moves a dead message to the end of its queue.
    Replay {
        number: u64,
    },
    /// Deletes a dead message.
    Discard {
        number: u64,
    },
    /// A reader met an error: the database is opened again.
    Reopen,
}

/// What became of a change that did not fail.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Outcome {
    Done,
    /// [`Change::SetAside`]: no more dead messages are taken.
    NoRoom,
    /// [`Change::Replay`], [`Change::Discard`]: there is no such dead message.
    NotThere,
}

/// A change and who waits for it.
#[derive(Debug)]
pub(super) struct Command {
    pub(super) change: Change,
    pub(super) reply: oneshot::Sender<Result<Outcome, BrokerError>>,
    /// Holds the memory of the bodies until they are written.
    _memory: Option<OwnedSemaphorePermit>,
}

#[derive(Debug)]
pub(super) enum Letter {
    Command(Command),
    /// Finish what was sent before, and end.
    Close,
}

/// The way to the writer.
#[derive(Debug, Clone)]
pub(super) struct Link {
    letters: mpsc::Sender<Letter>,
    memory: Arc<Semaphore>,
}

impl Link {
    pub(super) fn new() -> (Self, mpsc::Receiver<Letter>) {
        let (letters, receiver) = mpsc::channel(WAITING_COMMANDS);
        (Self { letters, memory: Arc::new(Semaphore::new(WAITING_KIB)) }, receiver)
    }

    /// Sends a change and waits until it is durable. A call that is given up after it was sent is carried out all the same.
    pub(super) async fn call(&self, change: Change) -> Result<Outcome, BrokerError> {
        let memory = match &change {
            Change::Publish { bodies, .. } => {
                let kib = bodies.iter().map(|body| body.len() / 1024 + 1).sum::<usize>().min(WAITING_KIB);
                let permits = u32::try_from(kib).unwrap_or(u32::MAX);
                // The semaphore is never closed, so this only fails if that changes; closed is then the right word.
                Some(Arc::clone(&self.memory).acquire_many_owned(permits).await.map_err(|_| BrokerError::Closed)?)
            }
            _ => None,
        };
        let (reply, answer) = oneshot::channel();
        let command = Command { change, reply, _memory: memory };
        self.letters.send(Letter::Command(command)).await.map_err(|_| BrokerError::Closed)?;
        let panicked = || BrokerError::Unavailable("the writer of the queue's file panicked; the log says over what".to_owned());
        answer.await.unwrap_or_else(|_| Err(panicked()))
    }

    pub(super) async fn close(&self) {
        // Fails when the writer has ended, which is what was asked for.
        let _ = self.letters.send(Letter::Close).await;
    }
}
