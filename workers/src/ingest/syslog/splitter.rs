//! Cutting a byte stream into syslog messages (RFC 6587): by a count in front, or by a line end behind.
//!
//! ```text
//! 34 <13>1 - web-1 sshd - - - two\nlines      octet counting, section 3.4.1: the length in bytes, a space, the message
//! <13>Oct 11 22:14:15 web-1 sshd: text\n      non-transparent framing, section 3.4.2: the message, a line feed
//! ```
//!
//! Senders do not say which they use, and some mix them, so each message is looked at anew. A count is taken for one only if `<`, the
//! first byte of every syslog message, follows it: a line that merely begins with a number stays a line.
//!
//! How the bytes are chunked never changes the messages, and memory is bounded by the size limit, whatever arrives.

/// Digits of the largest count: a message of 100 MB is no syslog message, and a longer number is no count.
const MAX_DIGITS: usize = 8;

/// What the stream held.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Piece {
    /// A whole message, without its framing.
    Message(Vec<u8>),
    /// A message above the limit; it was passed over.
    TooLarge,
    /// A counted message that the end of the stream cut short.
    Incomplete,
}

/// The state between two chunks.
#[derive(Debug)]
pub(super) struct Splitter {
    limit: usize,
    state: State,
    held: Vec<u8>,
}

#[derive(Debug, Clone, Copy)]
enum State {
    /// Before a message, or within what may be its count; `held` has the digits and the space.
    Start,
    /// Within a counted message of which so many bytes are to come.
    Counted(usize),
    /// Within a line.
    Line,
    /// Within a counted message above the limit, of which so many bytes are to come.
    SkipCounted(usize),
    /// Within a line above the limit.
    SkipLine,
}

impl Splitter {
    /// A splitter at the start of a stream. Messages above `limit` bytes are passed over.
    pub(super) fn new(limit: usize) -> Self {
        Self { limit, state: State::Start, held: Vec::new() }
    }

    /// Takes the next bytes of the stream and adds the pieces that end in them.
    pub(super) fn push(&mut self, chunk: &[u8], pieces: &mut Vec<Piece>) {
        let mut rest = chunk;
        while !rest.is_empty() {
            rest = match self.state {
                State::Start => self.start(rest),
                State::Counted(left) => self.counted(left, rest, pieces),
                State::Line => self.line(rest, pieces),
                State::SkipCounted(left) => {
                    let taken = left.min(rest.len());
                    self.state = State::SkipCounted(left - taken);
                    if taken == left {
                        self.end(Piece::TooLarge, pieces);
                    }
                    &rest[taken..]
                }
                State::SkipLine => match rest.iter().position(|byte| *byte == b'\n') {
                    Some(end) => {
                        self.end(Piece::TooLarge, pieces);
                        &rest[end + 1..]
                    }
                    None => &[],
                },
            };
        }
    }

    /// The stream has ended. A line needs no line end then; a counted message needs all its bytes.
    pub(super) fn finish(mut self, pieces: &mut Vec<Piece>) {
        match self.state {
            State::Start | State::Line => self.end_line(pieces),
            State::Counted(_) => pieces.push(Piece::Incomplete),
            State::SkipCounted(_) | State::SkipLine => pieces.push(Piece::TooLarge),
        }
    }

    /// One byte of what may be a count.
    fn start<'a>(&mut self, rest: &'a [u8]) -> &'a [u8] {
        let byte = rest[0];
        let counting = self.held.len();
        let spaced = self.held.last() == Some(&b' ');
        if counting == 0 && matches!(byte, b'\n' | b'\r' | b'\0' | b' ') {
            // What some senders put between messages: an empty line, or a line end after a counted message.
            return &rest[1..];
        }
        let digit = byte.is_ascii_digit() && !spaced && counting < MAX_DIGITS && (counting > 0 || byte != b'0');
        let space = byte == b' ' && counting > 0 && !spaced;
        if digit || space {
            self.held.push(byte);
            return &rest[1..];
        }
        let count = if spaced && byte == b'<' { count(&self.held) } else { None };
        self.state = match count {
            Some(count) => {
                self.held.clear();
                if count > self.limit { State::SkipCounted(count) } else { State::Counted(count) }
            }
            None if self.held.len() > self.limit => State::SkipLine,
            None => State::Line,
        };
        rest
    }

    fn counted<'a>(&mut self, left: usize, rest: &'a [u8], pieces: &mut Vec<Piece>) -> &'a [u8] {
        let taken = left.min(rest.len());
        self.held.extend_from_slice(&rest[..taken]);
        self.state = State::Counted(left - taken);
        if taken == left {
            let message = std::mem::take(&mut self.held);
            self.end(Piece::Message(message), pieces);
        }
        &rest[taken..]
    }

    fn line<'a>(&mut self, rest: &'a [u8], pieces: &mut Vec<Piece>) -> &'a [u8] {
        let end = rest.iter().position(|byte| *byte == b'\n');
        let text = &rest[..end.unwrap_or(rest.len())];
        // One more than the limit, for the carriage return that may stand before the line feed.
        if self.held.len() + text.len() > self.limit + 1 {
            self.held.clear();
            self.state = State::SkipLine;
            return rest;
        }
        self.held.extend_from_slice(text);
        match end {
            Some(end) => {
                self.end_line(pieces);
                &rest[end + 1..]
            }
            None => &[],
        }
    }

    /// The held line is whole.
    fn end_line(&mut self, pieces: &mut Vec<Piece>) {
        let mut message = std::mem::take(&mut self.held);
        while let Some(b'\r' | b'\0') = message.last() {
            message.pop();
        }
        self.state = State::Start;
        if message.len() > self.limit {
            pieces.push(Piece::TooLarge);
        } else if !message.is_empty() {
            pieces.push(Piece::Message(message));
        }
    }

    fn end(&mut self, piece: Piece, pieces: &mut Vec<Piece>) {
        pieces.push(piece);
        self.held.clear();
        self.state = State::Start;
    }
}

/// The number that digits and a space make.
fn count(held: &[u8]) -> Option<usize> {
    std::str::from_utf8(held).ok()?.trim_end().parse().ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const LIMIT: usize = 40;

    fn split(stream: &[u8], chunk: usize) -> Vec<Piece> {
        let mut splitter = Splitter::new(LIMIT);
        let mut pieces = Vec::new();
        for part in stream.chunks(chunk.max(1)) {
            splitter.push(part, &mut pieces);
        }
        splitter.finish(&mut pieces);
        pieces
    }

    fn message(text: &str) -> Piece {
        Piece::Message(text.as_bytes().to_vec())
    }

    #[test]
    fn both_framings_are_told_apart_message_by_message() {
        let too_long = format!("<1>{}", "x".repeat(LIMIT));
        let counted_too_long = format!("{} {too_long}4 <1>z", too_long.len());

        for (name, stream, expected) in [
            ("lines", "<1>a\n<1>b\n", vec![message("<1>a"), message("<1>b")]),
            ("lines with carriage returns", "<1>a\r\n<1>b\r\n", vec![message("<1>a"), message("<1>b")]),
            ("a last line without its end", "<1>a\n<1>b", vec![message("<1>a"), message("<1>b")]),
            ("counted", "4 <1>a5 <1>bc", vec![message("<1>a"), message("<1>bc")]),
            ("counted, with a line feed inside", "7 <1>a\nbc4 <1>d", vec![message("<1>a\nbc"), message("<1>d")]),
            ("counted, with line ends between", "4 <1>a\n4 <1>b\r\n", vec![message("<1>a"), message("<1>b")]),
            ("mixed", "<1>a\n4 <1>b<1>c\n", vec![message("<1>a"), message("<1>b"), message("<1>c")]),
            ("a line that begins with a year", "2024 was fine\n", vec![message("2024 was fine")]),
            ("a line that is a number", "1234567890\n42\n", vec![message("1234567890"), message("42")]),
            ("a count with a leading zero", "04 <1>a\n", vec![message("04 <1>a")]),
            ("empty lines", "\n\r\n \n\0\n", vec![]),
            ("a line above the limit", &format!("{too_long}\n<1>b\n"), vec![Piece::TooLarge, message("<1>b")]),
            ("a counted message above the limit", &counted_too_long, vec![Piece::TooLarge, message("<1>z")]),
            ("a counted message cut short", "9 <1>a", vec![Piece::Incomplete]),
            ("a count cut short", "12", vec![message("12")]),
        ] {
            assert_eq!(split(stream.as_bytes(), usize::MAX), expected, "{name}");
        }
    }

    #[test]
    fn a_line_may_be_exactly_at_the_limit() {
        let line = "x".repeat(LIMIT);

        assert_eq!(split(format!("{line}\n").as_bytes(), 7), [message(&line)]);
        assert_eq!(split(format!("{line}\r\n").as_bytes(), 7), [message(&line)]);
        assert_eq!(split(format!("{line}y\n").as_bytes(), 7), [Piece::TooLarge]);
    }

    /// Streams that look enough like syslog to reach every state.
    fn streams() -> impl Strategy<Value = Vec<u8>> {
        let part = prop_oneof![
            "<[0-9]{1,3}>[a-z ]{0,60}".prop_map(|text| format!("{} {text}", text.len())),
            "<[0-9]{1,3}>[a-z ]{0,60}\r?\n",
            "[0-9]{1,10} ?<?[a-z]{0,5}",
            "[\n\r ]{1,3}",
        ];
        prop::collection::vec(part, 0..20).prop_map(|parts| parts.concat().into_bytes())
    }

    proptest! {
        #[test]
        fn any_chunking_gives_the_same_messages(stream in streams(), chunk in 1_usize..30) {
            prop_assert_eq!(split(&stream, chunk), split(&stream, usize::MAX));
        }

        #[test]
        fn any_bytes_are_split_within_the_limit(stream in prop::collection::vec(any::<u8>(), 0..300), chunk in 1_usize..30) {
            for piece in split(&stream, chunk) {
                if let Piece::Message(message) = piece {
                    prop_assert!(!message.is_empty() && message.len() <= LIMIT);
                }
            }
        }

        #[test]
        fn counted_messages_come_out_as_they_went_in(texts in prop::collection::vec("<[0-9]{1,3}>(?s:.){0,8}", 0..10), chunk in 1_usize..30) {
            let stream: String = texts.iter().map(|text| format!("{} {text}", text.len())).collect();

            let expected: Vec<Piece> = texts.iter().map(|text| message(text)).collect();
            prop_assert_eq!(split(stream.as_bytes(), chunk), expected);
        }
    }
}
