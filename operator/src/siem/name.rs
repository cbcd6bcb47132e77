//! Names of children that only the operator and the servers themselves use. Those that workers use too are in
//! [`redoubt_crds::in_cluster::Names`].

use redoubt_crds::in_cluster::Names;

/// The longest name of a StatefulSet whose pods can still be labelled with their revision (63 characters less a hyphen and ten).
const LONGEST_STATEFUL_SET: usize = 52;

/// The name of a Siem from which names of Services and StatefulSets can be made.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct SiemName(String);

/// Why the name of a Siem cannot be used in a cluster.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error(
    "the name {name:?} cannot be a part of the names of Services and StatefulSets: make a Siem with a name of at most {most} lower-case \
     letters, digits and hyphens that begins with a letter and does not end with a hyphen"
)]
pub(crate) struct UnusableName {
    name: String,
    most: usize,
}

impl SiemName {
    /// The name, if the StatefulSets that are named after it and after `node_sets` are within the bounds of Kubernetes.
    pub(crate) fn new<'a>(name: &str, node_sets: impl Iterator<Item = &'a str>) -> Result<Self, UnusableName> {
        let names = Names { siem: "" };
        let longest = node_sets.map(|set| names.node_set(set)).chain([names.broker()]).map(|name| name.len()).max().unwrap_or_default();
        let most = LONGEST_STATEFUL_SET.saturating_sub(longest);
        let valid = name.len() <= most
            && name.starts_with(|c: char| c.is_ascii_lowercase())
            && !name.ends_with('-')
            && name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-');
        if valid { Ok(Self(name.to_owned())) } else { Err(UnusableName { name: name.to_owned(), most }) }
    }

    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }

    /// The names that workers use too.
    pub(crate) fn shared(&self) -> Names<'_> {
        Names { siem: &self.0 }
    }

    /// ServiceAccount, Role and RoleBinding of the pods that run `redoubt`.
    pub(crate) fn worker(&self) -> String {
        format!("{}-worker", self.0)
    }

    /// The Secret of the authority's key, which no pod reads.
    pub(crate) fn authority_key(&self) -> String {
        format!("{}-ca-key", self.0)
    }

    /// The Secret from which others are made again, which no pod reads.
    pub(crate) fn recovery(&self) -> String {
        format!("{}-recovery", self.0)
    }

    /// The Service by which the nodes of RabbitMQ find each other.
    pub(crate) fn broker_nodes(&self) -> String {
        format!("{}-broker-nodes", self.0)
    }

    /// The Secret (`kubernetes.io/tls`) of RabbitMQ.
    pub(crate) fn broker_certificate(&self) -> String {
        format!("{}-broker-tls", self.0)
    }

    /// The Secret (`kubernetes.io/basic-auth`) of the operator's own user of RabbitMQ.
    pub(crate) fn broker_admin(&self) -> String {
        format!("{}-broker-admin", self.0)
    }

    /// The Secret of what the nodes of RabbitMQ alone know: the Erlang cookie, and the user of an empty node.
    pub(crate) fn broker_nodes_secret(&self) -> String {
        format!("{}-broker-nodes", self.0)
    }

    /// The Service by which the nodes of Elasticsearch have names.
    pub(crate) fn store_nodes(&self) -> String {
        format!("{}-store-nodes", self.0)
    }

    /// The Service by which a node of Elasticsearch finds the others.
    pub(crate) fn store_masters(&self) -> String {
        format!("{}-store-masters", self.0)
    }

    /// The Secret (`kubernetes.io/tls`) of Elasticsearch, for clients and between nodes.
    pub(crate) fn store_certificate(&self) -> String {
        format!("{}-store-tls", self.0)
    }

    /// The Secret (`kubernetes.io/basic-auth`) of the operator's own user of Elasticsearch.
    pub(crate) fn store_admin(&self) -> String {
        format!("{}-store-admin", self.0)
    }
}

/// The names of all Secrets that are made for a Siem of this name.
pub(crate) fn secrets(siem: &str) -> [String; 11] {
    let name = SiemName(siem.to_owned());
    let shared = name.shared();
    [
        name.authority_key(),
        shared.authority(),
        shared.ingest_certificate(),
        name.broker_certificate(),
        shared.broker_user(),
        name.broker_admin(),
        name.broker_nodes_secret(),
        name.store_certificate(),
        shared.store_user(),
        name.store_admin(),
        name.recovery(),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_that_services_and_stateful_sets_cannot_bear_is_refused() {
        let cases = [
            ("soc", true),
            ("a-1", true),
            (&*"a".repeat(40), true),
            (&*"a".repeat(41), false),
            ("1soc", false),
            ("soc.eu", false),
            ("soc-", false),
            ("", false),
        ];

        for (name, valid) in cases {
            assert_eq!(SiemName::new(name, ["nodes"].into_iter()).is_ok(), valid, "{name}");
        }
    }

    #[test]
    fn a_long_name_of_a_node_set_leaves_less_for_the_siem() {
        let refused = SiemName::new("security-operations-center", ["twenty-characters-ab"].into_iter()).unwrap_err();

        assert!(refused.to_string().contains("at most 25 lower-case"), "{refused}");
    }
}
