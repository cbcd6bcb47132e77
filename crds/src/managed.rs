//! Servers that the operator runs: RabbitMQ for the queues, Elasticsearch for events and alerts.

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{Object, Resources, Storage};

/// A RabbitMQ that the operator runs, from an image that keeps the contract of the official one.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct ManagedBroker {
    /// Nodes of the cluster. Three survive the loss of one; two survive no more than one does. It can grow; fewer nodes than before are
    /// refused, since a queue may have its majority there.
    #[schemars(range(min = 1, max = 7))]
    pub replicas: u16,
    /// The image; without one, that of the operator's release.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 512))]
    pub image: Option<String>,
    /// What each node is given.
    pub resources: Resources,
    /// Where each node keeps its queues.
    pub storage: Storage,
    /// Further lines for `rabbitmq.conf`; where they name a key that the operator sets, theirs counts.
    #[schemars(length(max = 65536))]
    #[serde(skip_serializing_if = "String::is_empty")]
    pub config: String,
    /// Makes a new password, and has everybody use it, whenever this text changes.
    #[schemars(length(max = 63))]
    #[serde(skip_serializing_if = "String::is_empty")]
    pub credentials_revision: String,
}

impl Default for ManagedBroker {
    fn default() -> Self {
        Self {
            replicas: 1,
            image: None,
            resources: Resources::of("250m", "1Gi"),
            storage: Storage::of("10Gi"),
            config: String::new(),
            credentials_revision: String::new(),
        }
    }
}

/// An Elasticsearch that the operator runs, from an image that keeps the contract of the official one.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct ManagedStore {
    /// The image; without one, that of the operator's release. Another version is rolled out node by node.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 512))]
    pub image: Option<String>,
    /// TLS and passwords between the nodes and for their users. Turn it off only for an image that cannot do it.
    pub security: bool,
    /// Groups of like nodes. Some set must be of the role `master`, and some of the role `data`.
    #[schemars(transform = node_sets)]
    pub node_sets: Vec<NodeSet>,
    /// Copies of each shard besides the primary; without a number, one where there are several data nodes, else none.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 10))]
    pub index_replicas: Option<u16>,
}

impl Default for ManagedStore {
    fn default() -> Self {
        Self { image: None, security: true, node_sets: vec![NodeSet::default()], index_replicas: None }
    }
}

fn node_sets(schema: &mut schemars::Schema) {
    let object = schema.ensure_object();
    object.insert("minItems".to_owned(), 1.into());
    object.insert("maxItems".to_owned(), 16.into());
    crate::rule::add(schema, "self.all(s, self.exists_one(t, t.name == s.name))", "two node sets must not have the same name");
    crate::rule::add(schema, "self.exists(s, 'master' in s.roles)", "one of the node sets must have the role master");
    crate::rule::add(
        schema,
        "self.exists(s, s.roles.exists(r, r == 'data' || r == 'data_content'))",
        "one of the node sets must have the role data or data_content",
    );
}

/// Nodes of Elasticsearch that are alike.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct NodeSet {
    /// Its name, a part of the names of its pods.
    #[schemars(length(min = 1, max = 20), regex(pattern = r"^[a-z]([a-z0-9-]*[a-z0-9])?$"))]
    pub name: String,
    /// How many nodes. When it becomes smaller, the data moves away first.
    #[serde(default = "default_replicas")]
    #[schemars(range(min = 0, max = 100))]
    pub replicas: u16,
    /// What they do.
    #[serde(default = "default_roles")]
    #[schemars(length(min = 1, max = 16))]
    pub roles: Vec<NodeRole>,
    /// Memory of the Java heap in bytes; without it, Elasticsearch takes half of the container's memory.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 134_217_728, max = 1_099_511_627_776_u64))]
    pub heap_bytes: Option<u64>,
    /// What each node is given.
    #[serde(default = "default_resources")]
    pub resources: Resources,
    /// Where each node keeps its indices.
    #[serde(default = "default_storage")]
    pub storage: Storage,
    /// Further settings for `elasticsearch.yml`; where they name a key that the operator sets, theirs counts.
    #[serde(default, skip_serializing_if = "is_empty")]
    pub config: Object,
}

impl Default for NodeSet {
    fn default() -> Self {
        Self {
            name: "nodes".to_owned(),
            replicas: default_replicas(),
            roles: default_roles(),
            heap_bytes: None,
            resources: default_resources(),
            storage: default_storage(),
            config: Object::default(),
        }
    }
}

impl NodeSet {
    /// Whether its nodes hold the shards of indices.
    #[must_use]
    pub fn holds_data(&self) -> bool {
        use NodeRole::{Data, DataCold, DataContent, DataFrozen, DataHot, DataWarm};
        self.roles.iter().any(|role| matches!(role, Data | DataContent | DataHot | DataWarm | DataCold | DataFrozen))
    }

    /// Whether one of its nodes can be the elected master.
    #[must_use]
    pub fn may_be_master(&self) -> bool {
        self.roles.contains(&NodeRole::Master)
    }
}

/// What a node of Elasticsearch does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[schemars(transform = crate::choice::flatten)]
pub enum NodeRole {
    /// May be elected to lead the cluster.
    Master,
    /// Votes for a leader and cannot be one.
    VotingOnly,
    /// Holds shards of every kind.
    Data,
    /// Holds indices that are not written by time.
    DataContent,
    /// Holds the newest data.
    DataHot,
    /// Holds data that is rarely written.
    DataWarm,
    /// Holds data that is rarely read.
    DataCold,
    /// Holds a cache of data that lies in snapshots.
    DataFrozen,
    /// Runs ingest pipelines.
    Ingest,
    /// Runs machine learning.
    Ml,
    /// Asks other clusters.
    RemoteClusterClient,
    /// Runs transforms.
    Transform,
}

const fn default_replicas() -> u16 {
    1
}

fn default_roles() -> Vec<NodeRole> {
    vec![NodeRole::Master, NodeRole::Data, NodeRole::Ingest]
}

fn default_resources() -> Resources {
    Resources::of("500m", "2Gi")
}

fn default_storage() -> Storage {
    Storage::of("30Gi")
}

fn is_empty(object: &Object) -> bool {
    object.0.is_empty()
}
