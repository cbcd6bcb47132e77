//! The resources that declare a SIEM: [`Siem`], [`LogSource`], [`Enrichment`], [`Watchlist`], [`AlertRule`], [`ResponseAction`].
//!
//! This crate says what a field is called, what it may hold and what it means when absent, and nothing else. What a resource *does* is
//! decided in `redoubt-engine`; who runs it, in `redoubt` and `redoubt-operator`. The manifests beside this folder and the reference
//! pages under `docs/resources/` are generated from these types (`cargo run -p redoubt-crds`), and [`validate`] holds a resource against
//! them as the API server does, so a change of a field starts and ends here.

#![allow(unreachable_pub, reason = "KubeSchema repeats each type, with its `pub`, inside a function body")]
#![allow(clippy::duplicated_attributes, reason = "columns of the same type are no duplicates")]

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::CustomResourceExt as _;

mod alert_rule;
mod choice;
mod duration;
mod enrichment;
mod exposure;
mod external;
pub mod generate;
pub mod in_cluster;
mod log_source;
mod managed;
mod monitoring;
mod object;
mod response_action;
mod rule;
mod secret;
mod siem;
mod status;
mod structural;
mod validate;
mod watchlist;
mod workload;

pub use alert_rule::{AlertRule, AlertRuleSpec, Exception, Matcher, RuleTest, RuleTestExpectation, Severity, Suppression, Threshold};
pub use duration::{Duration, DurationError};
pub use enrichment::{DropEvent, Enrichment, EnrichmentExpectation, EnrichmentSpec, EnrichmentTest, GeoIp, Lookup, VrlProgram};
pub use exposure::{GatewayRef, HttpRouteExposure, IngressExposure};
pub use external::{ClientTls, ExternalBroker, ExternalStore, Rollover};
pub use log_source::{
    AmqpInput, FieldType, Format, HttpAuth, HttpInput, LogSource, LogSourceSpec, Quota, SigmaLogsource, SyslogInput, TypedField,
};
pub use managed::{ManagedBroker, ManagedStore, NodeRole, NodeSet};
pub use monitoring::{MonitorWhen, MonitoringSpec};
pub use object::Object;
pub use response_action::{AlertSelector, LogAction, ResponseAction, ResponseActionSpec, Webhook};
pub use secret::{BasicAuthSecretRef, SecretKeyRef, TlsSecretRef};
pub use siem::{BrokerSpec, CorrelateSpec, IngestSpec, ProcessSpec, RespondSpec, Retention, Siem, SiemSpec, StoreSpec};
pub use status::{ConfigStatus, Operation, SiemStatus};
pub use structural::sorted;
pub use validate::{Violation, validate};
pub use watchlist::{Watchlist, WatchlistEntry, WatchlistMatch, WatchlistSpec};
pub use workload::{Autoscale, ExternalMetric, OnDelete, Quantity, Resources, Storage};

/// The API group of every Redoubt resource.
pub const GROUP: &str = "redoubt.dev";
/// The served and stored version.
pub const VERSION: &str = "v1alpha1";
/// `apiVersion` as a manifest writes it.
pub const API_VERSION: &str = "redoubt.dev/v1alpha1";

/// The definition of every kind, in the order in which a reader meets them.
#[must_use]
pub fn definitions() -> Vec<CustomResourceDefinition> {
    let derived = [Siem::crd(), LogSource::crd(), Enrichment::crd(), Watchlist::crd(), AlertRule::crd(), ResponseAction::crd()];
    derived.into_iter().map(structural::finish).collect()
}
