//! A search: the request in the cluster's JSON, and what it found.
//!
//! Pages go on after the last hit by its time and id, which order all documents: each page is a search of its own, holds nothing open in
//! the cluster, and misses only what was written behind it meanwhile.

use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::document::{ID, RECEIVED, TIMESTAMP, decode};
use super::mappings::{TREES, Trees};
use super::query;
use super::transport::{Request, Transport};
use crate::store::{Hit, SearchRequest, SearchResponse, StoreError};

/// The most documents that a search returns. Elasticsearch's limit.
const MAX_SIZE: usize = 10_000;

/// Searches some indices.
pub(super) async fn run(transport: &Transport, indices: &str, request: &SearchRequest, trees: Trees) -> Result<SearchResponse, StoreError> {
    let body = body(request, trees)?;
    let path = format!("/{indices}/_search?ignore_unavailable=true&allow_no_indices=true&allow_partial_search_results=false");
    let found: Found = transport.ask(&Request::post(path, &body)).await?.done()?;
    let mut hits = Vec::with_capacity(found.hits.hits.len());
    for hit in found.hits.hits {
        let body = decode(hit.source).map_err(|error| StoreError::Unavailable(format!("document {} cannot be read: {error}", hit.id)))?;
        hits.push(Hit { id: hit.id, sort: hit.sort, body });
    }
    Ok(SearchResponse { total: found.hits.total.value, hits, aggregations: found.aggregations })
}

fn body(request: &SearchRequest, trees: Trees) -> Result<Value, StoreError> {
    if request.size > MAX_SIZE {
        return Err(StoreError::BadRequest(format!(
            "size {} is more than {MAX_SIZE}; ask for less, and go on with `after` from the last hit's sort",
            request.size
        )));
    }
    if trees == Trees::FlatObject
        && let Some(field) = request.aggregations.values().find_map(aggregated_tree)
    {
        return Err(StoreError::BadRequest(format!(
            "{field} cannot be aggregated: this server keeps it as flat_object, which counts the values of other keys too; declare the field \
             in its LogSource's `fields`"
        )));
    }
    let order = if request.ascending { "asc" } else { "desc" };
    let mut body = json!({
        "size": request.size,
        "track_total_hits": true,
        "query": {"bool": {"filter": clauses(request, trees)?}},
        "sort": [{TIMESTAMP: {"order": order, "unmapped_type": "date"}}, {ID: {"order": order, "unmapped_type": "keyword"}}],
    });
    if let Some(after) = &request.after {
        match after.as_slice() {
            [millis, Value::String(_)] if millis.is_i64() => body["search_after"] = json!(after),
            _ => return Err(StoreError::BadRequest("after must be the `sort` of a hit: [milliseconds, id]".to_owned())),
        }
    }
    if !request.aggregations.is_empty() {
        body["aggs"] = Value::Object(request.aggregations.clone());
    }
    Ok(body)
}

/// A field in a tree that an aggregation goes by.
fn aggregated_tree(aggregation: &Value) -> Option<&str> {
    match aggregation {
        Value::Object(members) => {
            let field = members.get("field").and_then(Value::as_str);
            let in_tree = field.filter(|field| TREES.contains(&field.split('.').next().unwrap_or_default()));
            in_tree.or_else(|| members.values().find_map(aggregated_tree))
        }
        Value::Array(values) => values.iter().find_map(aggregated_tree),
        _ => None,
    }
}

/// Text, filters and times: all must hold.
fn clauses(request: &SearchRequest, trees: Trees) -> Result<Vec<Value>, StoreError> {
    let mut clauses = Vec::new();
    clauses.extend(query::of_text(&request.query, trees)?);
    for (field, value) in &request.filters {
        clauses.push(query::filter(field, value)?);
    }
    let mut times = |field: &str, bounds: [(&str, Option<i64>); 2]| {
        let bounds: Map<String, Value> =
            bounds.into_iter().filter_map(|(bound, millis)| Some((bound.to_owned(), json!(millis?)))).collect();
        if !bounds.is_empty() {
            clauses.push(query::times(field, bounds));
        }
    };
    times(TIMESTAMP, [("gte", request.from_millis), ("lt", request.to_millis)]);
    times(RECEIVED, [("gte", request.received_from_millis), ("lt", None)]);
    Ok(clauses)
}

#[derive(Deserialize)]
struct Found {
    hits: Page,
    #[serde(default)]
    aggregations: Map<String, Value>,
}

#[derive(Deserialize)]
struct Page {
    total: Total,
    #[serde(default)]
    hits: Vec<FoundHit>,
}

#[derive(Deserialize)]
struct Total {
    value: u64,
}

#[derive(Deserialize)]
struct FoundHit {
    #[serde(rename = "_id")]
    id: String,
    #[serde(default)]
    sort: Vec<Value>,
    #[serde(rename = "_source", default)]
    source: Map<String, Value>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flat_object_is_not_aggregated() {
        for (aggregation, refused) in [
            (json!({"terms": {"field": "details.Image"}}), true),
            (json!({"terms": {"field": "user.name"}, "aggs": {"in": {"cardinality": {"field": "details.Image"}}}}), true),
            (json!({"composite": {"sources": [{"a": {"terms": {"field": "user.name"}}}, {"b": {"terms": {"field": "group.a"}}}]}}), true),
            (json!({"terms": {"field": "details_of.mine"}}), false),
            (json!({"terms": {"field": "user.name"}}), false),
        ] {
            let aggregations = Map::from_iter([("a".to_owned(), aggregation.clone())]);
            let request = SearchRequest { aggregations, ..SearchRequest::default() };

            assert_eq!(matches!(body(&request, Trees::FlatObject), Err(StoreError::BadRequest(_))), refused, "{aggregation}");
            assert!(body(&request, Trees::Flattened).is_ok(), "{aggregation}");
        }
    }
}
