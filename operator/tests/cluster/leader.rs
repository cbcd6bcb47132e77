//! Several operators, of which one works.

use std::time::{Duration, Instant};

use serde_json::json;

use crate::{namespace::Namespace, operator::Operator};

#[tokio::test]
async fn one_works_and_another_takes_over() {
    let Some(namespace) = Namespace::new("leader").await else { return };
    let kubeconfig = namespace.account("operator", false).await;
    let arguments = |pod| ["--namespaces", namespace.name.as_str(), "--leader-election", "--pod-name", pod];
    let mut first = Operator::start(&kubeconfig, &arguments("first")).await;
    let second = Operator::launch(&kubeconfig, &arguments("second"));
    second.until_ready("waiting").await;
    assert_eq!([first.metric("redoubt_operator_leader", "").await, second.metric("redoubt_operator_leader", "").await], [1.0, 0.0]);
    let spec = json!({"match": "exact", "entries": [{"value": "x"}]});
    namespace.resource("Watchlist", "one", spec.clone()).await;
    namespace.until("Watchlist", "one", "Accepted", "True").await;

    // Told to stop, it ends by itself.
    first.signal("TERM");
    assert_eq!(first.ended(Duration::from_secs(10)).await, Some(0));
    second.until_ready("ok").await;

    // Stopped, so that it cannot renew: it must not go on when it wakes.
    let mut third = Operator::launch(&kubeconfig, &arguments("third"));
    third.until_ready("waiting").await;
    let stopped = Instant::now();
    second.signal("STOP");
    third.until_ready("ok").await;
    let taken_over = stopped.elapsed();
    assert!(taken_over < Duration::from_secs(35), "{taken_over:?}");
    second.signal("CONT");
    let mut second = second;
    assert_eq!(second.ended(Duration::from_secs(10)).await, Some(1), "{}", second.log());
    assert!(second.log().contains("the lease"), "{}", second.log());

    namespace.resource("Watchlist", "two", spec).await;
    namespace.until("Watchlist", "two", "Accepted", "True").await;
    third.signal("TERM");
    assert_eq!(third.ended(Duration::from_secs(10)).await, Some(0));
}
