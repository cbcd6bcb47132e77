//! From a query in Elasticsearch's syntax to its query JSON.
//!
//! The text is read by the same parser as for the embedded store, so that a query means the same in both, and not sent as a `query_string`,
//! which reads `AND` beside `OR` by old rules of its own. What a value means follows from the field: words of `message`, a moment or a day
//! of `@timestamp`, an address or a network of a field that ends in `.ip`, else the whole value. Under `details`, a `flattened` field, all
//! values are texts.

use std::net::{Ipv4Addr, Ipv6Addr};
use std::ops::Bound;

use serde_json::{Map, Value as Json, json};

use super::document::{MESSAGE, RECEIVED, TIMESTAMP};
use super::mappings::{TREES, Trees, is_address};
use crate::store::StoreError;
use crate::store::syntax::{self, Part, Text, Value, error_at};

/// The id of a document, in queries.
const ID: &str = "_id";
/// The time of receipt, in queries.
const RECEIVED_IN_QUERIES: &str = "_received";
const DETAILS: &str = "details";

/// The query that a text is; `None` where it fits all.
pub(super) fn of_text(text: &str, trees: Trees) -> Result<Option<Json>, StoreError> {
    match syntax::parse(text)? {
        syntax::Query::All => Ok(None),
        query => Translator { trees }.query(&query).map(Some),
    }
}

/// Documents where a field has exactly a value, or one of a list.
pub(super) fn filter(field: &str, value: &Json) -> Result<Json, StoreError> {
    let refuse = |what: &str| {
        StoreError::BadRequest(format!("filter {field}: {what} cannot be a value; give text, a number, a boolean or a list of them"))
    };
    match value {
        Json::String(text) => Ok(exact(field, text)),
        Json::Number(number) => Ok(exact(field, &number.to_string())),
        Json::Bool(value) => Ok(exact(field, &value.to_string())),
        Json::Array(values) => Ok(any(values.iter().map(|value| filter(field, value)).collect::<Result<_, _>>()?)),
        Json::Null => Err(refuse("null")),
        Json::Object(_) => Err(refuse("an object")),
    }
}

/// Documents whose time lies within bounds in milliseconds since 1970.
pub(super) fn times(field: &str, mut bounds: Map<String, Json>) -> Json {
    bounds.insert("format".to_owned(), json!("epoch_millis"));
    json!({"range": {field: bounds}})
}

struct Translator {
    trees: Trees,
}

impl Translator {
    fn query(&self, query: &syntax::Query) -> Result<Json, StoreError> {
        let all = |queries: &[syntax::Query]| queries.iter().map(|query| self.query(query)).collect::<Result<Vec<Json>, _>>();
        match query {
            syntax::Query::All => Ok(json!({"match_all": {}})),
            syntax::Query::Exists(field) => Ok(exists(field)),
            syntax::Query::Field { field, value, position } => self.field(field.as_ref(), value, *position),
            syntax::Query::Bool { must, should, must_not } => {
                let mut clauses = json!({"filter": all(must)?, "must_not": all(must_not)?});
                if must.is_empty() && !should.is_empty() {
                    clauses["should"] = json!(all(should)?);
                    clauses["minimum_should_match"] = json!(1);
                }
                Ok(json!({"bool": clauses}))
            }
        }
    }

    fn field(&self, field: Option<&Text>, value: &Value, position: usize) -> Result<Json, StoreError> {
        let Some(field) = field.filter(|field| !field.is_pattern()) else { return self.anywhere(field, value, position) };
        let name = field.literal();
        match (name.as_str(), value) {
            (ID, Value::Word(text)) if text.is_pattern() => {
                Err(error_at(position, "an _id cannot be looked for by a pattern; give it whole"))
            }
            (ID, Value::Range { .. }) => Err(error_at(position, "an _id has no order; give it whole")),
            (TIMESTAMP | RECEIVED_IN_QUERIES, value) => time(&name, value, position),
            (_, Value::Range { lower, upper }) => range(&name, lower, upper, position),
            (_, Value::Word(text)) if text.is_pattern() => self.pattern(&name, text, position),
            (_, Value::Word(text)) => Ok(exact(&name, &text.literal())),
            (MESSAGE, Value::Phrase { text, slop }) => Ok(words(text, *slop)),
            (_, Value::Phrase { text, .. }) => Ok(exact(&name, text)),
        }
    }

    /// Documents where a field fits a pattern; in `message`, where a word of it does.
    fn pattern(&self, field: &str, text: &Text, position: usize) -> Result<Json, StoreError> {
        if field == MESSAGE {
            return Ok(json!({"wildcard": {MESSAGE: {"value": wildcard(text), "case_insensitive": true}}}));
        }
        if is_address(field) {
            let network = network_of(&text.literal()).ok_or_else(|| {
                error_at(
                    position,
                    &format!("{field} is an address; write 10.0.* for the addresses that begin so, or a network as 10.0.0.0/8"),
                )
            })?;
            return Ok(exact(field, &network));
        }
        if let Some(prefix) = prefix(text) {
            return Ok(match in_details(field) {
                Some(_) => json!({"prefix": {field: {"value": prefix}}}),
                // Leniently, since a field may hold numbers.
                None => self.lenient_pattern(field, text),
            });
        }
        match (in_details(field), self.trees) {
            (Some(_), Trees::Flattened | Trees::FlatObject) => Ok(json!({"wildcard": {field: {"value": wildcard(text)}}})),
            (Some(key), Trees::KeyAndNull) => Ok(json!({"query_string": {
                "query": format!("{}\u{0}{}", escaped(&literal(key)), escaped(text)), "fields": [field], "allow_leading_wildcard": true}})),
            (None, _) => Ok(self.lenient_pattern(field, text)),
        }
    }

    /// Documents where a field, or one of those that its name fits, fits a pattern; none where its type knows no patterns.
    fn lenient_pattern(&self, field: &str, text: &Text) -> Json {
        let query = json!({"query_string": {
            "query": escaped(text), "fields": [field], "lenient": true, "analyze_wildcard": true, "allow_leading_wildcard": true}});
        if self.trees != Trees::FlatObject {
            return query;
        }
        let trees = TREES.into_iter().filter(|tree| field == "*" || field == *tree);
        let in_trees = trees.map(|tree| json!({"wildcard": {tree: {"value": wildcard(text)}}}));
        any(std::iter::once(query).chain(in_trees).collect())
    }

    /// Documents with a value in any field that fits; without a field's name, in any text too.
    fn anywhere(&self, field: Option<&Text>, value: &Value, position: usize) -> Result<Json, StoreError> {
        let name = field.map_or_else(|| "*".to_owned(), wildcard);
        let in_tree = match in_details(&name) {
            Some("*") => true,
            Some(_) => {
                return Err(error_at(position, "a part of a name under details cannot be a pattern; write details.*: for all of them"));
            }
            None => false,
        };
        let fields = if in_tree { DETAILS } else { name.as_str() };
        match value {
            Value::Range { .. } => Err(error_at(position, "a range needs one field: event.severity:[3 TO 5]")),
            Value::Word(text) if text.is_pattern() => Ok(self.lenient_pattern(fields, text)),
            Value::Word(text) => {
                Ok(json!({"multi_match": {"query": text.literal(), "type": "phrase", "fields": [fields], "lenient": true}}))
            }
            Value::Phrase { text, slop } => {
                Ok(json!({"multi_match": {"query": text, "type": "phrase", "slop": slop, "fields": [fields], "lenient": true}}))
            }
        }
    }
}

/// The documents where a field is this value, or an address in the network that it names.
fn exact(field: &str, text: &str) -> Json {
    match field {
        ID => json!({"ids": {"values": [text]}}),
        MESSAGE => words(text, 0),
        TIMESTAMP | RECEIVED_IN_QUERIES => json!({"match": {own_name(field): {"query": text, "lenient": true}}}),
        _ => match in_details(field).map(|_| networks_in_text(text)) {
            Some(Some(parts)) => any(parts.into_iter().map(|part| json!({"prefix": {field: {"value": part}}})).collect()),
            Some(None) => json!({"term": {field: text}}),
            // A match is exact in all but texts, and leniency takes "x" for a value that no number is.
            None => json!({"match": {field: {"query": text, "lenient": true}}}),
        },
    }
}

/// Documents with these words in this order.
fn words(text: &str, slop: u32) -> Json {
    json!({"match_phrase": {MESSAGE: {"query": text, "slop": slop}}})
}

/// Documents with any value in a field or below it.
fn exists(field: &Text) -> Json {
    match wildcard(field).as_str() {
        ID | TIMESTAMP | RECEIVED_IN_QUERIES => json!({"match_all": {}}),
        "details.*" => json!({"exists": {"field": DETAILS}}),
        name => json!({"exists": {"field": name}}),
    }
}

/// Documents whose time lies in a range, or within what a date means: `2026-11-24` is the day.
fn time(field: &str, value: &Value, position: usize) -> Result<Json, StoreError> {
    let (lower, upper) = match value {
        Value::Word(text) => (Bound::Included(text.literal()), Bound::Included(text.literal())),
        Value::Phrase { text, .. } => (Bound::Included(text.clone()), Bound::Included(text.clone())),
        Value::Range { lower, upper } => (lower.clone(), upper.clone()),
    };
    for bound in [&lower, &upper] {
        if let Bound::Included(text) | Bound::Excluded(text) = bound
            && !is_time(text)
        {
            return Err(error_at(position, &format!("`{text}` is no time; write 2026-11-24, 2026-11-24T10:30:00Z, now or now-15m")));
        }
    }
    Ok(match bounds(&lower, &upper) {
        Some(mut bounds) => {
            bounds.insert("format".to_owned(), json!("strict_date_optional_time||epoch_millis"));
            json!({"range": {own_name(field): bounds}})
        }
        None => json!({"match_all": {}}),
    })
}

/// Documents where a field lies in a range of what its type is.
fn range(field: &str, lower: &Bound<String>, upper: &Bound<String>, position: usize) -> Result<Json, StoreError> {
    let Some(bounds) = bounds(lower, upper) else { return Ok(json!({"exists": {"field": field}})) };
    let is_number = |bound: &Bound<String>| match bound {
        Bound::Included(text) | Bound::Excluded(text) => text.parse::<f64>().is_ok(),
        Bound::Unbounded => false,
    };
    if in_details(field).is_some() && (is_number(lower) || is_number(upper)) {
        return Err(error_at(
            position,
            &format!("{field} holds texts, in which 10 comes before 9; declare the field in its LogSource's `fields` to compare numbers"),
        ));
    }
    Ok(json!({"range": {field: bounds}}))
}

/// The bounds of a range; `None` where there are none. A full moment goes as milliseconds, since of a text without a fraction the whole
/// second is meant otherwise.
fn bounds(lower: &Bound<String>, upper: &Bound<String>) -> Option<Map<String, Json>> {
    let value = |text: &String| match text.parse::<jiff::Timestamp>() {
        Ok(time) if time.subsec_nanosecond() % 1_000_000 == 0 => json!(format!("{time:.3}")),
        _ => json!(text),
    };
    let mut bounds = Map::new();
    let mut add = |bound: &Bound<String>, included: &str, excluded: &str| match bound {
        Bound::Included(text) => drop(bounds.insert(included.to_owned(), value(text))),
        Bound::Excluded(text) => drop(bounds.insert(excluded.to_owned(), value(text))),
        Bound::Unbounded => {}
    };
    add(lower, "gte", "gt");
    add(upper, "lte", "lt");
    (!bounds.is_empty()).then_some(bounds)
}

/// Whether a text is a moment, a day, or relative to now.
fn is_time(text: &str) -> bool {
    if let Some(shift) = text.strip_prefix("now") {
        let mut characters = shift.chars();
        let (sign, unit) = (characters.next(), characters.next_back());
        let digits = characters.as_str();
        return shift.is_empty()
            || (matches!(sign, Some('+' | '-'))
                && matches!(unit, Some('s' | 'm' | 'h' | 'd' | 'w'))
                && (1..=9).contains(&digits.len())
                && digits.bytes().all(|byte| byte.is_ascii_digit()));
    }
    text.parse::<jiff::Timestamp>().is_ok() || text.parse::<jiff::civil::Date>().is_ok() || text.parse::<jiff::civil::DateTime>().is_ok()
}

fn own_name(field: &str) -> &str {
    if field == RECEIVED_IN_QUERIES { RECEIVED } else { field }
}

/// The path below `details`, if a field is there.
fn in_details(field: &str) -> Option<&str> {
    field.strip_prefix(DETAILS)?.strip_prefix('.')
}

fn any(mut either: Vec<Json>) -> Json {
    if either.len() == 1 { either.remove(0) } else { json!({"bool": {"should": either, "minimum_should_match": 1}}) }
}

fn literal(text: &str) -> Text {
    Text(text.chars().map(Part::Char).collect())
}

/// The text before a single `*` at the end, if that is the pattern.
fn prefix(text: &Text) -> Option<String> {
    let (last, before) = text.0.split_last()?;
    let plain = *last == Part::Many && before.iter().all(|part| matches!(part, Part::Char(_)));
    plain.then(|| Text(before.to_vec()).literal())
}

/// A pattern for the wildcard query, where a backslash makes a character mean itself.
fn wildcard(text: &Text) -> String {
    let mut pattern = String::new();
    for part in &text.0 {
        match part {
            Part::Many => pattern.push('*'),
            Part::One => pattern.push('?'),
            Part::Char(character) => {
                if matches!(character, '*' | '?' | '\\') {
                    pattern.push('\\');
                }
                pattern.push(*character);
            }
        }
    }
    pattern
}

/// A pattern as one word of a query string, where a backslash makes any character mean itself.
fn escaped(text: &Text) -> String {
    let mut word = String::new();
    for part in &text.0 {
        match part {
            Part::Many => word.push('*'),
            Part::One => word.push('?'),
            Part::Char(character) => {
                // Letters are left alone, lest `\u` begins a code.
                if !character.is_alphanumeric() {
                    word.push('\\');
                }
                word.push(*character);
            }
        }
    }
    word
}

/// The network of the addresses that begin like `10.0.*` or `2001:db8:*`.
fn network_of(pattern: &str) -> Option<String> {
    if let Some(start) = pattern.strip_suffix(".*") {
        let octets: Vec<u8> = start.split('.').map(str::parse).collect::<Result<_, _>>().ok()?;
        let mut whole = [0; 4];
        whole.get_mut(..octets.len())?.copy_from_slice(&octets);
        return Some(format!("{}/{}", Ipv4Addr::from(whole), octets.len() * 8));
    }
    let groups: Vec<u16> =
        pattern.strip_suffix(":*")?.split(':').map(|group| u16::from_str_radix(group, 16)).collect::<Result<_, _>>().ok()?;
    let mut whole = [0; 8];
    whole.get_mut(..groups.len())?.copy_from_slice(&groups);
    Some(format!("{}/{}", Ipv6Addr::from(whole), groups.len() * 16))
}

/// The beginnings of the texts that are addresses in an IPv4 network: at most 128, or 256 whole addresses. `None` where a text names no such
/// network.
fn networks_in_text(text: &str) -> Option<Vec<String>> {
    let (address, length) = text.split_once('/')?;
    let address = u32::from(address.parse::<Ipv4Addr>().ok()?);
    let length: u32 = length.parse().ok().filter(|length| (1..=31).contains(length))?;
    // The octet in which the network ends, and how many values of it belong to it.
    let octets = length.div_ceil(8);
    let values = 1_u32 << (octets * 8 - length);
    let first = address & !(u32::MAX >> length);
    let parts = (0..values).map(|value| {
        let address = Ipv4Addr::from(first + (value << (32 - octets * 8))).octets();
        let start: Vec<String> = address[..octets as usize].iter().map(u8::to_string).collect();
        if octets == 4 { start.join(".") } else { start.join(".") + "." }
    });
    Some(parts.collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(text: &str) -> Json {
        of_text(text, Trees::KeyAndNull).unwrap().unwrap()
    }

    #[test]
    fn a_value_is_looked_for_as_its_field_is_kept() {
        for (text, expected) in [
            ("user.name:bob", json!({"match": {"user.name": {"query": "bob", "lenient": true}}})),
            ("details.EventID:4624", json!({"term": {"details.EventID": "4624"}})),
            ("details.Image:C\\:\\\\*", json!({"prefix": {"details.Image": {"value": "C:\\"}}})),
            (
                "details.Image:*\\\\cmd.exe",
                json!({"query_string": {"query": "Image\u{0}*\\\\cmd\\.exe", "fields": ["details.Image"], "allow_leading_wildcard": true}}),
            ),
            ("details.*:bob", json!({"multi_match": {"query": "bob", "type": "phrase", "fields": ["details"], "lenient": true}})),
            ("source.ip:10.0.*", json!({"match": {"source.ip": {"query": "10.0.0.0/16", "lenient": true}}})),
            ("message:\"failed password\"~2", json!({"match_phrase": {"message": {"query": "failed password", "slop": 2}}})),
            ("_id:x", json!({"ids": {"values": ["x"]}})),
            ("_exists_:details.*", json!({"exists": {"field": "details"}})),
            (
                "@timestamp:[2026-11-24T10:00:00Z TO now-1h}",
                json!({"range": {"@timestamp": {"gte": "2026-11-24T10:00:00.000Z", "lt": "now-1h", "format": "strict_date_optional_time||epoch_millis"}}}),
            ),
        ] {
            assert_eq!(of(text), expected, "{text}");
        }
    }

    #[test]
    fn what_the_server_would_answer_wrongly_is_refused() {
        for text in
            ["details.count:>5", "details.Sub*:x", "source.ip:10.?.0.1", "@timestamp:soon", "@timestamp:now-1x", "_id:a*", "[1 TO 2]"]
        {
            assert!(matches!(of_text(text, Trees::KeyAndNull), Err(StoreError::BadRequest(_))), "{text}");
        }
    }

    #[test]
    fn a_network_in_text_is_its_beginnings() {
        for (text, expected) in [
            ("10.0.0.0/8", vec!["10."]),
            ("172.16.0.0/15", vec!["172.16.", "172.17."]),
            ("10.1.2.128/31", vec!["10.1.2.128", "10.1.2.129"]),
        ] {
            assert_eq!(networks_in_text(text).unwrap(), expected, "{text}");
        }
        for text in ["10.0.0.0", "10.0.0.0/0", "10.0.0.0/32", "a/b", "::/8"] {
            assert_eq!(networks_in_text(text), None, "{text}");
        }
    }
}
