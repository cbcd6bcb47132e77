//! Servers that others run: how the SIEM reaches a RabbitMQ and an Elasticsearch.

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{BasicAuthSecretRef, Duration, SecretKeyRef, TlsSecretRef};

/// A RabbitMQ that is there already, from version 3.10 on: one node or a cluster.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ExternalBroker {
    /// Nodes, as `amqp://HOST:PORT` or `amqps://HOST:PORT`, without credentials; the first that answers is used.
    #[schemars(length(min = 1, max = 16), inner(length(max = 2048), regex(pattern = r"^amqps?://[^/@?#\s]+$")))]
    pub urls: Vec<String>,
    /// Virtual host.
    #[serde(default = "default_vhost")]
    #[schemars(length(min = 1, max = 255))]
    pub vhost: String,
    /// User and password.
    pub credentials_secret_ref: BasicAuthSecretRef,
    /// Whom to trust and what to show, over `amqps`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls: Option<ClientTls>,
    /// What the names of queues and exchanges begin with, so that several SIEMs may share a virtual host.
    #[serde(default = "default_prefix")]
    #[schemars(length(min = 1, max = 60), regex(pattern = r"^[a-z0-9]([a-z0-9-]*[a-z0-9])?$"))]
    pub prefix: String,
    /// On how many nodes each queue is kept, as far as there are so many.
    #[serde(default = "default_queue_replicas")]
    #[schemars(range(min = 1, max = 7))]
    pub queue_replicas: u8,
}

/// An Elasticsearch (8 or 9) or OpenSearch (2 or 3) that is there already.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[x_kube(validation = (
    "!(has(self.credentialsSecretRef) && has(self.apiKeySecretRef))",
    "at most one of credentialsSecretRef and apiKeySecretRef may be set"
))]
pub struct ExternalStore {
    /// Nodes, as `http://HOST:PORT` or `https://HOST:PORT`, without credentials; requests go round among those that answer.
    #[schemars(length(min = 1, max = 16), inner(length(max = 2048), regex(pattern = r"^https?://[^@?#\s]+$")))]
    pub urls: Vec<String>,
    /// User and password.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub credentials_secret_ref: Option<BasicAuthSecretRef>,
    /// An API key in its encoded form, instead of user and password.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub api_key_secret_ref: Option<SecretKeyRef>,
    /// Whom to trust and what to show, over `https`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls: Option<ClientTls>,
    /// What the names of indices and templates begin with, so that several SIEMs may share a cluster.
    #[serde(default = "default_prefix")]
    #[schemars(length(min = 1, max = 60), regex(pattern = r"^[a-z0-9]([a-z0-9-]*[a-z0-9])?$"))]
    pub prefix: String,
    /// Primary shards of a new index.
    #[serde(default = "default_shards")]
    #[schemars(range(min = 1, max = 1024))]
    pub shards: u16,
    /// Copies of each shard besides the primary.
    #[serde(default = "default_replicas")]
    #[schemars(range(min = 0, max = 10))]
    pub replicas: u16,
    /// When a new index takes over.
    #[serde(default)]
    pub rollover: Rollover,
}

/// When a new index takes over from the one that is written: at the first of these.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Rollover {
    /// Size of its primary shards together, in bytes.
    #[schemars(range(min = 1_048_576, max = 1_125_899_906_842_624_u64))]
    pub max_bytes: u64,
    /// How long it was written to.
    #[schemars(transform = crate::duration::longer_than_zero)]
    pub max_age: Duration,
}

impl Default for Rollover {
    fn default() -> Self {
        Self { max_bytes: 50 << 30, max_age: Duration::from_secs(86_400) }
    }
}

/// The client's side of TLS. Files that change are read again for the next connection.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ClientTls {
    /// Certificates of the authorities to trust, PEM; without them those of the system.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca_secret_ref: Option<SecretKeyRef>,
    /// The certificate to show.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client_certificate_secret_ref: Option<TlsSecretRef>,
}

pub(crate) fn default_vhost() -> String {
    "/".to_owned()
}

pub(crate) fn default_prefix() -> String {
    "redoubt".to_owned()
}

const fn default_queue_replicas() -> u8 {
    3
}

pub(crate) const fn default_shards() -> u16 {
    1
}

const fn default_replicas() -> u16 {
    1
}
