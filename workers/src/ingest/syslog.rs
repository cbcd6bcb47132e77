//! Syslog: messages over UDP (RFC 5426), TCP (RFC 6587) and TLS (RFC 5425).
//!
//! Syslog has no answers, so each transport tells a sender to slow down in the one way it has: TCP and TLS stop reading while the queue
//! is full; UDP cannot, and what finds the buffer full is dropped, counted and logged. A message is acknowledged by nobody either: what
//! is in the buffer when the process is killed is lost, at most 50 milliseconds' worth while the broker takes messages. HTTP is the
//! transport for events that must not be lost.

use std::net::SocketAddr;

use redoubt_engine::source::Source;

use super::{Shared, log_throttle::LogThrottle};
use crate::metrics::IngestDropLabels;

pub(super) mod tcp;
pub(super) mod udp;

mod buffer;
mod splitter;

/// Counts messages that were not taken, and writes a line about them now and then.
#[derive(Debug, Default)]
struct Drops {
    log: LogThrottle,
}

impl Drops {
    fn count(&self, shared: &Shared, source: &Source, reason: &'static str, messages: usize, peer: Option<SocketAddr>) {
        let labels = IngestDropLabels { source: source.name.clone(), reason };
        shared.metrics.ingest_dropped.get_or_create(&labels).inc_by(messages as u64);
        if let Some(times) = self.log.due(tokio::time::Instant::now()) {
            tracing::warn!(source = %source.name, reason, peer = peer.map(tracing::field::display), times, "syslog messages not taken");
        }
    }
}
