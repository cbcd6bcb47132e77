//! What a plan wants to be listened on.

use std::{collections::BTreeSet, fmt};

use redoubt_crds::TlsSecretRef;

use super::IngestPlan;

/// One listener. Two plans that want the same endpoint share it: it is not touched when one takes the other's place.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Endpoint {
    /// The one HTTP listener.
    Http { port: u16, tls: Option<String> },
    /// Syslog over UDP.
    Udp { source: String, port: u16 },
    /// Syslog over TCP, or TLS where a Secret is named.
    Tcp { source: String, port: u16, tls: Option<String> },
}

impl Endpoint {
    /// All endpoints of a plan.
    pub(super) fn wanted(plan: &IngestPlan) -> BTreeSet<Self> {
        let secret = |tls: &Option<TlsSecretRef>| tls.as_ref().map(|reference| reference.name.clone());
        let mut wanted = BTreeSet::from([Self::Http { port: plan.spec.port, tls: secret(&plan.spec.tls) }]);
        for (source, compiled) in &plan.sources {
            let Some(syslog) = &compiled.spec.syslog else { continue };
            if let Some(port) = syslog.udp_port {
                wanted.insert(Self::Udp { source: source.clone(), port });
            }
            if let Some(port) = syslog.tcp_port {
                wanted.insert(Self::Tcp { source: source.clone(), port, tls: secret(&syslog.tls) });
            }
        }
        wanted
    }

    pub(super) fn port(&self) -> u16 {
        match self {
            Self::Http { port, .. } | Self::Udp { port, .. } | Self::Tcp { port, .. } => *port,
        }
    }

    /// Name of the TLS Secret, where the endpoint speaks TLS.
    pub(super) fn tls(&self) -> Option<&str> {
        match self {
            Self::Http { tls, .. } | Self::Tcp { tls, .. } => tls.as_deref(),
            Self::Udp { .. } => None,
        }
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Http { tls: None, .. } => f.write_str("the HTTP listener"),
            Self::Http { tls: Some(_), .. } => f.write_str("the HTTPS listener"),
            Self::Udp { source, .. } => write!(f, "source {source} over UDP"),
            Self::Tcp { source, tls: None, .. } => write!(f, "source {source} over TCP"),
            Self::Tcp { source, tls: Some(_), .. } => write!(f, "source {source} over TLS"),
        }
    }
}
