//! An object that belongs to a Siem, whatever its kind: what is built becomes one, and what is there is read as one.

use kube::{
    Resource,
    api::{ApiResource, DynamicObject, ObjectMeta},
};
use serde::Serialize;
use serde_json::{Value, json};

use k8s_openapi::api::{
    apps::v1::{Deployment, StatefulSet},
    autoscaling::v2::HorizontalPodAutoscaler,
    core::v1::{ConfigMap, Secret, Service, ServiceAccount},
    networking::v1::{Ingress, NetworkPolicy},
    policy::v1::PodDisruptionBudget,
    rbac::v1::{Role, RoleBinding},
};

use super::foreign::Foreign;

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

    /// An object of a kind that others define.
    pub(crate) fn foreign(kind: Foreign, metadata: &ObjectMeta, spec: &Value) -> Self {
        let resource = kind.resource();
        let name = metadata.name.clone().unwrap_or_default();
        let body = json!({"apiVersion": resource.api_version, "kind": resource.kind, "metadata": metadata, "spec": spec});
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

/// The kinds of children that every cluster has, in the order in which they are applied: what pods need comes before the pods, and
/// StatefulSets come last of what the SIEM itself needs.
pub(crate) fn kinds() -> [ApiResource; 12] {
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
        ApiResource::erase::<HorizontalPodAutoscaler>(&()),
        ApiResource::erase::<Ingress>(&()),
    ]
}

/// All kinds of children, in the order in which they are applied: those that not every cluster has come after the others.
pub(crate) fn all_kinds() -> impl Iterator<Item = ApiResource> {
    kinds().into_iter().chain(Foreign::ALL.map(Foreign::resource))
}

/// Whether nothing of the SIEM depends on objects of this kind: they are for others to read, and somebody's webhooks may
/// refuse them.
pub(crate) fn is_for_others(kind: &str) -> bool {
    ["HorizontalPodAutoscaler", "Ingress"].contains(&kind) || Foreign::ALL.into_iter().any(|foreign| foreign.resource().kind == kind)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::permissions::permissions;

    #[test]
    fn the_operator_may_do_with_each_kind_what_it_does() {
        let may = |verb: &str, resource: &ApiResource| {
            permissions()
                .iter()
                .any(|permission| (&permission.group, &permission.resource, &*permission.verb) == (&resource.group, &resource.plural, verb))
        };

        for resource in all_kinds() {
            for verb in ["list", "watch", "create", "patch", "delete"] {
                assert!(may(verb, &resource), "{verb} {}", resource.plural);
            }
        }
        for resource in Foreign::ALL.map(Foreign::resource) {
            assert!(!may("get", &resource), "{}: that is not needed", resource.plural);
        }
    }
}
