//! Cutting a body into the texts of single events, without copying and without understanding them.
//!
//! This runs for each byte that comes in, so JSON is skipped over, never built. A piece that is no object is an error with its line
//! and column. After a broken object reading goes on at the next line that can begin one; lines that look like the inside of the
//! broken object (indented, or a closing bracket) are part of it, so that no event is ever made of another's fragment.

use serde::de::IgnoredAny;
use serde_json::Deserializer;

use super::FrameError;

/// How often a body may be read again from a line inside an object that turned out to be broken. Past it reading goes on behind the
/// error, so that a hostile body costs a fixed number of passes, not one a line.
const EARLY_RESUMES: usize = 8;

/// One event a line; empty lines are skipped, and so are the line's end and the NUL that some syslog senders add.
pub(super) fn lines(body: &str, limit: usize) -> Vec<Result<&str, FrameError>> {
    let lines = body.split('\n').map(|line| line.trim_end_matches(['\r', '\0'])).filter(|line| !line.trim().is_empty());
    lines.take(limit).map(Ok).collect()
}

/// JSON objects: one, several, an array of them, one a line. With `records`, what stands in an object's `Records` array instead of
/// the object itself.
pub(super) fn objects(body: &str, records: bool, limit: usize) -> Vec<Result<&str, FrameError>> {
    let place = Place::new(body);
    let mut cutter = Cutter { body, at: 0, records, limit, place, early_resumes: EARLY_RESUMES, found: Vec::new() };
    cutter.run();
    cutter.found.truncate(limit);
    cutter.found
}

/// Line and column of an offset. Offsets are asked for in rising order, so that all of them together cost one pass.
pub(super) struct Place<'a> {
    body: &'a str,
    at: usize,
    line: usize,
    column: usize,
}

impl<'a> Place<'a> {
    pub(super) fn new(body: &'a str) -> Self {
        Self { body, at: 0, line: 1, column: 1 }
    }

    /// An error at an offset; one behind the last offset asked for is reported at that.
    pub(super) fn error(&mut self, offset: usize, message: impl Into<String>, remedy: &str) -> FrameError {
        if offset > self.at {
            let offset = self.body.floor_char_boundary(offset.min(self.body.len()));
            for c in self.body[self.at..offset].chars() {
                if c == '\n' {
                    self.line += 1;
                    self.column = 1;
                } else {
                    self.column += 1;
                }
            }
            self.at = offset;
        }
        FrameError { line: self.line, column: self.column, message: message.into(), remedy: remedy.to_owned() }
    }
}

const SEND_OBJECTS: &str = "send a JSON object, an array of objects, or one object a line";

/// Why reading a value stopped.
enum Broken {
    /// It is not JSON: what is wrong, and the offset where.
    At { message: String, at: usize },
    /// The array inside it is not, and was reported.
    Reported,
}

struct Cutter<'a> {
    body: &'a str,
    at: usize,
    records: bool,
    /// Reading ends soon after so many pieces.
    limit: usize,
    place: Place<'a>,
    early_resumes: usize,
    found: Vec<Result<&'a str, FrameError>>,
}

impl<'a> Cutter<'a> {
    fn run(&mut self) {
        if self.body.starts_with('\u{feff}') {
            self.at = '\u{feff}'.len_utf8();
        }
        while !self.full() {
            self.skip_blanks();
            let start = self.at;
            let read = match self.peek() {
                None => return,
                Some(b'{') => self.object(),
                Some(b'[') => self.array(true),
                Some(_) => {
                    let error = self.place.error(start, "an event is a JSON object, and this is not the start of one", SEND_OBJECTS);
                    self.found.push(Err(error));
                    self.at = next_line(self.body, start);
                    Ok(())
                }
            };
            match read {
                Ok(()) => {}
                Err(Broken::At { message, at }) => {
                    self.report(start, message, at);
                    self.at = resume(self.body, start, self.place.at, &mut self.early_resumes);
                }
                // A broken array that spans lines: its further elements cannot be told from their inner objects.
                Err(Broken::Reported) if self.place.at >= next_line(self.body, start) => return,
                Err(Broken::Reported) => self.at = next_line(self.body, start),
            }
        }
    }

    fn full(&self) -> bool {
        self.found.len() >= self.limit
    }

    fn peek(&self) -> Option<u8> {
        self.body.as_bytes().get(self.at).copied()
    }

    fn skip_blanks(&mut self) {
        while let Some(b' ' | b'\t' | b'\r' | b'\n') = self.peek() {
            self.at += 1;
        }
    }

    /// Passes over one JSON value at the current offset.
    fn skip_value(&mut self) -> Result<(), Broken> {
        let rest = &self.body[self.at..];
        let mut values = Deserializer::from_str(rest).into_iter::<IgnoredAny>();
        match values.next() {
            Some(Ok(_)) => {
                self.at += values.byte_offset();
                Ok(())
            }
            Some(Err(error)) => Err(Broken::At { message: said(&error), at: self.at + offset_of(rest, &error) }),
            None => Err(Broken::At { message: "the body ends where a value is due".to_owned(), at: self.body.len() }),
        }
    }

    /// One object, or with `records` what its `Records` holds.
    fn object(&mut self) -> Result<(), Broken> {
        let start = self.at;
        let unwrapped = if self.records { self.members()? } else { self.skip_value().map(|()| false)? };
        if !unwrapped {
            self.found.push(Ok(&self.body[start..self.at]));
        }
        Ok(())
    }

    /// Walks an object member by member; true when it held an array of `Records`, whose objects are then found.
    fn members(&mut self) -> Result<bool, Broken> {
        let mut unwrapped = false;
        self.at += 1;
        self.skip_blanks();
        if self.peek() == Some(b'}') {
            self.at += 1;
            return Ok(false);
        }
        loop {
            let key = self.at;
            if self.peek() != Some(b'"') {
                return Err(self.unexpected("a key in quotes is due here"));
            }
            self.skip_value()?;
            let is_records = &self.body[key..self.at] == "\"Records\"";
            self.skip_blanks();
            if self.peek() != Some(b':') {
                return Err(self.unexpected("a colon is due here"));
            }
            self.at += 1;
            self.skip_blanks();
            if is_records && self.peek() == Some(b'[') {
                unwrapped = true;
                self.array(false)?;
            } else {
                self.skip_value()?;
            }
            self.skip_blanks();
            match self.peek() {
                Some(b',') => self.at += 1,
                Some(b'}') => {
                    self.at += 1;
                    return Ok(unwrapped);
                }
                _ => return Err(self.unexpected("a comma or a closing brace is due here")),
            }
            self.skip_blanks();
        }
    }

    fn unexpected(&self, message: &str) -> Broken {
        Broken::At { message: message.to_owned(), at: self.at }
    }

    /// The objects of an array; at the top level each may be a file of records.
    fn array(&mut self, top: bool) -> Result<(), Broken> {
        self.at += 1;
        self.skip_blanks();
        if self.peek() == Some(b']') {
            self.at += 1;
            return Ok(());
        }
        loop {
            if self.full() {
                return Ok(());
            }
            let start = self.at;
            let read = match self.peek() {
                Some(b'{') if top => self.object(),
                Some(b'{') => self.skip_value().map(|()| self.found.push(Ok(&self.body[start..self.at]))),
                _ => self.skip_value().map(|()| {
                    let error = self.place.error(start, "an element of the array is not an object", SEND_OBJECTS);
                    self.found.push(Err(error));
                }),
            };
            let read = read.and_then(|()| {
                self.skip_blanks();
                match self.peek() {
                    Some(b',') => Ok(false),
                    Some(b']') => Ok(true),
                    _ => Err(self.unexpected("a comma or a closing bracket is due here")),
                }
            });
            match read {
                Ok(last) => {
                    self.at += 1;
                    if last {
                        return Ok(());
                    }
                    self.skip_blanks();
                }
                Err(Broken::At { message, at }) => {
                    let remedy = "mend the array and send again what follows this element; what stands before it was read";
                    let error = self.place.error(at, message, remedy);
                    self.found.push(Err(error));
                    return Err(Broken::Reported);
                }
                Err(Broken::Reported) => return Err(Broken::Reported),
            }
        }
    }

    /// Reports a broken object at the error; or where its text ends, if the error lies in a line that looks like the next object.
    fn report(&mut self, start: usize, message: String, at: usize) {
        let line_start = self.body[..at].rfind('\n').map_or(0, |at| at + 1);
        let cut_short = line_start > start && at == line_start && self.body.as_bytes().get(line_start) == Some(&b'{');
        let (at, message) =
            if cut_short { (self.body[..line_start].trim_end().len(), "the object is not finished".to_owned()) } else { (at, message) };
        let error = self.place.error(at, message, "mend this object; the others stand");
        self.found.push(Err(error));
    }
}

/// Where reading goes on after a broken object that began at `start` and broke at `error`.
fn resume(body: &str, start: usize, error: usize, early_resumes: &mut usize) -> usize {
    let mut line = next_line(body, start);
    while line < body.len() {
        let first = body.as_bytes()[line];
        let begins_object = matches!(first, b'{' | b'[');
        let may_be_inside = matches!(first, b' ' | b'\t' | b'\r' | b'\n' | b'}' | b']');
        let before_error = line < error;
        if before_error && begins_object && *early_resumes > 0 {
            *early_resumes -= 1;
            return line;
        }
        if !before_error && !may_be_inside {
            return line;
        }
        line = next_line(body, line);
    }
    body.len()
}

fn next_line(body: &str, at: usize) -> usize {
    body[at..].find('\n').map_or(body.len(), |end| at + end + 1)
}

/// The byte offset of a serde_json error, which itself tells line and column (0 when the fault is the line's end itself).
fn offset_of(text: &str, error: &serde_json::Error) -> usize {
    let line_start = match error.line() {
        0 | 1 => 0,
        line => text.match_indices('\n').nth(line - 2).map_or(text.len(), |(at, _)| at + 1),
    };
    let offset = if error.column() == 0 { line_start.saturating_sub(1) } else { line_start + error.column() - 1 };
    text.floor_char_boundary(offset.min(text.len()))
}

/// What serde_json says, without its own position, which counts from the piece's start.
fn said(error: &serde_json::Error) -> String {
    let text = error.to_string();
    match text.rfind(" at line ") {
        Some(end) => text[..end].to_owned(),
        None => text,
    }
}

#[cfg(test)]
mod tests;
