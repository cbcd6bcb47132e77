//! What the ingest role promises its senders, shown over real sockets and a real queue.
#![allow(clippy::unwrap_used, reason = "clippy.toml permits it in tests, which to clippy are only the functions marked as such")]

mod amqp;
mod answers;
mod bulk;
mod credentials;
mod hot_reload;
mod malformed;
#[path = "../servers/servers.rs"]
mod servers;
mod shutdown;
mod site;
mod syslog;
mod tls;
