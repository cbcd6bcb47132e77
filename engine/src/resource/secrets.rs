//! Which Secrets a resource refers to.
//!
//! In a cluster, workers may read these Secrets and no others, and copy them to where their roles look: the operator, who gives the right,
//! and the workers, who use it, both ask here. A Siem must be given as its pods see it ([`redoubt_crds::in_cluster::resolve`]), else the
//! Secrets that the operator makes are missing.

use std::collections::BTreeSet;

use redoubt_crds::{ClientTls, LogSourceSpec, ResponseActionSpec, SiemSpec};

use super::Spec;

/// The names of all Secrets that a resource refers to, in any of its fields.
#[must_use]
pub fn referenced_secrets(spec: &Spec) -> BTreeSet<String> {
    let mut names = Names::default();
    match spec {
        Spec::Siem(siem) => names.of_siem(siem),
        Spec::LogSource(source) => names.of_source(source),
        Spec::ResponseAction(action) => names.of_action(action),
        Spec::Watchlist(_) | Spec::Enrichment(_) | Spec::AlertRule(_) => {}
    }
    names.0
}

#[derive(Default)]
struct Names(BTreeSet<String>);

impl Names {
    fn of_siem(&mut self, siem: &SiemSpec) {
        self.add(siem.ingest.tls.as_ref().map(|tls| &tls.name));
        if let Some(broker) = &siem.broker.external {
            self.add(Some(&broker.credentials_secret_ref.name));
            self.of_client(broker.tls.as_ref());
        }
        if let Some(store) = &siem.store.external {
            self.add(store.credentials_secret_ref.as_ref().map(|login| &login.name));
            self.add(store.api_key_secret_ref.as_ref().map(|key| &key.name));
            self.of_client(store.tls.as_ref());
        }
    }

    fn of_source(&mut self, source: &LogSourceSpec) {
        if let Some(http) = &source.http {
            self.add(http.auth.bearer.as_ref().map(|key| &key.name));
            self.add(http.auth.basic.as_ref().map(|key| &key.name));
        }
        if let Some(syslog) = &source.syslog {
            self.add(syslog.tls.as_ref().map(|tls| &tls.name));
        }
        if let Some(amqp) = &source.amqp {
            self.add(Some(&amqp.credentials_secret_ref.name));
            self.of_client(amqp.tls.as_ref());
        }
    }

    fn of_action(&mut self, action: &ResponseActionSpec) {
        let Some(webhook) = &action.webhook else { return };
        self.add(webhook.url_secret_ref.as_ref().map(|key| &key.name));
        self.add(webhook.signing_secret_ref.as_ref().map(|key| &key.name));
    }

    fn of_client(&mut self, tls: Option<&ClientTls>) {
        self.add(tls.and_then(|tls| tls.ca_secret_ref.as_ref()).map(|key| &key.name));
        self.add(tls.and_then(|tls| tls.client_certificate_secret_ref.as_ref()).map(|certificate| &certificate.name));
    }

    fn add(&mut self, name: Option<&String>) {
        self.0.extend(name.cloned());
    }
}

#[cfg(test)]
mod tests;
