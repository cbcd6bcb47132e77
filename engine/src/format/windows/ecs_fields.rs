//! The ECS fields of a Windows event, copied from its native ones.

use redoubt_crds::FieldType::{self, Ip, Keyword, Long};
use serde_json::Value;

use super::super::draft::{Draft, says_nothing};

/// Fields that mean the same in every event that has them.
const COMMON: &[(&str, &str, FieldType)] = &[
    ("EventID", "event.code", Keyword),
    ("Provider_Name", "event.provider", Keyword),
    ("Channel", "log.name", Keyword),
    ("Computer", "host.name", Keyword),
    ("TargetFilename", "file.path", Keyword),
    ("TargetObject", "registry.path", Keyword),
    ("QueryName", "dns.question.name", Keyword),
    ("SourceIp", "source.ip", Ip),
    ("SourcePort", "source.port", Long),
    ("SourceHostname", "source.domain", Keyword),
    ("DestinationIp", "destination.ip", Ip),
    ("DestinationPort", "destination.port", Long),
    ("DestinationHostname", "destination.domain", Keyword),
    ("Protocol", "network.transport", Keyword),
];

/// Sysmon's and its followers' names for the process that an event is about.
const PROCESS: &[(&str, &str, FieldType)] = &[
    ("Image", "process.executable", Keyword),
    ("ProcessId", "process.pid", Long),
    ("ProcessGuid", "process.entity_id", Keyword),
    ("CommandLine", "process.command_line", Keyword),
    ("CurrentDirectory", "process.working_directory", Keyword),
    ("OriginalFileName", "process.pe.original_file_name", Keyword),
    ("ParentImage", "process.parent.executable", Keyword),
    ("ParentProcessId", "process.parent.pid", Long),
    ("ParentProcessGuid", "process.parent.entity_id", Keyword),
    ("ParentCommandLine", "process.parent.command_line", Keyword),
];

/// The same in the security log's event 4688, whose `ProcessId` is the creator's.
const SECURITY_PROCESS: &[(&str, &str, FieldType)] = &[
    ("NewProcessName", "process.executable", Keyword),
    ("NewProcessId", "process.pid", Long),
    ("CommandLine", "process.command_line", Keyword),
    ("ParentProcessName", "process.parent.executable", Keyword),
    ("ProcessId", "process.parent.pid", Long),
];

/// Security events whose subject is the account that logs on or is checked, not the one that asks for it.
const LOGONS: [i64; 10] = [4624, 4625, 4634, 4647, 4768, 4769, 4770, 4771, 4776, 4778];

/// Fills in what the native fields tell.
pub(super) fn fill(draft: &mut Draft<'_>, event_id: Option<i64>) {
    let category = draft.logsource.as_ref().and_then(|logsource| logsource.category.clone());
    let is_security = draft.logsource.as_ref().is_some_and(|logsource| logsource.service.as_deref() == Some("security"));
    let is_4688 = is_security && event_id == Some(4688);

    draft.copy(COMMON);
    if is_4688 {
        draft.copy(SECURITY_PROCESS);
    } else if !is_security {
        draft.copy(PROCESS);
    }
    if is_security {
        // "-" and host names stand here as often as addresses, so nothing is amiss when it is none.
        for (from, side) in [("IpAddress", "source"), ("SourceAddress", "source"), ("DestAddress", "destination")] {
            if let Some(text) = text(draft, from) {
                draft.put_endpoint(side, &text);
            }
        }
        draft.copy(&[("IpPort", "source.port", Long), ("DestPort", "destination.port", Long)]);
    }
    for path in ["process", "process.parent"] {
        if let Some(executable) = ecs_text(draft, &format!("{path}.executable")) {
            draft.put_text(&format!("{path}.name"), file_name(&executable));
        }
    }
    match category.as_deref() {
        Some("image_load") => subject_file(draft, "ImageLoaded", "dll"),
        Some("driver_load") => subject_file(draft, "ImageLoaded", "file"),
        Some("process_creation") => hashes(draft, "process"),
        _ => {
            if let Some(path) = ecs_text(draft, "file.path") {
                draft.put_text("file.name", file_name(&path));
                hashes(draft, "file");
            }
        }
    }
    user(draft, event_id);
    if is_4688 {
        sigma_names(draft);
    }
}

/// A loaded file: path, name and hashes.
fn subject_file(draft: &mut Draft<'_>, from: &str, field_set: &str) {
    if let Some(path) = text(draft, from) {
        draft.put_text(&format!("{field_set}.path"), &path);
        draft.put_text(&format!("{field_set}.name"), file_name(&path));
    }
    hashes(draft, field_set);
}

/// `SHA1=...,MD5=...,SHA256=...,IMPHASH=...`
fn hashes(draft: &mut Draft<'_>, field_set: &str) {
    let Some(list) = text(draft, "Hashes") else { return };
    for (name, value) in list.split(',').filter_map(|pair| pair.split_once('=')) {
        let field = match name.trim().to_ascii_lowercase().as_str() {
            "md5" => "hash.md5",
            "sha1" => "hash.sha1",
            "sha256" => "hash.sha256",
            "imphash" => "pe.imphash",
            _ => continue,
        };
        draft.put_text(&format!("{field_set}.{field}"), &value.trim().to_ascii_lowercase());
    }
}

/// `User` is `DOMAIN\name`; the security log has the parts apart.
fn user(draft: &mut Draft<'_>, event_id: Option<i64>) {
    if let Some(user) = text(draft, "User") {
        match user.split_once('\\') {
            Some((domain, name)) => {
                draft.put_text("user.domain", domain);
                draft.put_text("user.name", name);
            }
            None => draft.put_text("user.name", &user),
        }
        return;
    }
    let target_first = event_id.is_some_and(|id| LOGONS.contains(&id));
    let order = if target_first { ["Target", "Subject"] } else { ["Subject", "Target"] };
    for role in order {
        if let Some(name) = text(draft, &format!("{role}UserName")) {
            draft.put_text("user.name", &name);
            for (part, field) in [("DomainName", "user.domain"), ("UserSid", "user.id")] {
                if let Some(value) = text(draft, &format!("{role}{part}")) {
                    draft.put_text(field, &value);
                }
            }
            return;
        }
    }
}

/// Rules on process creation use Sysmon's names, so event 4688 has them besides its own.
fn sigma_names(draft: &mut Draft<'_>) {
    for (from, to) in [("NewProcessName", "Image"), ("ParentProcessName", "ParentImage")] {
        if let Some(value) = draft.details.get(from).filter(|value| !says_nothing(value)).cloned() {
            draft.details.entry(to).or_insert(value);
        }
    }
    if let Some(name) = text(draft, "SubjectUserName")
        && let Some(domain) = text(draft, "SubjectDomainName")
    {
        draft.details.entry("User").or_insert(Value::String(format!("{domain}\\{name}")));
    }
}

fn text(draft: &Draft<'_>, name: &str) -> Option<String> {
    draft.details.get(name).filter(|value| !says_nothing(value)).and_then(Value::as_str).map(str::to_owned)
}

fn ecs_text(draft: &Draft<'_>, path: &str) -> Option<String> {
    crate::event::lookup(&draft.document, path).and_then(Value::as_str).map(str::to_owned)
}

/// The last name of a Windows path.
fn file_name(path: &str) -> &str {
    path.rsplit(['\\', '/']).next().unwrap_or(path)
}
