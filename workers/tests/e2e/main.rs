//! The whole product as a user meets it: the `redoubt` binary, real files, real sockets.
#![allow(clippy::unwrap_used, reason = "clippy.toml permits it in tests, which to clippy are only the functions marked as such")]

mod attack;
mod cli;
mod cluster;
mod crash;
mod dead_messages;
mod external;
mod harness;
mod hostile;
mod known;
mod many_rules;
mod namespace;
mod partitions;
mod reload;
mod secure;
#[path = "../servers/servers.rs"]
mod servers;
mod under_fire;
mod webhook;
