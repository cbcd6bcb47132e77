//! Aggregations: Elasticsearch's JSON in, Elasticsearch's JSON out.
//!
//! Tantivy reads the same JSON. What is left to do is to name its fields, to refuse what the contract does not hold (see
//! [`crate::store::SearchRequest::aggregations`]), to merge the results of several indices, and to write numbers as Elasticsearch does.
//!
//! One difference stays: among equal counts, and in an order by `_key`, tantivy puts numbers with a fraction behind whole ones.

use serde_json::{Map, Number, Value, json};
use tantivy::aggregation::agg_req::Aggregations;
use tantivy::aggregation::intermediate_agg_result::IntermediateAggregationResults;
use tantivy::aggregation::{AggContextParams, AggregationLimitsGuard, DistributedAggregationCollector};
use tantivy::tokenizer::TokenizerManager;

use super::document::parse_time;
use super::schema::{ID, KEYWORD, RECEIVED, TIMESTAMP};
use crate::store::StoreError;

/// The kinds that are known.
const KINDS: [&str; 4] = ["terms", "date_histogram", "cardinality", "stats"];
/// The memory that the aggregations of one search may take, in bytes.
const MEMORY_LIMIT: u64 = 256 << 20;
/// The buckets that one search may return. Elasticsearch's limit.
const BUCKET_LIMIT: u32 = 65_536;
/// Aggregations nest at most so deep.
const MAX_NESTING: usize = 8;

/// The aggregations of one search.
pub(super) struct Plan {
    /// As asked for.
    asked: Map<String, Value>,
    aggregations: Aggregations,
    context: AggContextParams,
}

impl Plan {
    /// Reads aggregations; `None` where there are none.
    pub(super) fn new(asked: &Map<String, Value>) -> Result<Option<Self>, StoreError> {
        if asked.is_empty() {
            return Ok(None);
        }
        let translated = translate(asked, 1)?;
        let aggregations =
            serde_json::from_value(Value::Object(translated)).map_err(|error| StoreError::BadRequest(format!("aggregations: {error}")))?;
        let limits = AggregationLimitsGuard::new(Some(MEMORY_LIMIT), Some(BUCKET_LIMIT));
        let context = AggContextParams::new(limits, TokenizerManager::default());
        Ok(Some(Self { asked: asked.clone(), aggregations, context }))
    }

    /// What collects them over one index.
    pub(super) fn collector(&self) -> DistributedAggregationCollector {
        DistributedAggregationCollector::from_aggs(self.aggregations.clone(), self.context.clone())
    }

    /// The result over all indices.
    pub(super) fn finish(&self, parts: Vec<IntermediateAggregationResults>) -> Result<Map<String, Value>, StoreError> {
        let bad = |error: tantivy::TantivyError| StoreError::BadRequest(format!("aggregations: {error}"));
        let mut merged = IntermediateAggregationResults::default();
        for (position, part) in parts.into_iter().enumerate() {
            if position == 0 {
                merged = part;
            } else {
                merged.merge_fruits(part).map_err(bad)?;
            }
        }
        let results = merged.into_final_result(self.aggregations.clone(), self.context.limits.clone()).map_err(bad)?;
        match serde_json::to_value(results) {
            Ok(Value::Object(mut results)) => {
                write_as_elasticsearch(&self.asked, &mut results);
                Ok(results)
            }
            Ok(_) => Ok(Map::new()),
            Err(error) => Err(StoreError::BadRequest(format!("aggregations: {error}"))),
        }
    }
}

/// The kind of an aggregation, and its body.
fn kind(aggregation: &Map<String, Value>) -> Option<(&String, &Value)> {
    aggregation.iter().find(|(key, _)| !matches!(key.as_str(), "aggs" | "aggregations" | "meta"))
}

/// The aggregations within an aggregation.
fn nested(aggregation: &Map<String, Value>) -> Option<&Map<String, Value>> {
    aggregation.get("aggs").or_else(|| aggregation.get("aggregations"))?.as_object()
}

/// The same aggregations in tantivy's names.
fn translate(aggregations: &Map<String, Value>, nesting: usize) -> Result<Map<String, Value>, StoreError> {
    if nesting > MAX_NESTING {
        return Err(StoreError::BadRequest(format!("aggregations nest deeper than {MAX_NESTING}; ask in several searches")));
    }
    let mut translated = Map::new();
    for (name, aggregation) in aggregations {
        let refuse = |what: String| StoreError::BadRequest(format!("aggregation {name}: {what}"));
        let aggregation =
            aggregation.as_object().ok_or_else(|| refuse("must be an object such as {\"terms\": {\"field\": ...}}".to_owned()))?;
        let Some((kind, body)) = kind(aggregation).filter(|(kind, _)| KINDS.contains(&kind.as_str())) else {
            return Err(refuse(format!("must be one of {}", KINDS.join(", "))));
        };
        let mut body = body.as_object().cloned().ok_or_else(|| refuse(format!("{kind} must be an object")))?;
        let field = body.get("field").and_then(Value::as_str).ok_or_else(|| refuse(format!("{kind} needs a \"field\"")))?;
        let field = match field {
            ID | TIMESTAMP | RECEIVED => field.to_owned(),
            path => format!("{KEYWORD}.{path}"),
        };
        if kind == "date_histogram" && body.contains_key("calendar_interval") {
            return Err(refuse("calendar_interval is not known to this store; give \"fixed_interval\", such as \"1d\"".to_owned()));
        }
        body.insert("field".to_owned(), Value::String(field));
        let mut one = Map::new();
        one.insert(kind.clone(), Value::Object(body));
        if let Some(nested) = nested(aggregation) {
            one.insert("aggs".to_owned(), Value::Object(translate(nested, nesting + 1)?));
        }
        translated.insert(name.clone(), Value::Object(one));
    }
    Ok(translated)
}

/// Writes what tantivy writes otherwise: whole numbers of milliseconds and of values without a fraction, times with milliseconds.
fn write_as_elasticsearch(asked: &Map<String, Value>, results: &mut Map<String, Value>) {
    for (name, aggregation) in asked {
        let (Some(aggregation), Some(result)) = (aggregation.as_object(), results.get_mut(name).and_then(Value::as_object_mut)) else {
            continue;
        };
        let kind_and_body = kind(aggregation);
        let field = kind_and_body.and_then(|(_, body)| body.get("field")?.as_str()).unwrap_or_default();
        let in_details = field.split('.').next() == Some("details");
        let kind = kind_and_body.map(|(kind, _)| kind.as_str());
        if kind == Some("cardinality")
            && let Some(value) = result.get_mut("value")
        {
            make_whole(value);
        }
        if kind == Some("stats") && result.get("count") == Some(&json!(0)) {
            result.insert("sum".to_owned(), json!(0.0));
        }
        if kind == Some("terms") {
            result.entry("doc_count_error_upper_bound").or_insert(json!(0));
        }
        let Some(buckets) = result.get_mut("buckets").and_then(Value::as_array_mut) else { continue };
        for bucket in buckets.iter_mut().filter_map(Value::as_object_mut) {
            if let Some(key) = bucket.get_mut("key") {
                make_whole(key);
                // Strings that read as times are times everywhere but in `details`, and tantivy writes those as text.
                let millis = match (kind, &*key) {
                    (Some("date_histogram"), Value::Number(millis)) => millis.as_i64(),
                    (Some("terms"), Value::String(text)) if !in_details => parse_time(text).map(jiff::Timestamp::as_millisecond),
                    _ => None,
                };
                if let Some(time) = millis.and_then(|millis| jiff::Timestamp::from_millisecond(millis).ok()) {
                    *key = json!(time.as_millisecond());
                    bucket.insert("key_as_string".to_owned(), Value::String(format!("{time:.3}")));
                }
            }
            if let Some(nested) = nested(aggregation) {
                write_as_elasticsearch(nested, bucket);
            }
        }
    }
}

/// `3.0` becomes `3`.
fn make_whole(value: &mut Value) {
    /// Up to here floats hold whole numbers exactly: 2^53.
    const EXACT: f64 = 9_007_199_254_740_992.0;
    if let Some(number) = value.as_f64().filter(|number| !value.is_i64() && number.fract() == 0.0 && number.abs() <= EXACT) {
        #[expect(clippy::cast_possible_truncation, reason = "whole and within 2^53")]
        let whole = number as i64;
        *value = Value::Number(Number::from(whole));
    }
}
