//! The command line. One file a subcommand; each returns how the process should end.

mod check;
mod diagnostics;
mod dlq;
mod events;
mod explain;
mod generate;
mod import;
mod print;
mod progress;
mod replay;
mod run;
mod search;
mod send;
mod test;

use std::{path::PathBuf, process::ExitCode};

use clap::{Args, CommandFactory as _, Parser, Subcommand};

/// A SIEM that is declared in YAML.
///
/// Give it resources (LogSource, Enrichment, Watchlist, AlertRule, ResponseAction) and it takes events in, enriches, stores and searches
/// them, and raises alerts. The same files run here on one machine and, through the operator, on Kubernetes.
#[derive(Debug, Parser)]
#[command(name = "redoubt", version, propagate_version = true, arg_required_else_help = true, max_term_width = 110)]
#[command(after_long_help = "Examples:
  redoubt check -f config/samples/quickstart          say what is wrong with resources
  redoubt test -f config/samples/quickstart           run the tests that rules and enrichments carry
  redoubt run -f config/samples/quickstart            run the SIEM here
  redoubt replay -f rules/ --events old.ndjson        what would these rules have found in those events?
  redoubt explain -f rules/ --rule NAME --event e.json   why does this rule not fire?
  redoubt import sigma sigma/rules -o rules/          turn Sigma rules into resources
  redoubt search 'source.ip:203.0.113.9' --last 1h    find events
  redoubt dlq list -f config/samples/quickstart       which messages could not be worked on, and why?

Exit status: 0 success; 1 something is wrong with what was given (a resource, a test, an event); 2 wrong usage of the command.")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Run(run::Run),
    Ingest(run::Ingest),
    Process(run::Process),
    Correlate(run::Correlate),
    Respond(run::Respond),
    Check(check::Check),
    Test(test::Test),
    Replay(replay::Replay),
    Explain(explain::Explain),
    Import(import::Import),
    Search(search::Search),
    Dlq(dlq::Dlq),
    Send(send::Send),
    Completions(generate::Completions),
    Man(generate::Man),
}

/// The resources that a command works on.
#[derive(Debug, Args)]
struct ResourceArgs {
    /// A file with resources, or a folder: all .yaml and .yml files below it. May be given more than once.
    #[arg(short = 'f', long = "file", value_name = "PATH", required = true, num_args = 1..)]
    paths: Vec<PathBuf>,
}

/// The resources that a role works on.
#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
struct FollowedArgs {
    /// A file with resources, or a folder: all .yaml and .yml files below it. May be given more than once. Changes are followed.
    #[arg(short = 'f', long = "file", value_name = "PATH", num_args = 1..)]
    paths: Vec<PathBuf>,
    /// Instead of files: the namespace of a Kubernetes cluster whose resources are meant, as the operator's pods do it. Its objects are
    /// followed through the API, by the pod's service account, or outside of a cluster by the file that KUBECONFIG names. Secrets that they
    /// refer to are copied into the folder of --secrets and kept up to date.
    #[arg(long, value_name = "NAMESPACE", env = "REDOUBT_NAMESPACE", value_parser = namespace)]
    namespace: Option<String>,
}

/// A DNS label (RFC 1123), as Kubernetes asks of a namespace.
fn namespace(text: &str) -> Result<String, String> {
    let inner = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    let is_label = !text.is_empty() && text.len() <= 63 && text.chars().all(inner) && !text.starts_with('-') && !text.ends_with('-');
    is_label.then(|| text.to_owned()).ok_or_else(|| "use lower-case letters, digits and '-', at most 63, no '-' first or last".to_owned())
}

/// Where a process keeps what is its own.
#[derive(Debug, Args)]
struct DataArgs {
    /// The data folder of `redoubt run`: where the queue and the store live.
    #[arg(long, value_name = "DIR", default_value = "data", env = "REDOUBT_DATA")]
    data: PathBuf,
    /// Where secrets lie, as files NAME/KEY, the way Kubernetes mounts them [default: DATA/secrets].
    #[arg(long, value_name = "DIR", env = "REDOUBT_SECRETS")]
    secrets: Option<PathBuf>,
}

impl DataArgs {
    /// The folder of secrets.
    fn secrets(&self) -> PathBuf {
        self.secrets.clone().unwrap_or_else(|| self.data.join("secrets"))
    }
}

/// Runs the command that the process was started with.
#[must_use]
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    let done = match cli.command {
        Command::Run(run) => run.execute(),
        Command::Ingest(ingest) => ingest.execute(),
        Command::Process(process) => process.execute(),
        Command::Correlate(correlate) => correlate.execute(),
        Command::Respond(respond) => respond.execute(),
        Command::Check(check) => check.execute(),
        Command::Test(test) => test.execute(),
        Command::Replay(replay) => replay.execute(),
        Command::Explain(explain) => explain.execute(),
        Command::Import(import) => import.execute(),
        Command::Search(search) => search.execute(),
        Command::Dlq(dlq) => dlq.execute(),
        Command::Send(send) => send.execute(),
        Command::Completions(completions) => completions.execute(&mut Cli::command()),
        Command::Man(man) => man.execute(Cli::command()),
    };
    done.unwrap_or_else(|error| {
        anstream::eprintln!("{}error:{} {error:#}", print::RED.render(), print::RED.render_reset());
        ExitCode::FAILURE
    })
}
