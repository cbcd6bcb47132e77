//! Looks for copies of documents, by id, in the indices where they could lie.
//!
//! By `_mget`, which sees what is written at once, where a search sees it after the refresh.

use std::time::Instant;

use serde::Deserialize;
use serde_json::{Value, json};
use tokio::time::sleep;

use super::answer::Cause;
use super::transport::{FIRST_PAUSE, LONGEST_PAUSE, Request, Transport};
use crate::store::StoreError;

/// So many places are looked at in one request.
const MAX_PLACES: usize = 10_000;

/// Which write of a document it is: by it a later request says that it means just this one.
#[derive(Debug, Clone, PartialEq, Eq, Copy, Deserialize)]
pub(super) struct Sequence {
    #[serde(rename = "_seq_no")]
    pub(super) number: u64,
    #[serde(rename = "_primary_term")]
    pub(super) term: u64,
}

/// One answer of `_mget`.
#[derive(Deserialize)]
pub(super) struct Looked {
    #[serde(default)]
    found: bool,
    #[serde(rename = "_seq_no", default)]
    number: u64,
    #[serde(rename = "_primary_term", default)]
    term: u64,
    #[serde(rename = "_source", default)]
    pub(super) source: serde_json::Map<String, Value>,
    #[serde(default)]
    error: Option<Cause>,
}

impl Looked {
    /// Which write of the document is there, if any. An index that is not there holds none; of any other failure nothing follows.
    pub(super) fn sequence(&self) -> Result<Option<Sequence>, StoreError> {
        match &self.error {
            Some(error) if error.kind == "index_not_found_exception" => Ok(None),
            Some(error) => Err(StoreError::Unavailable(error.text())),
            None => Ok(self.found.then_some(Sequence { number: self.number, term: self.term })),
        }
    }
}

/// What is at these places, each an index and an id, in their order. A shard that is about to start is waited for.
pub(super) async fn look(transport: &Transport, places: &[(&str, &str)], with_source: bool) -> Result<Vec<Looked>, StoreError> {
    let mut all = Vec::with_capacity(places.len());
    for part in places.chunks(MAX_PLACES) {
        let started = Instant::now();
        let mut pause = FIRST_PAUSE;
        loop {
            let looked = look_once(transport, part, with_source).await?;
            let Some(error) = looked.iter().find_map(|looked| looked.sequence().err()) else {
                all.extend(looked);
                break;
            };
            if started.elapsed() + pause > transport.patience() {
                return Err(error);
            }
            sleep(pause).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }
    Ok(all)
}

async fn look_once(transport: &Transport, places: &[(&str, &str)], with_source: bool) -> Result<Vec<Looked>, StoreError> {
    #[derive(Deserialize)]
    struct Answer {
        docs: Vec<Looked>,
    }
    let docs: Vec<Value> = places.iter().map(|(index, id)| json!({"_index": index, "_id": id, "_source": with_source})).collect();
    let answer: Answer = transport.ask(&Request::post("/_mget", &json!({"docs": docs}))).await?.done()?;
    if answer.docs.len() != places.len() {
        return Err(StoreError::Unavailable(format!("{} of {} documents asked for are answered", answer.docs.len(), places.len())));
    }
    Ok(answer.docs)
}
