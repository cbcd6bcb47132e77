//! PodDisruptionBudgets: who drains a node of Kubernetes takes one pod of a component at a time.

use k8s_openapi::{
    api::policy::v1::{PodDisruptionBudget, PodDisruptionBudgetSpec},
    apimachinery::pkg::util::intstr::IntOrString,
};

use crate::siem::{owner::Component, validate::Valid};

/// One for each component. A component of a single pod is not held: its node could never be drained.
pub(crate) fn budgets(valid: &Valid) -> Vec<PodDisruptionBudget> {
    let (owner, names) = (&valid.owner, valid.owner.siem.shared());
    let mut components: Vec<(Component, String)> = Component::ROLES.into_iter().map(|role| (role, names.role(role.as_str()))).collect();
    components.extend(valid.broker.is_some().then(|| (Component::Broker, names.broker())));
    components.extend(valid.store.is_some().then(|| (Component::Store, names.store())));
    components
        .into_iter()
        .map(|(component, name)| PodDisruptionBudget {
            metadata: owner.child(name, component),
            spec: Some(PodDisruptionBudgetSpec {
                selector: Some(owner.pods(component)),
                max_unavailable: Some(IntOrString::Int(1)),
                // A pod that does not run serves nobody, and must not keep a node from being drained.
                unhealthy_pod_eviction_policy: Some("AlwaysAllow".to_owned()),
                ..PodDisruptionBudgetSpec::default()
            }),
            status: None,
        })
        .collect()
}
