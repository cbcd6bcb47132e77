//! Where long computing is done: cutting bodies, and reading, enriching and matching events.
//!
//! It runs on threads for blocking work, as many at a time as there are cores for it; what is due besides (connections, the queue, a store
//! on the same machine) then runs when it is due. With more at a time all of it takes longer: each is put off in the middle of its work, and
//! finds its caches full of another's when it goes on. No role waits for more cores than there are, so that each gets its turn soon however
//! much another has to do.

use std::{sync::Arc, thread::available_parallelism};

use tokio::{sync::Semaphore, task::spawn_blocking};

/// The cores that roles of one process share, as one of them sees them.
#[derive(Debug, Clone)]
pub struct Cores {
    shared: Arc<Semaphore>,
    /// The places of this role in the line before them.
    places: Arc<Semaphore>,
    count: usize,
}

impl Cores {
    /// All that the process may use. Where all roles are in it, one is left for what else they do, if there are several.
    #[must_use]
    pub fn of_this_machine(all_roles: bool) -> Self {
        let cores = available_parallelism().map_or(1, usize::from);
        Self::new(cores.saturating_sub(usize::from(all_roles)).max(1))
    }

    fn new(count: usize) -> Self {
        Self { shared: Arc::new(Semaphore::new(count)), places: Arc::new(Semaphore::new(count)), count }
    }

    /// The same cores, for another role.
    #[must_use]
    pub fn for_another(&self) -> Self {
        Self { shared: Arc::clone(&self.shared), places: Arc::new(Semaphore::new(self.count)), count: self.count }
    }

    /// Computes when a core is free.
    ///
    /// # Errors
    /// It panicked, or the process ends.
    pub async fn compute<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> Result<T, String> {
        let mut held = Vec::with_capacity(2);
        for semaphore in [&self.places, &self.shared] {
            held.push(Arc::clone(semaphore).acquire_owned().await.map_err(|closed| closed.to_string())?);
        }
        let computing = spawn_blocking(move || {
            let _held = held;
            work()
        });
        computing.await.map_err(|panicked| panicked.to_string())
    }
}

#[cfg(test)]
mod tests {
    use futures::future::join_all;

    use super::*;

    #[tokio::test]
    async fn roles_take_turns_however_much_one_has_to_do() {
        let one = Cores::new(1);
        let other = one.for_another();
        let order = Arc::new(std::sync::Mutex::new(Vec::new()));
        let note = |who: &'static str| {
            let order = Arc::clone(&order);
            move || order.lock().unwrap().push(who)
        };
        let first = one.shared.clone().acquire_owned().await.unwrap();
        let many = join_all((0..10).map(|_| one.compute(note("much"))));
        let few = other.compute(note("little"));

        let begin = async { drop(first) };
        let (many, few, ()) = tokio::join!(many, few, begin);

        assert!(few.is_ok() && many.iter().all(Result::is_ok));
        assert_eq!(order.lock().unwrap()[..2], ["much", "little"]);
    }

    #[tokio::test]
    async fn a_panic_is_an_error_and_gives_the_core_back() {
        let cores = Cores::new(1);

        let panicked = cores.compute(|| panic!("no")).await;
        let computed = cores.compute(|| 1).await;

        assert!(panicked.is_err_and(|reason: String| reason.contains("panic")));
        assert_eq!(computed, Ok(1));
    }
}
