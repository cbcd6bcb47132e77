//! Which Sigma logsource a Zeek line belongs to: the service by its log.

use std::sync::Arc;

use redoubt_crds::SigmaLogsource;

use super::logsource::fill_in;

/// The product of every Zeek logsource.
const PRODUCT: &str = "zeek";

/// The logs of Zeek and its usual packages; each is a Sigma service of that name. Sorted, for the look-up.
const SERVICES: [&str; 50] = [
    "analyzer",
    "capture_loss",
    "conn",
    "dce_rpc",
    "dhcp",
    "dnp3",
    "dns",
    "dpd",
    "files",
    "ftp",
    "http",
    "intel",
    "irc",
    "kerberos",
    "known_certs",
    "known_hosts",
    "known_services",
    "ldap",
    "ldap_search",
    "loaded_scripts",
    "modbus",
    "mqtt_connect",
    "mqtt_publish",
    "mysql",
    "notice",
    "notice_alarm",
    "ntlm",
    "ntp",
    "ocsp",
    "pe",
    "postgresql",
    "quic",
    "radius",
    "rdp",
    "reporter",
    "rfb",
    "sip",
    "smb_cmd",
    "smb_files",
    "smb_mapping",
    "smtp",
    "snmp",
    "socks",
    "software",
    "ssh",
    "ssl",
    "syslog",
    "tunnel",
    "weird",
    "x509",
];

/// The logsources of a Zeek source: one a service of [`SERVICES`], and last the one of a line that does not name its log.
pub(crate) fn logsources(declared: &SigmaLogsource) -> Vec<Arc<SigmaLogsource>> {
    let services = SERVICES.iter().map(|service| Some(*service)).chain([None]);
    services.map(|service| Arc::new(fill_in(declared, PRODUCT, service, None))).collect()
}

/// The logsource of a line: one of [`logsources`], by the log that the line names.
pub(super) fn logsource(all: &[Arc<SigmaLogsource>], declared: &SigmaLogsource, path: Option<&str>) -> Option<Arc<SigmaLogsource>> {
    let index = match path {
        None => SERVICES.len(),
        Some(path) => match SERVICES.binary_search(&path) {
            Ok(index) => index,
            // A log of somebody's own script: rare enough to be made for the event.
            Err(_) => return Some(Arc::new(fill_in(declared, PRODUCT, Some(path), None))),
        },
    };
    all.get(index).map(Arc::clone)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_services_are_in_order_so_that_a_search_finds_each() {
        assert!(SERVICES.is_sorted());
    }
}
