//! Reading events: cutting a body into single events, and understanding one.
//!
//! [`frame`] runs in ingest and only cuts; [`parse`] runs in process and understands. One frame becomes exactly one event or one
//! dead letter, so that what is accepted can be counted.

use redoubt_crds::Format;

use crate::{
    event::{Event, RawEvent},
    source::Source,
};

/// Why a piece of a body is not an event.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message} (line {line}, column {column}); {remedy}")]
pub struct FrameError {
    /// Line within the body, from one.
    pub line: usize,
    /// Column within the line, from one.
    pub column: usize,
    /// What is wrong.
    pub message: String,
    /// What to do about it.
    pub remedy: String,
}

/// Why an accepted event could not be understood; it becomes a dead letter with this reason.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not {expected}: {message}")]
pub struct ParseError {
    /// What the source's format asks for.
    pub expected: &'static str,
    /// What is wrong, with line and column where known.
    pub message: String,
}

/// Cuts a body into single events of the given format, in order. A piece that cannot be one is an error in its place; the others stand.
///
/// JSON formats take one object, an array of objects, or objects one a line; `cloudtrail` takes `{"Records": [...]}` besides; text
/// formats take one event a line, and skip empty lines.
pub fn frame(format: Format, body: &str) -> Vec<Result<&str, FrameError>> {
    let _ = (format, body);
    unimplemented!()
}

/// Understands one event.
///
/// # Errors
/// The body is not of the source's format at all. A single value that makes no sense is no error: it is kept as text under
/// `details`, and the event is tagged `_unparsed_value`.
pub fn parse(source: &Source, raw: &RawEvent) -> Result<Event, ParseError> {
    let _ = (source, raw);
    unimplemented!()
}
