//! What every implementation of the two seams must do.
#![allow(clippy::unwrap_used, reason = "clippy.toml permits it in tests, which to clippy are only the functions marked as such")]

mod broker;
#[path = "../servers/servers.rs"]
mod servers;
mod store;
