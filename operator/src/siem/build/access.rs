//! What pods may do with the Kubernetes API: workers read their resources and the Secrets that these name; the servers nothing.

use k8s_openapi::api::{
    core::v1::ServiceAccount,
    rbac::v1::{PolicyRule, Role, RoleBinding, RoleRef, Subject},
};

use crate::siem::{owner::Component, validate::Valid};

/// The kinds that workers follow.
const KINDS: [&str; 6] = ["siems", "logsources", "enrichments", "watchlists", "alertrules", "responseactions"];
const GROUP: &str = "rbac.authorization.k8s.io";

/// One account for the roles, and one for each managed server. No token is given to a pod that does not ask for it.
pub(crate) fn accounts(valid: &Valid) -> Vec<ServiceAccount> {
    let owner = &valid.owner;
    let names = owner.siem.shared();
    let mut all = vec![owner.shared(owner.siem.worker())];
    all.extend(valid.broker.is_some().then(|| owner.child(names.broker(), Component::Broker)));
    all.extend(valid.store.is_some().then(|| owner.child(names.store(), Component::Store)));
    all.into_iter()
        .map(|metadata| ServiceAccount { metadata, automount_service_account_token: Some(false), ..ServiceAccount::default() })
        .collect()
}

/// What workers may read. Watching a single Secret by its name counts as that name's.
pub(crate) fn role(valid: &Valid) -> Role {
    let rule = |group: &str, resources: &[&str]| PolicyRule {
        api_groups: Some(vec![group.to_owned()]),
        resources: Some(resources.iter().map(|resource| (*resource).to_owned()).collect()),
        verbs: ["get", "list", "watch"].map(str::to_owned).into(),
        ..PolicyRule::default()
    };
    let mut rules = vec![rule(redoubt_crds::GROUP, &KINDS), rule("", &["configmaps"])];
    // Without names a rule would be one on all Secrets.
    if !valid.secrets.is_empty() {
        rules.push(PolicyRule { resource_names: Some(valid.secrets.iter().cloned().collect()), ..rule("", &["secrets"]) });
    }
    Role { metadata: valid.owner.shared(valid.owner.siem.worker()), rules: Some(rules) }
}

/// Gives the workers' account what workers may read.
pub(crate) fn binding(valid: &Valid) -> RoleBinding {
    let name = valid.owner.siem.worker();
    RoleBinding {
        metadata: valid.owner.shared(name.clone()),
        role_ref: RoleRef { api_group: GROUP.to_owned(), kind: "Role".to_owned(), name: name.clone() },
        subjects: Some(vec![Subject {
            kind: "ServiceAccount".to_owned(),
            name,
            namespace: Some(valid.owner.namespace.clone()),
            ..Subject::default()
        }]),
    }
}
