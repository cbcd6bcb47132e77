//! Templates: what the cluster is told before the first index is made, and how a newer product tells it more.
//!
//! | name | what |
//! |---|---|
//! | `PREFIX-settings`, `PREFIX-fields` | component templates: settings, and the fields that families have in common |
//! | `PREFIX-FAMILY` | an index template a family |
//!
//! They are put at the start, unless they are there as they should be or a newer product has put its own. An index that is there already gets the fields that are new to it;
//! what cannot change in place waits for the next index, and the log says so.

use std::time::Duration;

use serde::Deserialize;
use serde_json::{Map, Value, json};
use sha2::{Digest as _, Sha256};
use tracing::{info, warn};

use super::mappings::{self, Dialect, VERSION};
use super::names::Names;
use super::transport::{Request, Transport};
use crate::store::{Family, StoreError};

/// Before the templates of others, with their usual priorities.
const PRIORITY: u64 = 500;
/// Fields that one index may have.
const MAX_FIELDS: u64 = 2000;

/// What new indices are made with.
#[derive(Debug, Clone)]
pub(super) struct IndexSettings {
    pub(super) shards: u16,
    pub(super) replicas: u16,
    /// How soon a search sees what is written.
    pub(super) refresh: Duration,
}

impl IndexSettings {
    /// What an index that is there can take over, in the cluster's own words.
    fn changeable(&self, family: Family) -> Map<String, Value> {
        let settings = [("number_of_replicas", self.replicas.to_string()), ("refresh_interval", self.refresh_interval(family))];
        settings.into_iter().map(|(name, value)| (name.to_owned(), Value::String(value))).collect()
    }

    /// Records are few, and people wait for them: they are refreshed twice as often. A node of two cores refreshes one index at a time, and
    /// so each of theirs may have to wait for a long one of the events.
    fn refresh_interval(&self, family: Family) -> String {
        let refresh = if family.is_series() { self.refresh } else { self.refresh / 2 };
        format!("{}ms", refresh.as_millis().max(1))
    }

    /// What all families have in common.
    fn of_templates(&self, dialect: Dialect) -> Value {
        let mut settings = json!({
            "index.number_of_shards": self.shards,
            // An answer means that it is on disk.
            "index.translog.durability": "request",
            "index.mapping.total_fields.limit": MAX_FIELDS,
            "index.number_of_replicas": self.replicas.to_string(),
        });
        if dialect.limits_fields {
            settings["index.mapping.total_fields.ignore_dynamic_beyond_limit"] = json!(true);
        }
        settings
    }
}

/// Puts the templates, in the newest dialect that the server knows, unless just these are there.
pub(super) async fn put(transport: &Transport, names: &Names, settings: &IndexSettings) -> Result<(), StoreError> {
    let digest = digest(names, settings);
    match there(transport, names).await? {
        Some(there) if there.version > VERSION => {
            warn!(
                there.version,
                own = VERSION,
                "the templates in the cluster are of a newer version of this product; they stay as they are"
            );
            return Ok(());
        }
        Some(there) if there.digest == digest => return Ok(()),
        _ => {}
    }
    let mut dialect = Dialect::NEWEST;
    loop {
        match put_in(transport, names, settings, dialect, &digest).await {
            Err(StoreError::BadRequest(reason)) => match dialect.without_what_is_refused(&reason) {
                Some((other, lacks)) => {
                    info!("the server does not have {lacks}");
                    dialect = other;
                }
                None => return Err(StoreError::BadRequest(format!("the templates are refused: {reason}"))),
            },
            done => return done,
        }
    }
}

async fn put_in(transport: &Transport, names: &Names, settings: &IndexSettings, dialect: Dialect, digest: &str) -> Result<(), StoreError> {
    for (path, body) in bodies(names, settings, dialect, digest) {
        done(transport, Request::put(path, &body)).await?;
    }
    Ok(())
}

/// The paths and bodies of all templates, in the order in which they build on each other. That of events comes last: where it is, all are.
fn bodies(names: &Names, settings: &IndexSettings, dialect: Dialect, digest: &str) -> Vec<(String, Value)> {
    let meta = json!({"redoubt": {"version": VERSION, "digest": digest}});
    let (settings_name, fields_name) = (names.template("settings"), names.template("fields"));
    let mut bodies = vec![
        (format!("/_component_template/{settings_name}"), json!({"template": {"settings": settings.of_templates(dialect)}, "_meta": meta})),
        (format!("/_component_template/{fields_name}"), json!({"template": {"mappings": mappings::common(dialect)}, "_meta": meta})),
    ];
    for family in Family::ALL.into_iter().rev() {
        let mut parts = vec![&settings_name];
        if mappings::has_common(family) {
            parts.push(&fields_name);
        }
        let body = json!({
            "index_patterns": [names.all(family)],
            "priority": PRIORITY,
            "version": VERSION,
            "composed_of": parts,
            "template": {
                "mappings": mappings::of(family, dialect),
                "settings": {"index.refresh_interval": settings.refresh_interval(family)},
            },
            "_meta": meta,
        });
        bodies.push((format!("/_index_template/{}", names.template(family.as_str())), body));
    }
    bodies
}

/// By what it is told whether the templates in the cluster are these. The dialect is the server's, and so no part of it.
fn digest(names: &Names, settings: &IndexSettings) -> String {
    let mut hash = Sha256::new();
    for (path, body) in bodies(names, settings, Dialect::NEWEST, "") {
        hash.update(path);
        hash.update(body.to_string());
    }
    hex::encode(&hash.finalize()[..16])
}

async fn done(transport: &Transport, request: Request) -> Result<(), StoreError> {
    transport.ask(&request).await?.done::<Value>().map(drop)
}

/// What the templates that are there say of themselves.
#[derive(Debug, Default, Deserialize)]
struct There {
    #[serde(default)]
    version: u64,
    #[serde(default)]
    digest: String,
}

async fn there(transport: &Transport, names: &Names) -> Result<Option<There>, StoreError> {
    let answer = transport.ask(&Request::get(format!("/_index_template/{}", names.template(Family::Events.as_str())))).await?;
    if answer.status == 404 {
        return Ok(None);
    }
    let found: Value = answer.done()?;
    Ok(serde_json::from_value(found["index_templates"][0]["index_template"]["_meta"]["redoubt"].clone()).ok())
}

/// Brings indices that are there, one of each family in order, up to their templates: adds fields, and changes the settings that can change.
pub(super) async fn upgrade(transport: &Transport, indices: &[String], settings: &IndexSettings) -> Result<(), StoreError> {
    let there: Value = transport.ask(&Request::get(format!("/{}", indices.join(",")))).await?.done()?;
    for (index, family) in indices.iter().zip(Family::ALL) {
        let mapping = &there[index]["mappings"];
        if mapping["_meta"]["redoubt"]["version"].as_u64().is_none_or(|version| version < VERSION) {
            add_fields(transport, index, mapping).await?;
        }
        let wanted = settings.changeable(family);
        let present = &there[index]["settings"]["index"];
        if wanted.iter().any(|(name, value)| present[name] != *value)
            && let Err(error) = done(transport, Request::put(format!("/{index}/_settings"), &json!({"index": wanted}))).await
        {
            warn!(index, %error, "the settings of this index could not be changed");
        }
    }
    Ok(())
}

async fn add_fields(transport: &Transport, index: &str, there: &Value) -> Result<(), StoreError> {
    let simulated: Value = transport.ask(&Request::order(format!("/_index_template/_simulate_index/{index}"))).await?.done()?;
    let wanted = &simulated["template"]["mappings"];
    let properties = |mapping: &Value| mapping["properties"].as_object().cloned().unwrap_or_default();
    let (additions, others) = mappings::missing(&properties(wanted), &properties(there));
    if !others.is_empty() {
        warn!(index, fields = others.join(", "), "fields have another type in this index than they will have in the next one");
    }
    // The new version is said of the index, so that the next start need not compare again.
    let body = json!({"_meta": wanted["_meta"], "properties": additions});
    if let Err(error) = done(transport, Request::put(format!("/{index}/_mapping"), &body)).await {
        warn!(index, %error, "new fields could not be added to this index; the next one has them");
    }
    Ok(())
}
