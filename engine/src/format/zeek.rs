//! A Zeek log line in JSON (`LogAscii::use_json=T`, or the json-streaming-logs package, which adds `_path`).
//!
//! The line stands under `details` with its keys as they are, dots included (`id.orig_h`). Which log it comes from (`_path`) is its
//! Sigma service. Its `uid` names a connection, which many lines share, so it is no id of the event.

use std::net::IpAddr;

use redoubt_crds::FieldType;
use serde_json::Value;

use super::{
    ParseError,
    draft::{Draft, json_object},
    zeek_logsource::logsource,
};
use crate::{
    event::{Event, RawEvent},
    source::Source,
};

/// Keys of the logs with an ECS field of their own.
const COPIES: &[(&str, &str, FieldType)] = &[
    ("id.orig_h", "source.ip", FieldType::Ip),
    ("id.orig_p", "source.port", FieldType::Long),
    ("id.resp_h", "destination.ip", FieldType::Ip),
    ("id.resp_p", "destination.port", FieldType::Long),
    ("orig_bytes", "source.bytes", FieldType::Long),
    ("orig_pkts", "source.packets", FieldType::Long),
    ("resp_bytes", "destination.bytes", FieldType::Long),
    ("resp_pkts", "destination.packets", FieldType::Long),
    ("proto", "network.transport", FieldType::Keyword),
    ("community_id", "network.community_id", FieldType::Keyword),
    ("user_agent", "user_agent.original", FieldType::Keyword),
    ("md5", "file.hash.md5", FieldType::Keyword),
    ("sha1", "file.hash.sha1", FieldType::Keyword),
    ("sha256", "file.hash.sha256", FieldType::Keyword),
    ("username", "user.name", FieldType::Keyword),
    ("user", "user.name", FieldType::Keyword),
];

/// Keys that mean something else in another log: the log, the key, the field.
const COPIES_BY_LOG: &[(&str, &str, &str, FieldType)] = &[
    ("conn", "service", "network.protocol", FieldType::Keyword),
    ("dns", "query", "dns.question.name", FieldType::Keyword),
    ("dns", "qtype_name", "dns.question.type", FieldType::Keyword),
    ("dns", "rcode_name", "dns.response_code", FieldType::Keyword),
    ("files", "filename", "file.name", FieldType::Keyword),
    ("files", "mime_type", "file.mime_type", FieldType::Keyword),
    ("http", "host", "url.domain", FieldType::Keyword),
    ("http", "uri", "url.original", FieldType::Keyword),
    ("http", "method", "http.request.method", FieldType::Keyword),
    ("http", "status_code", "http.response.status_code", FieldType::Long),
    ("notice", "msg", "message", FieldType::Keyword),
    ("notice", "src", "source.ip", FieldType::Ip),
    ("notice", "dst", "destination.ip", FieldType::Ip),
    ("smb_files", "name", "file.name", FieldType::Keyword),
    ("ssl", "server_name", "tls.client.server_name", FieldType::Keyword),
    ("weird", "name", "event.action", FieldType::Keyword),
];

pub(super) fn parse(source: &Source, raw: &RawEvent) -> Result<Event, ParseError> {
    let record = json_object(raw, "a Zeek log line in JSON")?;
    let mut draft = Draft::new(source, raw);
    draft.details = record;

    if let Some(time) = draft.details.get("ts").cloned() {
        draft.set_time(&time);
    }
    draft.copy(COPIES);
    let path = draft.details.get("_path").and_then(Value::as_str).map(str::to_owned);
    let log = path.as_deref().or(source.logsource.service.as_deref()).unwrap_or_default();
    for &(of, key, to, field_type) in COPIES_BY_LOG {
        if of == log {
            draft.copy(&[(key, to, field_type)]);
        }
    }
    let is_v6 = draft.details.get("id.orig_h").and_then(Value::as_str).and_then(|text| text.parse().ok()).map(|ip: IpAddr| ip.is_ipv6());
    if let Some(is_v6) = is_v6 {
        draft.put_text("network.type", if is_v6 { "ipv6" } else { "ipv4" });
    }
    draft.logsource = logsource(&source.logsources, &source.logsource, path.as_deref());
    Ok(draft.finish())
}

#[cfg(test)]
mod tests;
