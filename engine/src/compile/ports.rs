//! Ports that several resources ask for.

use std::collections::BTreeMap;

use redoubt_crds::IngestSpec;

use crate::resource::{Kind, Resource, Spec};

/// Who listens on which port.
pub(super) struct Ports<'r>(BTreeMap<(&'static str, u16), (Kind, &'r str)>);

impl<'r> Ports<'r> {
    /// The HTTP listener's port is taken from the start.
    pub(super) fn new(resources: &'r [Resource]) -> Self {
        let siem = resources.iter().find_map(|resource| match &resource.spec {
            Spec::Siem(spec) => Some((spec.ingest.port, resource.name.as_str())),
            _ => None,
        });
        let (port, name) = siem.unwrap_or((IngestSpec::default().port, "default"));
        Self(BTreeMap::from([(("tcp", port), (Kind::Siem, name))]))
    }

    /// Takes a LogSource's ports, all or none; tells the field and the owner of one that is taken.
    pub(super) fn claim(&mut self, resource: &'r Resource) -> Option<(&'static str, String)> {
        let Spec::LogSource(spec) = &resource.spec else { return None };
        let syslog = spec.syslog.as_ref()?;
        let udp = syslog.udp_port.map(|port| (("udp", port), "spec.syslog.udpPort"));
        let tcp = syslog.tcp_port.map(|port| (("tcp", port), "spec.syslog.tcpPort"));
        let wanted: Vec<_> = udp.into_iter().chain(tcp).collect();
        for ((protocol, port), field) in &wanted {
            if let Some((kind, owner)) = self.0.get(&(*protocol, *port)) {
                return Some((field, format!("{protocol} port {port} belongs to {kind}/{owner}")));
            }
        }
        self.0.extend(wanted.into_iter().map(|(key, _)| (key, (resource.kind, resource.name.as_str()))));
        None
    }
}
