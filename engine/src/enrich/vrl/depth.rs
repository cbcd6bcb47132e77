//! How deep a program's syntax tree can be, told from its text.
//!
//! VRL's parser, compiler and interpreter recurse: each bracket, each operator of a chain (`a || b || c`), each `else if` and each
//! segment of a path is one level more, and a tree that is deep enough overflows the stack and takes the process with it. So the text
//! is measured before the parser sees it. This is a bound and not a parser: it may take a program for deeper than it is, never for
//! much shallower.

/// Deepest nesting of brackets.
pub(super) const MAX_NESTING: usize = 64;
/// Most operators that may stand in one another's reach: those of an expression, and of the expressions around it. With unoptimised
/// code and a stack of 2 MiB, compiling overflows between 300 and 500.
pub(super) const MAX_CHAIN: usize = 200;
/// Most segments of one path.
pub(super) const MAX_SEGMENTS: usize = 64;

/// A text that is too deep.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct TooDeep {
    /// Where it becomes so, in bytes.
    pub(super) offset: usize,
    /// What there is too much of.
    pub(super) message: String,
    /// What to do about it.
    pub(super) remedy: &'static str,
}

/// Checks a text.
pub(super) fn check(source: &str) -> Result<(), TooDeep> {
    let bytes = source.as_bytes();
    let mut meter = Meter { levels: vec![0], chain: 0, segments: 0, last: b'\n', new_line: true };
    let mut at = 0;
    while at < bytes.len() {
        let offset = at;
        match bytes[at] {
            b'#' => at = line_end(bytes, at),
            b'"' => at = meter.operand(closing(bytes, at)),
            b'\'' if matches!(meter.last, b'r' | b's' | b't') => at = meter.operand(closing(bytes, at)),
            byte => {
                let keyword = bytes[at..].starts_with(b"else") && !is_word(meter.last);
                meter.take(byte, keyword);
                at += 1;
            }
        }
        meter.verdict(offset)?;
    }
    Ok(())
}

struct Meter {
    /// Operators so far of the expression at hand, one for each open bracket.
    levels: Vec<usize>,
    /// Sum of the levels.
    chain: usize,
    /// Segments so far of the path at hand.
    segments: usize,
    /// The last byte that was no blank.
    last: u8,
    /// Whether a line ended since.
    new_line: bool,
}

impl Meter {
    fn take(&mut self, byte: u8, is_else: bool) {
        if byte.is_ascii_whitespace() {
            self.segments = 0;
            self.new_line |= byte == b'\n';
            return;
        }
        if self.new_line && !is_operator(self.last) && !is_operator(byte) && !is_else {
            self.end_expression();
        }
        match byte {
            b'(' | b'[' | b'{' => self.levels.push(0),
            b')' | b']' | b'}' => {
                self.end_expression();
                if self.levels.len() > 1 {
                    self.levels.pop();
                }
            }
            b';' | b',' => self.end_expression(),
            // `||` is one operator, `!!` are two.
            _ if is_else || (is_operator(byte) && (byte == b'!' || self.new_line || !is_operator(self.last))) => self.add_operator(),
            b'.' => self.segments += 1,
            _ => {}
        }
        if !is_word(byte) && !matches!(byte, b'.' | b'@' | b'[' | b']' | b'-') {
            self.segments = 0;
        }
        self.last = byte;
        self.new_line = false;
    }

    /// A text in quotes, which ends at `end`; also a segment of a path.
    fn operand(&mut self, end: usize) -> usize {
        if self.new_line && !is_operator(self.last) {
            self.end_expression();
        }
        self.last = b'"';
        self.new_line = false;
        end
    }

    fn add_operator(&mut self) {
        if let Some(level) = self.levels.last_mut() {
            *level += 1;
            self.chain += 1;
        }
    }

    fn end_expression(&mut self) {
        if let Some(level) = self.levels.last_mut() {
            self.chain -= *level;
            *level = 0;
        }
    }

    fn verdict(&self, offset: usize) -> Result<(), TooDeep> {
        let too_deep = |message, remedy| Err(TooDeep { offset, message, remedy });
        if self.levels.len() > MAX_NESTING + 1 {
            too_deep(format!("brackets nest deeper than {MAX_NESTING} levels"), "assign the inner parts to variables")
        } else if self.chain > MAX_CHAIN {
            too_deep(
                format!("more than {MAX_CHAIN} operators in one expression"),
                "assign parts of it to variables, or ask for a whole list at once: `includes([\"a\", \"b\"], .x)`, or a Watchlist",
            )
        } else if self.segments > MAX_SEGMENTS {
            too_deep(format!("a path of more than {MAX_SEGMENTS} segments"), "no event is that deep")
        } else {
            Ok(())
        }
    }
}

fn is_operator(byte: u8) -> bool {
    b"+-*/%&|?!=<>".contains(&byte)
}

fn is_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_' || !byte.is_ascii()
}

fn line_end(bytes: &[u8], at: usize) -> usize {
    bytes[at..].iter().position(|byte| *byte == b'\n').map_or(bytes.len(), |length| at + length)
}

/// Past the quote that closes the one at `at`; the text's end where none does.
fn closing(bytes: &[u8], at: usize) -> usize {
    let quote = bytes[at];
    let mut next = at + 1;
    while next < bytes.len() && bytes[next] != quote {
        next += if bytes[next] == b'\\' { 2 } else { 1 };
    }
    (next + 1).min(bytes.len())
}
