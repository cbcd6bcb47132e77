//! A search over some indices, as one.

use jiff::Timestamp;
use serde_json::{Map, Value, json};
use tantivy::query::Query;
use tantivy::schema::Value as _;
use tantivy::{Searcher, TantivyDocument, TantivyError};

use super::aggregations::Plan;
use super::newest::{After, Candidate, Newest};
use super::partition::index_failed;
use super::query;
use super::schema::{FIELDS, TIMESTAMP};
use crate::store::{Hit, SearchRequest, SearchResponse, StoreError};

/// The most documents that a search returns.
const MAX_SIZE: usize = 10_000;

/// A search, read and checked.
pub(super) struct Search {
    query: Box<dyn Query>,
    newest: Newest,
    plan: Option<Plan>,
    from_millis: Option<i64>,
    to_millis: Option<i64>,
}

impl Search {
    /// Reads a request. `now` is what the word means in the query.
    pub(super) fn new(request: &SearchRequest, now: Timestamp) -> Result<Self, StoreError> {
        if request.size > MAX_SIZE {
            return Err(StoreError::BadRequest(format!(
                "size {} is more than {MAX_SIZE}; ask for less, and go on with `after` from the last hit's sort",
                request.size
            )));
        }
        let after = request.after.as_deref().map(after).transpose()?;
        Ok(Self {
            query: query::of_request(request, now)?,
            newest: Newest { size: request.size, ascending: request.ascending, after },
            plan: Plan::new(&request.aggregations)?,
            from_millis: request.from_millis,
            to_millis: request.to_millis,
        })
    }

    /// Searches these indices.
    pub(super) fn run(&self, searchers: &[Searcher]) -> Result<SearchResponse, StoreError> {
        let mut total = 0;
        let mut candidates: Vec<(usize, Candidate)> = Vec::new();
        let mut aggregated = Vec::new();
        for (position, searcher) in searchers.iter().enumerate() {
            if !self.may_hold(searcher).map_err(|error| index_failed(&error))? {
                continue;
            }
            let collector = (self.newest.clone(), self.plan.as_ref().map(Plan::collector));
            let (page, aggregations) = searcher.search(&*self.query, &collector).map_err(failed)?;
            total += page.total;
            candidates.extend(page.candidates.into_iter().map(|candidate| (position, candidate)));
            aggregated.extend(aggregations);
        }
        let hits = self.page(searchers, candidates).map_err(|error| index_failed(&error))?;
        let aggregations = match &self.plan {
            Some(plan) => plan.finish(aggregated)?,
            None => Map::new(),
        };
        Ok(SearchResponse { total, hits, aggregations })
    }

    /// Whether an index has documents in the time range at all: what most days of a long retention do not.
    fn may_hold(&self, searcher: &Searcher) -> tantivy::Result<bool> {
        for segment in searcher.segment_readers() {
            let times = segment.fast_fields().date(TIMESTAMP)?;
            let (oldest, newest) = (times.min_value().into_timestamp_millis(), times.max_value().into_timestamp_millis());
            let too_old = self.from_millis.is_some_and(|from| newest < from);
            let too_new = self.to_millis.is_some_and(|to| oldest >= to);
            if !too_old && !too_new {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// The documents of the page, in order.
    fn page(&self, searchers: &[Searcher], mut candidates: Vec<(usize, Candidate)>) -> tantivy::Result<Vec<Hit>> {
        let size = self.newest.size;
        let by_time = |one: &(usize, Candidate), other: &(usize, Candidate)| self.newest.order(one.1.millis.cmp(&other.1.millis));
        if candidates.len() > size && size > 0 {
            // What is later than the last of the page by time alone cannot be on it, whatever its id.
            let (_, (_, last), _) = candidates.select_nth_unstable_by(size - 1, by_time);
            let last = *last;
            candidates.retain(|candidate| by_time(candidate, &(0, last)).is_le());
        }
        let mut ordered = Vec::with_capacity(candidates.len());
        for (position, candidate) in candidates {
            ordered.push((candidate.millis, candidate.id(&searchers[position])?, position, candidate.address));
        }
        ordered.sort_unstable_by(|one, other| self.newest.order((one.0, &one.1).cmp(&(other.0, &other.1))));
        ordered.truncate(size);
        let mut hits = Vec::with_capacity(ordered.len());
        for (millis, id, position, address) in ordered {
            let document: TantivyDocument = searchers[position].doc(address)?;
            let source = document.get_first(FIELDS.source).and_then(|value| value.as_bytes()).unwrap_or_default();
            let body = serde_json::from_slice(source).map_err(|error| TantivyError::InternalError(format!("document {id}: {error}")))?;
            hits.push(Hit { sort: vec![json!(millis), json!(id)], id, body });
        }
        Ok(hits)
    }
}

/// Reads the `sort` of a hit.
fn after(sort: &[Value]) -> Result<After, StoreError> {
    match sort {
        [millis, Value::String(id)] if millis.as_i64().is_some() => {
            Ok(After { millis: millis.as_i64().unwrap_or_default(), id: id.clone() })
        }
        _ => Err(StoreError::BadRequest("after must be the `sort` of a hit: [milliseconds, id]".to_owned())),
    }
}

/// An error of a search: the request's fault where it asked for too much.
fn failed(error: TantivyError) -> StoreError {
    match error {
        TantivyError::AggregationError(error) => {
            StoreError::BadRequest(format!("aggregations: {error}; narrow the query or ask for fewer buckets"))
        }
        TantivyError::InvalidArgument(error) | TantivyError::SchemaError(error) | TantivyError::FieldNotFound(error) => {
            StoreError::BadRequest(error)
        }
        error => index_failed(&error),
    }
}
