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
    use crate::siem::testing::{now, server::Fake};

    fn worker() -> Account {
        Account { name: "redoubt-0000000a".to_owned(), password: "secret".to_owned(), revision: String::new(), made_at: now() }
    }

    #[tokio::test]
    async fn a_user_who_is_there_is_left_alone() {
        let server = Fake::start(vec![
            ("GET /_security/role/redoubt-worker", 200, json!({ROLE: role("redoubt")})),
            ("GET /_security/_authenticate", 200, json!({})),
        ])
        .await;

        welcome(&server.endpoint, &worker(), "redoubt").await.unwrap();

        assert_eq!(server.told(), []);
    }

    #[tokio::test]
    async fn a_user_who_is_not_let_in_is_made() {
        for (role_there, user_there) in [(404, 200), (200, 401), (404, 401)] {
            let server = Fake::start(vec![
                ("GET /_security/role/redoubt-worker", role_there, json!({ROLE: role("redoubt")})),
                ("GET /_security/_authenticate", user_there, json!({})),
                ("PUT /_security/role/redoubt-worker", 200, json!({})),
                ("PUT /_security/user/redoubt-0000000a", 200, json!({})),
            ])
            .await;

            welcome(&server.endpoint, &worker(), "redoubt").await.unwrap();

            let told = server.told();
            assert_eq!(told[0], ("PUT /_security/role/redoubt-worker".to_owned(), role("redoubt")), "{role_there} {user_there}");
            assert_eq!(
                (&*told[1].0, &told[1].1["password"], &told[1].1["roles"]),
                ("PUT /_security/user/redoubt-0000000a", &json!("secret"), &json!([ROLE]))
            );
        }
    }

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
