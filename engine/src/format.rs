//! Reading events: cutting a body into single events, and understanding one.
//!
//! [`frame`] and [`frame_bulk`] run in ingest and only cut; [`parse`] runs in process and understands. One frame becomes exactly one
//! event or one dead letter, so that what is accepted can be counted.
//!
//! Each format is a file of its own and does one thing: it says where its fields belong. What holds for every event (ids, times, tags,
//! declared fields, bounds, and that nothing is lost) is in `draft`.

mod bounds;
mod bulk;
mod cef;
mod cloudtrail;
mod convert;
mod draft;
pub(crate) mod ecs;
mod frame;
mod json;
pub(crate) mod logsource;
mod mozdef;
mod priority;
mod syslog;
mod time;
mod windows;
pub(crate) mod windows_logsource;
mod zeek;
pub(crate) mod zeek_logsource;

#[cfg(test)]
mod corpus_tests;
#[cfg(test)]
mod event_tests;

use redoubt_crds::Format;

pub use self::bulk::{BulkItem, frame_bulk};
use crate::{
    event::{Event, RawEvent},
    source::Source,
};

/// Tag of an event one of whose values made no sense as what it ought to be. The value is kept under `details`.
pub const UNPARSED_TAG: &str = "_unparsed_value";
/// Tag of an event that went past the bounds of fields or depth. What did is kept as JSON text under `details`.
pub const OVERFLOW_TAG: &str = "_overflow";

/// Why a piece of a body is not an event.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message} (line {line}, column {column}); {remedy}")]
pub struct FrameError {
    /// Line within the body, from one.
    pub line: usize,
    /// Column within the line, from one, in characters.
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
/// formats take one event a line, and skip empty lines. Cutting is lighter than understanding: a frame may still be refused by
/// [`parse`], such as one nested more than 128 deep.
#[must_use]
pub fn frame(format: Format, body: &str) -> Vec<Result<&str, FrameError>> {
    frame_at_most(format, body, usize::MAX)
}

/// [`frame`], of no more than `limit` pieces: what stands behind them is not looked at, so that a body of millions of small pieces costs
/// no more memory than one of `limit`.
#[must_use]
pub fn frame_at_most(format: Format, body: &str, limit: usize) -> Vec<Result<&str, FrameError>> {
    match format {
        Format::Syslog | Format::Cef => frame::lines(body, limit),
        Format::Cloudtrail => frame::objects(body, true, limit),
        Format::Json | Format::Ndjson | Format::Mozdef | Format::Windows | Format::Zeek => frame::objects(body, false, limit),
    }
}

/// Understands one event.
///
/// # Errors
/// The body is not of the source's format at all. A single value that makes no sense is no error: it is kept as text under
/// `details`, and the event is tagged [`UNPARSED_TAG`].
pub fn parse(source: &Source, raw: &RawEvent) -> Result<Event, ParseError> {
    match source.format {
        Format::Json | Format::Ndjson => json::parse(source, raw),
        Format::Mozdef => mozdef::parse(source, raw),
        Format::Syslog => Ok(syslog::parse(source, raw)),
        Format::Cef => cef::parse(source, raw),
        Format::Cloudtrail => cloudtrail::parse(source, raw),
        Format::Windows => windows::parse(source, raw),
        Format::Zeek => zeek::parse(source, raw),
    }
}
