//! The objects of a namespace, as far as they were told: pure state, changed by one event at a time.
//!
//! A list that begins anew takes nothing away before it is complete: until then what was known stands.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::{api::DynamicObject, runtime::watcher::Event};
use redoubt_crds::in_cluster;
use redoubt_engine::{
    diagnostic::{Diagnostic, Level, Location},
    resource::{self, File, Kind, Resource, Spec},
};
use serde_json::Value;

use super::Watch;
use crate::resources::{
    Loaded,
    assets::{self, Databases},
};

/// The key of a ConfigMap that holds the last good version of a resource, whole.
const LAST_GOOD_KEY: &str = "resource.yaml";

/// The objects of a namespace.
pub(super) struct Objects {
    namespace: String,
    objects: BTreeMap<(Kind, String), Object>,
    /// By the names of their ConfigMaps.
    last_good: BTreeMap<String, LastGood>,
    /// What a list that is not complete yet has named.
    listing: BTreeMap<Watch, BTreeSet<String>>,
    /// What is followed.
    kinds: BTreeSet<Kind>,
    /// What has never been listed to the end.
    unlisted: BTreeSet<Watch>,
    /// Whether there are changes that were not loaded.
    changed: bool,
    /// The Siem that counted when it was last loaded.
    siem: Option<String>,
    databases: Databases,
}

/// An object, read.
struct Object {
    version: Version,
    created: Option<Time>,
    file: File,
}

/// What tells one version of an object from another, as far as its spec goes.
#[derive(Debug, PartialEq, Eq)]
struct Version {
    uid: Option<String>,
    generation: Option<i64>,
}

/// A version of a resource that was good.
struct LastGood {
    resource: Resource,
    /// The uids of the objects that the ConfigMap belongs to.
    owners: Vec<String>,
}

impl Objects {
    pub(super) fn new(namespace: &str, kinds: &[Kind]) -> Self {
        Self {
            namespace: namespace.to_owned(),
            objects: BTreeMap::new(),
            last_good: BTreeMap::new(),
            listing: BTreeMap::new(),
            unlisted: Watch::all(kinds).collect(),
            kinds: kinds.iter().copied().collect(),
            changed: false,
            siem: None,
            databases: Databases::default(),
        }
    }

    /// Whether all kinds have been listed once.
    pub(super) fn all_listed(&self) -> bool {
        self.unlisted.is_empty()
    }

    /// Whether there were changes since this was last asked.
    pub(super) fn take_changed(&mut self) -> bool {
        std::mem::take(&mut self.changed)
    }

    /// Whether an event says more than what is known.
    pub(super) fn is_news(&self, watch: Watch, event: &Event<DynamicObject>) -> bool {
        match (watch, event) {
            (Watch::Kind(kind), Event::Apply(object)) => !self.is_known(kind, object),
            _ => true,
        }
    }

    fn is_known(&self, kind: Kind, object: &DynamicObject) -> bool {
        let name = object.metadata.name.clone().unwrap_or_default();
        self.objects.get(&(kind, name)).is_some_and(|known| known.version == Version::of(object))
    }

    /// Takes an event over.
    pub(super) fn apply(&mut self, watch: Watch, event: Event<DynamicObject>) {
        match event {
            Event::Init => drop(self.listing.insert(watch, BTreeSet::new())),
            Event::InitApply(object) => {
                let name = object.metadata.name.clone().unwrap_or_default();
                self.listing.entry(watch).or_default().insert(name);
                self.put(watch, object);
            }
            Event::InitDone => {
                let listed = self.listing.remove(&watch).unwrap_or_default();
                self.retain(watch, |name| listed.contains(name));
                if self.unlisted.remove(&watch) {
                    self.changed = true;
                }
            }
            Event::Apply(object) => self.put(watch, object),
            Event::Delete(object) => {
                let gone = object.metadata.name.unwrap_or_default();
                self.retain(watch, |name| name != gone);
            }
        }
    }

    fn retain(&mut self, watch: Watch, keep: impl Fn(&str) -> bool) {
        let before = self.objects.len() + self.last_good.len();
        match watch {
            Watch::Kind(kind) => self.objects.retain(|(of, name), _| *of != kind || keep(name)),
            Watch::LastGood => self.last_good.retain(|name, _| keep(name)),
        }
        self.changed |= self.objects.len() + self.last_good.len() != before;
    }

    fn put(&mut self, watch: Watch, mut object: DynamicObject) {
        let name = object.metadata.name.clone().unwrap_or_default();
        match watch {
            Watch::Kind(kind) => {
                if self.is_known(kind, &object) {
                    return;
                }
                let spec = object.data.get_mut("spec").map(Value::take).unwrap_or_default();
                let mut file = resource::read_object(kind, &name, object.metadata.generation, spec);
                file.resources.iter_mut().for_each(|resource| self.resolve(resource));
                let version = Version::of(&object);
                self.objects.insert((kind, name), Object { version, created: object.metadata.creation_timestamp, file });
            }
            Watch::LastGood => {
                let text = object.data.pointer(&format!("/data/{LAST_GOOD_KEY}")).and_then(Value::as_str).unwrap_or_default();
                let read = resource::read(format!("ConfigMap/{name}/{LAST_GOOD_KEY}").as_ref(), text);
                let owners = object.metadata.owner_references.unwrap_or_default().into_iter().map(|owner| owner.uid).collect();
                match read.resources.into_iter().next() {
                    Some(mut resource) => {
                        self.resolve(&mut resource);
                        resource.origin.forget_text();
                        self.last_good.insert(name, LastGood { resource, owners });
                    }
                    // Versions that cannot be read any more serve nobody.
                    None => drop(self.last_good.remove(&name)),
                }
            }
        }
        self.changed = true;
    }

    /// A Siem as its pods see it.
    fn resolve(&self, resource: &mut Resource) {
        if let Spec::Siem(spec) = &mut resource.spec {
            **spec = in_cluster::resolve(&resource.name, &self.namespace, spec);
        }
    }

    /// All resources: of each kind the oldest first, so that a new one cannot take from an old one what only one can have.
    pub(super) fn load(&mut self) -> Loaded {
        let mut loaded = Loaded::default();
        let mut objects: Vec<(&(Kind, String), &Object)> = self.objects.iter().collect();
        objects.sort_by(|((kind, name), object), ((other_kind, other_name), other)| {
            (kind, &object.created, name).cmp(&(other_kind, &other.created, other_name))
        });
        let mut siem: Option<&str> = None;
        for ((kind, name), object) in objects {
            if *kind == Kind::Siem {
                if let Some(first) = siem {
                    let message = format!("a namespace can have one Siem, and Siem/{first} is older");
                    loaded.diagnostics.push(about_siem(Level::Error, name, message, "delete one of them"));
                    continue;
                }
                siem = Some(name);
            }
            loaded.input.resources.extend(object.file.resources.iter().cloned());
            loaded.input.refused.extend(object.file.refused.iter().cloned());
            loaded.diagnostics.extend(object.file.diagnostics.iter().cloned());
        }
        match (siem, &self.siem) {
            (Some(name), _) => self.siem = Some(name.to_owned()),
            (None, Some(gone)) => {
                // Without one, the listener would open on the default port, without TLS.
                loaded.input.refused.insert((Kind::Siem, gone.clone()));
                let message = "is gone; its last version goes on until this process is stopped".to_owned();
                loaded.diagnostics.push(about_siem(Level::Warning, gone, message, ""));
            }
            (None, None) => {}
        }
        loaded.last_good = self.last_good.values().filter(|good| self.is_wanted(good)).map(|good| good.resource.clone()).collect();
        // Who follows no LogSource sees no event.
        loaded.input.counts_only = !self.kinds.contains(&Kind::LogSource);
        if !self.kinds.contains(&Kind::AlertRule) {
            // Whether there are the rules that a ResponseAction names is for others to say.
            let named = loaded.input.resources.iter().filter_map(|resource| match &resource.spec {
                Spec::ResponseAction(spec) => Some(&spec.alerts.rules),
                _ => None,
            });
            loaded.input.apart = named.flatten().map(|rule| (Kind::AlertRule, rule.clone())).collect();
        }
        loaded.input.assets = self.databases.named_by(&loaded.input.resources);
        loaded
    }

    /// Whether a last good version is one of an object that is there: not of one that had the same name before.
    fn is_wanted(&self, good: &LastGood) -> bool {
        let Resource { kind, name, .. } = &good.resource;
        let Some(object) = self.objects.get(&(*kind, name.clone())) else { return false };
        let is_the_one = *kind != Kind::Siem || self.siem.as_deref() == Some(name);
        is_the_one && (good.owners.is_empty() || object.version.uid.as_ref().is_some_and(|uid| good.owners.contains(uid)))
    }

    /// Whether a resource names a GeoIP database, whose file may change.
    pub(super) fn name_databases(&self) -> bool {
        self.objects.values().flat_map(|object| &object.file.resources).any(|resource| assets::are_named_by(&resource.spec))
    }

    /// Lets go of the texts of rules and lists in which nothing was found: they are most of all text, and what is good by itself stays
    /// good, whatever becomes of other resources.
    pub(super) fn forget_texts(&mut self, found: &[Diagnostic]) {
        let found: BTreeSet<(&str, &str)> =
            found.iter().filter_map(|found| found.resource.as_ref()).map(|(kind, name)| (kind.as_str(), name.as_str())).collect();
        for ((kind, name), object) in &mut self.objects {
            if matches!(kind, Kind::AlertRule | Kind::Watchlist) && !found.contains(&(kind.as_str(), name.as_str())) {
                object.file.resources.iter_mut().for_each(|resource| resource.origin.forget_text());
            }
        }
    }
}

impl Version {
    fn of(object: &DynamicObject) -> Self {
        Self { uid: object.metadata.uid.clone(), generation: object.metadata.generation }
    }
}

fn about_siem(level: Level, name: &str, message: String, remedy: &str) -> Diagnostic {
    Diagnostic {
        level,
        resource: Some((Kind::Siem.to_string(), name.to_owned())),
        location: Location { file: Arc::new(format!("Siem/{name}").into()), line: 1, column: 1 },
        field: String::new(),
        message,
        remedy: remedy.to_owned(),
    }
}

#[cfg(test)]
mod tests;
