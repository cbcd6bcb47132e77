//! Real servers for tests. Each test binary takes this file in by its path.
#![allow(dead_code, reason = "each test binary uses a part of it")]
#![allow(missing_docs, reason = "part of test binaries")]

pub mod proxy;
pub mod rabbitmq;
