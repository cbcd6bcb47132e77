//! The pipeline around the engine: the roles, the two seams they stand on, and the command line.
//!
//! ```text
//! ingest -> [broker: events] -> process -> store
//!                                  `-> [broker: matches] -> correlate -> store
//!                                                               `-> [broker: alerts] -> respond
//! ```
//!
//! The roles ([`ingest`], [`process`], [`correlate`], [`respond`]) know the seams ([`broker`], [`store`]) and the engine, and nothing
//! of each other. [`run`] puts them together in one process, or runs one of them. [`resources`] feeds them with the plan that is in force.

mod amqp;
pub mod backoff;
pub mod batch;
pub mod broker;
pub mod cli;
pub mod cores;
pub mod correlate;
mod health;
mod inflight;
pub mod ingest;
mod kubernetes;
pub mod metrics;
pub mod process;
mod publish;
pub mod resources;
pub mod respond;
pub mod retention;
pub mod role;
pub mod run;
pub mod secrets;
pub mod store;
pub mod tls;
