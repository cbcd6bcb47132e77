//! The command line. One file a subcommand; each returns how the process should end.

mod check;
mod run;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// The Kubernetes operator of Redoubt.
///
/// It makes a running SIEM of the resources in a cluster: it runs what a Siem asks for, and tells of each LogSource, Enrichment, Watchlist,
/// AlertRule and ResponseAction whether it is accepted, why not, and whether the workers run it.
#[derive(Debug, Parser)]
#[command(name = "redoubt-operator", version, propagate_version = true, arg_required_else_help = true, max_term_width = 110)]
#[command(after_long_help = "Examples:
  redoubt-operator run                                work in all namespaces (needs the ClusterRole)
  redoubt-operator run --namespaces soc,lab           work in these alone (needs the Role in each)
  redoubt-operator run --leader-election              be one of several, of which one works at a time
  redoubt-operator check                              tell whether all that it needs is there and allowed

It finds the API server as kubectl does: by the pod's service account, or by KUBECONFIG.

Exit status: 0 it was told to stop, or all is well; 1 it could not start, lost the lease to another, or something is missing; 2 wrong usage
of the command.")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Run(run::Run),
    Check(check::Check),
}

/// Runs the command that the process was started with.
#[must_use]
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    let done = match cli.command {
        Command::Run(run) => run.execute(),
        Command::Check(check) => check.execute(),
    };
    done.unwrap_or_else(|error| {
        eprintln!("error: {error:#}");
        ExitCode::FAILURE
    })
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_command_line_is_sound() {
        Cli::command().debug_assert();
    }
}
