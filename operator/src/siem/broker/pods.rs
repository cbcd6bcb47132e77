//! The StatefulSet, Services and ConfigMap of RabbitMQ.

use k8s_openapi::{
    api::{
        apps::v1::{StatefulSet, StatefulSetSpec, StatefulSetUpdateStrategy},
        core::v1::{
            ConfigMap, ConfigMapProjection, Container, ContainerPort, ExecAction, KeyToPath, Lifecycle, LifecycleHandler, PodSpec,
            PodTemplateSpec, Probe, ProjectedVolumeSource, SecretProjection, Service, ServiceSpec, TCPSocketAction, Volume,
            VolumeProjection,
        },
    },
    apimachinery::pkg::{apis::meta::v1::ObjectMeta, util::intstr::IntOrString},
};
use redoubt_crds::in_cluster::{BROKER_PORT, CA_KEY};

use super::{BETWEEN_NODES, COOKIE, DEFINITIONS, MANAGEMENT_PORT, METRICS_PORT, config};
use crate::siem::{
    build::{
        pod::{self, User},
        service,
    },
    digest,
    owner::{Component, Owner},
    template::{CONFIG, MadeFrom, Settled},
    validate::Broker,
    volume,
};

const USER: User = User { user: 999, group: 999, volumes: 999 };
const HOME: &str = "/var/lib/rabbitmq";
/// Longest wait in [`BEFORE_STOP`], in seconds.
const PATIENCE: u16 = 60;
/// That, and the time that a node needs to stop.
const GRACE: i64 = 120;

/// Starts a node. The cookie must be its user's alone, and a volume's files are their group's too, so it is copied. A node that was never
/// in the cluster waits until the first one runs, or it might begin a cluster of its own.
const START: &str = r#"umask 077
cp -f /etc/rabbitmq/erlang-cookie "$HOME/.erlang.cookie"
await() {
  until rabbitmqctl --quiet --node "$1" --timeout 10 await_startup >/dev/null 2>&1; do sleep 2; done
}
if [ ! -e "$HOME/.joined" ]; then
  [ "$POD_NAME" = "$FIRST_POD" ] || { echo "waiting for $FIRST_POD" && await "rabbit@$FIRST_POD.$NODES"; }
  (await "$RABBITMQ_NODENAME" && touch "$HOME/.joined") &
fi
exec rabbitmq-server
"#;

/// Lets a node stop when every queue that has a replica on it keeps its majority without it. Where there is no other node, or the
/// Service of the nodes is gone since all of it is being deleted, there is nothing to wait for: their addresses tell.
const BEFORE_STOP: &str = r#"addresses() {
  { getent ahosts "$NODES" || nslookup "$NODES" | sed -n '/^Name:/,$s/^Address[^:]*: //p'; } 2>/dev/null | cut -d ' ' -f 1 | sort -u
}
end=$(($(date +%s) + PATIENCE))
while [ "$(date +%s)" -lt "$end" ]; do
  [ "$(addresses | wc -l)" -gt 1 ] || exit 0
  ! timeout 20 rabbitmq-upgrade --quiet --timeout 5 await_online_quorum_plus_one >/dev/null 2>&1 || exit 0
  sleep 1
done
"#;

/// What the nodes read.
pub(crate) fn config_map(owner: &Owner, broker: &Broker, settings: &str) -> ConfigMap {
    let files = [
        ("rabbitmq.conf", format!("{settings}{}", config::peers(owner, broker.replicas))),
        ("enabled_plugins", config::PLUGINS.to_owned()),
    ];
    ConfigMap {
        metadata: owner.child(owner.siem.shared().broker(), Component::Broker),
        data: Some(files.map(|(name, text)| (name.to_owned(), text)).into()),
        ..ConfigMap::default()
    }
}

/// The Service of the clients, and that of the nodes.
pub(crate) fn services(owner: &Owner) -> [Service; 2] {
    let pods = owner.pods(Component::Broker).match_labels;
    let clients = ServiceSpec {
        type_: Some("ClusterIP".to_owned()),
        selector: pods.clone(),
        ports: Some(vec![service::named("amqps".to_owned(), BROKER_PORT, "TCP")]),
        ..ServiceSpec::default()
    };
    let ports = [
        ("amqps", BROKER_PORT),
        ("epmd", BETWEEN_NODES[0]),
        ("erlang", BETWEEN_NODES[1]),
        ("management", MANAGEMENT_PORT),
        ("metrics", METRICS_PORT),
    ];
    let nodes = ServiceSpec {
        cluster_ip: Some("None".to_owned()),
        selector: pods,
        ports: Some(ports.map(|(name, port)| service::named(name.to_owned(), port, "TCP")).into()),
        // They look for each other before they are ready.
        publish_not_ready_addresses: Some(true),
        ..ServiceSpec::default()
    };
    let service = |name: String, spec| Service { metadata: owner.child(name, Component::Broker), spec: Some(spec), status: None };
    [service(owner.siem.shared().broker(), clients), service(owner.siem.broker_nodes(), nodes)]
}

/// What the pods are made from in this release.
pub(crate) fn made_from(owner: &Owner, broker: &Broker) -> MadeFrom {
    let settings = config::settings(owner, broker);
    MadeFrom { template: template(owner, broker, &settings), settings }
}

/// The nodes. Pods of an older template stay until they are deleted one by one.
pub(crate) fn stateful_set(owner: &Owner, broker: &Broker, settled: &Settled) -> StatefulSet {
    let mut built = StatefulSet {
        metadata: owner.child(owner.siem.shared().broker(), Component::Broker),
        spec: Some(StatefulSetSpec {
            replicas: Some(i32::from(broker.replicas)),
            service_name: Some(owner.siem.broker_nodes()),
            selector: owner.pods(Component::Broker),
            pod_management_policy: Some("Parallel".to_owned()),
            update_strategy: Some(StatefulSetUpdateStrategy { type_: Some("OnDelete".to_owned()), rolling_update: None }),
            persistent_volume_claim_retention_policy: Some(volume::retention(&broker.volume)),
            volume_claim_templates: Some(vec![volume::claim("data", &broker.volume)]),
            template: settled.made_from.template.clone(),
            revision_history_limit: Some(3),
            ..StatefulSetSpec::default()
        }),
        status: None,
    };
    settled.note(&mut built);
    built
}

fn template(owner: &Owner, broker: &Broker, settings: &str) -> PodTemplateSpec {
    PodTemplateSpec {
        metadata: Some(ObjectMeta {
            labels: Some(owner.labels(Component::Broker)),
            annotations: Some([(CONFIG.to_owned(), digest::of_bytes(settings.as_bytes()))].into()),
            ..ObjectMeta::default()
        }),
        spec: Some(PodSpec {
            service_account_name: Some(owner.siem.shared().broker()),
            automount_service_account_token: Some(false),
            enable_service_links: Some(false),
            security_context: Some(pod::pod_security(USER)),
            affinity: Some(pod::apart(owner.pods(Component::Broker))),
            termination_grace_period_seconds: Some(GRACE),
            containers: vec![container(owner, broker)],
            volumes: Some(vec![files(owner), pod::scratch("log", "64Mi"), pod::scratch("tmp", "64Mi")]),
            ..PodSpec::default()
        }),
    }
}

fn container(owner: &Owner, broker: &Broker) -> Container {
    let name = owner.siem.shared().broker();
    let nodes = format!("{}.{}.svc", owner.siem.broker_nodes(), owner.namespace);
    let port = |name: &str, number: u16| ContainerPort {
        name: Some(name.to_owned()),
        container_port: i32::from(number),
        protocol: Some("TCP".to_owned()),
        ..ContainerPort::default()
    };
    let shell = |script: &str| Some(["/bin/sh", "-ec", script].map(str::to_owned).into());
    let before_stop = BEFORE_STOP.replace("PATIENCE", &PATIENCE.to_string());
    Container {
        name: "rabbitmq".to_owned(),
        image: Some(broker.image.name.clone()),
        command: shell(START),
        env: Some(vec![
            pod::env_of_pod("POD_NAME", "metadata.name"),
            pod::env("FIRST_POD", format!("{name}-0")),
            pod::env("NODES", nodes),
            pod::env("HOME", HOME),
            pod::env("RABBITMQ_USE_LONGNAME", "true"),
            // Filled in from the variables above.
            pod::env("RABBITMQ_NODENAME", "rabbit@$(POD_NAME).$(NODES)"),
        ]),
        ports: Some(vec![
            port("amqps", BROKER_PORT),
            port("epmd", BETWEEN_NODES[0]),
            port("erlang", BETWEEN_NODES[1]),
            port("management", MANAGEMENT_PORT),
            port("metrics", METRICS_PORT),
        ]),
        readiness_probe: Some(Probe {
            tcp_socket: Some(TCPSocketAction { port: IntOrString::Int(i32::from(BROKER_PORT)), host: None }),
            period_seconds: Some(10),
            timeout_seconds: Some(5),
            failure_threshold: Some(3),
            ..Probe::default()
        }),
        lifecycle: Some(Lifecycle {
            pre_stop: Some(LifecycleHandler { exec: Some(ExecAction { command: shell(&before_stop) }), ..LifecycleHandler::default() }),
            ..Lifecycle::default()
        }),
        resources: Some(pod::resources(&broker.resources)),
        security_context: Some(pod::container_security()),
        volume_mounts: Some(vec![
            pod::mount("data", HOME),
            pod::mount_to_read("files", config::FOLDER),
            pod::mount("log", "/var/log/rabbitmq"),
            pod::mount("tmp", "/tmp"),
        ]),
        ..Container::default()
    }
}

/// All files of `/etc/rabbitmq` in one volume, so that nothing of the image's own is read.
fn files(owner: &Owner) -> Volume {
    let paths = |files: &[(&str, &str)]| {
        let path = |(key, path): &(&str, &str)| KeyToPath { key: (*key).to_owned(), path: (*path).to_owned(), mode: None };
        Some(files.iter().map(path).collect())
    };
    let secret = |name: String, files: &[(&str, &str)]| VolumeProjection {
        secret: Some(SecretProjection { name, items: paths(files), optional: None }),
        ..VolumeProjection::default()
    };
    let config = VolumeProjection {
        config_map: Some(ConfigMapProjection {
            name: owner.siem.shared().broker(),
            items: paths(&[("rabbitmq.conf", "rabbitmq.conf"), ("enabled_plugins", "enabled_plugins")]),
            optional: None,
        }),
        ..VolumeProjection::default()
    };
    let sources = vec![
        config,
        secret(owner.siem.broker_nodes_secret(), &[(COOKIE, COOKIE), (DEFINITIONS, DEFINITIONS)]),
        secret(owner.siem.broker_certificate(), &[("tls.crt", "tls/tls.crt"), ("tls.key", "tls/tls.key")]),
        secret(owner.siem.shared().authority(), &[(CA_KEY, "tls/ca.crt")]),
    ];
    Volume {
        name: "files".to_owned(),
        projected: Some(ProjectedVolumeSource { default_mode: Some(0o440), sources: Some(sources) }),
        ..Volume::default()
    }
}
