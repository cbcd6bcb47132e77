//! The managed RabbitMQ: its configuration, its pods, and what is done to them in which order.
//!
//! Its nodes are pods of one StatefulSet that start side by side and find each other by name. An empty node other than the first waits for
//! the first, so that two never start two clusters. Clients come over TLS only; between the nodes there is Erlang's protocol, which only
//! they may reach and for which they need the cookie.

pub(crate) mod config;
mod definitions;
pub(crate) mod pods;

pub(crate) use definitions::{VHOST, definitions, of_admins, of_workers};

/// Port of the management API, TLS only.
pub(crate) const MANAGEMENT_PORT: u16 = 15671;
/// Port of the metrics, TLS only.
pub(crate) const METRICS_PORT: u16 = 15691;
/// Ports between the nodes: Erlang's port mapper, and its protocol.
pub(crate) const BETWEEN_NODES: [u16; 2] = [4369, 25672];
/// Key of the cookie in the Secret of the nodes.
pub(crate) const COOKIE: &str = "erlang-cookie";
/// Key of the users in the Secret of the nodes.
pub(crate) const DEFINITIONS: &str = "definitions.json";
