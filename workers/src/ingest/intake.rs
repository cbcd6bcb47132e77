//! From the text of a body to broker messages: cut, bounded, stamped, batched, with an outcome for each item.
//!
//! Pure: no socket, no clock, no broker. Each item of a body is either in the messages or has a refusal that says where it stands and
//! what to do; the outcomes are in the body's order.

use std::{borrow::Cow, sync::Arc};

use redoubt_crds::Format;
use redoubt_engine::{
    event::{lookup, scalar_text},
    format::{FrameError, frame_at_most, frame_bulk},
    source::Source,
};
use uuid::{NoContext, Timestamp, Uuid};

use crate::batch::{self, BatchError, Entry};

/// Most items of one body.
pub(super) const MAX_ITEMS: usize = 100_000;
/// A message is closed when it has so many events,
const MESSAGE_EVENTS: usize = 1_000;
/// or so many bytes of them.
const MESSAGE_BYTES: usize = 1 << 20;

/// What is known of all events of one body.
#[derive(Debug, Clone)]
pub(super) struct Receipt {
    pub(super) source: Arc<Source>,
    pub(super) received_millis: i64,
    pub(super) sender: Option<Arc<str>>,
    /// Largest event in bytes.
    pub(super) max_event_bytes: usize,
}

/// What came of one item.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Outcome {
    /// It is in the messages, under this id: the client's own where it gave one.
    Accepted { id: String },
    /// It is not, and sending it again will not help.
    Refused(Refusal),
}

/// Why an item was not taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Refusal {
    /// 400, or 413 for an item above the size limit.
    pub(super) status: u16,
    pub(super) line: usize,
    pub(super) column: usize,
    pub(super) error: String,
    pub(super) remedy: String,
}

/// What came of a body.
#[derive(Debug, Default)]
pub(super) struct Intake {
    /// For the broker, in order.
    pub(super) messages: Vec<Vec<u8>>,
    /// In the body's order.
    pub(super) outcomes: Vec<Outcome>,
    /// Items in the messages.
    pub(super) accepted: usize,
    /// Bytes of them.
    pub(super) bytes: u64,
}

/// Why a body is refused as a whole.
#[derive(Debug, thiserror::Error)]
pub(super) enum IntakeError {
    #[error("the body has more than {MAX_ITEMS} events")]
    TooMany,
    #[error(transparent)]
    Batch(#[from] BatchError),
}

impl Intake {
    /// Items that were refused.
    pub(super) fn rejected(&self) -> usize {
        self.outcomes.len() - self.accepted
    }
}

/// Takes in a body of the source's own format.
pub(super) fn take(receipt: &Receipt, body: &str) -> Result<Intake, IntakeError> {
    let frames = frame_at_most(receipt.source.format, body, MAX_ITEMS + 1);
    let mut batcher = Batcher::new(receipt, body, frames.len())?;
    for frame in frames {
        match frame {
            Ok(event) => batcher.event(event, Cow::Borrowed(event), None)?,
            Err(error) => batcher.refuse(error),
        }
    }
    batcher.finish()
}

/// Takes in a body of Elasticsearch's `_bulk` form.
pub(super) fn take_bulk(receipt: &Receipt, body: &str) -> Result<Intake, IntakeError> {
    let frames = frame_bulk(body, MAX_ITEMS + 1);
    let mut batcher = Batcher::new(receipt, body, frames.len())?;
    let carries_ids = matches!(receipt.source.format, Format::Json | Format::Ndjson);
    for frame in frames {
        match frame {
            Ok(item) => {
                let event = match &item.id {
                    Some(id) if carries_ids => with_id(item.document, id),
                    _ => Cow::Borrowed(item.document),
                };
                batcher.event(item.document, event, item.id)?;
            }
            Err(error) => batcher.refuse(error),
        }
    }
    batcher.finish()
}

/// A document with the client's `_id` as its `event.id`, unless it has one. The text is otherwise left as it is: read and written
/// again, a number could come out another.
fn with_id<'a>(document: &'a str, id: &str) -> Cow<'a, str> {
    let Ok(serde_json::Value::Object(object)) = serde_json::from_str(document) else { return Cow::Borrowed(document) };
    let own = lookup(&object, "event.id").and_then(scalar_text).is_some_and(|own| !own.is_empty());
    let Some(members) = document.trim_start().strip_prefix('{').filter(|_| !own) else { return Cow::Borrowed(document) };
    let id = serde_json::Value::from(id);
    let comma = if object.is_empty() { "" } else { "," };
    Cow::Owned(format!("{{\"event.id\":{id}{comma}{members}"))
}

/// A UUID of version 7 (RFC 9562, section 5.7): the time of receipt, then random bits. Ids sort by time, which keeps the store's
/// lookups near each other, and tell which day's index an event is in.
pub(super) fn event_id(received_millis: i64) -> String {
    let millis = u64::try_from(received_millis).unwrap_or(0);
    // The remainder is below a thousand, so its nanoseconds fit.
    let nanos = u32::try_from(millis % 1000).unwrap_or(0) * 1_000_000;
    Uuid::new_v7(Timestamp::from_unix(NoContext, millis / 1000, nanos)).to_string()
}

/// Fills messages up to their bounds.
struct Batcher<'a> {
    receipt: &'a Receipt,
    body: &'a str,
    intake: Intake,
    /// Events of the message that is being filled, each with its id.
    open: Vec<(String, Cow<'a, str>)>,
    open_bytes: usize,
}

impl<'a> Batcher<'a> {
    fn new(receipt: &'a Receipt, body: &'a str, items: usize) -> Result<Self, IntakeError> {
        if items > MAX_ITEMS {
            return Err(IntakeError::TooMany);
        }
        let intake = Intake { outcomes: Vec::with_capacity(items), ..Intake::default() };
        Ok(Self { receipt, body, intake, open: Vec::new(), open_bytes: 0 })
    }

    /// Adds an event: `piece` is where it stands in the body, `event` its text, `own_id` what the client calls it.
    fn event(&mut self, piece: &str, event: Cow<'a, str>, own_id: Option<String>) -> Result<(), IntakeError> {
        let limit = self.receipt.max_event_bytes;
        if event.len() > limit {
            // Both are slices of the body, so the difference is the piece's offset.
            let offset = piece.as_ptr() as usize - self.body.as_ptr() as usize;
            let before = &self.body[..offset];
            let line_start = before.rfind('\n').map_or(0, |end| end + 1);
            self.intake.outcomes.push(Outcome::Refused(Refusal {
                status: 413,
                line: before.bytes().filter(|byte| *byte == b'\n').count() + 1,
                column: before[line_start..].chars().count() + 1,
                error: format!("the event has {} bytes, the limit is {limit}", event.len()),
                remedy: "send less in one event, or raise ingest.maxEventBytes of the Siem".to_owned(),
            }));
            return Ok(());
        }
        if self.open.len() >= MESSAGE_EVENTS || self.open_bytes + event.len() > MESSAGE_BYTES {
            self.close_message()?;
        }
        let id = event_id(self.receipt.received_millis);
        self.open_bytes += event.len();
        self.intake.bytes += event.len() as u64;
        self.intake.accepted += 1;
        self.intake.outcomes.push(Outcome::Accepted { id: own_id.unwrap_or_else(|| id.clone()) });
        self.open.push((id, event));
        Ok(())
    }

    fn refuse(&mut self, error: FrameError) {
        let FrameError { line, column, message, remedy } = error;
        self.intake.outcomes.push(Outcome::Refused(Refusal { status: 400, line, column, error: message, remedy }));
    }

    fn close_message(&mut self) -> Result<(), IntakeError> {
        if !self.open.is_empty() {
            let Receipt { source, received_millis, sender, .. } = self.receipt;
            let (received_millis, source, sender) = (*received_millis, &*source.name, sender.as_deref());
            let entries = self.open.iter().map(|(id, body)| Entry { id, received_millis, source, sender, body });
            self.intake.messages.push(batch::encode_events(entries)?);
            self.open.clear();
            self.open_bytes = 0;
        }
        Ok(())
    }

    fn finish(mut self) -> Result<Intake, IntakeError> {
        self.close_message()?;
        Ok(self.intake)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use redoubt_crds::LogSourceSpec;
    use redoubt_engine::event::RawEvent;

    use super::*;

    fn receipt(format: Format) -> Receipt {
        let source = Source::compile("web", &LogSourceSpec { format: Some(format), ..LogSourceSpec::default() }).unwrap();
        Receipt { source: Arc::new(source), received_millis: 1_700_000_000_123, sender: Some("192.0.2.1".into()), max_event_bytes: 1024 }
    }

    fn events(intake: &Intake) -> Vec<RawEvent> {
        intake.messages.iter().flat_map(|message| batch::decode_events(message).unwrap()).collect()
    }

    fn bodies(intake: &Intake) -> Vec<String> {
        events(intake).into_iter().map(|event| event.body).collect()
    }

    #[test]
    fn each_event_carries_source_sender_time_and_an_id_of_its_own() {
        let intake = take(&receipt(Format::Json), "{\"a\":1}\n{\"b\":2}").unwrap();

        let events = events(&intake);
        assert_eq!(events.iter().map(|event| event.body.as_str()).collect::<Vec<_>>(), ["{\"a\":1}", "{\"b\":2}"]);
        assert!(events.iter().all(|event| &*event.source == "web" && event.sender.as_deref() == Some("192.0.2.1")));
        assert!(events.iter().all(|event| event.received_millis == 1_700_000_000_123));
        assert_ne!(events[0].id, events[1].id);
        assert_eq!(intake.outcomes[0], Outcome::Accepted { id: events[0].id.clone() });
        assert_eq!((intake.accepted, intake.rejected(), intake.bytes), (2, 0, 14));
    }

    #[test]
    fn an_id_begins_with_the_time_and_has_the_layout_of_version_seven() {
        let id = event_id(1_700_000_000_123);

        assert_eq!(id.replace('-', "")[..12], format!("{:012x}", 1_700_000_000_123_i64));
        assert_eq!((id.len(), id.as_bytes()[14]), (36, b'7'));
        assert!(id < event_id(1_700_000_000_124), "ids sort by time");
    }

    #[test]
    fn a_bad_item_is_refused_in_its_place_and_the_others_stand() {
        let large = "x".repeat(1024);
        let body = format!("{{\"a\":1}}\n{{broken\n  {{\"large\":\"{large}\"}}\n{{\"b\":2}}");

        let intake = take(&receipt(Format::Json), &body).unwrap();

        assert_eq!(bodies(&intake), ["{\"a\":1}", "{\"b\":2}"]);
        let refused: Vec<_> = intake
            .outcomes
            .iter()
            .map(|outcome| match outcome {
                Outcome::Accepted { .. } => (0, 0),
                Outcome::Refused(refusal) => (refusal.status, refusal.line),
            })
            .collect();
        assert_eq!(refused.iter().filter(|(status, _)| *status == 0).count(), 2);
        assert!(refused.contains(&(400, 2)), "{refused:?}");
    }

    #[test]
    fn an_event_above_the_limit_is_refused_with_its_place() {
        let large = format!("{{\"large\":\"{}\"}}", "x".repeat(1024));
        let body = format!("[{{\"a\":1}},\n  {large}, {{\"b\":2}}]");

        let intake = take(&receipt(Format::Json), &body).unwrap();

        assert_eq!(bodies(&intake), ["{\"a\":1}", "{\"b\":2}"]);
        let Outcome::Refused(refusal) = &intake.outcomes[1] else { panic!("{:?}", intake.outcomes) };
        assert_eq!((refusal.status, refusal.line, refusal.column), (413, 2, 3));
        assert_eq!(refusal.error, format!("the event has {} bytes, the limit is 1024", large.len()));
    }

    #[test]
    fn messages_are_bounded_in_events_and_in_bytes() {
        let many = "{}\n".repeat(2_500);
        let long = format!("{{\"a\":\"{}\"}}\n", "x".repeat(1_000)).repeat(2_100);

        for (name, body, expected) in [("many", many, vec![1000, 1000, 500]), ("long", long, vec![1000, 1000, 100])] {
            let intake = take(&receipt(Format::Json), &body).unwrap();

            let sizes: Vec<_> = intake.messages.iter().map(|message| batch::decode_events(message).unwrap().len()).collect();
            assert_eq!(sizes, expected, "{name}");
        }
    }

    #[test]
    fn a_body_of_too_many_events_is_refused_whole() {
        let body = "{}\n".repeat(MAX_ITEMS + 1);

        assert!(matches!(take(&receipt(Format::Json), &body), Err(IntakeError::TooMany)));
    }

    #[test]
    fn the_id_of_a_bulk_item_becomes_the_events_own_unless_it_has_one() {
        for (format, document, expected) in [
            (Format::Json, r#"{"a":1.10}"#, r#"{"event.id":"x\"1","a":1.10}"#),
            (Format::Json, "{}", r#"{"event.id":"x\"1"}"#),
            (Format::Json, r#"{"event":{"kind":"event"}}"#, r#"{"event.id":"x\"1","event":{"kind":"event"}}"#),
            (Format::Json, r#"{"event":{"id":"own"}}"#, r#"{"event":{"id":"own"}}"#),
            (Format::Json, r#"{"event.id":7}"#, r#"{"event.id":7}"#),
            (Format::Mozdef, r#"{"summary":"a"}"#, r#"{"summary":"a"}"#),
        ] {
            let body = format!("{{\"index\":{{\"_id\":\"x\\\"1\"}}}}\n{document}\n");

            let intake = take_bulk(&receipt(format), &body).unwrap();

            assert_eq!(bodies(&intake), [expected], "{document}");
            assert_eq!(intake.outcomes, [Outcome::Accepted { id: "x\"1".into() }], "{document}");
        }
    }

    #[test]
    fn the_own_id_of_a_bulk_item_makes_the_same_document_each_time() {
        let receipt = receipt(Format::Json);
        let body = "{\"create\":{\"_id\":\"x\"}}\n{\"event\":{\"kind\":\"event\"},\"message\":\"hello\"}\n";

        let ids = [(); 2].map(|()| {
            let event = events(&take_bulk(&receipt, body).unwrap()).remove(0);
            redoubt_engine::format::parse(&receipt.source, &event).unwrap().id
        });

        assert_eq!(ids[0], ids[1]);
    }

    proptest! {
        #[test]
        fn every_item_has_one_outcome_and_every_accepted_one_is_in_the_messages(body in "([\\[\\]{}\",:a1\n ]|\\{\"a\":1\\}|\\{\"index\":\\{\\}\\}\n){0,60}") {
            for intake in [take(&receipt(Format::Json), &body).unwrap(), take_bulk(&receipt(Format::Json), &body).unwrap()] {
                let accepted = intake.outcomes.iter().filter(|outcome| matches!(outcome, Outcome::Accepted { .. })).count();

                prop_assert_eq!(accepted, intake.accepted);
                prop_assert_eq!(events(&intake).len(), accepted);
            }
        }
    }
}
