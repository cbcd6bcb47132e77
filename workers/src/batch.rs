//! What a broker message holds: a batch of events, matches or alerts, in a form with a version.
//!
//! ```text
//! offset  bytes  what
//!      0      4  magic, "RDBT"
//!      4      1  version: 2 of events, 1 of matches and alerts
//!      5      1  kind: 'e' events, 'm' matches, 'a' alerts
//!      6      4  number of items, little-endian
//!     10      4  length of the items before compression, little-endian
//!     14      -  one zstd frame: the items
//! ```
//!
//! A match or an alert is a line of JSON. An event is a line of JSON that says what is known of it and how many `bytes` its body has, then
//! the body as it came, then a line feed: bodies are most of what goes through a queue, and are neither escaped nor read on the way.
//!
//! A role that is rolled back or forward meets messages of its neighbour's version, so the version is checked before anything else. Events of
//! version 1, a line of JSON each, are still read.
//! Text, since a person can then read a dead letter with `zstd -d` alone; compressed, since the queue's disk is what bounds throughput.
//! Nothing here trusts the header: the declared length bounds what is decompressed, and is itself bounded.

use std::{borrow::Cow, sync::Arc};

use redoubt_engine::event::RawEvent;
use serde::{Deserialize, Serialize, de::DeserializeOwned};

const MAGIC: [u8; 4] = *b"RDBT";
const HEADER: usize = 14;
/// zstd's fastest regular level: three quarters of the default level's gain at a third of its time, on log lines.
const LEVEL: i32 = 1;

/// Room for so many items is made before the first is read; what a header says is not trusted with more.
const ROOM: usize = 1_024;
/// Room for each match or alert to begin with, in bytes: few need more, and what is not written to takes no memory.
const USUAL_BYTES: usize = 2 << 10;
/// Room for what stands beside an event's body, in bytes.
const HEAD_BYTES: usize = 192;

/// Largest size of a batch before compression, in bytes. The roles cut batches far smaller; a single alert whose event has 16 MiB still
/// fits when each of its bytes is escaped.
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

    /// The version that is written.
    const fn version(self) -> u8 {
        match self {
            Self::Events => 2,
            Self::Matches | Self::Alerts => 1,
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
    #[error("the batch has version {0}, which this process does not know; bring all roles to the same release")]
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

/// An event on its way into a message: a [`RawEvent`] whose parts may still lie in the request that it came by.
#[derive(Debug, Clone, Copy)]
pub struct Entry<'a> {
    /// Id stamped at receipt.
    pub id: &'a str,
    /// When it was received, in milliseconds since 1970.
    pub received_millis: i64,
    /// Name of the LogSource it came by.
    pub source: &'a str,
    /// Address of the sender, where known.
    pub sender: Option<&'a str>,
    /// The event itself.
    pub body: &'a str,
}

impl<'a> From<&'a RawEvent> for Entry<'a> {
    fn from(event: &'a RawEvent) -> Self {
        let RawEvent { id, received_millis, source, sender, body } = event;
        Self { id, received_millis: *received_millis, source, sender: sender.as_deref(), body }
    }
}

/// The line before an event's body.
#[derive(Serialize, Deserialize)]
struct Head<'a> {
    #[serde(borrow)]
    id: Cow<'a, str>,
    received_millis: i64,
    #[serde(borrow)]
    source: Cow<'a, str>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    sender: Option<Cow<'a, str>>,
    /// Length of the body.
    bytes: usize,
}

/// Writes events as one message.
///
/// # Errors
/// The events are above [`MAX_BYTES`] together.
pub fn encode_events<'a>(events: impl IntoIterator<Item = impl Into<Entry<'a>>>) -> Result<Vec<u8>, BatchError> {
    let events: Vec<Entry<'a>> = events.into_iter().map(Into::into).collect();
    let mut items = Vec::with_capacity(events.iter().map(|event| event.body.len() + HEAD_BYTES).sum::<usize>().min(MAX_BYTES));
    for (item, Entry { id, received_millis, source, sender, body }) in events.iter().enumerate() {
        let (id, source, sender) = (Cow::Borrowed(*id), Cow::Borrowed(*source), sender.map(Cow::Borrowed));
        let head = Head { id, received_millis: *received_millis, source, sender, bytes: body.len() };
        serde_json::to_writer(&mut items, &head).map_err(|error| BatchError::Item { item, error })?;
        items.push(b'\n');
        items.extend_from_slice(body.as_bytes());
        items.push(b'\n');
        bounded(&items)?;
    }
    pack(Kind::Events, events.len(), &items)
}

/// Bytes of a message's items before compression, as it says itself; of what is no batch, its own.
#[must_use]
pub fn unpacked_bytes(message: &[u8]) -> usize {
    let length = message.get(HEADER - 4..HEADER).and_then(|bytes| bytes.try_into().ok()).map(u32::from_le_bytes);
    length.map_or(message.len(), |length| (length as usize).min(MAX_BYTES))
}

/// Reads a message of events.
///
/// # Errors
/// See [`BatchError`]; none of them passes by itself, so the message is one to set aside.
pub fn decode_events(message: &[u8]) -> Result<Vec<RawEvent>, BatchError> {
    let (version, count, items) = unpack(Kind::Events, message)?;
    if version == 1 {
        return lines(count, &items);
    }
    let mut left = str::from_utf8(&items).map_err(|error| BatchError::Damaged(error.to_string()))?;
    let mut events: Vec<RawEvent> = Vec::with_capacity(count.min(ROOM));
    while let Some((head, rest)) = left.split_once('\n') {
        let item = events.len();
        let head: Head<'_> = serde_json::from_str(head).map_err(|error| BatchError::Item { item, error })?;
        let cut_off = || BatchError::Damaged(format!("item {item} has no body of {} bytes", head.bytes));
        let (body, rest) = rest.split_at_checked(head.bytes).ok_or_else(cut_off)?;
        left = rest.strip_prefix('\n').ok_or_else(cut_off)?;
        // Most events of a message have one source and one sender.
        let before = events.last();
        let source = shared(before.map(|event| &event.source), &head.source);
        let sender = head.sender.map(|sender| shared(before.and_then(|event| event.sender.as_ref()), &sender));
        events.push(RawEvent { id: head.id.into_owned(), received_millis: head.received_millis, source, sender, body: body.to_owned() });
    }
    counted(count, events.len(), left)?;
    Ok(events)
}

/// The text, by another owner of the one before where it is the same.
fn shared(before: Option<&Arc<str>>, text: &str) -> Arc<str> {
    before.filter(|before| ***before == *text).map_or_else(|| Arc::from(text), Arc::clone)
}

/// Writes matches or alerts as one message.
///
/// # Errors
/// An item has no JSON form, or the items are above [`MAX_BYTES`] together.
pub fn encode<T: Serialize>(kind: Kind, items: &[T]) -> Result<Vec<u8>, BatchError> {
    let mut lines = Vec::with_capacity(items.len() * USUAL_BYTES);
    for (item, value) in items.iter().enumerate() {
        serde_json::to_writer(&mut lines, value).map_err(|error| BatchError::Item { item, error })?;
        lines.push(b'\n');
        bounded(&lines)?;
    }
    pack(kind, items.len(), &lines)
}

/// Reads a message of matches or alerts.
///
/// # Errors
/// See [`BatchError`]; none of them passes by itself, so the message is one to set aside.
pub fn decode<T: DeserializeOwned>(kind: Kind, message: &[u8]) -> Result<Vec<T>, BatchError> {
    let (_, count, items) = unpack(kind, message)?;
    lines(count, &items)
}

/// So many items, a line of JSON each.
fn lines<T: DeserializeOwned>(count: usize, mut left: &[u8]) -> Result<Vec<T>, BatchError> {
    let mut items = Vec::with_capacity(count.min(ROOM));
    while let Some(end) = left.iter().position(|byte| *byte == b'\n') {
        let item = items.len();
        items.push(serde_json::from_slice(&left[..end]).map_err(|error| BatchError::Item { item, error })?);
        left = &left[end + 1..];
    }
    counted(count, items.len(), left)?;
    Ok(items)
}

/// Refuses items above [`MAX_BYTES`].
const fn bounded(items: &[u8]) -> Result<(), BatchError> {
    if items.len() > MAX_BYTES { Err(BatchError::TooLarge { bytes: items.len() }) } else { Ok(()) }
}

/// Refuses what does not hold as many items as its header says, and nothing after them.
fn counted(declared: usize, found: usize, left: impl AsRef<[u8]>) -> Result<(), BatchError> {
    match left.as_ref().len() {
        0 if declared == found => Ok(()),
        left => Err(BatchError::Damaged(format!("{found} items and {left} bytes more where the header says {declared} items"))),
    }
}

/// A message: the header, and the items in one frame.
fn pack(kind: Kind, count: usize, items: &[u8]) -> Result<Vec<u8>, BatchError> {
    let too_large = |_| BatchError::TooLarge { bytes: items.len() };
    let frame = zstd::bulk::compress(items, LEVEL).map_err(|error| BatchError::Damaged(error.to_string()))?;
    let mut message = Vec::with_capacity(HEADER + frame.len());
    message.extend_from_slice(&MAGIC);
    message.extend_from_slice(&[kind.version(), kind.byte()]);
    message.extend_from_slice(&u32::try_from(count).map_err(too_large)?.to_le_bytes());
    message.extend_from_slice(&u32::try_from(items.len()).map_err(too_large)?.to_le_bytes());
    message.extend_from_slice(&frame);
    Ok(message)
}

/// The version of a message, how many items it says it has, and all of them in one piece.
fn unpack(kind: Kind, message: &[u8]) -> Result<(u8, usize, Vec<u8>), BatchError> {
    let (header, frame) = message.split_at_checked(HEADER).ok_or(BatchError::NotABatch)?;
    let [m0, m1, m2, m3, version, found, c0, c1, c2, c3, l0, l1, l2, l3] = *header else { return Err(BatchError::NotABatch) };
    if [m0, m1, m2, m3] != MAGIC {
        return Err(BatchError::NotABatch);
    }
    if found != kind.byte() {
        return Err(BatchError::Kind { expected: kind, found: char::from(found) });
    }
    if version == 0 || version > kind.version() {
        return Err(BatchError::Version(version));
    }
    let count = u32::from_le_bytes([c0, c1, c2, c3]) as usize;
    let length = u32::from_le_bytes([l0, l1, l2, l3]) as usize;
    if length > MAX_BYTES {
        return Err(BatchError::TooLarge { bytes: length });
    }
    let items = zstd::bulk::decompress(frame, length).map_err(|error| BatchError::Damaged(error.to_string()))?;
    if items.len() != length {
        return Err(BatchError::Damaged(format!("{} bytes of items where the header says {length}", items.len())));
    }
    Ok((version, count, items))
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
                message.splice(0..0, *b"RDBT\x02e");
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
        let items = concat!(
            r#"{"id":"id-1","received_millis":1700000000000,"source":"web","bytes":1}"#,
            "\nx\n",
            r#"{"id":"id-1","received_millis":1700000000000,"source":"web","bytes":1}"#,
            "\ny\n"
        );

        assert_eq!(&message[..6], b"RDBT\x02e");
        assert_eq!(unpacked_bytes(&message), items.len());
        assert_eq!(unpacked_bytes(&message[..9]), 9);
        assert_eq!(&message[6..10], 2_u32.to_le_bytes());
        assert_eq!(&message[10..14], u32::try_from(items.len()).unwrap().to_le_bytes());
        assert_eq!(zstd::bulk::decompress(&message[14..], items.len()).unwrap(), items.as_bytes());
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
            ("a later version", with(4, 3), "version 3"),
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
    fn events_of_version_one_are_read() {
        let events = [event("x"), RawEvent { sender: Some("192.0.2.1".into()), ..event("y\n") }];
        let mut message = encode(Kind::Matches, &events).unwrap();
        message[5] = b'e';

        assert_eq!(decode_events(&message).unwrap(), events);
    }

    #[test]
    fn events_that_are_not_what_their_heads_say_are_refused_with_the_reason() {
        let head = |bytes: usize| format!("{{\"id\":\"i\",\"received_millis\":1,\"source\":\"s\",\"bytes\":{bytes}}}\n");
        let read = |count: usize, items: &[u8]| decode_events(&pack(Kind::Events, count, items).unwrap());

        for (case, count, items, expected) in [
            ("a body beyond the end", 1, format!("{}x\n", head(usize::MAX)), "no body of"),
            ("a body cut within a letter", 1, format!("{}é\n", head(1)), "no body of"),
            ("no line feed after the body", 1, format!("{}x", head(1)), "no body of"),
            ("something after the last event", 1, format!("{}x\nmore", head(1)), "4 bytes more"),
            ("fewer events", 2, format!("{}x\n", head(1)), "says 2 items"),
            ("a head that is none", 1, "x\n".to_owned(), "item 0"),
        ] {
            let error = read(count, items.as_bytes()).unwrap_err().to_string();

            assert!(error.contains(expected), "{case}: {error}");
        }
        assert!(matches!(read(1, &[head(1).as_bytes(), b"\xff\n"].concat()), Err(BatchError::Damaged(_))));
        let refused = read(u32::MAX as usize, format!("{}x\n", head(1)).as_bytes()).unwrap_err().to_string();
        assert!(refused.contains("says 4294967295 items"), "{refused}");
    }

    #[test]
    fn a_frame_that_swells_past_its_header_is_not_unpacked() {
        let bomb = zstd::bulk::compress(&vec![b'\n'; 64 << 20], 19).unwrap();
        let mut message = b"RDBT\x02e".to_vec();
        message.extend_from_slice(&1_u32.to_le_bytes());
        message.extend_from_slice(&100_u32.to_le_bytes());
        message.extend_from_slice(&bomb);

        assert!(matches!(decode_events(&message), Err(BatchError::Damaged(_))));
    }
}
