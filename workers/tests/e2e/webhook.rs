//! Webhooks: called once an alert, signed, tried again, across a kill.

use std::sync::{
    Arc, Mutex,
    atomic::{AtomicUsize, Ordering},
};

use axum::{Router, extract::State, http::HeaderMap, http::StatusCode, routing::post};
use redoubt::store::Family;

use crate::harness::{JSON_SOURCE, Siem};

/// A receiver that refuses the first calls, and then notes each call's `webhook-id` and body.
#[derive(Clone, Default)]
struct Receiver {
    refusals: Arc<AtomicUsize>,
    calls: Arc<Mutex<Vec<(String, String, bool)>>>,
}

async fn receive(State(receiver): State<Receiver>, headers: HeaderMap, body: String) -> StatusCode {
    if receiver.refusals.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1)).is_ok() {
        return StatusCode::SERVICE_UNAVAILABLE;
    }
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default().to_owned();
    receiver.calls.lock().unwrap().push((text("webhook-id"), body, text("webhook-signature").starts_with("v1,")));
    StatusCode::NO_CONTENT
}

async fn serve(receiver: Receiver) -> String {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let router = Router::new().route("/hook", post(receive)).with_state(receiver);
    tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
    format!("http://{address}/hook")
}

fn resources(url: &str, dry_run: bool) -> String {
    format!(
        r#"{JSON_SOURCE}  logsource: {{product: test}}
---
apiVersion: redoubt.dev/v1alpha1
kind: AlertRule
metadata: {{name: any}}
spec:
  severity: high
  sigma:
    title: Any event
    logsource: {{product: test}}
    detection: {{numbered: {{n: '*'}}, condition: numbered}}
---
apiVersion: redoubt.dev/v1alpha1
kind: ResponseAction
metadata: {{name: call}}
spec:
  dryRun: {dry_run}
  webhook:
    url: {url}
    signingSecretRef: {{name: hook, key: signing}}
    body: '{{"rule": {{{{ alert.rule.name | tojson }}}}}}'
"#
    )
}

fn siem(url: &str, dry_run: bool) -> Siem {
    let siem = Siem::new(&[("all.yaml", &resources(url, dry_run))]);
    std::fs::create_dir_all(siem.path("data/secrets/hook")).unwrap();
    std::fs::write(siem.path("data/secrets/hook/signing"), "whsec_c2VjcmV0").unwrap();
    siem
}

async fn send(siem: &Siem, number: usize) {
    let body = format!(r#"{{"event": {{"id": "e{number}"}}, "n": "{number}"}}"#);
    assert_eq!(siem.post(&reqwest::Client::new(), "app", body).await, 202);
}

#[tokio::test]
async fn a_webhook_is_called_once_an_alert_after_refusals_and_over_a_repetition() {
    let receiver = Receiver::default();
    receiver.refusals.store(2, Ordering::Relaxed);
    let mut siem = siem(&serve(receiver.clone()).await, false);
    siem.start_ready().await;

    send(&siem, 1).await;
    siem.until("the call came through", async || receiver.calls.lock().unwrap().len() == 1).await;
    siem.until("it is on record", async || siem.count(Family::Responses, "state:succeeded").await == 1).await;
    siem.stop();
    siem.start_ready().await;
    send(&siem, 1).await;
    send(&siem, 2).await;

    siem.until("the second alert's call came through", async || receiver.calls.lock().unwrap().len() == 2).await;
    siem.until_empty(8080, "alerts").await;
    let calls = receiver.calls.lock().unwrap().clone();
    assert_eq!(calls.len(), 2);
    assert_ne!(calls[0].0, calls[1].0);
    assert!(calls.iter().all(|(_, body, signed)| body == r#"{"rule": "any"}"# && *signed), "{calls:?}");
    siem.stop();
}

#[tokio::test]
async fn a_dry_run_calls_nobody_and_says_what_it_would_do() {
    let receiver = Receiver::default();
    let mut siem = siem(&serve(receiver.clone()).await, true);
    siem.start_ready().await;

    send(&siem, 1).await;

    siem.until_logged("dry run: this webhook would be called").await;
    siem.until("it is on record", async || siem.count(Family::Responses, "state:dry-run").await == 1).await;
    assert!(receiver.calls.lock().unwrap().is_empty());
    siem.stop();
}
