//! Finding the line and column of a field again, when there is something to say about it.
//!
//! Reading resources keeps no positions: nearly all are fine. Only when a problem is found is its document read once more, by a type
//! that remembers where each node stands.

use std::fmt;

use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_saphyr::Spanned;

/// The documents of a file, each with how many lines stand before it. A line that begins with `---` starts a document, wherever it
/// stands (YAML 1.2.2, section 9.1.2), so one broken document cannot hide the next.
pub(super) fn documents(text: &str) -> Vec<(usize, &str)> {
    let mut documents = Vec::new();
    let mut start = 0;
    let mut lines_before = 0;
    let mut offset = 0;
    for (line_number, line) in text.split_inclusive('\n').enumerate() {
        let marker = line.trim_end();
        if marker == "---" || marker.starts_with("--- ") {
            documents.push((lines_before, &text[start..offset]));
            start = offset;
            lines_before = line_number;
        }
        offset += line.len();
    }
    documents.push((lines_before, &text[start..]));
    documents
}

/// An error of the YAML reader in one line, and its place within the document.
pub(super) fn describe(error: &serde_saphyr::Error) -> (String, (usize, usize)) {
    let place = error.location().map_or((1, 1), |location| (count(location.line()), count(location.column())));
    let text = error.without_snippet().to_string();
    let line = text.lines().find(|line| !line.trim().is_empty()).unwrap_or("unreadable").trim();
    // The place is told once, as that of the file.
    let line = line.strip_suffix(&format!(" at line {}, column {}", place.0, place.1)).unwrap_or(line);
    (line.to_owned(), place)
}

/// The place of a field within a document, or of the nearest field around it that is written there.
pub(super) fn locate(text: &str, field: &str, within: Option<(usize, usize)>) -> (usize, usize) {
    let Ok(root) = serde_saphyr::from_str::<Spanned<Node>>(text) else {
        return (1, 1);
    };
    let mut node = &root;
    let mut key_place = None;
    let mut rest = field;
    while let Some((found, key, after)) = node.value.step(rest) {
        (node, key_place, rest) = (found, key, after);
    }
    let value_place = place(node);
    match within {
        Some(within) if rest.is_empty() => inside(text, value_place, within),
        _ if rest.is_empty() && !matches!(node.value, Node::Scalar) => key_place.unwrap_or(value_place),
        _ if rest.is_empty() => value_place,
        _ => key_place.unwrap_or(value_place),
    }
}

/// A place inside a scalar's text, given where the scalar starts.
fn inside(text: &str, (line, column): (usize, usize), (inner_line, inner_column): (usize, usize)) -> (usize, usize) {
    let lines: Vec<&str> = text.lines().collect();
    let block_header = |number: usize| {
        let written = lines.get(number.wrapping_sub(1)).copied().unwrap_or_default();
        let uncommented = written.split(" #").next().unwrap_or_default().trim_end();
        uncommented.rsplit([' ', ':']).next().is_some_and(|last| last.starts_with(['|', '>']))
    };
    // The reader reports a block scalar either at its header or at its first line of text.
    let first = if block_header(line) { line + 1 } else { line };
    if first > line || (line > 1 && block_header(line - 1)) {
        let indent = lines
            .iter()
            .skip(first - 1)
            .find(|candidate| !candidate.trim().is_empty())
            .map_or(0, |candidate| candidate.len() - candidate.trim_start().len());
        return (first + inner_line - 1, indent + inner_column);
    }
    let quoted = lines.get(line - 1).and_then(|written| written.chars().nth(column - 1)).is_some_and(|c| matches!(c, '"' | '\''));
    if inner_line == 1 { (line, column + inner_column - 1 + usize::from(quoted)) } else { (line + inner_line - 1, inner_column) }
}

fn place(node: &Spanned<Node>) -> (usize, usize) {
    (count(node.referenced.line()).max(1), count(node.referenced.column()).max(1))
}

fn count(number: u64) -> usize {
    usize::try_from(number).unwrap_or(usize::MAX)
}

/// The shape of a YAML document, with the place of each node.
enum Node {
    Scalar,
    Sequence(Vec<Spanned<Node>>),
    Mapping(Vec<(Spanned<String>, Spanned<Node>)>),
}

/// A node below another, the place of its key, and what is left of the path.
type Step<'n, 'p> = (&'n Spanned<Node>, Option<(usize, usize)>, &'p str);

impl Node {
    /// One step along a path such as `spec.tests[2].events`. Keys that hold dots are found: the longest key that fits wins.
    fn step<'n, 'p>(&'n self, path: &'p str) -> Option<Step<'n, 'p>> {
        match self {
            Self::Scalar => None,
            Self::Sequence(items) => {
                let (index, after) = path.strip_prefix('[')?.split_once(']')?;
                let item = items.get(index.parse::<usize>().ok()?)?;
                Some((item, Some(place(item)), after.strip_prefix('.').unwrap_or(after)))
            }
            Self::Mapping(entries) => entries
                .iter()
                .filter_map(|(key, value)| {
                    let after = path.strip_prefix(key.value.as_str())?;
                    let after = if after.is_empty() || after.starts_with('[') { after } else { after.strip_prefix('.')? };
                    let key_place = (count(key.referenced.line()).max(1), count(key.referenced.column()).max(1));
                    (!path.is_empty()).then_some((key.value.len(), (value, Some(key_place), after)))
                })
                .max_by_key(|(length, _)| *length)
                .map(|(_, step)| step),
        }
    }
}

impl<'de> Deserialize<'de> for Node {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(NodeVisitor)
    }
}

struct NodeVisitor;

macro_rules! scalars {
    ($($method:ident: $type:ty),*) => {
        $(fn $method<E>(self, _: $type) -> Result<Node, E> {
            Ok(Node::Scalar)
        })*
    };
}

impl<'de> Visitor<'de> for NodeVisitor {
    type Value = Node;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any YAML")
    }

    scalars!(visit_bool: bool, visit_i64: i64, visit_u64: u64, visit_f64: f64, visit_str: &str);

    fn visit_unit<E>(self) -> Result<Node, E> {
        Ok(Node::Scalar)
    }

    fn visit_none<E>(self) -> Result<Node, E> {
        Ok(Node::Scalar)
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Node, D::Error> {
        deserializer.deserialize_any(self)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut sequence: A) -> Result<Node, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = sequence.next_element()? {
            items.push(item);
        }
        Ok(Node::Sequence(items))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut mapping: A) -> Result<Node, A::Error> {
        let mut entries = Vec::new();
        while let Some(entry) = mapping.next_entry()? {
            entries.push(entry);
        }
        Ok(Node::Mapping(entries))
    }
}
