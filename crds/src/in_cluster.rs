//! What the operator calls the things that others must find, and the Siem as its pods see it.
//!
//! The operator makes Services, Secrets and certificates under these names, and the workers reach RabbitMQ and Elasticsearch by them. Both
//! ask here, so that neither can know better. On one machine none of it is used: there, what no `external` names is a file.

use crate::{
    BasicAuthSecretRef, ClientTls, ExternalBroker, ExternalStore, ManagedBroker, ManagedStore, Rollover, SecretKeyRef, SiemSpec,
    TlsSecretRef, external,
};

/// Port of the clients of a managed RabbitMQ, TLS only.
pub const BROKER_PORT: u16 = 5671;
/// Port of the clients of a managed Elasticsearch.
pub const STORE_PORT: u16 = 9200;
/// Key of the authority's certificate in its Secret.
pub const CA_KEY: &str = "ca.crt";

/// Names of what belongs to one Siem, all in its namespace.
#[derive(Debug, Clone, Copy)]
pub struct Names<'a> {
    /// Name of the Siem.
    pub siem: &'a str,
}

impl Names<'_> {
    /// What a role's Deployment, Service and pods are called: `ingest`, `process`, `correlate`, `respond`.
    #[must_use]
    pub fn role(&self, role: &str) -> String {
        format!("{}-{role}", self.siem)
    }

    /// The StatefulSet of RabbitMQ, and the Service of its clients.
    #[must_use]
    pub fn broker(&self) -> String {
        format!("{}-broker", self.siem)
    }

    /// The Secret (`kubernetes.io/basic-auth`) of RabbitMQ's user.
    #[must_use]
    pub fn broker_user(&self) -> String {
        format!("{}-broker-user", self.siem)
    }

    /// The Service of Elasticsearch's clients.
    #[must_use]
    pub fn store(&self) -> String {
        format!("{}-store", self.siem)
    }

    /// The StatefulSet of one node set of Elasticsearch.
    #[must_use]
    pub fn node_set(&self, set: &str) -> String {
        format!("{}-store-{set}", self.siem)
    }

    /// The Secret (`kubernetes.io/basic-auth`) of Elasticsearch's user.
    #[must_use]
    pub fn store_user(&self) -> String {
        format!("{}-store-user", self.siem)
    }

    /// The Secret that holds the certificate of the SIEM's own authority, under [`CA_KEY`], and no key.
    #[must_use]
    pub fn authority(&self) -> String {
        format!("{}-ca", self.siem)
    }

    /// The Secret (`kubernetes.io/tls`) of the HTTP listener, where the Siem names none.
    #[must_use]
    pub fn ingest_certificate(&self) -> String {
        format!("{}-ingest-tls", self.siem)
    }
}

/// The RabbitMQ that the operator is to run: none where there is an external one.
#[must_use]
pub fn managed_broker(spec: &SiemSpec) -> Option<ManagedBroker> {
    spec.broker.external.is_none().then(|| spec.broker.managed.clone().unwrap_or_default())
}

/// The Elasticsearch that the operator is to run: none where there is an external one.
#[must_use]
pub fn managed_store(spec: &SiemSpec) -> Option<ManagedStore> {
    spec.store.external.is_none().then(|| spec.store.managed.clone().unwrap_or_default())
}

/// The Siem as its pods see it: what the operator runs is named as if others ran it, and the listener has a certificate.
#[must_use]
pub fn resolve(siem: &str, namespace: &str, spec: &SiemSpec) -> SiemSpec {
    let names = Names { siem };
    let mut resolved = spec.clone();
    if let Some(broker) = managed_broker(spec) {
        resolved.broker.external = Some(broker_of(names, namespace, &broker));
    }
    if let Some(store) = managed_store(spec) {
        resolved.store.external = Some(store_of(names, namespace, &store));
    }
    resolved.ingest.tls.get_or_insert_with(|| TlsSecretRef { name: names.ingest_certificate() });
    resolved
}

fn broker_of(names: Names<'_>, namespace: &str, broker: &ManagedBroker) -> ExternalBroker {
    ExternalBroker {
        urls: vec![format!("amqps://{}.{namespace}.svc:{BROKER_PORT}", names.broker())],
        vhost: external::default_vhost(),
        credentials_secret_ref: BasicAuthSecretRef { name: names.broker_user() },
        tls: Some(trusted(names)),
        prefix: external::default_prefix(),
        queue_replicas: u8::try_from(broker.replicas.min(3)).unwrap_or(3),
    }
}

fn store_of(names: Names<'_>, namespace: &str, store: &ManagedStore) -> ExternalStore {
    let scheme = if store.security { "https" } else { "http" };
    let data_nodes: u16 = store.node_sets.iter().filter(|set| set.holds_data()).map(|set| set.replicas).sum();
    ExternalStore {
        urls: vec![format!("{scheme}://{}.{namespace}.svc:{STORE_PORT}", names.store())],
        credentials_secret_ref: store.security.then(|| BasicAuthSecretRef { name: names.store_user() }),
        api_key_secret_ref: None,
        tls: store.security.then(|| trusted(names)),
        prefix: external::default_prefix(),
        shards: external::default_shards(),
        replicas: store.index_replicas.unwrap_or_else(|| u16::from(data_nodes > 1)),
        rollover: Rollover::default(),
    }
}

fn trusted(names: Names<'_>) -> ClientTls {
    let authority = SecretKeyRef { name: names.authority(), key: CA_KEY.to_owned() };
    ClientTls { ca_secret_ref: Some(authority), client_certificate_secret_ref: None }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_siem_that_names_no_servers_uses_those_that_the_operator_runs() {
        let resolved = resolve("soc", "security", &SiemSpec::default());

        let (broker, store) = (resolved.broker.external.unwrap(), resolved.store.external.unwrap());
        assert_eq!(broker.urls, ["amqps://soc-broker.security.svc:5671"]);
        assert_eq!(broker.credentials_secret_ref.name, "soc-broker-user");
        assert_eq!(broker.queue_replicas, 1);
        assert_eq!(store.urls, ["https://soc-store.security.svc:9200"]);
        assert_eq!(store.credentials_secret_ref.unwrap().name, "soc-store-user");
        assert_eq!(store.tls.unwrap().ca_secret_ref.unwrap().name, "soc-ca");
        assert_eq!(store.replicas, 0);
        assert_eq!(resolved.ingest.tls.unwrap().name, "soc-ingest-tls");
    }

    #[test]
    fn what_the_siem_says_itself_stands() {
        let mut spec = resolve("other", "elsewhere", &SiemSpec::default());
        spec.ingest.tls = Some(TlsSecretRef { name: "ours".to_owned() });

        assert_eq!(resolve("soc", "security", &spec), spec);
        assert!(managed_broker(&spec).is_none() && managed_store(&spec).is_none());
    }
}
