//! The resources that declare a SIEM: [`Siem`], [`LogSource`], [`Enrichment`], [`Watchlist`], [`AlertRule`], [`ResponseAction`].
//!
//! This crate holds types and nothing else: what a field is called, what it may hold, what it means when absent. What a resource
//! *does* is decided in `redoubt-engine`; who runs it, in `redoubt` and `redoubt-operator`. The manifests beside this folder and the
//! reference pages under `docs/` are generated from these types, so a change of a field starts and ends here.

#![allow(unreachable_pub, reason = "KubeSchema repeats each type, with its `pub`, inside a function body")]

mod alert_rule;
mod duration;
mod enrichment;
mod log_source;
mod object;
mod response_action;
mod secret;
mod siem;
mod status;
mod watchlist;

pub use alert_rule::{AlertRule, AlertRuleSpec, Exception, Matcher, RuleTest, RuleTestExpectation, Severity, Suppression, Threshold};
pub use duration::{Duration, DurationError};
pub use enrichment::{DropEvent, Enrichment, EnrichmentExpectation, EnrichmentSpec, EnrichmentTest, GeoIp, Lookup, VrlProgram};
pub use log_source::{FieldType, Format, HttpAuth, HttpInput, LogSource, LogSourceSpec, Quota, SigmaLogsource, SyslogInput, TypedField};
pub use object::Object;
pub use response_action::{AlertSelector, LogAction, ResponseAction, ResponseActionSpec, Webhook};
pub use secret::{SecretKeyRef, TlsSecretRef};
pub use siem::{BrokerSpec, CorrelateSpec, IngestSpec, Retention, Siem, SiemSpec, StoreSpec};
pub use status::ConfigStatus;
pub use watchlist::{Watchlist, WatchlistEntry, WatchlistMatch, WatchlistSpec};

/// The API group of every Redoubt resource.
pub const GROUP: &str = "redoubt.dev";
/// The served and stored version.
pub const VERSION: &str = "v1alpha1";
/// `apiVersion` as a manifest writes it.
pub const API_VERSION: &str = "redoubt.dev/v1alpha1";

/// The OpenAPI definitions of every kind, in the order in which a reader meets them.
#[must_use]
pub fn definitions() -> Vec<k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition> {
    use kube::CustomResourceExt as _;
    vec![Siem::crd(), LogSource::crd(), Enrichment::crd(), Watchlist::crd(), AlertRule::crd(), ResponseAction::crd()]
}
