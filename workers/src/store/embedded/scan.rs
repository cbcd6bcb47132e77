//! A query that looks through the dictionary of a field: for wildcards, for network ranges, and for values in any field.
//!
//! The dictionary holds each distinct value once, so looking through it costs by the number of distinct values, not of documents.
//! In the keyword field a key is the path, its parts separated by the byte 1 and ended by 0, then a letter for the type, then the value.

use std::fmt;
use std::io;
use std::sync::Arc;

use tantivy::index::InvertedIndexReader;
use tantivy::postings::TermInfo;
use tantivy::query::{BitSetDocSet, ConstScorer, EnableScoring, Explanation, Query, Scorer, Weight};
use tantivy::schema::{Field, IndexRecordOption, Type};
use tantivy::termdict::{TermDictionary, TermStreamer};
use tantivy::{BitSet, DocId, Score, SegmentReader, TantivyError};

/// Ends a path in a key.
const END_OF_PATH: u8 = 0;
/// Separates the parts of a path in a key; also the next byte after [`END_OF_PATH`].
const SEPARATOR: u8 = 1;

/// Tells whether a text fits.
pub(super) type Test = Arc<dyn Fn(&str) -> bool + Send + Sync>;

/// Which paths are looked at.
#[derive(Clone)]
pub(super) enum Paths {
    /// The field has no paths; its keys are plain text.
    None,
    /// One, as it stands in a key, with its end.
    One(Vec<u8>),
    /// All that fit; dotted.
    Fitting(Test),
}

/// Which values fit.
#[derive(Clone)]
pub(super) enum Values {
    /// Any of these, as they stand in a key: type and value.
    AnyOf(Vec<Vec<u8>>),
    /// All.
    All,
    /// Strings that begin so, and fit.
    Strings { prefix: String, test: Test },
}

/// Documents that have a fitting value.
#[derive(Clone)]
pub(super) struct Scan {
    pub(super) field: Field,
    pub(super) paths: Paths,
    pub(super) values: Values,
}

impl fmt::Debug for Scan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Scan").field("field", &self.field).finish_non_exhaustive()
    }
}

impl Query for Scan {
    fn weight(&self, _: EnableScoring<'_>) -> tantivy::Result<Box<dyn Weight>> {
        Ok(Box::new(self.clone()))
    }
}

impl Weight for Scan {
    fn scorer(&self, reader: &SegmentReader, boost: Score) -> tantivy::Result<Box<dyn Scorer>> {
        let index = reader.inverted_index(self.field)?;
        let mut found = Found { index: &index, documents: BitSet::with_max_value(reader.max_doc()) };
        let dictionary = index.terms();
        match &self.paths {
            Paths::None => self.values.visit(dictionary, &[], &mut found)?,
            Paths::One(path) => self.values.visit(dictionary, path, &mut found)?,
            Paths::Fitting(test) => each_path(dictionary, |path| {
                let dotted = dotted(path);
                if test(&dotted) { self.values.visit(dictionary, path, &mut found) } else { Ok(()) }
            })?,
        }
        Ok(Box::new(ConstScorer::new(BitSetDocSet::from(found.documents), boost)))
    }

    fn explain(&self, reader: &SegmentReader, document: DocId) -> tantivy::Result<Explanation> {
        let mut scorer = self.scorer(reader, 1.0)?;
        if scorer.seek(document) == document {
            Ok(Explanation::new("Scan", 1.0))
        } else {
            Err(TantivyError::InvalidArgument("the document does not fit".to_owned()))
        }
    }
}

impl Values {
    /// Hands over the documents of each fitting value under a path.
    fn visit(&self, dictionary: &TermDictionary, path: &[u8], found: &mut Found<'_>) -> io::Result<()> {
        match self {
            Self::AnyOf(values) => {
                for value in values {
                    if let Some(term) = dictionary.get([path, value.as_slice()].concat())? {
                        found.add(&term)?;
                    }
                }
            }
            Self::All => {
                let mut terms = beginning_with(dictionary, path)?;
                while terms.advance() {
                    found.add(terms.value())?;
                }
            }
            Self::Strings { prefix, test } => {
                let mut start = path.to_vec();
                if !path.is_empty() {
                    start.push(Type::Str.to_code());
                }
                let value_at = start.len();
                start.extend_from_slice(prefix.as_bytes());
                let mut terms = beginning_with(dictionary, &start)?;
                while terms.advance() {
                    if std::str::from_utf8(&terms.key()[value_at..]).is_ok_and(|value| test(value)) {
                        found.add(terms.value())?;
                    }
                }
            }
        }
        Ok(())
    }
}

/// The documents found so far.
struct Found<'a> {
    index: &'a InvertedIndexReader,
    documents: BitSet,
}

impl Found<'_> {
    fn add(&mut self, term: &TermInfo) -> io::Result<()> {
        let mut postings = self.index.read_block_postings_from_terminfo(term, IndexRecordOption::Basic)?;
        while !postings.docs().is_empty() {
            for document in postings.docs() {
                self.documents.insert(*document);
            }
            postings.advance();
        }
        Ok(())
    }
}

/// Visits each path that a dictionary has, with its end; jumps from one to the next.
fn each_path(dictionary: &TermDictionary, mut visit: impl FnMut(&[u8]) -> io::Result<()>) -> io::Result<()> {
    let mut from: Vec<u8> = Vec::new();
    loop {
        let mut terms = dictionary.range().ge(&from).into_stream()?;
        if !terms.advance() {
            return Ok(());
        }
        let key = terms.key();
        let Some(end) = key.iter().position(|byte| *byte == END_OF_PATH) else { return Ok(()) };
        visit(&key[..=end])?;
        from.clear();
        from.extend_from_slice(&key[..end]);
        from.push(SEPARATOR);
    }
}

/// The terms whose keys begin so.
fn beginning_with<'a>(dictionary: &'a TermDictionary, prefix: &[u8]) -> io::Result<TermStreamer<'a>> {
    let mut range = dictionary.range().ge(prefix);
    if let Some(end) = after(prefix) {
        range = range.lt(end);
    }
    range.into_stream()
}

/// A path as people write it.
fn dotted(path: &[u8]) -> String {
    let path = path.strip_suffix(&[END_OF_PATH]).unwrap_or(path);
    String::from_utf8_lossy(path).replace(char::from(SEPARATOR), ".")
}

/// The first key that does not begin so.
fn after(prefix: &[u8]) -> Option<Vec<u8>> {
    let mut end = prefix.to_vec();
    while let Some(last) = end.pop() {
        if last < u8::MAX {
            end.push(last + 1);
            return Some(end);
        }
    }
    None
}
