//! Resources that change while the SIEM runs.

use redoubt::store::Family;

use crate::harness::{JSON_SOURCE, Siem};

fn rule(colour: &str) -> String {
    format!(
        "
apiVersion: redoubt.dev/v1alpha1
kind: AlertRule
metadata: {{name: colour}}
spec:
  sigma:
    title: A colour
    logsource: {{product: paint}}
    detection: {{colour: {{colour: {colour}}}, condition: colour}}
"
    )
}

fn source() -> String {
    format!("{JSON_SOURCE}  logsource: {{product: paint}}\n")
}

async fn send(siem: &Siem, colour: &str) {
    let status = siem.post(&reqwest::Client::new(), "app", format!(r#"{{"colour": "{colour}"}}"#)).await;
    assert_eq!(status, 202, "{}", siem.log());
}

#[tokio::test]
async fn a_changed_rule_is_live_and_a_broken_one_keeps_its_last_good_version() {
    let mut siem = Siem::new(&[("source.yaml", &source()), ("rule.yaml", &rule("red"))]);
    siem.start_ready().await;
    send(&siem, "red").await;
    siem.until("red raises an alert", async || siem.count(Family::Alerts, "").await == 1).await;

    siem.write("rule.yaml", &rule("green"));
    siem.until_logged("resources reloaded").await;
    send(&siem, "green").await;
    siem.until("green raises an alert", async || siem.count(Family::Alerts, "").await == 2).await;

    siem.write("rule.yaml", "kind: [not yaml");
    siem.until_logged("not readable as YAML").await;
    send(&siem, "green").await;
    siem.until("green still raises alerts", async || siem.count(Family::Alerts, "").await == 3).await;

    siem.write("rule.yaml", &rule("green").replace("spec:", "spec:\n  severity: enormous"));
    siem.until_logged("rule.yaml:6:").await;
    send(&siem, "green").await;
    siem.until("green raises alerts yet", async || siem.count(Family::Alerts, "").await == 4).await;
    siem.stop();
}

#[tokio::test]
async fn a_bad_resource_is_named_with_its_place_and_all_others_run() {
    let bad = "apiVersion: redoubt.dev/v1alpha1\nkind: Enrichment\nmetadata: {name: bad}\nspec:\n  vrl:\n    source: |\n      .a = 1\n      .b = nonsense(\n";
    let mut siem = Siem::new(&[("source.yaml", &source()), ("rule.yaml", &rule("red")), ("bad.yaml", bad)]);

    siem.start_ready().await;
    send(&siem, "red").await;

    siem.until("the alert is raised", async || siem.count(Family::Alerts, "").await == 1).await;
    let log = siem.log();
    assert!(log.contains("bad.yaml:8:") || log.contains("bad.yaml:9:"), "{log}");
    assert!(log.contains("Enrichment/bad"), "{log}");
    siem.stop();
}

#[tokio::test]
async fn a_setting_that_waits_for_the_next_start_is_named() {
    let resource = |partitions: u16| {
        format!("apiVersion: redoubt.dev/v1alpha1\nkind: Siem\nmetadata: {{name: soc}}\nspec:\n  correlate: {{partitions: {partitions}}}\n")
    };
    let mut siem = Siem::new(&[("source.yaml", &source()), ("siem.yaml", &resource(2))]);
    siem.start_ready().await;

    siem.write("siem.yaml", &resource(3));

    siem.until_logged("it takes effect with the next start").await;
    assert!(siem.log().contains("spec.correlate"), "{}", siem.log());
    siem.stop();
}
