//! Templates: what the cluster is told before the first index is made, and how a newer product tells it more.
//!
//! | name | what |
//! |---|---|
//! | `PREFIX-settings`, `PREFIX-fields` | component templates: settings, and the fields that families have in common |
//! | `PREFIX-FAMILY` | an index template a family |
//!
//! They are put at each start, unless a newer product has put its own. An index that is there already gets the fields that are new to it;
//! what cannot change in place waits for the next index, and the log says so.

use serde::Deserialize;
use serde_json::{Map, Value, json};
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
    pub(super) refresh_millis: u128,
}

impl IndexSettings {
    fn of_templates(&self, dialect: Dialect) -> Value {
        let mut settings = json!({
            "index.number_of_shards": self.shards,
            "index.number_of_replicas": self.replicas,
            "index.refresh_interval": format!("{}ms", self.refresh_millis),
            // An answer means that it is on disk.
            "index.translog.durability": "request",
            "index.mapping.total_fields.limit": MAX_FIELDS,
        });
        if dialect.limits_fields {
            settings["index.mapping.total_fields.ignore_dynamic_beyond_limit"] = json!(true);
        }
        settings
    }
}

/// Puts the templates, in the newest dialect that the server knows.
pub(super) async fn put(transport: &Transport, names: &Names, settings: &IndexSettings) -> Result<(), StoreError> {
    let newer = version_there(transport, names).await?.filter(|version| *version > VERSION);
    if let Some(version) = newer {
        warn!(version, own = VERSION, "the templates in the cluster are of a newer version of this product; they stay as they are");
        return Ok(());
    }
    let mut dialect = Dialect::NEWEST;
    loop {
        match put_in(transport, names, settings, dialect).await {
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

async fn put_in(transport: &Transport, names: &Names, settings: &IndexSettings, dialect: Dialect) -> Result<(), StoreError> {
    let meta = json!({"redoubt": {"version": VERSION}});
    let (settings_name, fields_name) = (names.template("settings"), names.template("fields"));
    let components = [
        (&settings_name, json!({"template": {"settings": settings.of_templates(dialect)}, "_meta": meta})),
        (&fields_name, json!({"template": {"mappings": mappings::common(dialect)}, "_meta": meta})),
    ];
    for (name, body) in components {
        done(transport, Request::put(format!("/_component_template/{name}"), &body)).await?;
    }
    for family in Family::ALL {
        let mut parts = vec![&settings_name];
        if mappings::has_common(family) {
            parts.push(&fields_name);
        }
        let body = json!({
            "index_patterns": [names.all(family)],
            "priority": PRIORITY,
            "version": VERSION,
            "composed_of": parts,
            "template": {"mappings": mappings::of(family, dialect)},
            "_meta": meta,
        });
        done(transport, Request::put(format!("/_index_template/{}", names.template(family.as_str())), &body)).await?;
    }
    Ok(())
}

async fn done(transport: &Transport, request: Request) -> Result<(), StoreError> {
    transport.ask(&request).await?.done::<Value>().map(drop)
}

/// The version of the templates that are there.
async fn version_there(transport: &Transport, names: &Names) -> Result<Option<u64>, StoreError> {
    #[derive(Deserialize)]
    struct Found {
        index_templates: Vec<Named>,
    }
    #[derive(Deserialize)]
    struct Named {
        index_template: Template,
    }
    #[derive(Deserialize)]
    struct Template {
        #[serde(default)]
        version: u64,
    }
    let answer = transport.ask(&Request::get(format!("/_index_template/{}", names.template(Family::Events.as_str())))).await?;
    if answer.status == 404 {
        return Ok(None);
    }
    Ok(answer.done::<Found>()?.index_templates.first().map(|found| found.index_template.version))
}

/// Brings an index that is there up to its template: adds fields, and changes the settings that can change.
pub(super) async fn upgrade(transport: &Transport, index: &str, settings: &IndexSettings) -> Result<(), StoreError> {
    let there: Value = transport.ask(&Request::get(format!("/{index}/_mapping"))).await?.done()?;
    let there = &there[index]["mappings"];
    if there["_meta"]["redoubt"]["version"].as_u64().is_none_or(|version| version < VERSION) {
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
    }
    let mut changeable = Map::new();
    changeable.insert("index.number_of_replicas".to_owned(), json!(settings.replicas));
    changeable.insert("index.refresh_interval".to_owned(), json!(format!("{}ms", settings.refresh_millis)));
    if let Err(error) = done(transport, Request::put(format!("/{index}/_settings"), &Value::Object(changeable))).await {
        warn!(index, %error, "the settings of this index could not be changed");
    }
    Ok(())
}
