//! `AlertRule`: the unit of detection as code.

use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{ConfigStatus, Duration, Format, Object, SigmaLogsource};

/// What is worth an alert: a Sigma rule, or a number of matches within a time.
#[derive(CustomResource, Debug, Clone, PartialEq, Serialize, Deserialize, KubeSchema)]
#[kube(
    group = "redoubt.dev",
    version = "v1alpha1",
    kind = "AlertRule",
    namespaced,
    category = "redoubt",
    shortname = "ar",
    status = "ConfigStatus",
    derive = "PartialEq",
    printcolumn(name = "Severity", type_ = "string", json_path = ".spec.severity"),
    printcolumn(name = "Accepted", type_ = "string", json_path = ".status.conditions[?(@.type==\"Accepted\")].status"),
    printcolumn(name = "Ready", type_ = "string", json_path = ".status.conditions[?(@.type==\"Ready\")].status"),
    printcolumn(name = "Message", type_ = "string", json_path = ".status.conditions[?(@.type==\"Accepted\")].message", priority = 1),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[x_kube(validation = ("has(self.sigma) != has(self.threshold)", "exactly one of sigma and threshold is needed"))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct AlertRuleSpec {
    /// One line that says what happened. Defaults to the Sigma rule's title, else to the resource's name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 256))]
    pub title: Option<String>,
    /// What the rule looks for and why. Defaults to the Sigma rule's description.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 65535))]
    pub description: Option<String>,
    /// How bad it is. Defaults to the Sigma rule's level, else to `medium`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub severity: Option<Severity>,
    /// Free tags, added to the Sigma rule's own.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), inner(length(min = 1, max = 256)))]
    pub tags: Vec<String>,
    /// ATT&CK techniques, such as `T1110` or `T1059.001`, added to those that the Sigma rule's tags name.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), inner(length(max = 16), regex(pattern = "^T[0-9]{4}(\\.[0-9]{3})?$")))]
    pub attack: Vec<String>,
    /// Link to what a responder should do.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 2048))]
    pub runbook: Option<String>,
    /// Whether the rule runs.
    #[serde(default = "enabled")]
    pub enabled: bool,
    /// A Sigma rule, word for word (Sigma specification 2.1). Each matching event is one alert, unless suppressed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sigma: Option<Object>,
    /// A number of matching events, or of distinct values in them, within a window of event time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub threshold: Option<Threshold>,
    /// Alike alerts within a time are one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub suppress: Option<Suppression>,
    /// How much later than the rest of its window an event may arrive and still count.
    #[serde(default = "default_lateness")]
    pub allowed_lateness: Duration,
    /// Matches that are known and harmless.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 256))]
    pub exceptions: Vec<Exception>,
    /// Cases that must hold before the rule is live.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 256))]
    pub tests: Vec<RuleTest>,
}

impl Default for AlertRuleSpec {
    fn default() -> Self {
        Self {
            title: None,
            description: None,
            severity: None,
            tags: Vec::new(),
            attack: Vec::new(),
            runbook: None,
            enabled: enabled(),
            sigma: None,
            threshold: None,
            suppress: None,
            allowed_lateness: default_lateness(),
            exceptions: Vec::new(),
            tests: Vec::new(),
        }
    }
}

fn enabled() -> bool {
    true
}

fn default_lateness() -> Duration {
    Duration::from_secs(600)
}

/// How bad it is, by Sigma's levels.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[schemars(transform = crate::choice::flatten)]
pub enum Severity {
    /// Worth knowing, nothing to do.
    Informational,
    /// Suspicious in numbers.
    Low,
    /// To be looked at.
    Medium,
    /// To be looked at now.
    High,
    /// An incident until shown otherwise.
    Critical,
}

impl Severity {
    /// The level as a manifest writes it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Informational => "informational",
            Self::Low => "low",
            Self::Medium => "medium",
            Self::High => "high",
            Self::Critical => "critical",
        }
    }
}

/// A number of matches within a window of event time.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Threshold {
    /// Which events count.
    #[serde(rename = "match")]
    pub matcher: Matcher,
    /// Fields whose values tell groups apart; each group counts by itself. An event that lacks one of them does not count.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 8), inner(length(min = 1, max = 512)))]
    pub group_by: Vec<String>,
    /// How many are needed.
    #[schemars(range(min = 1, max = 1_000_000))]
    pub count: u32,
    /// Count different values of this field instead of events.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 512))]
    pub distinct: Option<String>,
    /// Length of the window, in the events' own time.
    #[schemars(transform = crate::duration::longer_than_zero)]
    pub window: Duration,
}

/// Which events are meant.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[x_kube(validation = ("has(self.sigma) != has(self.when)", "exactly one of sigma and when is needed"))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Matcher {
    /// A Sigma rule or its `logsource` and `detection` alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sigma: Option<Object>,
    /// A VRL expression that is `true` of the event.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 8192))]
    pub when: Option<String>,
}

/// Alike alerts within a time are one. Times are counted in fixed steps since 1970, so that the outcome does not depend on the order
/// in which events arrive.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Suppression {
    /// Fields that make alerts alike. Empty means that all alerts of the rule are alike; a threshold's groups are always told apart.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 8), inner(length(min = 1, max = 512)))]
    pub by: Vec<String>,
    /// Length of the step.
    #[serde(rename = "for")]
    #[schemars(transform = crate::duration::longer_than_zero)]
    pub period: Duration,
}

/// Matches that are known and harmless.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[x_kube(validation = ("has(self.sigma) != has(self.when)", "exactly one of sigma and when is needed"))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Exception {
    /// Why it is harmless.
    #[schemars(length(min = 1, max = 1024))]
    pub reason: String,
    /// A Sigma detection: selections and a `condition`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sigma: Option<Object>,
    /// A VRL expression that is `true` of the event.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 8192))]
    pub when: Option<String>,
}

/// A case that must hold before the rule is live.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RuleTest {
    /// What is being shown.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
    /// How the events are written. Defaults to `json`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub format: Option<Format>,
    /// The Sigma logsource of the events, where the format does not tell it. Defaults to the rule's own. With the formats `windows`, `zeek`
    /// and `cloudtrail` it is what the format tells of each event.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub logsource: Option<SigmaLogsource>,
    /// The events, in the order of their arrival. One in the formats `syslog` and `cef` is an object whose `raw` is the line.
    #[schemars(length(min = 1, max = 1000))]
    pub events: Vec<Object>,
    /// What must come of them.
    pub expect: RuleTestExpectation,
}

/// What must come of a test's events.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[x_kube(validation = ("has(self.alerts) != has(self.fires)", "exactly one of alerts and fires is needed"))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RuleTestExpectation {
    /// Whether there must be an alert at all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fires: Option<bool>,
    /// How many alerts there must be.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(max = 1_000_000))]
    pub alerts: Option<u32>,
}
