//! `ResponseAction`: what is done about an alert.

use std::collections::BTreeMap;

use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{ConfigStatus, Duration, SecretKeyRef, Severity};

/// What is done about which alerts. Nothing leaves the house until `dryRun` is set to `false`.
#[derive(CustomResource, Debug, Clone, PartialEq, Serialize, Deserialize, KubeSchema)]
#[kube(
    group = "redoubt.dev",
    version = "v1alpha1",
    kind = "ResponseAction",
    namespaced,
    category = "redoubt",
    shortname = "ra",
    status = "ConfigStatus",
    derive = "PartialEq",
    printcolumn(name = "Dry-Run", type_ = "boolean", json_path = ".spec.dryRun"),
    printcolumn(name = "Accepted", type_ = "string", json_path = ".status.conditions[?(@.type==\"Accepted\")].status"),
    printcolumn(name = "Ready", type_ = "string", json_path = ".status.conditions[?(@.type==\"Ready\")].status"),
    printcolumn(name = "Message", type_ = "string", json_path = ".status.conditions[?(@.type==\"Accepted\")].message", priority = 1),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[x_kube(validation = ("has(self.webhook) != has(self.log)", "exactly one of webhook and log is needed"))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ResponseActionSpec {
    /// Which alerts are meant. Empty means all.
    #[serde(default)]
    pub alerts: AlertSelector,
    /// Say what would be done, and do nothing.
    #[serde(default = "dry_run")]
    pub dry_run: bool,
    /// Call a web service.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub webhook: Option<Webhook>,
    /// Write a line to the program's log.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub log: Option<LogAction>,
}

fn dry_run() -> bool {
    true
}

/// Which alerts are meant: those that fit every given field.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct AlertSelector {
    /// The least severity.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub min_severity: Option<Severity>,
    /// Names of AlertRules, any of them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 1024), inner(length(min = 1, max = 253)))]
    pub rules: Vec<String>,
    /// Tags, any of them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), inner(length(min = 1, max = 256)))]
    pub tags: Vec<String>,
}

/// A call of a web service, signed as the Standard Webhooks specification (1.0.0) says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[x_kube(validation = ("has(self.url) != has(self.urlSecretRef)", "exactly one of url and urlSecretRef is needed"))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Webhook {
    /// Where to post.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 2048), regex(pattern = "^https?://"))]
    pub url: Option<String>,
    /// Where to post, when the address is itself a secret.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub url_secret_ref: Option<SecretKeyRef>,
    /// Further request headers.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 32, "additionalProperties" = {"type": "string", "maxLength": 4096}))]
    pub headers: BTreeMap<String, String>,
    /// The body: a minijinja template over `alert`. Defaults to the alert as JSON.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 65536))]
    pub body: Option<String>,
    /// The key of the HMAC-SHA256 signature.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signing_secret_ref: Option<SecretKeyRef>,
    /// How long one attempt may take.
    #[serde(default = "default_timeout")]
    #[schemars(transform = crate::duration::longer_than_zero)]
    pub timeout: Duration,
    /// How many attempts are made, with growing pauses between them.
    #[serde(default = "default_attempts")]
    #[schemars(range(min = 1, max = 20))]
    pub attempts: u32,
}

fn default_timeout() -> Duration {
    Duration::from_secs(10)
}

fn default_attempts() -> u32 {
    8
}

/// A line in the program's log.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct LogAction {
    /// The line: a minijinja template over `alert`. Defaults to severity, rule and title.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 8192))]
    pub message: Option<String>,
}
