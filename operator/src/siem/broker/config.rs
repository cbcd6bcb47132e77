//! `rabbitmq.conf`: what the operator sets, unless the Siem says otherwise.

use std::{collections::BTreeSet, fmt::Write as _};

use redoubt_crds::in_cluster::BROKER_PORT;

use super::{MANAGEMENT_PORT, METRICS_PORT};
use crate::siem::{owner::Owner, quantity, validate::Broker};

/// Where a node finds its configuration.
pub(super) const FOLDER: &str = "/etc/rabbitmq";

/// The plugins that are on.
pub(crate) const PLUGINS: &str = "[rabbitmq_management,rabbitmq_prometheus].\n";

/// Settings that a node reads at its start. A change of them restarts it.
pub(crate) fn settings(owner: &Owner, broker: &Broker) -> String {
    let tls = format!("{FOLDER}/tls");
    let listener = |prefix: &str| {
        [
            (format!("{prefix}.cacertfile"), format!("{tls}/ca.crt")),
            (format!("{prefix}.certfile"), format!("{tls}/tls.crt")),
            (format!("{prefix}.keyfile"), format!("{tls}/tls.key")),
        ]
    };
    let mut lines: Vec<(String, String)> = Vec::new();
    let mut set = |key: &str, value: String| lines.push((key.to_owned(), value));
    set("cluster_name", format!("{}/{}", owner.namespace, owner.siem.as_str()));
    set("listeners.tcp", "none".to_owned());
    set("listeners.ssl.default", BROKER_PORT.to_string());
    set("ssl_options.versions.1", "tlsv1.3".to_owned());
    set("ssl_options.versions.2", "tlsv1.2".to_owned());
    set("ssl_options.verify", "verify_none".to_owned());
    set("ssl_options.fail_if_no_peer_cert", "false".to_owned());
    set("management.ssl.port", MANAGEMENT_PORT.to_string());
    set("prometheus.ssl.port", METRICS_PORT.to_string());
    set("load_definitions", format!("{FOLDER}/definitions.json"));
    set("log.file", "false".to_owned());
    set("log.console", "true".to_owned());
    set("log.console.level", "info".to_owned());
    set("cluster_partition_handling", "pause_minority".to_owned());
    set("queue_leader_locator", "balanced".to_owned());
    // As much free as there is memory: what is in memory must find room when it is written out.
    set("disk_free_limit.relative", "1.0".to_owned());
    set("vm_memory_high_watermark.relative", "0.6".to_owned());
    // The machine's memory is not the container's.
    if let Some(bytes) = broker.resources.limits.get("memory").and_then(|memory| quantity::bytes(&memory.0)) {
        set("total_memory_available_override_value", bytes.to_string());
    }
    lines.extend(["ssl_options", "management.ssl", "prometheus.ssl"].into_iter().flat_map(listener));

    let theirs: BTreeSet<&str> = broker.config.lines().filter_map(key_of).collect();
    let mut text = String::new();
    for (key, value) in lines.iter().filter(|(key, _)| !theirs.contains(key.as_str())) {
        // Writing to a text cannot fail.
        let _ = writeln!(text, "{key} = {value}");
    }
    text.push_str(&broker.config);
    if !text.ends_with('\n') {
        text.push('\n');
    }
    text
}

/// The nodes that an empty one looks for. Those that are in a cluster already do not look, so a change needs no restart.
pub(crate) fn peers(owner: &Owner, replicas: u16) -> String {
    let mut text = "cluster_formation.peer_discovery_backend = classic_config\n".to_owned();
    for ordinal in 0..replicas {
        let _ = writeln!(text, "cluster_formation.classic_config.nodes.{} = {}", ordinal + 1, node(owner, ordinal));
    }
    text
}

/// The name of a node.
pub(crate) fn node(owner: &Owner, ordinal: u16) -> String {
    let names = owner.siem.shared();
    format!("rabbit@{}-{ordinal}.{}.{}.svc", names.broker(), owner.siem.broker_nodes(), owner.namespace)
}

fn key_of(line: &str) -> Option<&str> {
    let (key, _) = line.split_once('=')?;
    let key = key.trim();
    (!key.starts_with('#') && !key.is_empty()).then_some(key)
}
