//! What the operator reports about a resource.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// State of a configuration resource: whether it compiles and its tests pass (`Accepted`), and whether the workers run it (`Ready`).
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ConfigStatus {
    /// The `metadata.generation` that this status was made from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// Conditions of type `Accepted` and `Ready`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"]))]
    pub conditions: Vec<Condition>,
}

/// State of a Siem: `Ready` when it takes events in and finds alerts, `Progressing` while something is being changed, `Degraded` when
/// something that should run does not, `RestartPending` when a release waits for `spec.templateRevision`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct SiemStatus {
    /// The `metadata.generation` that this status was made from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// Conditions of type `Ready`, `Progressing`, `Degraded` and `RestartPending`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"]))]
    pub conditions: Vec<Condition>,
    /// What is being done to RabbitMQ and Elasticsearch, and what it waits for.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64))]
    pub operations: Vec<Operation>,
    /// The `spec.templateRevision` that the pods of RabbitMQ and Elasticsearch were made from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub template_revision: Option<u32>,
}

/// Something that is being done.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Operation {
    /// What: `Form`, `Roll`, `ScaleUp`, `ScaleDown`, `GrowStorage`, `RotateCredentials`.
    #[schemars(length(max = 63))]
    pub name: String,
    /// To what: a StatefulSet or a pod.
    #[schemars(length(max = 253))]
    pub target: String,
    /// The predicate that holds it, or nothing while it goes on.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    #[schemars(length(max = 63))]
    pub waits_for: String,
    /// The same for people.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    #[schemars(length(max = 1024))]
    pub message: String,
}
