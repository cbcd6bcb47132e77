//! The Service by which senders reach ingest. Those of the managed servers are beside their pods.

use std::collections::BTreeSet;

use k8s_openapi::api::core::v1::{Service, ServicePort, ServiceSpec};

use crate::siem::{
    owner::Component,
    pod::service_port,
    preprocess::{Listener, Transport},
    validate::Valid,
};

/// One port for HTTP, and one for each syslog LogSource.
pub(crate) fn ingest(valid: &Valid) -> Service {
    let owner = &valid.owner;
    let http = Listener { transport: Transport::Tcp, port: valid.siem.ingest.port };
    let mut taken = BTreeSet::from([http]);
    let mut ports = vec![port("http".to_owned(), http)];
    for listener in &valid.listeners {
        // Of two LogSources on one port, one is not accepted.
        if taken.insert(*listener) {
            ports.push(port(format!("{}-{}", listener.transport.as_str().to_ascii_lowercase(), listener.port), *listener));
        }
    }
    Service {
        metadata: owner.child(owner.siem.shared().role(Component::Ingest.as_str()), Component::Ingest),
        spec: Some(ServiceSpec {
            type_: Some("ClusterIP".to_owned()),
            selector: owner.pods(Component::Ingest).match_labels,
            ports: Some(ports),
            ..ServiceSpec::default()
        }),
        status: None,
    }
}

fn port(name: String, listener: Listener) -> ServicePort {
    service_port(name, listener.port, listener.transport.as_str())
}
