//! What is done to the managed servers besides their objects: the plans of this moment, and their steps.

use std::collections::BTreeSet;

use jiff::Timestamp;
use k8s_openapi::api::{
    apps::v1::StatefulSet,
    core::v1::{PersistentVolumeClaim, Pod},
};
use kube::{
    Api, Client,
    api::{DeleteParams, Patch, PatchParams, Preconditions},
};
use redoubt_crds::Operation;
use serde_json::json;
use tracing::{info, warn};

use super::{
    answer::{is_gone, said},
    broker,
    build::Sizes,
    dereference::Observed,
    endpoint::Connect,
    owner::{MANAGER, Owner},
    secret::{self, Renewed},
    store,
    validate::Valid,
    volume::{self, Growth},
};

/// The plans of this moment.
#[derive(Default)]
pub(crate) struct Plans {
    broker: Option<(broker::Seen, broker::plan::Plan)>,
    store: Option<(store::Seen, store::plan::Plan)>,
    growth: Vec<Growth>,
}

/// Asks the servers, and plans.
pub(crate) async fn plan(connect: &Connect, valid: &Valid, observed: &Observed) -> Plans {
    let names = valid.owner.siem.shared();
    let mut plans = Plans::default();
    let mut grow = |name: &str, volume: &super::validate::Volume, settled: bool| {
        let set: Option<StatefulSet> = observed.children.get(name);
        let mut growth = volume::grow(set.as_ref(), &observed.claims, volume);
        if !settled {
            // Made anew, a set would have its final size at once.
            growth.steps.retain(|step| !matches!(step, volume::Step::Release { .. }));
        }
        plans.growth.push(growth);
    };
    if let Some(wanted) = &valid.broker {
        grow(&names.broker(), &wanted.volume, true);
        let seen = broker::observe(connect, valid, observed).await;
        let plan = seen.plan(valid, wanted, observed);
        plans.broker = Some((seen, plan));
    }
    if let Some(wanted) = &valid.store {
        let seen = store::observe(connect, valid, wanted, observed).await;
        let plan = seen.plan();
        for set in &wanted.sets {
            let name = names.node_set(&set.spec.name);
            let live: Option<StatefulSet> = observed.children.get(&name);
            let replicas = live.and_then(|live| live.spec?.replicas);
            grow(&name, &set.volume, replicas == Some(i32::from(set.spec.replicas)));
        }
        plans.store = Some((seen, plan));
    }
    plans
}

impl Plans {
    /// What they say about the objects.
    pub(crate) fn sizes(&self, valid: &Valid, observed: &Observed) -> Sizes {
        let roles_wait = self.broker.as_ref().is_some_and(|(_, plan)| plan.roles_wait);
        let mut sizes = Sizes { roles_wait, ..Sizes::default() };
        if let Some((seen, plan)) = &self.store {
            sizes.node_sets = plan.sizes.clone();
            sizes.cluster.clone_from(&seen.cluster);
            sizes.old_sets = seen.old_sets();
        }
        let servers = valid.broker.iter().map(|_| valid.owner.siem.shared().broker());
        let sets = valid.store.iter().flat_map(|store| &store.sets).map(|set| valid.owner.siem.shared().node_set(&set.spec.name));
        for (name, growth) in servers.chain(sets).zip(&self.growth) {
            // One that is not there is made with the new size.
            let there = observed.children.get::<StatefulSet>(&name).is_some();
            sizes.claims.extend(growth.keeps.clone().filter(|_| there).map(|size| (name, size)));
        }
        sizes
    }

    /// What is under way.
    pub(crate) fn operations(&self) -> Vec<Operation> {
        let broker = self.broker.iter().flat_map(|(_, plan)| &plan.operations);
        let store = self.store.iter().flat_map(|(_, plan)| &plan.operations);
        let growth = self.growth.iter().flat_map(|growth| &growth.operations);
        broker.chain(store).chain(growth).cloned().collect()
    }

    /// What keeps the servers from their work, by their own word.
    pub(crate) fn complaints(&self) -> Vec<String> {
        let broker = self.broker.iter().flat_map(|(seen, _)| seen.complaints());
        broker.chain(self.store.iter().flat_map(|(seen, _)| seen.complaints())).collect()
    }

    /// Makes new users, before any Secret names them.
    pub(crate) async fn renew(&self, valid: &Valid, now: Timestamp) -> Renewed {
        let (Some((seen, plan)), Some(wanted)) = (&self.broker, &valid.broker) else { return Renewed::default() };
        match seen.renew(plan, valid, wanted, now).await {
            Ok(broker) => Renewed { broker },
            Err(error) => {
                warn!(siem = valid.owner.siem.as_str(), namespace = valid.owner.namespace, %error, "no new users could be made");
                Renewed::default()
            }
        }
    }

    /// Takes the steps that are to be taken now. Pods are only touched where all objects stand. Tells what could not be done.
    pub(crate) async fn carry_out(&self, client: &Client, valid: &Valid, observed: &Observed, all_stand: bool) -> Vec<String> {
        let owner = &valid.owner;
        let mut failures = Vec::new();
        for step in self.growth.iter().flat_map(|growth| &growth.steps) {
            failures.extend(grow(client, owner, step).await.err());
        }
        if let Some((seen, plan)) = &self.broker {
            failures.extend(seen.tell(plan, valid.prefix()).await.err().map(|error| format!("RabbitMQ {error}")));
            for step in &plan.steps {
                if let broker::plan::Step::Restart { pod, uid } = step
                    && all_stand
                {
                    failures.extend(restart(client, owner, pod, uid).await.err());
                }
            }
        }
        if let Some((seen, plan)) = &self.store {
            failures.extend(tell_store(client, valid, observed, seen, plan, all_stand).await.err());
            failures.extend(resize_old_sets(client, owner, observed, seen, plan).await);
        }
        failures
    }
}

/// Takes the steps for Elasticsearch in their order, until one fails.
async fn tell_store(
    client: &Client,
    valid: &Valid,
    observed: &Observed,
    seen: &store::Seen,
    plan: &store::plan::Plan,
    all_stand: bool,
) -> Result<(), String> {
    let said = |error| format!("Elasticsearch {error}");
    for step in &plan.steps {
        match step {
            store::plan::Step::Restart { .. } if !all_stand => return Ok(()),
            // It may be the node that answers here. What is left to tell can wait until it is back.
            store::plan::Step::Restart { pod, uid } => return restart(client, &valid.owner, pod, uid).await,
            step => seen.tell(step).await.map_err(said)?,
        }
    }
    let worker = secret::kept_account(&observed.children, &valid.owner.siem.shared().store_user());
    match worker.filter(|_| valid.store.as_ref().is_some_and(|store| store.security)) {
        Some(worker) => seen.welcome(valid, &worker).await.map_err(said),
        None => Ok(()),
    }
}

/// Makes sets smaller that the Siem names no more: nothing is built for them.
async fn resize_old_sets(client: &Client, owner: &Owner, observed: &Observed, seen: &store::Seen, plan: &store::plan::Plan) -> Vec<String> {
    let api: Api<StatefulSet> = Api::namespaced(client.clone(), &owner.namespace);
    let old: BTreeSet<String> = seen.old_sets();
    let mut failures = Vec::new();
    for (set, size) in plan.sizes.iter().map(|(set, size)| (owner.siem.shared().node_set(set), size)).filter(|(set, _)| old.contains(set)) {
        let live: Option<StatefulSet> = observed.children.get(&set);
        if live.and_then(|live| live.spec?.replicas) == Some(i32::from(*size)) {
            continue;
        }
        let params = PatchParams { field_manager: Some(MANAGER.to_owned()), ..PatchParams::default() };
        match api.patch(&set, &params, &Patch::Merge(json!({"spec": {"replicas": size}}))).await {
            Ok(_) => info!(namespace = owner.namespace, set, size, "a set that is to go has become smaller"),
            Err(error) => failures.push(format!("StatefulSet {set} cannot become smaller: {}", said(&error))),
        }
    }
    failures
}

/// Deletes a pod, if it is still the one that was looked at; its set makes it anew.
async fn restart(client: &Client, owner: &Owner, pod: &str, uid: &str) -> Result<(), String> {
    let pods: Api<Pod> = Api::namespaced(client.clone(), &owner.namespace);
    let params = DeleteParams::default().preconditions(Preconditions { uid: Some(uid.to_owned()), resource_version: None });
    match pods.delete(pod, &params).await {
        Ok(_) => {
            info!(siem = owner.siem.as_str(), namespace = owner.namespace, pod, "restarted");
            Ok(())
        }
        Err(error) if is_gone(&error) => Ok(()),
        Err(error) => Err(format!("Pod {pod} cannot be restarted: {}", said(&error))),
    }
}

async fn grow(client: &Client, owner: &Owner, step: &volume::Step) -> Result<(), String> {
    match step {
        volume::Step::Grow { claim, size } => {
            let claims: Api<PersistentVolumeClaim> = Api::namespaced(client.clone(), &owner.namespace);
            let patch = json!({"spec": {"resources": {"requests": {"storage": size}}}});
            let params = PatchParams { field_manager: Some(MANAGER.to_owned()), ..PatchParams::default() };
            let result = claims.patch(claim, &params, &Patch::Merge(patch)).await;
            result.map_err(|error| format!("PersistentVolumeClaim {claim} cannot grow: {}", said(&error)))?;
            info!(siem = owner.siem.as_str(), namespace = owner.namespace, claim, size, "a volume is to grow");
        }
        volume::Step::Release { set, uid } => {
            let sets: Api<StatefulSet> = Api::namespaced(client.clone(), &owner.namespace);
            let params = DeleteParams::orphan().preconditions(Preconditions { uid: Some(uid.clone()), resource_version: None });
            match sets.delete(set, &params).await {
                Ok(_) => info!(siem = owner.siem.as_str(), namespace = owner.namespace, set, "made anew for larger volumes"),
                Err(error) if is_gone(&error) => {}
                Err(error) => return Err(format!("StatefulSet {set} cannot be made anew: {}", said(&error))),
            }
        }
    }
    Ok(())
}
