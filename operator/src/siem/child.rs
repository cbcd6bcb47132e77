//! An object that belongs to a Siem, whatever its kind: what is built becomes one, and what is there is read as one.

use kube::{
    Resource,
    api::{ApiResource, DynamicObject},
};
use serde::Serialize;
use serde_json::Value;

use k8s_openapi::api::{
    apps::v1::{Deployment, StatefulSet},
    core::v1::{ConfigMap, Secret, Service, ServiceAccount},
    networking::v1::NetworkPolicy,
    policy::v1::PodDisruptionBudget,
    rbac::v1::{Role, RoleBinding},
};

/// Which object it is, within its namespace.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Id {
    /// Its kind.
    pub(crate) kind: String,
    /// `metadata.name`.
    pub(crate) name: String,
}

/// An object as it is to be.
#[derive(Debug, Clone)]
pub(crate) struct Child {
    /// Its kind, as the API has it.
    pub(crate) resource: ApiResource,
    /// Which it is.
    pub(crate) id: Id,
    /// The whole object, as it is applied.
    pub(crate) body: Value,
}

impl Child {
    /// The object as it is to be.
    pub(crate) fn new<K: Resource<DynamicType = ()> + Serialize>(object: &K) -> Self {
        let resource = ApiResource::erase::<K>(&());
        let name = object.meta().name.clone().unwrap_or_default();
        // The types of Kubernetes are plain data, whose keys are texts: all of it can be said in JSON.
        let body = serde_json::to_value(object).expect("plain data can be written as JSON");
        Self { id: Id { kind: resource.kind.clone(), name }, resource, body }
    }
}

impl Id {
    /// The object of this kind and name.
    pub(crate) fn of<K: Resource<DynamicType = ()>>(name: impl Into<String>) -> Self {
        Self { kind: K::kind(&()).into_owned(), name: name.into() }
    }

    /// Which object of the API this is.
    pub(crate) fn read(resource: &ApiResource, object: &DynamicObject) -> Self {
        Self { kind: resource.kind.clone(), name: object.metadata.name.clone().unwrap_or_default() }
    }
}

/// The kinds of children, in the order in which they are applied: what pods need comes before the pods, and StatefulSets come last.
pub(crate) fn kinds() -> [ApiResource; 10] {
    [
        ApiResource::erase::<ServiceAccount>(&()),
        ApiResource::erase::<Role>(&()),
        ApiResource::erase::<RoleBinding>(&()),
        ApiResource::erase::<NetworkPolicy>(&()),
        ApiResource::erase::<Secret>(&()),
        ApiResource::erase::<ConfigMap>(&()),
        ApiResource::erase::<Service>(&()),
        ApiResource::erase::<PodDisruptionBudget>(&()),
        ApiResource::erase::<Deployment>(&()),
        ApiResource::erase::<StatefulSet>(&()),
    ]
}
