//! The Secrets of a namespace that a role needs, as files that follow them.
//!
//! Needed are those that the resources which run refer to, and of them those that the role has to do with: the process that reads what
//! strangers wrote holds no key of a webhook. Each is followed by its name. A change is in its file as soon as it is told, and a Secret that
//! is deleted, or that nothing refers to any more, has no file.
//!
//! The right that this takes, given for exactly those names, which the operator keeps as resources change:
//!
//! ```yaml
//! - apiGroups: ['']
//!   resources: [secrets]
//!   resourceNames: [soc-broker-user, soc-ca, ingest]
//!   verbs: [get, list, watch]
//! ```
//! Where it is missing, the Secret is asked for again and again, and everything that does not need it goes on.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    path::Path,
    sync::Arc,
    time::Duration,
};

use anyhow::{Context as _, Result};
use futures::StreamExt as _;
use k8s_openapi::api::core::v1::Secret;
use kube::{
    Api,
    runtime::watcher::{Config, Event},
};
use redoubt_engine::{
    compile::Plan,
    resource::{Spec, referenced_secrets},
};
use tokio::{sync::watch, task::JoinHandle};
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use super::{component, copies::Copies};
use crate::{
    kubernetes::{Followed, Namespace, follow},
    metrics::{Metrics, StateLabels},
    role::Role,
};

/// How long after a file could not be written it is tried again.
const WRITE_AGAIN: Duration = Duration::from_secs(5);

/// What is known of a Secret.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Copy {
    /// It is in the folder.
    Present,
    /// There is none of this name.
    Missing,
    /// Why it is not known.
    Unknown(String),
}

impl fmt::Display for Copy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Present => f.write_str("is there"),
            Self::Missing => f.write_str("is not there"),
            Self::Unknown(why) => write!(f, "cannot be read: {why}"),
        }
    }
}

type Known = BTreeMap<String, Copy>;

/// Which Secrets a role needs.
#[derive(Debug, Default, PartialEq, Eq)]
struct Needed {
    /// Without these it cannot start: how to reach the broker and the store, and what its own listener shows.
    at_start: BTreeSet<String>,
    /// Without one of these, something of what runs does not: one source, one action.
    later: BTreeSet<String>,
}

impl Needed {
    fn by(role: Role, plan: &Plan) -> Self {
        let mut needed = Self::default();
        for running in plan.running() {
            match (running.spec, role) {
                (Spec::Siem(siem), _) => {
                    let mut siem = siem.clone();
                    if role == Role::Ingest {
                        siem.store.external = None;
                    } else {
                        siem.ingest.tls = None;
                    }
                    needed.at_start.extend(referenced_secrets(&Spec::Siem(siem)));
                }
                (spec @ Spec::LogSource(_), Role::Ingest) | (spec @ Spec::ResponseAction(_), Role::Respond) => {
                    needed.later.extend(referenced_secrets(spec));
                }
                _ => {}
            }
        }
        needed
    }

    fn all(&self) -> BTreeSet<&String> {
        self.at_start.union(&self.later).collect()
    }
}

/// The copies of the Secrets that a role needs.
pub(crate) struct Mirror {
    role: Role,
    plans: watch::Receiver<Arc<Plan>>,
    known: watch::Receiver<Known>,
}

impl Mirror {
    /// Begins to copy what the plans refer to into a folder, until told to stop.
    ///
    /// # Errors
    /// The folder cannot be made or written.
    pub(crate) fn start(
        namespace: &Namespace,
        directory: &Path,
        role: Role,
        plans: watch::Receiver<Arc<Plan>>,
        metrics: Arc<Metrics>,
        stop: CancellationToken,
    ) -> Result<Self> {
        let copies = Copies::open(directory).with_context(|| {
            format!("the folder of secrets, {}, must be this user's to write; choose it by --secrets", directory.display())
        })?;
        let (known, receiver) = watch::channel(Known::new());
        let one = One { secrets: namespace.secrets(), copies: Arc::new(copies), known, metrics };
        tokio::spawn(one.follow_all(role, plans.clone(), stop));
        Ok(Self { role, plans, known: receiver })
    }

    /// Waits until the role has what it cannot start without, and knows of all others whether they are there. Tells what it waits for
    /// whenever that changes.
    pub(crate) async fn until_enough(&mut self, mut waits_for: impl FnMut(String)) {
        loop {
            let Some(lack) = self.lack() else { return };
            waits_for(lack);
            // Ends only with the process, whose start this is a part of.
            let _ = tokio::select! {
                changed = self.plans.changed() => changed,
                changed = self.known.changed() => changed,
            };
        }
    }

    fn lack(&mut self) -> Option<String> {
        let needed = Needed::by(self.role, &self.plans.borrow_and_update());
        let known = self.known.borrow_and_update();
        needed.all().into_iter().find_map(|name| match known.get(name) {
            None => Some(format!("Secret {name} is being read")),
            Some(Copy::Present) => None,
            Some(copy) => needed.at_start.contains(name).then(|| format!("Secret {name} {copy}")),
        })
    }
}

/// What it takes to follow one Secret. Clones share it all.
#[derive(Clone)]
struct One {
    secrets: Api<Secret>,
    copies: Arc<Copies>,
    known: watch::Sender<Known>,
    metrics: Arc<Metrics>,
}

impl One {
    /// Follows each Secret that a role needs as long as it does.
    async fn follow_all(self, role: Role, mut plans: watch::Receiver<Arc<Plan>>, stop: CancellationToken) {
        let mut followed: BTreeMap<String, (CancellationToken, JoinHandle<()>)> = BTreeMap::new();
        loop {
            let needed = Needed::by(role, &plans.borrow_and_update());
            let needed = needed.all();
            let given_up: Vec<String> = followed.keys().filter(|name| !needed.contains(name)).cloned().collect();
            for name in given_up {
                if let Some((end, following)) = followed.remove(&name) {
                    end.cancel();
                    // Only then can nothing be written any more.
                    drop(following.await);
                    self.forget(&name);
                }
            }
            for name in needed {
                // A name that cannot be one of a Secret is refused where it is used.
                if !followed.contains_key(name) && component(name).is_ok() {
                    let end = stop.child_token();
                    let following = tokio::spawn(self.clone().follow(name.clone(), end.clone()));
                    followed.insert(name.clone(), (end, following));
                }
            }
            tokio::select! {
                () = stop.cancelled() => return,
                changed = plans.changed() => if changed.is_err() { return },
            }
        }
    }

    async fn follow(self, name: String, end: CancellationToken) {
        tokio::select! {
            () = end.cancelled() => {}
            () = self.copy_for_ever(&name) => {}
        }
    }

    async fn copy_for_ever(&self, name: &str) {
        loop {
            if let Err(error) = self.copy(name).await {
                error!(secret = name, %error, again_in = ?WRITE_AGAIN, "a Secret cannot be written to the folder of secrets");
                self.learn(name, Copy::Unknown(error.to_string()));
            }
            tokio::time::sleep(WRITE_AGAIN).await;
        }
    }

    /// Copies a Secret whenever it changes; ends when it cannot be written.
    async fn copy(&self, name: &str) -> std::io::Result<()> {
        let followed = Followed { what: format!("Secret {name}"), label: "Secret", metrics: Arc::clone(&self.metrics) };
        let mut events = follow(self.secrets.clone(), Config::default().fields(&format!("metadata.name={name}")), followed);
        let mut listed = false;
        while let Some(event) = events.next().await {
            match event {
                Ok(Event::Init) => listed = false,
                Ok(Event::InitApply(secret) | Event::Apply(secret)) => {
                    listed = true;
                    let data = secret.data.unwrap_or_default();
                    self.copies.write(name, data.iter().map(|(key, value)| (key.as_str(), value.0.as_slice())))?;
                    self.learn(name, Copy::Present);
                }
                Ok(Event::InitDone) if listed => {}
                Ok(Event::InitDone | Event::Delete(_)) => {
                    self.copies.remove(name)?;
                    self.learn(name, Copy::Missing);
                }
                Err(reason) => {
                    let stands = self.known.borrow().get(name).is_some_and(|copy| matches!(copy, Copy::Present | Copy::Missing));
                    if !stands {
                        self.learn(name, Copy::Unknown(reason));
                    }
                }
            }
        }
        Ok(())
    }

    fn learn(&self, name: &str, copy: Copy) {
        self.known.send_if_modified(|known| {
            let before = known.get(name);
            let is_news = before != Some(&copy);
            match (&copy, before) {
                (Copy::Missing, _) if is_news => warn!(secret = name, "a Secret that is referred to is not there"),
                (Copy::Present, Some(Copy::Missing)) => info!(secret = name, "a Secret that was missing is there"),
                _ => {}
            }
            known.insert(name.to_owned(), copy);
            is_news
        });
        self.count();
    }

    fn forget(&self, name: &str) {
        if let Err(error) = self.copies.remove(name) {
            error!(secret = name, %error, "a Secret that nothing refers to any more cannot be taken out of the folder of secrets");
        }
        self.known.send_modify(|known| drop(known.remove(name)));
        self.count();
    }

    fn count(&self) {
        let known = self.known.borrow();
        let present = known.values().filter(|copy| **copy == Copy::Present).count();
        for (state, count) in [("present", present), ("missing", known.len() - present)] {
            self.metrics.secrets.get_or_create(&StateLabels { state }).set(i64::try_from(count).unwrap_or(i64::MAX));
        }
    }
}

#[cfg(test)]
mod tests {
    use redoubt_crds::in_cluster;
    use redoubt_engine::{
        compile::{Input, compile},
        resource::read,
    };

    use super::*;

    const RESOURCES: &str = "
apiVersion: redoubt.dev/v1alpha1
kind: Siem
metadata: {name: soc}
spec: {}
---
apiVersion: redoubt.dev/v1alpha1
kind: LogSource
metadata: {name: app}
spec: {http: {auth: {bearer: {name: tokens, key: app}}}}
---
apiVersion: redoubt.dev/v1alpha1
kind: ResponseAction
metadata: {name: chat}
spec: {webhook: {urlSecretRef: {name: chat, key: url}}}
";

    fn plan() -> Plan {
        let mut input = Input { resources: read(Path::new("r.yaml"), RESOURCES).resources, ..Input::default() };
        for resource in &mut input.resources {
            if let Spec::Siem(siem) = &mut resource.spec {
                **siem = in_cluster::resolve("soc", "security", siem);
            }
        }
        compile(&input, None).plan
    }

    #[test]
    fn a_role_gets_the_secrets_that_it_has_to_do_with_and_no_others() {
        for (role, at_start, later) in [
            (Role::Ingest, &["soc-broker-user", "soc-ca", "soc-ingest-tls"][..], &["tokens"][..]),
            (Role::Process, &["soc-broker-user", "soc-ca", "soc-store-user"], &[]),
            (Role::Correlate, &["soc-broker-user", "soc-ca", "soc-store-user"], &[]),
            (Role::Respond, &["soc-broker-user", "soc-ca", "soc-store-user"], &["chat"]),
        ] {
            let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<BTreeSet<_>>();

            assert_eq!(Needed::by(role, &plan()), Needed { at_start: names(at_start), later: names(later) }, "{role}");
        }
    }

    #[tokio::test]
    async fn a_role_starts_when_it_has_what_it_must_have_and_knows_of_the_rest() {
        let (_plan, plans) = watch::channel(Arc::new(plan()));
        let (sender, known) = watch::channel(Known::new());
        let mut mirror = Mirror { role: Role::Ingest, plans, known };
        let mut told = Vec::new();
        let present = |name: &str| (name.to_owned(), Copy::Present);

        for (case, known, lack) in [
            ("nothing is known", vec![], Some("Secret soc-broker-user is being read")),
            (
                "a right is missing",
                vec![("soc-broker-user".to_owned(), Copy::Unknown("no".to_owned()))],
                Some("Secret soc-broker-user cannot be read: no"),
            ),
            (
                "one is missing",
                vec![present("soc-broker-user"), present("soc-ca"), ("soc-ingest-tls".to_owned(), Copy::Missing)],
                Some("Secret soc-ingest-tls is not there"),
            ),
            (
                "a source's is not known",
                vec![present("soc-broker-user"), present("soc-ca"), present("soc-ingest-tls")],
                Some("Secret tokens is being read"),
            ),
            (
                "a source's is missing",
                vec![present("soc-broker-user"), present("soc-ca"), present("soc-ingest-tls"), ("tokens".to_owned(), Copy::Missing)],
                None,
            ),
        ] {
            sender.send_replace(known.into_iter().collect());

            assert_eq!(mirror.lack().as_deref(), lack, "{case}");
        }
        mirror.until_enough(|lack| told.push(lack)).await;
        assert!(told.is_empty());
    }
}
