//! Where long computing is done: cutting bodies, and reading, enriching and matching events.
//!
//! It runs on threads for blocking work, as many at a time as there are cores for it; what is due besides (connections, the queue, a store
//! on the same machine) then runs when it is due. With more at a time all of it takes longer: each is put off in the middle of its work, and
//! finds its caches full of another's when it goes on.

use std::{sync::Arc, thread::available_parallelism};

use tokio::{sync::Semaphore, task::spawn_blocking};

/// The cores that roles of one process share.
#[derive(Debug, Clone)]
pub struct Cores(Arc<Semaphore>);

impl Cores {
    /// All that the process may use. Where all roles are in it, one is left for what else they do, if there are several.
    #[must_use]
    pub fn of_this_machine(all_roles: bool) -> Self {
        let cores = available_parallelism().map_or(1, usize::from);
        Self(Arc::new(Semaphore::new(cores.saturating_sub(usize::from(all_roles)).max(1))))
    }

    /// Computes when a core is free.
    ///
    /// # Errors
    /// It panicked, or the process ends.
    pub async fn compute<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> Result<T, String> {
        let core = Arc::clone(&self.0).acquire_owned().await.map_err(|closed| closed.to_string())?;
        let computing = spawn_blocking(move || {
            let _core = core;
            work()
        });
        computing.await.map_err(|panicked| panicked.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_panic_is_an_error_and_gives_the_core_back() {
        let cores = Cores(Arc::new(Semaphore::new(1)));

        let panicked = cores.compute(|| panic!("no")).await;
        let computed = cores.compute(|| 1).await;

        assert!(panicked.is_err_and(|reason: String| reason.contains("panic")));
        assert_eq!(computed, Ok(1));
    }
}
