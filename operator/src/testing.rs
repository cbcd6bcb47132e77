//! The world outside, in memory: an API server of Kubernetes, and the faults that calls may meet.

pub(crate) mod api;
pub(crate) mod fault;
mod merge;
