//! From a query in Elasticsearch's syntax to one of tantivy's, on the fields of [`super::schema`].
//!
//! A value is looked for as every type it can be read as: `4688` finds the number and the string. `message` is searched by words; every
//! other field by its whole value. Without a field, words are searched in all text, and whole values in all fields.

use std::net::IpAddr;
use std::ops::Bound;
use std::sync::Arc;

use jiff::{Span, Timestamp};
use serde_json::Value as Json;
use tantivy::columnar::NumericalValue;
use tantivy::query::{AllQuery, BooleanQuery, EmptyQuery, ExistsQuery, Occur, PhraseQuery, Query, RangeQuery, TermQuery};
use tantivy::schema::{Field, IndexRecordOption};
use tantivy::tokenizer::TokenStream;
use tantivy::{DateTime, Term};

use super::document::{MAX_KEYWORD_BYTES, parse_time, truncated};
use super::scan::{Paths, Scan, Test, Values};
use super::schema::{FIELDS, ID, KEYWORD, MESSAGE, RECEIVED, TIMESTAMP, words_analyzer};
use crate::store::syntax::{self, Part, Text, Value, error_at};
use crate::store::{SearchRequest, StoreError};

/// The query of a request: text, filters and times together. `now` is what the word means in the query.
pub(super) fn of_request(request: &SearchRequest, now: Timestamp) -> Result<Box<dyn Query>, StoreError> {
    let mut all: Vec<Box<dyn Query>> = Vec::new();
    match syntax::parse(&request.query)? {
        syntax::Query::All => {}
        query => all.push(Translator { now }.query(&query)?),
    }
    for (field, value) in &request.filters {
        all.push(filter(field, value)?);
    }
    let from = request.from_millis.map_or(Bound::Unbounded, Bound::Included);
    let to = request.to_millis.map_or(Bound::Unbounded, Bound::Excluded);
    all.extend(times(FIELDS.timestamp, from, to));
    all.extend(times(FIELDS.received, request.received_from_millis.map_or(Bound::Unbounded, Bound::Included), Bound::Unbounded));
    Ok(match all.len() {
        0 => Box::new(AllQuery),
        1 => all.remove(0),
        _ => Box::new(BooleanQuery::intersection(all)),
    })
}

/// Documents where a field has exactly a value.
fn filter(field: &str, value: &Json) -> Result<Box<dyn Query>, StoreError> {
    let refuse = |what: &str| {
        StoreError::BadRequest(format!("filter {field}: {what} cannot be a value; give text, a number, a boolean or a list of them"))
    };
    let text = match value {
        Json::String(text) => text.clone(),
        Json::Number(number) => number.to_string(),
        Json::Bool(value) => value.to_string(),
        Json::Array(values) => {
            let any = values.iter().map(|value| filter(field, value)).collect::<Result<Vec<_>, _>>()?;
            return Ok(Box::new(BooleanQuery::union(any)));
        }
        Json::Null => return Err(refuse("null")),
        Json::Object(_) => return Err(refuse("an object")),
    };
    Ok(exact(field, &text))
}

/// The documents where a field is this value, read as every type it can be.
fn exact(field: &str, text: &str) -> Box<dyn Query> {
    match field {
        ID => term(Term::from_field_text(FIELDS.id, text)),
        TIMESTAMP | RECEIVED => match parse_time(text) {
            Some(time) => {
                let millis = time.as_millisecond();
                any(times(time_field(field), Bound::Included(millis), Bound::Included(millis)).into_iter().collect())
            }
            None => Box::new(EmptyQuery),
        },
        _ => {
            let mut either: Vec<Box<dyn Query>> = keyword_terms(field, text).into_iter().map(term).collect();
            if let Some(time) = parse_time(text) {
                let bound = Bound::Included(keyword_time(field, time));
                either.push(Box::new(RangeQuery::new(bound.clone(), bound)));
            }
            if field == MESSAGE {
                either.push(words(FIELDS.message, text, 0));
            }
            any(either)
        }
    }
}

struct Translator {
    now: Timestamp,
}

impl Translator {
    fn query(&self, query: &syntax::Query) -> Result<Box<dyn Query>, StoreError> {
        match query {
            syntax::Query::All => Ok(Box::new(AllQuery)),
            syntax::Query::Exists(field) => Ok(exists(field)),
            syntax::Query::Field { field, value, position } => self.field(field.as_ref(), value, *position),
            syntax::Query::Bool { must, should, must_not } => {
                let mut clauses = Vec::new();
                let alternatives = if must.is_empty() { should.as_slice() } else { &[] };
                for (occur, queries) in [(Occur::Must, must.as_slice()), (Occur::Should, alternatives), (Occur::MustNot, must_not)] {
                    for query in queries {
                        clauses.push((occur, self.query(query)?));
                    }
                }
                if clauses.iter().all(|(occur, _)| *occur == Occur::MustNot) {
                    clauses.push((Occur::Must, Box::new(AllQuery)));
                }
                Ok(Box::new(BooleanQuery::new(clauses)))
            }
        }
    }

    fn field(&self, field: Option<&Text>, value: &Value, position: usize) -> Result<Box<dyn Query>, StoreError> {
        let Some(field) = field.filter(|field| !field.is_pattern()) else { return anywhere(field, value, position) };
        let name = field.literal();
        match (name.as_str(), value) {
            (TIMESTAMP | RECEIVED, value) => self.time(&name, value, position),
            (ID, Value::Word(text)) if text.is_pattern() => {
                Ok(Box::new(Scan { field: FIELDS.id, paths: Paths::None, values: pattern(text, false) }))
            }
            (ID, Value::Range { .. }) => Err(error_at(position, "an _id has no order; give it whole, or with wildcards")),
            (_, Value::Range { lower, upper }) => self.range(&name, lower, upper, position),
            (_, Value::Word(text)) if text.is_pattern() => Ok(wildcard(&name, text)),
            (MESSAGE, Value::Phrase { text, slop }) => Ok(any(vec![words(FIELDS.message, text, *slop), exact(&name, text)])),
            (_, Value::Word(text)) => Ok(value_or_network(&name, &text.literal())),
            (_, Value::Phrase { text, .. }) => Ok(value_or_network(&name, text)),
        }
    }

    /// Documents whose time lies in a range, or within what a date means: `2026-11-24` is the day.
    fn time(&self, field: &str, value: &Value, position: usize) -> Result<Box<dyn Query>, StoreError> {
        let (lower, upper) = match value {
            Value::Word(text) => (Bound::Included(text.literal()), Bound::Included(text.literal())),
            Value::Phrase { text, .. } => (Bound::Included(text.clone()), Bound::Included(text.clone())),
            Value::Range { lower, upper } => (lower.clone(), upper.clone()),
        };
        let read = |text: &str| {
            Period::read(text, self.now)
                .ok_or_else(|| error_at(position, &format!("`{text}` is no time; write 2026-11-24, 2026-11-24T10:30:00Z, now or now-15m")))
        };
        let (from, to) = periods(&lower, &upper, read)?;
        Ok(times(time_field(field), from, to).unwrap_or_else(|| exists(&Text(field.chars().map(Part::Char).collect()))))
    }

    /// Documents where a field lies in a range: of numbers, times or addresses if the ends are such, else of text.
    fn range(&self, field: &str, lower: &Bound<String>, upper: &Bound<String>, position: usize) -> Result<Box<dyn Query>, StoreError> {
        if matches!((lower, upper), (Bound::Unbounded, Bound::Unbounded)) {
            return Ok(exists(&Text(field.chars().map(Part::Char).collect())));
        }
        if let Some((from, to)) = both(lower, upper, |text| text.parse::<f64>().ok().filter(|number| number.is_finite())) {
            // Both ends must be of one type for tantivy; whole ones stay whole, since floats lose digits past 2^53.
            let whole = both(lower, upper, |text| text.parse::<i64>().ok().map(NumericalValue::I64));
            let (least, most) = whole.unwrap_or((from.map(NumericalValue::F64), to.map(NumericalValue::F64)));
            let term = |bound: Bound<NumericalValue>| bound.map(|number| keyword_number(field, number));
            let numbers = RangeQuery::new(term(least), term(most));
            let test: Test = Arc::new(move |value| value.parse::<f64>().is_ok_and(|number| within(&number, &from, &to)));
            return Ok(any(vec![Box::new(numbers), Box::new(strings(field, test))]));
        }
        if let Some((from, to)) = both(lower, upper, |text| text.parse::<IpAddr>().ok()) {
            let test: Test = Arc::new(move |value| value.parse::<IpAddr>().is_ok_and(|address| within(&address, &from, &to)));
            return Ok(Box::new(strings(field, test)));
        }
        let missing = || error_at(position, "not a time");
        if let Ok((from, to)) = periods(lower, upper, |text| Period::read(text, self.now).ok_or_else(missing)) {
            let bound = |bound: Bound<i64>| bound.map(|millis| keyword_millis(field, millis));
            let range = RangeQuery::new(bound(from), bound(to));
            let test: Test = Arc::new(move |value| parse_time(value).is_some_and(|time| within(&time.as_millisecond(), &from, &to)));
            return Ok(any(vec![Box::new(range), Box::new(strings(field, test))]));
        }
        let bound = |bound: &Bound<String>| bound.as_ref().map(|text| keyword_text(field, text));
        Ok(Box::new(RangeQuery::new(bound(lower), bound(upper))))
    }
}

/// Documents with a value in any field that fits; without a field's name, in any text too.
fn anywhere(field: Option<&Text>, value: &Value, position: usize) -> Result<Box<dyn Query>, StoreError> {
    let paths = paths(field);
    let texts: &[Field] = if field.is_none() { &[FIELDS.message, FIELDS.words] } else { &[] };
    let (text, slop) = match value {
        Value::Range { .. } => return Err(error_at(position, "a range needs one field: event.severity:[3 TO 5]")),
        Value::Word(text) if text.is_pattern() => {
            let mut either: Vec<Box<dyn Query>> = vec![Box::new(Scan { field: FIELDS.keyword, paths, values: pattern(text, false) })];
            for field in texts {
                either.push(Box::new(Scan { field: *field, paths: Paths::None, values: pattern(text, true) }));
            }
            return Ok(any(either));
        }
        Value::Word(text) => (text.literal(), 0),
        Value::Phrase { text, slop } => (text.clone(), *slop),
    };
    // The path is cut off again: what stays is the value as it stands in the keys of each path.
    let path_length = keyword_path("x").serialized_value_bytes().len();
    let values = keyword_terms("x", &text).iter().map(|term| term.serialized_value_bytes()[path_length..].to_vec()).collect();
    let mut either: Vec<Box<dyn Query>> = vec![Box::new(Scan { field: FIELDS.keyword, paths, values: Values::AnyOf(values) })];
    for field in texts {
        either.push(words(*field, &text, slop));
    }
    Ok(any(either))
}

/// The paths that fit a field's name with wildcards; without a name, all.
fn paths(field: Option<&Text>) -> Paths {
    let pattern = field.cloned();
    Paths::Fitting(Arc::new(move |path| pattern.as_ref().is_none_or(|pattern| fits(&pattern.0, path))))
}

/// Documents with any value in a field or below it.
fn exists(field: &Text) -> Box<dyn Query> {
    if field.is_pattern() {
        return Box::new(Scan { field: FIELDS.keyword, paths: paths(Some(field)), values: Values::All });
    }
    match field.literal().as_str() {
        ID | TIMESTAMP | RECEIVED => Box::new(AllQuery),
        MESSAGE => {
            let text = Scan { field: FIELDS.message, paths: Paths::None, values: Values::All };
            any(vec![Box::new(text), Box::new(ExistsQuery::new(format!("{KEYWORD}.{MESSAGE}"), true))])
        }
        path => Box::new(ExistsQuery::new(format!("{KEYWORD}.{path}"), true)),
    }
}

/// Documents where a field fits a pattern; in `message`, where a word of it does.
fn wildcard(field: &str, text: &Text) -> Box<dyn Query> {
    let keyword = Scan { field: FIELDS.keyword, paths: one_path(field), values: pattern(text, false) };
    if field == MESSAGE {
        let message = Scan { field: FIELDS.message, paths: Paths::None, values: pattern(text, true) };
        return any(vec![Box::new(message), Box::new(keyword)]);
    }
    Box::new(keyword)
}

/// Strings that fit a pattern; what comes before its first wildcard narrows the search.
fn pattern(text: &Text, lower_case: bool) -> Values {
    let mut parts = text.0.clone();
    if lower_case {
        for part in &mut parts {
            if let Part::Char(character) = part {
                // Characters that grow in lower case are no parts of words; the first is as good as any.
                *character = character.to_lowercase().next().unwrap_or(*character);
            }
        }
    }
    let prefix = parts.iter().map_while(|part| if let Part::Char(character) = part { Some(*character) } else { None }).collect();
    Values::Strings { prefix, test: Arc::new(move |value| fits(&parts, value)) }
}

/// Whether a text fits a pattern.
fn fits(pattern: &[Part], text: &str) -> bool {
    let text: Vec<char> = text.chars().collect();
    let (mut at, mut part) = (0, 0);
    // Where to go on if the last `*` has to take one character more.
    let mut again: Option<(usize, usize)> = None;
    while at < text.len() {
        match pattern.get(part) {
            Some(Part::Many) => {
                again = Some((at, part));
                part += 1;
            }
            Some(Part::One) => (at, part) = (at + 1, part + 1),
            Some(Part::Char(character)) if *character == text[at] => (at, part) = (at + 1, part + 1),
            _ => match again {
                Some((taken, star)) => {
                    again = Some((taken + 1, star));
                    (at, part) = (taken + 1, star + 1);
                }
                None => return false,
            },
        }
    }
    pattern[part..].iter().all(|part| *part == Part::Many)
}

/// Documents with these words in this order.
fn words(field: Field, text: &str, slop: u32) -> Box<dyn Query> {
    let mut analyzer = words_analyzer();
    let mut tokens = analyzer.token_stream(text);
    let mut terms = Vec::new();
    while tokens.advance() {
        terms.push((tokens.token().position, Term::from_field_text(field, &tokens.token().text)));
    }
    match terms.len() {
        0 => Box::new(EmptyQuery),
        1 => term(terms.remove(0).1),
        _ => Box::new(PhraseQuery::new_with_offset_and_slop(terms, slop)),
    }
}

fn strings(field: &str, test: Test) -> Scan {
    Scan { field: FIELDS.keyword, paths: one_path(field), values: Values::Strings { prefix: String::new(), test } }
}

fn one_path(field: &str) -> Paths {
    Paths::One(keyword_path(field).serialized_value_bytes().to_vec())
}

/// Documents where a field is this value, or an address in the network that it names.
fn value_or_network(field: &str, text: &str) -> Box<dyn Query> {
    match network(text) {
        Some(addresses) => any(vec![exact(field, text), Box::new(addresses_between(field, addresses))]),
        None => exact(field, text),
    }
}

/// The addresses of a network in CIDR notation: the first and the last.
fn network(text: &str) -> Option<(IpAddr, IpAddr)> {
    let (address, length) = text.split_once('/')?;
    let length: u32 = length.parse().ok()?;
    match address.parse().ok()? {
        IpAddr::V4(address) if length <= 32 => {
            let rest = u32::MAX.checked_shr(length).unwrap_or(0);
            let first = u32::from(address) & !rest;
            Some((IpAddr::V4(first.into()), IpAddr::V4((first | rest).into())))
        }
        IpAddr::V6(address) if length <= 128 => {
            let rest = u128::MAX.checked_shr(length).unwrap_or(0);
            let first = u128::from(address) & !rest;
            Some((IpAddr::V6(first.into()), IpAddr::V6((first | rest).into())))
        }
        _ => None,
    }
}

fn addresses_between(field: &str, (first, last): (IpAddr, IpAddr)) -> Scan {
    strings(field, Arc::new(move |value| value.parse::<IpAddr>().is_ok_and(|address| first <= address && address <= last)))
}

/// A stretch of time that a text names: from here, inclusive, to there, exclusive, milliseconds since 1970.
#[derive(Clone, Copy)]
struct Period {
    from: i64,
    to: i64,
}

impl Period {
    fn read(text: &str, now: Timestamp) -> Option<Self> {
        let moment = |time: Timestamp| Self { from: time.as_millisecond(), to: time.as_millisecond() + 1 };
        if let Some(shift) = text.strip_prefix("now") {
            return shifted(now, shift).map(moment);
        }
        if let Some(time) = parse_time(text) {
            return Some(moment(time));
        }
        if let Ok(day) = text.parse::<jiff::civil::Date>() {
            return Some(Self { from: super::series::start_of(day)?, to: super::series::start_of(day.tomorrow().ok()?)? });
        }
        let local: jiff::civil::DateTime = text.parse().ok()?;
        Some(moment(local.to_zoned(jiff::tz::TimeZone::UTC).ok()?.timestamp()))
    }
}

/// `-15m` from now: a sign, a number, and one of s, m, h, d, w.
fn shifted(now: Timestamp, shift: &str) -> Option<Timestamp> {
    if shift.is_empty() {
        return Some(now);
    }
    let unit = shift.chars().last()?;
    let count: i64 = shift[..shift.len() - unit.len_utf8()].parse().ok().filter(|_| shift.starts_with(['+', '-']))?;
    let seconds = match unit {
        's' => 1,
        'm' => 60,
        'h' => 3_600,
        'd' => 86_400,
        'w' => 604_800,
        _ => return None,
    };
    now.checked_add(Span::new().try_seconds(count.checked_mul(seconds)?).ok()?).ok()
}

/// The bounds in milliseconds of a range whose ends name stretches of time: an inclusive end takes in all of its stretch.
fn periods(
    lower: &Bound<String>,
    upper: &Bound<String>,
    read: impl Fn(&str) -> Result<Period, StoreError>,
) -> Result<(Bound<i64>, Bound<i64>), StoreError> {
    let from = match lower {
        Bound::Unbounded => Bound::Unbounded,
        Bound::Included(text) => Bound::Included(read(text)?.from),
        Bound::Excluded(text) => Bound::Included(read(text)?.to),
    };
    let to = match upper {
        Bound::Unbounded => Bound::Unbounded,
        Bound::Included(text) => Bound::Excluded(read(text)?.to),
        Bound::Excluded(text) => Bound::Excluded(read(text)?.from),
    };
    Ok((from, to))
}

/// Both ends of a range read as one type, if both can be and there is at least one.
fn both<T>(lower: &Bound<String>, upper: &Bound<String>, read: impl Fn(&str) -> Option<T>) -> Option<(Bound<T>, Bound<T>)> {
    let one = |bound: &Bound<String>| match bound {
        Bound::Unbounded => Some(Bound::Unbounded),
        Bound::Included(text) => read(text).map(Bound::Included),
        Bound::Excluded(text) => read(text).map(Bound::Excluded),
    };
    Some((one(lower)?, one(upper)?))
}

fn within<T: PartialOrd>(value: &T, lower: &Bound<T>, upper: &Bound<T>) -> bool {
    std::ops::RangeBounds::contains(&(lower.as_ref(), upper.as_ref()), value)
}

/// Documents whose time lies between two; `None` where there are no bounds.
fn times(field: Field, from: Bound<i64>, to: Bound<i64>) -> Option<Box<dyn Query>> {
    if matches!((from, to), (Bound::Unbounded, Bound::Unbounded)) {
        return None;
    }
    let bound = |bound: Bound<i64>| bound.map(|millis| Term::from_field_date(field, date_time(millis)));
    Some(Box::new(RangeQuery::new(bound(from), bound(to))))
}

fn time_field(name: &str) -> Field {
    if name == RECEIVED { FIELDS.received } else { FIELDS.timestamp }
}

/// A time that an index can hold; the nearest where it cannot hold it.
fn date_time(millis: i64) -> DateTime {
    DateTime::from_timestamp_nanos(millis.saturating_mul(1_000_000))
}

fn term(term: Term) -> Box<dyn Query> {
    Box::new(TermQuery::new(term, IndexRecordOption::Basic))
}

fn any(mut either: Vec<Box<dyn Query>>) -> Box<dyn Query> {
    if either.len() == 1 { either.remove(0) } else { Box::new(BooleanQuery::union(either)) }
}

fn keyword_path(field: &str) -> Term {
    // Backslashes would be read as escapes of dots.
    Term::from_field_json_path(FIELDS.keyword, &field.replace('\\', "\\\\"), true)
}

fn keyword_text(field: &str, text: &str) -> Term {
    let mut term = keyword_path(field);
    term.append_type_and_str(truncated(text, MAX_KEYWORD_BYTES));
    term
}

fn keyword_time(field: &str, time: Timestamp) -> Term {
    let mut term = keyword_path(field);
    let nanos = i64::try_from(time.as_nanosecond()).unwrap_or(i64::MAX);
    term.append_type_and_fast_value(DateTime::from_timestamp_nanos(nanos));
    term
}

fn keyword_millis(field: &str, millis: i64) -> Term {
    let mut term = keyword_path(field);
    term.append_type_and_fast_value(date_time(millis));
    term
}

fn keyword_number(field: &str, number: NumericalValue) -> Term {
    let mut term = keyword_path(field);
    match number {
        NumericalValue::I64(number) => term.append_type_and_fast_value(number),
        NumericalValue::U64(number) => term.append_type_and_fast_value(number),
        NumericalValue::F64(number) => term.append_type_and_fast_value(number),
    }
    term
}

/// The terms that a value may stand as: text, number, boolean. Not times, whose terms are cut to seconds.
fn keyword_terms(field: &str, text: &str) -> Vec<Term> {
    let mut terms = vec![keyword_text(field, text)];
    if let Ok(number) = text.parse::<NumericalValue>() {
        terms.push(keyword_number(field, number.normalize()));
    }
    if let Ok(boolean) = text.parse::<bool>() {
        let mut term = keyword_path(field);
        term.append_type_and_fast_value(boolean);
        terms.push(term);
    }
    terms
}
