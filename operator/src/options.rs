//! What whoever starts the operator decides: where it works, and what the things that it runs are made of.

use std::{collections::BTreeMap, sync::Arc};

/// The field manager of all that the operator writes.
pub const FIELD_MANAGER: &str = "redoubt-operator";

/// The namespaces that the operator works in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Scope {
    /// Every namespace, by ClusterRole.
    All,
    /// These alone, by a Role in each.
    Namespaces(Vec<Arc<str>>),
}

impl Scope {
    /// Those that are watched one by one; a single `None` stands for all at once.
    #[must_use]
    pub fn parts(&self) -> Vec<Option<Arc<str>>> {
        match self {
            Self::All => vec![None],
            Self::Namespaces(names) => names.iter().cloned().map(Some).collect(),
        }
    }
}

/// The images of a release, for all that names no image of its own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Images {
    /// Of the roles: ingest, process, correlate, respond.
    pub roles: String,
    /// Of RabbitMQ.
    pub broker: String,
    /// Of Elasticsearch.
    pub store: String,
}

/// The operator's own pods, as NetworkPolicies know them.
#[derive(Debug, Clone)]
pub struct OperatorPods {
    /// Their namespace.
    pub namespace: String,
    /// Their labels.
    pub labels: BTreeMap<String, String>,
}

/// All of it.
#[derive(Debug, Clone)]
pub struct Options {
    /// Where the operator works.
    pub scope: Scope,
    /// What it runs.
    pub images: Images,
    /// The pod that this process runs in, as events name it.
    pub instance: String,
    /// The pods of this operator, where it runs in the cluster.
    pub pods: Option<OperatorPods>,
}
