//! The SIEM on servers that speak TLS alone and ask for certificates, as it shows its own and trusts one authority.

use std::{fs, process::Command};

use redoubt::store::{Family, SearchRequest, Store};
use serde_json::json;

use crate::{
    attack::{EVENTS, play, quickstart},
    external::{elasticsearch_beside_rabbitmq, reader},
    harness::{JSON_SOURCE, Siem},
    servers::{authority::Authority, elasticsearch as search_server, rabbitmq::Nodes, tls_front::tls_front},
};

/// A Siem resource on a RabbitMQ and an Elasticsearch that both are met over TLS.
fn siem_over_tls(prefix: &str, rabbitmq: &str, elasticsearch: &str) -> String {
    let tls = json!({"caSecretRef": {"name": "trusted", "key": "ca.crt"}, "clientCertificateSecretRef": {"name": "own"}});
    let broker = json!({"urls": [rabbitmq], "credentialsSecretRef": {"name": "rabbitmq"}, "prefix": prefix, "tls": tls});
    let store = json!({"urls": [elasticsearch], "prefix": prefix, "replicas": 0, "tls": tls});
    let spec = json!({"broker": {"external": broker}, "store": {"external": store}});
    json!({"apiVersion": "redoubt.dev/v1alpha1", "kind": "Siem", "metadata": {"name": "soc"}, "spec": spec}).to_string()
}

/// What `redoubt dlq list` says of the RabbitMQ, and `redoubt search` of the Elasticsearch, where they fail.
fn complaints(siem: &Siem) -> [String; 2] {
    [["dlq", "list"].as_slice(), &["search", "*"]].map(|command| {
        let mut redoubt = Command::new(env!("CARGO_BIN_EXE_redoubt"));
        redoubt.args(command).arg("-f").arg(siem.path("resources")).arg("--data").arg(siem.path("data"));
        let done = redoubt.output().unwrap();
        assert!(!done.status.success(), "{command:?} must fail");
        String::from_utf8(done.stderr).unwrap()
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_attack_raises_its_alerts_over_tls_with_certificates_of_both_sides() {
    let Some(elasticsearch) = elasticsearch_beside_rabbitmq() else { return };
    let authority = Authority::new();
    let nodes = Nodes::start_with_tls(&["a"], &authority);
    let mut siem = quickstart();
    authority.equip(&siem.path("front"), "localhost");
    let front = tls_front(&siem.path("front"), elasticsearch.trim_start_matches("http://").to_owned()).await;
    let prefix = search_server::unique_prefix();
    siem.write("siem.yaml", &siem_over_tls(&prefix, &nodes.tls_url("a"), &format!("https://localhost:{}", front.port())));
    siem.write_rabbitmq_login();
    authority.equip(&siem.path("data/secrets/own"), "redoubt");
    authority.equip(&siem.path("data/secrets/trusted"), "unused");

    siem.start_ready().await;
    play(&siem);
    let store = reader(&prefix, elasticsearch).await;
    let count = async |family| {
        store.refresh().await.unwrap();
        store.search(family, SearchRequest::default()).await.unwrap().total
    };
    siem.until("all events are in Elasticsearch", async || count(Family::Events).await == EVENTS).await;
    siem.until("all alerts are in Elasticsearch", async || count(Family::Alerts).await == 4).await;
    siem.stop();

    // No certificate, then one of an authority that the servers do not know, and servers that this side does not know.
    fs::rename(siem.path("data/secrets/own"), siem.path("data/secrets/put-away")).unwrap();
    for said in complaints(&siem) {
        assert!(said.contains("own"), "names the Secret that is not there: {said}");
    }
    let stranger = Authority::new();
    stranger.equip(&siem.path("data/secrets/own"), "redoubt");
    complaints(&siem);
    fs::remove_dir_all(siem.path("data/secrets/own")).unwrap();
    fs::rename(siem.path("data/secrets/put-away"), siem.path("data/secrets/own")).unwrap();
    stranger.equip(&siem.path("data/secrets/trusted"), "unused");
    for said in complaints(&siem) {
        assert!(said.to_lowercase().contains("certificate"), "names what is not trusted: {said}");
    }
}

#[tokio::test]
async fn events_are_sent_over_tls_to_a_listener_whose_authority_is_named() {
    let siem_resource = json!({
        "apiVersion": "redoubt.dev/v1alpha1", "kind": "Siem", "metadata": {"name": "soc"}, "spec": {"ingest": {"tls": {"name": "listener"}}}
    });
    let mut siem = Siem::new(&[("source.yaml", JSON_SOURCE), ("siem.yaml", &siem_resource.to_string())]);
    let authority = Authority::new();
    authority.equip(&siem.path("data/secrets/listener"), &siem.address.to_string());
    // There, it would have the listener ask senders for certificates.
    fs::rename(siem.path("data/secrets/listener/ca.crt"), siem.path("ca.crt")).unwrap();
    fs::write(siem.path("event.json"), r#"{"message": "hello"}"#).unwrap();
    siem.start();

    let sent = Command::new(env!("CARGO_BIN_EXE_redoubt"))
        .args(["send", "--source", "app", "--to", &format!("https://{}:8080", siem.address), "--ca-file"])
        .args([siem.path("ca.crt"), "--token-file".into(), siem.path("data/secrets/ingest/token"), siem.path("event.json")])
        .output()
        .unwrap();

    assert!(sent.status.success(), "{}\n{}", String::from_utf8_lossy(&sent.stderr), siem.log());
    siem.until("the event is in the store", async || siem.count(Family::Events, "message:hello").await == 1).await;
    siem.stop();
}
