//! `redoubt run`: the SIEM on this machine; and each of its roles in a process of its own.

use std::{
    net::{IpAddr, Ipv4Addr},
    path::PathBuf,
    pin::pin,
    process::ExitCode,
    sync::Arc,
};

use anyhow::{Context as _, Result};
use clap::{Args, ValueEnum};
use redoubt_engine::resource::Kind;
use tokio::signal::unix::{SignalKind, signal};
use tracing::info;
use tracing_subscriber::EnvFilter;

use super::{DataArgs, FollowedArgs, ResourceArgs, diagnostics};
use crate::{
    kubernetes::Namespace,
    metrics::Metrics,
    resources::Watched,
    role::Role,
    run::{Options, start},
};

/// Run the SIEM on this machine
///
/// Every role in one process, on a queue and a store in the data folder, or on a RabbitMQ and an Elasticsearch that the Siem names.
/// Resources are followed: a change is live within two seconds, and a resource that has become wrong keeps its last good version. Ctrl-C
/// stops cleanly: what was accepted is in the queue or in the store, and goes on with the next start.
#[derive(Debug, Args)]
pub(super) struct Run {
    #[command(flatten)]
    resources: ResourceArgs,
    #[command(flatten)]
    process: ProcessArgs,
}

/// Run the role that takes events in
///
/// Listens for senders and answers them when RabbitMQ has confirmed their events. Run as many as senders need, behind a load balancer.
/// With resources from files, the Siem must name a RabbitMQ (spec.broker.external). `/healthz`, `/readyz` and `/metrics` are on the HTTP
/// listener, and on a port of their own where one is given.
#[derive(Debug, Args)]
pub(super) struct Ingest {
    #[command(flatten)]
    resources: FollowedArgs,
    #[command(flatten)]
    process: ProcessArgs,
    /// A port of its own, without TLS, for `/healthz`, `/readyz`, `/metrics` and `/programmed`.
    #[arg(long, value_name = "PORT", env = "REDOUBT_HEALTH_PORT")]
    health_port: Option<u16>,
}

/// Run the role that understands, enriches, matches and stores events
///
/// Run as many as there is work for: they share one queue. With resources from files, the Siem must name a RabbitMQ (spec.broker.external)
/// and an Elasticsearch (spec.store.external).
#[derive(Debug, Args)]
pub(super) struct Process {
    #[command(flatten)]
    role: RoleArgs,
}

/// Run the role that brings matches together into alerts
///
/// Each partition of the matches has one process at a time; run two or more, and another takes over where one goes. With resources from
/// files, the Siem must name a RabbitMQ (spec.broker.external) and an Elasticsearch (spec.store.external).
#[derive(Debug, Args)]
pub(super) struct Correlate {
    #[command(flatten)]
    role: RoleArgs,
}

/// Run the role that does what is to be done about alerts
///
/// Calls webhooks and writes alerts to its log, as the ResponseActions say. Several share the work, and none does it twice. With resources
/// from files, the Siem must name a RabbitMQ (spec.broker.external) and an Elasticsearch (spec.store.external).
#[derive(Debug, Args)]
pub(super) struct Respond {
    #[command(flatten)]
    role: RoleArgs,
}

#[derive(Debug, Args)]
struct RoleArgs {
    #[command(flatten)]
    resources: FollowedArgs,
    #[command(flatten)]
    process: ProcessArgs,
    /// The port of `/healthz`, `/readyz`, `/metrics` and `/programmed`.
    #[arg(long, value_name = "PORT", default_value_t = 8081, env = "REDOUBT_HEALTH_PORT")]
    health_port: u16,
}

#[derive(Debug, Args)]
struct ProcessArgs {
    #[command(flatten)]
    place: DataArgs,
    /// The address that listeners bind to; 0.0.0.0 or :: lets others reach them.
    #[arg(long, value_name = "ADDRESS", default_value_t = IpAddr::V4(Ipv4Addr::LOCALHOST))]
    bind: IpAddr,
    /// How much is logged, such as `info` or `warn,redoubt=debug`. Libraries that say again what Redoubt says are quiet unless named:
    /// `info,lapin=warn`.
    #[arg(long, value_name = "FILTER", default_value = "info", env = "REDOUBT_LOG")]
    log: String,
    /// How the log is written.
    #[arg(long, value_enum, default_value_t = LogFormat::Text, env = "REDOUBT_LOG_FORMAT")]
    log_format: LogFormat,
}

/// What libraries log by default.
const QUIET: &str = "tantivy=warn,lapin=off,kube_client=off,kube_runtime=off,tower=off";

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

/// Where a process finds its resources.
enum Resources {
    Files(Vec<PathBuf>),
    Namespace(String),
}

impl From<FollowedArgs> for Resources {
    fn from(followed: FollowedArgs) -> Self {
        followed.namespace.map_or(Self::Files(followed.paths), Self::Namespace)
    }
}

impl Run {
    pub(super) fn execute(self) -> Result<ExitCode> {
        self.process.execute(Resources::Files(self.resources.paths), None, None)
    }
}

impl Ingest {
    pub(super) fn execute(self) -> Result<ExitCode> {
        self.process.execute(self.resources.into(), Some(Role::Ingest), self.health_port)
    }
}

impl Process {
    pub(super) fn execute(self) -> Result<ExitCode> {
        self.role.execute(Role::Process)
    }
}

impl Correlate {
    pub(super) fn execute(self) -> Result<ExitCode> {
        self.role.execute(Role::Correlate)
    }
}

impl Respond {
    pub(super) fn execute(self) -> Result<ExitCode> {
        self.role.execute(Role::Respond)
    }
}

impl RoleArgs {
    fn execute(self, role: Role) -> Result<ExitCode> {
        self.process.execute(self.resources.into(), Some(role), Some(self.health_port))
    }
}

impl ProcessArgs {
    fn execute(self, resources: Resources, role: Option<Role>, health_port: Option<u16>) -> Result<ExitCode> {
        start_logging(&self.log, self.log_format)?;
        // A provider can be installed once in a process, and this is the first to do it.
        drop(rustls::crypto::ring::default_provider().install_default());
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
        runtime.block_on(self.serve(resources, role, health_port))?;
        Ok(ExitCode::SUCCESS)
    }

    async fn serve(self, resources: Resources, role: Option<Role>, health_port: Option<u16>) -> Result<()> {
        let mut told_to_stop = pin!(told_to_stop()?);
        let metrics = Metrics::new();
        let loading = Arc::clone(&metrics);
        let watched = match resources {
            Resources::Files(paths) => {
                let (watched, found) = tokio::task::spawn_blocking(move || Watched::start(paths, loading)).await?;
                if diagnostics::print(&found) > 0 {
                    info!("the resources above are left out; all others run");
                }
                watched
            }
            Resources::Namespace(name) => {
                let kinds = role.map_or(&Kind::ALL[..], Role::kinds);
                Watched::of_namespace(&Namespace::connect(&name).await?, kinds, loading)
            }
        };
        let plans = watched.plans();
        let (secrets, data) = (self.place.secrets(), self.place.data);
        let options = Options { data, secrets, bind: self.bind, role, health_port };
        let running = tokio::select! {
            running = start(&options, watched, metrics) => running?,
            // Nothing has been taken in yet.
            () = &mut told_to_stop => return Ok(()),
        };
        let counts: Vec<String> = plans.borrow().counts().iter().map(|(kind, count)| format!("{count} {kind}")).collect();
        let role = role.map_or_else(|| "all".to_owned(), |role| role.to_string());
        info!(role, data = %options.data.display(), resources = counts.join(", "), "redoubt runs; Ctrl-C stops it");
        running.until(told_to_stop).await
    }
}

fn start_logging(filter: &str, format: LogFormat) -> Result<()> {
    // Of two words on one library the later counts.
    let filter = EnvFilter::try_new(format!("{QUIET},{filter}")).with_context(|| format!("{filter:?} is no log filter"))?;
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
