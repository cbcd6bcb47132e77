//! The Secrets of a Siem: its authority, certificates, passwords. What is there is kept; what is missing is made. Nothing of them is ever
//! written to a log, an event or a status.

pub(crate) mod account;
pub(crate) mod authority;
pub(crate) mod certificate;
pub(crate) mod random;
mod recovery;

use std::collections::BTreeMap;

use jiff::Timestamp;
use k8s_openapi::{ByteString, api::core::v1::Secret, apimachinery::pkg::apis::meta::v1::ObjectMeta};
use redoubt_crds::in_cluster::CA_KEY;

use self::{
    account::Account,
    authority::{Authority, NotIssued},
    certificate::{Content, Purpose},
    random::NoRandomness,
    recovery::Recovery,
};
use super::{
    broker::definitions::{COOKIE, DEFINITIONS, definitions},
    dereference::Children,
    owner::Component,
    validate::Valid,
};

/// Why a Secret could not be made.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NotMade {
    #[error(transparent)]
    Certificate(#[from] NotIssued),
    #[error(transparent)]
    Randomness(#[from] NoRandomness),
}

/// Accounts that were made anew, to take the place of those in the Secrets.
#[derive(Default)]
pub(crate) struct Renewed {
    /// RabbitMQ's user of the workers, and the operator's own.
    pub(crate) broker: Option<(Account, Account)>,
}

/// All Secrets as they are to be.
pub(crate) fn complete(valid: &Valid, there: &Children, renewed: Renewed, now: Timestamp) -> Result<Vec<Secret>, NotMade> {
    let (owner, name) = (&valid.owner, &valid.owner.siem);
    let authority = authority(valid, there, now)?;
    let bundle = authority.bundle().into_bytes();
    let lost = Recovery::read(content(there, &name.recovery()));
    let mut recovery = Recovery::default();
    let mut secrets = vec![
        secret(owner.shared(name.authority_key()), "Opaque", Content { data: authority.data(), ..Content::default() }),
        secret(
            owner.shared(name.shared().authority()),
            "Opaque",
            Content { data: [(CA_KEY.to_owned(), bundle)].into(), ..Content::default() },
        ),
    ];
    for wanted in certificates(valid) {
        let content = certificate::keep_or_issue(content(there, &wanted.secret), &wanted.purpose, &authority, now)?;
        secrets.push(secret(owner.child(wanted.secret, wanted.component), "kubernetes.io/tls", content));
    }
    if let Some(managed) = &valid.broker {
        let (worker, admin) = match renewed.broker {
            Some(accounts) => accounts,
            None => (
                account(there, &lost, &name.shared().broker_user(), "redoubt", &managed.credentials_revision, now)?,
                account(there, &lost, &name.broker_admin(), "redoubt-admin", &managed.credentials_revision, now)?,
            ),
        };
        let kept = content(there, &name.broker_nodes_secret()).and_then(|nodes| nodes.data.get(COOKIE).cloned());
        let cookie = match kept.or_else(|| lost.bytes(&name.broker_nodes_secret())) {
            Some(cookie) => cookie,
            None => random::password()?.into_bytes(),
        };
        recovery.add_account(name.shared().broker_user(), &worker);
        recovery.add_account(name.broker_admin(), &admin);
        recovery.add_bytes(name.broker_nodes_secret(), cookie.clone());
        let definitions = definitions(&worker, &admin, valid.prefix()).into_bytes();
        let nodes = Content { data: [(COOKIE.to_owned(), cookie), (DEFINITIONS.to_owned(), definitions)].into(), ..Content::default() };
        secrets.extend([
            secret(owner.child(name.shared().broker_user(), Component::Broker), account::TYPE, worker.content()),
            secret(owner.child(name.broker_admin(), Component::Broker), account::TYPE, admin.content()),
            secret(owner.child(name.broker_nodes_secret(), Component::Broker), "Opaque", nodes),
        ]);
    }
    if valid.store.as_ref().is_some_and(|store| store.security) {
        // The server knows this name by itself.
        let admin = account::Account { name: "elastic".to_owned(), ..account(there, &lost, &name.store_admin(), "elastic", "", now)? };
        let worker = account(there, &lost, &name.shared().store_user(), "redoubt", "", now)?;
        recovery.add_account(name.store_admin(), &admin);
        recovery.add_account(name.shared().store_user(), &worker);
        secrets.extend([
            secret(owner.child(name.shared().store_user(), Component::Store), account::TYPE, worker.content()),
            secret(owner.child(name.store_admin(), Component::Store), account::TYPE, admin.content()),
        ]);
    }
    secrets.extend(recovery.content().map(|content| secret(owner.shared(name.recovery()), "Opaque", content)));
    Ok(secrets)
}

/// A certificate that is to be there.
struct Wanted {
    secret: String,
    component: Component,
    purpose: Purpose,
}

fn certificates(valid: &Valid) -> Vec<Wanted> {
    let (owner, name) = (&valid.owner, &valid.owner.siem);
    let service = |service: &str| {
        let namespace = &owner.namespace;
        ["", ".svc", ".svc.cluster.local"]
            .into_iter()
            .map(move |suffix| format!("{service}.{namespace}{suffix}"))
            .chain([service.to_owned()])
            .collect::<Vec<_>>()
    };
    let pods = |service: &str| ["svc", "svc.cluster.local"].map(|suffix| format!("*.{service}.{}.{suffix}", owner.namespace));
    let mut wanted = Vec::new();
    if valid.siem.ingest.tls.as_ref().is_some_and(|tls| tls.name == name.shared().ingest_certificate()) {
        // As which somebody meets it who forwards its port.
        let names = [service(&name.shared().role(Component::Ingest.as_str())), vec!["localhost".to_owned()]].concat();
        wanted.push(Wanted {
            secret: name.shared().ingest_certificate(),
            component: Component::Ingest,
            purpose: Purpose { names, mutual: false },
        });
    }
    if valid.broker.is_some() {
        let names = [service(&name.shared().broker()), pods(&name.broker_nodes()).into()].concat();
        wanted.push(Wanted { secret: name.broker_certificate(), component: Component::Broker, purpose: Purpose { names, mutual: false } });
    }
    if valid.store.as_ref().is_some_and(|store| store.security) {
        let names = [service(&name.shared().store()), pods(&name.store_nodes()).into(), vec!["localhost".to_owned()]].concat();
        wanted.push(Wanted { secret: name.store_certificate(), component: Component::Store, purpose: Purpose { names, mutual: true } });
    }
    wanted
}

fn authority(valid: &Valid, there: &Children, now: Timestamp) -> Result<Authority, NotIssued> {
    let name = &valid.owner.siem;
    if let Some(authority) = content(there, &name.authority_key()).and_then(|content| Authority::read(&content.data)) {
        return authority.advance(name.as_str(), now);
    }
    let trusted = content(there, &name.shared().authority()).and_then(|content| content.data.get(CA_KEY).cloned());
    let trusted = trusted.and_then(|bundle| String::from_utf8(bundle).ok());
    Authority::new(name.as_str(), trusted.as_deref(), now)
}

fn account(there: &Children, lost: &Recovery, secret: &str, prefix: &str, revision: &str, now: Timestamp) -> Result<Account, NoRandomness> {
    match kept_account(there, secret).or_else(|| lost.account(secret)) {
        Some(account) => Ok(account),
        None => Account::new(prefix, revision, now),
    }
}

/// The account that a Secret holds.
pub(crate) fn kept_account(there: &Children, secret: &str) -> Option<Account> {
    Account::read(&content(there, secret)?)
}

/// What a Secret holds that is there.
pub(crate) fn content(there: &Children, name: &str) -> Option<Content> {
    let secret: Secret = there.get(name)?;
    let data = secret.data.unwrap_or_default().into_iter().map(|(key, value)| (key, value.0)).collect();
    Some(Content { annotations: secret.metadata.annotations.unwrap_or_default(), data })
}

fn secret(metadata: ObjectMeta, type_: &str, content: Content) -> Secret {
    let data: BTreeMap<String, ByteString> = content.data.into_iter().map(|(key, value)| (key, ByteString(value))).collect();
    Secret {
        metadata: ObjectMeta { annotations: Some(content.annotations), ..metadata },
        type_: Some(type_.to_owned()),
        data: Some(data),
        ..Secret::default()
    }
}

#[cfg(test)]
mod tests;
