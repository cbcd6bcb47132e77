//! Requests of the bulk interface: lines of JSON, and an answer for each.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::answer::Cause;
use super::copies::Sequence;
use super::transport::Answer;
use crate::store::StoreError;

/// What a bulk answers: of each line its status and what went wrong, and of a write which it was.
pub(super) const PATH: &str = "/_bulk?filter_path=items.*.status,items.*.error,items.*._seq_no,items.*._primary_term";

/// What to do.
#[derive(Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Action<'a> {
    /// Write a document that is not there.
    Create(Target<'a>),
    /// Write over the one that is there.
    Index(Target<'a>),
    Delete(Target<'a>),
}

/// To what.
#[derive(Serialize)]
pub(super) struct Target<'a> {
    #[serde(rename = "_index")]
    index: &'a str,
    #[serde(rename = "_id")]
    id: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    if_seq_no: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    if_primary_term: Option<u64>,
}

impl<'a> Target<'a> {
    pub(super) const fn new(index: &'a str, id: &'a str) -> Self {
        Self { index, id, if_seq_no: None, if_primary_term: None }
    }

    /// Only if it is this write that is there.
    pub(super) const fn at(index: &'a str, id: &'a str, sequence: Sequence) -> Self {
        Self { index, id, if_seq_no: Some(sequence.number), if_primary_term: Some(sequence.term) }
    }
}

/// The lines of a request, and between them the documents that they are about.
#[derive(Default)]
pub(super) struct Lines {
    /// All but the documents.
    text: Vec<u8>,
    /// The documents, each with how much of the text goes before it.
    documents: Vec<(usize, Bytes)>,
    /// Bytes of the documents.
    bytes: usize,
}

impl Lines {
    /// Appends a line, and the document that it is about.
    pub(super) fn push(&mut self, action: &Action<'_>, document: Option<&Bytes>) -> Result<(), StoreError> {
        serde_json::to_writer(&mut self.text, action).map_err(|error| StoreError::BadRequest(error.to_string()))?;
        self.text.push(b'\n');
        if let Some(document) = document {
            self.documents.push((self.text.len(), document.clone()));
            self.bytes += document.len();
            self.text.push(b'\n');
        }
        Ok(())
    }

    /// Bytes of all of it.
    pub(super) fn bytes(&self) -> usize {
        self.text.len() + self.bytes
    }

    /// All of it in the order in which it is sent.
    pub(super) fn into_pieces(self) -> Vec<Bytes> {
        let mut text = Bytes::from(self.text);
        let mut pieces = Vec::with_capacity(2 * self.documents.len() + 1);
        let mut sent = 0;
        for (before, document) in self.documents {
            pieces.push(text.split_to(before - sent));
            pieces.push(document);
            sent = before;
        }
        pieces.push(text);
        pieces
    }
}

/// What became of a line.
#[derive(Debug)]
pub(super) enum Outcome {
    /// Done; which write it is.
    Done(Sequence),
    /// What it expected is not so; a `create` met a document that is there.
    Conflict,
    /// The index is not there.
    NoIndex,
    /// The document is refused for good.
    Refused(String),
    /// Not now.
    Later {
        reason: String,
        /// Whether the cluster has too much to do; nothing is done then.
        too_much: bool,
    },
}

#[derive(Deserialize)]
struct Items {
    #[serde(default)]
    items: Vec<Item>,
}

#[derive(Deserialize)]
#[serde(rename_all = "lowercase")]
enum Item {
    Create(Told),
    Index(Told),
    Delete(Told),
}

#[derive(Deserialize)]
struct Told {
    status: u16,
    #[serde(default)]
    error: Option<Cause>,
    #[serde(rename = "_seq_no", default)]
    number: u64,
    #[serde(rename = "_primary_term", default)]
    term: u64,
}

/// The outcomes of so many lines, in order.
pub(super) fn outcomes(answer: &Answer, lines: usize) -> Result<Vec<Outcome>, StoreError> {
    let told: Items = answer.json()?;
    if told.items.len() != lines {
        return Err(StoreError::Unavailable(format!("{} of {lines} lines of a bulk are answered", told.items.len())));
    }
    Ok(told.items.into_iter().map(outcome).collect())
}

fn outcome(item: Item) -> Outcome {
    let (Item::Create(told) | Item::Index(told) | Item::Delete(told)) = item;
    let kind = told.error.as_ref().map_or("", |error| error.kind.as_str());
    let reason = || told.error.as_ref().map_or_else(|| format!("status {}", told.status), Cause::text);
    match told.status {
        200..=299 => Outcome::Done(Sequence { number: told.number, term: told.term }),
        409 => Outcome::Conflict,
        404 if kind == "index_not_found_exception" => Outcome::NoIndex,
        // Of a deletion: it is not there.
        404 => Outcome::Conflict,
        429 => Outcome::Later { reason: reason(), too_much: true },
        _ if kind == "index_closed_exception" => Outcome::Later { reason: reason(), too_much: false },
        // 403 is an index that is blocked, for want of disk mostly: no fault of the document.
        401 | 403 | 408 | 500.. => Outcome::Later { reason: reason(), too_much: false },
        _ => Outcome::Refused(reason()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_and_documents_are_sent_in_their_order() {
        let mut request = Lines::default();
        request.push(&Action::Delete(Target::at("i", "1", Sequence { number: 2, term: 3 })), None).unwrap();
        request.push(&Action::Create(Target::new("i", "4")), Some(&Bytes::from_static(b"{}"))).unwrap();
        request.push(&Action::Index(Target::new("i", "5")), Some(&Bytes::from_static(b"{\"a\":1}"))).unwrap();
        request.push(&Action::Delete(Target::new("i", "6")), None).unwrap();
        let bytes = request.bytes();

        let sent = request.into_pieces().concat();

        let expected = [
            r#"{"delete":{"_index":"i","_id":"1","if_seq_no":2,"if_primary_term":3}}"#,
            r#"{"create":{"_index":"i","_id":"4"}}"#,
            "{}",
            r#"{"index":{"_index":"i","_id":"5"}}"#,
            r#"{"a":1}"#,
            r#"{"delete":{"_index":"i","_id":"6"}}"#,
            "",
        ];
        assert_eq!(String::from_utf8(sent.clone()).unwrap(), expected.join("\n"));
        assert_eq!(sent.len(), bytes);
    }
}
