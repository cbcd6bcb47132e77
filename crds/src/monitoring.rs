//! How a Prometheus comes to know of the roles' metrics. On one machine it does not count.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::Duration;

/// A PodMonitor (`monitoring.coreos.com/v1`) for the metrics of the roles.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct MonitoringSpec {
    /// When there is one.
    pub when: MonitorWhen,
    /// Further labels of it, by which a Prometheus may choose its PodMonitors. Those that begin with `app.kubernetes.io/` are the operator's.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 16, "additionalProperties" = {"type": "string", "maxLength": 63}))]
    pub labels: BTreeMap<String, String>,
    /// How often metrics are collected.
    #[schemars(transform = crate::duration::longer_than_zero)]
    pub interval: Duration,
}

impl Default for MonitoringSpec {
    fn default() -> Self {
        Self { when: MonitorWhen::default(), labels: BTreeMap::new(), interval: Duration::from_secs(30) }
    }
}

/// When there is a PodMonitor.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(transform = crate::choice::flatten)]
pub enum MonitorWhen {
    /// Where the cluster has that kind.
    #[default]
    Available,
    /// In any case: where the cluster does not have that kind, the condition `Degraded` says so.
    Always,
    /// Never.
    Never,
}
