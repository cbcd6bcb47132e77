//! A message that no process can read: set aside with its reason, and looked at, replayed and dropped by `redoubt dlq`.

use std::process::Command;

use redoubt::{
    broker::{
        Broker as _, Topic,
        rabbitmq::{Bounds, RabbitMq},
    },
    secrets::Secrets,
};
use redoubt_crds::ExternalBroker;
use serde_json::{Value, json};

use crate::{
    harness::{JSON_SOURCE, Siem},
    servers::{elasticsearch, rabbitmq},
};

/// What `redoubt dlq` prints when it succeeds.
fn dlq(siem: &Siem, arguments: &[&str]) -> String {
    let mut redoubt = Command::new(env!("CARGO_BIN_EXE_redoubt"));
    redoubt.arg("dlq").args(arguments).arg("-f").arg(siem.path("resources")).arg("--data").arg(siem.path("data"));
    let done = redoubt.output().unwrap();
    assert!(done.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&done.stderr));
    String::from_utf8(done.stdout).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_message_that_cannot_be_read_is_set_aside_shown_replayed_and_dropped() {
    if !rabbitmq::available() {
        return;
    }
    let spec: ExternalBroker = serde_json::from_value(json!({
        "urls": [rabbitmq::shared().url("a")],
        "credentialsSecretRef": {"name": "rabbitmq"},
        "prefix": elasticsearch::unique_prefix(),
    }))
    .unwrap();
    let resource = json!({
        "apiVersion": "redoubt.dev/v1alpha1", "kind": "Siem", "metadata": {"name": "soc"},
        "spec": {"broker": {"external": spec, "deliveryLimit": 3}},
    });
    let mut siem = Siem::new(&[("source.yaml", JSON_SOURCE), ("siem.yaml", &resource.to_string())]);
    siem.write_rabbitmq_login();
    siem.start_ready().await;
    let bounds = Bounds { max_bytes: 1 << 30, delivery_limit: 3 };
    let neighbour = RabbitMq::new(&spec, bounds, Secrets::new(siem.path("data/secrets")), "a neighbour of another version");

    neighbour.publish(Topic::Events, vec![b"no batch".to_vec()]).await.unwrap();
    let dead = async || siem.metric("redoubt_dead_messages", "").await;
    siem.until("it is set aside", async || dead().await == 1.0).await;

    let listed: Value = serde_json::from_str(&dlq(&siem, &["list", "--json"])).unwrap();
    let id = listed["id"].as_str().unwrap();
    assert_eq!((&listed["topic"], &listed["subscription"], &listed["bytes"]), (&json!("events"), &json!("process"), &json!(8)));
    assert!(listed["reason"].as_str().unwrap().contains("not a batch"), "{listed}");
    assert_eq!(dlq(&siem, &["show", id, "--raw"]), "no batch");

    dlq(&siem, &["replay", id]);
    siem.until("it is set aside again", async || {
        let log = siem.log();
        log.matches("a message was set aside").count() == 2
    })
    .await;
    dlq(&siem, &["drop", "--all"]);
    siem.until("none is kept", async || dead().await == 0.0).await;
    assert_eq!(dlq(&siem, &["list", "--json"]), "");

    neighbour.close().await;
    siem.stop();
}
