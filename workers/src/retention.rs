//! Deletes what has been kept for as long as was declared.

use std::{sync::Arc, time::Duration};

use anyhow::Result;
use redoubt_engine::{compile::Plan, correlate::hold_millis};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::store::{Family, Store};

/// How often the store is looked through.
const INTERVAL: Duration = Duration::from_secs(3600);

/// The task and what it stands on.
pub struct Retention {
    /// How long things are kept.
    pub plan: watch::Receiver<Arc<Plan>>,
    /// Where they are kept.
    pub store: Arc<dyn Store>,
    /// The time now, milliseconds since 1970.
    pub now_millis: fn() -> i64,
}

impl Retention {
    /// Looks through the store at once and then every hour, until told to stop.
    ///
    /// # Errors
    /// Never; what cannot be deleted now is tried again.
    pub async fn run(self, shutdown: CancellationToken) -> Result<()> {
        loop {
            self.delete_old().await;
            tokio::select! {
                () = shutdown.cancelled() => return Ok(()),
                () = tokio::time::sleep(INTERVAL) => {}
            }
        }
    }

    async fn delete_old(&self) {
        let plan = Arc::clone(&self.plan.borrow());
        let retention = &plan.siem.retention;
        // A restart reads back what may still count, so matches stay for as long as some rule holds them.
        let longest_hold = plan.rules.iter().filter(|rule| rule.keeps_state()).map(|rule| hold_millis(&rule.spec)).max().unwrap_or(0);
        for family in Family::ALL {
            let kept_millis = match family {
                Family::Events => retention.events.as_millis(),
                Family::Matches => retention.events.as_millis().max(longest_hold),
                Family::Alerts | Family::Responses => retention.alerts.as_millis().max(longest_hold),
                Family::DeadLetters => retention.dead_letters.as_millis(),
            };
            match self.store.delete_older_than(family, (self.now_millis)().saturating_sub(kept_millis)).await {
                Ok(0) => {}
                Ok(deleted) => info!(%family, deleted, "deleted what is older than its retention"),
                Err(error) => warn!(%family, %error, "what is older than its retention could not be deleted; trying again later"),
            }
        }
    }
}
