//! `Siem`: the whole installation of one namespace.

use kube::CustomResource;
use schemars::{JsonSchema, Schema};
use serde::{Deserialize, Serialize};

use crate::{ConfigStatus, Duration, ExternalBroker, ExternalStore, TlsSecretRef};

/// One SIEM: where events are queued and kept, for how long, and how it listens. One a namespace; every other resource of the
/// namespace belongs to it.
#[derive(CustomResource, Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "redoubt.dev",
    version = "v1alpha1",
    kind = "Siem",
    namespaced,
    category = "redoubt",
    status = "ConfigStatus",
    derive = "PartialEq",
    printcolumn(name = "Ready", type_ = "string", json_path = ".status.conditions[?(@.type==\"Ready\")].status"),
    printcolumn(name = "Message", type_ = "string", json_path = ".status.conditions[?(@.type==\"Ready\")].message", priority = 1),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct SiemSpec {
    /// How events come in.
    #[serde(default)]
    pub ingest: IngestSpec,
    /// How matches are brought together into alerts. A change takes effect with the next start.
    #[serde(default)]
    pub correlate: CorrelateSpec,
    /// The queue between the roles. A change takes effect with the next start.
    #[serde(default)]
    pub broker: BrokerSpec,
    /// Where events and alerts are kept. A change takes effect with the next start.
    #[serde(default)]
    pub store: StoreSpec,
    /// How long what is stored stays.
    #[serde(default)]
    pub retention: Retention,
}

/// The HTTP listener that all `http` log sources share.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
#[schemars(transform = one_event_fits_a_body)]
pub struct IngestSpec {
    /// Port of the HTTP listener.
    #[schemars(range(min = 1, max = 65535))]
    pub port: u16,
    /// Certificate of the HTTP listener; without one it speaks plain HTTP. Reloaded when the files change.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tls: Option<TlsSecretRef>,
    /// Largest request body in bytes, after decompression.
    #[schemars(range(min = 1024, max = 1_073_741_824))]
    pub max_body_bytes: u64,
    /// Largest single event in bytes; a larger one is refused with its own result.
    #[schemars(range(min = 1024, max = 16_777_216))]
    pub max_event_bytes: u64,
}

impl Default for IngestSpec {
    fn default() -> Self {
        Self { port: 8080, tls: None, max_body_bytes: 16 << 20, max_event_bytes: 1 << 20 }
    }
}

fn one_event_fits_a_body(schema: &mut Schema) {
    crate::rule::add(schema, "self.maxEventBytes <= self.maxBodyBytes", "maxEventBytes must not be more than maxBodyBytes");
}

/// How matches are brought together into alerts.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct CorrelateSpec {
    /// How many partitions the matches are spread over, by rule and group key.
    #[schemars(range(min = 1, max = 1024))]
    pub partitions: u16,
    /// How many group keys one rule may hold in a partition at a time; past it the one longest without a match makes room, and is counted.
    #[schemars(range(min = 1, max = 10_000_000))]
    pub max_groups: u32,
}

impl Default for CorrelateSpec {
    fn default() -> Self {
        Self { partitions: 4, max_groups: 100_000 }
    }
}

/// The queue between the roles.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct BrokerSpec {
    /// Bytes of unprocessed events that may queue; past it senders are told to come back later.
    #[schemars(range(min = 1_048_576, max = 1_125_899_906_842_624_u64))]
    pub max_bytes: u64,
    /// How often a batch may be handed out without success before it is set aside as a dead message.
    #[schemars(range(min = 1, max = 1000))]
    pub delivery_limit: u32,
    /// A RabbitMQ to use; without one the queue is a file in the data folder.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub external: Option<ExternalBroker>,
}

impl Default for BrokerSpec {
    fn default() -> Self {
        Self { max_bytes: 4 << 30, delivery_limit: 20, external: None }
    }
}

/// Where events and alerts are kept.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct StoreSpec {
    /// Memory for documents on their way into the index, in bytes. Of the store in the data folder only.
    #[schemars(range(min = 16_777_216, max = 1_099_511_627_776_u64))]
    pub index_buffer_bytes: u64,
    /// Longest time from an event's storage to its appearing in a search.
    #[schemars(transform = crate::duration::longer_than_zero)]
    pub refresh: Duration,
    /// An Elasticsearch to use; without one the store is a folder in the data folder.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub external: Option<ExternalStore>,
}

impl Default for StoreSpec {
    fn default() -> Self {
        Self { index_buffer_bytes: 32 << 20, refresh: Duration::from_secs(1), external: None }
    }
}

/// How long what is stored stays, counted from the time of receipt.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Retention {
    /// Events, and the matches that rules found in them.
    #[schemars(transform = crate::duration::longer_than_zero)]
    pub events: Duration,
    /// Alerts, and the record of the responses to them.
    #[schemars(transform = crate::duration::longer_than_zero)]
    pub alerts: Duration,
    /// Dead letters.
    #[schemars(transform = crate::duration::longer_than_zero)]
    pub dead_letters: Duration,
}

impl Default for Retention {
    fn default() -> Self {
        let days = |n: u64| Duration::from_secs(n * 86_400);
        Self { events: days(30), alerts: days(400), dead_letters: days(30) }
    }
}
