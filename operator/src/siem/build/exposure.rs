//! What leads senders from outside the cluster to the HTTP listener. It speaks TLS itself, by the SIEM's own authority unless the Siem names
//! a certificate: whoever stands before it has to be told, each in its own words.

use k8s_openapi::api::networking::v1::{
    HTTPIngressPath, HTTPIngressRuleValue, Ingress, IngressBackend, IngressRule, IngressServiceBackend, IngressSpec, IngressTLS,
    ServiceBackendPort,
};
use redoubt_crds::GatewayRef;
use serde_json::{Value, json};

use crate::siem::{child::Child, foreign::Foreign, owner::Component, validate::Valid};

/// The Ingress, if one is asked for.
pub(crate) fn ingress(valid: &Valid) -> Option<Ingress> {
    let wanted = valid.siem.ingest.ingress.as_ref()?;
    let mut metadata = valid.owner.child(service(valid), Component::Ingest);
    metadata.annotations = Some(wanted.annotations.clone()).filter(|annotations| !annotations.is_empty());
    let rule = |host: &String| IngressRule {
        host: Some(host.clone()),
        http: Some(HTTPIngressRuleValue {
            paths: vec![HTTPIngressPath {
                path: Some("/".to_owned()),
                path_type: "Prefix".to_owned(),
                backend: IngressBackend {
                    service: Some(IngressServiceBackend {
                        name: service(valid),
                        port: Some(ServiceBackendPort { name: None, number: Some(i32::from(valid.siem.ingest.port)) }),
                    }),
                    resource: None,
                },
            }],
        }),
    };
    let tls = wanted.tls.as_ref().map(|tls| vec![IngressTLS { hosts: Some(wanted.hosts.clone()), secret_name: Some(tls.name.clone()) }]);
    Some(Ingress {
        metadata,
        spec: Some(IngressSpec {
            ingress_class_name: wanted.ingress_class_name.clone(),
            rules: Some(wanted.hosts.iter().map(rule).collect()),
            tls,
            default_backend: None,
        }),
        status: None,
    })
}

/// The HTTPRoute, if one is asked for and the cluster has that kind.
pub(crate) fn route(valid: &Valid) -> Option<Child> {
    let wanted = valid.siem.ingest.http_route.as_ref().filter(|_| valid.foreign.contains(&Foreign::HttpRoute))?;
    let mut spec = json!({
        "parentRefs": wanted.parent_refs.iter().map(parent).collect::<Vec<_>>(),
        "rules": [{
            "matches": [{"path": {"type": "PathPrefix", "value": "/"}}],
            "backendRefs": [{"name": service(valid), "port": valid.siem.ingest.port}],
        }],
    });
    if !wanted.hostnames.is_empty() {
        spec["hostnames"] = json!(wanted.hostnames);
    }
    Some(Child::foreign(Foreign::HttpRoute, &valid.owner.child(service(valid), Component::Ingest), &spec))
}

fn parent(gateway: &GatewayRef) -> Value {
    let mut parent = json!({"group": "gateway.networking.k8s.io", "kind": "Gateway", "name": gateway.name});
    let further = [("namespace", json!(gateway.namespace)), ("sectionName", json!(gateway.section_name)), ("port", json!(gateway.port))];
    for (field, value) in further.into_iter().filter(|(_, value)| !value.is_null()) {
        parent[field] = value;
    }
    parent
}

/// The Service of ingest, after which both are called.
fn service(valid: &Valid) -> String {
    valid.owner.siem.shared().role(Component::Ingest.as_str())
}
