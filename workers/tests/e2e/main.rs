//! The whole product as a user meets it: the `redoubt` binary, real files, real sockets.
#![allow(clippy::unwrap_used, reason = "clippy.toml permits it in tests, which to clippy are only the functions marked as such")]

mod attack;
mod cli;
mod crash;
mod external;
mod harness;
mod hostile;
mod reload;
#[path = "../servers/servers.rs"]
mod servers;
mod under_fire;
mod webhook;
