//! The pure core of Redoubt: what an event is, how it is read, enriched and matched, and when matches become an alert.
//!
//! ```text
//! resources --compile--> Plan
//! body --frame--> RawEvent --Plan::process--> Event + Matches --Correlator::apply--> Alerts --Plan::responses--> what to do
//! ```
//!
//! Nothing here opens a socket or a file, reads a clock or talks to Kubernetes: time comes in with the event, bytes with the caller.
//! So the workers, the operator, `redoubt check` and the tests all get the same answer from the same code.

pub mod alert;
pub mod compile;
pub mod correlate;
pub mod diagnostic;
pub mod enrich;
pub mod event;
pub mod format;
pub mod resource;
pub mod respond;
pub mod rule;
pub mod source;
pub mod weight;
