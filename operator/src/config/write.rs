//! Writing what the index decided: a resource's status, the ConfigMap with its last good version, the event that tells people.
//!
//! All is server-side apply: written twice it is the same, so an operator that ends between two calls, or a call whose answer is lost, does
//! no harm, and the next attempt finds its way from any state between. A resource's `uid` goes along, so that another one of the same
//! name is never meant. The last good version is kept before the status says that the new one is bad, and let go after the status says
//! that it is good.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use k8s_openapi::api::core::v1::{ConfigMap, ObjectReference};
use kube::{
    Api, Client, ResourceExt as _,
    api::{DeleteParams, DynamicObject, Patch, PatchParams},
    runtime::events::{self, Recorder, Reporter},
};
use redoubt_engine::resource::Kind;
use serde_json::{Value, json};
use tokio::time::Instant;
use tracing::{debug, warn};

use super::{
    document,
    index::{Change, Done, Failed, Keep, Key, NewStatus, Notice},
    watch::api_resource,
};
use crate::{
    metrics::{Metrics, OutcomeLabels},
    options::FIELD_MANAGER,
};

/// The field manager of a Siem's condition `Accepted`: its other conditions have another writer.
const SIEM_FIELD_MANAGER: &str = "redoubt-operator-accepted";

/// Events told in a row, and the time in which one more may be.
const EVENTS: u32 = 50;
const ONE_MORE: Duration = Duration::from_secs(2);
/// Longest note of an event, in bytes: the API server takes no more than 1024.
const MAX_NOTE: usize = 1000;

/// Writes changes.
pub struct Writer {
    client: Client,
    recorder: Recorder,
    allowance: Mutex<Allowance>,
    metrics: Arc<Metrics>,
}

impl Writer {
    /// A writer that events name as the given pod.
    #[must_use]
    pub fn new(client: Client, instance: &str, metrics: Arc<Metrics>) -> Self {
        let reporter = Reporter { controller: FIELD_MANAGER.to_owned(), instance: Some(instance.to_owned()) };
        let allowance = Mutex::new(Allowance { left: EVENTS, since: Instant::now() });
        Self { recorder: Recorder::new(client.clone(), reporter), client, allowance, metrics }
    }

    /// Writes a change, each part of it once.
    pub async fn write(&self, change: Change) -> Done {
        let store = matches!(change.keep, Some(Keep::Store(_)));
        let mut keep = None;
        if store {
            keep = Some(self.keep(&change).await);
        }
        let mut status = None;
        if let Some(new) = &change.status {
            let written = self.status(&change, new).await;
            if let (Ok(_), Some(notice)) = (&written, &new.notice) {
                self.tell(&change, notice).await;
            }
            status = Some(written);
        }
        let shown = !matches!(status, Some(Err(Failed)));
        if !store && shown && change.keep.is_some() {
            keep = Some(self.keep(&change).await);
        }
        let outcome = if keep == Some(Err(Failed)) || status == Some(Err(Failed)) { "failed" } else { "ok" };
        self.metrics.status_writes.get_or_create(&OutcomeLabels { outcome }).inc();
        Done { key: change.key, uid: change.uid, keep, status }
    }

    async fn status(&self, change: &Change, new: &NewStatus) -> Result<u64, Failed> {
        let kind = api_resource(change.key.kind);
        let api: Api<DynamicObject> = Api::namespaced_with(self.client.clone(), &change.namespace, &kind);
        let mut status = json!({ "conditions": new.conditions });
        if let Some(generation) = new.observed_generation {
            status["observedGeneration"] = json!(generation);
        }
        let patch = json!({
            "apiVersion": redoubt_crds::API_VERSION,
            "kind": change.key.kind.as_str(),
            "metadata": { "name": &*change.key.name, "uid": &*change.uid },
            "status": status,
        });
        let manager = if change.key.kind == Kind::Siem { SIEM_FIELD_MANAGER } else { FIELD_MANAGER };
        let params = PatchParams::apply(manager).force();
        match api.patch_status(&change.key.name, &params, &Patch::Apply::<Value>(patch)).await {
            Ok(written) => Ok(version(written.resource_version())),
            Err(error) => Err(failed("its status could not be written", change, &error)),
        }
    }

    async fn keep(&self, change: &Change) -> Result<u64, Failed> {
        let api: Api<ConfigMap> = Api::namespaced(self.client.clone(), &change.namespace);
        let name = document::kept_name(&change.key);
        match &change.keep {
            None => Ok(0),
            Some(Keep::Store(good)) => {
                let map = document::kept_config_map(&change.key, &change.uid, good);
                let params = PatchParams::apply(FIELD_MANAGER).force();
                match api.patch(&name, &params, &Patch::Apply(map)).await {
                    Ok(written) => Ok(version(written.resource_version())),
                    Err(error) => Err(failed("its last good version could not be kept", change, &error)),
                }
            }
            Some(Keep::Discard) => match api.delete(&name, &DeleteParams::default()).await {
                Ok(_) => Ok(0),
                Err(kube::Error::Api(status)) if status.code == 404 => Ok(0),
                Err(error) => Err(failed("its last good version could not be let go", change, &error)),
            },
        }
    }

    /// Tells people. An event that cannot be told is not worth another try: the status says it all.
    async fn tell(&self, change: &Change, notice: &Notice) {
        let outcome = if self.may_tell() {
            let event = events::Event {
                type_: if notice.warning { events::EventType::Warning } else { events::EventType::Normal },
                reason: notice.reason.to_owned(),
                note: Some(notice.note[..notice.note.floor_char_boundary(MAX_NOTE)].to_owned()),
                action: "Judge".to_owned(),
                secondary: None,
            };
            match self.recorder.publish(&event, &reference(change)).await {
                Ok(()) => "told",
                Err(error) => {
                    debug!(namespace = &*change.namespace, resource = %change.key, %error, "an event could not be told");
                    "failed"
                }
            }
        } else {
            "too_many"
        };
        self.metrics.events.get_or_create(&OutcomeLabels { outcome }).inc();
    }

    fn may_tell(&self) -> bool {
        self.allowance.lock().unwrap_or_else(PoisonError::into_inner).take(Instant::now())
    }
}

/// How many events may still be told.
struct Allowance {
    left: u32,
    since: Instant,
}

impl Allowance {
    fn take(&mut self, now: Instant) -> bool {
        let earned = u32::try_from(now.duration_since(self.since).as_millis() / ONE_MORE.as_millis()).unwrap_or(u32::MAX);
        if earned > 0 {
            self.left = self.left.saturating_add(earned).min(EVENTS);
            self.since += ONE_MORE * earned.min(EVENTS);
            if earned > EVENTS {
                self.since = now;
            }
        }
        let may = self.left > 0;
        self.left -= u32::from(may);
        may
    }
}

fn reference(change: &Change) -> ObjectReference {
    let Key { kind, name } = &change.key;
    ObjectReference {
        api_version: Some(redoubt_crds::API_VERSION.to_owned()),
        kind: Some(kind.as_str().to_owned()),
        name: Some(name.to_string()),
        namespace: Some(change.namespace.to_string()),
        uid: Some(change.uid.to_string()),
        ..ObjectReference::default()
    }
}

/// Says what failed. That the resource is gone is nobody's fault: its watch will tell.
fn failed(what: &str, change: &Change, error: &kube::Error) -> Failed {
    let (namespace, resource) = (&*change.namespace, &change.key);
    match error {
        kube::Error::Api(status) if matches!(status.code, 404 | 409) => debug!(namespace, %resource, %error, "{what}"),
        _ => warn!(namespace, %resource, %error, "{what}; it is tried again"),
    }
    Failed
}

fn version(text: Option<String>) -> u64 {
    text.and_then(|text| text.parse().ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_storm_of_events_is_cut_short_and_others_are_told_later() {
        let start = Instant::now();
        let mut allowance = Allowance { left: EVENTS, since: start };

        let storm = (0..1000).filter(|_| allowance.take(start)).count();
        let minute = (0..1000).filter(|_| allowance.take(start + Duration::from_secs(60))).count();
        let hour = (0..1000).filter(|_| allowance.take(start + Duration::from_secs(3660))).count();

        assert_eq!((storm, minute, hour), (50, 30, 50));
    }
}
