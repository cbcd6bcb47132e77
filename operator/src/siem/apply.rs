//! Step five: what was built is made so. Server-side apply, and only where something differs: at rest nothing is written.
//!
//! What pods need comes before the pods, StatefulSets last; when all of it stands, what is no longer built is removed. What fails for one
//! object keeps no other from being applied, with one exception: where a new Secret could not be written, what is in it is lost, and is
//! made otherwise next time. So nothing that is made of Secrets or reads them comes to know it: no further Secret is written then, and no
//! pod's template. And what is made for others to read, such as an Ingress, may be refused by them, and holds up nothing.

mod drift;

use kube::{
    Api, Client,
    api::{DeleteParams, DynamicObject, Patch, PatchParams, Preconditions},
};
use serde_json::Value;
use tracing::{info, warn};

use super::{
    answer::{is_gone, said},
    build::Built,
    child::{self, Child, Id},
    dereference::{Children, plain},
    digest,
    owner::{MANAGER, Owner},
};

/// Annotation: what was applied, so that a field which is applied no more is noticed.
const APPLIED: &str = "redoubt.dev/applied";

/// What stands after applying. Only this crate's `apply` makes one, so that no status can tell of what was merely built.
#[derive(Debug, Default)]
pub(crate) struct Applied {
    /// The objects, as the API server has them.
    pub(crate) children: Children,
    /// What could not be applied, and why.
    pub(crate) failures: Vec<String>,
    /// The same of what nothing of the SIEM depends on.
    pub(crate) aside: Vec<String>,
}

impl Applied {
    fn failed(&mut self, kind: &str, failure: String) {
        if child::is_for_others(kind) { self.aside.push(failure) } else { self.failures.push(failure) }
    }
}

/// Applies all of it, given what was there.
pub(crate) async fn apply(client: &Client, owner: &Owner, built: &Built, there: &Children) -> Applied {
    let mut applied = Applied::default();
    let mut a_secret_is_lost = false;
    for child in &built.children {
        if a_secret_is_lost && ["Secret", "Deployment", "StatefulSet"].contains(&child.id.kind.as_str()) {
            applied.children.0.extend(there.0.get_key_value(&child.id).map(|(id, live)| (id.clone(), live.clone())));
            continue;
        }
        match apply_one(client, owner, child, there).await {
            Ok(live) => {
                applied.children.0.insert(child.id.clone(), live);
            }
            Err(error) => {
                warn!(siem = owner.siem.as_str(), namespace = owner.namespace, kind = child.id.kind, name = child.id.name, %error, "not applied");
                applied.failed(&child.id.kind, format!("{} {} cannot be applied: {}", child.id.kind, child.id.name, said(&error)));
                a_secret_is_lost |=
                    child.id.kind == "Secret" && there.0.get(&child.id).is_none_or(|live| live["data"] != child.body["data"]);
            }
        }
    }
    if applied.failures.is_empty() {
        remove_orphans(client, owner, built, there, &mut applied).await;
    }
    applied
}

async fn apply_one(client: &Client, owner: &Owner, child: &Child, there: &Children) -> Result<Value, kube::Error> {
    let mut wanted = child.body.clone();
    wanted["metadata"]["annotations"][APPLIED] = digest::short(&child.body).into();
    let live = there.0.get(&child.id);
    // What is going is made anew when it is gone.
    if let Some(live) = live.filter(|live| is_going(live) || !drift::differs(&wanted, live)) {
        return Ok(live.clone());
    }
    let api: Api<DynamicObject> = Api::namespaced_with(client.clone(), &owner.namespace, &child.resource);
    let patched = api.patch(&child.id.name, &PatchParams::apply(MANAGER).force(), &Patch::Apply(&wanted)).await?;
    let action = if live.is_some() { "changed" } else { "created" };
    info!(siem = owner.siem.as_str(), namespace = owner.namespace, kind = child.id.kind, name = child.id.name, action, "applied");
    Ok(plain(&child.resource, patched))
}

/// Takes away what belongs to this Siem and is not built any more.
async fn remove_orphans(client: &Client, owner: &Owner, built: &Built, there: &Children, applied: &mut Applied) {
    let wanted = |id: &Id| built.kept.contains(id) || built.children.iter().any(|child| child.id == *id);
    for (id, live) in there.0.iter().filter(|(id, live)| !wanted(id) && belongs(live, owner) && !is_going(live)) {
        let Some(resource) = child::all_kinds().find(|resource| resource.kind == id.kind) else { continue };
        let api: Api<DynamicObject> = Api::namespaced_with(client.clone(), &owner.namespace, &resource);
        let uid = live["metadata"]["uid"].as_str().map(str::to_owned);
        let params = DeleteParams::background().preconditions(Preconditions { uid, resource_version: None });
        match api.delete(&id.name, &params).await {
            Ok(_) => info!(siem = owner.siem.as_str(), namespace = owner.namespace, kind = id.kind, name = id.name, "removed"),
            Err(error) if is_gone(&error) => {}
            Err(error) => applied.failed(&id.kind, format!("{} {} cannot be removed: {}", id.kind, id.name, said(&error))),
        }
    }
}

fn belongs(live: &Value, owner: &Owner) -> bool {
    let references = live["metadata"]["ownerReferences"].as_array();
    references.is_some_and(|references| references.iter().any(|reference| reference["uid"] == *owner.uid))
}

fn is_going(live: &Value) -> bool {
    !live["metadata"]["deletionTimestamp"].is_null()
}
