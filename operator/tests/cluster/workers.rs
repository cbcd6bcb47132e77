//! Whether workers run a resource, by their own word. The workers here are pods that say what a ConfigMap tells them to say.

use serde_json::{Value, json};

use crate::{namespace::Namespace, operator::Operator};

/// A pod that plays a role, and says that it runs this.
async fn worker(namespace: &Namespace, name: &str, role: &str, programmed: Value) {
    let body = json!({"siem": null, "resources": programmed, "digest": name}).to_string();
    namespace.put(json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": {"programmed": body}})).await;
    let labels = json!({
        "app.kubernetes.io/name": "redoubt",
        "app.kubernetes.io/managed-by": "redoubt-operator",
        "app.kubernetes.io/component": role,
    });
    namespace
        .put(json!({
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": name, "labels": labels},
            "spec": {
                "terminationGracePeriodSeconds": 0,
                "containers": [{
                    "name": "worker",
                    "image": "redoubt.test/busybox:1",
                    "command": ["busybox", "httpd", "-f", "-p", "8081", "-h", "/says"],
                    "volumeMounts": [{"name": "says", "mountPath": "/says"}],
                    "readinessProbe": {"tcpSocket": {"port": 8081}, "periodSeconds": 1},
                }],
                "volumes": [{"name": "says", "configMap": {"name": name}}],
            },
        }))
        .await;
}

#[tokio::test]
async fn a_resource_is_ready_when_all_workers_that_need_it_run_it() {
    let Some(namespace) = Namespace::new("workers").await else { return };
    let _operator = Operator::in_namespace(&namespace).await;
    let sigma = json!({"sigma": {"title": "t", "logsource": {"product": "p"}, "detection": {"s": {"a": 1}, "condition": "s"}}});
    namespace.resource("AlertRule", "r", sigma.clone()).await;
    namespace.resource("AlertRule", "partly", sigma).await;
    namespace.until("AlertRule", "r", "Ready", "Unknown NoWorkers").await;

    worker(&namespace, "process-0", "process", json!({"AlertRule": {"r": 1, "partly": 1}})).await;
    worker(&namespace, "correlate-0", "correlate", json!({"AlertRule": {"r": 1}})).await;
    worker(&namespace, "respond-0", "respond", json!({})).await;

    namespace.until("AlertRule", "r", "Ready", "True Programmed: programmed in 2 of 2 workers").await;
    namespace.until("AlertRule", "partly", "Ready", "False Programming: programmed in 1 of 2 workers").await;
}
