//! Events with known ids, and rules of both sorts whose alerts they raise: what the tests that kill processes send.

use serde_json::{Value, json};

/// Each of these many events is one that a Sigma rule fires on.
const MARKED_EVERY: usize = 1_000;
/// Users who each fail ten times within a minute.
const GUESSED_USERS: usize = 40;

pub const RULES: &str = "
apiVersion: redoubt.dev/v1alpha1
kind: AlertRule
metadata: {name: marked}
spec:
  sigma:
    title: A marked event
    logsource: {product: test}
    detection: {mark: {mark: true}, condition: mark}
---
apiVersion: redoubt.dev/v1alpha1
kind: AlertRule
metadata: {name: guessing}
spec:
  threshold:
    match: {when: exists(.details.guessed)}
    groupBy: [details.guessed]
    count: 10
    window: 1m
  suppress: {for: 1h}
";

pub fn id(n: usize) -> String {
    format!("known-{n}")
}

/// One of so many events, the same each time.
pub fn event(n: usize, events: usize) -> Value {
    let mut event = json!({"event": {"id": id(n)}, "@timestamp": "2026-03-02T10:30:00Z", "n": n});
    if n.is_multiple_of(MARKED_EVERY) {
        event["mark"] = json!(true);
    }
    // Ten failures of each user, spread over all events.
    let step = events / (GUESSED_USERS * 10);
    if n % step == 7 {
        event["guessed"] = json!(format!("user-{}", (n / step) % GUESSED_USERS));
    }
    event
}

/// How many alerts of each rule so many events raise.
pub const fn alerts(events: usize) -> [(&'static str, usize); 2] {
    [("marked", events / MARKED_EVERY), ("guessing", GUESSED_USERS)]
}

/// How many alerts so many events raise.
pub fn all_alerts(events: usize) -> usize {
    alerts(events).iter().map(|(_, alerts)| alerts).sum()
}
