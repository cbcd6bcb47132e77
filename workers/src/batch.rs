//! What a broker message holds: a batch of events, matches or alerts, in a form with a version.
//!
//! ```text
//! offset  bytes  what
//!      0      4  magic, "RDBT"
//!      4      1  version, 1
//!      5      1  kind: 'e' events, 'm' matches, 'a' alerts
//!      6      4  number of items, little-endian
//!     10      4  length of the items before compression, little-endian
//!     14      -  one zstd frame: the items as JSON, each ended by a line feed
//! ```
//!
//! A role that is rolled back or forward meets messages of its neighbour's version, so the version is checked before anything else.
//! JSON, since a person can then read a dead letter with `zstd -d` alone; compressed, since the queue's disk is what bounds throughput.
//! Nothing here trusts the header: the declared length bounds what is decompressed, and is itself bounded.

use std::io::Write as _;

use redoubt_engine::event::RawEvent;
use serde::{Serialize, de::DeserializeOwned};

const MAGIC: [u8; 4] = *b"RDBT";
const VERSION: u8 = 1;
const HEADER: usize = 14;
/// zstd's fastest regular level: three quarters of the default level's gain at a third of its time, on log lines.
const LEVEL: i32 = 1;

/// Room for each item to begin with, in bytes: few need more, and what is not written to takes no memory.
const USUAL_BYTES: usize = 2 << 10;

/// Largest size of a batch before compression, in bytes. The roles cut batches far smaller; a single event of 16 MiB still fits when
/// each of its bytes is escaped.
pub const MAX_BYTES: usize = 128 << 20;

/// What the items of a batch are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// [`RawEvent`]s, on the events topic.
    Events,
    /// Matches, on a matches topic.
    Matches,
    /// Alerts, on the alerts topic.
    Alerts,
}

impl Kind {
    const fn byte(self) -> u8 {
        match self {
            Self::Events => b'e',
            Self::Matches => b'm',
            Self::Alerts => b'a',
        }
    }
}

/// Why a batch cannot be written or read.
#[derive(Debug, thiserror::Error)]
pub enum BatchError {
    /// Fewer bytes than a header has, or another magic.
    #[error("not a batch: it does not begin with the bytes \"RDBT\" and a header")]
    NotABatch,
    /// Written by a version that this one does not know.
    #[error("the batch has version {0}, this process reads version 1; bring all roles to the same release")]
    Version(u8),
    /// A batch of another kind.
    #[error("the batch holds items of kind {found:?}, not {expected:?}")]
    Kind {
        /// The kind asked for.
        expected: Kind,
        /// The kind's byte in the header.
        found: char,
    },
    /// Above [`MAX_BYTES`].
    #[error("the batch has {bytes} bytes before compression, the limit is {MAX_BYTES}; put fewer items into one batch")]
    TooLarge {
        /// Its size.
        bytes: usize,
    },
    /// The compressed part is damaged, or does not hold what the header says.
    #[error("the batch is damaged: {0}")]
    Damaged(String),
    /// An item is not of the type asked for.
    #[error("item {item} of the batch: {error}")]
    Item {
        /// Which, from zero.
        item: usize,
        /// What is wrong with it.
        error: serde_json::Error,
    },
}

/// Writes events as one message.
///
/// # Errors
/// The events are above [`MAX_BYTES`] together.
pub fn encode_events(events: &[RawEvent]) -> Result<Vec<u8>, BatchError> {
    encode(Kind::Events, events)
}

/// Reads a message of events.
///
/// # Errors
/// See [`BatchError`]; none of them passes by itself, so the message is one to set aside.
pub fn decode_events(message: &[u8]) -> Result<Vec<RawEvent>, BatchError> {
    decode(Kind::Events, message)
}

/// Writes items as one message.
///
/// # Errors
/// An item has no JSON form, or the items are above [`MAX_BYTES`] together.
pub fn encode<T: Serialize>(kind: Kind, items: &[T]) -> Result<Vec<u8>, BatchError> {
    let mut lines = Vec::with_capacity(items.len() * USUAL_BYTES);
    for (item, value) in items.iter().enumerate() {
        serde_json::to_writer(&mut lines, value).map_err(|error| BatchError::Item { item, error })?;
        lines.push(b'\n');
        if lines.len() > MAX_BYTES {
            return Err(BatchError::TooLarge { bytes: lines.len() });
        }
    }
    let too_large = |_| BatchError::TooLarge { bytes: lines.len() };
    let mut message = Vec::with_capacity(HEADER + lines.len() / 4);
    message.extend_from_slice(&MAGIC);
    message.extend_from_slice(&[VERSION, kind.byte()]);
    message.extend_from_slice(&u32::try_from(items.len()).map_err(too_large)?.to_le_bytes());
    message.extend_from_slice(&u32::try_from(lines.len()).map_err(too_large)?.to_le_bytes());
    let damaged = |error: std::io::Error| BatchError::Damaged(error.to_string());
    let mut encoder = zstd::stream::write::Encoder::new(message, LEVEL).map_err(damaged)?;
    encoder.write_all(&lines).map_err(damaged)?;
    encoder.finish().map_err(damaged)
}

/// Reads a message of items of one kind.
///
/// # Errors
/// See [`BatchError`]; none of them passes by itself, so the message is one to set aside.
pub fn decode<T: DeserializeOwned>(kind: Kind, message: &[u8]) -> Result<Vec<T>, BatchError> {
    let (header, frame) = message.split_at_checked(HEADER).ok_or(BatchError::NotABatch)?;
    let [m0, m1, m2, m3, version, found, c0, c1, c2, c3, l0, l1, l2, l3] = *header else { return Err(BatchError::NotABatch) };
    if [m0, m1, m2, m3] != MAGIC {
        return Err(BatchError::NotABatch);
    }
    if version != VERSION {
        return Err(BatchError::Version(version));
    }
    if found != kind.byte() {
        return Err(BatchError::Kind { expected: kind, found: char::from(found) });
    }
    let count = u32::from_le_bytes([c0, c1, c2, c3]) as usize;
    let length = u32::from_le_bytes([l0, l1, l2, l3]) as usize;
    if length > MAX_BYTES {
        return Err(BatchError::TooLarge { bytes: length });
    }
    let lines = zstd::bulk::decompress(frame, length).map_err(|error| BatchError::Damaged(error.to_string()))?;
    let found_count = lines.iter().filter(|byte| **byte == b'\n').count();
    if lines.len() != length || found_count != count {
        let (bytes, header) = (lines.len(), format!("{count} items in {length} bytes"));
        return Err(BatchError::Damaged(format!("{found_count} items in {bytes} bytes where the header says {header}")));
    }
    let mut items = Vec::with_capacity(count);
    for (item, line) in lines.split(|byte| *byte == b'\n').take(count).enumerate() {
        items.push(serde_json::from_slice(line).map_err(|error| BatchError::Item { item, error })?);
    }
    Ok(items)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn event(body: &str) -> RawEvent {
        RawEvent { id: "id-1".into(), received_millis: 1_700_000_000_000, source: "web".into(), sender: None, body: body.into() }
    }

    fn any_event() -> impl Strategy<Value = RawEvent> {
        (any::<String>(), any::<i64>(), any::<String>(), any::<Option<String>>(), any::<String>()).prop_map(
            |(id, received_millis, source, sender, body)| RawEvent {
                id,
                received_millis,
                source: source.into(),
                sender: sender.map(Into::into),
                body,
            },
        )
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_again(events in prop::collection::vec(any_event(), 0..20)) {
            let message = encode_events(&events).unwrap();

            prop_assert_eq!(decode_events(&message).unwrap(), events);
        }

        #[test]
        fn no_bytes_make_reading_panic(mut message in prop::collection::vec(any::<u8>(), 0..200), with_header in any::<bool>()) {
            if with_header {
                message.splice(0..0, *b"RDBT\x01e");
            }

            let _ = decode_events(&message);
        }

        #[test]
        fn a_changed_byte_never_makes_a_batch_with_another_number_of_events(at in 0_usize..1000, flip in 1_u8..=255) {
            let events = [event("first"), event("second")];
            let mut message = encode_events(&events).unwrap();
            let at = at % message.len();
            message[at] ^= flip;

            if let Ok(read) = decode_events(&message) {
                prop_assert_eq!(read.len(), events.len());
            }
        }
    }

    #[test]
    fn the_header_is_laid_out_as_documented() {
        let message = encode_events(&[event("x"), event("y")]).unwrap();
        let lines: usize = [event("x"), event("y")].iter().map(|event| serde_json::to_string(event).unwrap().len() + 1).sum();

        assert_eq!(&message[..6], b"RDBT\x01e");
        assert_eq!(&message[6..10], 2_u32.to_le_bytes());
        assert_eq!(&message[10..14], u32::try_from(lines).unwrap().to_le_bytes());
    }

    #[test]
    fn what_is_no_batch_is_refused_with_the_reason() {
        let good = encode_events(&[event("x")]).unwrap();
        let with = |at: usize, byte: u8| {
            let mut message = good.clone();
            message[at] = byte;
            message
        };

        for (case, message, expected) in [
            ("empty", Vec::new(), "not a batch"),
            ("another magic", with(0, b'X'), "not a batch"),
            ("a later version", with(4, 2), "version 2"),
            ("another kind", with(5, b'm'), "kind 'm'"),
            ("another count", with(6, 9), "where the header says 9 items"),
            ("a length above the bound", with(13, 0xff), "the limit is"),
            ("cut short", good[..good.len() - 3].to_vec(), "damaged"),
        ] {
            let error = decode_events(&message).unwrap_err().to_string();

            assert!(error.contains(expected), "{case}: {error}");
        }
    }

    #[test]
    fn a_frame_that_swells_past_its_header_is_not_unpacked() {
        let bomb = zstd::bulk::compress(&vec![b'\n'; 64 << 20], 19).unwrap();
        let mut message = b"RDBT\x01e".to_vec();
        message.extend_from_slice(&1_u32.to_le_bytes());
        message.extend_from_slice(&100_u32.to_le_bytes());
        message.extend_from_slice(&bomb);

        assert!(matches!(decode_events(&message), Err(BatchError::Damaged(_))));
    }
}
