//! `Enrichment`: what happens to events in transit.

use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{ConfigStatus, Object};

/// One step that events pass on their way: a VRL program, a look-up in a Watchlist, GeoIP, or a declared drop.
#[derive(CustomResource, Debug, Clone, PartialEq, Serialize, Deserialize, KubeSchema)]
#[kube(
    group = "redoubt.dev",
    version = "v1alpha1",
    kind = "Enrichment",
    namespaced,
    category = "redoubt",
    shortname = "enr",
    status = "ConfigStatus",
    derive = "PartialEq",
    printcolumn(name = "Order", type_ = "integer", json_path = ".spec.order"),
    printcolumn(name = "Accepted", type_ = "string", json_path = ".status.conditions[?(@.type==\"Accepted\")].status"),
    printcolumn(name = "Ready", type_ = "string", json_path = ".status.conditions[?(@.type==\"Ready\")].status"),
    printcolumn(name = "Message", type_ = "string", json_path = ".status.conditions[?(@.type==\"Accepted\")].message", priority = 1),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[x_kube(validation = (
    "[has(self.vrl), has(self.lookup), has(self.geoip), has(self.drop)].filter(x, x).size() == 1",
    "exactly one of vrl, lookup, geoip and drop is needed"
))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct EnrichmentSpec {
    /// Lower comes first; equal orders go by name.
    #[serde(default = "default_order")]
    pub order: i32,
    /// A VRL expression that must be `true` of the event for this step to run. Without one it runs on every event.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 8192))]
    pub when: Option<String>,
    /// A VRL program that rewrites the event (`.`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vrl: Option<VrlProgram>,
    /// A look-up of a field's value in a Watchlist.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lookup: Option<Lookup>,
    /// Place and network of addresses, from MaxMind databases.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub geoip: Option<GeoIp>,
    /// The event goes no further. It is counted under the reason.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub drop: Option<DropEvent>,
    /// Cases that must hold before this step is live.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 256))]
    pub tests: Vec<EnrichmentTest>,
}

impl Default for EnrichmentSpec {
    fn default() -> Self {
        Self { order: default_order(), when: None, vrl: None, lookup: None, geoip: None, drop: None, tests: Vec::new() }
    }
}

fn default_order() -> i32 {
    100
}

/// A program in Vector Remap Language. No network, file or environment functions are available.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct VrlProgram {
    /// The program. `abort` leaves the event as it was before the step.
    #[schemars(length(min = 1, max = 65536))]
    pub source: String,
}

/// A look-up of a field's value in a Watchlist of the same namespace.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Lookup {
    /// Name of the Watchlist.
    #[schemars(length(min = 1, max = 253))]
    pub watchlist: String,
    /// Path of the field that is looked up; of an array, each element.
    #[schemars(length(min = 1, max = 512))]
    pub field: String,
    /// Path under which the entry is written when there is one: `{list, value, comment, attributes}`.
    #[schemars(length(min = 1, max = 512))]
    pub target: String,
    /// Added to `tags` when there is one.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), inner(length(min = 1, max = 256)))]
    pub tags: Vec<String>,
}

/// Place and network of addresses. For each field `X.ip`, `X.geo` and `X.as` are written by their ECS names.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[x_kube(validation = ("has(self.city) || has(self.asn)", "at least one of city and asn is needed"))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct GeoIp {
    /// Path of a City or Country database in MaxMind DB format.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 4096))]
    pub city: Option<String>,
    /// Path of an ASN database in MaxMind DB format.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 4096))]
    pub asn: Option<String>,
    /// Paths of the address fields.
    #[serde(default = "default_address_fields")]
    #[schemars(length(min = 1, max = 16), inner(length(min = 1, max = 512)))]
    pub fields: Vec<String>,
}

fn default_address_fields() -> Vec<String> {
    vec!["source.ip".to_owned(), "destination.ip".to_owned()]
}

/// A declared drop.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct DropEvent {
    /// Why these events are not wanted: the label of the counter.
    #[schemars(length(min = 1, max = 128))]
    pub reason: String,
}

/// A case that must hold: an event goes in, and what comes out is compared.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct EnrichmentTest {
    /// What is being shown.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
    /// The event as this step finds it.
    pub event: Object,
    /// What must come out.
    pub expect: EnrichmentExpectation,
}

/// What must come out of a step.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[x_kube(validation = ("has(self.event) != has(self.dropped)", "exactly one of event and dropped is needed"))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct EnrichmentExpectation {
    /// Fields that the event must then hold, with these values; others are not looked at. `null` means that the field must be absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub event: Option<Object>,
    /// Whether the event must have been dropped.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dropped: Option<bool>,
}
