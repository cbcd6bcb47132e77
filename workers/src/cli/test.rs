//! `redoubt test`: the tests that rules and enrichments carry.

use std::{fs, path::PathBuf, process::ExitCode};

use anyhow::{Context as _, Result};
use clap::Args;
use quick_junit::{NonSuccessKind, Report, TestCase, TestCaseStatus, TestSuite};
use redoubt_engine::compile::ResourceTests;

use super::{
    ResourceArgs, diagnostics,
    print::{DIM, GREEN, RED, styled},
};
use crate::resources::load_and_compile;

/// Run the tests that rules and enrichments carry
///
/// A rule's test gives events and says whether, or how often, the rule must fire; an enrichment's gives an event and says what must
/// come out. They run through the same engine as in production.
#[derive(Debug, Args)]
pub(super) struct Test {
    #[command(flatten)]
    resources: ResourceArgs,
    /// Write a report in JUnit's XML to this file.
    #[arg(long, value_name = "FILE")]
    junit: Option<PathBuf>,
    /// Name each test, not only those that fail.
    #[arg(short, long)]
    verbose: bool,
}

impl Test {
    pub(super) fn execute(self) -> Result<ExitCode> {
        let compiled = load_and_compile(&self.resources.paths);
        let (mut passed, mut failed) = (0_usize, 0_usize);
        for tests in &compiled.tests {
            for outcome in &tests.outcomes {
                let title = format!("{}/{} {} {}", tests.kind, tests.name, styled(DIM, ">"), outcome.name);
                match &outcome.result {
                    Ok(()) => {
                        passed += 1;
                        if self.verbose {
                            anstream::println!("{} {title}", styled(GREEN, "ok    "));
                        }
                    }
                    Err(problem) => {
                        failed += 1;
                        anstream::println!("{} {title}\n       {}", styled(RED, "FAILED"), problem.message.replace('\n', "\n       "));
                    }
                }
            }
        }
        if let Some(path) = &self.junit {
            let xml = report(&compiled.tests).to_string()?;
            fs::write(path, xml).with_context(|| format!("writing the report to {}", path.display()))?;
        }
        // A failed test is among the diagnostics too; those that are something else kept a resource from being tested at all.
        let untested: Vec<_> =
            compiled.diagnostics.iter().filter(|diagnostic| !diagnostic.field.starts_with("spec.tests[")).cloned().collect();
        let errors = diagnostics::print(&untested);
        anstream::println!("{passed} passed, {failed} failed");
        Ok(if failed + errors == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    }
}

fn report(all: &[ResourceTests]) -> Report {
    let mut report = Report::new("redoubt");
    for tests in all {
        let mut suite = TestSuite::new(format!("{}/{}", tests.kind, tests.name));
        for outcome in &tests.outcomes {
            let status = match &outcome.result {
                Ok(()) => TestCaseStatus::success(),
                Err(problem) => {
                    let mut status = TestCaseStatus::non_success(NonSuccessKind::Failure);
                    status.set_message(problem.message.clone());
                    status
                }
            };
            suite.add_test_case(TestCase::new(outcome.name.clone(), status));
        }
        report.add_test_suite(suite);
    }
    report
}
