//! The roles of a SIEM, each of which may have processes of its own.

use std::fmt;

use redoubt_engine::resource::Kind;

/// What a process does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// Takes events in.
    Ingest,
    /// Understands, enriches, matches and stores them.
    Process,
    /// Brings matches together into alerts.
    Correlate,
    /// Does what is to be done about alerts.
    Respond,
}

impl Role {
    /// The kinds of resources that it works by. Of the rest it need not know: thousands of rules are nothing to who takes events in.
    pub(crate) const fn kinds(self) -> &'static [Kind] {
        match self {
            Self::Ingest => &[Kind::Siem, Kind::LogSource],
            Self::Process => &[Kind::Siem, Kind::LogSource, Kind::Watchlist, Kind::Enrichment, Kind::AlertRule],
            Self::Correlate => &[Kind::Siem, Kind::AlertRule],
            Self::Respond => &[Kind::Siem, Kind::ResponseAction],
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Ingest => "ingest",
            Self::Process => "process",
            Self::Correlate => "correlate",
            Self::Respond => "respond",
        })
    }
}
