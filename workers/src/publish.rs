//! Publishing on behalf of the roles: in messages of bounded size, and until the broker has taken them.

use tokio_util::sync::CancellationToken;
use tracing::warn;

use crate::{
    backoff::Backoff,
    batch,
    broker::{Broker, BrokerError, Topic},
};

/// Bytes of JSON that the items of one message have together, roughly; an item above it goes alone.
pub(crate) const MAX_MESSAGE_BYTES: usize = 4 << 20;

/// Why a message was not published.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PublishError {
    /// A shutdown began.
    #[error("stopped while the broker did not answer: {0}")]
    Stopped(BrokerError),
    /// The broker takes no message of this size: trying again does not help.
    #[error(transparent)]
    TooLarge(BrokerError),
    /// The items cannot be written as a message: trying again does not help.
    #[error(transparent)]
    NoBatch(#[from] batch::BatchError),
}

/// Publishes a message, trying again while the broker is full or does not answer.
pub(crate) async fn publish_until_taken(
    broker: &dyn Broker,
    topic: Topic,
    body: Vec<u8>,
    shutdown: &CancellationToken,
) -> Result<(), PublishError> {
    let mut backoff = Backoff::default();
    loop {
        match broker.publish(topic, vec![body.clone()]).await {
            Ok(()) => return Ok(()),
            Err(error @ BrokerError::TooLarge { .. }) => return Err(PublishError::TooLarge(error)),
            Err(error) => {
                warn!(%error, %topic, "the broker did not take a message; trying again");
                if backoff.pause(shutdown).await.is_err() {
                    return Err(PublishError::Stopped(error));
                }
            }
        }
    }
}

/// Cuts items, in their order, into runs of at most `max_items` and, by `bytes_of`, at most `max_bytes`; each has one item at least.
pub(crate) fn cut<T>(items: &[T], max_items: usize, max_bytes: usize, bytes_of: impl Fn(&T) -> usize) -> Vec<&[T]> {
    let mut runs = Vec::new();
    let (mut start, mut bytes) = (0, 0_usize);
    for (at, item) in items.iter().enumerate() {
        let more = bytes_of(item);
        if at > start && (at - start >= max_items || bytes.saturating_add(more) > max_bytes) {
            runs.push(&items[start..at]);
            (start, bytes) = (at, 0);
        }
        bytes = bytes.saturating_add(more);
    }
    if start < items.len() {
        runs.push(&items[start..]);
    }
    runs
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn items_are_cut_by_number_and_by_bytes_and_none_is_lost() {
        for (name, items, expected) in [
            ("none", vec![], vec![]),
            ("all fit", vec![4, 6], vec![vec![4, 6]]),
            ("by bytes", vec![4, 7, 3, 1], vec![vec![4], vec![7, 3], vec![1]]),
            ("by number", vec![1, 1, 1, 1], vec![vec![1, 1, 1], vec![1]]),
            ("too large alone", vec![1, 99, 1], vec![vec![1], vec![99], vec![1]]),
        ] {
            let runs: Vec<Vec<usize>> = cut(&items, 3, 10, |bytes| *bytes).into_iter().map(<[usize]>::to_vec).collect();

            assert_eq!(runs, expected, "{name}");
        }
    }
}
