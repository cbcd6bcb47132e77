//! `redoubt explain`: why a rule fires on an event, or does not.

use std::{path::PathBuf, process::ExitCode};

use anyhow::{Context as _, Result, bail};
use clap::Args;
use redoubt_engine::{enrich::Verdict, format::parse, rule::explain::explain};

use super::{ResourceArgs, diagnostics, events};
use crate::{resources::load_and_compile, run::now_millis};

/// Show which conditions of a rule hold on an event, and which do not
///
/// The event is parsed and enriched as in production; then each condition is shown with the value that it met.
#[derive(Debug, Args)]
pub(super) struct Explain {
    #[command(flatten)]
    resources: ResourceArgs,
    /// Name of the AlertRule.
    #[arg(long, value_name = "NAME")]
    rule: String,
    /// A file with the event; of several, the first. `-` reads standard input.
    #[arg(long, value_name = "FILE")]
    event: PathBuf,
    /// The LogSource that the event came by. May be left out when there is one only, or none: then it is JSON.
    #[arg(long, value_name = "NAME")]
    source: Option<String>,
    /// Print the explanation as JSON.
    #[arg(long)]
    json: bool,
}

impl Explain {
    pub(super) fn execute(self) -> Result<ExitCode> {
        let compiled = load_and_compile(&self.resources.paths);
        let Some(rule) = compiled.plan.rules.get(&self.rule) else {
            diagnostics::print(&compiled.diagnostics);
            bail!("no AlertRule/{} runs in these resources", self.rule);
        };
        let source = events::choose_source(&compiled.plan, self.source.as_deref(), None)?;
        let text = events::read_input(&self.event)?;
        let read = events::cut(&source, &text, &self.event, now_millis());
        let raw = match (read.events.into_iter().next(), read.refused.first()) {
            (Some(raw), _) => raw,
            (None, Some(refused)) => bail!("not an event: {refused}"),
            (None, None) => bail!("there is no event in {}", self.event.display()),
        };
        let mut event = parse(&source, &raw).with_context(|| format!("the event is not what LogSource/{} takes", source.name))?;
        let mut failures = Vec::new();
        if let Verdict::Drop { enrichment, reason } = compiled.plan.chain.run(&mut event, &mut failures) {
            anstream::println!("Enrichment/{enrichment} drops this event ({reason}): no rule sees it");
            return Ok(ExitCode::SUCCESS);
        }
        for failure in failures {
            anstream::eprintln!("Enrichment/{} failed: {}", failure.enrichment, failure.message);
        }
        let explanation = explain(rule, &event);
        if self.json {
            anstream::println!("{}", serde_json::to_string_pretty(&explanation)?);
        } else {
            anstream::print!("{explanation}");
        }
        Ok(ExitCode::SUCCESS)
    }
}
