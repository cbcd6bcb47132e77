//! Objects as `kubectl get -o yaml` prints them, line for line.
//!
//! kubectl sorts keys (numbers within them by value), wraps long texts behind column 80, and writes texts of several lines as blocks. The
//! rules are those of its YAML library, go-yaml 2: `yaml_emitter_analyze_scalar` and `yaml_emitter_write_*_scalar` for texts, `keyList`
//! for the order. Where a text has to be quoted so as to stay a text, one quote may differ, and with it a column; lines do not.

use std::cmp::Ordering;

use serde_json::{Map, Value};

/// The column behind which a text is wrapped at the next blank.
const WIDTH: usize = 80;

/// The object as kubectl prints it.
pub(crate) fn print(object: &Value) -> String {
    let mut printer = Printer { text: String::new(), column: 0 };
    printer.value(object, 0);
    printer.line_break();
    printer.text
}

/// How many lines kubectl prints before `spec:`. `metadata` is that of the object, without `managedFields`, which it does not print.
pub(crate) fn lines_before_spec(metadata: &Value) -> usize {
    // `apiVersion`, `kind`, `metadata:`
    3 + print(metadata).lines().count()
}

struct Printer {
    text: String,
    column: usize,
}

/// How a text is written.
enum Style {
    Plain,
    Single,
    Double,
    Block,
}

impl Printer {
    /// A value that begins where the printer stands; `indent` is that of the mapping or sequence itself.
    fn value(&mut self, value: &Value, indent: usize) {
        match value {
            Value::Object(map) if map.is_empty() => self.put("{}"),
            Value::Array(items) if items.is_empty() => self.put("[]"),
            Value::Object(map) => self.mapping(map, indent),
            Value::Array(items) => self.sequence(items, indent),
            Value::String(text) => self.scalar(text, indent),
            Value::Number(number) => self.put(&number.to_string()),
            Value::Bool(_) | Value::Null => self.put(&value.to_string()),
        }
    }

    fn mapping(&mut self, map: &Map<String, Value>, indent: usize) {
        let mut entries: Vec<_> = map.iter().collect();
        entries.sort_by(|(a, _), (b, _)| order(a, b));
        for (at, (key, value)) in entries.into_iter().enumerate() {
            if at > 0 {
                self.new_line(indent);
            }
            match style(key) {
                Style::Plain if !key.is_empty() => self.put(key),
                Style::Plain | Style::Single => self.quoted(key, '\'', None),
                Style::Double | Style::Block => self.quoted(key, '"', None),
            }
            self.put(":");
            match value {
                Value::Object(inner) if !inner.is_empty() => {
                    self.new_line(indent + 2);
                    self.mapping(inner, indent + 2);
                }
                Value::Array(items) if !items.is_empty() => {
                    self.new_line(indent);
                    self.sequence(items, indent);
                }
                scalar => {
                    self.put(" ");
                    self.value(scalar, indent + 2);
                }
            }
        }
    }

    fn sequence(&mut self, items: &[Value], indent: usize) {
        for (at, item) in items.iter().enumerate() {
            if at > 0 {
                self.new_line(indent);
            }
            self.put("- ");
            self.value(item, indent + 2);
        }
    }

    fn scalar(&mut self, text: &str, indent: usize) {
        match style(text) {
            Style::Plain => self.wrapped(text, indent),
            Style::Single => self.quoted(text, '\'', Some(indent)),
            Style::Double => self.quoted(text, '"', Some(indent)),
            Style::Block => self.block(text, indent),
        }
    }

    /// A plain text, wrapped at single blanks.
    fn wrapped(&mut self, text: &str, indent: usize) {
        let mut after_blank = false;
        let mut rest = text.chars().peekable();
        while let Some(character) = rest.next() {
            let blank = character == ' ';
            if blank && !after_blank && self.column > WIDTH && rest.peek() != Some(&' ') {
                self.new_line(indent);
            } else {
                self.push(character);
            }
            after_blank = blank;
        }
    }

    /// A quoted text; wrapped where an indent is given.
    fn quoted(&mut self, text: &str, quote: char, indent: Option<usize>) {
        self.push(quote);
        let last = text.chars().count().saturating_sub(1);
        let mut after_blank = false;
        let mut rest = text.chars().enumerate().peekable();
        while let Some((at, character)) = rest.next() {
            let blank_follows = rest.peek().is_some_and(|(_, next)| *next == ' ');
            let may_wrap = character == ' ' && !after_blank && self.column > WIDTH && at > 0 && at < last;
            match indent {
                Some(indent) if may_wrap && quote == '"' => {
                    self.new_line(indent);
                    if blank_follows {
                        self.push('\\');
                    }
                }
                Some(indent) if may_wrap && !blank_follows => self.new_line(indent),
                _ if quote == '"' => self.escaped(character),
                _ => {
                    if character == '\'' {
                        self.push('\'');
                    }
                    self.push(character);
                }
            }
            after_blank = character == ' ';
        }
        self.push(quote);
    }

    fn escaped(&mut self, character: char) {
        match character {
            '"' => self.put("\\\""),
            '\\' => self.put("\\\\"),
            '\n' => self.put("\\n"),
            '\t' => self.put("\\t"),
            '\r' => self.put("\\r"),
            '\0' => self.put("\\0"),
            '\u{7}' => self.put("\\a"),
            '\u{8}' => self.put("\\b"),
            '\u{b}' => self.put("\\v"),
            '\u{c}' => self.put("\\f"),
            '\u{1b}' => self.put("\\e"),
            '\u{85}' => self.put("\\N"),
            '\u{a0}' => self.put("\\_"),
            '\u{2028}' => self.put("\\L"),
            '\u{2029}' => self.put("\\P"),
            other if is_printable(other) => self.push(other),
            other if u32::from(other) <= 0xff => self.put(&format!("\\x{:02X}", u32::from(other))),
            other if u32::from(other) <= 0xffff => self.put(&format!("\\u{:04X}", u32::from(other))),
            other => self.put(&format!("\\U{:08X}", u32::from(other))),
        }
    }

    fn block(&mut self, text: &str, indent: usize) {
        self.put("|");
        if text.starts_with([' ', '\n']) {
            self.put("2");
        }
        let end = if !text.ends_with('\n') {
            "-"
        } else if text.len() == 1 || text.ends_with("\n\n") {
            "+"
        } else {
            ""
        };
        self.put(end);
        for line in text.strip_suffix('\n').unwrap_or(text).split('\n') {
            if line.is_empty() {
                self.line_break();
            } else {
                self.new_line(indent);
                self.put(line);
            }
        }
    }

    fn push(&mut self, character: char) {
        self.text.push(character);
        self.column += 1;
    }

    fn put(&mut self, text: &str) {
        self.text.push_str(text);
        self.column += text.chars().count();
    }

    fn line_break(&mut self) {
        self.text.push('\n');
        self.column = 0;
    }

    fn new_line(&mut self, indent: usize) {
        self.line_break();
        self.text.extend(std::iter::repeat_n(' ', indent));
        self.column = indent;
    }
}

fn style(text: &str) -> Style {
    let scalar = Scalar::of(text);
    if text.contains('\n') {
        return if scalar.block { Style::Block } else { Style::Double };
    }
    if reads_as_something_else(text) || !(scalar.plain || scalar.single) {
        return Style::Double;
    }
    if scalar.plain { Style::Plain } else { Style::Single }
}

/// The styles that a text allows, before it is asked whether it would be read as a text.
struct Scalar {
    plain: bool,
    single: bool,
    block: bool,
}

impl Scalar {
    fn of(text: &str) -> Self {
        let (mut indicators, mut special, mut tabs, mut breaks) = (text.starts_with("---") || text.starts_with("..."), false, false, false);
        let (mut break_blank, mut blank_break) = (false, false);
        let mut previous = None;
        let mut rest = text.chars().peekable();
        while let Some(character) = rest.next() {
            let blank_follows =
                rest.peek().is_none_or(|next| matches!(next, ' ' | '\t' | '\n' | '\r' | '\u{85}' | '\u{2028}' | '\u{2029}'));
            let blank_before = previous.is_none_or(|before: char| matches!(before, ' ' | '\t') || is_break(before));
            indicators |= match character {
                '#' => blank_before,
                ',' | '[' | ']' | '{' | '}' | '&' | '*' | '!' | '|' | '>' | '\'' | '"' | '%' | '@' | '`' => previous.is_none(),
                ':' => blank_follows,
                '?' | '-' => previous.is_none() && blank_follows,
                _ => false,
            };
            match character {
                '\t' => tabs = true,
                other => special |= !is_printable(other) && !is_break(other),
            }
            breaks |= is_break(character);
            break_blank |= character == ' ' && previous.is_some_and(is_break);
            blank_break |= is_break(character) && previous == Some(' ');
            previous = Some(character);
        }
        let edge = |end: Option<char>| end.is_some_and(|end| end == ' ' || is_break(end));
        let edges = edge(text.chars().next()) || edge(text.chars().next_back());
        let single = !(break_blank || blank_break || tabs || special);
        Self { plain: single && !indicators && !edges && !breaks, single, block: !(text.ends_with(' ') || blank_break || special) }
    }
}

fn is_break(character: char) -> bool {
    matches!(character, '\n' | '\r' | '\u{85}' | '\u{2028}' | '\u{2029}')
}

fn is_printable(character: char) -> bool {
    matches!(character, '\n' | ' '..='~' | '\u{85}' | '\u{a0}'..='\u{d7ff}' | '\u{e000}'..='\u{fffd}' | '\u{10000}'..)
        && character != '\u{feff}'
}

/// Whether a text, written plainly, would be read as a number, a boolean, a time or nothing.
fn reads_as_something_else(text: &str) -> bool {
    let word = matches!(
        text.to_ascii_lowercase().as_str(),
        "" | "~" | "null" | "true" | "false" | "y" | "n" | "yes" | "no" | "on" | "off" | "<<" | "=" | ".nan" | ".inf" | "+.inf" | "-.inf"
    );
    let digits = text.trim_start_matches(['+', '-']);
    let begins_as_number = digits.starts_with(|c: char| c.is_ascii_digit())
        || digits.strip_prefix('.').is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_digit()));
    let plain_number = begins_as_number && digits.replace('_', "").parse::<f64>().is_ok();
    let other_base = ["0x", "0b", "0o"].iter().any(|prefix| {
        let base = match *prefix {
            "0x" => 16,
            "0b" => 2,
            _ => 8,
        };
        digits.strip_prefix(prefix).is_some_and(|rest| !rest.is_empty() && rest.chars().all(|c| c.is_digit(base) || c == '_'))
    });
    let sexagesimal =
        begins_as_number && digits.contains(':') && digits.chars().all(|c| c.is_ascii_digit() || matches!(c, ':' | '.' | '_'));
    let parts: Vec<&str> = text.splitn(3, '-').collect();
    let is_number = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
    let time = parts.len() == 3
        && parts[0].len() == 4
        && is_number(parts[0])
        && is_number(parts[1])
        && parts[2].starts_with(|c: char| c.is_ascii_digit())
        && parts[2].chars().all(|c| c.is_ascii_digit() || matches!(c, ':' | '.' | 'T' | 't' | ' ' | 'Z' | '+' | '-'));
    word || plain_number || other_base || sexagesimal || time
}

/// The order of keys: letters behind all else, numbers by their value.
fn order(a: &str, b: &str) -> Ordering {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().collect(), b.chars().collect());
    for at in 0..a.len().min(b.len()) {
        if a[at] == b[at] {
            continue;
        }
        match (a[at].is_alphabetic(), b[at].is_alphabetic()) {
            (true, true) => return a[at].cmp(&b[at]),
            (true, false) => return Ordering::Greater,
            (false, true) => return Ordering::Less,
            (false, false) => {}
        }
        // In the midst of a number its leading digits are the same, and count unless they are all zeros.
        let begun = a[..at].iter().rev().take_while(|c| c.is_ascii_digit()).any(|c| *c != '0');
        let within = (a[at] == '0' || b[at] == '0') && begun;
        let (a_number, a_end) = number(&a, at, within);
        let (b_number, b_end) = number(&b, at, within);
        return a_number.cmp(&b_number).then(a_end.cmp(&b_end)).then(a[at].cmp(&b[at]));
    }
    a.len().cmp(&b.len())
}

/// The digits from a place on as a number, and where they end.
fn number(text: &[char], at: usize, within: bool) -> (i64, usize) {
    let mut value = i64::from(within);
    let mut end = at;
    while let Some(digit) = text.get(end).and_then(|c| c.to_digit(10)) {
        value = value.saturating_mul(10).saturating_add(i64::from(digit));
        end += 1;
    }
    (value, end)
}

#[cfg(test)]
mod tests;
