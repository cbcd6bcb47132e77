//! What is noted at a StatefulSet of Elasticsearch when it is made, and read from it when the Siem has changed since.

use k8s_openapi::api::apps::v1::StatefulSet;
use redoubt_crds::NodeRole;

/// Annotation of a StatefulSet: the roles of its nodes.
const ROLES: &str = "redoubt.dev/roles";
/// Annotation of a StatefulSet: whether its nodes have TLS and passwords.
pub(crate) const SECURITY: &str = "redoubt.dev/security";

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

/// Whether the nodes of a set that is there have TLS and passwords.
pub(crate) fn security_of(set: &StatefulSet) -> Option<bool> {
    set.metadata.annotations.as_ref()?.get(SECURITY)?.parse().ok()
}

/// The annotation as [`roles_of`] reads it.
pub(crate) fn note_roles(roles: &[NodeRole]) -> (String, String) {
    // A list of names.
    (ROLES.to_owned(), serde_json::to_string(roles).expect("names can be written as JSON"))
}
