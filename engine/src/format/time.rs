//! Reading points in time, as they are written by everything that writes logs.
//!
//! A text is read only where it can mean one thing. `10/11/2025` could be two days, so it is none; a zone abbreviation counts where
//! RFC 2822 fixes it. What carries no zone is in the source's zone, what carries no year is in the latest year that does not put it
//! more than a day after its receipt. The clock is never read: the time of receipt comes with the event.

use jiff::{Timestamp, civil, tz::Offset, tz::TimeZone};
use serde_json::Value;

/// What is known besides the text itself.
#[derive(Debug, Clone, Copy)]
pub(super) struct Clock<'a> {
    /// The zone of times that carry none.
    pub(super) zone: &'a TimeZone,
    /// When the event was received, in milliseconds since 1970.
    pub(super) received_millis: i64,
}

/// 2262-01-01T00:00:00Z: the last year that nanoseconds in 64 bits reach, and so the last that a store of dates can be trusted with.
const END_MILLIS: i64 = 9_214_646_400_000;
const DAY_MILLIS: i64 = 86_400_000;
/// How far back a yearless 29 February is looked for: leap years are at most eight years apart.
const YEARS_BACK: i16 = 8;

impl Clock<'_> {
    /// A point in time in milliseconds since 1970, from a JSON number or text. `None` for what is not one, and for what lies at or
    /// before 1970 (a clock never set) or after 2261.
    pub(super) fn read(&self, value: &Value) -> Option<i64> {
        match value {
            Value::Number(number) => match number.as_i64() {
                Some(whole) => self.read_whole(whole),
                None => epoch_fraction(number.as_f64()?),
            },
            Value::String(text) => self.read_text(text),
            Value::Null | Value::Bool(_) | Value::Array(_) | Value::Object(_) => None,
        }
    }

    /// The same from text: an epoch in digits, ISO 8601, RFC 2822, RFC 3164, the Common Log Format or a `date`-like line.
    pub(super) fn read_text(&self, text: &str) -> Option<i64> {
        let text = text.trim();
        // What ConvertTo-Json of older PowerShell writes for a date.
        if let Some(epoch) = text.strip_prefix("/Date(").and_then(|rest| rest.strip_suffix(")/")) {
            return self.read_whole(epoch.parse().ok()?);
        }
        let first = *text.as_bytes().first()?;
        if first.is_ascii_digit() && text.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.') {
            return match text.parse() {
                Ok(whole) => self.read_whole(whole),
                Err(_) => epoch_fraction(text.parse().ok()?),
            };
        }
        let parts = iso(text).or_else(|| words(text))?;
        self.resolve(&parts)
    }

    /// An epoch of whole units, told apart by magnitude; or a date written as one number.
    fn read_whole(&self, number: i64) -> Option<i64> {
        if let Some(parts) = compact(number) {
            return self.resolve(&parts);
        }
        let millis = match number {
            ..=0 => return None,
            1..100_000_000_000 => number * 1_000,
            100_000_000_000..100_000_000_000_000 => number,
            100_000_000_000_000..100_000_000_000_000_000 => number / 1_000,
            _ => number / 1_000_000,
        };
        in_range(millis)
    }

    fn resolve(&self, parts: &Parts) -> Option<i64> {
        if let Some(year) = parts.year {
            return in_range(self.millis_in(parts, year)?);
        }
        let latest = self.received_millis.saturating_add(DAY_MILLIS);
        let received = Timestamp::from_millisecond(self.received_millis).ok()?;
        let year = self.zone.to_datetime(received).year();
        (year - YEARS_BACK..=year.saturating_add(1))
            .rev()
            .find_map(|candidate| self.millis_in(parts, candidate).filter(|millis| *millis <= latest))
            .and_then(in_range)
    }

    fn millis_in(&self, parts: &Parts, year: i16) -> Option<i64> {
        let time = civil::DateTime::new(year, parts.month, parts.day, parts.hour, parts.minute, parts.second, parts.nanosecond).ok()?;
        let timestamp = match parts.offset {
            Some(offset) => offset.to_timestamp(time).ok()?,
            None => self.zone.to_ambiguous_timestamp(time).compatible().ok()?,
        };
        Some(timestamp.as_millisecond())
    }
}

/// A time as it is written, before year and zone are settled.
#[derive(Debug, Default, Clone, Copy)]
struct Parts {
    year: Option<i16>,
    month: i8,
    day: i8,
    hour: i8,
    minute: i8,
    second: i8,
    nanosecond: i32,
    offset: Option<Offset>,
}

fn in_range(millis: i64) -> Option<i64> {
    (1..END_MILLIS).contains(&millis).then_some(millis)
}

/// An epoch with a fraction, told apart by magnitude like whole ones.
fn epoch_fraction(number: f64) -> Option<i64> {
    let millis = match number {
        n if n < 1e11 => n * 1e3,
        n if n < 1e14 => n,
        n if n < 1e17 => n / 1e3,
        n => n / 1e6,
    };
    // The cast saturates, and both ends are out of range.
    in_range(millis.round() as i64)
}

/// `20251104` and `20251104101112`. As epochs these would lie in 1970 and past 2600, which no log means.
fn compact(number: i64) -> Option<Parts> {
    let (date, time) = match number {
        19_700_101..=22_611_231 => (number, 0),
        19_700_101_000_000..=22_611_231_235_959 => (number / 1_000_000, number % 1_000_000),
        _ => return None,
    };
    let part = |value: i64| i8::try_from(value % 100).ok();
    let year = i16::try_from(date / 10_000).ok()?;
    let parts = Parts {
        year: Some(year),
        month: part(date / 100)?,
        day: part(date)?,
        hour: part(time / 10_000)?,
        minute: part(time / 100)?,
        second: part(time)?,
        ..Parts::default()
    };
    civil::DateTime::new(year, parts.month, parts.day, parts.hour, parts.minute, parts.second, 0).is_ok().then_some(parts)
}

/// ISO 8601 and RFC 3339, with a dash or slash in the date, `T` or blanks before the time, and a zone that may stand apart.
fn iso(text: &str) -> Option<Parts> {
    let bytes = text.as_bytes();
    if bytes.len() < 10 || !matches!(bytes[4], b'-' | b'/') || bytes[7] != bytes[4] {
        return None;
    }
    let mut parts =
        Parts { year: Some(digits(text.get(..4)?)?), month: digits(text.get(5..7)?)?, day: digits(text.get(8..10)?)?, ..Parts::default() };
    let rest = text.get(10..)?;
    if rest.is_empty() {
        return Some(parts);
    }
    let rest = rest.strip_prefix(['T', 't', ' ', '_'])?.trim_start();
    let end = rest.find(|c: char| !(c.is_ascii_digit() || matches!(c, ':' | '.' | ','))).unwrap_or(rest.len());
    clock_time(&rest[..end], &mut parts)?;
    let zone = rest[end..].trim();
    // `2025-11-04T10:11:12+01:00[Europe/Berlin]`: the offset says it all.
    let zone = zone.split_once('[').map_or(zone, |(offset, _)| offset);
    if !zone.is_empty() {
        parts.offset = Some(offset(zone)?);
    }
    Some(parts)
}

/// Dates with the month's name, in whatever order the words come: each of month, day and time exactly once, year and zone at most once.
fn words(text: &str) -> Option<Parts> {
    let mut parts = Parts::default();
    let mut has_time = false;
    let mut half_day = None;
    for word in text.split([' ', '\t', ',']).filter(|word| !word.is_empty()) {
        let mut date = word;
        // `10/Oct/2000:13:55:36` and `10-Oct-2000`.
        if word.as_bytes()[0].is_ascii_digit() && word.contains(['/', '-']) {
            let mut pieces = word.splitn(3, ['/', '-']);
            set_once(&mut parts.day, digits(pieces.next()?)?)?;
            set_once(&mut parts.month, month(pieces.next()?)?)?;
            let (year, time) = pieces.next().map_or(("", None), |rest| match rest.split_once(':') {
                Some((year, time)) => (year, Some(time)),
                None => (rest, None),
            });
            parts.year = Some(four_digits(year)?);
            match time {
                Some(time) => date = time,
                None => continue,
            }
        }
        if date.contains(':') && date.as_bytes()[0].is_ascii_digit() {
            if std::mem::replace(&mut has_time, true) {
                return None;
            }
            clock_time(date.trim_end_matches(':'), &mut parts)?;
        } else if let Some(number) = month(date) {
            set_once(&mut parts.month, number)?;
        } else if date.len() <= 2 && date.bytes().all(|byte| byte.is_ascii_digit()) {
            set_once(&mut parts.day, digits(date)?)?;
        } else if let Some(year) = four_digits(date) {
            if parts.year.replace(year).is_some() {
                return None;
            }
        } else if date.eq_ignore_ascii_case("am") || date.eq_ignore_ascii_case("pm") {
            half_day = Some(date.eq_ignore_ascii_case("pm"));
        } else if let Some(zone) = offset(date) {
            // `GMT+0100` splits no further, `+0000 (UTC)` says it twice.
            if parts.offset.replace(zone).is_some_and(|known| known != zone) {
                return None;
            }
        } else if !is_weekday(date) {
            return None;
        }
    }
    if let Some(afternoon) = half_day {
        parts.hour = parts.hour % 12 + if afternoon { 12 } else { 0 };
    }
    (has_time && parts.month > 0 && parts.day > 0).then_some(parts)
}

fn set_once(slot: &mut i8, value: i8) -> Option<()> {
    let vacant = *slot == 0;
    *slot = value;
    vacant.then_some(())
}

/// `10:11`, `10:11:12`, `10:11:12.345` and `10:11:12,345`. A leap second counts as the second before it.
fn clock_time(text: &str, parts: &mut Parts) -> Option<()> {
    let (clock, fraction) = match text.find(['.', ',']) {
        Some(at) => (&text[..at], &text[at + 1..]),
        None => (text, ""),
    };
    let mut pieces = clock.split(':');
    parts.hour = digits(pieces.next()?)?;
    parts.minute = digits(pieces.next()?)?;
    parts.second = digits::<i8>(pieces.next().unwrap_or("0"))?;
    if pieces.next().is_some() || !(0..=60).contains(&parts.second) {
        return None;
    }
    parts.second = parts.second.min(59);
    if !fraction.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    parts.nanosecond = fraction.bytes().chain(std::iter::repeat(b'0')).take(9).fold(0, |number, byte| number * 10 + i32::from(byte - b'0'));
    Some(())
}

/// Digits alone: no sign, no blank.
fn digits<T: std::str::FromStr>(text: &str) -> Option<T> {
    if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    text.parse().ok()
}

fn four_digits(text: &str) -> Option<i16> {
    if text.len() == 4 { digits(text) } else { None }
}

/// `Z`, `+01`, `+0100`, `+01:00`, `(UTC)`, and the abbreviations that RFC 2822, section 4.3, gives one meaning.
fn offset(text: &str) -> Option<Offset> {
    let text = text.trim_matches(['(', ')']).trim_end_matches(':');
    let hours = match text.to_ascii_uppercase().as_str() {
        "Z" | "UTC" | "GMT" | "UT" => 0,
        "EDT" => -4,
        "EST" | "CDT" => -5,
        "CST" | "MDT" => -6,
        "MST" | "PDT" => -7,
        "PST" => -8,
        _ => return numeric_offset(text.strip_prefix("GMT").or_else(|| text.strip_prefix("UTC")).unwrap_or(text)),
    };
    Offset::from_hours(hours).ok()
}

fn numeric_offset(text: &str) -> Option<Offset> {
    let (sign, rest) = match text.as_bytes().first()? {
        b'+' => (1, &text[1..]),
        b'-' => (-1, &text[1..]),
        _ => return None,
    };
    let (hours, minutes) = match rest.len() {
        1 | 2 => (rest, "0"),
        4 => (rest.get(..2)?, rest.get(2..)?),
        5 => rest.split_once(':')?,
        _ => return None,
    };
    let (hours, minutes) = (digits::<i32>(hours)?, digits::<i32>(minutes)?);
    if minutes > 59 {
        return None;
    }
    Offset::from_seconds(sign * (hours * 3_600 + minutes * 60)).ok()
}

/// A month by its English name or the name's first three letters.
fn month(text: &str) -> Option<i8> {
    const NAMES: [&str; 12] =
        ["january", "february", "march", "april", "may", "june", "july", "august", "september", "october", "november", "december"];
    let index = NAMES.iter().position(|name| name.eq_ignore_ascii_case(text) || name[..3].eq_ignore_ascii_case(text))?;
    i8::try_from(index + 1).ok()
}

fn is_weekday(text: &str) -> bool {
    const NAMES: [&str; 7] = ["monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday"];
    NAMES.iter().any(|name| name.eq_ignore_ascii_case(text) || name[..3].eq_ignore_ascii_case(text))
}

#[cfg(test)]
mod tests;
