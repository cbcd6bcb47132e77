//! `redoubt replay`: the whole engine over events in a file.

use std::{collections::BTreeMap, io::Write as _, path::PathBuf, process::ExitCode, sync::Arc};

use anyhow::Result;
use clap::{Args, ValueEnum};
use redoubt_engine::{
    alert::Alert,
    compile::{Outcome, Plan},
    correlate::{Change, Correlator},
    event::RawEvent,
};

use super::{
    ResourceArgs, diagnostics, events,
    print::{self, styled},
    progress,
};
use crate::{resources::load_and_compile, run::now_millis};

/// Run the whole engine over events in a file and print the alerts
///
/// Parses, enriches, matches and correlates as `redoubt run` does, with no network and nothing stored. A summary goes to standard
/// error, the alerts to standard output.
#[derive(Debug, Args)]
pub(super) struct Replay {
    #[command(flatten)]
    resources: ResourceArgs,
    /// The events, in the format of their LogSource; `-` reads standard input.
    #[arg(long, value_name = "FILE")]
    events: PathBuf,
    /// The LogSource that the events came by. May be left out when there is one only, or none: then they are JSON.
    #[arg(long, value_name = "NAME")]
    source: Option<String>,
    /// How alerts are printed.
    #[arg(short = 'o', long = "output", value_enum, default_value_t = Output::Ndjson)]
    output: Output,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Output {
    /// One alert a line, as JSON.
    Ndjson,
    /// One alert a line, for people.
    Table,
}

/// What became of the events.
#[derive(Debug, Default)]
struct Tally {
    events: u64,
    dropped: u64,
    dead_letters: u64,
    failures: u64,
    alerts: u64,
}

impl Replay {
    pub(super) fn execute(self) -> Result<ExitCode> {
        let compiled = load_and_compile(&self.resources.paths);
        let errors = diagnostics::print(&compiled.diagnostics);
        let mut plan = compiled.plan;
        let source = events::choose_source(&plan, self.source.as_deref(), None)?;
        plan.sources.entry(source.name.to_string()).or_insert_with(|| Arc::clone(&source));
        let text = events::read_input(&self.events)?;
        let read = events::cut(&source, &text, &self.events, now_millis());
        for refused in &read.refused {
            anstream::eprintln!("{} {refused}", styled(print::RED, "not an event:"));
        }
        let mut tally = Tally { dead_letters: read.refused.len() as u64, ..Tally::default() };
        self.replay(&plan, read.events, &mut tally)?;
        anstream::eprintln!(
            "{} events, {} alerts, {} dropped, {} dead letters, {} failed enrichments",
            tally.events,
            tally.alerts,
            tally.dropped,
            tally.dead_letters,
            tally.failures
        );
        Ok(if errors == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    }

    fn replay(&self, plan: &Plan, raw_events: Vec<RawEvent>, tally: &mut Tally) -> Result<()> {
        let mut correlator = Correlator::new(Arc::clone(&plan.rules), plan.siem.correlate.max_groups as usize);
        // Alerts that may still grow wait for the end; the others are printed as they come.
        let mut growing: BTreeMap<String, Alert> = BTreeMap::new();
        let bar = progress::bar(Some(raw_events.len() as u64), "replaying");
        for raw in raw_events {
            tally.events += 1;
            match plan.process(&raw) {
                Outcome::Dropped { .. } => tally.dropped += 1,
                Outcome::DeadLetter { reason } => {
                    tally.dead_letters += 1;
                    anstream::eprintln!("{} {}: {reason}", styled(print::RED, "dead letter:"), raw.id);
                }
                Outcome::Event { evaluation, failures, .. } => {
                    for failure in failures {
                        tally.failures += 1;
                        anstream::eprintln!("{} Enrichment/{}: {}", styled(print::YELLOW, "failed:"), failure.enrichment, failure.message);
                    }
                    for found in evaluation.matches {
                        let keeps_state = plan.rules.get(&found.rule).is_some_and(|rule| rule.keeps_state());
                        for alert in correlator.apply(found).into_iter().map(Change::into_alert) {
                            if keeps_state {
                                growing.insert(alert.id.clone(), alert);
                            } else {
                                self.show(&alert, tally)?;
                            }
                        }
                    }
                }
            }
            progress::advance(&bar, 1);
        }
        bar.finish_and_clear();
        let mut grown: Vec<Alert> = growing.into_values().collect();
        grown.sort_by(|a, b| (&a.timestamp, &a.id).cmp(&(&b.timestamp, &b.id)));
        for alert in &grown {
            self.show(alert, tally)?;
        }
        Ok(())
    }

    fn show(&self, alert: &Alert, tally: &mut Tally) -> Result<()> {
        tally.alerts += 1;
        match self.output {
            Output::Ndjson => writeln!(std::io::stdout().lock(), "{}", serde_json::to_string(alert)?)?,
            Output::Table => {
                let severity = styled(print::severity_style(alert.severity), &format!("{:<13}", alert.severity.as_str()));
                anstream::println!("{}  {severity} {:<40} {}", alert.timestamp, alert.rule.name, alert.summary);
            }
        }
        Ok(())
    }
}
