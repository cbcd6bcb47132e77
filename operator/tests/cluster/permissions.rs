//! The rights that the chart gives the operator, given to an account: what is not on its list, the operator cannot do.

use k8s_openapi::api::{authentication::v1::TokenRequest, core::v1::ServiceAccount};
use kube::{Api, api::PostParams, config::Kubeconfig};
use serde_json::{Value, json};

use crate::namespace::Namespace;

/// The rules of the chart's role.
fn rules() -> Value {
    serde_yaml::from_str(include_str!("../../../charts/redoubt/permissions.yaml")).unwrap()
}

/// Those of the role for the lease, as the page on the operator lists them.
fn lease_rules() -> Value {
    json!([
        {"apiGroups": ["coordination.k8s.io"], "resources": ["leases"], "verbs": ["create"]},
        {"apiGroups": ["coordination.k8s.io"], "resources": ["leases"], "resourceNames": ["redoubt-operator"], "verbs": ["get", "patch"]},
    ])
}

impl Namespace {
    /// Makes an account with the rights of the operator, in this namespace or in all, and the kubeconfig of its token.
    pub async fn account(&self, name: &str, everywhere: bool) -> String {
        self.put(json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": name}})).await;
        let subject = json!([{"kind": "ServiceAccount", "name": name, "namespace": self.name}]);
        let prefix = if everywhere { "Cluster" } else { "" };
        let of_all = format!("{}-{name}", self.name);
        for (kind, role, rules) in [(format!("{prefix}Role"), of_all.as_str(), rules()), ("Role".to_owned(), "lease", lease_rules())] {
            self.put(json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": kind, "metadata": {"name": role}, "rules": rules})).await;
            self.put(json!({
                "apiVersion": "rbac.authorization.k8s.io/v1",
                "kind": format!("{kind}Binding"),
                "metadata": {"name": role},
                "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": kind, "name": role},
                "subjects": subject,
            }))
            .await;
        }
        let accounts: Api<ServiceAccount> = Api::namespaced(self.client.clone(), &self.name);
        let request = accounts.create_token_request(name, &PostParams::default(), &TokenRequest::default()).await.unwrap();
        self.kubeconfig_of(&request.status.unwrap().token)
    }

    fn kubeconfig_of(&self, token: &str) -> String {
        let mut config = Kubeconfig::read_from(std::env::var_os("REDOUBT_TEST_KUBECONFIG").unwrap()).unwrap();
        for context in &mut config.contexts {
            context.context.as_mut().unwrap().namespace = Some(self.name.clone());
        }
        let mut config = serde_json::to_value(&config).unwrap();
        for user in config["users"].as_array_mut().unwrap() {
            user["user"] = json!({ "token": token });
        }
        config.to_string()
    }
}
