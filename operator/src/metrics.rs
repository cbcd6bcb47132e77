//! Counters and gauges of the operator, in one registry.
//!
//! Labels are kinds, verbs and words of the code, and the namespaces that the operator works in: never names of objects. Names and labels
//! are an interface; `docs/operator.md` and dashboards rely on them, and a test holds the page against the code.

use std::sync::Arc;

use prometheus_client::{
    encoding::{EncodeLabelSet, text},
    metrics::{
        counter::Counter,
        family::Family,
        gauge::Gauge,
        histogram::{Histogram, exponential_buckets},
    },
    registry::{Metric, Registry},
};

/// The media type of [`Metrics::encode`]'s text: OpenMetrics 1.0.
pub const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// A family of histograms of seconds.
pub type Seconds<Labels> = Family<Labels, Histogram, fn() -> Histogram>;

/// Labels of [`ApiCounters::calls`].
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct ApiLabels {
    /// `get`, `list`, `watch`, `create`, `update`, `patch` or `delete`.
    pub verb: &'static str,
    /// Plural name, with the subresource: `alertrules/status`.
    pub resource: String,
    /// `ok`, or what went wrong.
    pub outcome: &'static str,
}

/// Labels of [`ApiCounters::seconds`].
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct ApiTimeLabels {
    /// As in [`ApiLabels`].
    pub verb: &'static str,
    /// As in [`ApiLabels`].
    pub resource: String,
}

/// Labels of [`Metrics::resources`].
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct ResourceLabels {
    /// The kind.
    pub kind: &'static str,
    /// `accepted`, `rejected` or `pending`.
    pub state: &'static str,
}

/// Labels of families that are told apart by kind alone.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct KindLabels {
    /// The kind.
    pub kind: &'static str,
}

/// Labels of families that are told apart by what became of something.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct OutcomeLabels {
    /// What became of it.
    pub outcome: &'static str,
}

/// The counters of calls of the API server.
#[derive(Clone)]
pub struct ApiCounters {
    /// Calls by what became of them.
    pub calls: Family<ApiLabels, Counter>,
    /// How long they took.
    pub seconds: Seconds<ApiTimeLabels>,
}

/// All metrics of the process.
pub struct Metrics {
    registry: Registry,
    api: ApiCounters,
    /// Whether this process works, and does not wait for another.
    pub leader: Gauge,
    /// Resources by kind and state.
    pub resources: Family<ResourceLabels, Gauge>,
    /// Accepted resources that not every worker runs yet.
    pub unprogrammed: Gauge,
    /// Last good versions that are kept for resources that have become bad.
    pub last_good: Gauge,
    /// Resources judged.
    pub judged: Family<KindLabels, Counter>,
    /// Time of one round of judging.
    pub judge_seconds: Histogram,
    /// Statuses written, with the last good version that belongs to them.
    pub status_writes: Family<OutcomeLabels, Counter>,
    /// Questions to workers what they run.
    pub polls: Family<OutcomeLabels, Counter>,
    /// Events told to Kubernetes.
    pub events: Family<OutcomeLabels, Counter>,
    /// Watches that broke and were begun anew.
    pub watch_failures: Family<KindLabels, Counter>,
}

impl Metrics {
    /// Metrics of a new process, all at zero.
    #[must_use]
    pub fn new() -> Arc<Self> {
        let mut registry = Registry::with_prefix("redoubt_operator");
        let r = &mut registry;
        let api = ApiCounters {
            calls: register(r, "api_calls", "Calls of the API server", Family::default()),
            seconds: register(
                r,
                "api_call_seconds",
                "Time until the API server's answer began",
                Family::new_with_constructor(call_seconds as fn() -> Histogram),
            ),
        };
        let metrics = Self {
            api,
            leader: register(r, "leader", "1 where this process works, 0 where it waits for another", Gauge::default()),
            resources: register(r, "resources", "Resources known now", Family::default()),
            unprogrammed: register(r, "unprogrammed", "Accepted resources that not every worker runs yet", Gauge::default()),
            last_good: register(r, "last_good_versions", "Last good versions kept for resources that have become bad", Gauge::default()),
            judged: register(r, "judged", "Resources judged", Family::default()),
            judge_seconds: register(r, "judge_seconds", "Time of one round of judging", Histogram::new(exponential_buckets(0.001, 4.0, 8))),
            status_writes: register(r, "status_writes", "Statuses written", Family::default()),
            polls: register(r, "polls", "Questions to workers what they run", Family::default()),
            events: register(r, "events", "Events told to Kubernetes", Family::default()),
            watch_failures: register(r, "watch_failures", "Watches that broke and were begun anew", Family::default()),
            registry,
        };
        Arc::new(metrics)
    }

    /// The counters of calls of the API server.
    #[must_use]
    pub fn api(&self) -> ApiCounters {
        self.api.clone()
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

/// Registers a metric under `redoubt_operator_NAME` and gives it back. Counters get their `_total` from the encoding.
fn register<M: Metric + Clone>(registry: &mut Registry, name: &str, help: &str, metric: M) -> M {
    registry.register(name, help, metric.clone());
    metric
}

/// From 2 ms to 32 s: one call.
fn call_seconds() -> Histogram {
    Histogram::new(exponential_buckets(0.002, 4.0, 8))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    const PAGE: &str = include_str!("../../docs/operator.md");

    /// A family without a member is not encoded.
    fn of_every_family() -> Arc<Metrics> {
        let metrics = Metrics::new();
        metrics.api.calls.get_or_create(&ApiLabels { verb: "get", resource: String::new(), outcome: "ok" }).inc();
        metrics.api.seconds.get_or_create(&ApiTimeLabels { verb: "get", resource: String::new() }).observe(0.0);
        metrics.resources.get_or_create(&ResourceLabels { kind: "Siem", state: "accepted" }).set(1);
        for family in [&metrics.judged, &metrics.watch_failures] {
            family.get_or_create(&KindLabels { kind: "Siem" }).inc();
        }
        for family in [&metrics.status_writes, &metrics.polls, &metrics.events] {
            family.get_or_create(&OutcomeLabels { outcome: "ok" }).inc();
        }
        metrics
    }

    #[test]
    fn the_page_on_the_operator_lists_every_metric_and_no_other() {
        let encoded = of_every_family().encode();
        let words = |line: &str| line.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
        let types = encoded.lines().filter_map(|line| line.strip_prefix("# TYPE ")).map(words);
        let registered: BTreeMap<String, String> = types
            .map(|words| {
                let total = if words[1] == "counter" { "_total" } else { "" };
                (format!("{}{total}", words[0]), words[1].clone())
            })
            .collect();

        let rows = PAGE.lines().filter(|line| line.starts_with("| `redoubt_operator_"));
        let listed: BTreeMap<String, String> = rows
            .map(|row| {
                let cells: Vec<&str> = row.split('|').map(str::trim).collect();
                (cells[1].trim_matches('`').to_owned(), cells[2].to_owned())
            })
            .collect();

        assert_eq!(listed, registered);
    }
}
