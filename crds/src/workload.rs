//! Pods that the operator runs: how many, with what, and what they keep. On one machine, where one process does it all, none of this
//! counts.

use std::{borrow::Cow, collections::BTreeMap};

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};

/// An amount of processor time, memory or storage as Kubernetes writes it: `500m`, `2Gi`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Quantity(pub String);

impl JsonSchema for Quantity {
    fn schema_name() -> Cow<'static, str> {
        "Quantity".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string", "pattern": r"^[0-9]+(\.[0-9]+)?(m|k|M|G|T|P|Ki|Mi|Gi|Ti|Pi)?$", "maxLength": 32 })
    }
}

impl From<&str> for Quantity {
    fn from(text: &str) -> Self {
        Self(text.to_owned())
    }
}

/// What a pod of this kind is given, as in a container of Kubernetes.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Resources {
    /// What is set aside for it: `cpu`, `memory`.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 16))]
    pub requests: BTreeMap<String, Quantity>,
    /// The most that it may take: `cpu`, `memory`.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 16))]
    pub limits: BTreeMap<String, Quantity>,
}

impl Resources {
    /// Requests for processor time and memory, and the same memory as the limit: a pod that fits is never driven out.
    #[must_use]
    pub fn of(cpu: &str, memory: &str) -> Self {
        let requests = [("cpu", cpu), ("memory", memory)].map(|(name, amount)| (name.to_owned(), amount.into())).into();
        Self { requests, limits: [("memory".to_owned(), memory.into())].into() }
    }
}

/// A volume of each pod.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Storage {
    /// Size of the volume. It can grow, where the storage class allows it, and never shrinks.
    pub size: Quantity,
    /// The storage class; without one, the cluster's default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub class: Option<String>,
    /// What becomes of the volumes when the Siem is deleted.
    #[serde(default)]
    pub on_delete: OnDelete,
}

impl Storage {
    /// A volume of this size in the cluster's default class, kept when the Siem is deleted.
    #[must_use]
    pub fn of(size: &str) -> Self {
        Self { size: size.into(), class: None, on_delete: OnDelete::default() }
    }
}

/// What becomes of volumes when their owner is deleted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(transform = crate::choice::flatten)]
pub enum OnDelete {
    /// They stay, and a Siem of the same name takes them up again.
    #[default]
    Retain,
    /// They are deleted too, and what they hold is lost.
    Delete,
}

/// How the number of pods follows the work: by a HorizontalPodAutoscaler where a metric is named, by KEDA where the cluster has its
/// ScaledObjects, and otherwise by the operator itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schemars(transform = fewest_before_most)]
pub struct Autoscale {
    /// The fewest pods.
    #[serde(default = "one")]
    #[schemars(range(min = 1, max = 1000))]
    pub min_replicas: u16,
    /// The most pods.
    #[schemars(range(min = 1, max = 1000))]
    pub max_replicas: u16,
    /// Batches of events that may wait for each pod before another one is started.
    #[serde(default = "default_backlog")]
    #[schemars(range(min = 1, max = 1_000_000_000))]
    pub backlog_per_replica: u32,
    /// What the cluster's metrics adapter calls the batches that wait: a HorizontalPodAutoscaler sees to the number of pods by it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub external_metric: Option<ExternalMetric>,
}

/// A metric of the external metrics API (`external.metrics.k8s.io`), all series of which are added.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ExternalMetric {
    /// What the adapter calls it.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
    /// The labels that its series must have.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 16, "additionalProperties" = {"type": "string", "maxLength": 63}))]
    pub match_labels: BTreeMap<String, String>,
}

fn fewest_before_most(schema: &mut Schema) {
    crate::rule::add(schema, "self.minReplicas <= self.maxReplicas", "minReplicas must not be more than maxReplicas");
}

const fn one() -> u16 {
    1
}

const fn default_backlog() -> u32 {
    200
}
