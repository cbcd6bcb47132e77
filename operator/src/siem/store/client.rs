//! Elasticsearch's API: what the cluster says, and what is told to it.
//!
//! What a plan has set is marked as such beside it, in the same request: so an operator that comes later knows what is its own to undo, and
//! never undoes what a person has set.

use std::collections::{BTreeMap, BTreeSet};

use reqwest::Method;
use serde_json::{Value, json};

use super::{
    plan::Step,
    state::{Cluster, Copy, CopyState},
};
use crate::siem::endpoint::{Endpoint, NoAnswer, escape};

const ENABLE: &str = "cluster.routing.allocation.enable";
const EXCLUDE: &str = "cluster.routing.allocation.exclude._name";
/// User-defined metadata of the cluster: that the allocation is held by a plan.
const HELD: &str = "cluster.metadata.redoubt_allocation_held";
/// User-defined metadata of the cluster: the nodes that a plan has data move away from.
const LEAVING: &str = "cluster.metadata.redoubt_leaving";
/// What of the cluster's state is asked for.
const STATE: &str = "/_cluster/state/nodes,master_node,routing_table,metadata?filter_path=cluster_uuid,master_node,nodes.*.name,nodes.*.roles,\
                     routing_table.indices.*.shards.*.state,routing_table.indices.*.shards.*.primary,routing_table.indices.*.shards.*.node,\
                     routing_table.indices.*.shards.*.relocating_node,metadata.cluster_coordination.voting_config_exclusions";

/// Asks a node for the cluster.
pub(crate) async fn ask(node: &Endpoint) -> Result<Cluster, NoAnswer> {
    let state = node.get(STATE).await?;
    let settings = node.get("/_cluster/settings?flat_settings=true").await?;
    let mut cluster = understand(&state, &settings);
    if let Some((index, number)) = cluster.primary_without_node() {
        let question = json!({"index": index, "shard": number, "primary": true});
        // It may have found a node meanwhile, and then there is nothing to explain.
        let explained = node.call(Method::POST, "/_cluster/allocation/explain", Some(&question)).await.unwrap_or_default();
        cluster.hindrance = hindrance(&explained);
    }
    Ok(cluster)
}

/// Why no node may take a shard: what the first one that objects says, less the figures at its end, which differ each time.
fn hindrance(explained: &Value) -> Option<String> {
    let nodes = explained["node_allocation_decisions"].as_array()?;
    let mut deciders = nodes.iter().flat_map(|node| node["deciders"].as_array().into_iter().flatten());
    let objection = deciders.find(|decider| decider["decision"] == "NO")?["explanation"].as_str()?;
    Some(objection.split(',').next()?.chars().take(200).collect())
}

fn understand(state: &Value, settings: &Value) -> Cluster {
    let text = |value: &Value| value.as_str().map(str::to_owned);
    let nodes = state["nodes"].as_object();
    let names: BTreeMap<&str, &str> =
        nodes.into_iter().flatten().filter_map(|(id, node)| Some((id.as_str(), node["name"].as_str()?))).collect();
    let name = |id: &Value| names.get(id.as_str()?).map(|name| (*name).to_owned());
    let holds_data = |node: &Value| {
        let mut roles = node["roles"].as_array().into_iter().flatten().filter_map(Value::as_str);
        roles.any(|role| role == "data" || role.starts_with("data_"))
    };
    let mut cluster = Cluster {
        // It has this name until it has formed.
        uuid: text(&state["cluster_uuid"]).filter(|uuid| uuid != "_na_").unwrap_or_default(),
        nodes: nodes.into_iter().flatten().filter_map(|(_, node)| Some((text(&node["name"])?, holds_data(node)))).collect(),
        master: name(&state["master_node"]),
        ..Cluster::default()
    };
    for (index, table) in state["routing_table"]["indices"].as_object().into_iter().flatten() {
        for (number, copies) in table["shards"].as_object().into_iter().flatten() {
            for copy in copies.as_array().into_iter().flatten() {
                cluster.copies.push(Copy {
                    shard: (index.clone(), number.parse().unwrap_or_default()),
                    primary: copy["primary"] == true,
                    state: copy_state(&copy["state"]),
                    node: name(&copy["node"]),
                    to: name(&copy["relocating_node"]),
                });
            }
        }
    }
    let exclusions = &state["metadata"]["cluster_coordination"]["voting_config_exclusions"];
    cluster.without_vote = exclusions.as_array().into_iter().flatten().filter_map(|node| text(&node["node_name"])).collect();
    let persistent = &settings["persistent"];
    cluster.allocation_held = persistent[HELD] == "true";
    cluster.leaving = list(&persistent[LEAVING]);
    cluster.excluded_by_others = list(&persistent[EXCLUDE]).difference(&cluster.leaving).cloned().collect();
    cluster
}

/// A copy that comes to be on a node by a move is listed with the one that it comes from, which says where it goes.
fn copy_state(state: &Value) -> CopyState {
    match state.as_str() {
        Some("STARTED") => CopyState::Started,
        Some("RELOCATING") => CopyState::Relocating,
        Some("INITIALIZING") => CopyState::Initializing,
        _ => CopyState::Unassigned,
    }
}

fn list(setting: &Value) -> BTreeSet<String> {
    let names = setting.as_str().unwrap_or_default().split(',').map(str::trim);
    names.filter(|name| !name.is_empty()).map(str::to_owned).collect()
}

/// Does a step of a plan. A restart is not the server's matter.
pub(crate) async fn tell(node: &Endpoint, cluster: &Cluster, step: &Step) -> Result<(), NoAnswer> {
    match step {
        Step::HoldAllocation => set(node, json!({ENABLE: "primaries", HELD: "true"})).await,
        Step::ReleaseAllocation => set(node, json!({ENABLE: null, HELD: null})).await,
        Step::MoveAwayFrom(nodes) => {
            let joined = |nodes: &mut dyn Iterator<Item = &String>| {
                let names: Vec<&str> = nodes.map(String::as_str).collect();
                if names.is_empty() { Value::Null } else { names.join(",").into() }
            };
            let all = joined(&mut cluster.excluded_by_others.union(nodes));
            set(node, json!({EXCLUDE: all, LEAVING: joined(&mut nodes.iter())})).await
        }
        Step::Flush => node.call(Method::POST, "/_flush", None).await.map(drop),
        Step::TakeVote(name) => {
            // Less patience than a call has: it goes on in the background, and is looked at again.
            let path = format!("/_cluster/voting_config_exclusions?node_names={}&timeout=4s", escape(name));
            node.call(Method::POST, &path, None).await.map(drop)
        }
        Step::GiveVotesBack => node.call(Method::DELETE, "/_cluster/voting_config_exclusions?wait_for_removal=false", None).await.map(drop),
        Step::Restart { .. } => Ok(()),
    }
}

async fn set(node: &Endpoint, settings: Value) -> Result<(), NoAnswer> {
    node.call(Method::PUT, "/_cluster/settings", Some(&json!({"persistent": settings}))).await.map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::siem::testing::server::Fake;

    /// What was set belongs to the plan that set it, and what others have set stays.
    #[tokio::test]
    async fn steps_are_told_with_the_mark_of_who_took_them() {
        let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<BTreeSet<_>>();
        let settings = |settings: Value| ("PUT /_cluster/settings", json!({"persistent": settings}));
        let cases = [
            (Step::HoldAllocation, settings(json!({ENABLE: "primaries", HELD: "true"}))),
            (Step::ReleaseAllocation, settings(json!({ENABLE: null, HELD: null}))),
            (Step::MoveAwayFrom(names(&["n-2", "n-3"])), settings(json!({EXCLUDE: "n-2,n-3,theirs", LEAVING: "n-2,n-3"}))),
            (Step::MoveAwayFrom(names(&[])), settings(json!({EXCLUDE: "theirs", LEAVING: null}))),
            (Step::Flush, ("POST /_flush", Value::Null)),
            (Step::TakeVote("n-2".to_owned()), ("POST /_cluster/voting_config_exclusions?node_names=n-2&timeout=4s", Value::Null)),
            (Step::GiveVotesBack, ("DELETE /_cluster/voting_config_exclusions?wait_for_removal=false", Value::Null)),
        ];
        let cluster = Cluster { excluded_by_others: names(&["theirs"]), ..Cluster::default() };

        for (step, (what, body)) in cases {
            let server = Fake::start(vec![(what, 200, json!({}))]).await;

            tell(&server.endpoint, &cluster, &step).await.unwrap();

            assert_eq!(server.told(), [(what.to_owned(), body)], "{step:?}");
        }
    }

    #[tokio::test]
    async fn what_the_server_refuses_is_told_in_its_words() {
        let server = Fake::start(vec![("POST /_flush", 503, json!("no master"))]).await;

        let error = tell(&server.endpoint, &Cluster::default(), &Step::Flush).await.unwrap_err();

        assert_eq!(error.to_string(), "answered 503 Service Unavailable: \"no master\"");
    }

    #[tokio::test]
    async fn a_shard_that_has_no_node_is_explained() {
        let state = json!({"cluster_uuid": "u1", "routing_table": {"indices": {"events": {"shards": {"0": [
            {"state": "UNASSIGNED", "primary": true, "node": null, "relocating_node": null},
        ]}}}}});
        let explained = json!({"node_allocation_decisions": [{"deciders": [
            {"decider": "enable", "decision": "YES", "explanation": "all allocations are allowed"},
            {"decider": "disk_threshold", "decision": "NO", "explanation": "the node is above the high watermark, actual free: [7.5%]"},
        ]}]});
        let server = Fake::start(vec![
            (format!("GET {STATE}").leak(), 200, state),
            ("GET /_cluster/settings?flat_settings=true", 200, json!({})),
            ("POST /_cluster/allocation/explain", 200, explained),
        ])
        .await;

        let cluster = ask(&server.endpoint).await.unwrap();

        assert_eq!(cluster.missing_primaries(), 1);
        assert_eq!(cluster.hindrance.as_deref(), Some("the node is above the high watermark"));
    }

    #[test]
    fn a_cluster_is_understood() {
        let state = json!({
            "cluster_uuid": "u1",
            "master_node": "id-0",
            "nodes": {
                "id-0": {"name": "n-0", "roles": ["master"]},
                "id-1": {"name": "n-1", "roles": ["data_hot", "ingest"]},
                "id-2": {"name": "n-2", "roles": ["data"]},
            },
            "metadata": {"cluster_coordination": {"voting_config_exclusions": [{"node_id": "id-0", "node_name": "n-0"}]}},
            "routing_table": {"indices": {"events": {"shards": {"0": [
                {"state": "RELOCATING", "primary": true, "node": "id-1", "relocating_node": "id-2"},
                {"state": "INITIALIZING", "primary": true, "node": "id-2", "relocating_node": "id-1"},
                {"state": "UNASSIGNED", "primary": false, "node": null, "relocating_node": null},
            ]}}}},
        });
        let settings = json!({"persistent": {HELD: "true", EXCLUDE: "n-2, theirs", LEAVING: "n-2"}, "transient": {}});

        let cluster = understand(&state, &settings);

        let copy = |primary, state, node: Option<&str>, to: Option<&str>| Copy {
            shard: ("events".to_owned(), 0),
            primary,
            state,
            node: node.map(str::to_owned),
            to: to.map(str::to_owned),
        };
        let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<BTreeSet<_>>();
        let expected = Cluster {
            uuid: "u1".to_owned(),
            nodes: [("n-0", false), ("n-1", true), ("n-2", true)].map(|(name, data)| (name.to_owned(), data)).into(),
            master: Some("n-0".to_owned()),
            copies: vec![
                copy(true, CopyState::Relocating, Some("n-1"), Some("n-2")),
                copy(true, CopyState::Initializing, Some("n-2"), Some("n-1")),
                copy(false, CopyState::Unassigned, None, None),
            ],
            allocation_held: true,
            leaving: names(&["n-2"]),
            excluded_by_others: names(&["theirs"]),
            without_vote: names(&["n-0"]),
            hindrance: None,
        };
        assert_eq!(cluster, expected);
        assert_eq!(understand(&json!({"cluster_uuid": "_na_"}), &json!({})), Cluster::default());
    }
}
