//! Elasticsearch's query-string syntax, read into a tree.
//!
//! `field:value`, `"phrase"`, `"loose phrase"~2`, wildcards `*` and `?`, `field:[1 TO 5}`, `field:>=3`, `_exists_:field`,
//! `field:(a OR b)`, `AND`, `OR`, `NOT`, `&&`, `||`, `!`, `+must`, `-not`, grouping, `\` before any character that is meant as itself.
//! Clauses side by side are alternatives, as in Elasticsearch. `AND` binds more tightly than `OR`, always: there Elasticsearch follows
//! old rules of its own. Boosts are read and ignored, since nothing is ranked. Fuzziness and regular expressions are refused.
//!
//! The source for the syntax is Elasticsearch's reference, "Query string query".

use std::ops::Bound;

use crate::store::StoreError;

/// Parentheses nest at most so deep.
const MAX_NESTING: usize = 50;
/// A query has at most so many clauses. Elasticsearch's limit.
const MAX_CLAUSES: usize = 1024;

/// A query.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Query {
    /// All documents.
    All,
    /// Those that fit all of `must`, none of `must_not`, and (unless there is a `must`) any of `should`.
    Bool { must: Vec<Query>, should: Vec<Query>, must_not: Vec<Query> },
    /// Those that have a value for a field.
    Exists(Text),
    /// Those that have a fitting value in a field, or, without a field, anywhere.
    Field { field: Option<Text>, value: Value, position: usize },
}

/// What a value must be.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Value {
    /// This word.
    Word(Text),
    /// These words in this order, with at most `slop` moves.
    Phrase { text: String, slop: u32 },
    /// Between these.
    Range { lower: Bound<String>, upper: Bound<String> },
}

/// Text in which some characters may be wildcards.
#[derive(Debug, Clone, PartialEq, Default)]
pub(super) struct Text(pub(super) Vec<Part>);

/// A character of a [`Text`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Part {
    /// Itself.
    Char(char),
    /// `?`: any one character.
    One,
    /// `*`: any characters, or none.
    Many,
}

impl Text {
    /// Whether there is a wildcard in it.
    pub(super) fn is_pattern(&self) -> bool {
        self.0.iter().any(|part| !matches!(part, Part::Char(_)))
    }

    /// The text, wildcards as they are written.
    pub(super) fn literal(&self) -> String {
        self.0
            .iter()
            .map(|part| match part {
                Part::Char(character) => *character,
                Part::One => '?',
                Part::Many => '*',
            })
            .collect()
    }

    fn is_star(&self) -> bool {
        self.0 == [Part::Many]
    }
}

/// Reads a query; a blank one is [`Query::All`].
pub(super) fn parse(text: &str) -> Result<Query, StoreError> {
    let mut parser = Parser { characters: text.chars().collect(), position: 0, clauses: 0 };
    parser.skip_blanks();
    if parser.peek().is_none() {
        return Ok(Query::All);
    }
    let query = parser.alternatives(None, 0)?;
    match parser.peek() {
        None => Ok(query),
        Some(character) => {
            Err(parser.error(&format!("unexpected `{character}`; remove it, or write `\\{character}` if it is part of a value")))
        }
    }
}

struct Parser {
    characters: Vec<char>,
    position: usize,
    clauses: usize,
}

impl Parser {
    /// Clauses side by side or joined by OR.
    fn alternatives(&mut self, field: Option<&Text>, nesting: usize) -> Result<Query, StoreError> {
        let (mut must, mut should, mut must_not) = (Vec::new(), Vec::new(), Vec::new());
        let mut after_or = false;
        loop {
            let sign = self.sign();
            let start = self.position;
            let clause = self.conjunction(field, nesting)?;
            match (sign, clause) {
                (Some('+'), clause) => must.push(clause),
                (Some(_), clause) => must_not.push(clause),
                // `a NOT b` takes b away; `a OR NOT b` has it as an alternative.
                (None, Query::Bool { must: none, should: nothing, must_not: mut negated })
                    if !after_or && none.is_empty() && nothing.is_empty() && self.characters.get(start) != Some(&'(') =>
                {
                    must_not.append(&mut negated);
                }
                (None, clause) => should.push(clause),
            }
            self.skip_blanks();
            after_or = self.take_operator(&["OR", "||"]);
            self.skip_blanks();
            match self.peek() {
                None | Some(')') if after_or => return Err(self.error("OR needs a clause after it; add one, or write \"OR\" for the word")),
                None | Some(')') => break,
                Some(_) => {}
            }
        }
        if must.is_empty() && must_not.is_empty() && should.len() == 1 {
            return Ok(should.remove(0));
        }
        Ok(Query::Bool { must, should, must_not })
    }

    /// Clauses joined by AND.
    fn conjunction(&mut self, field: Option<&Text>, nesting: usize) -> Result<Query, StoreError> {
        let first = self.negation(field, nesting)?;
        let mut must = vec![first];
        loop {
            self.skip_blanks();
            if !self.take_operator(&["AND", "&&"]) {
                break;
            }
            self.skip_blanks();
            if matches!(self.peek(), None | Some(')')) {
                return Err(self.error("AND needs a clause after it; add one, or write \"AND\" for the word"));
            }
            let clause = match self.sign() {
                Some('-') => Query::Bool { must: Vec::new(), should: Vec::new(), must_not: vec![self.negation(field, nesting)?] },
                _ => self.negation(field, nesting)?,
            };
            must.push(clause);
        }
        if must.len() == 1 { Ok(must.remove(0)) } else { Ok(Query::Bool { must, should: Vec::new(), must_not: Vec::new() }) }
    }

    /// A clause, negated or not.
    fn negation(&mut self, field: Option<&Text>, nesting: usize) -> Result<Query, StoreError> {
        let mut negated = false;
        loop {
            self.skip_blanks();
            if self.take_operator(&["NOT"]) || (self.peek() == Some('!') && self.take_operator(&["!"])) {
                negated = !negated;
            } else {
                break;
            }
        }
        let clause = self.clause(field, nesting)?;
        Ok(if negated { Query::Bool { must: Vec::new(), should: Vec::new(), must_not: vec![clause] } } else { clause })
    }

    /// A group, or a value with or without a field.
    fn clause(&mut self, field: Option<&Text>, nesting: usize) -> Result<Query, StoreError> {
        self.clauses += 1;
        if self.clauses > MAX_CLAUSES {
            return Err(self.error(&format!("more than {MAX_CLAUSES} clauses; ask for fewer, or use a wildcard or a range")));
        }
        let start = self.position;
        if self.peek() == Some('(') {
            return self.group(field, nesting);
        }
        if let Some(name) = self.field_name()? {
            self.skip_blanks();
            if name.literal() == "_exists_" {
                let position = self.position;
                let Value::Word(target) = self.value(position)? else {
                    return Err(self.error_at(position, "_exists_ takes the name of a field: _exists_:source.ip"));
                };
                return Ok(Query::Exists(target));
            }
            if self.peek() == Some('(') {
                return self.group(Some(&name), nesting);
            }
            let value = self.value(start)?;
            self.boost();
            return Ok(match value {
                Value::Word(word) if word.is_star() && name.is_star() => Query::All,
                Value::Word(word) if word.is_star() => Query::Exists(name),
                value => Query::Field { field: Some(name), value, position: start },
            });
        }
        let value = self.value(start)?;
        self.boost();
        Ok(match (field, value) {
            (None, Value::Word(word)) if word.is_star() => Query::All,
            (Some(field), Value::Word(word)) if word.is_star() => Query::Exists(field.clone()),
            (field, value) => Query::Field { field: field.cloned(), value, position: start },
        })
    }

    fn group(&mut self, field: Option<&Text>, nesting: usize) -> Result<Query, StoreError> {
        let start = self.position;
        if nesting >= MAX_NESTING {
            return Err(self.error(&format!("parentheses nest deeper than {MAX_NESTING}; simplify the query")));
        }
        self.position += 1;
        self.skip_blanks();
        if self.peek() == Some(')') {
            return Err(self.error_at(start, "nothing between the parentheses; remove them, or write `\\(`"));
        }
        let query = self.alternatives(field, nesting + 1)?;
        if self.peek() != Some(')') {
            return Err(self.error_at(start, "this parenthesis is never closed; add `)`, or write `\\(` if it is part of a value"));
        }
        self.position += 1;
        self.boost();
        Ok(query)
    }

    /// The name before a colon; `None`, and nothing read, where there is no colon.
    fn field_name(&mut self) -> Result<Option<Text>, StoreError> {
        let start = self.position;
        let name = self.word(&[':'])?;
        let colon = self.peek() == Some(':');
        match (name.0.is_empty(), colon) {
            (false, true) => {
                self.position += 1;
                // Elasticsearch wants a wildcard in a name escaped; it is one either way.
                let parts = name.0.into_iter().map(|part| if part == Part::Char('*') { Part::Many } else { part });
                Ok(Some(Text(parts.collect())))
            }
            (true, true) => Err(self.error("a field's name is missing before `:`; add it, or write `\\:`")),
            _ => {
                self.position = start;
                Ok(None)
            }
        }
    }

    fn value(&mut self, clause: usize) -> Result<Value, StoreError> {
        match self.peek() {
            Some('"') => {
                let text = self.quoted()?;
                let slop = if self.peek() == Some('~') {
                    self.position += 1;
                    self.number().unwrap_or(0)
                } else {
                    0
                };
                Ok(Value::Phrase { text, slop })
            }
            Some('[' | '{') => self.range(),
            Some('>' | '<') => self.comparison(),
            Some('/') => Err(self.error(
                "a value that begins with `/` is a regular expression, which this store does not know; quote the value, or use wildcards * and ?",
            )),
            _ => {
                let word = self.word(&[])?;
                if word.0.is_empty() {
                    let message = match self.peek() {
                        None => "a value is missing at the end; add it, or remove the field's name".to_owned(),
                        Some(character) => format!("a value is expected, not `{character}`; add it, or write `\\{character}`"),
                    };
                    return Err(self.error(&message));
                }
                if self.peek() == Some('~') {
                    return Err(self.error_at(clause, "`~` after a word asks for similar words, which this store does not know; use wildcards * and ?"));
                }
                Ok(Value::Word(word))
            }
        }
    }

    /// `[a TO b]`, `{a TO b}` and mixtures.
    fn range(&mut self) -> Result<Value, StoreError> {
        let start = self.position;
        let open = self.peek();
        self.position += 1;
        let lower = self.range_end()?;
        self.skip_blanks();
        if !self.take_operator(&["TO"]) {
            return Err(self.error("a range is written [from TO to]; `TO` is missing"));
        }
        let upper = self.range_end()?;
        self.skip_blanks();
        let close = self.peek();
        if !matches!(close, Some(']' | '}')) {
            return Err(self.error_at(start, "this range is never closed; add `]` (inclusive) or `}` (exclusive)"));
        }
        self.position += 1;
        let bound = |end: Option<String>, inclusive: bool| match end {
            None => Bound::Unbounded,
            Some(end) if inclusive => Bound::Included(end),
            Some(end) => Bound::Excluded(end),
        };
        Ok(Value::Range { lower: bound(lower, open == Some('[')), upper: bound(upper, close == Some(']')) })
    }

    /// One end of a range; `None` for `*`.
    fn range_end(&mut self) -> Result<Option<String>, StoreError> {
        self.skip_blanks();
        if self.peek() == Some('"') {
            return self.quoted().map(Some);
        }
        let start = self.position;
        let mut end = String::new();
        while let Some(character) = self.peek() {
            if character.is_whitespace() || matches!(character, ']' | '}') {
                break;
            }
            self.position += 1;
            end.push(if character == '\\' { self.escaped()? } else { character });
        }
        match end.as_str() {
            "" => Err(self.error_at(start, "an end of the range is missing; write `*` for no bound")),
            "*" => Ok(None),
            _ => Ok(Some(end)),
        }
    }

    /// `>1`, `>=1`, `<1`, `<=1`.
    fn comparison(&mut self) -> Result<Value, StoreError> {
        let greater = self.peek() == Some('>');
        self.position += 1;
        let inclusive = self.peek() == Some('=');
        if inclusive {
            self.position += 1;
        }
        let end = if self.peek() == Some('"') { self.quoted()? } else { self.word(&[])?.literal() };
        if end.is_empty() {
            return Err(self.error("a value is missing after the comparison; add it"));
        }
        let bound = if inclusive { Bound::Included(end) } else { Bound::Excluded(end) };
        Ok(if greater {
            Value::Range { lower: bound, upper: Bound::Unbounded }
        } else {
            Value::Range { lower: Bound::Unbounded, upper: bound }
        })
    }

    /// A run of characters that mean themselves, with wildcards.
    fn word(&mut self, also_ends: &[char]) -> Result<Text, StoreError> {
        let mut parts = Vec::new();
        while let Some(character) = self.peek() {
            if character.is_whitespace()
                || matches!(character, '(' | ')' | '"' | '[' | ']' | '{' | '}' | '^' | '~')
                || also_ends.contains(&character)
            {
                break;
            }
            self.position += 1;
            parts.push(match character {
                '*' => Part::Many,
                '?' => Part::One,
                '\\' => Part::Char(self.escaped()?),
                character => Part::Char(character),
            });
        }
        Ok(Text(parts))
    }

    fn quoted(&mut self) -> Result<String, StoreError> {
        let start = self.position;
        self.position += 1;
        let mut text = String::new();
        loop {
            let Some(character) = self.peek() else {
                return Err(self.error_at(start, "this quotation mark is never closed; add `\"`, or write `\\\"` if it is part of a value"));
            };
            self.position += 1;
            match character {
                '"' => return Ok(text),
                '\\' => text.push(self.escaped()?),
                character => text.push(character),
            }
        }
    }

    /// The character after a backslash.
    fn escaped(&mut self) -> Result<char, StoreError> {
        let Some(character) = self.peek() else {
            return Err(self.error("`\\` at the end means nothing; write `\\\\` for a backslash"));
        };
        self.position += 1;
        Ok(character)
    }

    /// `^2`, which is ignored.
    fn boost(&mut self) {
        if self.peek() == Some('^') {
            self.position += 1;
            while self.peek().is_some_and(|character| character.is_ascii_digit() || character == '.') {
                self.position += 1;
            }
        }
    }

    fn number(&mut self) -> Option<u32> {
        let start = self.position;
        while self.peek().is_some_and(|character| character.is_ascii_digit()) {
            self.position += 1;
        }
        self.characters[start..self.position].iter().collect::<String>().parse().ok()
    }

    /// `+` or `-` before a clause.
    fn sign(&mut self) -> Option<char> {
        self.skip_blanks();
        let sign = self.peek().filter(|character| matches!(character, '+' | '-'))?;
        self.position += 1;
        Some(sign)
    }

    /// Takes an operator if one is next: a word must end there, a sign need not.
    fn take_operator(&mut self, operators: &[&str]) -> bool {
        for operator in operators {
            let length = operator.chars().count();
            let end = self.position + length;
            let same = self.characters.len() >= end && operator.chars().eq(self.characters[self.position..end].iter().copied());
            let is_word = operator.starts_with(|character: char| character.is_ascii_alphabetic());
            let ends =
                self.characters.get(end).is_none_or(|next| next.is_whitespace() || matches!(next, '(' | ')' | '"' | '[' | ']' | '{' | '}'));
            if same && (ends || !is_word) {
                self.position = end;
                return true;
            }
        }
        false
    }

    fn peek(&self) -> Option<char> {
        self.characters.get(self.position).copied()
    }

    fn skip_blanks(&mut self) {
        while self.peek().is_some_and(char::is_whitespace) {
            self.position += 1;
        }
    }

    fn error(&self, message: &str) -> StoreError {
        self.error_at(self.position, message)
    }

    fn error_at(&self, position: usize, message: &str) -> StoreError {
        error_at(position, message)
    }
}

/// An error in a query, at a character's position (from 0; people count from 1).
pub(super) fn error_at(position: usize, message: &str) -> StoreError {
    StoreError::BadRequest(format!("query, character {}: {message}", position + 1))
}
