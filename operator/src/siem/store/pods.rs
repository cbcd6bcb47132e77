//! The StatefulSets, Services and ConfigMaps of Elasticsearch.

use std::collections::BTreeMap;

use k8s_openapi::{
    api::{
        apps::v1::StatefulSet,
        core::v1::{
            ConfigMap, ConfigMapKeySelector, ConfigMapVolumeSource, Container, EnvVar, EnvVarSource, PodSpec, PodTemplateSpec, Probe,
            SecretKeySelector, Service, ServiceSpec, TCPSocketAction, Volume, VolumeMount,
        },
    },
    apimachinery::pkg::{apis::meta::v1::LabelSelector, util::intstr::IntOrString},
};
use redoubt_crds::in_cluster::{CA_KEY, STORE_PORT};

use super::{
    DATA, MASTER, NODE_SET, READINESS_PORT, TRANSPORT_PORT, config,
    note::{SECURITY, note_roles},
};
use crate::siem::{
    owner::{Component, Owner},
    pod::{self, User},
    server,
    template::{MadeFrom, Settled},
    validate::{Set, Store},
};

const USER: User = User { user: 1000, group: 0, volumes: 1000 };
/// Keys of a set's ConfigMap.
const SETTINGS: &str = "elasticsearch.yml";
const INITIAL_MASTERS: &str = "initial-masters";

/// The image's own configuration folder, with the set's settings, where the server may write. It keeps its keystore there.
const LAY_OUT: &str = "cp -R /usr/share/elasticsearch/config/. /config/\ncp -f /settings/elasticsearch.yml /config/elasticsearch.yml\n";

/// What the nodes of a set read. `initial_masters` are those that a cluster which is not there yet begins with.
pub(crate) fn config_map(owner: &Owner, set: &str, settings: String, initial_masters: Option<&[String]>) -> ConfigMap {
    let mut data = BTreeMap::from([(SETTINGS.to_owned(), settings)]);
    data.extend(initial_masters.map(|masters| (INITIAL_MASTERS.to_owned(), masters.join(","))));
    ConfigMap { metadata: owner.child(owner.siem.shared().node_set(set), Component::Store), data: Some(data), ..ConfigMap::default() }
}

/// The nodes that a cluster begins with: all that may be master.
pub(crate) fn initial_masters(owner: &Owner, store: &Store) -> Vec<String> {
    let masters = store.sets.iter().filter(|set| set.spec.may_be_master());
    let pods = |set: &Set| {
        let name = owner.siem.shared().node_set(&set.spec.name);
        (0..set.spec.replicas).map(move |ordinal| format!("{name}-{ordinal}"))
    };
    masters.flat_map(pods).collect()
}

/// The Service of the clients, that of the nodes' names, and that by which a node finds the others.
pub(crate) fn services(owner: &Owner) -> [Service; 3] {
    let select = |label: Option<&str>| {
        let mut labels = owner.pods(Component::Store).match_labels.unwrap_or_default();
        labels.extend(label.map(|label| (label.to_owned(), "true".to_owned())));
        Some(labels)
    };
    let headless = |selector, port: (&str, u16)| ServiceSpec {
        cluster_ip: Some("None".to_owned()),
        selector,
        ports: Some(vec![pod::service_port(port.0.to_owned(), port.1, "TCP")]),
        publish_not_ready_addresses: Some(true),
        ..ServiceSpec::default()
    };
    let clients = ServiceSpec {
        type_: Some("ClusterIP".to_owned()),
        selector: select(Some(DATA)),
        ports: Some(vec![pod::service_port("http".to_owned(), STORE_PORT, "TCP")]),
        ..ServiceSpec::default()
    };
    let service = |name: String, spec| Service { metadata: owner.child(name, Component::Store), spec: Some(spec), status: None };
    [
        service(owner.siem.shared().store(), clients),
        service(owner.siem.store_nodes(), headless(select(None), ("http", STORE_PORT))),
        service(owner.siem.store_masters(), headless(select(Some(MASTER)), ("transport", TRANSPORT_PORT))),
    ]
}

/// What the pods of a set are made from in this release.
pub(crate) fn made_from(owner: &Owner, store: &Store, set: &Set) -> MadeFrom {
    let settings = config::settings(owner, store, set);
    MadeFrom { template: template(owner, store, set, &settings), settings }
}

/// A set of so many nodes. Pods of an older template stay until they are deleted one by one.
pub(crate) fn stateful_set(
    owner: &Owner,
    store: &Store,
    set: &Set,
    replicas: u16,
    settled: &Settled,
    cluster: Option<&str>,
) -> StatefulSet {
    let mut metadata = owner.child(owner.siem.shared().node_set(&set.spec.name), Component::Store);
    metadata.labels.get_or_insert_default().insert(NODE_SET.to_owned(), set.spec.name.clone());
    let cluster = cluster.map(|cluster| (super::CLUSTER.to_owned(), cluster.to_owned()));
    let security = (SECURITY.to_owned(), store.security.to_string());
    metadata.annotations = Some([note_roles(&set.spec.roles), security].into_iter().chain(cluster).collect());
    let pods = (owner.siem.store_nodes(), of_set(owner, &set.spec.name));
    server::stateful_set(metadata, replicas, pods, &set.volume, settled)
}

fn of_set(owner: &Owner, set: &str) -> LabelSelector {
    let mut selector = owner.pods(Component::Store);
    selector.match_labels.get_or_insert_default().insert(NODE_SET.to_owned(), set.to_owned());
    selector
}

fn template(owner: &Owner, store: &Store, set: &Set, settings: &str) -> PodTemplateSpec {
    let mut labels = owner.labels(Component::Store);
    labels.extend([
        (NODE_SET.to_owned(), set.spec.name.clone()),
        (MASTER.to_owned(), set.spec.may_be_master().to_string()),
        (DATA.to_owned(), set.spec.holds_data().to_string()),
    ]);
    let mut volumes = vec![
        files_of_config_map(owner.siem.shared().node_set(&set.spec.name)),
        pod::scratch("config", "64Mi"),
        pod::scratch("logs", "1Gi"),
        pod::scratch("tmp", "1Gi"),
    ];
    volumes.extend(store.security.then(|| certificates(owner)));
    let identity = (owner.siem.shared().store(), USER, of_set(owner, &set.spec.name));
    let spec = PodSpec {
        init_containers: Some(vec![lay_out(store, set)]),
        containers: vec![container(owner, store, set)],
        volumes: Some(volumes),
        ..PodSpec::default()
    };
    server::template(labels, settings, identity, spec)
}

fn lay_out(store: &Store, set: &Set) -> Container {
    Container {
        name: "configuration".to_owned(),
        image: Some(store.image.name.clone()),
        command: Some(["/bin/sh", "-ec", LAY_OUT].map(str::to_owned).into()),
        resources: Some(pod::resources(&set.spec.resources)),
        security_context: Some(pod::container_security()),
        volume_mounts: Some(vec![pod::mount("config", "/config"), pod::mount_to_read("settings", "/settings")]),
        ..Container::default()
    }
}

fn container(owner: &Owner, store: &Store, set: &Set) -> Container {
    Container {
        name: "elasticsearch".to_owned(),
        image: Some(store.image.name.clone()),
        env: Some(environment(owner, store, set)),
        ports: Some(vec![pod::port("http", STORE_PORT), pod::port("transport", TRANSPORT_PORT)]),
        readiness_probe: Some(Probe {
            tcp_socket: Some(TCPSocketAction { port: IntOrString::Int(i32::from(READINESS_PORT)), host: None }),
            period_seconds: Some(5),
            timeout_seconds: Some(3),
            failure_threshold: Some(3),
            ..Probe::default()
        }),
        resources: Some(pod::resources(&set.spec.resources)),
        security_context: Some(pod::container_security()),
        volume_mounts: Some(mounts(store)),
        ..Container::default()
    }
}

fn environment(owner: &Owner, store: &Store, set: &Set) -> Vec<EnvVar> {
    let from = |name: &str, source: EnvVarSource| EnvVar { name: name.to_owned(), value: None, value_from: Some(source) };
    let initial_masters = ConfigMapKeySelector {
        name: owner.siem.shared().node_set(&set.spec.name),
        key: INITIAL_MASTERS.to_owned(),
        // It is not there once the cluster is.
        optional: Some(true),
    };
    let mut all = vec![
        pod::env_of_pod("POD_NAME", "metadata.name"),
        pod::env_of_pod("POD_IP", "status.podIP"),
        from("cluster.initial_master_nodes", EnvVarSource { config_map_key_ref: Some(initial_masters), ..EnvVarSource::default() }),
    ];
    all.extend(set.spec.heap_bytes.map(|bytes| pod::env("ES_JAVA_OPTS", format!("-Xms{bytes} -Xmx{bytes}"))));
    if store.security {
        let password = SecretKeySelector { name: owner.siem.store_admin(), key: "password".to_owned(), optional: None };
        all.push(from("ELASTIC_PASSWORD", EnvVarSource { secret_key_ref: Some(password), ..EnvVarSource::default() }));
    }
    all
}

fn mounts(store: &Store) -> Vec<VolumeMount> {
    let inside = |folder: &str| format!("{}/{folder}", config::HOME);
    let mut all = vec![
        pod::mount("data", &inside("data")),
        pod::mount("config", &inside("config")),
        pod::mount("logs", &inside("logs")),
        pod::mount("tmp", "/tmp"),
    ];
    all.extend(store.security.then(|| pod::mount_to_read("certificates", &inside("config/certs"))));
    all
}

fn files_of_config_map(name: String) -> Volume {
    let items = server::files(&[(SETTINGS, SETTINGS)]);
    let source = ConfigMapVolumeSource { name, items, default_mode: Some(0o444), optional: None };
    Volume { name: "settings".to_owned(), config_map: Some(source), ..Volume::default() }
}

fn certificates(owner: &Owner) -> Volume {
    let sources = vec![
        server::secret(owner.siem.store_certificate(), &[("tls.crt", "tls.crt"), ("tls.key", "tls.key")]),
        server::secret(owner.siem.shared().authority(), &[(CA_KEY, CA_KEY)]),
    ];
    server::projected("certificates", sources)
}
