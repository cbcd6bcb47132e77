//! Real servers for tests. Each test binary takes this file in by its path.
#![allow(dead_code, reason = "each test binary uses a part of it")]
#![allow(missing_docs, reason = "part of test binaries")]
#![allow(clippy::unwrap_used, reason = "a harness that fails is a test that fails")]

pub mod authority;
pub mod elasticsearch;
pub mod proxy;
pub mod rabbitmq;
pub mod tls_front;
