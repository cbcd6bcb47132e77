//! Bulks that come while others are on their way go together in the next one: a request costs the cluster much that does not depend on
//! its size, and a lone bulk waits for nothing.
//!
//! Whoever gets a turn writes for all that wait by then, its own bulk among them unless another took it along. Where the work is given up
//! in the middle, those that it was also done for are told that nothing is known of their documents, as after any failure of the store.

use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::{Semaphore, oneshot};

use crate::store::{ItemResult, StoreError};

/// So many bulks are on their way at a time.
const TURNS: usize = 2;
/// More documents do not go together, but for a single bulk that has more.
const MAX_DOCUMENTS: usize = 5_000;

/// What waits for a turn.
pub(super) struct Gather<D> {
    turns: Semaphore,
    waiting: Mutex<Vec<Waiting<D>>>,
}

struct Waiting<D> {
    documents: Vec<D>,
    answer: oneshot::Sender<Result<Vec<ItemResult>, StoreError>>,
}

impl<D> Default for Gather<D> {
    fn default() -> Self {
        Self { turns: Semaphore::new(TURNS), waiting: Mutex::default() }
    }
}

impl<D> Gather<D> {
    /// Writes a bulk, alone or with others, by a function that answers with a result for each document in order.
    pub(super) async fn write(
        &self,
        documents: Vec<D>,
        write: impl AsyncFnOnce(Vec<D>) -> Result<Vec<ItemResult>, StoreError>,
    ) -> Result<Vec<ItemResult>, StoreError> {
        let (answer, mut answered) = oneshot::channel();
        self.waiting().push(Waiting { documents, answer });
        tokio::select! {
            biased;
            answered = &mut answered => return answered.map_err(|_| given_up())?,
            turn = self.turns.acquire() => {
                let _turn = turn.map_err(|_| given_up())?;
                self.write_waiting(write).await;
            }
        }
        answered.await.map_err(|_| given_up())?
    }

    async fn write_waiting(&self, write: impl AsyncFnOnce(Vec<D>) -> Result<Vec<ItemResult>, StoreError>) {
        let taken = self.take();
        if taken.is_empty() {
            return;
        }
        let mut documents = Vec::with_capacity(taken.iter().map(|bulk| bulk.documents.len()).sum());
        let mut shares = Vec::with_capacity(taken.len());
        for bulk in taken {
            shares.push((bulk.documents.len(), bulk.answer));
            documents.extend(bulk.documents);
        }
        let mut results = write(documents).await.map(Vec::into_iter);
        for (count, answer) in shares {
            let share = match &mut results {
                Ok(results) => Ok(results.take(count).collect()),
                Err(error) => Err(error.clone()),
            };
            // Whoever asked may be gone; what is written stays.
            let _ = answer.send(share);
        }
    }

    /// The bulks that waited for longest, as many as may go together.
    fn take(&self) -> Vec<Waiting<D>> {
        let mut waiting = self.waiting();
        let mut documents = 0;
        let fitting = waiting
            .iter()
            .take_while(|bulk| {
                documents += bulk.documents.len();
                documents <= MAX_DOCUMENTS
            })
            .count();
        let count = fitting.max(1).min(waiting.len());
        waiting.drain(..count).collect()
    }

    fn waiting(&self) -> MutexGuard<'_, Vec<Waiting<D>>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn given_up() -> StoreError {
    StoreError::Unavailable("a write that this one went along with was given up".to_owned())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use futures::future::join_all;
    use tokio::sync::Notify;

    use super::*;
    use crate::store::Rejection;

    fn bulk(count: usize, name: &str) -> Vec<String> {
        vec![name.to_owned(); count]
    }

    /// Refuses each document by its own name.
    fn named(documents: Vec<String>) -> Vec<ItemResult> {
        documents.into_iter().map(|reason| Err(Rejection { reason })).collect()
    }

    #[tokio::test]
    async fn what_comes_meanwhile_goes_together_and_each_gets_its_own_results() {
        let (gather, go_on, sizes) = (Gather::default(), Notify::new(), Mutex::new(Vec::new()));
        let write = async |documents: Vec<String>| {
            sizes.lock().unwrap().push(documents.len());
            if documents.len() == 1 {
                go_on.notified().await;
            }
            Ok(named(documents))
        };
        let first = join_all((0..TURNS).map(|_| gather.write(bulk(1, "first"), write)));
        let others = async {
            let others = join_all(["a", "b", "c"].map(|id| gather.write(bulk(2, id), write)));
            let let_go = async { (0..TURNS).for_each(|_| go_on.notify_one()) };
            tokio::join!(others, let_go).0
        };

        let (_, others) = tokio::join!(first, others);

        assert_eq!(*sizes.lock().unwrap(), [1, 1, 6]);
        for (id, results) in ["a", "b", "c"].iter().zip(others) {
            let reasons: Vec<String> = results.unwrap().into_iter().map(|result| result.unwrap_err().reason).collect();
            assert_eq!(reasons, [*id, *id]);
        }
    }

    #[tokio::test]
    async fn a_failure_is_told_to_all_and_a_large_bulk_goes_alone() {
        let gather = Arc::new(Gather::default());
        let sizes = Mutex::new(Vec::new());
        let write = async |documents: Vec<String>| {
            sizes.lock().unwrap().push(documents.len());
            tokio::task::yield_now().await;
            if documents.len() > MAX_DOCUMENTS { Ok(named(documents)) } else { Err(StoreError::Unavailable("down".to_owned())) }
        };

        let counts = [1, 1, MAX_DOCUMENTS + 1, 2, 3];
        let results = join_all(counts.map(|count| gather.write(bulk(count, "x"), write))).await;

        let failed: Vec<bool> = results.iter().map(Result::is_err).collect();
        assert_eq!(failed, [true, true, false, true, true]);
        assert_eq!(*sizes.lock().unwrap(), [1, 1, MAX_DOCUMENTS + 1, 5]);
    }

    #[tokio::test]
    async fn whoever_went_along_with_a_write_that_was_given_up_is_told() {
        let gather = Gather::default();
        let never = async |_: Vec<String>| std::future::pending().await;
        let mut leader = Box::pin(gather.write(bulk(1, "leader"), never));
        assert!(futures::poll!(leader.as_mut()).is_pending());
        let mut other_turn = Box::pin(gather.write(bulk(1, "other"), never));
        assert!(futures::poll!(other_turn.as_mut()).is_pending());
        let mut first_waiting = Box::pin(gather.write(bulk(1, "waiting"), never));
        assert!(futures::poll!(first_waiting.as_mut()).is_pending());
        let along = gather.write(bulk(1, "along"), never);
        let mut along = Box::pin(along);
        assert!(futures::poll!(along.as_mut()).is_pending());

        // The one that waits gets the turn, takes the other along, and is given up.
        drop(leader);
        assert!(futures::poll!(first_waiting.as_mut()).is_pending());
        drop(first_waiting);

        assert!(matches!(along.await, Err(StoreError::Unavailable(_))));
    }
}
