//! What each field is to the cluster.
//!
//! Names are those of the Elastic Common Schema. What a source sent lies under `details`, one `flattened` field: whatever it holds, it adds
//! no field to the mapping and no type that could collide. Every other field that is not named here becomes one by its first value
//! (a text a `keyword`, a number a `long` or `double`, a moment a `date`, a text under `*.ip` an `ip`).
//!
//! The store's own fields lie under `redoubt`; [`super::document`] adds them and takes them away again.

use serde_json::{Map, Value, json};

use crate::store::Family;

/// Rises with each change of what is below; templates carry it as `_meta.redoubt.version`.
pub(super) const VERSION: u64 = 1;
/// Longer texts are kept and not searched, in characters: of four bytes each they are just what Lucene takes.
pub(super) const MAX_KEYWORD_CHARS: usize = 8191;
/// How deep `details` may nest.
pub(super) const MAX_DETAILS_DEPTH: usize = 120;

/// What not every server has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Dialect {
    /// The type of texts that are searched by words.
    pub(super) text: &'static str,
    pub(super) details: Details,
    /// Whether an index may be told to leave fields unmapped past its limit, rather than to refuse the document.
    pub(super) limits_fields: bool,
}

/// The type of `details`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Details {
    /// Elasticsearch's.
    Flattened,
    /// OpenSearch's.
    FlatObject,
    /// Kept, and not searched.
    Unsearched,
}

impl Dialect {
    /// What the newest servers have.
    pub(super) const NEWEST: Self = Self { text: "match_only_text", details: Details::Flattened, limits_fields: true };

    /// The dialect of a server that refused the one before with this reason, and what it lacks; `None` where the reason is another.
    pub(super) fn without_what_is_refused(self, reason: &str) -> Option<(Self, &'static str)> {
        let refused = |what: &str| reason.contains(what);
        if self.text != "text" && refused("match_only_text") {
            return Some((Self { text: "text", ..self }, "the field type match_only_text; message takes more room"));
        }
        if self.details == Details::Flattened && refused("flattened") {
            return Some((Self { details: Details::FlatObject, ..self }, "the field type flattened; flat_object takes its place"));
        }
        if self.details == Details::FlatObject && refused("flat_object") {
            return Some((
                Self { details: Details::Unsearched, ..self },
                "the field types flattened and flat_object; details cannot be searched",
            ));
        }
        if self.limits_fields && refused("ignore_dynamic_beyond_limit") {
            return Some((Self { limits_fields: false, ..self }, "a bound on fields that does not refuse documents"));
        }
        None
    }
}

/// How a cluster keeps trees, as far as documents and queries must heed it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Trees {
    /// As `flattened`, which answers the query for a pattern in one key.
    Flattened,
    /// As `flattened`, which refuses that query. A query string that begins with the key and a null character, which is how the server
    /// keeps them, takes its place.
    KeyAndNull,
    /// As `flat_object`: it refuses long texts, finds no pattern in all keys by a query string, and counts keys that were not asked for.
    FlatObject,
}

/// The fields that hold trees.
pub(super) const TREES: [&str; 4] = ["details", "events", "group", "reasons"];

/// The type of a field.
#[derive(Clone, Copy)]
enum Kind {
    Keyword,
    Text,
    Date,
    Ip,
    Long,
    Double,
    /// A tree of whatever values.
    Tree,
    /// Kept, and not searched.
    Kept,
}

/// The fields that events and what comes of them have in common.
const FIELDS: &[(&str, Kind)] = &[
    ("@timestamp", Kind::Date),
    ("client.bytes", Kind::Long),
    ("client.ip", Kind::Ip),
    ("client.port", Kind::Long),
    ("cloud.account.id", Kind::Keyword),
    ("cloud.region", Kind::Keyword),
    ("destination.bytes", Kind::Long),
    ("destination.domain", Kind::Keyword),
    ("destination.ip", Kind::Ip),
    ("destination.packets", Kind::Long),
    ("destination.port", Kind::Long),
    ("destination.user.name", Kind::Keyword),
    ("details", Kind::Tree),
    ("dns.question.name", Kind::Keyword),
    ("error.code", Kind::Keyword),
    ("error.message", Kind::Keyword),
    ("event.action", Kind::Keyword),
    ("event.category", Kind::Keyword),
    ("event.code", Kind::Keyword),
    ("event.created", Kind::Date),
    ("event.dataset", Kind::Keyword),
    ("event.duration", Kind::Long),
    ("event.end", Kind::Date),
    ("event.id", Kind::Keyword),
    ("event.ingested", Kind::Date),
    ("event.kind", Kind::Keyword),
    ("event.original", Kind::Kept),
    ("event.outcome", Kind::Keyword),
    ("event.provider", Kind::Keyword),
    ("event.risk_score", Kind::Double),
    ("event.sequence", Kind::Long),
    // Whole in ECS, and not in every source.
    ("event.severity", Kind::Double),
    ("event.start", Kind::Date),
    ("event.type", Kind::Keyword),
    ("file.hash.md5", Kind::Keyword),
    ("file.hash.sha1", Kind::Keyword),
    ("file.hash.sha256", Kind::Keyword),
    ("file.name", Kind::Keyword),
    ("file.path", Kind::Keyword),
    ("file.size", Kind::Long),
    ("host.hostname", Kind::Keyword),
    ("host.ip", Kind::Ip),
    ("host.name", Kind::Keyword),
    ("http.request.method", Kind::Keyword),
    ("http.response.status_code", Kind::Long),
    ("log.level", Kind::Keyword),
    ("log.name", Kind::Keyword),
    ("message", Kind::Text),
    ("network.transport", Kind::Keyword),
    ("observer.ip", Kind::Ip),
    ("observer.name", Kind::Keyword),
    ("process.command_line", Kind::Keyword),
    ("process.entity_id", Kind::Keyword),
    ("process.executable", Kind::Keyword),
    ("process.exit_code", Kind::Long),
    ("process.name", Kind::Keyword),
    ("process.parent.command_line", Kind::Keyword),
    ("process.parent.entity_id", Kind::Keyword),
    ("process.parent.executable", Kind::Keyword),
    ("process.parent.pid", Kind::Long),
    ("process.pid", Kind::Long),
    ("registry.path", Kind::Keyword),
    ("related.hash", Kind::Keyword),
    ("related.hosts", Kind::Keyword),
    ("related.ip", Kind::Ip),
    ("related.user", Kind::Keyword),
    ("rule.id", Kind::Keyword),
    ("rule.name", Kind::Keyword),
    ("server.bytes", Kind::Long),
    ("server.ip", Kind::Ip),
    ("server.port", Kind::Long),
    ("source.bytes", Kind::Long),
    ("source.domain", Kind::Keyword),
    ("source.ip", Kind::Ip),
    ("source.packets", Kind::Long),
    ("source.port", Kind::Long),
    ("source.user.name", Kind::Keyword),
    ("tags", Kind::Keyword),
    ("threat.technique.id", Kind::Keyword),
    ("url.domain", Kind::Keyword),
    ("url.full", Kind::Keyword),
    ("url.path", Kind::Keyword),
    ("url.port", Kind::Long),
    ("user.domain", Kind::Keyword),
    ("user.id", Kind::Keyword),
    ("user.name", Kind::Keyword),
    ("user.target.name", Kind::Keyword),
    ("user_agent.original", Kind::Keyword),
];
/// What an alert tells of its events, rules' reasons and group: values of whatever types.
const OF_ALERTS: &[(&str, Kind)] =
    &[("events", Kind::Tree), ("group", Kind::Tree), ("reasons", Kind::Tree), ("severity", Kind::Keyword), ("summary", Kind::Keyword)];
/// A match is one text, kept to be read back.
const OF_MATCHES: &[(&str, Kind)] = &[("@timestamp", Kind::Date), ("rule.name", Kind::Keyword), ("match", Kind::Kept)];

/// The mapping that families have in common: the part named `fields`.
pub(super) fn common(dialect: Dialect) -> Value {
    json!({
        "dynamic": true,
        "date_detection": true,
        "numeric_detection": false,
        "dynamic_templates": [
            {"addresses": {"path_match": "*.ip", "match_mapping_type": "string", "mapping": {"type": "ip", "ignore_malformed": true}}},
            {"texts": {"match_mapping_type": "string", "mapping": keyword()}},
            {"moments": {"match_mapping_type": "date", "mapping": {"type": "date", "ignore_malformed": true}}},
            {"whole_numbers": {"match_mapping_type": "long", "mapping": {"type": "long", "ignore_malformed": true}}},
            {"numbers": {"match_mapping_type": "double", "mapping": {"type": "double", "ignore_malformed": true}}},
        ],
        "properties": properties(FIELDS, dialect),
    })
}

/// The mapping of one family, on top of what is common, if it has that.
pub(super) fn of(family: Family, dialect: Dialect) -> Value {
    let meta = json!({"redoubt": {"version": VERSION, "family": family.as_str()}});
    let fields = match family {
        Family::Alerts => OF_ALERTS,
        Family::Matches => OF_MATCHES,
        Family::Events | Family::DeadLetters | Family::Responses => &[],
    };
    let mut properties = properties(fields, dialect);
    properties.insert("redoubt".to_owned(), own());
    let mut mapping = json!({"_meta": meta, "properties": properties});
    if !has_common(family) {
        mapping["dynamic"] = json!(false);
    }
    mapping
}

/// Whether a family has what is common.
pub(super) const fn has_common(family: Family) -> bool {
    !matches!(family, Family::Matches)
}

/// Whether a field holds addresses: by its name, as the mapping has it.
pub(super) fn is_address(field: &str) -> bool {
    field.rsplit('.').next() == Some("ip") && field.contains('.') && !field.starts_with("details.")
}

/// The store's own fields: the id to sort by, the time of receipt, and, where the document had to be changed to be indexed, its text.
fn own() -> Value {
    json!({"type": "object", "dynamic": false, "properties": {
        "id": {"type": "keyword", "index": false},
        "received": {"type": "date", "format": "epoch_millis"},
        "source": {"type": "keyword", "index": false, "doc_values": false},
    }})
}

fn keyword() -> Value {
    json!({"type": "keyword", "ignore_above": MAX_KEYWORD_CHARS})
}

/// Fields by dotted path as the tree that a mapping is.
fn properties(fields: &[(&str, Kind)], dialect: Dialect) -> Map<String, Value> {
    let mut root = Map::new();
    for (path, kind) in fields {
        let mut level = &mut root;
        let mut parts = path.split('.').peekable();
        while let Some(part) = parts.next() {
            if parts.peek().is_none() {
                level.insert(part.to_owned(), definition(*kind, dialect));
                break;
            }
            let object = level.entry(part).or_insert_with(|| json!({"properties": {}}));
            let Some(inner) = object.get_mut("properties").and_then(Value::as_object_mut) else { break };
            level = inner;
        }
    }
    root
}

fn definition(kind: Kind, dialect: Dialect) -> Value {
    match kind {
        Kind::Keyword => keyword(),
        Kind::Text if dialect.text == "text" => json!({"type": "text", "norms": false}),
        Kind::Text => json!({"type": dialect.text}),
        Kind::Date => json!({"type": "date", "ignore_malformed": true}),
        Kind::Ip => json!({"type": "ip", "ignore_malformed": true}),
        Kind::Long => json!({"type": "long", "ignore_malformed": true}),
        Kind::Double => json!({"type": "double", "ignore_malformed": true}),
        Kind::Tree => match dialect.details {
            Details::Flattened => json!({"type": "flattened", "ignore_above": MAX_KEYWORD_CHARS, "depth_limit": MAX_DETAILS_DEPTH}),
            Details::FlatObject => json!({"type": "flat_object"}),
            Details::Unsearched => json!({"type": "object", "enabled": false}),
        },
        Kind::Kept => json!({"type": "keyword", "index": false, "doc_values": false}),
    }
}

/// What is to be added to a mapping so that it is as wanted, and the paths that cannot become so because they are something else already.
/// Both are the `properties` of a mapping.
pub(super) fn missing(wanted: &Map<String, Value>, there: &Map<String, Value>) -> (Map<String, Value>, Vec<String>) {
    let (mut additions, mut others) = (Map::new(), Vec::new());
    for (name, definition) in wanted {
        let Some(known) = there.get(name) else {
            additions.insert(name.clone(), definition.clone());
            continue;
        };
        let inner = |value: &Value| value.get("properties").and_then(Value::as_object).cloned();
        let kind = |value: &Value| value.get("type").and_then(Value::as_str).unwrap_or("object").to_owned();
        if kind(definition) != kind(known) {
            others.push(name.clone());
        } else if let Some(wanted) = inner(definition) {
            let (inner_additions, inner_others) = missing(&wanted, &inner(known).unwrap_or_default());
            if !inner_additions.is_empty() {
                additions.insert(name.clone(), json!({"properties": inner_additions}));
            }
            others.extend(inner_others.into_iter().map(|path| format!("{name}.{path}")));
        }
    }
    (additions, others)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_become_a_tree() {
        let mapping = common(Dialect::NEWEST);

        assert_eq!(mapping["properties"]["source"]["properties"]["ip"], json!({"type": "ip", "ignore_malformed": true}));
        assert_eq!(mapping["properties"]["process"]["properties"]["parent"]["properties"]["pid"]["type"], "long");
        assert_eq!(mapping["properties"]["details"]["type"], "flattened");
        assert_eq!(of(Family::Matches, Dialect::NEWEST)["dynamic"], false);
    }

    #[test]
    fn the_trees_are_those_of_the_mappings() {
        let found = FIELDS.iter().chain(OF_ALERTS).chain(OF_MATCHES).filter(|(_, kind)| matches!(kind, Kind::Tree));

        assert!(found.map(|(name, _)| *name).eq(TREES));
    }

    #[test]
    fn a_dialect_gives_way_step_by_step_to_what_a_server_has() {
        let lacks = |dialect: Dialect, reason: &str| dialect.without_what_is_refused(reason).map(|(dialect, _)| dialect);
        let older = lacks(Dialect::NEWEST, "unknown setting [index.mapping.total_fields.ignore_dynamic_beyond_limit]").unwrap();
        let plainer = lacks(older, "No handler for type [match_only_text] declared on field [message]").unwrap();
        let opensearch = lacks(plainer, "No handler for type [flattened] declared on field [details]").unwrap();

        assert_eq!(opensearch, Dialect { text: "text", details: Details::FlatObject, limits_fields: false });
        assert_eq!(common(opensearch)["properties"]["details"], json!({"type": "flat_object"}));
        assert_eq!(lacks(opensearch, "no permission"), None);
        assert_eq!(lacks(opensearch, "No handler for type [flat_object]").unwrap().details, Details::Unsearched);
    }

    #[test]
    fn an_upgrade_adds_what_is_new_and_names_what_it_cannot_change() {
        let properties = |value: Value| value.as_object().unwrap().clone();
        let wanted = properties(json!({
            "a": {"type": "long"},
            "b": {"properties": {"c": {"type": "ip"}, "d": {"type": "date"}}},
            "e": {"type": "keyword"},
            "f": {"properties": {"g": {"type": "long"}}},
        }));
        let there = properties(json!({
            "a": {"type": "keyword"},
            "b": {"properties": {"c": {"type": "text"}}},
            "e": {"type": "keyword", "ignore_above": 5},
        }));

        let (additions, others) = missing(&wanted, &there);

        assert_eq!(
            Value::Object(additions),
            json!({"b": {"properties": {"d": {"type": "date"}}}, "f": {"properties": {"g": {"type": "long"}}}})
        );
        assert_eq!(others, ["a", "b.c"]);
    }
}
