//! Deliveries that are worked on at the same time, and what becomes of each.

use std::{collections::HashMap, future::Future};

use tokio::task::{Id, JoinSet};
use tokio_util::sync::CancellationToken;
use tracing::{error, warn};

use crate::broker::{BrokerError, Consumer};

/// Tasks that work on one delivery each. A task that panics has failed like any other: its delivery is not forgotten.
#[derive(Default)]
pub(crate) struct InFlight {
    tasks: JoinSet<Result<(), String>>,
    /// The tag and the size of what each works on.
    held: HashMap<Id, (u64, usize)>,
    bytes: usize,
}

impl InFlight {
    pub(crate) fn len(&self) -> usize {
        self.tasks.len()
    }

    /// Bytes of all that is worked on.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Begins to work on the delivery with this tag, of a message of so many bytes.
    pub(crate) fn spawn(&mut self, tag: u64, bytes: usize, work: impl Future<Output = Result<(), String>> + Send + 'static) {
        self.held.insert(self.tasks.spawn(work).id(), (tag, bytes));
        self.bytes += bytes;
    }

    /// The tag of the next delivery whose work ends, and how that went; `None` when none is worked on. Giving up the call loses nothing.
    pub(crate) async fn next(&mut self) -> Option<(u64, Result<(), String>)> {
        loop {
            let (id, done) = match self.tasks.join_next_with_id().await? {
                Ok(finished) => finished,
                Err(panicked) => {
                    error!(error = %panicked, "a worker ended unexpectedly");
                    (panicked.id(), Err("panicked".to_owned()))
                }
            };
            if let Some((tag, bytes)) = self.held.remove(&id) {
                self.bytes -= bytes;
                return Some((tag, done));
            }
        }
    }
}

/// Acknowledges a delivery that is done, gives back one that is not. In a shutdown the latter is only let go of: it is handed out again
/// to the next consumer, and a stop of ours does not count towards its delivery limit.
///
/// # Errors
/// The broker does not answer.
pub(crate) async fn settle(
    consumer: &mut dyn Consumer,
    tag: u64,
    done: Result<(), String>,
    shutdown: &CancellationToken,
) -> Result<(), BrokerError> {
    match done {
        Ok(()) => consumer.ack(&[tag]).await,
        Err(_) if shutdown.is_cancelled() => Ok(()),
        Err(reason) => {
            warn!(reason, "a message goes back to the queue");
            consumer.reject(tag, &reason).await
        }
    }
}

#[cfg(test)]
mod tests {
    use async_trait::async_trait;

    use super::*;
    use crate::broker::Delivery;

    #[derive(Default)]
    struct Notes(Vec<String>);

    #[async_trait]
    impl Consumer for Notes {
        async fn next(&mut self) -> Result<Option<Delivery>, BrokerError> {
            Ok(None)
        }

        async fn ack(&mut self, tags: &[u64]) -> Result<(), BrokerError> {
            self.0.push(format!("ack {tags:?}"));
            Ok(())
        }

        async fn reject(&mut self, tag: u64, reason: &str) -> Result<(), BrokerError> {
            self.0.push(format!("reject {tag} {reason}"));
            Ok(())
        }
    }

    #[tokio::test]
    async fn work_that_panics_ends_under_its_tag() {
        let mut running = InFlight::default();
        running.spawn(7, 100, async { panic!("a defect") });

        assert_eq!((running.len(), running.bytes()), (1, 100));
        assert_eq!(running.next().await, Some((7, Err("panicked".to_owned()))));
        assert_eq!((running.len(), running.bytes()), (0, 0));
        assert_eq!(running.next().await, None);
    }

    #[tokio::test]
    async fn what_a_shutdown_cut_short_is_neither_acknowledged_nor_rejected() {
        let (mut notes, shutdown) = (Notes::default(), CancellationToken::new());

        settle(&mut notes, 1, Ok(()), &shutdown).await.unwrap();
        settle(&mut notes, 2, Err("broken".to_owned()), &shutdown).await.unwrap();
        shutdown.cancel();
        settle(&mut notes, 3, Err("stopped".to_owned()), &shutdown).await.unwrap();
        settle(&mut notes, 4, Ok(()), &shutdown).await.unwrap();

        assert_eq!(notes.0, ["ack [1]", "reject 2 broken", "ack [4]"]);
    }
}
