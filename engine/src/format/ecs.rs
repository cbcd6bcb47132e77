//! The Elastic Common Schema: which names stand at the top of an event, and which of them have a type that a store relies on.
//!
//! Source: Elastic Common Schema 9, field reference.

use redoubt_crds::FieldType;

/// Whether a name is a field set: an object at the top of an event. Those that ECS only nests in others (`geo`, `hash`, `os`, ...) are
/// taken at the top too, since shippers write them there.
pub(crate) fn is_field_set(name: &str) -> bool {
    matches!(
        name,
        "agent"
            | "as"
            | "client"
            | "cloud"
            | "code_signature"
            | "container"
            | "data_stream"
            | "destination"
            | "device"
            | "dll"
            | "dns"
            | "ecs"
            | "elf"
            | "email"
            | "error"
            | "event"
            | "faas"
            | "file"
            | "geo"
            | "group"
            | "hash"
            | "host"
            | "http"
            | "interface"
            | "labels"
            | "log"
            | "macho"
            | "network"
            | "observer"
            | "orchestrator"
            | "organization"
            | "os"
            | "package"
            | "pe"
            | "process"
            | "registry"
            | "related"
            | "risk"
            | "rule"
            | "server"
            | "service"
            | "source"
            | "span"
            | "threat"
            | "tls"
            | "trace"
            | "transaction"
            | "url"
            | "user"
            | "user_agent"
            | "vlan"
            | "volume"
            | "vulnerability"
            | "x509"
    )
}

/// Where the scalar of a field set's name goes, for the few whose meaning is plain: `host: web-1` is the host's name.
pub(super) fn scalar_target(field_set: &str) -> Option<&'static str> {
    Some(match field_set {
        "error" => "error.message",
        "group" => "group.name",
        "host" => "host.name",
        "service" => "service.name",
        "url" => "url.original",
        "user" => "user.name",
        "user_agent" => "user_agent.original",
        _ => return None,
    })
}

/// Fields whose type the event promises, whoever wrote them: a value that does not fit is moved to `details`. All have two or three
/// names in their path.
pub(super) const TYPED: &[(&str, FieldType)] = &[
    ("client.ip", FieldType::Ip),
    ("client.port", FieldType::Long),
    ("client.bytes", FieldType::Long),
    ("destination.ip", FieldType::Ip),
    ("destination.port", FieldType::Long),
    ("destination.bytes", FieldType::Long),
    ("event.action", FieldType::Keyword),
    ("event.category", FieldType::Keyword),
    ("event.code", FieldType::Keyword),
    ("event.created", FieldType::Date),
    ("event.duration", FieldType::Long),
    ("event.end", FieldType::Date),
    ("event.kind", FieldType::Keyword),
    ("event.outcome", FieldType::Keyword),
    ("event.provider", FieldType::Keyword),
    ("event.risk_score", FieldType::Double),
    ("event.sequence", FieldType::Long),
    ("event.severity", FieldType::Long),
    ("event.start", FieldType::Date),
    ("file.size", FieldType::Long),
    ("host.ip", FieldType::Ip),
    ("host.name", FieldType::Keyword),
    ("http.response.status_code", FieldType::Long),
    ("log.level", FieldType::Keyword),
    ("observer.ip", FieldType::Ip),
    ("process.command_line", FieldType::Keyword),
    ("process.executable", FieldType::Keyword),
    ("process.exit_code", FieldType::Long),
    ("process.name", FieldType::Keyword),
    ("process.parent.pid", FieldType::Long),
    ("process.pid", FieldType::Long),
    ("related.ip", FieldType::Ip),
    ("server.ip", FieldType::Ip),
    ("server.port", FieldType::Long),
    ("server.bytes", FieldType::Long),
    ("source.ip", FieldType::Ip),
    ("source.port", FieldType::Long),
    ("source.bytes", FieldType::Long),
    ("url.port", FieldType::Long),
    ("user.name", FieldType::Keyword),
];
