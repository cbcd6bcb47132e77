//! How senders outside the cluster reach the HTTP listener: an Ingress, or a route of the Gateway API. On one machine neither counts.

use std::collections::BTreeMap;

use schemars::{JsonSchema, Schema};
use serde::{Deserialize, Serialize};

use crate::TlsSecretRef;

/// An Ingress (`networking.k8s.io/v1`) that leads all paths of its hosts to the HTTP listener.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schemars(transform = rules_of_ingress)]
pub struct IngressExposure {
    /// Names under which senders reach it; `*.` may stand for the first label.
    #[schemars(length(min = 1, max = 16), inner(length(min = 1, max = 253), regex(pattern = r"^(\*\.)?[a-z0-9]([a-z0-9.-]*[a-z0-9])?$")))]
    pub hosts: Vec<String>,
    /// The class of the Ingress; without one, the cluster's default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub ingress_class_name: Option<String>,
    /// What the ingress controller is to be told: that the listener speaks TLS itself and whom to trust, how large a body may be, who makes
    /// the certificate.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 32, "additionalProperties" = {"type": "string", "maxLength": 16384}))]
    pub annotations: BTreeMap<String, String>,
    /// The certificate that senders see, for all hosts: a Secret of your own, or the one that cert-manager is to make. Without one there
    /// is no `tls` in the Ingress.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls: Option<TlsSecretRef>,
}

fn rules_of_ingress(schema: &mut Schema) {
    crate::rule::add(schema, "self.hosts.all(h, self.hosts.exists_one(o, o == h))", "two hosts must not be the same");
}

/// An HTTPRoute (`gateway.networking.k8s.io/v1`) that leads all paths to the HTTP listener, where the cluster has that kind.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schemars(transform = rules_of_route)]
pub struct HttpRouteExposure {
    /// The Gateways that it is for.
    #[schemars(length(min = 1, max = 16))]
    pub parent_refs: Vec<GatewayRef>,
    /// Names under which senders reach it; `*.` may stand for the first label. Without any, those of the Gateway's listeners.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16), inner(length(min = 1, max = 253), regex(pattern = r"^(\*\.)?[a-z0-9]([a-z0-9.-]*[a-z0-9])?$")))]
    pub hostnames: Vec<String>,
}

fn rules_of_route(schema: &mut Schema) {
    crate::rule::add(schema, "self.parentRefs.all(p, self.parentRefs.exists_one(o, o == p))", "two parentRefs must not be the same");
    crate::rule::add(
        schema,
        "!has(self.hostnames) || self.hostnames.all(h, self.hostnames.exists_one(o, o == h))",
        "two hostnames must not be the same",
    );
}

/// A Gateway, or one of its listeners.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct GatewayRef {
    /// Name of the Gateway.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
    /// Its namespace; without one, that of the Siem. Its listener must allow routes from there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 63))]
    pub namespace: Option<String>,
    /// The only listener of it that the route is for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub section_name: Option<String>,
    /// The only port of it that the route is for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 65535))]
    pub port: Option<u16>,
}
