//! A LogSource made ready: what is known of each of its events.

use std::sync::Arc;

use redoubt_crds::{Format, LogSourceSpec, SigmaLogsource};

use crate::diagnostic::Problem;

/// A LogSource made ready.
#[derive(Debug, Clone)]
pub struct Source {
    /// Name of the resource.
    pub name: Arc<str>,
    /// The format in force.
    pub format: Format,
    /// `event.dataset`.
    pub dataset: String,
    /// The declared Sigma logsource; empty where the format tells it event by event.
    pub logsource: Arc<SigmaLogsource>,
    /// The zone of timestamps that carry none.
    pub timezone: jiff::tz::TimeZone,
    /// The resource itself.
    pub spec: LogSourceSpec,
}

impl Source {
    /// Makes a LogSource ready.
    ///
    /// # Errors
    /// Every problem found: an unknown time zone, a malformed CIDR, two fields written to one path.
    pub fn compile(name: &str, spec: &LogSourceSpec) -> Result<Self, Vec<Problem>> {
        let _ = (name, spec);
        unimplemented!()
    }
}
