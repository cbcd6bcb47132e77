//! Step two, pure: brings what was read into the shape that decisions are made from.

use std::collections::BTreeSet;

use redoubt_crds::{LogSourceSpec, SiemSpec, in_cluster};
use redoubt_engine::resource::{Spec, referenced_secrets};

use super::dereference::Observed;

/// How packets of a port travel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Transport {
    Tcp,
    Udp,
}

impl Transport {
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Tcp => "TCP",
            Self::Udp => "UDP",
        }
    }
}

/// A port that ingest listens on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Listener {
    pub(crate) transport: Transport,
    pub(crate) port: u16,
}

/// What the Siem and the resources of its namespace come to.
#[derive(Debug, Clone, Default)]
pub(crate) struct Prepared {
    /// The Siem as its pods see it.
    pub(crate) resolved: SiemSpec,
    /// Secrets that workers are to read.
    pub(crate) secrets: BTreeSet<String>,
    /// Ports of syslog LogSources.
    pub(crate) listeners: BTreeSet<Listener>,
    /// Ports of brokers that LogSources take events from.
    pub(crate) sources: BTreeSet<u16>,
}

/// Brings it together.
pub(crate) fn preprocess(siem: &str, namespace: &str, spec: &SiemSpec, observed: &Observed) -> Prepared {
    let resolved = in_cluster::resolve(siem, namespace, spec);
    let mut prepared = Prepared { secrets: referenced_secrets(&Spec::Siem(Box::new(resolved.clone()))), ..Prepared::default() };
    for resource in &observed.resources {
        match resource {
            Spec::Siem(kept) => {
                let kept = in_cluster::resolve(siem, namespace, kept);
                prepared.secrets.extend(referenced_secrets(&Spec::Siem(Box::new(kept))));
            }
            Spec::LogSource(source) => prepared.add_source(source),
            _ => {}
        }
        prepared.secrets.extend(referenced_secrets(resource));
    }
    prepared.resolved = resolved;
    prepared
}

impl Prepared {
    fn add_source(&mut self, source: &LogSourceSpec) {
        if let Some(syslog) = &source.syslog {
            let udp = syslog.udp_port.map(|port| Listener { transport: Transport::Udp, port });
            let tcp = syslog.tcp_port.map(|port| Listener { transport: Transport::Tcp, port });
            self.listeners.extend(udp.into_iter().chain(tcp));
        }
        if let Some(amqp) = &source.amqp {
            self.sources.extend(amqp.urls.iter().filter_map(|url| port_of(url)));
        }
    }
}

/// The port that a URL leads to: its own, or that of its scheme.
pub(crate) fn port_of(url: &str) -> Option<u16> {
    let (scheme, rest) = url.split_once("://")?;
    let place = rest.split(['/', '?', '#']).next()?;
    let after_host = place.rsplit_once(']').map_or(place, |(_, after)| after);
    if let Some((_, port)) = after_host.rsplit_once(':') {
        return port.parse().ok();
    }
    match scheme {
        "amqp" => Some(5672),
        "amqps" => Some(5671),
        "http" => Some(80),
        "https" => Some(443),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_leads_to_its_own_port_or_to_that_of_its_scheme() {
        let cases = [
            ("amqps://mq.example.net", Some(5671)),
            ("amqp://mq.example.net:1234", Some(1234)),
            ("https://es.example.net/prefix", Some(443)),
            ("http://[fd00::1]:9200", Some(9200)),
            ("http://[fd00::1]", Some(80)),
            ("ftp://files", None),
            ("nonsense", None),
        ];

        for (url, expected) in cases {
            assert_eq!(port_of(url), expected, "{url}");
        }
    }
}
