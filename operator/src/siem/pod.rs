//! What all pods have in common: they fit the `restricted` Pod Security Standard, write nowhere but where a volume is, and stay apart from
//! their like where there are several nodes.

use k8s_openapi::{
    api::core::v1::{
        Affinity, Capabilities, ContainerPort, EmptyDirVolumeSource, EnvVar, EnvVarSource, ObjectFieldSelector, PodAffinityTerm,
        PodAntiAffinity, PodSecurityContext, ResourceRequirements, SeccompProfile, SecurityContext, ServicePort, Volume, VolumeMount,
        WeightedPodAffinityTerm,
    },
    apimachinery::pkg::{api::resource::Quantity, apis::meta::v1::LabelSelector, util::intstr::IntOrString},
};
use redoubt_crds::Resources;

/// Port of `/healthz`, `/readyz` and `/metrics` of every role, plain HTTP.
pub(crate) const HEALTH_PORT: u16 = 8081;
/// What pods call that port.
pub(crate) const HEALTH_PORT_NAME: &str = "health";

/// Whom the processes of a pod run as.
#[derive(Debug, Clone, Copy)]
pub(crate) struct User {
    pub(crate) user: i64,
    pub(crate) group: i64,
    /// The group that volumes are given to, where it is not `group`.
    pub(crate) volumes: i64,
}

/// The pod's part of the security context.
pub(crate) fn pod_security(user: User) -> PodSecurityContext {
    PodSecurityContext {
        run_as_non_root: Some(true),
        run_as_user: Some(user.user),
        run_as_group: Some(user.group),
        fs_group: Some(user.volumes),
        // Volumes with millions of files are not walked through at each start.
        fs_group_change_policy: Some("OnRootMismatch".to_owned()),
        seccomp_profile: Some(SeccompProfile { type_: "RuntimeDefault".to_owned(), localhost_profile: None }),
        ..PodSecurityContext::default()
    }
}

/// Each container's part.
pub(crate) fn container_security() -> SecurityContext {
    SecurityContext {
        allow_privilege_escalation: Some(false),
        read_only_root_filesystem: Some(true),
        capabilities: Some(Capabilities { drop: Some(vec!["ALL".to_owned()]), add: None }),
        ..SecurityContext::default()
    }
}

/// Pods of these labels are put on different nodes, as far as there are nodes.
pub(crate) fn apart(pods: LabelSelector) -> Affinity {
    let term =
        PodAffinityTerm { label_selector: Some(pods), topology_key: "kubernetes.io/hostname".to_owned(), ..PodAffinityTerm::default() };
    let preferred = vec![WeightedPodAffinityTerm { weight: 100, pod_affinity_term: term }];
    Affinity {
        pod_anti_affinity: Some(PodAntiAffinity {
            preferred_during_scheduling_ignored_during_execution: Some(preferred),
            ..PodAntiAffinity::default()
        }),
        ..Affinity::default()
    }
}

/// What a container is given.
pub(crate) fn resources(resources: &Resources) -> ResourceRequirements {
    let amounts = |amounts: &std::collections::BTreeMap<String, redoubt_crds::Quantity>| {
        let amounts = amounts.iter().map(|(name, amount)| (name.clone(), Quantity(amount.0.clone()))).collect();
        Some(amounts).filter(|amounts: &std::collections::BTreeMap<_, _>| !amounts.is_empty())
    };
    ResourceRequirements { requests: amounts(&resources.requests), limits: amounts(&resources.limits), claims: None }
}

/// An environment variable with this value.
pub(crate) fn env(name: &str, value: impl Into<String>) -> EnvVar {
    EnvVar { name: name.to_owned(), value: Some(value.into()), value_from: None }
}

/// An environment variable that Kubernetes fills in from a field of the pod.
pub(crate) fn env_of_pod(name: &str, field: &str) -> EnvVar {
    let field = ObjectFieldSelector { api_version: Some("v1".to_owned()), field_path: field.to_owned() };
    let source = EnvVarSource { field_ref: Some(field), ..EnvVarSource::default() };
    EnvVar { name: name.to_owned(), value: None, value_from: Some(source) }
}

/// A port that a container listens on.
pub(crate) fn port(name: &str, number: u16) -> ContainerPort {
    ContainerPort {
        name: Some(name.to_owned()),
        container_port: i32::from(number),
        protocol: Some("TCP".to_owned()),
        ..ContainerPort::default()
    }
}

/// A port of a Service that is the same in the pod.
pub(crate) fn service_port(name: String, port: u16, protocol: &str) -> ServicePort {
    ServicePort {
        name: Some(name),
        port: i32::from(port),
        target_port: Some(IntOrString::Int(i32::from(port))),
        protocol: Some(protocol.to_owned()),
        ..ServicePort::default()
    }
}

/// A folder that is empty when the pod starts and goes with it.
pub(crate) fn scratch(name: &str, size: &str) -> Volume {
    scratch_in(name, size, None)
}

/// The same, in memory.
pub(crate) fn memory(name: &str, size: &str) -> Volume {
    scratch_in(name, size, Some("Memory".to_owned()))
}

fn scratch_in(name: &str, size: &str, medium: Option<String>) -> Volume {
    let source = EmptyDirVolumeSource { medium, size_limit: Some(Quantity(size.to_owned())) };
    Volume { name: name.to_owned(), empty_dir: Some(source), ..Volume::default() }
}

/// Where a volume appears in a container.
pub(crate) fn mount(volume: &str, path: &str) -> VolumeMount {
    VolumeMount { name: volume.to_owned(), mount_path: path.to_owned(), ..VolumeMount::default() }
}

/// The same, where nothing may be written.
pub(crate) fn mount_to_read(volume: &str, path: &str) -> VolumeMount {
    VolumeMount { read_only: Some(true), ..mount(volume, path) }
}
