//! `/programmed`: which version of each resource this process runs.
//!
//! ```json
//! {"siem": 3, "resources": {"AlertRule": {"brute-force": 7}, "LogSource": {"app": 1}}, "digest": "5d41402a…"}
//! ```
//! A number is the `metadata.generation` that runs: the last good one where the newest is bad, and `null` for a resource from a file. Whoever
//! asks often sends the digest as `If-None-Match` and is told only what has changed.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError, Weak},
};

use axum::body::Bytes;
use redoubt_engine::{compile::Plan, resource::Kind};
use serde::Serialize;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use tokio::sync::watch;

/// Reports of the plan in force.
pub(super) struct Programmed {
    plans: watch::Receiver<Arc<Plan>>,
    /// The last report, and the plan that it is of. A plan is large, and is not kept for its report.
    last: Mutex<Option<(Weak<Plan>, Arc<Report>)>>,
}

/// What runs.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Report {
    body: Bytes,
    digest: String,
}

#[derive(Serialize)]
struct Body<'p> {
    siem: Option<i64>,
    resources: BTreeMap<&'static str, BTreeMap<&'p str, Option<i64>>>,
    #[serde(skip_serializing_if = "str::is_empty")]
    digest: &'p str,
}

impl Programmed {
    pub(super) fn new(plans: watch::Receiver<Arc<Plan>>) -> Self {
        Self { plans, last: Mutex::default() }
    }

    /// The version of a resource that runs, as JSON.
    pub(super) fn version(&self, kind: &str, name: &str) -> Option<Value> {
        let plan = Arc::clone(&self.plans.borrow());
        let kind = Kind::of(kind)?;
        let running = plan.running().find(|running| running.kind == kind && running.name == name)?;
        Some(json!({ "generation": running.generation, "spec": running.spec }))
    }

    /// What runs now.
    pub(super) fn report(&self) -> Arc<Report> {
        let plan = Arc::clone(&self.plans.borrow());
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((of, report)) = &*last
            && of.as_ptr() == Arc::as_ptr(&plan)
        {
            return Arc::clone(report);
        }
        let report = Arc::new(Report::of(&plan));
        *last = Some((Arc::downgrade(&plan), Arc::clone(&report)));
        report
    }
}

impl Report {
    fn of(plan: &Plan) -> Self {
        let kinds = Kind::ALL.into_iter().filter(|kind| *kind != Kind::Siem);
        let mut said = Body { siem: None, resources: kinds.map(|kind| (kind.as_str(), BTreeMap::new())).collect(), digest: "" };
        for running in plan.running() {
            match said.resources.get_mut(running.kind.as_str()) {
                Some(names) => drop(names.insert(running.name, running.generation)),
                None => said.siem = running.generation,
            }
        }
        // Text and numbers have nothing that JSON could not say.
        let undigested = serde_json::to_vec(&said).unwrap_or_default();
        let digest = hex::encode(Sha256::digest(undigested));
        let body = serde_json::to_vec(&Body { digest: &digest, ..said }).unwrap_or_default();
        Self { body: body.into(), digest }
    }

    pub(super) fn body(&self) -> Bytes {
        self.body.clone()
    }

    pub(super) fn etag(&self) -> String {
        format!("\"{}\"", self.digest)
    }

    /// Whether a value of `If-None-Match` names this report (RFC 9110, section 13.1.2).
    pub(super) fn is_named_by(&self, value: &str) -> bool {
        value.split(',').map(str::trim).any(|tag| tag == "*" || tag.trim_start_matches("W/").trim_matches('"') == self.digest)
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use redoubt_engine::{
        compile::{Input, compile},
        resource::read,
    };

    fn plan(text: &str, previous: Option<&Plan>) -> Arc<Plan> {
        let file = read(Path::new("r.yaml"), text);
        let refused = file.refused.into_iter().collect();
        Arc::new(compile(&Input { resources: file.resources, refused, ..Input::default() }, previous).plan)
    }

    fn watchlist(generation: i64, spec: &str) -> String {
        format!(
            "apiVersion: redoubt.dev/v1alpha1\nkind: Watchlist\nmetadata: {{name: w, generation: {generation}}}\nspec: {spec}\n---\n\
             apiVersion: redoubt.dev/v1alpha1\nkind: Siem\nmetadata: {{name: soc, generation: 2}}\nspec: {{}}\n"
        )
    }

    fn said(report: &Report) -> Value {
        serde_json::from_slice(&report.body()).unwrap()
    }

    #[test]
    fn the_report_names_the_generation_that_runs_of_each_resource() {
        let first = plan(&watchlist(5, "{match: exact}"), None);
        let (sender, plans) = watch::channel(Arc::clone(&first));
        let programmed = Programmed::new(plans);

        let good = programmed.report();
        sender.send_replace(plan(&watchlist(6, "{match: nonsense}"), Some(&first)));
        let bad = programmed.report();
        sender.send_replace(plan(&watchlist(7, "{match: cidr}"), Some(&first)));
        let mended = programmed.report();

        let none = json!({});
        let expected = |generation: i64, report: &Report| {
            json!({
                "siem": 2, "digest": report.digest,
                "resources": {"LogSource": none, "Watchlist": {"w": generation}, "Enrichment": none, "AlertRule": none, "ResponseAction": none}
            })
        };
        assert_eq!(said(&good), expected(5, &good));
        assert_eq!(*bad, *good, "the last good version goes on, and nothing has changed");
        assert_eq!(said(&mended), expected(7, &mended));
        assert_ne!(mended.digest, good.digest);
    }

    #[test]
    fn the_version_that_runs_is_told_as_it_was_written() {
        let (_sender, plans) = watch::channel(plan(&watchlist(5, "{match: cidr, entries: [{value: 10.0.0.0/8}]}"), None));
        let programmed = Programmed::new(plans);

        let version = programmed.version("Watchlist", "w").unwrap();
        let again = redoubt_engine::resource::read_object(Kind::Watchlist, "w", Some(5), version["spec"].clone());

        assert_eq!(version["generation"], 5);
        assert_eq!(version["spec"]["entries"][0]["value"], "10.0.0.0/8");
        assert_eq!(again.diagnostics, []);
        assert_eq!([programmed.version("Watchlist", "other"), programmed.version("Nonsense", "w")], [None, None]);
    }

    #[test]
    fn before_the_first_plan_nothing_runs() {
        let (_sender, plans) = watch::channel(Arc::default());

        assert_eq!(said(&Programmed::new(plans).report())["siem"], Value::Null);
    }

    #[test]
    fn a_plan_is_reported_on_once_and_not_kept_for_it() {
        let (sender, plans) = watch::channel(plan(&watchlist(1, "{match: exact}"), None));
        let programmed = Programmed::new(plans);
        let first = programmed.report();

        assert!(Arc::ptr_eq(&first, &programmed.report()));
        let old = sender.send_replace(plan(&watchlist(2, "{match: exact}"), None));
        assert_eq!(Arc::strong_count(&old), 1);
        assert!(!Arc::ptr_eq(&first, &programmed.report()));
    }

    #[test]
    fn a_report_is_known_by_its_tag() {
        let report = Report { body: Bytes::new(), digest: "abc".to_owned() };

        for (value, known) in
            [("\"abc\"", true), ("W/\"abc\"", true), ("\"x\", \"abc\"", true), ("*", true), ("\"abcd\"", false), ("", false)]
        {
            assert_eq!(report.is_named_by(value), known, "{value}");
        }
    }
}
