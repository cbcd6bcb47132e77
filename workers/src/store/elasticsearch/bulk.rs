//! Writing time series: each document once, all that can be, however often it takes.
//!
//! A bulk goes in requests of at most [`MAX_REQUEST_BYTES`]. Of their answers each line is looked at by itself: one that is refused is
//! told with the cluster's reason, one that is for later is sent again, alone with its like. A document that was sent to an index goes there
//! again, never to a newer one: whether or not the first attempt was done, `create` makes it once.
//!
//! One that may have been written before is looked for first in the other indices of its day and of the days beside it, and written only
//! where it is not found; in the index that it goes to, `create` looks by itself. Two processes may look at the same moment, find nothing,
//! and write into two indices; so whoever wrote looks once more, and of several copies the one in the first index stays. Whichever of the two
//! writes last sees both. Never is a look asked for in the index just written: it would make the cluster refresh it.

use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use futures::future::try_join_all;
use jiff::civil::Date;
use tokio::time::sleep;
use tracing::{debug, warn};

use super::copies::{Sequence, look};
use super::document::encode;
use super::indices::{Days, Indices};
use super::limiter::Limiter;
use super::lines::{self, Action, Lines, Outcome, Target};
use super::mappings::Trees;
use super::names::{around, day_of};
use super::transport::{FIRST_PAUSE, Failure, LONGEST_PAUSE, Request, Transport};
use crate::store::{Document, Family, ItemResult, Rejection, StoreError};

/// Requests are at most so long, in bytes, but for one of a single document.
const MAX_REQUEST_BYTES: usize = 8 << 20;
/// So many documents go in a request at most.
const MAX_REQUEST_DOCUMENTS: usize = 5_000;

/// Writes documents.
pub(super) struct Writer<'a> {
    pub(super) transport: &'a Transport,
    pub(super) indices: &'a Indices,
    pub(super) limiter: &'a Limiter,
}

/// A document on its way.
pub(super) struct Line {
    /// Its place in the bulk.
    position: usize,
    family: Family,
    day: Date,
    id: String,
    json: Bytes,
    may_repeat: bool,
    /// The index that it was sent to.
    sent_to: Option<Arc<str>>,
}

/// What became of a line in one request.
enum End {
    /// It is there; the index, and which write it is, if it was this one.
    There(Arc<str>, Option<Sequence>),
    Refused(String),
}

impl Writer<'_> {
    /// Writes time series; a result for each document in order.
    pub(super) async fn write(&self, lines: Vec<Result<Line, Rejection>>) -> Result<Vec<ItemResult>, StoreError> {
        let mut waiting = Vec::with_capacity(lines.len());
        let keep = |(position, line): (usize, Result<Line, Rejection>)| line.map(|line| waiting.push(Line { position, ..line }));
        let mut results: Vec<ItemResult> = lines.into_iter().enumerate().map(keep).collect();
        // Of one id the first goes; the next gets its turn only if that one is refused.
        while !waiting.is_empty() {
            let (firsts, others) = firsts(waiting);
            let requests = in_requests(firsts).into_iter().map(|lines| self.write_all(lines));
            let mut refused = HashSet::new();
            for (line, end) in try_join_all(requests).await?.into_iter().flatten() {
                if let End::Refused(reason) = end {
                    results[line.position] = Err(Rejection { reason });
                    refused.insert((line.family, line.id));
                }
            }
            waiting = others.into_iter().filter(|line| refused.contains(&(line.family, line.id.clone()))).collect();
        }
        Ok(results)
    }

    /// Writes the lines of one request until each has an end, or patience does.
    async fn write_all(&self, mut lines: Vec<Line>) -> Result<Vec<(Line, End)>, StoreError> {
        let started = Instant::now();
        let mut pause = FIRST_PAUSE;
        let mut ended = self.leave_out_repeats(&mut lines).await?;
        loop {
            let before = lines.len();
            let reason = self.write_once(&mut lines, &mut ended).await?;
            if lines.is_empty() {
                break;
            }
            if lines.len() == before && started.elapsed() + pause > self.transport.patience() {
                return Err(StoreError::Unavailable(reason));
            }
            debug!(reason, left = lines.len(), "a part of a bulk is sent again");
            sleep(pause).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
        self.undo_doubles(&ended).await?;
        Ok(ended)
    }

    /// Sends what is left once. What has an end moves to `ended`; what is for later stays, and the reason is returned.
    async fn write_once(&self, lines: &mut Vec<Line>, ended: &mut Vec<(Line, End)>) -> Result<String, StoreError> {
        let mut request = Lines::default();
        let mut current: HashMap<(Family, Date), Arc<str>> = HashMap::new();
        for line in lines.iter_mut() {
            let place = (line.family, line.day);
            let index = match (&line.sent_to, current.get(&place)) {
                (Some(index), _) | (None, Some(index)) => Arc::clone(index),
                (None, None) => {
                    let index = Arc::from(self.indices.current(self.transport, line.family, line.day).await?);
                    current.insert(place, Arc::clone(&index));
                    index
                }
            };
            request.push(&Action::Create(Target::new(&index, &line.id)), Some(&line.json))?;
            line.sent_to = Some(index);
        }
        let permit = self.limiter.acquire().await;
        let answer = match self.transport.send(&Request::lines(lines::PATH, request.into_pieces())).await {
            Ok(answer) => answer,
            Err(Failure::Unreached(reason)) => return Ok(reason),
            Err(Failure::Unanswered(reason)) => {
                permit.was_too_much();
                return Ok(reason);
            }
        };
        if answer.is_for_later() {
            permit.was_too_much();
            return Ok(answer.reason());
        }
        if !answer.is_ok() {
            drop(permit);
            return match answer.status {
                // The request as a whole: by halves, the one that is at fault is found.
                400 | 413 => self.write_halves(lines, ended, answer.reason()).await,
                _ => Ok(answer.reason()),
            };
        }
        let outcomes = lines::outcomes(&answer, lines.len())?;
        if outcomes.iter().any(|outcome| matches!(outcome, Outcome::Later { too_much: true, .. })) {
            permit.was_too_much();
        } else {
            permit.went_well();
        }
        let mut reason = String::new();
        for (mut line, outcome) in std::mem::take(lines).into_iter().zip(outcomes) {
            let index = line.sent_to.clone().unwrap_or_else(|| Arc::from(""));
            match outcome {
                Outcome::Done(sequence) => ended.push((line, End::There(index, Some(sequence)))),
                Outcome::Conflict => ended.push((line, End::There(index, None))),
                Outcome::Refused(reason) => ended.push((line, End::Refused(reason))),
                Outcome::Later { reason: why, .. } => {
                    reason = why;
                    lines.push(line);
                }
                Outcome::NoIndex => {
                    self.indices.forget(line.family, line.day);
                    reason = format!("the index {index} is gone");
                    line.sent_to = None;
                    lines.push(line);
                }
            }
        }
        Ok(reason)
    }

    /// Sends the two halves of what was refused as a whole; a single document is refused itself.
    async fn write_halves(&self, lines: &mut Vec<Line>, ended: &mut Vec<(Line, End)>, reason: String) -> Result<String, StoreError> {
        if lines.len() <= 1 {
            ended.extend(lines.drain(..).map(|line| (line, End::Refused(reason.clone()))));
            return Ok(reason);
        }
        let mut last = reason;
        let mut other = lines.split_off(lines.len() / 2);
        let mut left = Vec::new();
        for half in [&mut *lines, &mut other] {
            last = Box::pin(self.write_once(half, ended)).await?;
            left.append(half);
        }
        *lines = left;
        Ok(last)
    }

    /// Takes out the lines that are written already.
    async fn leave_out_repeats(&self, lines: &mut Vec<Line>) -> Result<Vec<(Line, End)>, StoreError> {
        if !lines.iter().any(|line| line.may_repeat) {
            return Ok(Vec::new());
        }
        let mut current: HashMap<(Family, Date), String> = HashMap::new();
        for line in lines.iter().filter(|line| line.may_repeat) {
            if let Entry::Vacant(place) = current.entry((line.family, line.day)) {
                place.insert(self.indices.current(self.transport, line.family, line.day).await?);
            }
        }
        let goes_to = |line: &Line| current.get(&(line.family, line.day)).map_or("", String::as_str);
        let may_repeat: Vec<(&Line, &str)> = lines.iter().filter(|line| line.may_repeat).map(|line| (line, goes_to(line))).collect();
        let mut there: HashMap<usize, String> = HashMap::new();
        for (position, index, _) in self.copies(&may_repeat).await? {
            there.entry(position).or_insert(index);
        }
        let (mut ended, mut left) = (Vec::new(), Vec::new());
        for line in lines.drain(..) {
            match there.remove(&line.position) {
                Some(index) => ended.push((line, End::There(Arc::from(index), None))),
                None => left.push(line),
            }
        }
        *lines = left;
        Ok(ended)
    }

    /// Of documents that were written here and, at the same moment, into another index too, takes away all but one.
    async fn undo_doubles(&self, ended: &[(Line, End)]) -> Result<(), StoreError> {
        let mut own: HashMap<usize, (&Line, &str, Sequence)> = HashMap::new();
        for (line, end) in ended {
            if let End::There(index, Some(sequence)) = end
                && line.may_repeat
            {
                own.insert(line.position, (line, index, *sequence));
            }
        }
        if own.is_empty() {
            return Ok(());
        }
        let written: Vec<(&Line, &str)> = own.values().map(|(line, index, _)| (*line, *index)).collect();
        let mut others: HashMap<usize, Vec<(String, Sequence)>> = HashMap::new();
        for (position, index, sequence) in self.copies(&written).await? {
            others.entry(position).or_default().push((index, sequence));
        }
        let mut doubles: Vec<(String, String, Sequence)> = Vec::new();
        for (position, others) in others {
            let Some((line, index, sequence)) = own.get(&position) else { continue };
            // One before this one stays. Else this one does; what was written after the look is of the same moment, and goes.
            if others.iter().any(|(other, _)| other.as_str() < *index) {
                doubles.push(((*index).to_owned(), line.id.clone(), *sequence));
            } else {
                doubles.extend(others.into_iter().map(|(other, sequence)| (other, line.id.clone(), sequence)));
            }
        }
        self.delete(doubles).await
    }

    /// Deletes just these writes, until all are gone.
    async fn delete(&self, mut doubles: Vec<(String, String, Sequence)>) -> Result<(), StoreError> {
        while !doubles.is_empty() {
            warn!(count = doubles.len(), "documents were written twice at the same moment; one of each stays");
            let mut request = Lines::default();
            for (index, id, sequence) in &doubles {
                request.push(&Action::Delete(Target::at(index, id, *sequence)), None)?;
            }
            // May be done twice: a write that is gone is a conflict, and gone.
            let answer = self.transport.ask(&Request::lines(lines::PATH, request.into_pieces())).await?;
            if !answer.is_ok() {
                return Err(answer.error());
            }
            let mut outcomes = lines::outcomes(&answer, doubles.len())?.into_iter();
            doubles.retain(|_| matches!(outcomes.next(), Some(Outcome::Later { .. } | Outcome::Refused(_))));
        }
        Ok(())
    }

    /// The copies of lines in all indices where they could lie, but for the one beside each: in the order of the indices the line's position,
    /// the index, which write.
    async fn copies(&self, lines: &[(&Line, &str)]) -> Result<Vec<(usize, String, Sequence)>, StoreError> {
        let days: Days = lines.iter().flat_map(|(line, _)| around(line.day).map(|day| (line.family, day))).collect();
        let listed = self.indices.list(self.transport, &days).await?;
        // Of few entries, and asked three times a line.
        let mut by_day: BTreeMap<(Family, Date), Vec<String>> = BTreeMap::new();
        for (family, generation) in listed {
            let name = self.indices.names().series(family, &generation);
            by_day.entry((family, generation.day)).or_default().push(name);
        }
        let (mut places, mut positions) = (Vec::new(), Vec::new());
        for (line, passed_over) in lines {
            for day in around(line.day) {
                for index in by_day.get(&(line.family, day)).into_iter().flatten().filter(|index| index != passed_over) {
                    places.push((index.as_str(), line.id.as_str()));
                    positions.push(line.position);
                }
            }
        }
        let mut copies = Vec::new();
        for ((position, (index, _)), looked) in positions.into_iter().zip(&places).zip(look(self.transport, &places, false).await?) {
            if let Some(sequence) = looked.sequence()? {
                copies.push((position, (*index).to_owned(), sequence));
            }
        }
        Ok(copies)
    }
}

impl Line {
    /// Refuses what no index can take.
    pub(super) fn new(document: Document, trees: Trees) -> Result<Self, Rejection> {
        let Document { family, id, received_millis, may_repeat, body } = document;
        let day = day_of(received_millis)
            .ok_or_else(|| Rejection { reason: format!("the receive time {received_millis} ms is no date of a log") })?;
        let json = encode(&id, received_millis, &body, trees)?.into();
        Ok(Self { position: 0, family, day, id, json, may_repeat, sent_to: None })
    }

    /// Bytes in a request, roughly.
    fn bytes(&self) -> usize {
        self.json.len() + self.id.len() + 100
    }
}

/// The first line of each id, and the others.
fn firsts(lines: Vec<Line>) -> (Vec<Line>, Vec<Line>) {
    let mut ids: HashSet<(Family, &str)> = HashSet::with_capacity(lines.len());
    let is_first: Vec<bool> = lines.iter().map(|line| ids.insert((line.family, &line.id))).collect();
    let (mut firsts, mut others) = (Vec::with_capacity(lines.len()), Vec::new());
    for (line, is_first) in lines.into_iter().zip(is_first) {
        if is_first { firsts.push(line) } else { others.push(line) }
    }
    (firsts, others)
}

/// Lines cut into requests.
fn in_requests(lines: Vec<Line>) -> Vec<Vec<Line>> {
    let mut requests: Vec<Vec<Line>> = Vec::new();
    let mut bytes = 0;
    for line in lines {
        let fits = bytes + line.bytes() <= MAX_REQUEST_BYTES;
        match requests.last_mut() {
            Some(request) if fits && request.len() < MAX_REQUEST_DOCUMENTS => {
                bytes += line.bytes();
                request.push(line);
            }
            _ => {
                bytes = line.bytes();
                requests.push(vec![line]);
            }
        }
    }
    requests
}
