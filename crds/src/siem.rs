//! `Siem`: the whole installation of one namespace.

use kube::CustomResource;
use schemars::{JsonSchema, Schema};
use serde::{Deserialize, Serialize};

use crate::{
    Autoscale, Duration, ExternalBroker, ExternalStore, HttpRouteExposure, IngressExposure, ManagedBroker, ManagedStore, MonitoringSpec,
    Resources, SiemStatus, TlsSecretRef,
};

/// One SIEM: where events are queued and kept, for how long, and how it listens. One a namespace; every other resource of the
/// namespace belongs to it.
#[derive(CustomResource, Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "redoubt.dev",
    version = "v1alpha1",
    kind = "Siem",
    namespaced,
    category = "redoubt",
    status = "SiemStatus",
    derive = "PartialEq",
    printcolumn(name = "Ready", type_ = "string", json_path = ".status.conditions[?(@.type==\"Ready\")].status"),
    printcolumn(name = "Progressing", type_ = "string", json_path = ".status.conditions[?(@.type==\"Progressing\")].status"),
    printcolumn(name = "Degraded", type_ = "string", json_path = ".status.conditions[?(@.type==\"Degraded\")].status"),
    printcolumn(name = "Message", type_ = "string", json_path = ".status.conditions[?(@.type==\"Ready\")].message", priority = 1),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct SiemSpec {
    /// How events come in.
    #[serde(default)]
    pub ingest: IngestSpec,
    /// How events are understood, enriched, matched and stored.
    #[serde(default)]
    pub process: ProcessSpec,
    /// How matches are brought together into alerts. A change takes effect with the next start.
    #[serde(default)]
    pub correlate: CorrelateSpec,
    /// How what is to be done about alerts is done.
    #[serde(default)]
    pub respond: RespondSpec,
    /// The queue between the roles. A change takes effect with the next start.
    #[serde(default)]
    pub broker: BrokerSpec,
    /// Where events and alerts are kept. A change takes effect with the next start.
    #[serde(default)]
    pub store: StoreSpec,
    /// How long what is stored stays.
    #[serde(default)]
    pub retention: Retention,
    /// How a Prometheus in the cluster comes to know of the roles' metrics.
    #[serde(default)]
    pub monitoring: MonitoringSpec,
    /// The image of the roles in a cluster; without one, that of the operator's release.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 512))]
    pub image: Option<String>,
    /// Allows restarts of RabbitMQ and Elasticsearch that a new release of the operator needs: raise it when the condition `RestartPending`
    /// asks for it. Until then their pods stay as they are.
    #[serde(default)]
    #[schemars(range(min = 0, max = 2_147_483_647))]
    pub template_revision: u32,
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
    /// How many pods take events in.
    #[schemars(range(min = 1, max = 1000))]
    pub replicas: u16,
    /// What each of them is given.
    pub resources: Resources,
    /// In a cluster, lets senders in from outside by an Ingress.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ingress: Option<IngressExposure>,
    /// In a cluster, lets senders in from outside by a route of the Gateway API.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub http_route: Option<HttpRouteExposure>,
}

impl Default for IngestSpec {
    fn default() -> Self {
        Self {
            port: 8080,
            tls: None,
            max_body_bytes: 16 << 20,
            max_event_bytes: 1 << 20,
            replicas: 2,
            resources: Resources::of("100m", "256Mi"),
            ingress: None,
            http_route: None,
        }
    }
}

fn one_event_fits_a_body(schema: &mut Schema) {
    crate::rule::add(schema, "self.maxEventBytes <= self.maxBodyBytes", "maxEventBytes must not be more than maxBodyBytes");
}

/// How events are understood, enriched, matched and stored.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct ProcessSpec {
    /// How many pods do it, where `autoscale` does not say.
    #[schemars(range(min = 1, max = 1000))]
    pub replicas: u16,
    /// Lets the number of pods follow the work.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub autoscale: Option<Autoscale>,
    /// What each of them is given.
    pub resources: Resources,
}

impl Default for ProcessSpec {
    fn default() -> Self {
        Self { replicas: 2, autoscale: None, resources: Resources::of("500m", "768Mi") }
    }
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
    /// How many pods do it. More than there are partitions have nothing to do.
    #[schemars(range(min = 1, max = 1024))]
    pub replicas: u16,
    /// What each of them is given.
    pub resources: Resources,
}

impl Default for CorrelateSpec {
    fn default() -> Self {
        Self { partitions: 4, max_groups: 100_000, replicas: 2, resources: Resources::of("100m", "768Mi") }
    }
}

/// How what is to be done about alerts is done.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct RespondSpec {
    /// How many pods do it.
    #[schemars(range(min = 1, max = 1000))]
    pub replicas: u16,
    /// What each of them is given.
    pub resources: Resources,
}

impl Default for RespondSpec {
    fn default() -> Self {
        Self { replicas: 2, resources: Resources::of("50m", "256Mi") }
    }
}

fn managed_or_external(schema: &mut Schema) {
    crate::rule::add(schema, "!(has(self.managed) && has(self.external))", "at most one of managed and external may be set");
}

/// The queue between the roles.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
#[schemars(transform = managed_or_external)]
pub struct BrokerSpec {
    /// Bytes of unprocessed events that may queue; past it senders are told to come back later.
    #[schemars(range(min = 1_048_576, max = 1_125_899_906_842_624_u64))]
    pub max_bytes: u64,
    /// How often a batch may be handed out without success before it is set aside as a dead message.
    #[schemars(range(min = 1, max = 1000))]
    pub delivery_limit: u32,
    /// A RabbitMQ that is there already.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub external: Option<ExternalBroker>,
    /// The RabbitMQ that the operator runs in a cluster where there is no external one. On one machine the queue is then a file in the
    /// data folder.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub managed: Option<ManagedBroker>,
}

impl Default for BrokerSpec {
    fn default() -> Self {
        Self { max_bytes: 4 << 30, delivery_limit: 20, external: None, managed: None }
    }
}

/// Where events and alerts are kept.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
#[schemars(transform = managed_or_external)]
pub struct StoreSpec {
    /// Memory for documents on their way into the index, in bytes. Of the store in the data folder only.
    #[schemars(range(min = 16_777_216, max = 1_099_511_627_776_u64))]
    pub index_buffer_bytes: u64,
    /// Longest time from an event's storage to its appearing in a search.
    #[schemars(transform = crate::duration::longer_than_zero)]
    pub refresh: Duration,
    /// An Elasticsearch that is there already.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub external: Option<ExternalStore>,
    /// The Elasticsearch that the operator runs in a cluster where there is no external one. On one machine the store is then a folder in
    /// the data folder.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub managed: Option<ManagedStore>,
}

impl Default for StoreSpec {
    fn default() -> Self {
        Self { index_buffer_bytes: 32 << 20, refresh: Duration::from_secs(1), external: None, managed: None }
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
