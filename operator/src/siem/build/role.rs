//! The Deployments whose pods run `redoubt`: one a role.
//!
//! Workers follow the resources of their namespace by themselves, so a pod is replaced only for what it reads at its start: its image, its
//! place and means, and the settings that [`at_start`] names.

use k8s_openapi::{
    api::{
        apps::v1::{Deployment, DeploymentSpec, DeploymentStrategy, RollingUpdateDeployment},
        core::v1::{Container, ContainerPort, HTTPGetAction, PodSpec, PodTemplateSpec, Probe, Sysctl},
    },
    apimachinery::pkg::{
        apis::meta::v1::{LabelSelector, LabelSelectorRequirement, ObjectMeta},
        util::intstr::IntOrString,
    },
};
use redoubt_crds::{BrokerSpec, Resources, SiemSpec, StoreSpec};
use serde_json::{Value, json};

use crate::siem::{
    digest,
    owner::{COMPONENT, Component, Owner},
    pod::{self, HEALTH_PORT, HEALTH_PORT_NAME, User},
    validate::Valid,
};

/// The annotation of a pod that tells which settings it read at its start.
pub(crate) const SETTINGS: &str = "redoubt.dev/settings";
/// Where the workers keep copies of the Secrets that resources refer to, in memory.
const SECRETS: &str = "/run/redoubt/secrets";
const DATA: &str = "/var/lib/redoubt";
const USER: User = User { user: 65532, group: 65532, volumes: 65532 };
/// A role finishes what is under way within 30 seconds; then it has time to say so.
const GRACE: i64 = 45;

/// The roles as they are to be. A role in `held` keeps the settings that are named there; where the work says how many pods process
/// events, they are `processing`.
pub(crate) fn deployments(valid: &Valid, held: Option<&HeldSettings>, processing: Option<u16>) -> Vec<Deployment> {
    Component::ROLES.into_iter().map(|role| deployment(valid, role, held, processing)).collect()
}

/// A role whose pods are not replaced yet, since pods of another one are to go first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct HeldSettings {
    pub(crate) role: Component,
    /// What its pods' annotation says now.
    pub(crate) settings: String,
}

/// What tells apart pods that read different settings at their start.
pub(crate) fn settings(siem: &SiemSpec, role: Component) -> String {
    digest::short(&at_start(siem, role))
}

/// What pods of this role read only at their start.
fn at_start(siem: &SiemSpec, role: Component) -> Value {
    // How the servers are run is their pods' matter.
    let broker = BrokerSpec { managed: None, ..siem.broker.clone() };
    let store = StoreSpec { managed: None, ..siem.store.clone() };
    let partitions = siem.correlate.partitions;
    match role {
        Component::Ingest => json!({"broker": broker}),
        Component::Process => json!({"broker": broker, "store": store, "partitions": partitions}),
        Component::Correlate => {
            json!({"broker": broker, "store": store, "partitions": partitions, "maxGroups": siem.correlate.max_groups})
        }
        Component::Respond => json!({"broker": broker, "store": store}),
        Component::Broker | Component::Store => Value::Null,
    }
}

/// How many pods a role has.
fn replicas(siem: &SiemSpec, role: Component, processing: Option<u16>) -> i32 {
    i32::from(match role {
        Component::Ingest => siem.ingest.replicas,
        Component::Process => processing.unwrap_or(siem.process.replicas),
        Component::Correlate => siem.correlate.replicas,
        Component::Respond | Component::Broker | Component::Store => siem.respond.replicas,
    })
}

fn given(siem: &SiemSpec, role: Component) -> &Resources {
    match role {
        Component::Ingest => &siem.ingest.resources,
        Component::Process => &siem.process.resources,
        Component::Correlate => &siem.correlate.resources,
        Component::Respond | Component::Broker | Component::Store => &siem.respond.resources,
    }
}

fn deployment(valid: &Valid, role: Component, held: Option<&HeldSettings>, processing: Option<u16>) -> Deployment {
    let Valid { owner, siem, .. } = valid;
    let settings = held.filter(|held| held.role == role).map_or_else(|| settings(siem, role), |held| held.settings.clone());
    let template = PodTemplateSpec {
        metadata: Some(ObjectMeta {
            labels: Some(owner.labels(role)),
            annotations: Some([(SETTINGS.to_owned(), settings)].into()),
            ..ObjectMeta::default()
        }),
        spec: Some(pod_spec(owner, siem, &valid.image.name, role)),
    };
    Deployment {
        metadata: owner.child(owner.siem.shared().role(role.as_str()), role),
        spec: Some(DeploymentSpec {
            replicas: Some(replicas(siem, role, processing)),
            selector: owner.pods(role),
            strategy: Some(strategy(role)),
            template,
            revision_history_limit: Some(3),
            progress_deadline_seconds: Some(600),
            ..DeploymentSpec::default()
        }),
        status: None,
    }
}

/// Correlators of two numbers of partitions must not count side by side; of the other roles, old and new pods may work together. Senders
/// must always find an ingest; the others' work can wait in its queue, so they are replaced even where a node has no room for one more.
fn strategy(role: Component) -> DeploymentStrategy {
    if role == Component::Correlate {
        return DeploymentStrategy { type_: Some("Recreate".to_owned()), rolling_update: None };
    }
    let rolling = RollingUpdateDeployment {
        max_surge: Some(IntOrString::Int(1)),
        max_unavailable: Some(IntOrString::Int(i32::from(role != Component::Ingest))),
    };
    DeploymentStrategy { type_: Some("RollingUpdate".to_owned()), rolling_update: Some(rolling) }
}

fn pod_spec(owner: &Owner, siem: &SiemSpec, image: &str, role: Component) -> PodSpec {
    let mut security = pod::pod_security(USER);
    if role == Component::Ingest {
        // A LogSource may listen below 1024 (syslog's own port is 514) and comes and goes without a restart.
        let any_port = Sysctl { name: "net.ipv4.ip_unprivileged_port_start".to_owned(), value: "0".to_owned() };
        security.sysctls = Some(vec![any_port]);
    }
    PodSpec {
        service_account_name: Some(owner.siem.worker()),
        automount_service_account_token: Some(true),
        security_context: Some(security),
        affinity: Some(pod::apart(owner.pods(role))),
        termination_grace_period_seconds: Some(GRACE),
        enable_service_links: Some(false),
        containers: vec![container(siem, image, role)],
        volumes: Some(vec![pod::memory("secrets", "64Mi"), pod::scratch("data", "1Gi"), pod::scratch("tmp", "256Mi")]),
        ..PodSpec::default()
    }
}

fn container(siem: &SiemSpec, image: &str, role: Component) -> Container {
    let health = HEALTH_PORT.to_string();
    let words = [
        "/usr/local/bin/redoubt",
        role.as_str(),
        "--bind",
        "0.0.0.0",
        "--data",
        DATA,
        "--secrets",
        SECRETS,
        "--health-port",
        health.as_str(),
    ];
    Container {
        name: role.as_str().to_owned(),
        image: Some(image.to_owned()),
        command: Some(words.map(str::to_owned).into()),
        env: Some(vec![pod::env_of_pod("REDOUBT_NAMESPACE", "metadata.namespace"), pod::env("REDOUBT_LOG_FORMAT", "json")]),
        ports: Some(ports(siem, role)),
        readiness_probe: Some(probe("/readyz", 5, 3)),
        liveness_probe: Some(probe("/healthz", 10, 6)),
        resources: Some(pod::resources(given(siem, role))),
        security_context: Some(pod::container_security()),
        volume_mounts: Some(vec![pod::mount("secrets", SECRETS), pod::mount("data", DATA), pod::mount("tmp", "/tmp")]),
        ..Container::default()
    }
}

/// Ports are for information, and a change of them would replace the pods: those of syslog come and go, so they are not among them.
fn ports(siem: &SiemSpec, role: Component) -> Vec<ContainerPort> {
    let http = (role == Component::Ingest).then(|| pod::port("http", siem.ingest.port));
    http.into_iter().chain([pod::port(HEALTH_PORT_NAME, HEALTH_PORT)]).collect()
}

fn probe(path: &str, period: i32, failures: i32) -> Probe {
    Probe {
        http_get: Some(HTTPGetAction {
            path: Some(path.to_owned()),
            port: IntOrString::Int(i32::from(HEALTH_PORT)),
            scheme: Some("HTTP".to_owned()),
            ..HTTPGetAction::default()
        }),
        period_seconds: Some(period),
        timeout_seconds: Some(3),
        failure_threshold: Some(failures),
        ..Probe::default()
    }
}

/// All pods that run `redoubt`, as a policy selects them.
pub(crate) fn selector(owner: &Owner) -> LabelSelector {
    let mut selector = LabelSelector { match_labels: Some(owner.shared_labels()), ..LabelSelector::default() };
    selector.match_expressions = Some(vec![LabelSelectorRequirement {
        key: COMPONENT.to_owned(),
        operator: "In".to_owned(),
        values: Some(Component::ROLES.map(|role| role.as_str().to_owned()).into()),
    }]);
    selector
}
