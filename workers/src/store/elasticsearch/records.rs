//! Records: one index a family, each write under its condition.
//!
//! The version of a record is the cluster's own pair of primary term and sequence number, packed into one number. Both only rise, also over
//! a deletion, so a version never comes twice for an id (unless the index itself is put back from a snapshot).

use std::time::Instant;

use bytes::Bytes;
use serde::Deserialize;
use serde_json::{Map, Value, json};
use tokio::time::sleep;

use super::copies::{Sequence, look};
use super::document::{ID, RECEIVED, decode, encode};
use super::indices;
use super::lines::{self, Action, Lines, Outcome, Target};
use super::mappings::Trees;
use super::names::Names;
use super::transport::{FIRST_PAUSE, Failure, LONGEST_PAUSE, Request, Transport};
use crate::store::{Expected, Family, Put, PutOutcome, Record, StoreError};

/// The bits of a version that hold the sequence number: 17 million million writes of a shard; above them a million primaries.
const NUMBER_BITS: u32 = 44;
/// Requests are at most so long, in bytes, but for one of a single record.
const MAX_REQUEST_BYTES: usize = 8 << 20;
/// So many records are deleted in one request.
const DELETIONS: usize = 1_000;

/// Writes, reads and deletes records.
pub(super) struct Records<'a> {
    pub(super) transport: &'a Transport,
    pub(super) names: &'a Names,
    pub(super) trees: Trees,
}

/// A write on its way.
struct Waiting<'a> {
    position: usize,
    put: &'a Put,
    json: Bytes,
}

impl Records<'_> {
    /// Writes records; an outcome for each in order. What was sent and not answered is for the caller to send again.
    pub(super) async fn put(&self, puts: &[Put]) -> Result<Vec<PutOutcome>, StoreError> {
        let mut waiting = Vec::with_capacity(puts.len());
        for (position, put) in puts.iter().enumerate() {
            if put.family.is_series() {
                return Err(StoreError::BadRequest(format!("{} are a time series; write them with bulk", put.family)));
            }
            let json = encode(&put.id, put.received_millis, &put.body, self.trees)
                .map_err(|refusal| StoreError::BadRequest(format!("{} {}: {refusal}", put.family, put.id)))?;
            waiting.push(Waiting { position, put, json: json.into() });
        }
        let mut outcomes: Vec<Option<PutOutcome>> = vec![None; puts.len()];
        let (mut pause, mut started) = (FIRST_PAUSE, Instant::now());
        while !waiting.is_empty() {
            let before = waiting.len();
            let reason = self.put_some(&mut waiting, &mut outcomes).await?;
            if waiting.len() < before {
                (pause, started) = (FIRST_PAUSE, Instant::now());
            } else if started.elapsed() + pause > self.transport.patience() {
                return Err(StoreError::Unavailable(reason));
            } else {
                sleep(pause).await;
                pause = (pause * 2).min(LONGEST_PAUSE);
            }
        }
        // Every position has got its outcome when nothing waits.
        Ok(outcomes.into_iter().flatten().collect())
    }

    /// Sends the first request of what waits. What has an outcome is taken out; where nothing has, the reason is returned.
    async fn put_some(&self, waiting: &mut Vec<Waiting<'_>>, outcomes: &mut [Option<PutOutcome>]) -> Result<String, StoreError> {
        let mut request = Lines::default();
        let mut sent = Vec::new();
        let mut conflicts = Vec::new();
        for write in waiting.iter() {
            if !sent.is_empty() && request.bytes() + write.json.len() > MAX_REQUEST_BYTES {
                break;
            }
            let index = self.names.records(write.put.family);
            let target = match write.put.expected {
                Expected::Absent => Action::Create(Target::new(&index, &write.put.id)),
                Expected::Version(version) => match unpack(version) {
                    Some(sequence) => Action::Index(Target::at(&index, &write.put.id, sequence)),
                    None => {
                        conflicts.push((write.position, write.put));
                        continue;
                    }
                },
            };
            request.push(&target, Some(&write.json))?;
            sent.push((write.position, write.put));
        }
        let mut reason = String::new();
        if !sent.is_empty() {
            let answer = match self.transport.send(&Request::lines(lines::PATH, request.into_pieces())).await {
                Ok(answer) => answer,
                Err(Failure::Unreached(reason)) => return Ok(reason),
                Err(Failure::Unanswered(reason)) => return Err(StoreError::Unavailable(reason)),
            };
            match answer.status {
                429 => return Ok(answer.reason()),
                _ if !answer.is_ok() => return Err(answer.error()),
                _ => {}
            }
            let told = lines::outcomes(&answer, sent.len())?;
            for ((position, put), outcome) in sent.into_iter().zip(told) {
                match outcome {
                    Outcome::Done(sequence) => outcomes[position] = Some(PutOutcome::Written(pack(sequence)?)),
                    Outcome::Conflict => conflicts.push((position, put)),
                    Outcome::Refused(why) => return Err(StoreError::BadRequest(format!("{} {}: {why}", put.family, put.id))),
                    // Nothing is done of what is too much; it waits. Of other failures that is not known.
                    Outcome::Later { reason: why, too_much: true } => reason = why,
                    Outcome::Later { reason: why, .. } => return Err(StoreError::Unavailable(why)),
                    Outcome::NoIndex => {
                        indices::create(self.transport, &self.names.records(put.family)).await?;
                        reason = format!("the index of {} was gone", put.family);
                    }
                }
            }
        }
        for ((position, put), there) in conflicts.iter().zip(self.there(&conflicts).await?) {
            // What stood in the way of a new record may be deleted by now; then it is tried again.
            if there.is_some() || put.expected != Expected::Absent {
                outcomes[*position] = Some(PutOutcome::Conflict(there));
            }
        }
        waiting.retain(|write| outcomes[write.position].is_none());
        Ok(reason)
    }

    async fn there(&self, puts: &[(usize, &Put)]) -> Result<Vec<Option<Record>>, StoreError> {
        let asked: Vec<(Family, &str)> = puts.iter().map(|(_, put)| (put.family, put.id.as_str())).collect();
        self.read(&asked).await
    }

    /// The record of an id.
    pub(super) async fn get(&self, family: Family, id: &str) -> Result<Option<Record>, StoreError> {
        if family.is_series() {
            return Err(StoreError::BadRequest(format!("{family} are a time series; find them by search")));
        }
        Ok(self.read(&[(family, id)]).await?.pop().flatten())
    }

    async fn read(&self, asked: &[(Family, &str)]) -> Result<Vec<Option<Record>>, StoreError> {
        if asked.is_empty() {
            return Ok(Vec::new());
        }
        let indices: Vec<String> = asked.iter().map(|(family, _)| self.names.records(*family)).collect();
        let places: Vec<(&str, &str)> = indices.iter().zip(asked).map(|(index, (_, id))| (index.as_str(), *id)).collect();
        let mut records = Vec::with_capacity(asked.len());
        for (looked, (family, id)) in look(self.transport, &places, true).await?.into_iter().zip(asked) {
            records.push(match looked.sequence()? {
                None => None,
                Some(sequence) => Some(Record {
                    version: pack(sequence)?,
                    body: decode(looked.source)
                        .map_err(|error| StoreError::Unavailable(format!("{family} {id} cannot be read: {error}")))?,
                }),
            });
        }
        Ok(records)
    }

    /// Deletes the records received before a time; returns how many. One that is written anew at the same time stays.
    ///
    /// By searching and deleting, which every server can: `_delete_by_query` is a module that may be absent.
    pub(super) async fn delete_older_than(&self, family: Family, received_millis: i64) -> Result<u64, StoreError> {
        let index = self.names.records(family);
        refresh(self.transport, &index).await?;
        let mut deleted = 0;
        let mut after: Option<Vec<Value>> = None;
        loop {
            let mut body = json!({
                "size": DELETIONS,
                "_source": false,
                "seq_no_primary_term": true,
                "query": {"range": {RECEIVED: {"lt": received_millis}}},
                "sort": [{RECEIVED: "asc"}, {ID: "asc"}],
            });
            if let Some(after) = &after {
                body["search_after"] = json!(after);
            }
            let path = format!("/{index}/_search?ignore_unavailable=true&allow_partial_search_results=false");
            let found: Found = self.transport.ask(&Request::post(path, &body)).await?.done()?;
            let Some(last) = found.hits.hits.last() else { return Ok(deleted) };
            after = Some(last.sort.clone());
            deleted += self.delete(&index, &found.hits.hits).await?;
        }
    }

    async fn delete(&self, index: &str, old: &[Old]) -> Result<u64, StoreError> {
        let mut request = Lines::default();
        for record in old {
            request.push(&Action::Delete(Target::at(index, &record.id, record.sequence)), None)?;
        }
        let answer = self.transport.ask(&Request::lines(lines::PATH, request.into_pieces())).await?;
        if !answer.is_ok() {
            return Err(answer.error());
        }
        let mut deleted = 0;
        for outcome in lines::outcomes(&answer, old.len())? {
            match outcome {
                Outcome::Done(_) => deleted += 1,
                Outcome::Conflict | Outcome::NoIndex => {}
                Outcome::Refused(reason) | Outcome::Later { reason, .. } => return Err(StoreError::Unavailable(reason)),
            }
        }
        Ok(deleted)
    }
}

#[derive(Deserialize)]
struct Found {
    hits: Page,
}

#[derive(Deserialize)]
struct Page {
    #[serde(default)]
    hits: Vec<Old>,
}

#[derive(Deserialize)]
struct Old {
    #[serde(rename = "_id")]
    id: String,
    sort: Vec<Value>,
    #[serde(flatten)]
    sequence: Sequence,
}

/// Makes what is written to some indices searchable.
pub(super) async fn refresh(transport: &Transport, indices: &str) -> Result<(), StoreError> {
    let path = format!("/{indices}/_refresh?ignore_unavailable=true&allow_no_indices=true");
    let told: Map<String, Value> = transport.ask(&Request::order(path)).await?.done()?;
    match told.get("_shards").and_then(|shards| shards["failed"].as_u64()) {
        Some(0) => Ok(()),
        _ => Err(StoreError::Unavailable(format!("not all shards could be refreshed: {}", Value::Object(told)))),
    }
}

fn pack(sequence: Sequence) -> Result<u64, StoreError> {
    let fits = sequence.number < 1 << NUMBER_BITS && sequence.term < 1 << (u64::BITS - NUMBER_BITS);
    if fits {
        Ok(sequence.term << NUMBER_BITS | sequence.number)
    } else {
        Err(StoreError::Unavailable("the index of records has seen too many writes; reindex it into a new one".to_owned()))
    }
}

/// The write that a version stands for; `None` for a number that no record ever had as its version.
fn unpack(version: u64) -> Option<Sequence> {
    let sequence = Sequence { number: version & ((1 << NUMBER_BITS) - 1), term: version >> NUMBER_BITS };
    (sequence.term > 0).then_some(sequence)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_holds_both_numbers_and_rises_with_either() {
        let sequence = |term, number| Sequence { number, term };
        let mut last = 0;
        for sequence in [sequence(1, 0), sequence(1, 1), sequence(1, 9_000_000_000), sequence(2, 0), sequence(1_000_000, 5)] {
            let version = pack(sequence).unwrap();

            assert_eq!(unpack(version), Some(sequence));
            assert!(version > last);
            last = version;
        }
        assert_eq!(unpack(7), None);
        assert!(pack(sequence(1, 1 << NUMBER_BITS)).is_err());
    }
}
