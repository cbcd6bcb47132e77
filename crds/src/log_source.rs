//! `LogSource`: how events of one kind come in.

use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{BasicAuthSecretRef, ClientTls, ConfigStatus, SecretKeyRef, TlsSecretRef};

/// A stream of events of one kind: the input it arrives by, the format it is in, and what is known of all its events.
#[derive(CustomResource, Debug, Clone, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[kube(
    group = "redoubt.dev",
    version = "v1alpha1",
    kind = "LogSource",
    namespaced,
    category = "redoubt",
    shortname = "ls",
    shortname = "logsrc",
    status = "ConfigStatus",
    derive = "PartialEq",
    printcolumn(name = "Format", type_ = "string", json_path = ".spec.format"),
    printcolumn(name = "Accepted", type_ = "string", json_path = ".status.conditions[?(@.type==\"Accepted\")].status"),
    printcolumn(name = "Ready", type_ = "string", json_path = ".status.conditions[?(@.type==\"Ready\")].status"),
    printcolumn(name = "Message", type_ = "string", json_path = ".status.conditions[?(@.type==\"Accepted\")].message", priority = 1),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[x_kube(validation = (
    "[has(self.http), has(self.syslog), has(self.amqp)].filter(x, x).size() == 1",
    "exactly one input is needed: http, syslog or amqp"
))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct LogSourceSpec {
    /// Events are posted to the HTTP listener, at `/v1/sources/NAME`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub http: Option<HttpInput>,
    /// Events arrive as syslog messages over UDP, TCP or TLS.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub syslog: Option<SyslogInput>,
    /// Events are taken from a queue of a RabbitMQ that others publish to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub amqp: Option<AmqpInput>,
    /// The format of an event. Defaults to `syslog` for a syslog input, else to `json`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub format: Option<Format>,
    /// `event.dataset` of every event. Defaults to the resource's name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub dataset: Option<String>,
    /// The Sigma logsource of the events, where the format does not tell it event by event.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub logsource: Option<SigmaLogsource>,
    /// Added to `tags` of every event.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), inner(length(min = 1, max = 256)))]
    pub tags: Vec<String>,
    /// Native fields to be copied to an ECS field, with a type. A value that does not fit stays text under `details`, and the event is tagged.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 512))]
    pub fields: Vec<TypedField>,
    /// IANA time zone of timestamps that carry none. Defaults to `UTC`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 64))]
    pub timezone: Option<String>,
    /// How fast events may come.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub quota: Option<Quota>,
}

/// An HTTP input.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct HttpInput {
    /// Who may post. There is no unauthenticated HTTP input.
    pub auth: HttpAuth,
}

/// How a sender proves who it is.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[x_kube(validation = ("has(self.bearer) || has(self.basic)", "at least one of bearer and basic is needed"))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct HttpAuth {
    /// The Secret key with the bearer tokens, one a line: a new one is added before the old is taken away.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bearer: Option<SecretKeyRef>,
    /// The Secret key with `user:password` lines.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub basic: Option<SecretKeyRef>,
}

/// A syslog input: RFC 3164 and RFC 5424 messages, told apart by themselves.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[x_kube(validation = ("has(self.udpPort) || has(self.tcpPort)", "at least one of udpPort and tcpPort is needed"))]
#[x_kube(validation = ("!has(self.tls) || has(self.tcpPort)", "tls needs a tcpPort"))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct SyslogInput {
    /// UDP port (RFC 5426).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 65535))]
    pub udp_port: Option<u16>,
    /// TCP port; octet-counted and newline-terminated messages are told apart by themselves (RFC 6587).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 65535))]
    pub tcp_port: Option<u16>,
    /// Certificate of the TCP listener, which then speaks TLS only (RFC 5425).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls: Option<TlsSecretRef>,
    /// Addresses or CIDRs that may send; empty means all.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 1024), inner(length(min = 1, max = 64)))]
    pub allow_from: Vec<String>,
}

/// An AMQP input: a queue of a RabbitMQ that producers of others publish to. A message is acknowledged when its events are safe; one
/// that is no event goes to the queue `QUEUE.refused` with the reason.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, KubeSchema)]
#[x_kube(validation = ("has(self.exchange) == has(self.bindingKey)", "exchange and bindingKey go together"))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct AmqpInput {
    /// Nodes, as `amqp://HOST:PORT` or `amqps://HOST:PORT`, without credentials; the first that answers is used.
    #[schemars(length(min = 1, max = 16), inner(length(max = 2048), regex(pattern = r"^amqps?://[^/@?#\s]+$")))]
    pub urls: Vec<String>,
    /// Virtual host.
    #[serde(default = "crate::external::default_vhost")]
    #[schemars(length(min = 1, max = 255))]
    pub vhost: String,
    /// User and password.
    pub credentials_secret_ref: BasicAuthSecretRef,
    /// Whom to trust and what to show, over `amqps`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls: Option<ClientTls>,
    /// The queue that events are taken from. Made as a durable quorum queue where it is not there.
    #[schemars(length(min = 1, max = 200))]
    pub queue: String,
    /// The exchange that producers publish to; the queue is bound to it. It must be there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 255))]
    pub exchange: Option<String>,
    /// The key that the queue is bound by.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 255))]
    pub binding_key: Option<String>,
    /// Messages that may be on their way without acknowledgement, for each ingest process.
    #[serde(default = "default_prefetch")]
    #[schemars(range(min = 1, max = 10_000))]
    pub prefetch: u16,
}

const fn default_prefetch() -> u16 {
    500
}

/// How one event is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[schemars(transform = crate::choice::flatten)]
pub enum Format {
    /// A JSON object: ECS fields are taken as they are, all else goes to `details`.
    Json,
    /// JSON objects, one a line. The same as `json`, which accepts lines too.
    Ndjson,
    /// MozDef's event, with all its key aliases.
    Mozdef,
    /// A syslog message, RFC 3164 or RFC 5424.
    Syslog,
    /// ArcSight Common Event Format, with or without a syslog header.
    Cef,
    /// AWS CloudTrail records, single or as the delivered `Records` file.
    Cloudtrail,
    /// A Windows event: event-log XML as JSON, winlogbeat's shape, or flat Sysmon JSON.
    Windows,
    /// A Zeek log line in JSON.
    Zeek,
}

/// A Sigma logsource (Sigma specification 2.1, "Log source"): which rules apply to an event.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, Serialize, Deserialize, KubeSchema)]
#[x_kube(validation = (
    "has(self.product) || has(self.service) || has(self.category)",
    "at least one of product, service and category is needed"
))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct SigmaLogsource {
    /// A product, such as `linux` or `aws`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 128))]
    pub product: Option<String>,
    /// A service of the product, such as `sshd` or `cloudtrail`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 128))]
    pub service: Option<String>,
    /// A category across products, such as `process_creation`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 128))]
    pub category: Option<String>,
}

/// A native field that becomes a typed field of the event.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct TypedField {
    /// Path under `details`.
    #[schemars(length(min = 1, max = 512))]
    pub from: String,
    /// Path in the event, by preference an ECS name.
    #[schemars(length(min = 1, max = 512))]
    pub to: String,
    /// What the value is read as.
    #[serde(rename = "type")]
    pub field_type: FieldType,
}

/// The type of a declared field, by its Elasticsearch name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[schemars(transform = crate::choice::flatten)]
pub enum FieldType {
    /// A string, kept whole.
    Keyword,
    /// A whole number of 64 bits.
    Long,
    /// A floating-point number of 64 bits.
    Double,
    /// `true` or `false`.
    Boolean,
    /// An IPv4 or IPv6 address.
    Ip,
    /// A point in time.
    Date,
}

/// How fast events may come; past it senders get 429 with `Retry-After`, and nothing that was accepted is lost.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Quota {
    /// Events a second, sustained, for each ingest process.
    #[schemars(range(min = 1))]
    pub events_per_second: u32,
    /// Events that may come at once after a pause. Defaults to ten seconds' worth.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub burst: Option<u32>,
}
