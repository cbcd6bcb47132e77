//! A version of a resource, and what is kept of it.

use std::{fmt, sync::Arc};

use redoubt_engine::resource::Kind;

/// A resource within its namespace.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key {
    /// Its kind.
    pub kind: Kind,
    /// Its name.
    pub name: Arc<str>,
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.kind, self.name)
    }
}

/// A version of a resource.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Version {
    /// Its `metadata.generation`.
    pub generation: i64,
    /// Its `spec` as JSON.
    pub spec: Arc<str>,
}

/// A last good version as a ConfigMap has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Kept {
    /// Of which resource.
    pub key: Key,
    /// `metadata.uid` of that: what is kept of one that had the same name before is not meant.
    pub uid: Arc<str>,
    /// What is kept.
    pub good: Version,
    /// `metadata.resourceVersion` of the ConfigMap.
    pub version: u64,
}
