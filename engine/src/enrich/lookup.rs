//! The look-up step: a field's value, found in a Watchlist.

use std::{collections::BTreeMap, sync::Arc};

use redoubt_crds::{Lookup as LookupSpec, WatchlistEntry};
use serde_json::{Map, Value};

use super::{Watchlist, path, transit::Transit};
use crate::diagnostic::Problem;

/// How many known Watchlists a message names at most.
const MAX_NAMED: usize = 8;

/// A look-up made ready.
pub(super) struct Lookup {
    watchlist: Arc<Watchlist>,
    field: String,
    target: String,
    tags: Vec<String>,
}

impl Lookup {
    pub(super) fn compile(spec: &LookupSpec, watchlists: &BTreeMap<String, Arc<Watchlist>>) -> Result<Self, Vec<Problem>> {
        let mut problems = Vec::new();
        problems.extend(path::check_read(&spec.field, "spec.lookup.field").err());
        problems.extend(path::check_write(&spec.target, "spec.lookup.target").err());
        if spec.target == spec.field {
            problems.push(Problem::new(
                "spec.lookup.target",
                "the entry would take the place of the value that was looked up",
                "choose another field",
            ));
        }
        match watchlists.get(&spec.watchlist) {
            Some(watchlist) if problems.is_empty() => Ok(Self {
                watchlist: Arc::clone(watchlist),
                field: spec.field.clone(),
                target: spec.target.clone(),
                tags: spec.tags.clone(),
            }),
            Some(_) => Err(problems),
            None => {
                let known: Vec<&str> = watchlists.keys().map(String::as_str).take(MAX_NAMED).collect();
                let remedy = if known.is_empty() {
                    "declare it".to_owned()
                } else {
                    format!("declare it, or name one of those that are there: {}", known.join(", "))
                };
                problems.push(Problem::new("spec.lookup.watchlist", format!("there is no Watchlist {}", spec.watchlist), remedy));
                Err(problems)
            }
        }
    }

    /// Writes the entry under the target and adds the tags. Of an array, the first element that is in the list counts.
    pub(super) fn apply(&self, event: &mut Transit<'_>) {
        let received = event.received_millis();
        let values = event.texts(&self.field);
        let Some(entry) = values.iter().find_map(|value| self.watchlist.get(value, received)) else { return };
        event.set(&self.target, describe(self.watchlist.name(), entry));
        for tag in &self.tags {
            event.tag(tag);
        }
    }
}

/// `{list, value, comment, attributes}`; what the entry does not say is left out.
fn describe(list: &str, entry: &WatchlistEntry) -> Value {
    let mut object = Map::new();
    object.insert("list".to_owned(), list.into());
    object.insert("value".to_owned(), entry.value.as_str().into());
    if let Some(comment) = &entry.comment {
        object.insert("comment".to_owned(), comment.as_str().into());
    }
    if !entry.attributes.is_empty() {
        let attributes = entry.attributes.iter().map(|(key, value)| (key.clone(), Value::from(value.as_str()))).collect();
        object.insert("attributes".to_owned(), Value::Object(attributes));
    }
    Value::Object(object)
}
