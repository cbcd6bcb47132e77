//! `redoubt check`: what is wrong with resources.

use std::{collections::BTreeMap, process::ExitCode};

use anyhow::Result;
use clap::Args;
use redoubt_engine::resource::Kind;

use super::{ResourceArgs, diagnostics, print::counted};
use crate::resources::load_and_compile;

/// Say everything that is wrong with resources
///
/// Reads the resources, validates them as the Kubernetes API server would, compiles rules and programs, and runs the tests that they
/// carry. Each problem comes with file, line, column, resource, field and remedy.
#[derive(Debug, Args)]
pub(super) struct Check {
    #[command(flatten)]
    resources: ResourceArgs,
}

impl Check {
    pub(super) fn execute(self) -> Result<ExitCode> {
        let compiled = load_and_compile(&self.resources.paths);
        let errors = diagnostics::print(&compiled.diagnostics);
        let counts: BTreeMap<Kind, usize> = compiled.plan.counts();
        let accepted: usize = counts.values().sum();
        if accepted + errors == 0 {
            anyhow::bail!("no resource of Redoubt found; a resource begins with `apiVersion: {}`", redoubt_crds::API_VERSION);
        }
        let listed: Vec<String> = counts.iter().map(|(kind, count)| format!("{count} {kind}")).collect();
        anstream::println!("{} accepted ({})", counted(accepted, "resource"), listed.join(", "));
        if errors == 0 {
            return Ok(ExitCode::SUCCESS);
        }
        anstream::println!("{}", diagnostics::summary(&compiled.diagnostics));
        Ok(ExitCode::FAILURE)
    }
}
