//! The workers' user of Elasticsearch, who may do with the SIEM's own indices and templates what workers do, and nothing else.

use reqwest::Method;
use serde_json::{Value, json};

use crate::siem::{
    endpoint::{Endpoint, NoAnswer, escape},
    secret::account::Account,
};

/// The name of the role.
const ROLE: &str = "redoubt-worker";

/// Makes the user and its role, or makes them as they are to be again. Asks first: at rest nothing is written.
pub(super) async fn welcome(node: &Endpoint, worker: &Account, prefix: &str) -> Result<(), NoAnswer> {
    let role = role(prefix);
    if node.get(&format!("/_security/role/{ROLE}")).await.is_ok_and(|there| is_as(&there[ROLE], &role)) && node.knows(worker).await? {
        return Ok(());
    }
    node.call(Method::PUT, &format!("/_security/role/{ROLE}"), Some(&role)).await?;
    let user = json!({"password": worker.password, "roles": [ROLE], "full_name": "Workers of Redoubt"});
    node.call(Method::PUT, &format!("/_security/user/{}", escape(&worker.name)), Some(&user)).await.map(drop)
}

/// What workers do: they look at the cluster, keep templates of their own, and do everything with indices of their prefix.
fn role(prefix: &str) -> Value {
    json!({
        "cluster": ["monitor", "manage_index_templates"],
        "indices": [{"names": [format!("{prefix}-*")], "privileges": ["all"]}],
    })
}

/// Whether a role says the same; the server adds what is its default.
fn is_as(there: &Value, role: &Value) -> bool {
    let indices = |role: &Value| {
        (role["indices"][0]["names"].clone(), role["indices"][0]["privileges"].clone(), role["indices"].as_array().map(Vec::len))
    };
    there["cluster"] == role["cluster"] && indices(there) == indices(role)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_role_is_as_it_is_to_be_whatever_the_server_adds() {
        let mut there = role("redoubt");
        there["run_as"] = json!([]);
        there["indices"][0]["allow_restricted_indices"] = json!(false);

        assert!(is_as(&there, &role("redoubt")));
        assert!(!is_as(&there, &role("other")));
        there["cluster"] = json!(["all"]);
        assert!(!is_as(&there, &role("redoubt")));
        assert!(!is_as(&Value::Null, &role("redoubt")));
    }
}
