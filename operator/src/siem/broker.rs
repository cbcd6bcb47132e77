//! The managed RabbitMQ: its configuration, its pods, and what is done to them in which order.
//!
//! Its nodes are pods of one StatefulSet that start side by side and find each other by name. An empty node other than the first waits for
//! the first, so that two never start two clusters. Clients come over TLS only; between the nodes there is Erlang's protocol, which only
//! they may reach and for which they need the cookie.

pub(crate) mod config;
pub(crate) mod definitions;
mod management;
pub(crate) mod plan;
pub(crate) mod pods;

use k8s_openapi::api::apps::v1::{Deployment, StatefulSet};
use redoubt_crds::in_cluster::CA_KEY;
use tracing::{info, warn};

use self::{
    definitions::{VHOST, of_admins, of_workers},
    management::Answers,
    plan::{FORMATION, Plan, State, Step},
};
use super::{
    dereference::Observed,
    endpoint::{Connect, Endpoint, NoAnswer, Server},
    member::{self, Member, Phase},
    owner::Component,
    secret::{self, account::Account, random::NoRandomness},
    validate::{Broker, Valid},
};

/// Port of the management API, TLS only.
pub(crate) const MANAGEMENT_PORT: u16 = 15671;
/// Port of the metrics, TLS only.
pub(crate) const METRICS_PORT: u16 = 15691;
/// Ports between the nodes: Erlang's port mapper, and its protocol.
pub(crate) const BETWEEN_NODES: [u16; 2] = [4369, 25672];
/// What runs, and what it says of itself.
#[derive(Default)]
pub(crate) struct Seen {
    members: Vec<Member>,
    answers: Option<Answers>,
    /// The node that answered.
    node: Option<Endpoint>,
    /// Who the Secrets say that the workers and the operator are.
    accounts: Option<(Account, Account)>,
}

/// Why users could not be made anew.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NotRenewed {
    #[error(transparent)]
    Randomness(#[from] NoRandomness),
    #[error("RabbitMQ {0}")]
    NoAnswer(#[from] NoAnswer),
}

/// Looks at the pods, and asks the nodes that are ready.
pub(crate) async fn observe(connect: &Connect, valid: &Valid, observed: &Observed) -> Seen {
    let name = valid.owner.siem.shared().broker();
    let set: Option<StatefulSet> = observed.children.get(&name);
    let mut seen = Seen { members: member::members(&name, set.as_ref(), &observed.pods, observed.now), ..Seen::default() };
    let authority = secret::content(&observed.children, &valid.owner.siem.shared().authority());
    let worker = secret::kept_account(&observed.children, &valid.owner.siem.shared().broker_user());
    let admin = secret::kept_account(&observed.children, &valid.owner.siem.broker_admin());
    seen.accounts = worker.zip(admin);
    let Some(authority) = authority.and_then(|content| content.data.get(CA_KEY).cloned()) else { return seen };
    let Some((_, login)) = &seen.accounts else { return seen };
    for member in seen.members.iter().filter(|member| member.phase == Phase::Ready) {
        let host = format!("{}.{}.{}.svc", member.name, valid.owner.siem.broker_nodes(), valid.owner.namespace);
        let Some(address) = member.address else { continue };
        let server = Server { host: &host, address, port: MANAGEMENT_PORT };
        let asked = match Endpoint::new(connect, server, Some(&authority), Some(login)) {
            Ok(node) => ask(node, member, &mut seen.answers, &mut seen.node).await,
            Err(error) => Err(error),
        };
        if let Err(error) = asked {
            warn!(pod = member.name, namespace = valid.owner.namespace, %error, "RabbitMQ gives no answer");
        }
    }
    seen
}

/// Whether RabbitMQ has begun a short time ago, and some role has not.
fn begins(valid: &Valid, observed: &Observed) -> bool {
    let name = valid.owner.siem.shared();
    let set: Option<StatefulSet> = observed.children.get(&name.broker());
    let made = set.and_then(|set| set.metadata.creation_timestamp);
    let is_new = made.is_none_or(|made| observed.now.duration_since(made.0) < FORMATION);
    is_new && Component::ROLES.iter().any(|role| observed.children.get::<Deployment>(&name.role(role.as_str())).is_none())
}

/// Asks the first node for what it knows of all, and each whether it can be done without.
async fn ask(node: Endpoint, member: &Member, answers: &mut Option<Answers>, first: &mut Option<Endpoint>) -> Result<(), NoAnswer> {
    let critical = management::is_quorum_critical(&node).await?;
    let known = match answers {
        Some(known) => known,
        None => answers.insert(management::ask(&node).await?),
    };
    known.critical.insert(member.name.clone(), critical);
    first.get_or_insert(node);
    Ok(())
}

impl Seen {
    /// What is to be done now.
    pub(crate) fn plan(&self, valid: &Valid, broker: &Broker, observed: &Observed) -> Plan {
        let (owner, name) = (&valid.owner, valid.owner.siem.shared());
        let nodes: Vec<String> = (0..broker.replicas).map(|ordinal| config::node(owner, ordinal)).collect();
        plan::plan(State {
            set: &name.broker(),
            members: &self.members,
            nodes: &nodes,
            answers: self.answers.as_ref(),
            begins: begins(valid, observed),
            accounts: self.accounts.as_ref().map(|(worker, admin)| (worker, admin)),
            revision: &broker.credentials_revision,
            now: observed.now,
        })
    }

    /// What keeps it from its work, by its own word.
    pub(crate) fn complaints(&self) -> Vec<String> {
        self.answers.as_ref().map(|answers| answers.alarms.clone()).unwrap_or_default()
    }

    /// Makes the new users that the plan asks for, before any Secret names them.
    pub(crate) async fn renew(
        &self,
        plan: &Plan,
        valid: &Valid,
        broker: &Broker,
        now: jiff::Timestamp,
    ) -> Result<Option<(Account, Account)>, NotRenewed> {
        let Some(node) = self.node.as_ref().filter(|_| plan.steps.contains(&Step::RenewAccounts)) else { return Ok(None) };
        let worker = Account::new("redoubt", &broker.credentials_revision, now)?;
        let admin = Account::new("redoubt-admin", &broker.credentials_revision, now)?;
        management::make_users(node, &worker, &admin, valid.prefix()).await?;
        info!(siem = valid.owner.siem.as_str(), namespace = valid.owner.namespace, "RabbitMQ has new users");
        Ok(Some((worker, admin)))
    }

    /// Does what the plan asks of the server. Pods are not its matter.
    pub(crate) async fn tell(&self, plan: &Plan, prefix: &str) -> Result<(), NoAnswer> {
        let Some(node) = &self.node else { return Ok(()) };
        for step in &plan.steps {
            match step {
                Step::Close(connections) => {
                    for connection in connections {
                        management::close(node, connection).await?;
                    }
                }
                Step::RemoveUsers(users) => {
                    for user in users {
                        management::remove_user(node, user).await?;
                    }
                }
                Step::AddReplica { queue, node: to } => management::add_replica(node, queue, to).await?,
                Step::RestoreAccounts => {
                    if let Some((worker, admin)) = &self.accounts {
                        management::make_users(node, worker, admin, prefix).await?;
                    }
                }
                Step::Restart { .. } | Step::RenewAccounts => {}
            }
        }
        Ok(())
    }
}
