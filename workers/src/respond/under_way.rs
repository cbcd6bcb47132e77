//! The runs that are under way in this process, so that none is under way twice.

use std::{
    collections::HashSet,
    sync::{Mutex, PoisonError},
};

use tokio::sync::Notify;

/// Ids of runs under way.
#[derive(Default)]
pub(super) struct UnderWay {
    ids: Mutex<HashSet<String>>,
    ended: Notify,
}

/// A run under way; dropping it ends that.
pub(super) struct Hold<'a> {
    all: &'a UnderWay,
    id: String,
}

impl UnderWay {
    /// Takes hold of a run, once whoever has hold of it is done.
    pub(super) async fn hold(&self, id: &str) -> Hold<'_> {
        loop {
            // Made before the look, so that an end between the look and the wait is not missed.
            let ended = self.ended.notified();
            if self.ids.lock().unwrap_or_else(PoisonError::into_inner).insert(id.to_owned()) {
                return Hold { all: self, id: id.to_owned() };
            }
            ended.await;
        }
    }
}

impl Drop for Hold<'_> {
    fn drop(&mut self) {
        self.all.ids.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.id);
        self.all.ended.notify_waiters();
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt as _;

    use super::*;

    #[tokio::test]
    async fn a_second_holder_waits_until_the_first_is_done_and_others_do_not() {
        let under_way = UnderWay::default();
        let first = under_way.hold("a").await;
        let mut second = Box::pin(under_way.hold("a"));

        assert!((&mut second).now_or_never().is_none());
        assert!(under_way.hold("b").now_or_never().is_some());
        drop(first);
        assert!(second.now_or_never().is_some());
    }
}
