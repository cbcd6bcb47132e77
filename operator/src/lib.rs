//! Resources become a running SIEM: the Kubernetes operator of Redoubt.
//!
//! ```text
//! Siem --siem--> roles, RabbitMQ, Elasticsearch, and all that they need
//! LogSource, Enrichment, Watchlist, AlertRule, ResponseAction --config--> judged by the engine, told in their status
//! ```
//!
//! [`siem`] makes of each Siem the objects that run it, and keeps them as they should be. [`config`] watches the resources that say what
//! the SIEM does, judges them with the same engine code that the workers run, and writes what it found into their status. Workers do not
//! wait for either: they watch the same resources themselves, and a cluster whose operator is away goes on as it is.
//!
//! One process works at a time: [`leader`] keeps others waiting. All calls of the API server go through [`client`], which counts them and
//! bounds how many there are at once and how long each may take. Nothing is written when nothing has changed.

pub mod cli;
pub mod client;
pub mod config;
pub mod health;
pub mod leader;
pub mod metrics;
pub mod options;
pub mod permissions;
pub mod siem;
#[cfg(test)]
mod testing;
