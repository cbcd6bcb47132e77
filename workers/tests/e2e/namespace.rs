//! Roles whose resources are those of a namespace: the real API server, real Secrets, and the roles' processes beside the cluster.

use std::{
    fs,
    time::{Duration, Instant},
};

use redoubt::store::{Family, SearchRequest, Store, elasticsearch::ElasticsearchStore};
use serde_json::{Value, json};

use crate::{
    cluster::Namespace,
    external::{elasticsearch_beside_rabbitmq, reader, siem_on},
    harness::{Siem, repository},
    servers::{authority::Authority, elasticsearch as search_server, proxy::Proxy, rabbitmq},
};

/// Roles and the ports of their pages of health.
const ROLES: [(&str, u16); 4] = [("process", 8081), ("correlate", 8082), ("respond", 8083), ("ingest", 8084)];
pub const PROCESS: u16 = 8081;
const CORRELATE: u16 = 8082;
const INGEST: u16 = 8084;
/// The most that a change may take to be live.
pub const LIVE: Duration = Duration::from_secs(5);

const SOURCE: &str = "
apiVersion: redoubt.dev/v1alpha1
kind: LogSource
metadata: {name: app}
spec:
  http: {auth: {bearer: {name: tokens, key: app}}}
  logsource: {product: paint}
";

fn rule(colour: &str, condition: &str) -> String {
    format!(
        "
apiVersion: redoubt.dev/v1alpha1
kind: AlertRule
metadata: {{name: colour}}
spec:
  sigma:
    title: A colour
    logsource: {{product: paint}}
    detection: {{colour: {{colour: {colour}}}, condition: {condition}}}
"
    )
}

impl Siem {
    pub async fn page(&self, port: u16, path: &str) -> Option<(u16, String)> {
        let answer = reqwest::get(format!("http://{}:{port}{path}", self.address)).await.ok()?;
        Some((answer.status().as_u16(), answer.text().await.ok()?))
    }

    /// What a process says that it runs of a kind.
    pub async fn programmed(&self, port: u16, kind: &str) -> Value {
        let (_, text) = self.page(port, "/programmed").await.unwrap();
        let said: Value = serde_json::from_str(&text).unwrap();
        if kind == "Siem" { said["siem"].clone() } else { said["resources"][kind].clone() }
    }

    /// Waits until all given processes run this generation of a resource. Gives the time that it took.
    pub async fn until_programmed(&self, ports: &[u16], kind: &str, name: &str, generation: i64) -> Duration {
        let started = Instant::now();
        for port in ports {
            self.until(&format!("{port} runs {kind}/{name} of generation {generation}"), async || {
                self.programmed(*port, kind).await[name] == generation
            })
            .await;
        }
        started.elapsed()
    }

    pub async fn until_waiting_for(&self, port: u16, text: &str) {
        self.until(&format!("{port} says that it waits for {text:?}"), async || {
            self.page(port, "/readyz").await.is_some_and(|(status, said)| status == 503 && said.contains(text))
        })
        .await;
    }
}

/// Who sends events to a listener that shows a certificate of the tests' authority.
struct Sender {
    client: reqwest::Client,
}

impl Sender {
    fn new(siem: &Siem, authority: &Authority) -> Self {
        let root = reqwest::Certificate::from_pem(authority.pem().as_bytes()).unwrap();
        let client = reqwest::Client::builder().add_root_certificate(root).resolve("ingest.test", (siem.address, 8080).into());
        Self { client: client.build().unwrap() }
    }

    /// The status of the answer; 0 where there is none.
    async fn send(&self, token: &str, colour: &str) -> u16 {
        let url = "https://ingest.test:8080/v1/sources/app";
        let sent = self.client.post(url).bearer_auth(token).body(format!(r#"{{"colour": "{colour}"}}"#)).send().await;
        sent.map_or(0, |answer| answer.status().as_u16())
    }
}

async fn alerts(store: &ElasticsearchStore) -> u64 {
    store.refresh().await.unwrap();
    store.search(Family::Alerts, SearchRequest::default()).await.unwrap().total
}

/// The Secrets without which no role of these tests starts, and the authority behind the listener's certificate.
pub async fn write_secrets(namespace: &Namespace) -> Authority {
    let authority = Authority::new();
    let (certificate, key) = authority.issue("ingest.test");
    namespace.write_secret("soc-ingest-tls", &[("tls.crt", &certificate), ("tls.key", &key)]).await;
    namespace.write_secret("rabbitmq", &[("username", "guest"), ("password", "guest")]).await;
    authority
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_roles_of_a_namespace_start_when_they_can_and_follow_what_changes() {
    let Some(namespace) = Namespace::new().await else { return };
    let Some(elasticsearch) = elasticsearch_beside_rabbitmq() else { return };
    let prefix = search_server::unique_prefix();
    let mut siem = Siem::of_namespace(&namespace.name, &namespace.kubeconfig);
    let ports = ROLES.map(|(_, port)| port);

    // What is missing is named, and once it is there, they go on.
    for (role, port) in ROLES {
        siem.start_role(role, Some(port));
        siem.until_waiting_for(port, "has no Siem").await;
    }
    namespace.apply(&siem_on(&prefix, &[&rabbitmq::shared().url("a")], elasticsearch)).await;
    for port in ports {
        siem.until_waiting_for(port, "Secret rabbitmq is not there").await;
    }
    let authority = write_secrets(&namespace).await;
    namespace.write_secret("tokens", &[("app", "old")]).await;
    for port in ports {
        siem.until_ready(port).await;
    }
    let sender = Sender::new(&siem, &authority);
    let store = reader(&prefix, elasticsearch).await;

    // A source and a rule become live, and raise an alert.
    namespace.apply(SOURCE).await;
    let good = namespace.apply(&rule("red", "colour")).await;
    let with_rules = [PROCESS, CORRELATE];
    let took = siem.until_programmed(&with_rules, "AlertRule", "colour", 1).await;
    assert_eq!(siem.programmed(INGEST, "AlertRule").await, json!({}), "who takes events in need not know what is looked for");
    assert!(took < LIVE, "{took:?}");
    siem.until("events are taken", async || sender.send("old", "red").await == 202).await;
    siem.until("red raises an alert", async || alerts(&store).await == 1).await;

    // A changed one takes its place.
    let good = {
        assert_eq!(good.metadata.generation, Some(1));
        namespace.apply(&rule("green", "colour")).await
    };
    let took = siem.until_programmed(&with_rules, "AlertRule", "colour", 2).await;
    eprintln!("a changed rule is live after {took:?}");
    assert!(took < LIVE, "{took:?}");
    assert_eq!((sender.send("old", "red").await, sender.send("old", "green").await), (202, 202));
    siem.until("green raises an alert", async || alerts(&store).await == 2).await;

    // A bad one does not: the last good one goes on, also in a process that has never seen it.
    namespace.apply(&rule("blue", "oops")).await;
    siem.until_logged("AlertRule/colour:").await;
    let log = siem.log();
    assert!(log.contains("AlertRule/colour:13:18: AlertRule/colour: spec.sigma.detection.condition: "), "{log}");
    namespace.write_last_good(&good).await;
    siem.kill_role("process");
    siem.start_role("process", Some(PROCESS));
    siem.until_ready(PROCESS).await;
    for port in with_rules {
        assert_eq!(siem.programmed(port, "AlertRule").await, json!({"colour": 2}), "{port}");
    }
    assert_eq!((sender.send("old", "blue").await, sender.send("old", "green").await), (202, 202));
    siem.until("green raises an alert again", async || alerts(&store).await == 3).await;

    // A rotated token counts.
    namespace.write_secret("tokens", &[("app", "new")]).await;
    let started = Instant::now();
    siem.until("the new token is taken", async || sender.send("new", "red").await == 202).await;
    eprintln!("a rotated token is taken after {:?}", started.elapsed());
    assert_eq!(sender.send("old", "red").await, 401);

    // Each role has the Secrets that it has to do with, as long as it has to do with them.
    let copies = |role: &str| {
        let names = fs::read_dir(siem.path("data").join(role).join("secrets")).unwrap().map(|entry| entry.unwrap().file_name());
        names.map(|name| name.into_string().unwrap()).filter(|name| !name.starts_with('.')).collect::<Vec<_>>()
    };
    assert_eq!(copies("process"), ["rabbitmq"]);
    assert_eq!(copies("ingest").len(), 3);
    namespace.delete_secret("tokens").await;
    siem.until("a deleted Secret has no file", async || copies("ingest").len() == 2).await;
    siem.until("its token opens nothing", async || sender.send("new", "red").await != 202).await;
    namespace.write_secret("tokens", &[("app", "new")]).await;
    siem.until("a Secret that is made anew is taken", async || sender.send("new", "red").await == 202).await;
    namespace.delete("LogSource", "app").await;
    siem.until("a Secret that nothing refers to has no file", async || copies("ingest").len() == 2).await;
    assert_eq!(siem.programmed(INGEST, "LogSource").await, json!({}));

    // The Siem is gone, and the listener stays what it was.
    namespace.delete("Siem", "soc").await;
    siem.until_logged("its last version goes on").await;
    for port in ports {
        assert_eq!(siem.programmed(port, "Siem").await, 1, "{port}");
    }
    assert_eq!(sender.send("new", "red").await, 401, "over TLS still, and no source of the name is known");
    siem.stop();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_api_that_is_away_stops_no_role() {
    let Some(namespace) = Namespace::new().await else { return };
    let Some(elasticsearch) = elasticsearch_beside_rabbitmq() else { return };
    let prefix = search_server::unique_prefix();
    let authority = write_secrets(&namespace).await;
    namespace.write_secret("tokens", &[("app", "token")]).await;
    namespace.apply(&siem_on(&prefix, &[&rabbitmq::shared().url("a")], elasticsearch)).await;
    namespace.apply(SOURCE).await;
    let api = Proxy::to(namespace.address()).await;
    api.cut().await;
    let folder = tempfile::tempdir().unwrap();
    let kubeconfig = namespace.kubeconfig_by_way_of(&api.address().to_string(), folder.path());
    let mut siem = Siem::of_namespace(&namespace.name, &kubeconfig);

    // Away at the start.
    for (role, port) in [("process", PROCESS), ("ingest", INGEST)] {
        siem.start_role(role, Some(port));
        siem.until_waiting_for(port, "cannot be listed").await;
        assert_eq!(siem.page(port, "/healthz").await.unwrap().0, 200);
    }
    api.heal();
    siem.until_ready(PROCESS).await;
    siem.until_ready(INGEST).await;
    let sender = Sender::new(&siem, &authority);
    siem.until("events are taken", async || sender.send("token", "red").await == 202).await;

    // Away later: everything goes on, and what changed meanwhile is live soon after.
    api.cut().await;
    siem.until_logged("cannot be followed; what is known stands").await;
    let changed = namespace.apply(&rule("green", "colour")).await;
    namespace.write_secret("tokens", &[("app", "another")]).await;
    assert_eq!(sender.send("token", "red").await, 202);
    assert_eq!(siem.page(PROCESS, "/readyz").await.unwrap().0, 200);
    assert_eq!(siem.programmed(PROCESS, "AlertRule").await, json!({}));
    assert!(siem.metric_at(PROCESS, "redoubt_watch_failures_total", "").await > 0.0);
    api.heal();
    let took = siem.until_programmed(&[PROCESS], "AlertRule", "colour", changed.metadata.generation.unwrap()).await;
    eprintln!("live {took:?} after the API is back");
    siem.until("the new token is taken", async || sender.send("another", "red").await == 202).await;

    // A connection that is dead and does not say so.
    api.silence();
    assert_eq!(sender.send("another", "red").await, 202);
    assert_eq!(siem.page(INGEST, "/readyz").await.unwrap().0, 200);
    api.heal();
    siem.stop();
}

#[tokio::test]
async fn a_role_that_waits_can_be_stopped() {
    let Some(namespace) = Namespace::new().await else { return };
    let mut siem = Siem::of_namespace(&namespace.name, &namespace.kubeconfig);
    siem.start_role("process", Some(PROCESS));
    siem.until_waiting_for(PROCESS, "has no Siem").await;

    siem.stop();
}

/// The rules of the manual's page, with the Secrets named that these are about.
fn documented_rights(secrets: &[&str]) -> Value {
    let page = fs::read_to_string(repository("docs/kubernetes.md")).unwrap();
    let chapter = page.split_once("### Rights").unwrap().1;
    let block = chapter.split_once("```yaml").unwrap().1.split_once("```").unwrap().0;
    let mut rules: Value = serde_yaml::from_str(block).unwrap();
    let of_secrets = rules.as_array_mut().unwrap().iter_mut().find(|rule| rule["resources"] == json!(["secrets"])).unwrap();
    of_secrets["resourceNames"] = json!(secrets);
    rules
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_rights_that_the_manual_names_are_enough() {
    let Some(namespace) = Namespace::new().await else { return };
    let Some(elasticsearch) = elasticsearch_beside_rabbitmq() else { return };
    write_secrets(&namespace).await;
    namespace.apply(&siem_on(&search_server::unique_prefix(), &[&rabbitmq::shared().url("a")], elasticsearch)).await;
    namespace.apply(SOURCE).await;
    let folder = tempfile::tempdir().unwrap();
    let kubeconfig = namespace.kubeconfig_with_rights(&documented_rights(&["soc-ingest-tls"]), folder.path()).await;
    let mut siem = Siem::of_namespace(&namespace.name, &kubeconfig);

    siem.start_role("ingest", Some(INGEST));
    siem.until_waiting_for(INGEST, "Secret rabbitmq cannot be read: secrets \"rabbitmq\" is forbidden").await;
    // The operator gives the right a moment after somebody has named the Secret.
    namespace.give_rights(&documented_rights(&["soc-ingest-tls", "rabbitmq"])).await;

    siem.until_ready(INGEST).await;
    siem.stop();
}
