//! A syslog message, RFC 5424 or RFC 3164, told apart by itself.
//!
//! Every line is an event. RFC 3164 describes what was seen in the wild rather than what must be, so its header is taken piece by
//! piece: what does not look like a time, a host or a tag is message. The line itself is kept in `event.original`.

use redoubt_crds::FieldType;
use serde_json::{Map, Value, json};

use super::{
    draft::Draft,
    priority::{facility_name, severity_name},
    time::Clock,
};
use crate::{
    event::{Event, RawEvent},
    source::Source,
};

/// A message taken apart; all pieces are slices of the line.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Message<'a> {
    pub(super) priority: Option<u8>,
    pub(super) version: Option<&'a str>,
    /// The time's text, where one stands, and what it means.
    pub(super) time: Option<(&'a str, Option<i64>)>,
    pub(super) host: Option<&'a str>,
    pub(super) program: Option<&'a str>,
    pub(super) process_id: Option<&'a str>,
    pub(super) message_id: Option<&'a str>,
    /// Structured data: element, name, value with its escapes undone.
    pub(super) data: Vec<(&'a str, &'a str, String)>,
    pub(super) text: &'a str,
    /// Something in the header made no sense.
    pub(super) odd: bool,
}

pub(super) fn parse(source: &Source, raw: &RawEvent) -> Event {
    let mut draft = Draft::new(source, raw);
    let line = raw.body.trim_end_matches(['\r', '\n', '\0']);
    let message = read(line, &draft.clock());
    fill(&mut draft, &message);
    draft.put_text("message", message.text.trim());
    draft.put_text("event.original", line);
    draft.finish()
}

/// Writes what a header says.
pub(super) fn fill(draft: &mut Draft<'_>, message: &Message<'_>) {
    if let Some(priority) = message.priority {
        let (facility, severity) = (priority >> 3, priority & 7);
        draft.put(
            "log.syslog",
            json!({
                "priority": priority,
                "facility": { "code": facility, "name": facility_name(facility) },
                "severity": { "code": severity, "name": severity_name(severity) },
            }),
        );
        draft.put("event.severity", severity.into());
        draft.put_text("log.level", severity_name(severity).unwrap_or_default());
    }
    if let Some(version) = message.version {
        draft.put_text("log.syslog.version", version);
    }
    if let Some((text, millis)) = message.time {
        match millis {
            Some(millis) => {
                draft.timestamp_millis.get_or_insert(millis);
            }
            None => {
                draft.detail("timestamp".to_owned(), text.into());
                draft.mark_unparsed();
            }
        }
    }
    if let Some(host) = message.host {
        draft.put_text("host.name", host);
    }
    if let Some(program) = message.program {
        draft.put_text("process.name", program);
        draft.detail("program".to_owned(), program.into());
    }
    if let Some(process_id) = message.process_id {
        draft.detail("procid".to_owned(), process_id.into());
        // RFC 5424, section 6.2.6: PROCID is often, but need not be, a process id.
        if process_id.bytes().all(|byte| byte.is_ascii_digit()) {
            draft.put_typed("process.pid", &process_id.into(), FieldType::Long);
        }
    }
    if let Some(id) = message.message_id {
        draft.put_text("log.syslog.msgid", id);
        draft.detail("msgid".to_owned(), id.into());
    }
    if !message.data.is_empty() {
        let mut elements: Map<String, Value> = Map::new();
        for (element, name, value) in &message.data {
            let entry = elements.entry(*element).or_insert_with(|| Value::Object(Map::new()));
            let Value::Object(params) = entry else { continue };
            match params.get_mut(*name) {
                // A name may stand more than once (section 6.3.3), and then all its values count.
                Some(Value::Array(list)) => list.push(value.clone().into()),
                Some(single) => *single = Value::Array(vec![single.take(), value.clone().into()]),
                None if name.is_empty() => {}
                None => {
                    params.insert((*name).to_owned(), value.clone().into());
                }
            }
        }
        draft.detail("structured_data".to_owned(), Value::Object(elements));
    }
    if message.odd {
        draft.mark_unparsed();
    }
}

/// Takes a line apart.
pub(super) fn read<'a>(line: &'a str, clock: &Clock<'_>) -> Message<'a> {
    let line = line.trim_start_matches('\u{feff}').trim_start();
    let (priority, rest) = match priority(line) {
        Some((priority, rest)) => (Some(priority), rest),
        None => (None, line),
    };
    let mut message = match rest.strip_prefix("1 ") {
        Some(header) if priority.is_some() => rfc5424(header, clock),
        _ => rfc3164(rest, clock),
    };
    message.priority = priority;
    message.odd |= priority.is_none() && line.starts_with('<');
    message
}

/// `<PRI>`, at most 191.
fn priority(line: &str) -> Option<(u8, &str)> {
    let (digits, rest) = line.strip_prefix('<')?.split_once('>')?;
    if digits.len() > 3 || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let priority = digits.parse().ok().filter(|priority| *priority <= 191)?;
    Some((priority, rest))
}

fn rfc5424<'a>(header: &'a str, clock: &Clock<'_>) -> Message<'a> {
    let mut rest = header;
    let mut next = || {
        let (word, tail) = rest.split_once(' ').unwrap_or((rest, ""));
        rest = tail;
        (word != "-" && !word.is_empty()).then_some(word)
    };
    let time = next();
    let (host, program, process_id, message_id) = (next(), next(), next(), next());
    let mut message = Message {
        version: Some("1"),
        time: time.map(|text| (text, clock.read_text(text))),
        host,
        program,
        process_id,
        message_id,
        ..Message::default()
    };
    let text = match structured_data(rest, &mut message.data) {
        Some(text) => text,
        None => {
            message.odd = true;
            message.data.clear();
            rest
        }
    };
    message.text = text.trim_start_matches(' ').trim_start_matches('\u{feff}');
    message
}

/// `-`, or elements `[id name="value" ...]`; what follows them. `None` when they are malformed (section 6.3).
fn structured_data<'a>(text: &'a str, data: &mut Vec<(&'a str, &'a str, String)>) -> Option<&'a str> {
    if text.is_empty() || text == "-" {
        return Some("");
    }
    if let Some(rest) = text.strip_prefix("- ") {
        return Some(rest);
    }
    let mut rest = text;
    while let Some(element) = rest.strip_prefix('[') {
        let end = element.find([' ', ']', '"', '='])?;
        let (id, mut params) = element.split_at(end);
        let before = data.len();
        loop {
            params = params.trim_start_matches(' ');
            if let Some(after) = params.strip_prefix(']') {
                if data.len() == before {
                    // An element without parameters says something by being there.
                    data.push((id, "", String::new()));
                }
                rest = after;
                break;
            }
            let (name, quoted) = params.split_once("=\"")?;
            if name.is_empty() || name.contains([' ', ']', '"']) {
                return None;
            }
            let (value, after) = quoted_value(quoted)?;
            data.push((id, name, value));
            params = after;
        }
    }
    (rest.is_empty() || rest.starts_with(' ')).then_some(rest)
}

/// A value up to its closing quote. `\"`, `\\` and `\]` stand for the second character; any other backslash is itself.
fn quoted_value(text: &str) -> Option<(String, &str)> {
    let mut value = String::new();
    let mut chars = text.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            '"' => return Some((value, &text[at + 1..])),
            '\\' => match chars.next()?.1 {
                escaped @ ('"' | '\\' | ']') => value.push(escaped),
                other => value.extend(['\\', other]),
            },
            other => value.push(other),
        }
    }
    None
}

fn rfc3164<'a>(line: &'a str, clock: &Clock<'_>) -> Message<'a> {
    let mut message = Message::default();
    let rest = skip_sequence(line.trim_start());
    let Some((time, millis, after)) = leading_time(rest, clock) else {
        let (program, process_id, text) = tag(rest);
        return Message { program, process_id, text, ..message };
    };
    message.time = Some((time, Some(millis)));
    let mut rest = after;
    // The host is left out in what programs write to the local socket: then the tag follows at once.
    if tag(rest).0.is_none()
        && let Some((host, after)) = rest.split_once(' ')
        && !host.is_empty()
        && host.chars().all(|c| c.is_alphanumeric() || matches!(c, '.' | '-' | '_' | ':' | '[' | ']' | '/' | '%' | '@'))
    {
        message.host = Some(host.trim_end_matches(':'));
        rest = after.trim_start();
    }
    let (program, process_id, text) = tag(rest);
    Message { program, process_id, text, ..message }
}

/// Cisco's sequence number, and the mark of a clock that is not set: `000123: *Nov  4 ...`.
fn skip_sequence(text: &str) -> &str {
    let after_digits = text.trim_start_matches(|c: char| c.is_ascii_digit());
    let text = match after_digits.strip_prefix(": ") {
        Some(rest) if after_digits.len() < text.len() => rest,
        _ => text,
    };
    text.strip_prefix(['*', '.']).filter(|rest| rest.starts_with(|c: char| c.is_ascii_uppercase())).unwrap_or(text)
}

/// The time at the start of a line: the longest run of up to five words that is one, and what follows.
fn leading_time<'a>(text: &'a str, clock: &Clock<'_>) -> Option<(&'a str, i64, &'a str)> {
    let first = text.chars().next()?;
    if !(first.is_ascii_digit() || first.is_ascii_uppercase()) {
        return None;
    }
    let mut ends = Vec::with_capacity(5);
    let mut at = 0;
    while ends.len() < 5 && at < text.len() {
        let word = text[at..].trim_start_matches(' ');
        let start = text.len() - word.len();
        let end = word.find(' ').map_or(text.len(), |length| start + length);
        // A word of another kind ends the search; no word of a time is longer than an RFC 3339 time with nanoseconds and zone.
        if end - start > 40 {
            break;
        }
        ends.push(end);
        at = end;
    }
    ends.into_iter().rev().find_map(|end| {
        let candidate = &text[..end];
        // A bare number is a time only by accident.
        if !candidate.contains(':') {
            return None;
        }
        let millis = clock.read_text(candidate.trim_end_matches(':'))?;
        Some((candidate.trim_end_matches(':'), millis, text[end..].trim_start()))
    })
}

/// `program: text`, `program[pid]: text` and `program[pid] text`; else all is text.
fn tag(text: &str) -> (Option<&str>, Option<&str>, &str) {
    let none = (None, None, text);
    let text = text.trim_start();
    // Section 5.3 allows 32 characters; units of systemd have more.
    let Some(end) = text.find([':', '[', ' ']).filter(|end| (1..=128).contains(end)) else { return none };
    let (program, rest) = text.split_at(end);
    if rest.starts_with(": ") || rest == ":" || (rest.starts_with(':') && program.starts_with('%')) {
        return (Some(program), None, rest[1..].trim_start());
    }
    let Some((process_id, after)) = rest.strip_prefix('[').and_then(|inner| inner.split_once(']')) else { return none };
    if process_id.is_empty() || process_id.len() > 128 || process_id.contains(' ') {
        return none;
    }
    match after.strip_prefix(':') {
        Some(text) => (Some(program), Some(process_id), text.trim_start()),
        None if after.is_empty() || after.starts_with(' ') => (Some(program), Some(process_id), after.trim_start()),
        None => none,
    }
}

#[cfg(test)]
mod tests;
