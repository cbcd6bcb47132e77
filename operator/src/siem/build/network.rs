//! NetworkPolicies: each component may be reached by those who need it and reach what it needs, and nothing else.
//!
//! ```text
//! senders ──> ingest ──> broker <── process, correlate, respond ──> store
//!                          ^ operator: 15671                          ^ operator: 9200
//! ```
//! Addresses of the API server, of servers that others run and of webhooks are not known here, so workers may reach their ports anywhere;
//! a webhook may have any port.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::{
    api::networking::v1::{
        NetworkPolicy, NetworkPolicyEgressRule, NetworkPolicyIngressRule, NetworkPolicyPeer, NetworkPolicyPort, NetworkPolicySpec,
    },
    apimachinery::pkg::{apis::meta::v1::LabelSelector, util::intstr::IntOrString},
};
use redoubt_crds::in_cluster::{BROKER_PORT, STORE_PORT};

use super::role;
use crate::{
    options::OperatorPods,
    siem::{
        broker,
        owner::Component,
        pod::HEALTH_PORT,
        preprocess::{Listener, Transport, port_of},
        store,
        validate::Valid,
    },
};

/// Ports that the API server is known by: the Service's, and the one behind it where that is not translated first.
const API_SERVER: [u16; 2] = [443, 6443];
const DNS: u16 = 53;

/// One policy for each component that there is.
pub(crate) fn policies(valid: &Valid, operator: Option<&OperatorPods>) -> Vec<NetworkPolicy> {
    let mut all: Vec<NetworkPolicy> = Component::ROLES.into_iter().map(|role| role_policy(valid, role)).collect();
    if valid.broker.is_some() {
        all.push(broker_policy(valid, operator));
    }
    if valid.store.is_some() {
        all.push(store_policy(valid, operator));
    }
    all
}

fn role_policy(valid: &Valid, role: Component) -> NetworkPolicy {
    // Whoever collects metrics may; a probe of the kubelet is never held by a policy.
    let mut ingress = vec![from(Vec::new(), tcp(&[HEALTH_PORT]))];
    if role == Component::Ingest {
        let http = Listener { transport: Transport::Tcp, port: valid.siem.ingest.port };
        let listeners: BTreeSet<Listener> = valid.listeners.iter().copied().chain([http]).collect();
        let ports = listeners.into_iter().map(|listener| port(listener.port, listener.transport)).collect();
        ingress.push(from(Vec::new(), ports));
    }
    let mut egress = vec![dns()];
    if role == Component::Respond {
        egress.push(to(Vec::new(), Vec::new()));
        return policy(valid, role, ingress, egress);
    }
    let mut anywhere: BTreeSet<u16> = API_SERVER.into();
    let resolved = &valid.siem;
    if valid.broker.is_some() {
        egress.push(to(vec![peer(valid.owner.pods(Component::Broker))], tcp(&[BROKER_PORT])));
    } else {
        anywhere.extend(resolved.broker.external.iter().flat_map(|broker| &broker.urls).filter_map(|url| port_of(url)));
    }
    if role == Component::Ingest {
        anywhere.extend(&valid.sources);
    } else if valid.store.is_some() {
        egress.push(to(vec![peer(valid.owner.pods(Component::Store))], tcp(&[STORE_PORT])));
    } else {
        anywhere.extend(resolved.store.external.iter().flat_map(|store| &store.urls).filter_map(|url| port_of(url)));
    }
    egress.push(to(Vec::new(), tcp(&anywhere.into_iter().collect::<Vec<_>>())));
    policy(valid, role, ingress, egress)
}

fn broker_policy(valid: &Valid, operator: Option<&OperatorPods>) -> NetworkPolicy {
    let nodes = vec![peer(valid.owner.pods(Component::Broker))];
    let mut ingress = vec![
        from(vec![peer(role::selector(&valid.owner))], tcp(&[BROKER_PORT])),
        from(nodes.clone(), tcp(&broker::BETWEEN_NODES)),
        from(Vec::new(), tcp(&[broker::METRICS_PORT])),
    ];
    ingress.extend(operator.map(|operator| from(vec![operator_peer(operator)], tcp(&[broker::MANAGEMENT_PORT]))));
    policy(valid, Component::Broker, ingress, vec![dns(), to(nodes, tcp(&broker::BETWEEN_NODES))])
}

fn store_policy(valid: &Valid, operator: Option<&OperatorPods>) -> NetworkPolicy {
    let nodes = vec![peer(valid.owner.pods(Component::Store))];
    let mut clients = vec![peer(role::selector(&valid.owner))];
    clients.extend(operator.map(operator_peer));
    let ingress = vec![from(clients, tcp(&[STORE_PORT])), from(nodes.clone(), tcp(&[store::TRANSPORT_PORT]))];
    policy(valid, Component::Store, ingress, vec![dns(), to(nodes, tcp(&[store::TRANSPORT_PORT]))])
}

fn policy(
    valid: &Valid,
    component: Component,
    ingress: Vec<NetworkPolicyIngressRule>,
    egress: Vec<NetworkPolicyEgressRule>,
) -> NetworkPolicy {
    let names = valid.owner.siem.shared();
    NetworkPolicy {
        metadata: valid.owner.child(names.role(component.as_str()), component),
        spec: Some(NetworkPolicySpec {
            pod_selector: Some(valid.owner.pods(component)),
            policy_types: Some(vec!["Ingress".to_owned(), "Egress".to_owned()]),
            ingress: Some(ingress),
            egress: Some(egress),
        }),
    }
}

fn dns() -> NetworkPolicyEgressRule {
    to(Vec::new(), vec![port(DNS, Transport::Udp), port(DNS, Transport::Tcp)])
}

/// Pods of this namespace.
fn peer(pods: LabelSelector) -> NetworkPolicyPeer {
    NetworkPolicyPeer { pod_selector: Some(pods), ..NetworkPolicyPeer::default() }
}

fn operator_peer(operator: &OperatorPods) -> NetworkPolicyPeer {
    let selector = |labels: BTreeMap<String, String>| Some(LabelSelector { match_labels: Some(labels), ..LabelSelector::default() });
    let namespace = [("kubernetes.io/metadata.name".to_owned(), operator.namespace.clone())].into();
    NetworkPolicyPeer {
        namespace_selector: selector(namespace),
        pod_selector: selector(operator.labels.clone()),
        ..NetworkPolicyPeer::default()
    }
}

/// No peers are all peers, and no ports are all ports.
fn from(peers: Vec<NetworkPolicyPeer>, ports: Vec<NetworkPolicyPort>) -> NetworkPolicyIngressRule {
    NetworkPolicyIngressRule { from: filled(peers), ports: filled(ports) }
}

fn to(peers: Vec<NetworkPolicyPeer>, ports: Vec<NetworkPolicyPort>) -> NetworkPolicyEgressRule {
    NetworkPolicyEgressRule { to: filled(peers), ports: filled(ports) }
}

fn filled<T>(items: Vec<T>) -> Option<Vec<T>> {
    Some(items).filter(|items| !items.is_empty())
}

fn tcp(ports: &[u16]) -> Vec<NetworkPolicyPort> {
    ports.iter().map(|number| port(*number, Transport::Tcp)).collect()
}

fn port(number: u16, transport: Transport) -> NetworkPolicyPort {
    NetworkPolicyPort { port: Some(IntOrString::Int(i32::from(number))), protocol: Some(transport.as_str().to_owned()), end_port: None }
}
