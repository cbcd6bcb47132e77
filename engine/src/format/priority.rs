//! Syslog's facilities and severities (RFC 5424, section 6.2.1) by number and by the names that people write.

/// The names of the severities, most severe first; the index is the code.
const SEVERITIES: [&str; 8] = ["emergency", "alert", "critical", "error", "warning", "notice", "informational", "debug"];

/// The names of the facilities; the index is the code.
const FACILITIES: [&str; 24] = [
    "kern",
    "user",
    "mail",
    "daemon",
    "auth",
    "syslog",
    "lpr",
    "news",
    "uucp",
    "cron",
    "authpriv",
    "ftp",
    "ntp",
    "security",
    "console",
    "solaris-cron",
    "local0",
    "local1",
    "local2",
    "local3",
    "local4",
    "local5",
    "local6",
    "local7",
];

/// The name of a severity code.
pub(super) fn severity_name(code: u8) -> Option<&'static str> {
    SEVERITIES.get(usize::from(code)).copied()
}

/// The name of a facility code.
pub(super) fn facility_name(code: u8) -> Option<&'static str> {
    FACILITIES.get(usize::from(code)).copied()
}

/// The code of a severity from its number or one of its names, in any case; `None` for words that RFC 5424 does not know.
pub(super) fn severity_code(text: &str) -> Option<u8> {
    let text = text.trim().to_ascii_lowercase();
    let code = match text.as_str() {
        "emerg" | "panic" => 0,
        "crit" | "fatal" => 2,
        "err" => 3,
        "warn" => 4,
        "info" => 6,
        name => match SEVERITIES.iter().position(|known| *known == name) {
            Some(index) => u8::try_from(index).ok()?,
            None => name.parse().ok().filter(|code| *code < 8)?,
        },
    };
    Some(code)
}
