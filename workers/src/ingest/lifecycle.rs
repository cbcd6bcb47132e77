//! The end of a listener.

use tokio_util::{sync::CancellationToken, task::TaskTracker};

/// How a listener is told to end, in two steps, and how it is known that it did.
#[derive(Debug, Clone)]
pub(super) struct Lifecycle {
    /// Take no more, end what runs.
    pub(super) stop: CancellationToken,
    /// Give up what still runs.
    pub(super) kill: CancellationToken,
    /// The listener's connections and buffers.
    pub(super) tracker: TaskTracker,
}
