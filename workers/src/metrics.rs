//! Counters, gauges and histograms of every role, in one registry.
//!
//! One [`Metrics`] is made at start and handed to the roles as an `Arc`; each field is a family that the role counts on directly. A
//! label's values are names of declared resources or constants of the code, never anything that a sender writes: what arrives from
//! outside cannot make series grow. Names and labels are an interface; `docs/metrics.md` and dashboards rely on them.
//!
//! ```text
//! redoubt_ingest_events_total{result="accepted"}
//!     = redoubt_events_processed_total{outcome="indexed"} + {outcome="dropped"} + {outcome="dead_lettered"}   once the queue is empty
//! ```

use std::sync::{Arc, atomic::AtomicU64};

use prometheus_client::{
    encoding::{EncodeLabelSet, text},
    metrics::{
        counter::Counter,
        family::Family,
        gauge::Gauge,
        histogram::{Histogram, exponential_buckets},
    },
    registry::Registry,
};

/// The media type of [`Metrics::encode`]'s text: OpenMetrics 1.0.
pub const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Labels of [`Metrics::ingest_events`].
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct IngestLabels {
    /// Name of the LogSource.
    pub source: Arc<str>,
    /// `accepted` or `rejected`.
    pub result: &'static str,
}

/// Labels of [`Metrics::ingest_requests`].
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct CodeLabels {
    /// The HTTP status that was answered.
    pub code: u16,
}

/// Labels of families that are told apart by LogSource alone.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct SourceLabels {
    /// Name of the LogSource.
    pub source: Arc<str>,
}

/// Labels of [`Metrics::ingest_dropped`].
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct IngestDropLabels {
    /// Name of the LogSource.
    pub source: Arc<str>,
    /// Why: `full`, `too_large`, `incomplete`, `sender` or `shutdown`.
    pub reason: &'static str,
}

/// Labels of [`Metrics::tls_expiry_seconds`].
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct CertificateLabels {
    /// Name of the Secret that the certificate came from.
    pub secret: Arc<str>,
}

/// Labels of [`Metrics::events_processed`].
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct ProcessLabels {
    /// Name of the LogSource.
    pub source: Arc<str>,
    /// `indexed`, `dropped` or `dead_lettered`.
    pub outcome: &'static str,
}

/// Labels of [`Metrics::events_dropped`].
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct DropLabels {
    /// Name of the Enrichment that dropped the event.
    pub enrichment: Arc<str>,
    /// The reason that the Enrichment declares.
    pub reason: Arc<str>,
}

/// Labels of families that are told apart by a class of reasons that the code names.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct ReasonLabels {
    /// The class: `not readable` or `refused by the store`.
    pub reason: &'static str,
}

/// Labels of [`Metrics::enrichment_failures`].
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct EnrichmentLabels {
    /// Name of the Enrichment.
    pub enrichment: Arc<str>,
}

/// Labels of [`Metrics::matches`].
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct RuleLabels {
    /// Name of the AlertRule.
    pub rule: Arc<str>,
}

/// Labels of [`Metrics::alerts`].
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct AlertLabels {
    /// Name of the AlertRule.
    pub rule: Arc<str>,
    /// The alert's severity.
    pub severity: &'static str,
}

/// Labels of families that are told apart by a kind that the code names.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct KindLabels {
    /// What overflowed: `groups` or `matches`.
    pub kind: &'static str,
}

/// Labels of [`Metrics::responses`].
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct ResponseLabels {
    /// Name of the ResponseAction.
    pub action: Arc<str>,
    /// How it ended: `succeeded`, `failed` or `dry-run`.
    pub result: &'static str,
}

/// Labels of [`Metrics::queue_messages`] and [`Metrics::queue_bytes`].
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct QueueLabels {
    /// The topic, as it prints.
    pub topic: String,
    /// The subscription.
    pub subscription: &'static str,
}

/// Labels of [`Metrics::reloads`].
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct ResultLabels {
    /// `clean`, or `with_errors` if a resource was refused.
    pub result: &'static str,
}

/// Labels of [`Metrics::resources`].
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct ResourceLabels {
    /// The kind, such as `LogSource`.
    pub kind: &'static str,
    /// `accepted` or `rejected`.
    pub state: &'static str,
}

/// Labels of [`Metrics::watch_failures`].
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct WatchLabels {
    /// What is followed: a kind, such as `AlertRule` or `Secret`, or `last-good`.
    pub watch: &'static str,
}

/// Labels of [`Metrics::secrets`].
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct StateLabels {
    /// `present` or `missing`.
    pub state: &'static str,
}

/// A histogram of seconds whose buckets are chosen once, at registration.
type Seconds<L> = Family<L, Histogram, fn() -> Histogram>;

/// The metrics of all roles. Cheap to count on from many tasks.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    /// Events that ingest answered for, by LogSource and result.
    pub ingest_events: Family<IngestLabels, Counter>,
    /// HTTP requests answered, by status.
    pub ingest_requests: Family<CodeLabels, Counter>,
    /// Bytes of accepted events, after decompression.
    pub ingest_bytes: Family<SourceLabels, Counter>,
    /// Syslog messages that were received and not taken, by reason. HTTP senders are told instead.
    pub ingest_dropped: Family<IngestDropLabels, Counter>,
    /// Bytes of request bodies that are in memory now.
    pub ingest_body_bytes: Gauge,
    /// Open connections of senders.
    pub ingest_connections: Gauge,
    /// Seconds since 1970 at which a served certificate ends.
    pub tls_expiry_seconds: Family<CertificateLabels, Gauge>,
    /// Accepted events whose way has ended, by outcome.
    pub events_processed: Family<ProcessLabels, Counter>,
    /// Events that an Enrichment dropped as declared.
    pub events_dropped: Family<DropLabels, Counter>,
    /// Events set aside, by class of reason.
    pub dead_letters: Family<ReasonLabels, Counter>,
    /// Enrichments that failed on an event, which went on without.
    pub enrichment_failures: Family<EnrichmentLabels, Counter>,
    /// Values that did not fit their field and stayed text under `details`.
    pub unparsed_values: Family<SourceLabels, Counter>,
    /// Matches of rules with events.
    pub matches: Family<RuleLabels, Counter>,
    /// Matches that an exception of their rule took out.
    pub matches_excepted: Counter,
    /// Expressions of rules that failed on an event: the rule did not match, or the exception did not hold.
    pub rule_failures: Counter,
    /// Alerts raised; growth of an alert is not counted again.
    pub alerts: Family<AlertLabels, Counter>,
    /// Bounds of correlation that were reached.
    pub correlate_overflow: Family<KindLabels, Counter>,
    /// Responses to alerts, by how they ended.
    pub responses: Family<ResponseLabels, Counter>,
    /// Messages waiting or handed out.
    pub queue_messages: Family<QueueLabels, Gauge>,
    /// Bytes of them.
    pub queue_bytes: Family<QueueLabels, Gauge>,
    /// Messages that were set aside and are kept.
    pub dead_messages: Gauge,
    /// When the queues were last measured, seconds since 1970: what they held before that moment is in the gauges.
    pub queues_measured_seconds: Gauge<f64, AtomicU64>,
    /// How long one bulk write to the store took.
    pub store_bulk_seconds: Histogram,
    /// Times that changed resources were taken over.
    pub reloads: Family<ResultLabels, Counter>,
    /// Resources known now, by kind and state.
    pub resources: Family<ResourceLabels, Gauge>,
    /// Times that the Kubernetes API did not let something be followed.
    pub watch_failures: Family<WatchLabels, Counter>,
    /// Secrets that this process needs, by whether they are there.
    pub secrets: Family<StateLabels, Gauge>,
    /// From the receipt of an event to the alert that it raised.
    pub event_to_alert_seconds: Seconds<RuleLabels>,
}

impl Metrics {
    /// Metrics of a new process, all at zero.
    #[must_use]
    pub fn new() -> Arc<Self> {
        let mut registry = Registry::with_prefix("redoubt");
        let r = &mut registry;
        // Counters get their `_total` from the encoding.
        let metrics = Self {
            ingest_events: register(r, "ingest_events", "Events that ingest answered for", Family::default()),
            ingest_requests: register(r, "ingest_requests", "HTTP requests answered", Family::default()),
            ingest_bytes: register(r, "ingest_bytes", "Bytes of accepted events, after decompression", Family::default()),
            ingest_dropped: register(r, "ingest_dropped", "Syslog messages received and not taken", Family::default()),
            ingest_body_bytes: register(r, "ingest_body_bytes_in_flight", "Bytes of request bodies in memory", Gauge::default()),
            ingest_connections: register(r, "ingest_connections", "Open connections of senders", Gauge::default()),
            tls_expiry_seconds: register(
                r,
                "tls_certificate_expiry_seconds",
                "Seconds since 1970 at which a served certificate ends",
                Family::default(),
            ),
            events_processed: register(r, "events_processed", "Accepted events whose way has ended", Family::default()),
            events_dropped: register(r, "events_dropped", "Events dropped by an Enrichment as declared", Family::default()),
            dead_letters: register(r, "dead_letters", "Events set aside with a reason", Family::default()),
            enrichment_failures: register(r, "enrichment_failures", "Enrichments that failed on an event", Family::default()),
            unparsed_values: register(r, "unparsed_values", "Values that did not fit their field and stayed text", Family::default()),
            matches: register(r, "matches", "Matches of rules with events", Family::default()),
            matches_excepted: register(r, "matches_excepted", "Matches that an exception took out", Counter::default()),
            rule_failures: register(r, "rule_failures", "Expressions of rules that failed on an event", Counter::default()),
            alerts: register(r, "alerts", "Alerts raised", Family::default()),
            correlate_overflow: register(r, "correlate_overflow", "Bounds of correlation that were reached", Family::default()),
            responses: register(r, "responses", "Responses to alerts", Family::default()),
            queue_messages: register(r, "queue_messages", "Messages waiting or handed out", Family::default()),
            queue_bytes: register(r, "queue_bytes", "Bytes waiting or handed out", Family::default()),
            dead_messages: register(r, "dead_messages", "Messages set aside and kept, to be looked at", Gauge::default()),
            queues_measured_seconds: register(
                r,
                "queues_measured_timestamp_seconds",
                "Seconds since 1970 at which the queues were last measured",
                Gauge::default(),
            ),
            store_bulk_seconds: register(r, "store_bulk_seconds", "Time of one bulk write to the store", work_seconds()),
            reloads: register(r, "reload", "Times that changed resources were taken over", Family::default()),
            resources: register(r, "resources", "Resources known now", Family::default()),
            watch_failures: register(
                r,
                "watch_failures",
                "Times that the Kubernetes API did not let something be followed",
                Family::default(),
            ),
            secrets: register(r, "secrets", "Secrets of the namespace that this process needs", Family::default()),
            event_to_alert_seconds: register(
                r,
                "event_to_alert_seconds",
                "Time from the receipt of an event to the alert that it raised",
                Family::new_with_constructor(latency_seconds),
            ),
            registry,
        };
        Arc::new(metrics)
    }

    /// All metrics as text of [`CONTENT_TYPE`].
    #[must_use]
    pub fn encode(&self) -> String {
        let mut page = String::new();
        if let Err(error) = text::encode(&mut page, &self.registry) {
            // Writing to a string fails only where a label's own encoding does; half a page would be read as counters that went away.
            tracing::error!(%error, "metrics could not be written");
            page.clear();
        }
        page
    }
}

/// Registers a metric under `redoubt_NAME` and gives it back.
fn register<M>(registry: &mut Registry, name: &str, help: &str, metric: M) -> M
where
    M: prometheus_client::registry::Metric + Clone,
{
    registry.register(name, help, metric.clone());
    metric
}

/// From 1 ms to 33 s: work on one batch.
fn work_seconds() -> Histogram {
    Histogram::new(exponential_buckets(0.001, 2.0, 16))
}

/// From 10 ms to 11 minutes: what a person waits for.
fn latency_seconds() -> Histogram {
    Histogram::new(exponential_buckets(0.01, 3.0, 11))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_counted_stands_on_the_page_under_its_documented_name() {
        let metrics = Metrics::new();
        let source: Arc<str> = "web".into();

        metrics.ingest_events.get_or_create(&IngestLabels { source: source.clone(), result: "accepted" }).inc_by(3);
        metrics.ingest_requests.get_or_create(&CodeLabels { code: 202 }).inc();
        metrics.queue_bytes.get_or_create(&QueueLabels { topic: "matches-1".into(), subscription: "correlate" }).set(9);
        metrics.store_bulk_seconds.observe(0.5);
        metrics.event_to_alert_seconds.get_or_create(&RuleLabels { rule: "brute-force".into() }).observe(2.0);
        metrics.reloads.get_or_create(&ResultLabels { result: "clean" }).inc();
        let page = metrics.encode();

        for line in [
            r#"redoubt_ingest_events_total{source="web",result="accepted"} 3"#,
            r#"redoubt_ingest_requests_total{code="202"} 1"#,
            r#"redoubt_queue_bytes{topic="matches-1",subscription="correlate"} 9"#,
            "redoubt_store_bulk_seconds_count 1",
            r#"redoubt_event_to_alert_seconds_count{rule="brute-force"} 1"#,
            r#"redoubt_reload_total{result="clean"} 1"#,
            "# EOF",
        ] {
            assert!(page.lines().any(|found| found == line), "{line} is missing from:\n{page}");
        }
    }

    #[test]
    fn a_label_from_a_resource_is_escaped() {
        let metrics = Metrics::new();

        metrics.matches.get_or_create(&RuleLabels { rule: "a\"b\nc".into() }).inc();

        assert!(metrics.encode().contains(r#"redoubt_matches_total{rule="a\"b\nc"} 1"#));
    }
}
