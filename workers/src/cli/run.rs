//! `redoubt run`: the SIEM on this machine.

use std::{
    net::{IpAddr, Ipv4Addr},
    path::PathBuf,
    process::ExitCode,
    sync::Arc,
};

use anyhow::{Context as _, Result};
use clap::{Args, ValueEnum};
use tokio::signal::unix::{SignalKind, signal};
use tracing::info;
use tracing_subscriber::EnvFilter;

use super::{ResourceArgs, diagnostics};
use crate::{
    metrics::Metrics,
    resources::Watched,
    run::{Options, start},
};

/// Run the SIEM on this machine
///
/// Every role in one process, on a queue and a store in the data folder. Resources are followed: a change is live within two seconds,
/// and a resource that has become wrong keeps its last good version. Ctrl-C stops cleanly: what was accepted is in the queue or in the
/// store, and goes on with the next start.
#[derive(Debug, Args)]
pub(super) struct Run {
    #[command(flatten)]
    resources: ResourceArgs,
    /// Where the queue and the store live.
    #[arg(long, value_name = "DIR", default_value = "data", env = "REDOUBT_DATA")]
    data: PathBuf,
    /// Where secrets lie, as files NAME/KEY, the way Kubernetes mounts them [default: DATA/secrets].
    #[arg(long, value_name = "DIR", env = "REDOUBT_SECRETS")]
    secrets: Option<PathBuf>,
    /// The address that listeners bind to; 0.0.0.0 or :: lets others reach them.
    #[arg(long, value_name = "ADDRESS", default_value_t = IpAddr::V4(Ipv4Addr::LOCALHOST))]
    bind: IpAddr,
    /// How much is logged, such as `info` or `warn,redoubt=debug`.
    #[arg(long, value_name = "FILTER", default_value = "info,tantivy=warn", env = "REDOUBT_LOG")]
    log: String,
    /// How the log is written.
    #[arg(long, value_enum, default_value_t = LogFormat::Text, env = "REDOUBT_LOG_FORMAT")]
    log_format: LogFormat,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

impl Run {
    pub(super) fn execute(self) -> Result<ExitCode> {
        start_logging(&self.log, self.log_format)?;
        // A provider can be installed once in a process, and this is the first to do it.
        drop(rustls::crypto::ring::default_provider().install_default());
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
        runtime.block_on(self.serve())?;
        Ok(ExitCode::SUCCESS)
    }

    async fn serve(self) -> Result<()> {
        let metrics = Metrics::new();
        let paths = self.resources.paths.clone();
        let loading = Arc::clone(&metrics);
        let (watched, found) = tokio::task::spawn_blocking(move || Watched::start(paths, loading)).await?;
        if diagnostics::print(&found) > 0 {
            info!("the resources above are left out; all others run");
        }
        let secrets = self.secrets.unwrap_or_else(|| self.data.join("secrets"));
        let options = Options { resources: self.resources.paths, data: self.data, secrets, bind: self.bind };
        let counts: Vec<String> = watched.plans().borrow().counts().iter().map(|(kind, count)| format!("{count} {kind}")).collect();
        let running = start(&options, watched, metrics).await?;
        info!(data = %options.data.display(), resources = counts.join(", "), "redoubt runs; Ctrl-C stops it");
        running.until(told_to_stop()?).await
    }
}

fn start_logging(filter: &str, format: LogFormat) -> Result<()> {
    let filter = EnvFilter::try_new(filter).with_context(|| format!("{filter:?} is no log filter"))?;
    let colours = std::io::IsTerminal::is_terminal(&std::io::stderr()) && std::env::var_os("NO_COLOR").is_none();
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_ansi(colours).with_target(false);
    match format {
        LogFormat::Text => builder.init(),
        LogFormat::Json => builder.json().init(),
    }
    Ok(())
}

/// Ends with the first Ctrl-C or SIGTERM. A second one ends the process at once, which loses nothing that was accepted.
fn told_to_stop() -> Result<impl Future<Output = ()>> {
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    Ok(async move {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
        info!("stopping: finishing what is under way; again to stop at once");
        tokio::spawn(async move {
            tokio::select! {
                _ = interrupt.recv() => {}
                _ = terminate.recv() => {}
            }
            std::process::exit(130);
        });
    })
}
