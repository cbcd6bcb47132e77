//! At rest nothing is written, nor by an operator that starts and finds everything as it should be.

use std::time::Duration;

use serde_json::json;

use crate::{namespace::Namespace, operator::Operator};

/// How long the rest is watched; `REDOUBT_TEST_REST_SECONDS` asks for longer.
fn rest() -> Duration {
    Duration::from_secs(std::env::var("REDOUBT_TEST_REST_SECONDS").ok().and_then(|text| text.parse().ok()).unwrap_or(20))
}

#[tokio::test]
async fn nothing_is_written_at_rest() {
    let Some(namespace) = Namespace::new("rest").await else { return };
    let kubeconfig = namespace.account("operator", false).await;
    let operator = Operator::start(&kubeconfig, &["--namespaces", &namespace.name]).await;
    let sigma = |condition: &str| json!({"sigma": {"title": "t", "logsource": {"product": "p"}, "detection": {"s": {"a": 1}, "condition": condition}}});
    namespace.resource("LogSource", "web", json!({"syslog": {"udpPort": 514}})).await;
    namespace.resource("AlertRule", "good", sigma("s")).await;
    namespace.resource("AlertRule", "bad", sigma("s")).await;
    namespace.until("AlertRule", "bad", "Accepted", "True").await;
    namespace.resource("AlertRule", "bad", sigma("not")).await;
    namespace.until("AlertRule", "bad", "Ready", "False LastGoodVersion").await;
    namespace.until("AlertRule", "good", "Ready", "Unknown NoWorkers").await;
    namespace.until("LogSource", "web", "Ready", "Unknown NoWorkers").await;

    let before = namespace.writes_by("operator").len();
    assert!(before >= 5, "the audit log has {before} writes of the operator; is it the right log?");
    tokio::time::sleep(rest()).await;
    drop(operator);
    let operator = Operator::start(&kubeconfig, &["--namespaces", &namespace.name]).await;
    tokio::time::sleep(rest()).await;

    let after = namespace.writes_by("operator");
    assert_eq!(after.len(), before, "{:#?}", &after[before..]);
    assert_eq!(operator.metric("redoubt_operator_judged_total", "AlertRule").await, 2.0, "it did look at them");
}
