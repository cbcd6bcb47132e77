//! How many pods process events, where the Siem lets their number follow the work.
//!
//! The workers tell how many batches wait (`redoubt_queue_messages` of the topic `events`). More pods come at once, at most twice as many at
//! a time; fewer come one by one, each when for five minutes fewer would have been enough. While no worker tells, nothing changes.
//!
//! Where the Siem names a metric, a HorizontalPodAutoscaler does this by the same numbers; where the cluster has KEDA, its ScaledObject. The
//! operator keeps out of it: it applies the number that is there until the other has written one, and none from then on. To leave it out at
//! once would be to set it to one.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::Pod;
use redoubt_crds::Autoscale;

use super::{
    endpoint::{Connect, Endpoint, Server},
    owner::{COMPONENT, Component},
    pod::HEALTH_PORT,
};

/// How often the work is looked at where it says how many pods there are.
pub(crate) const WORK: Duration = Duration::from_secs(15);
/// How long fewer pods must have been enough.
pub(crate) const CALM: SignedDuration = SignedDuration::from_mins(5);
/// What a worker calls the batches that wait.
const METRIC: &str = "redoubt_queue_messages{";
const TOPIC: &str = "topic=\"events\"";
/// The same, as Prometheus selects it.
pub(crate) const SERIES: &str = "redoubt_queue_messages{topic=\"events\",subscription=\"process\"}";

/// What is remembered of a Siem between two looks. An operator that starts anew waits for a calm of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Memory {
    /// When as many pods as there are were last needed.
    busy: Timestamp,
}

/// The number of pods from now on.
pub(crate) fn decide(current: u16, waiting: Option<u64>, wanted: &Autoscale, memory: Option<Memory>, now: Timestamp) -> (u16, Memory) {
    let (least, most) = bounds(wanted);
    let busy = memory.map_or(now, |memory| memory.busy);
    let bounded = current.clamp(least, most);
    let Some(waiting) = waiting else { return (bounded, Memory { busy }) };
    let enough = waiting.div_ceil(u64::from(wanted.backlog_per_replica.max(1)));
    let needed = u16::try_from(enough).unwrap_or(u16::MAX).clamp(least, most);
    if needed > bounded {
        return (needed.min(bounded.saturating_mul(2).max(1)), Memory { busy: now });
    }
    if needed == bounded {
        return (bounded, Memory { busy: now });
    }
    if now.duration_since(busy) < CALM {
        return (bounded, Memory { busy });
    }
    (bounded - 1, Memory { busy: now })
}

/// The fewest and the most pods.
pub(crate) fn bounds(wanted: &Autoscale) -> (u16, u16) {
    (wanted.min_replicas, wanted.max_replicas.max(wanted.min_replicas))
}

/// The number of pods that is applied while it is another's to decide, who may have written it or not.
pub(crate) fn leave(current: u16, wanted: &Autoscale) -> u16 {
    // None at all is nobody's decision: it is a Deployment that is not there yet.
    if current == 0 { bounds(wanted).0 } else { current }
}

/// Batches that wait, as the first worker tells that answers.
pub(crate) async fn waiting(connect: &Connect, pods: &[Pod]) -> Option<u64> {
    let processes = |pod: &&Pod| {
        let labels = pod.metadata.labels.as_ref();
        labels.and_then(|labels| labels.get(COMPONENT)).is_some_and(|component| component == Component::Process.as_str())
    };
    for pod in pods.iter().filter(processes) {
        let Some(address) = pod.status.as_ref().and_then(|status| status.pod_ip.as_ref()?.parse().ok()) else { continue };
        let server = Server { host: "worker", address, port: HEALTH_PORT };
        let Ok(worker) = Endpoint::new(connect, server, None, None) else { continue };
        if let Some(waiting) = worker.text("/metrics").await.ok().and_then(|text| read(&text)) {
            return Some(waiting);
        }
    }
    None
}

/// The number in a page of metrics.
fn read(page: &str) -> Option<u64> {
    let line = page.lines().find(|line| line.starts_with(METRIC) && line.contains(TOPIC))?;
    let value: f64 = line.rsplit_once("} ")?.1.split(' ').next()?.parse().ok()?;
    // A count; more than there can be is as many as there can be.
    if value.is_finite() && value >= 0.0 { Some(value as u64) } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::siem::testing::now;

    fn wanted() -> Autoscale {
        Autoscale { min_replicas: 2, max_replicas: 10, backlog_per_replica: 100, external_metric: None }
    }

    #[test]
    fn the_number_of_pods_follows_the_work_within_its_bounds() {
        let calm = Some(Memory { busy: now() - SignedDuration::from_mins(6) });
        let lately = Some(Memory { busy: now() - SignedDuration::from_mins(1) });
        let cases = [
            ("nothing to do, at the least", 2, Some(0), calm, 2),
            ("as much as there are pods for", 4, Some(390), calm, 4),
            ("more work", 4, Some(501), calm, 6),
            ("much more work", 3, Some(5000), calm, 6),
            ("at the most", 9, Some(5000), calm, 10),
            ("less work for a while", 6, Some(100), calm, 5),
            ("less work since a moment", 6, Some(100), lately, 6),
            ("less work, as far as a new operator knows", 6, Some(100), None, 6),
            ("nobody tells", 6, None, calm, 6),
            ("nobody tells, and there are too few", 0, None, None, 2),
            ("too many for new bounds", 20, Some(5000), calm, 10),
        ];

        for (name, current, waiting, memory, expected) in cases {
            assert_eq!(decide(current, waiting, &wanted(), memory, now()).0, expected, "{name}");
        }
    }

    #[test]
    fn after_a_step_down_a_new_calm_begins() {
        let (_, memory) = decide(6, Some(0), &wanted(), Some(Memory { busy: now() - CALM }), now());

        assert_eq!(memory.busy, now());
    }

    #[test]
    fn a_page_of_metrics_is_read() {
        let page = "# TYPE redoubt_queue_messages gauge\nredoubt_queue_messages{topic=\"alerts\",subscription=\"respond\"} 7\n\
                    redoubt_queue_messages{topic=\"events\",subscription=\"process\"} 42\n# EOF\n";

        assert_eq!(read(page), Some(42));
        assert_eq!(read("redoubt_queue_messages{topic=\"events\"} NaN"), None);
        assert_eq!(read(""), None);
    }
}
