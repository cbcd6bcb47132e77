//! RabbitMQ's management API: what the nodes say, and what is told to them.

use std::collections::{BTreeMap, BTreeSet};

use reqwest::Method;
use serde_json::{Value, json};

use super::{VHOST, of_admins, of_workers};
use crate::siem::{
    endpoint::{Endpoint, NoAnswer, escape},
    secret::account::Account,
};

/// What one node knows of all.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Answers {
    /// The nodes of the cluster, and whether they run.
    pub(crate) nodes: BTreeMap<String, bool>,
    /// What keeps nodes from taking messages in.
    pub(crate) alarms: Vec<String>,
    /// Names of users.
    pub(crate) users: BTreeSet<String>,
    /// Connections by user.
    pub(crate) connections: BTreeMap<String, Vec<String>>,
    /// Quorum queues and where they are, where the server can be told to give them more places.
    pub(crate) queues: Vec<Queue>,
    /// By pod: whether queues would lose their majority without it. A pod that did not answer is not in it.
    pub(crate) critical: BTreeMap<String, bool>,
}

/// A quorum queue.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Queue {
    pub(crate) vhost: String,
    pub(crate) name: String,
    /// Nodes that have a replica.
    pub(crate) members: BTreeSet<String>,
}

/// Asks a node for what it knows of all.
pub(crate) async fn ask(node: &Endpoint) -> Result<Answers, NoAnswer> {
    let nodes = node.get("/api/nodes?columns=name,running,mem_alarm,disk_free_alarm").await?;
    let users = node.get("/api/users?columns=name").await?;
    let connections = node.get("/api/connections?columns=name,user").await?;
    let mut answers = understand(&nodes, &users, &connections);
    let overview = node.get("/api/overview?columns=rabbitmq_version").await?;
    if knows_replicas(overview["rabbitmq_version"].as_str().unwrap_or_default()) {
        answers.queues = understand_queues(&node.get("/api/queues?columns=name,vhost,type,members").await?);
    }
    Ok(answers)
}

/// Whether a server of this version can be told by its management API to give a queue a replica: from 3.13 on.
fn knows_replicas(version: &str) -> bool {
    let mut parts = version.split(['.', '-']).map(|part| part.parse::<u32>().unwrap_or_default());
    (parts.next().unwrap_or_default(), parts.next().unwrap_or_default()) >= (3, 13)
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

fn items(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

fn understand(nodes: &Value, users: &Value, connections: &Value) -> Answers {
    let mut answers = Answers::default();
    for node in items(nodes) {
        let alarms = [("mem_alarm", "memory"), ("disk_free_alarm", "disk space")];
        for (_, what) in alarms.iter().filter(|(key, _)| node[key] == true) {
            answers.alarms.push(format!("{} is short of {what}: it takes nothing in until that has changed", text(&node["name"])));
        }
        answers.nodes.insert(text(&node["name"]), node["running"] == true);
    }
    answers.users = items(users).iter().map(|user| text(&user["name"])).collect();
    for connection in items(connections) {
        answers.connections.entry(text(&connection["user"])).or_default().push(text(&connection["name"]));
    }
    answers
}

fn understand_queues(queues: &Value) -> Vec<Queue> {
    let quorum = items(queues).iter().filter(|queue| queue["type"] == "quorum");
    let queue = |queue: &Value| Queue {
        vhost: text(&queue["vhost"]),
        name: text(&queue["name"]),
        members: items(&queue["members"]).iter().map(text).collect(),
    };
    quorum.map(queue).collect()
}

/// Whether queues would lose their majority without this node.
pub(crate) async fn is_quorum_critical(node: &Endpoint) -> Result<bool, NoAnswer> {
    match node.get("/api/health/checks/node-is-quorum-critical").await {
        Ok(_) => Ok(false),
        Err(NoAnswer::Refused(status, _)) if status.as_u16() == 503 => Ok(true),
        Err(error) => Err(error),
    }
}

/// Makes the users that others are to take the place of.
pub(crate) async fn make_users(node: &Endpoint, worker: &Account, admin: &Account, prefix: &str) -> Result<(), NoAnswer> {
    for (account, tags, permissions) in [(worker, "", of_workers(prefix)), (admin, "administrator", of_admins())] {
        let user = json!({"password": account.password, "tags": tags});
        node.call(Method::PUT, &format!("/api/users/{}", escape(&account.name)), Some(&user)).await?;
        let path = format!("/api/permissions/{}/{}", escape(VHOST), escape(&account.name));
        node.call(Method::PUT, &path, Some(&permissions)).await?;
    }
    Ok(())
}

/// Ends a connection; its client makes a new one.
pub(crate) async fn close(node: &Endpoint, connection: &str) -> Result<(), NoAnswer> {
    unless_gone(node.call(Method::DELETE, &format!("/api/connections/{}", escape(connection)), None).await)
}

/// Takes a user away.
pub(crate) async fn remove_user(node: &Endpoint, user: &str) -> Result<(), NoAnswer> {
    unless_gone(node.call(Method::DELETE, &format!("/api/users/{}", escape(user)), None).await)
}

/// Gives a queue a replica on a node.
pub(crate) async fn add_replica(node: &Endpoint, queue: &Queue, to: &str) -> Result<(), NoAnswer> {
    let path = format!("/api/queues/quorum/{}/{}/replicas/add", escape(&queue.vhost), escape(&queue.name));
    node.call(Method::POST, &path, Some(&json!({"node": to}))).await.map(drop)
}

fn unless_gone(result: Result<Value, NoAnswer>) -> Result<(), NoAnswer> {
    match result {
        Ok(_) => Ok(()),
        Err(error) if error.is_not_found() => Ok(()),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::siem::testing::{now, server::Fake};

    #[tokio::test]
    async fn whether_a_node_is_critical_is_what_it_answers() {
        const CHECK: &str = "GET /api/health/checks/node-is-quorum-critical";
        let cases = [(200, Some(false)), (503, Some(true)), (401, None)];

        for (status, expected) in cases {
            let server = Fake::start(vec![(CHECK, status, json!({}))]).await;

            assert_eq!(is_quorum_critical(&server.endpoint).await.ok(), expected, "{status}");
        }
    }

    #[tokio::test]
    async fn users_are_made_with_what_they_may_do() {
        let account =
            |name: &str| Account { name: name.to_owned(), password: "secret".to_owned(), revision: String::new(), made_at: now() };
        let done = |what| (what, 204, Value::Null);
        let server = Fake::start(vec![
            done("PUT /api/users/worker"),
            done("PUT /api/permissions/%2F/worker"),
            done("PUT /api/users/admin"),
            done("PUT /api/permissions/%2F/admin"),
        ])
        .await;

        make_users(&server.endpoint, &account("worker"), &account("admin"), "redoubt").await.unwrap();

        let bodies: Vec<Value> = server.told().into_iter().map(|(_, body)| body).collect();
        assert_eq!(bodies[0], json!({"password": "secret", "tags": ""}));
        assert_eq!((&bodies[1], &bodies[3]), (&of_workers("redoubt"), &of_admins()));
        assert_eq!(bodies[2], json!({"password": "secret", "tags": "administrator"}));
    }

    #[tokio::test]
    async fn what_is_gone_already_need_not_be_taken_away() {
        let server = Fake::start(Vec::new()).await;

        close(&server.endpoint, "10.0.0.1:5 -> 10.0.0.2:5671").await.unwrap();
        remove_user(&server.endpoint, "redoubt-00000001").await.unwrap();

        assert_eq!(server.told()[0].0, "DELETE /api/connections/10.0.0.1%3A5%20-%3E%2010.0.0.2%3A5671");
    }

    #[test]
    fn answers_of_old_and_new_servers_are_understood() {
        let nodes = json!([{"name": "a", "running": true, "mem_alarm": true}, {"name": "b", "running": false, "disk_free_alarm": false}]);
        let users = json!([{"name": "redoubt-00000000"}]);
        let connections = json!([{"name": "x -> y", "user": "redoubt-00000000"}, {"name": "z -> y", "user": "redoubt-00000000"}]);

        let answers = understand(&nodes, &users, &connections);

        assert_eq!(answers.nodes, [("a".to_owned(), true), ("b".to_owned(), false)].into());
        assert_eq!(answers.alarms, ["a is short of memory: it takes nothing in until that has changed"]);
        assert_eq!(answers.connections["redoubt-00000000"], ["x -> y", "z -> y"]);
        let versions = [("3.10.8", false), ("3.12.14", false), ("3.13.0-rc.1", true), ("4.2.0", true), ("", false)];
        for (version, expected) in versions {
            assert_eq!(knows_replicas(version), expected, "{version}");
        }
    }
}
