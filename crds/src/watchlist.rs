//! `Watchlist`: named sets of addresses, domains, hashes, users.

use std::collections::BTreeMap;

use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::ConfigStatus;

/// A date and time with its offset. The API server checks the `format` too, but anywhere else only a pattern is checked.
const RFC_3339: &str = "^[0-9]{4}-[0-9]{2}-[0-9]{2}[Tt][0-9]{2}:[0-9]{2}:[0-9]{2}(\\.[0-9]{1,9})?([Zz]|[+-][0-9]{2}:[0-9]{2})$";

/// A set of values worth knowing: bad addresses, our own networks, people who left.
#[derive(CustomResource, Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "redoubt.dev",
    version = "v1alpha1",
    kind = "Watchlist",
    namespaced,
    category = "redoubt",
    shortname = "wlist",
    status = "ConfigStatus",
    derive = "PartialEq",
    printcolumn(name = "Match", type_ = "string", json_path = ".spec.match"),
    printcolumn(name = "Accepted", type_ = "string", json_path = ".status.conditions[?(@.type==\"Accepted\")].status"),
    printcolumn(name = "Ready", type_ = "string", json_path = ".status.conditions[?(@.type==\"Ready\")].status"),
    printcolumn(name = "Message", type_ = "string", json_path = ".status.conditions[?(@.type==\"Accepted\")].message", priority = 1),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct WatchlistSpec {
    /// How a value is found in the list.
    #[serde(rename = "match")]
    pub matching: WatchlistMatch,
    /// The values.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 20000))]
    pub entries: Vec<WatchlistEntry>,
}

/// How a value is found in a list.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(transform = crate::choice::flatten)]
pub enum WatchlistMatch {
    /// The value itself, letter case aside: hashes, users, names.
    Exact,
    /// The longest CIDR that holds the address. A bare address is a CIDR of its own.
    Cidr,
    /// The longest domain that the name equals or lies under.
    DomainSuffix,
}

/// One value of a list.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct WatchlistEntry {
    /// The value, CIDR or domain.
    #[schemars(length(min = 1, max = 1024))]
    pub value: String,
    /// Why it is here.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 4096))]
    pub comment: Option<String>,
    /// From when on it no longer counts (RFC 3339).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64), regex(pattern = RFC_3339), extend("format" = "date-time"))]
    pub expires: Option<String>,
    /// What is known of it; a look-up writes these into the event.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 64, "additionalProperties" = {"type": "string", "maxLength": 4096}))]
    pub attributes: BTreeMap<String, String>,
}
