//! What tells a Prometheus of the roles' metrics. The NetworkPolicies of the roles let anybody reach that port.

use serde_json::json;

use super::role;
use crate::siem::{
    child::Child,
    foreign::Foreign,
    owner::{COMPONENT, INSTANCE},
    pod::HEALTH_PORT_NAME,
    validate::Valid,
};

/// The PodMonitor, if there is to be one and the cluster has that kind.
pub(crate) fn pod_monitor(valid: &Valid) -> Option<Child> {
    if !valid.foreign.contains(&Foreign::PodMonitor) {
        return None;
    }
    let wanted = &valid.siem.monitoring;
    let mut metadata = valid.owner.shared(valid.owner.siem.worker());
    let labels = metadata.labels.get_or_insert_default();
    for (key, value) in &wanted.labels {
        labels.entry(key.clone()).or_insert_with(|| value.clone());
    }
    let spec = json!({
        "selector": role::selector(&valid.owner),
        "podMetricsEndpoints": [{"port": HEALTH_PORT_NAME, "path": "/metrics", "interval": wanted.interval}],
        "podTargetLabels": [INSTANCE, COMPONENT],
    });
    Some(Child::foreign(Foreign::PodMonitor, &metadata, &spec))
}
