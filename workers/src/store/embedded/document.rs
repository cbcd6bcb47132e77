//! A document on its way into an index: what of it is searched, and how.
//!
//! The JSON that came is walked as it is, without a copy. It is stored whole; what the index leaves out (see the constants) can still be
//! read, but not searched.

use serde_json::{Map, Value as Json};
use tantivy::DateTime;
use tantivy::schema::Field;
use tantivy::schema::document::{Document as TantivyDocument, ReferenceValue, ReferenceValueLeaf, Value};

use super::schema::{FIELDS, MESSAGE, TIMESTAMP};
use crate::store::{Document, Rejection};

/// Of longer strings only the beginning is searched, in bytes.
pub(super) const MAX_KEYWORD_BYTES: usize = 8191;
/// Of longer strings only the beginning is searched by word, in bytes.
const MAX_TEXT_BYTES: usize = 1 << 20;
/// Longer keys are not searched, in bytes.
const MAX_KEY_BYTES: usize = 512;
/// Values that lie deeper are not searched. Tantivy's columns end here, and the exact index must agree with them.
const MAX_INDEXED_DEPTH: usize = 19;
/// Deeper documents are refused: no JSON parser would read them back.
const MAX_DEPTH: usize = 120;
/// Documents of more values are refused: each is a posting and a column entry.
const MAX_VALUES: usize = 20_000;
/// Documents whose JSON is longer are refused, in bytes.
const MAX_SOURCE_BYTES: usize = 16 << 20;
/// Longer ids are refused, in bytes. Elasticsearch's limit.
const MAX_ID_BYTES: usize = 512;
/// The times that an index can hold, milliseconds since 1970: nanoseconds in 64 bits, 1677 to 2262.
const TIMES: std::ops::RangeInclusive<i64> = -9_223_372_036_854..=9_223_372_036_854;

/// A document ready to be indexed.
#[derive(Debug)]
pub(super) struct Prepared {
    pub(super) id: String,
    pub(super) source_bytes: usize,
    timestamp: DateTime,
    received: DateTime,
    pub(super) source: Vec<u8>,
    words: Vec<String>,
    root: Place,
    body: Map<String, Json>,
}

impl Prepared {
    /// Looks a document through; refuses what an index cannot take.
    pub(super) fn new(document: Document) -> Result<Self, Rejection> {
        Self::from_parts(Place::Root, document.id, document.received_millis, document.body)
    }

    /// As [`Prepared::new`], for a record.
    pub(super) fn record(id: String, received_millis: i64, body: Map<String, Json>) -> Result<Self, Rejection> {
        Self::from_parts(Place::Record, id, received_millis, body)
    }

    fn from_parts(root: Place, id: String, received_millis: i64, body: Map<String, Json>) -> Result<Self, Rejection> {
        let refuse = |reason: String| Rejection { reason };
        if id.is_empty() || id.len() > MAX_ID_BYTES {
            return Err(refuse(format!("the id has {} bytes; from 1 to {MAX_ID_BYTES} are allowed", id.len())));
        }
        if !TIMES.contains(&received_millis) {
            return Err(refuse(format!("the receive time {received_millis} ms lies outside the years 1677 to 2262")));
        }
        let mut survey = Survey::default();
        survey.object(&body, root, 1);
        if survey.depth > MAX_DEPTH {
            return Err(refuse(format!("nested deeper than {MAX_DEPTH} levels; flatten it or keep it as text")));
        }
        if survey.values > MAX_VALUES {
            return Err(refuse(format!("holds {} values, more than {MAX_VALUES}; split it or keep a part as text", survey.values)));
        }
        let source = serde_json::to_vec(&body).map_err(|error| refuse(format!("cannot be written as JSON: {error}")))?;
        if source.len() > MAX_SOURCE_BYTES {
            return Err(refuse(format!("has {} bytes, more than {MAX_SOURCE_BYTES}; split it", source.len())));
        }
        let words = survey.words.into_iter().map(|text| truncated(text, MAX_TEXT_BYTES).to_owned()).collect();
        let event_millis = body.get(TIMESTAMP).and_then(Json::as_str).and_then(parse_time).map(jiff::Timestamp::as_millisecond);
        Ok(Self {
            id,
            source_bytes: source.len(),
            timestamp: DateTime::from_timestamp_millis(event_millis.unwrap_or(received_millis)),
            received: DateTime::from_timestamp_millis(received_millis),
            source,
            words,
            root,
            body,
        })
    }
}

/// A moment in RFC 3339, if it is one that an index can hold.
pub(super) fn parse_time(text: &str) -> Option<jiff::Timestamp> {
    let time: jiff::Timestamp = text.parse().ok()?;
    TIMES.contains(&time.as_millisecond()).then_some(time)
}

/// The longest beginning of a text that has at most so many bytes.
pub(super) fn truncated(text: &str, max_bytes: usize) -> &str {
    &text[..text.floor_char_boundary(max_bytes)]
}

/// Where in the document a value lies, as far as it matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    /// A document of a time series itself.
    Root,
    /// A record itself.
    Record,
    /// `events` of a record and below: the events behind an alert, which are stored, but not searched (they can be found as events).
    Evidence,
    /// `event`.
    Event,
    /// `event.original`: the raw text, which is stored, but not searched (it would double the index).
    Original,
    /// `message`.
    Message,
    /// `@timestamp`, which has its own field.
    Timestamp,
    /// `details` and below: what the source sent. Strings stay strings.
    Details,
    /// Elsewhere. A string that reads as a time is one, as in Elasticsearch.
    Other,
}

impl Place {
    /// Where a member lies.
    fn member(self, key: &str) -> Self {
        match (self, key) {
            (Self::Evidence, _) | (Self::Record, "events") => Self::Evidence,
            (Self::Root | Self::Record, MESSAGE) => Self::Message,
            (Self::Root | Self::Record, TIMESTAMP) => Self::Timestamp,
            (Self::Root | Self::Record, "event") => Self::Event,
            (Self::Root | Self::Record, "event.original") | (Self::Event, "original") => Self::Original,
            (Self::Root, key) if key == "details" || key.starts_with("details.") => Self::Details,
            (Self::Details, _) => Self::Details,
            _ => Self::Other,
        }
    }
}

/// What must be known of a document before it is indexed.
#[derive(Default)]
struct Survey<'a> {
    depth: usize,
    values: usize,
    words: Vec<&'a str>,
}

impl<'a> Survey<'a> {
    fn object(&mut self, object: &'a Map<String, Json>, place: Place, depth: usize) {
        self.depth = self.depth.max(depth);
        if self.depth <= MAX_DEPTH {
            for (key, value) in object {
                self.value(value, place.member(key), depth + 1);
            }
        }
    }

    fn value(&mut self, value: &'a Json, place: Place, depth: usize) {
        match value {
            Json::Object(object) => self.object(object, place, depth),
            Json::Array(values) => {
                self.depth = self.depth.max(depth);
                if self.depth <= MAX_DEPTH {
                    for value in values {
                        self.value(value, place, depth + 1);
                    }
                }
            }
            Json::String(text) => {
                self.values += 1;
                let searched = !matches!(place, Place::Message | Place::Original | Place::Timestamp | Place::Evidence);
                if searched && text.as_bytes().contains(&b' ') {
                    self.words.push(text);
                }
            }
            _ => self.values += 1,
        }
    }
}

/// A value as tantivy sees it.
#[derive(Debug, Clone)]
pub(super) enum Node<'a> {
    Leaf(ReferenceValueLeaf<'a>),
    Body { body: &'a Map<String, Json>, root: Place },
    Json { value: &'a Json, place: Place, depth: usize },
}

impl<'a> Value<'a> for Node<'a> {
    type ArrayIter = Elements<'a>;
    type ObjectIter = Members<'a>;

    fn as_value(&self) -> ReferenceValue<'a, Self> {
        let (value, place, depth) = match self {
            Self::Leaf(leaf) => return ReferenceValue::Leaf(leaf.clone()),
            Self::Body { body, root } => return ReferenceValue::Object(Members { members: body.iter(), place: *root, depth: 0 }),
            Self::Json { value, place, depth } => (*value, *place, *depth),
        };
        let leaf = match value {
            Json::Null => ReferenceValueLeaf::Null,
            Json::Bool(value) => ReferenceValueLeaf::Bool(*value),
            Json::Number(number) => match (number.as_i64(), number.as_u64(), number.as_f64()) {
                (Some(value), ..) => ReferenceValueLeaf::I64(value),
                (_, Some(value), _) => ReferenceValueLeaf::U64(value),
                (_, _, Some(value)) => ReferenceValueLeaf::F64(value),
                _ => ReferenceValueLeaf::Null,
            },
            Json::String(text) => match place {
                Place::Message | Place::Original | Place::Timestamp | Place::Evidence => ReferenceValueLeaf::Null,
                Place::Details => ReferenceValueLeaf::Str(truncated(text, MAX_KEYWORD_BYTES)),
                Place::Root | Place::Record | Place::Event | Place::Other => match time_of(text) {
                    Some(time) => ReferenceValueLeaf::Date(time),
                    None => ReferenceValueLeaf::Str(truncated(text, MAX_KEYWORD_BYTES)),
                },
            },
            Json::Array(_) | Json::Object(_) if depth >= MAX_INDEXED_DEPTH => ReferenceValueLeaf::Null,
            Json::Array(values) => return ReferenceValue::Array(Elements { elements: values.iter(), place, depth: depth + 1 }),
            Json::Object(object) => return ReferenceValue::Object(Members { members: object.iter(), place, depth: depth + 1 }),
        };
        ReferenceValue::Leaf(leaf)
    }
}

/// The time that a string holds, if it looks like one: most strings do not, and are let go at a glance.
fn time_of(text: &str) -> Option<DateTime> {
    let bytes = text.as_bytes();
    let looks = (20..=40).contains(&bytes.len()) && bytes[4] == b'-' && bytes[7] == b'-' && matches!(bytes[10], b'T' | b't' | b' ');
    let time = if looks { parse_time(text)? } else { return None };
    Some(DateTime::from_timestamp_nanos(i64::try_from(time.as_nanosecond()).ok()?))
}

/// The elements of an array.
pub(super) struct Elements<'a> {
    elements: std::slice::Iter<'a, Json>,
    place: Place,
    depth: usize,
}

impl<'a> Iterator for Elements<'a> {
    type Item = Node<'a>;

    fn next(&mut self) -> Option<Node<'a>> {
        let value = self.elements.next()?;
        Some(Node::Json { value, place: self.place, depth: self.depth })
    }
}

/// The members of an object that can be searched: no evidence, no empty keys, none with the bytes that tantivy separates paths by.
pub(super) struct Members<'a> {
    members: serde_json::map::Iter<'a>,
    place: Place,
    depth: usize,
}

impl<'a> Iterator for Members<'a> {
    type Item = (&'a str, Node<'a>);

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            let (key, value) = self.members.next()?;
            let place = self.place.member(key);
            if place != Place::Evidence && !key.is_empty() && key.len() <= MAX_KEY_BYTES && !key.bytes().any(|byte| byte < 2) {
                return Some((key, Node::Json { value, place, depth: self.depth }));
            }
        }
    }
}

impl TantivyDocument for Prepared {
    type Value<'a> = Node<'a>;
    type FieldsValuesIter<'a> = Box<dyn Iterator<Item = (Field, Node<'a>)> + 'a>;

    fn iter_fields_and_values(&self) -> Self::FieldsValuesIter<'_> {
        let fields = &*FIELDS;
        let leaf = |field, leaf| (field, Node::Leaf(leaf));
        let message: &[Json] = match self.body.get(MESSAGE) {
            Some(Json::Array(texts)) => texts,
            Some(text) => std::slice::from_ref(text),
            None => &[],
        };
        let message = message.iter().filter_map(Json::as_str);
        Box::new(
            [
                leaf(fields.id, ReferenceValueLeaf::Str(&self.id)),
                leaf(fields.timestamp, ReferenceValueLeaf::Date(self.timestamp)),
                leaf(fields.received, ReferenceValueLeaf::Date(self.received)),
                leaf(fields.source, ReferenceValueLeaf::Bytes(&self.source)),
                (fields.keyword, Node::Body { body: &self.body, root: self.root }),
            ]
            .into_iter()
            .chain(message.map(move |text| leaf(fields.message, ReferenceValueLeaf::Str(truncated(text, MAX_TEXT_BYTES)))))
            .chain(self.words.iter().map(move |text| leaf(fields.words, ReferenceValueLeaf::Str(text)))),
        )
    }
}
