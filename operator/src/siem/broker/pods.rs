//! The StatefulSet, Services and ConfigMap of RabbitMQ.

use k8s_openapi::{
    api::{
        apps::v1::StatefulSet,
        core::v1::{
            ConfigMap, ConfigMapProjection, Container, ExecAction, Lifecycle, LifecycleHandler, PodSpec, PodTemplateSpec, Probe, Service,
            ServiceSpec, TCPSocketAction, Volume, VolumeProjection,
        },
    },
    apimachinery::pkg::util::intstr::IntOrString,
};
use redoubt_crds::in_cluster::{BROKER_PORT, CA_KEY};

use super::{
    BETWEEN_NODES, MANAGEMENT_PORT, METRICS_PORT, config,
    definitions::{COOKIE, DEFINITIONS},
};
use crate::siem::{
    owner::{Component, Owner},
    pod::{self, User},
    server,
    template::{MadeFrom, Settled},
    validate::Broker,
};

const USER: User = User { user: 999, group: 999, volumes: 999 };
const HOME: &str = "/var/lib/rabbitmq";
/// Longest wait in [`BEFORE_STOP`], in seconds: half of what a node has to stop.
const PATIENCE: u16 = 60;

/// Starts a node. The cookie must be its user's alone, and a volume's files are their group's too, so it is copied. A node that was never
/// in the cluster waits until the first one runs, or it might begin a cluster of its own.
///
/// A start that hangs is ended, and the kubelet begins another. Erlang's `global` of two nodes that find each other again, most of all by an
/// address that DNS tells late, can wait for each other for good, and RabbitMQ with it. It has a remedy, but that of 3.10.8 does nothing on
/// Erlang 25.1 and later (rabbitmq-server issue 6034). The sign is a node that is connected and yet not agreed with for half a minute. Nobody
/// is served by a node that starts, so ending it costs nothing.
const START: &str = r#"umask 077
cp -f /etc/rabbitmq/erlang-cookie "$HOME/.erlang.cookie"
runs() {
  rabbitmqctl --quiet --node "$1" --timeout 10 await_startup >/dev/null 2>&1
}
says() {
  rabbitmqctl --quiet --node "$RABBITMQ_NODENAME" --timeout 10 eval "$1" 2>/dev/null
}
watch() {
  since=
  until runs "$RABBITMQ_NODENAME"; do
    case $(says 'nodes() -- gen_server:call(global_name_server, get_synced) =:= [].') in
    false) now=$(date +%s) && since=${since:-$now} ;;
    *) now=0 && since= ;;
    esac
    if [ $((now - ${since:-now})) -ge 30 ]; then
      echo "the start hangs, since Erlang's global does not come to an agreement with other nodes: it is begun anew"
      says 'erlang:halt(1).' || true
    fi
    sleep 2
  done
  touch "$HOME/.joined"
}
if [ ! -e "$HOME/.joined" ] && [ "$POD_NAME" != "$FIRST_POD" ]; then
  echo "waiting for $FIRST_POD"
  until runs "rabbit@$FIRST_POD.$NODES"; do sleep 2; done
fi
watch &
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
        ports: Some(vec![pod::service_port("amqps".to_owned(), BROKER_PORT, "TCP")]),
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
        ports: Some(ports.map(|(name, port)| pod::service_port(name.to_owned(), port, "TCP")).into()),
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
    let owned = owner.child(owner.siem.shared().broker(), Component::Broker);
    let pods = (owner.siem.broker_nodes(), owner.pods(Component::Broker));
    server::stateful_set(owned, broker.replicas, pods, &broker.volume, settled)
}

fn template(owner: &Owner, broker: &Broker, settings: &str) -> PodTemplateSpec {
    let identity = (owner.siem.shared().broker(), USER, owner.pods(Component::Broker));
    let spec = PodSpec {
        containers: vec![container(owner, broker)],
        volumes: Some(vec![files(owner), pod::scratch("log", "64Mi"), pod::scratch("tmp", "64Mi")]),
        ..PodSpec::default()
    };
    server::template(owner.labels(Component::Broker), settings, identity, spec)
}

fn container(owner: &Owner, broker: &Broker) -> Container {
    let name = owner.siem.shared().broker();
    let nodes = format!("{}.{}.svc", owner.siem.broker_nodes(), owner.namespace);
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
            pod::port("amqps", BROKER_PORT),
            pod::port("epmd", BETWEEN_NODES[0]),
            pod::port("erlang", BETWEEN_NODES[1]),
            pod::port("management", MANAGEMENT_PORT),
            pod::port("metrics", METRICS_PORT),
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
    let config = VolumeProjection {
        config_map: Some(ConfigMapProjection {
            name: owner.siem.shared().broker(),
            items: server::files(&[("rabbitmq.conf", "rabbitmq.conf"), ("enabled_plugins", "enabled_plugins")]),
            optional: None,
        }),
        ..VolumeProjection::default()
    };
    let sources = vec![
        config,
        server::secret(owner.siem.broker_nodes_secret(), &[(COOKIE, COOKIE), (DEFINITIONS, DEFINITIONS)]),
        server::secret(owner.siem.broker_certificate(), &[("tls.crt", "tls/tls.crt"), ("tls.key", "tls/tls.key")]),
        server::secret(owner.siem.shared().authority(), &[(CA_KEY, "tls/ca.crt")]),
    ];
    server::projected("files", sources)
}
