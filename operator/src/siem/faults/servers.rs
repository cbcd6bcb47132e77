//! What the servers in the pods say and do: a RabbitMQ with one queue, and an Elasticsearch with one shard of two copies.

use std::collections::{BTreeMap, BTreeSet};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use super::kubernetes::is_ready;
use crate::testing::api::State;

/// A request to a server.
pub(super) struct Asked {
    pub(super) pod: String,
    pub(super) login: Option<(String, String)>,
    pub(super) method: Method,
    pub(super) path: String,
    pub(super) query: BTreeMap<String, String>,
    pub(super) body: Value,
}

pub(super) type Answer = (StatusCode, Value);

fn ok(body: Value) -> Answer {
    (StatusCode::OK, body)
}

fn refused(status: StatusCode) -> Answer {
    (status, json!("refused"))
}

/// Ready pods of a component.
fn ready(state: &State, component: &str) -> Vec<Value> {
    let of_component = |pod: &&Value| pod["metadata"]["labels"]["app.kubernetes.io/component"] == component && is_ready(pod);
    state.all("pods").filter(of_component).cloned().collect()
}

fn name(object: &Value) -> String {
    object["metadata"]["name"].as_str().unwrap().to_owned()
}

/// A text of a Secret.
pub(super) fn secret(state: &State, name: &str, key: &str) -> Option<String> {
    let text = state.get("secrets", name)?["data"][key].as_str()?.to_owned();
    Some(String::from_utf8(STANDARD.decode(text).unwrap()).unwrap())
}

#[derive(Debug, Clone, Default)]
pub(super) struct RabbitMq {
    /// Hashes of passwords by user, as all nodes know them.
    pub(super) users: BTreeMap<String, String>,
    /// As whom the workers are connected.
    pub(super) client: Option<String>,
    /// Nodes that have a replica of the queue.
    pub(super) queue: BTreeSet<String>,
    /// By uid of the pod: the definitions that were there when it was made.
    mounted: BTreeMap<String, String>,
    started: BTreeSet<String>,
}

impl RabbitMq {
    pub(super) fn step(&mut self, state: &State) {
        for pod in state.all("pods").filter(|pod| pod["metadata"]["labels"]["app.kubernetes.io/component"] == "broker") {
            let uid = pod["metadata"]["uid"].as_str().unwrap().to_owned();
            self.mounted.entry(uid.clone()).or_insert_with(|| secret(state, "soc-broker-nodes", "definitions.json").unwrap());
            if is_ready(pod) && self.started.insert(uid.clone()) {
                let definitions: Value = serde_json::from_str(&self.mounted[&uid]).unwrap();
                for user in definitions["users"].as_array().unwrap() {
                    let text = |key: &str| user[key].as_str().unwrap().to_owned();
                    self.users.insert(text("name"), text("password_hash"));
                }
            }
        }
        let nodes: Vec<String> = ready(state, "broker").iter().map(|pod| node(&name(pod))).collect();
        if self.queue.is_empty() {
            self.queue.extend(nodes.iter().take(3).cloned());
        }
        let worker = secret(state, "soc-broker-user", "username").zip(secret(state, "soc-broker-user", "password"));
        if let (None, false, Some((name, password))) = (&self.client, nodes.is_empty(), worker)
            && self.knows(&name, &password)
        {
            self.client = Some(name);
        }
    }

    /// Whether somebody may come in (`rabbit_password_hashing_sha256`).
    pub(super) fn knows(&self, name: &str, password: &str) -> bool {
        self.users.get(name).is_some_and(|hash| {
            let hash = STANDARD.decode(hash).unwrap();
            hash[4..] == *Sha256::digest([&hash[..4], password.as_bytes()].concat())
        })
    }

    pub(super) fn serve(&mut self, state: &State, asked: &Asked) -> Answer {
        if !asked.login.as_ref().is_some_and(|(name, password)| self.knows(name, password)) {
            return refused(StatusCode::UNAUTHORIZED);
        }
        let running: BTreeSet<String> = ready(state, "broker").iter().map(|pod| node(&name(pod))).collect();
        let parts: Vec<&str> = asked.path.split('/').skip(2).collect();
        match (&asked.method, parts.as_slice()) {
            (&Method::GET, ["nodes"]) => ok(running.iter().map(|node| json!({"name": node, "running": true})).collect()),
            (&Method::GET, ["users"]) => ok(self.users.keys().map(|name| json!({"name": name})).collect()),
            (&Method::GET, ["connections"]) => {
                ok(self.client.iter().map(|user| json!({"name": "worker -> broker", "user": user})).collect())
            }
            (&Method::GET, ["overview"]) => ok(json!({"rabbitmq_version": "4.1.0"})),
            (&Method::GET, ["queues"]) => ok(json!([{"name": "events", "vhost": "/", "type": "quorum", "members": self.queue}])),
            (&Method::GET, ["health", "checks", "node-is-quorum-critical"]) => {
                let others = self.queue.iter().filter(|member| **member != node(&asked.pod) && running.contains(*member)).count();
                let is_critical = self.queue.contains(&node(&asked.pod)) && others * 2 <= self.queue.len();
                if is_critical { refused(StatusCode::SERVICE_UNAVAILABLE) } else { ok(json!({"status": "ok"})) }
            }
            (&Method::PUT, ["users", user]) => {
                let password = asked.body["password"].as_str().unwrap();
                let hash = [b"salt".as_slice(), &Sha256::digest([b"salt", password.as_bytes()].concat())].concat();
                self.users.insert((*user).to_owned(), STANDARD.encode(hash));
                ok(Value::Null)
            }
            (&Method::PUT, ["permissions", "%2F", user]) if self.users.contains_key(*user) => ok(Value::Null),
            (&Method::DELETE, ["users", user]) => {
                let known = self.users.remove(*user).is_some();
                if known { ok(Value::Null) } else { refused(StatusCode::NOT_FOUND) }
            }
            (&Method::DELETE, ["connections", _]) => {
                let known = self.client.take().is_some();
                if known { ok(Value::Null) } else { refused(StatusCode::NOT_FOUND) }
            }
            (&Method::POST, ["queues", "quorum", "%2F", "events", "replicas", "add"]) => {
                self.queue.insert(asked.body["node"].as_str().unwrap().to_owned());
                ok(Value::Null)
            }
            _ => refused(StatusCode::NOT_FOUND),
        }
    }
}

fn node(pod: &str) -> String {
    format!("rabbit@{pod}.soc-broker-nodes.security.svc")
}

#[derive(Debug, Clone, Default)]
pub(super) struct Elasticsearch {
    /// Whether there is a cluster.
    pub(super) formed: bool,
    pub(super) settings: BTreeMap<String, String>,
    pub(super) without_vote: BTreeSet<String>,
    /// Nodes that have a copy of the shard on their disk that is up to date.
    pub(super) holders: BTreeSet<String>,
    filling: Option<String>,
    pub(super) role: Value,
    pub(super) users: BTreeMap<String, String>,
    /// By uid of the pod: the password of `elastic` when it was made.
    elastic: BTreeMap<String, String>,
}

/// Copies of the shard besides the primary.
const REPLICAS: usize = 1;

impl Elasticsearch {
    /// Whether a node that starts can be in a cluster: there is one, or it is told to form one.
    pub(super) fn may_join(&self, state: &State, pod: &Value) -> bool {
        let set = format!("soc-store-{}", pod["metadata"]["labels"]["redoubt.dev/node-set"].as_str().unwrap());
        self.formed || state.get("configmaps", &set).is_some_and(|settings| !settings["data"]["initial-masters"].is_null())
    }

    pub(super) fn step(&mut self, state: &State) {
        for pod in state.all("pods").filter(|pod| pod["metadata"]["labels"]["app.kubernetes.io/component"] == "store") {
            let uid = pod["metadata"]["uid"].as_str().unwrap().to_owned();
            self.elastic.entry(uid).or_insert_with(|| secret(state, "soc-store-admin", "password").unwrap());
        }
        let nodes = Self::nodes(state);
        self.formed |= nodes.values().any(|(_, master)| *master);
        let excluded: BTreeSet<&str> = self.settings.get(EXCLUDE).map(|names| names.split(',').collect()).unwrap_or_default();
        let places: Vec<&String> =
            nodes.iter().filter(|(name, (data, _))| *data && !excluded.contains(name.as_str())).map(|(name, _)| name).collect();
        let there: Vec<String> = self.holders.iter().filter(|name| nodes.contains_key(*name)).cloned().collect();
        if self.holders.is_empty() {
            self.holders.extend(places.iter().take(1).map(|name| (*name).clone()));
        } else if let Some(node) = self.filling.take() {
            if nodes.contains_key(&node) {
                self.holders.insert(node);
            }
            // Elsewhere there are enough now.
            let enough = self.holders.iter().filter(|name| places.contains(name)).count() > REPLICAS;
            let leaves = self.holders.iter().find(|name| excluded.contains(name.as_str())).cloned();
            if enough {
                self.holders.retain(|name| places.contains(&name));
            } else if let Some(leaves) = leaves {
                self.holders.remove(&leaves);
            }
        } else if !there.is_empty() {
            let may_be_given = !self.settings.contains_key(ENABLE);
            let missing = there.len() <= REPLICAS && may_be_given;
            let moving = there.iter().any(|name| excluded.contains(name.as_str()));
            if missing || moving {
                self.filling = places.into_iter().find(|name| !self.holders.contains(*name)).cloned();
            }
        }
    }

    /// Nodes by name: whether they hold data, and whether they may be master.
    fn nodes(state: &State) -> BTreeMap<String, (bool, bool)> {
        let is = |pod: &Value, label: &str| pod["metadata"]["labels"][label] == "true";
        ready(state, "store").iter().map(|pod| (name(pod), (is(pod, "redoubt.dev/data"), is(pod, "redoubt.dev/master")))).collect()
    }

    pub(super) fn serve(&mut self, state: &State, asked: &Asked) -> Answer {
        let Some((login, password)) = &asked.login else { return refused(StatusCode::UNAUTHORIZED) };
        let uid = state.get("pods", &asked.pod).unwrap()["metadata"]["uid"].as_str().unwrap();
        let is_admin = login == "elastic" && self.elastic.get(uid) == Some(password);
        if asked.path == "/_security/_authenticate" {
            let known = is_admin || self.users.get(login) == Some(password);
            return if known { ok(json!({})) } else { refused(StatusCode::UNAUTHORIZED) };
        }
        let nodes = Self::nodes(state);
        let master = nodes.iter().find(|(_, (_, master))| *master).map(|(name, _)| name.clone());
        if !is_admin {
            return refused(StatusCode::UNAUTHORIZED);
        }
        let Some(master) = master else { return refused(StatusCode::SERVICE_UNAVAILABLE) };
        let parts: Vec<&str> = asked.path.split('/').skip(1).collect();
        match (&asked.method, parts.as_slice()) {
            (&Method::GET, ["_cluster", "state", ..]) => ok(self.tell(&nodes, &master)),
            (&Method::GET, ["_cluster", "settings"]) => ok(json!({"persistent": self.settings})),
            (&Method::POST, ["_cluster", "allocation", "explain"] | ["_flush"]) => ok(json!({})),
            (&Method::PUT, ["_cluster", "settings"]) => {
                for (key, value) in asked.body["persistent"].as_object().unwrap() {
                    match value.as_str() {
                        Some(value) => self.settings.insert(key.clone(), value.to_owned()),
                        None => self.settings.remove(key),
                    };
                }
                ok(json!({}))
            }
            (&Method::POST, ["_cluster", "voting_config_exclusions"]) => {
                self.without_vote.insert(asked.query["node_names"].clone());
                ok(Value::Null)
            }
            (&Method::DELETE, ["_cluster", "voting_config_exclusions"]) => {
                self.without_vote.clear();
                ok(Value::Null)
            }
            (&Method::GET, ["_security", "role", role]) if !self.role.is_null() => ok(json!({*role: self.role})),
            (&Method::PUT, ["_security", "role", _]) => {
                self.role = asked.body.clone();
                ok(json!({}))
            }
            (&Method::PUT, ["_security", "user", user]) => {
                self.users.insert((*user).to_owned(), asked.body["password"].as_str().unwrap().to_owned());
                ok(json!({}))
            }
            _ => refused(StatusCode::NOT_FOUND),
        }
    }

    fn tell(&self, nodes: &BTreeMap<String, (bool, bool)>, master: &str) -> Value {
        let described: BTreeMap<&String, Value> = nodes
            .iter()
            .map(|(name, (data, master))| {
                let roles: Vec<&str> =
                    [("data", data), ("master", master)].into_iter().filter(|(_, is)| **is).map(|(role, _)| role).collect();
                (name, json!({"name": name, "roles": roles}))
            })
            .collect();
        let mut copies: Vec<Value> = Vec::new();
        for node in self.holders.iter().filter(|name| nodes.contains_key(*name)) {
            copies.push(json!({"state": "STARTED", "primary": copies.is_empty(), "node": node}));
        }
        if let Some(node) = self.filling.as_ref().filter(|node| nodes.contains_key(*node)) {
            copies.push(json!({"state": "INITIALIZING", "primary": false, "node": node}));
        }
        while copies.len() <= REPLICAS {
            copies.push(json!({"state": "UNASSIGNED", "primary": copies.is_empty(), "node": null}));
        }
        let without_vote: Vec<Value> = self.without_vote.iter().map(|name| json!({"node_name": name})).collect();
        json!({
            "cluster_uuid": "u1",
            "master_node": master,
            "nodes": described,
            "metadata": {"cluster_coordination": {"voting_config_exclusions": without_vote}},
            "routing_table": {"indices": {"redoubt-events": {"shards": {"0": copies}}}},
        })
    }
}

const ENABLE: &str = "cluster.routing.allocation.enable";
const EXCLUDE: &str = "cluster.routing.allocation.exclude._name";
