//! Which Sigma logsource a Windows event belongs to: the service by its channel, the category by its event id.
//!
//! An event has both where both are known: Sysmon's event 1 is `{product: windows, service: sysmon, category: process_creation}`, so
//! rules that ask for the service and rules that ask for the category both fit it.
//!
//! The category is always the specific one. Sigma's `registry_event` is the parent of `registry_add`, `registry_delete`,
//! `registry_set` and `registry_rename`: a rule that asks for the parent has to fit events of all four. That is the matcher's part.
//!
//! Source: Sigma specification 2.1, appendix "Taxonomy" (Windows), and the channel names of Windows itself.

use std::sync::Arc;

use redoubt_crds::SigmaLogsource;

use super::logsource::fill_in;

/// The product of every Windows logsource.
pub(crate) const PRODUCT: &str = "windows";

/// Sigma services, each with the channels that are it. The two that most events come by stand first.
const SERVICES: &[(&str, &[&str])] = &[
    ("sysmon", &["Microsoft-Windows-Sysmon/Operational"]),
    ("security", &["Security"]),
    ("system", &["System"]),
    ("application", &["Application"]),
    ("powershell", &["Microsoft-Windows-PowerShell/Operational", "PowerShellCore/Operational"]),
    ("powershell-classic", &["Windows PowerShell"]),
    ("appmodel-runtime", &["Microsoft-Windows-AppModel-Runtime/Admin"]),
    (
        "applocker",
        &[
            "Microsoft-Windows-AppLocker/EXE and DLL",
            "Microsoft-Windows-AppLocker/MSI and Script",
            "Microsoft-Windows-AppLocker/Packaged app-Deployment",
            "Microsoft-Windows-AppLocker/Packaged app-Execution",
        ],
    ),
    ("appxdeployment-server", &["Microsoft-Windows-AppXDeploymentServer/Operational"]),
    ("appxpackaging-om", &["Microsoft-Windows-AppxPackaging/Operational"]),
    ("bits-client", &["Microsoft-Windows-Bits-Client/Operational"]),
    ("capi2", &["Microsoft-Windows-CAPI2/Operational"]),
    ("certificateservicesclient-lifecycle-system", &["Microsoft-Windows-CertificateServicesClient-Lifecycle-System/Operational"]),
    ("codeintegrity-operational", &["Microsoft-Windows-CodeIntegrity/Operational"]),
    ("dhcp", &["Microsoft-Windows-DHCP-Server/Operational"]),
    ("diagnosis-scripted", &["Microsoft-Windows-Diagnosis-Scripted/Operational"]),
    ("dns-client", &["Microsoft-Windows-DNS-Client/Operational", "Microsoft-Windows-DNS Client Events/Operational"]),
    ("dns-server", &["DNS Server"]),
    ("dns-server-analytic", &["Microsoft-Windows-DNS-Server/Analytical", "Microsoft-Windows-DNSServer/Analytical"]),
    ("dns-server-audit", &["Microsoft-Windows-DNS-Server/Audit", "Microsoft-Windows-DNSServer/Audit"]),
    ("driver-framework", &["Microsoft-Windows-DriverFrameworks-UserMode/Operational"]),
    ("firewall-as", &["Microsoft-Windows-Windows Firewall With Advanced Security/Firewall"]),
    ("hyper-v-worker", &["Microsoft-Windows-Hyper-V-Worker"]),
    ("iis-configuration", &["Microsoft-IIS-Configuration/Operational"]),
    ("kernel-event-tracing", &["Microsoft-Windows-Kernel-EventTracing"]),
    ("kernel-shimengine", &["Microsoft-Windows-Kernel-ShimEngine/Operational", "Microsoft-Windows-Kernel-ShimEngine/Diagnostic"]),
    ("ldap", &["Microsoft-Windows-LDAP-Client/Debug"]),
    ("lsa-server", &["Microsoft-Windows-LSA/Operational"]),
    (
        "microsoft-servicebus-client",
        &["Microsoft-ServiceBus-Client", "Microsoft-ServiceBus-Client/Admin", "Microsoft-ServiceBus-Client/Operational"],
    ),
    ("msexchange-management", &["MSExchange Management"]),
    ("ntfs", &["Microsoft-Windows-Ntfs/Operational"]),
    ("ntlm", &["Microsoft-Windows-NTLM/Operational"]),
    ("openssh", &["OpenSSH/Operational"]),
    ("printservice-admin", &["Microsoft-Windows-PrintService/Admin"]),
    ("printservice-operational", &["Microsoft-Windows-PrintService/Operational"]),
    (
        "security-mitigations",
        &[
            "Microsoft-Windows-Security-Mitigations/KernelMode",
            "Microsoft-Windows-Security-Mitigations/UserMode",
            "Microsoft-Windows-Security-Mitigations/Kernel Mode",
            "Microsoft-Windows-Security-Mitigations/User Mode",
        ],
    ),
    ("sense", &["Microsoft-Windows-SENSE/Operational"]),
    ("shell-core", &["Microsoft-Windows-Shell-Core/Operational"]),
    ("smbclient-connectivity", &["Microsoft-Windows-SmbClient/Connectivity"]),
    ("smbclient-security", &["Microsoft-Windows-SmbClient/Security"]),
    ("smbserver-connectivity", &["Microsoft-Windows-SMBServer/Connectivity"]),
    ("taskscheduler", &["Microsoft-Windows-TaskScheduler/Operational"]),
    ("terminalservices-localsessionmanager", &["Microsoft-Windows-TerminalServices-LocalSessionManager/Operational"]),
    ("vhdmp", &["Microsoft-Windows-VHDMP/Operational", "Microsoft-Windows-VHDMP-Operational"]),
    ("windefend", &["Microsoft-Windows-Windows Defender/Operational"]),
    ("wmi", &["Microsoft-Windows-WMI-Activity/Operational"]),
];

/// One kind of event that has a category.
struct Kind {
    /// The service, or for what comes by event tracing (ETW) the provider.
    by: By,
    event_id: i64,
    /// Sysmon's `EventType`, where the id alone does not tell.
    event_type: Option<&'static str>,
    category: &'static str,
}

#[derive(PartialEq, Eq)]
enum By {
    Service(&'static str),
    Provider(&'static str),
}

const fn kind(service: &'static str, event_id: i64, category: &'static str) -> Kind {
    Kind { by: By::Service(service), event_id, event_type: None, category }
}

const fn registry(event_id: i64, event_type: &'static str, category: &'static str) -> Kind {
    Kind { by: By::Service("sysmon"), event_id, event_type: Some(event_type), category }
}

const fn traced(event_id: i64, category: &'static str) -> Kind {
    Kind { by: By::Provider("Microsoft-Windows-Kernel-File"), event_id, event_type: None, category }
}

/// Categories by service and event id. Of two that fit the first counts.
const KINDS: &[Kind] = &[
    kind("sysmon", 1, "process_creation"),
    kind("sysmon", 2, "file_change"),
    kind("sysmon", 3, "network_connection"),
    kind("sysmon", 4, "sysmon_status"),
    kind("sysmon", 5, "process_termination"),
    kind("sysmon", 6, "driver_load"),
    kind("sysmon", 7, "image_load"),
    kind("sysmon", 8, "create_remote_thread"),
    kind("sysmon", 9, "raw_access_thread"),
    kind("sysmon", 10, "process_access"),
    kind("sysmon", 11, "file_event"),
    registry(12, "CreateKey", "registry_add"),
    registry(12, "CreateValue", "registry_add"),
    registry(12, "DeleteKey", "registry_delete"),
    registry(12, "DeleteValue", "registry_delete"),
    kind("sysmon", 12, "registry_event"),
    kind("sysmon", 13, "registry_set"),
    kind("sysmon", 14, "registry_rename"),
    kind("sysmon", 15, "create_stream_hash"),
    kind("sysmon", 16, "sysmon_status"),
    kind("sysmon", 17, "pipe_created"),
    kind("sysmon", 18, "pipe_created"),
    kind("sysmon", 19, "wmi_event"),
    kind("sysmon", 20, "wmi_event"),
    kind("sysmon", 21, "wmi_event"),
    kind("sysmon", 22, "dns_query"),
    kind("sysmon", 23, "file_delete"),
    kind("sysmon", 24, "clipboard_capture"),
    kind("sysmon", 25, "process_tampering"),
    kind("sysmon", 26, "file_delete"),
    kind("sysmon", 27, "file_block_executable"),
    kind("sysmon", 28, "file_block_shredding"),
    kind("sysmon", 29, "file_executable_detected"),
    kind("sysmon", 255, "sysmon_error"),
    kind("security", 4688, "process_creation"),
    kind("powershell", 4103, "ps_module"),
    kind("powershell", 4104, "ps_script"),
    kind("powershell-classic", 400, "ps_classic_start"),
    kind("powershell-classic", 600, "ps_classic_provider_start"),
    kind("powershell-classic", 800, "ps_classic_script"),
    traced(10, "file_access"),
    traced(12, "file_access"),
    traced(11, "file_delete"),
    traced(18, "file_delete"),
    traced(26, "file_delete"),
    traced(19, "file_rename"),
    traced(27, "file_rename"),
    traced(30, "file_event"),
];

/// What is known of one event.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Facts<'a> {
    pub(crate) channel: Option<&'a str>,
    pub(crate) provider: Option<&'a str>,
    pub(crate) event_id: Option<i64>,
    pub(crate) event_type: Option<&'a str>,
}

/// Every logsource of a Windows source: the services, the kinds, and last the bare product. [`index`] counts in this order.
pub(crate) fn logsources(declared: &SigmaLogsource) -> Vec<Arc<SigmaLogsource>> {
    let services = SERVICES.iter().map(|(service, _)| (Some(*service), None));
    let kinds = KINDS.iter().map(|kind| match kind.by {
        By::Service(service) => (Some(service), Some(kind.category)),
        By::Provider(_) => (None, Some(kind.category)),
    });
    let all = services.chain(kinds).chain([(None, None)]);
    all.map(|(service, category)| Arc::new(fill_in(declared, PRODUCT, service, category))).collect()
}

/// Where the logsource of an event stands in [`logsources`].
pub(crate) fn index(facts: &Facts<'_>) -> usize {
    let service = SERVICES.iter().position(|(name, channels)| match facts.channel {
        Some(channel) => channels.iter().any(|known| known.eq_ignore_ascii_case(channel)),
        // Some shippers leave the channel out; Sysmon's provider writes to its own channel alone.
        None => *name == "sysmon" && facts.provider == Some("Microsoft-Windows-Sysmon"),
    });
    let service_name = service.map(|index| SERVICES[index].0);
    let kind = facts.event_id.and_then(|event_id| {
        KINDS.iter().position(|kind| {
            kind.event_id == event_id
                && match kind.by {
                    By::Service(name) => Some(name) == service_name,
                    By::Provider(name) => facts.provider == Some(name),
                }
                && kind.event_type.is_none_or(|wanted| facts.event_type.is_some_and(|known| wanted.eq_ignore_ascii_case(known)))
        })
    });
    match (kind, service) {
        (Some(kind), _) => SERVICES.len() + kind,
        (None, Some(service)) => service,
        (None, None) => SERVICES.len() + KINDS.len(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(channel: &str, provider: &str, event_id: i64, event_type: &str) -> (Option<String>, Option<String>) {
        let text = |text| Some(text).filter(|text: &&str| !text.is_empty());
        let facts = Facts { channel: text(channel), provider: text(provider), event_id: Some(event_id), event_type: text(event_type) };
        let all = logsources(&SigmaLogsource::default());
        let logsource = &all[index(&facts)];
        assert_eq!(logsource.product.as_deref(), Some("windows"));
        (logsource.service.clone(), logsource.category.clone())
    }

    #[test]
    fn channel_and_event_id_tell_service_and_category() {
        let sysmon = "Microsoft-Windows-Sysmon/Operational";
        let cases = [
            (sysmon, "", 1, "", "sysmon", "process_creation"),
            (sysmon, "", 12, "CreateKey", "sysmon", "registry_add"),
            (sysmon, "", 12, "DeleteValue", "sysmon", "registry_delete"),
            (sysmon, "", 12, "", "sysmon", "registry_event"),
            (sysmon, "", 13, "SetValue", "sysmon", "registry_set"),
            (sysmon, "", 14, "RenameKey", "sysmon", "registry_rename"),
            (sysmon, "", 999, "", "sysmon", ""),
            ("", "Microsoft-Windows-Sysmon", 3, "", "sysmon", "network_connection"),
            ("security", "", 4688, "", "security", "process_creation"),
            ("Security", "", 4624, "", "security", ""),
            ("System", "", 1, "", "system", ""),
            ("PowerShellCore/Operational", "", 4104, "", "powershell", "ps_script"),
            ("Windows PowerShell", "", 400, "", "powershell-classic", "ps_classic_start"),
            ("", "Microsoft-Windows-Kernel-File", 12, "", "", "file_access"),
            ("Something/Else", "", 1, "", "", ""),
            ("", "", 1, "", "", ""),
        ];

        for (channel, provider, event_id, event_type, service, category) in cases {
            let text = |text: &str| Some(text.to_owned()).filter(|text| !text.is_empty());
            let expected = (text(service), text(category));
            assert_eq!(found(channel, provider, event_id, event_type), expected, "{channel} {provider} {event_id} {event_type}");
        }
    }

    #[test]
    fn every_kind_stands_for_a_known_service() {
        for kind in KINDS {
            if let By::Service(service) = kind.by {
                assert!(SERVICES.iter().any(|(name, _)| *name == service), "{service}");
            }
        }
    }

    #[test]
    fn a_declaration_goes_over_what_the_table_says() {
        let declared = SigmaLogsource { product: None, service: Some("mine".to_owned()), category: None };

        let all = logsources(&declared);
        let one = &all[index(&Facts { channel: Some("Security"), event_id: Some(4688), ..Facts::default() })];

        assert_eq!(one.product.as_deref(), Some("windows"));
        assert_eq!(one.service.as_deref(), Some("mine"));
        assert_eq!(one.category.as_deref(), Some("process_creation"));
    }
}
