//! The controller of `Siem`: one resource becomes the running SIEM of its namespace, and stays it.
//!
//! A reconcile is six steps, a file each:
//!
//! ```text
//! dereference  reads the cluster                                            async
//! preprocess   brings what was read into the shape of decisions             pure
//! validate     lets the Siem through or refuses it                          pure
//! build        makes objects of it, and cannot fail                         pure
//! apply        server-side apply, StatefulSets last, then what is no more   async
//! status       tells what stands                                            async
//! ```
//! What is done to the pods of the managed RabbitMQ and Elasticsearch, and in which order, is planned by pure functions as well
//! ([`broker`], [`store`]): the plan is made anew from what there is each time, so an operator that was killed in the middle goes on
//! where it stopped. Nothing here waits: what is not possible yet is looked at again.
//!
//! Never happens here: a finalizer (all that a Siem has lies in its namespace and goes with it), a Secret in a log, a decision about a
//! configuration resource.

#![allow(unreachable_pub, reason = "what the crate shares is marked pub(crate), what it offers pub")]

mod answer;
mod apply;
mod autoscale;
mod broker;
mod build;
mod carry_out;
mod child;
mod dereference;
mod digest;
mod endpoint;
#[cfg(test)]
mod faults;
mod foreign;
mod member;
mod name;
mod owner;
mod place;
mod pod;
mod preprocess;
mod quantity;
mod secret;
mod server;
mod status;
mod store;
mod template;
#[cfg(test)]
mod testing;
mod validate;
mod volume;

use std::{
    collections::BTreeMap,
    fmt::Debug,
    future::Future,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use futures::{StreamExt as _, future};
use jiff::Timestamp;
use k8s_openapi::api::{
    apps::v1::{Deployment, StatefulSet},
    autoscaling::v2::HorizontalPodAutoscaler,
    core::v1::{ConfigMap, Pod, Secret, Service, ServiceAccount},
    networking::v1::{Ingress, NetworkPolicy},
    policy::v1::PodDisruptionBudget,
    rbac::v1::{Role, RoleBinding},
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::{
    Client, Resource,
    api::PartialObjectMeta,
    core::DeserializeGuard,
    runtime::{
        controller::{Action, Config, Controller},
        reflector::{ObjectRef, Store},
        watcher,
    },
};
use redoubt_crds::{LogSource, ResponseAction, Siem};
use serde::de::DeserializeOwned;
use tracing::{debug, warn};

pub use crate::options::{Images, OperatorPods};

use self::{
    dereference::Observed,
    endpoint::Connect,
    foreign::{Foreign, Presence},
    owner::{Component, INSTANCE, MANAGED_BY, MANAGER},
    place::Place,
    status::Known,
    validate::Valid,
};

/// How long a Siem that changes nothing is left alone, so that certificates are renewed and what the servers say is heard.
const REST: Duration = Duration::from_secs(60);
/// How soon it is looked at again while something is being done.
const SOON: Duration = Duration::from_secs(5);
/// The pauses after failures grow from the first to the last.
const PAUSES: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(120));

/// What the controller is given.
#[derive(Debug, Clone)]
pub struct Options {
    /// What pods are made from where the Siem does not say.
    pub images: Images,
    /// Who is to be let in to the managed servers; nobody where the operator does not run in the cluster.
    pub operator: Option<OperatorPods>,
    /// The only namespace to look at; without it, all.
    pub namespace: Option<String>,
    /// How many Siems are reconciled at a time.
    pub concurrency: u16,
}

/// Why a reconcile has to be tried again.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error(transparent)]
    Unreadable(#[from] dereference::Unreadable),
    #[error("cannot make a Secret: {0}")]
    Secret(#[from] secret::NotMade),
    #[error("not all could be applied: {0}")]
    NotApplied(String),
    #[error("cannot write the status: {0}")]
    Status(#[source] kube::Error),
}

struct Context {
    client: Client,
    /// How the servers in the pods are reached.
    connect: Connect,
    options: Options,
    /// What is remembered of Siems, by namespace and name.
    memories: Mutex<BTreeMap<(String, String), Memory>>,
}

/// What is remembered of a Siem between two looks, and may be forgotten: it only makes the operator more patient.
#[derive(Default)]
struct Memory {
    /// Failures in a row.
    failures: u32,
    work: Option<autoscale::Memory>,
    /// Which kinds of others are there.
    foreign: Option<foreign::Memory>,
}

type Guarded = DeserializeGuard<Siem>;

/// Reconciles the Siems of a namespace, or of all, until the shutdown.
pub async fn run(client: Client, options: Options, shutdown: impl Future<Output = ()> + Send + Sync + 'static) {
    let place = Place { client: client.clone(), namespace: options.namespace.clone() };
    let controller = Controller::new(place.all::<Guarded>(), watcher::Config::default());
    let config = Config::default().concurrency(options.concurrency).debounce(Duration::from_millis(300));
    let controller = watch(controller.with_config(config).graceful_shutdown_on(shutdown), &place);
    let context = Arc::new(Context { client, connect: endpoint::network(), options, memories: Mutex::default() });
    controller
        .run(reconcile, again, context)
        .for_each(|result| async move {
            if let Err(error) = result {
                debug!(%error, "a reconcile was not completed");
            }
        })
        .await;
}

/// Children, pods and the resources that a Siem is built from wake it.
fn watch(controller: Controller<Guarded>, place: &Place) -> Controller<Guarded> {
    let siems = controller.store();
    let controller = controller.watches(place.all::<PartialObjectMeta<Siem>>(), watcher::Config::default(), of_namespace(siems.clone()));
    let controller =
        controller.watches(place.all::<PartialObjectMeta<LogSource>>(), watcher::Config::default(), of_namespace(siems.clone()));
    let controller =
        controller.watches(place.all::<PartialObjectMeta<ResponseAction>>(), watcher::Config::default(), of_namespace(siems.clone()));
    let kept = watcher::Config::default().labels(dereference::LAST_GOOD);
    let controller = controller.watches(place.all::<PartialObjectMeta<ConfigMap>>(), kept, of_namespace(siems));
    let controller = watch_children::<ServiceAccount>(controller, place);
    let controller = watch_children::<Role>(controller, place);
    let controller = watch_children::<RoleBinding>(controller, place);
    let controller = watch_children::<NetworkPolicy>(controller, place);
    let controller = watch_children::<Secret>(controller, place);
    let controller = watch_children::<ConfigMap>(controller, place);
    let controller = watch_children::<Service>(controller, place);
    let controller = watch_children::<PodDisruptionBudget>(controller, place);
    let controller = watch_children::<Deployment>(controller, place);
    let controller = watch_children::<StatefulSet>(controller, place);
    let controller = watch_children::<HorizontalPodAutoscaler>(controller, place);
    let controller = watch_children::<Ingress>(controller, place);
    let controller = watch_children::<Pod>(controller, place);
    Foreign::ALL.into_iter().fold(controller, |controller, kind| {
        let touched = foreign::watch::touched(place, kind, ours());
        controller.reconcile_on(touched.filter_map(|child| future::ready(siem_of(&child.metadata))))
    })
}

/// Only what tells them apart is watched: whatever they hold is read when it is needed.
fn watch_children<K>(controller: Controller<Guarded>, place: &Place) -> Controller<Guarded>
where
    K: Resource<DynamicType = (), Scope = k8s_openapi::NamespaceResourceScope> + Clone + DeserializeOwned + Debug + Send + 'static,
{
    controller.watches(place.all::<PartialObjectMeta<K>>(), ours(), |child: PartialObjectMeta<K>| siem_of(&child.metadata))
}

/// Objects of all Siems.
fn ours() -> watcher::Config {
    watcher::Config::default().labels(&format!("{MANAGED_BY}={MANAGER},{INSTANCE}"))
}

/// Whose object it is.
fn siem_of(child: &ObjectMeta) -> Option<ObjectRef<Guarded>> {
    let siem = child.labels.as_ref()?.get(INSTANCE)?;
    Some(ObjectRef::new(siem).within(child.namespace.as_deref()?))
}

/// Wakes all Siems of a namespace.
fn of_namespace<K>(siems: Store<Guarded>) -> impl Fn(PartialObjectMeta<K>) -> Vec<ObjectRef<Guarded>> {
    move |object| {
        let there = siems.state();
        let same = there.iter().filter(|siem| siem.meta().namespace == object.metadata.namespace);
        same.map(|siem| ObjectRef::from_obj(&**siem)).collect()
    }
}

async fn reconcile(siem: Arc<Guarded>, context: Arc<Context>) -> Result<Action, Error> {
    look(&siem, &context, Timestamp::now()).await
}

/// Looks at one Siem, and does what is to be done now.
async fn look(siem: &Guarded, context: &Context, now: Timestamp) -> Result<Action, Error> {
    let meta = siem.meta();
    let (name, namespace) = (meta.name.clone().unwrap_or_default(), meta.namespace.clone().unwrap_or_default());
    let (client, options) = (&context.client, &context.options);

    let remembered = context.remember(&namespace, &name, |memory| memory.foreign.clone());
    let (foreign, remembered) = foreign::discover(client, remembered, now).await;
    context.remember(&namespace, &name, |memory| memory.foreign = Some(remembered));
    let observed = dereference::dereference(client, &namespace, &name, foreign, now).await?;
    // As it is now, which may be newer than what woke us.
    let Some(siem) = observed.siems.iter().find(|there| there.metadata.name.as_ref() == Some(&name)) else {
        if let Err(invalid) = &siem.0 {
            warn!(siem = name, namespace, %invalid, "not understood");
        }
        context.forget(&namespace, &name);
        return Ok(Action::await_change());
    };
    if siem.metadata.deletion_timestamp.is_some() {
        context.forget(&namespace, &name);
        return Ok(Action::await_change());
    }
    let prepared = preprocess::preprocess(&name, &namespace, &siem.spec, &observed);
    let valid = match validate::validate(siem, prepared, &observed, &options.images) {
        Ok(valid) => valid,
        Err(refusal) => {
            let refused = status::of_refused(siem, &refusal, now);
            status::write(client, siem, &refused).await.map_err(Error::Status)?;
            return Ok(Action::requeue(REST));
        }
    };
    let plans = carry_out::plan(&context.connect, &valid, &observed).await;
    let renewed = plans.renew(&valid, now).await;
    let secrets = secret::complete(&valid, &observed.children, renewed, now)?;
    let mut sizes = plans.sizes(&valid, &observed);
    sizes.process = context.autoscale(&valid, &observed).await;
    let process = valid.owner.siem.shared().role(Component::Process.as_str());
    sizes.process_is_scaled = is_left_to_others(&valid, &observed) && observed.scaled.contains(&process);
    let built = build::build(&valid, &observed.children, &secrets, &sizes, options.operator.as_ref());
    let mut applied = apply::apply(client, &valid.owner, &built, &observed.children).await;
    let all_stand = applied.failures.is_empty();
    applied.failures.extend(plans.carry_out(client, &valid, &observed, all_stand).await);
    let aside = std::mem::take(&mut applied.aside);
    applied.failures.extend(aside);

    let known = Known {
        valid: &valid,
        built: &built,
        applied: &applied,
        pods: &observed.pods,
        operations: plans.operations(),
        complaints: plans.complaints(),
    };
    let told = status::of_applied(siem, known, now);
    status::write(client, siem, &told).await.map_err(Error::Status)?;
    if let Some(failure) = applied.failures.first() {
        return Err(Error::NotApplied(failure.clone()));
    }
    context.succeeded(&namespace, &name);
    let pause = if !told.operations.is_empty() {
        SOON
    } else if sizes.process.is_some() && !is_left_to_others(&valid, &observed) {
        autoscale::WORK
    } else {
        REST
    };
    Ok(Action::requeue(pause))
}

/// Whether a HorizontalPodAutoscaler sees to the number of pods that process events, ours or KEDA's, or may do so.
fn is_left_to_others(valid: &Valid, observed: &Observed) -> bool {
    let wanted = valid.siem.process.autoscale.as_ref();
    wanted.is_some_and(|wanted| wanted.external_metric.is_some() || *observed.foreign.of(Foreign::ScaledObject) != Presence::Absent)
}

/// When to try again: the longer it has failed, the later.
#[expect(clippy::needless_pass_by_value, reason = "the Controller's way to call it")]
fn again(siem: Arc<Guarded>, error: &Error, context: Arc<Context>) -> Action {
    let meta = siem.meta();
    let (name, namespace) = (meta.name.clone().unwrap_or_default(), meta.namespace.clone().unwrap_or_default());
    let failures = context.count(&namespace, &name);
    let pause = PAUSES.0.saturating_mul(1 << failures.min(10)).min(PAUSES.1);
    warn!(siem = name, namespace, %error, again_in = ?pause, "cannot be reconciled");
    Action::requeue(pause)
}

impl Context {
    /// Counts a failure, and tells how many there were before.
    fn count(&self, namespace: &str, name: &str) -> u32 {
        self.remember(namespace, name, |memory| {
            memory.failures = memory.failures.saturating_add(1);
            memory.failures - 1
        })
    }

    fn succeeded(&self, namespace: &str, name: &str) {
        self.remember(namespace, name, |memory| memory.failures = 0);
    }

    fn forget(&self, namespace: &str, name: &str) {
        self.lock().remove(&(namespace.to_owned(), name.to_owned()));
    }

    /// How many pods are to process events, where the Siem lets the work say.
    async fn autoscale(&self, valid: &Valid, observed: &Observed) -> Option<u16> {
        let wanted = valid.siem.process.autoscale.as_ref()?;
        let (namespace, name) = (&valid.owner.namespace, valid.owner.siem.as_str());
        let live: Option<Deployment> = observed.children.get(&valid.owner.siem.shared().role(Component::Process.as_str()));
        let current = live.and_then(|live| live.spec?.replicas).and_then(|replicas| u16::try_from(replicas).ok()).unwrap_or_default();
        if is_left_to_others(valid, observed) {
            return Some(autoscale::leave(current, wanted));
        }
        let waiting = autoscale::waiting(&self.connect, &observed.pods).await;
        let before = self.remember(namespace, name, |memory| memory.work);
        let (replicas, work) = autoscale::decide(current, waiting, wanted, before, observed.now);
        self.remember(namespace, name, |memory| memory.work = Some(work));
        Some(replicas)
    }

    fn remember<T>(&self, namespace: &str, name: &str, change: impl FnOnce(&mut Memory) -> T) -> T {
        change(self.lock().entry((namespace.to_owned(), name.to_owned())).or_default())
    }

    /// What a thread left that failed while it held it is as good as any.
    fn lock(&self) -> MutexGuard<'_, BTreeMap<(String, String), Memory>> {
        self.memories.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
