//! The Siem as the owner of its children: their names' first part, their labels, and the reference by which they go when it goes.

use std::{collections::BTreeMap, fmt};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, ObjectMeta, OwnerReference};

use super::name::SiemName;

/// The label that names the Siem.
pub(crate) const INSTANCE: &str = "app.kubernetes.io/instance";
/// The label that names the part of the Siem.
pub(crate) const COMPONENT: &str = "app.kubernetes.io/component";
/// The label that tells this operator's objects from those of others.
pub(crate) const MANAGED_BY: &str = "app.kubernetes.io/managed-by";
/// What [`MANAGED_BY`] says, and the field manager of all that is applied.
pub(crate) const MANAGER: &str = "redoubt-operator";

/// A part of the Siem that runs in pods.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Component {
    /// Takes events in.
    Ingest,
    /// Understands, enriches, matches and stores them.
    Process,
    /// Brings matches together into alerts.
    Correlate,
    /// Does what is to be done about alerts.
    Respond,
    /// The managed RabbitMQ.
    Broker,
    /// The managed Elasticsearch.
    Store,
}

impl Component {
    /// The pods that run `redoubt` itself.
    pub(crate) const ROLES: [Self; 4] = [Self::Ingest, Self::Process, Self::Correlate, Self::Respond];

    /// The name, as labels and commands have it.
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Ingest => "ingest",
            Self::Process => "process",
            Self::Correlate => "correlate",
            Self::Respond => "respond",
            Self::Broker => "broker",
            Self::Store => "store",
        }
    }
}

impl fmt::Display for Component {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The Siem that the children belong to.
#[derive(Debug, Clone)]
pub(crate) struct Owner {
    /// Its name.
    pub(crate) siem: SiemName,
    /// Where it and all its children are.
    pub(crate) namespace: String,
    /// Its identity among all that had or will have this name.
    pub(crate) uid: String,
}

impl Owner {
    /// Labels of what belongs to the Siem as a whole.
    pub(crate) fn shared_labels(&self) -> BTreeMap<String, String> {
        labels(&self.selector())
    }

    /// Labels of what belongs to one component.
    pub(crate) fn labels(&self, component: Component) -> BTreeMap<String, String> {
        let mut all = self.shared_labels();
        all.insert(COMPONENT.to_owned(), component.as_str().to_owned());
        all
    }

    /// What selects the pods of one component, and never changes.
    pub(crate) fn pods(&self, component: Component) -> LabelSelector {
        let mut all = self.selector();
        all.push((COMPONENT, component.as_str()));
        LabelSelector { match_labels: Some(labels(&all)), ..LabelSelector::default() }
    }

    /// Metadata of a child that belongs to the Siem as a whole.
    pub(crate) fn shared(&self, name: String) -> ObjectMeta {
        self.metadata(name, self.shared_labels())
    }

    /// Metadata of a child that belongs to one component.
    pub(crate) fn child(&self, name: String, component: Component) -> ObjectMeta {
        self.metadata(name, self.labels(component))
    }

    fn metadata(&self, name: String, labels: BTreeMap<String, String>) -> ObjectMeta {
        ObjectMeta {
            name: Some(name),
            namespace: Some(self.namespace.clone()),
            labels: Some(labels),
            owner_references: Some(vec![self.reference()]),
            ..ObjectMeta::default()
        }
    }

    fn reference(&self) -> OwnerReference {
        OwnerReference {
            api_version: redoubt_crds::API_VERSION.to_owned(),
            kind: "Siem".to_owned(),
            name: self.siem.as_str().to_owned(),
            uid: self.uid.clone(),
            controller: Some(true),
            block_owner_deletion: Some(true),
        }
    }

    fn selector(&self) -> Vec<(&str, &str)> {
        vec![("app.kubernetes.io/name", "redoubt"), (INSTANCE, self.siem.as_str()), (MANAGED_BY, MANAGER)]
    }
}

fn labels(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
}
