//! The pipeline around the engine: the roles, the two seams they stand on ([`broker`], [`store`]), and the command line.

pub mod batch;
pub mod broker;
pub mod ingest;
pub mod metrics;
pub mod secrets;
pub mod store;
pub mod tls;
