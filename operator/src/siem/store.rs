//! The managed Elasticsearch: its configuration, its pods, and what is done to them in which order.
//!
//! A node set is a StatefulSet. Nodes find each other by the Service of those that may be master, and form a cluster by themselves once;
//! whom they wait for then is told to them in a key of their ConfigMap that goes when the cluster is there, which no pod's template knows.

pub(crate) mod config;
pub(crate) mod pods;

use k8s_openapi::api::apps::v1::StatefulSet;
use redoubt_crds::NodeRole;

/// Port between the nodes.
pub(crate) const TRANSPORT_PORT: u16 = 9300;
/// Port that is open while a node is in the cluster.
pub(crate) const READINESS_PORT: u16 = 9399;
/// Label of a StatefulSet and its pods: the node set.
pub(crate) const NODE_SET: &str = "redoubt.dev/node-set";
/// Label of pods that may be master.
pub(crate) const MASTER: &str = "redoubt.dev/master";
/// Label of pods that hold data.
pub(crate) const DATA: &str = "redoubt.dev/data";
/// Annotation of a StatefulSet: the roles of its nodes.
const ROLES: &str = "redoubt.dev/roles";
/// Annotation of a StatefulSet: the cluster that its nodes are in.
pub(crate) const CLUSTER: &str = "redoubt.dev/cluster";

/// The role as Elasticsearch writes it.
pub(crate) const fn role_name(role: NodeRole) -> &'static str {
    match role {
        NodeRole::Master => "master",
        NodeRole::VotingOnly => "voting_only",
        NodeRole::Data => "data",
        NodeRole::DataContent => "data_content",
        NodeRole::DataHot => "data_hot",
        NodeRole::DataWarm => "data_warm",
        NodeRole::DataCold => "data_cold",
        NodeRole::DataFrozen => "data_frozen",
        NodeRole::Ingest => "ingest",
        NodeRole::Ml => "ml",
        NodeRole::RemoteClusterClient => "remote_cluster_client",
        NodeRole::Transform => "transform",
    }
}

/// The roles of the nodes of a set that is there.
pub(crate) fn roles_of(set: &StatefulSet) -> Vec<NodeRole> {
    let noted = set.metadata.annotations.as_ref().and_then(|annotations| annotations.get(ROLES));
    noted.and_then(|text| serde_json::from_str(text).ok()).unwrap_or_default()
}

/// The roles as [`roles_of`] reads them.
fn note_roles(roles: &[NodeRole]) -> (String, String) {
    // A list of names.
    (ROLES.to_owned(), serde_json::to_string(roles).expect("names can be written as JSON"))
}
