//! `redoubt-operator run`: watch, judge, build, apply, until told to stop.

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    process::ExitCode,
    sync::Arc,
    time::Duration,
};

use anyhow::{Context as _, Result, bail};
use clap::{Args, ValueEnum};
use kube::Config;
use tokio::{
    signal::unix::{SignalKind, signal},
    task::JoinSet,
};
use tokio_util::sync::CancellationToken;
use tracing::info;
use tracing_subscriber::EnvFilter;

use crate::{
    client, config,
    health::Health,
    leader,
    metrics::Metrics,
    options::{Images, Options, Scope},
    siem::{self, OperatorPods},
};

/// What libraries log by default.
const QUIET: &str = "kube_runtime=error,kube_client=warn,kube_lease_manager=off";

/// Siems that are reconciled at a time, in each part of the scope.
const RECONCILES: u16 = 4;
/// How long what is under way may go on after the order to stop.
const STOP_WITHIN: Duration = Duration::from_secs(10);

/// Run the operator
///
/// Watches the resources of Redoubt, tells in each one's status what is to be said of it, and keeps what a Siem asks for running. Stops
/// cleanly on Ctrl-C or SIGTERM: what is under way is finished. Nothing is kept on disk; a restart takes up where it was.
#[derive(Debug, Args)]
pub(super) struct Run {
    /// The namespaces to work in, separated by commas [default: all of them].
    ///
    /// With names, a Role in each of them is enough, and namespaces that are not named are never asked about.
    #[arg(long, value_name = "NAMES", value_delimiter = ',', env = "REDOUBT_NAMESPACES")]
    namespaces: Vec<String>,
    /// The address that `/healthz`, `/readyz` and `/metrics` are served on.
    #[arg(long, value_name = "ADDRESS", default_value_t = IpAddr::V4(Ipv4Addr::UNSPECIFIED), env = "REDOUBT_BIND")]
    bind: IpAddr,
    /// Their port.
    #[arg(long, value_name = "PORT", default_value_t = 8080, env = "REDOUBT_HEALTH_PORT")]
    health_port: u16,
    #[command(flatten)]
    images: ImageArgs,
    #[command(flatten)]
    lease: LeaseArgs,
    /// The name of this pod, as events and the lease tell it [default: the host's name].
    #[arg(long, value_name = "NAME", env = "POD_NAME")]
    pod_name: Option<String>,
    /// How much is logged, such as `info` or `warn,redoubt_operator=debug`. Libraries that say again what the operator says are quiet
    /// unless named: `info,kube_client=info`.
    #[arg(long, value_name = "FILTER", default_value = "info", env = "REDOUBT_LOG")]
    log: String,
    /// How the log is written.
    #[arg(long, value_enum, default_value_t = LogFormat::Text, env = "REDOUBT_LOG_FORMAT")]
    log_format: LogFormat,
}

/// Images of what the operator runs, where a Siem names none of its own.
#[derive(Debug, Args)]
#[command(next_help_heading = "Images")]
struct ImageArgs {
    /// The image of the roles: ingest, process, correlate, respond.
    #[arg(long, value_name = "IMAGE", default_value = concat!("redoubt:", env!("CARGO_PKG_VERSION")), env = "REDOUBT_IMAGE")]
    image: String,
    /// The image of RabbitMQ, which keeps the contract of the official one.
    #[arg(long, value_name = "IMAGE", default_value = "docker.io/library/rabbitmq:4.1", env = "REDOUBT_BROKER_IMAGE")]
    broker_image: String,
    /// The image of Elasticsearch, which keeps the contract of the official one.
    #[arg(long, value_name = "IMAGE", default_value = "docker.elastic.co/elasticsearch/elasticsearch:9.1.3", env = "REDOUBT_STORE_IMAGE")]
    store_image: String,
}

/// Several operators, of which one works.
#[derive(Debug, Args)]
#[command(next_help_heading = "Leader election")]
struct LeaseArgs {
    /// Wait until no other operator holds the lease, and end when it is lost.
    #[arg(long, env = "REDOUBT_LEADER_ELECTION")]
    leader_election: bool,
    /// The name of the Lease.
    #[arg(long, value_name = "NAME", default_value = "redoubt-operator", env = "REDOUBT_LEASE_NAME")]
    lease_name: String,
    /// Its namespace [default: that of the pod, or of the kubeconfig's context].
    #[arg(long, value_name = "NAMESPACE", env = "POD_NAMESPACE")]
    lease_namespace: Option<String>,
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
        // What hangs in a call that cannot be interrupted is not waited for.
        runtime.shutdown_timeout(Duration::from_secs(1));
        Ok(ExitCode::SUCCESS)
    }

    async fn serve(self) -> Result<()> {
        let scope = self.scope()?;
        let shutdown = told_to_stop()?;
        let metrics = Metrics::new();
        let health = Health::new(Arc::clone(&metrics));
        health.serve(SocketAddr::new(self.bind, self.health_port), shutdown.clone()).await?;

        let api = Config::infer().await.context("where the API server is: no service account of a pod, and no kubeconfig, tells it")?;
        let lease = self.lease.leader_election.then(|| leader::Lease {
            name: self.lease.lease_name.clone(),
            namespace: self.lease.lease_namespace.clone().unwrap_or_else(|| api.default_namespace.clone()),
            identity: self.instance(),
        });
        let options = Options { scope, images: self.images.images(), instance: self.instance(), pods: self.pods() };
        let client = client::connect(api.clone(), &metrics)?;
        info!(version = env!("CARGO_PKG_VERSION"), scope = ?options.scope, "the operator starts");

        let work = |stop: CancellationToken| work(client, options, Arc::clone(&metrics), health.clone(), stop);
        match lease {
            Some(lease) => leader::lead(api, lease, &metrics, &health, shutdown, STOP_WITHIN, work).await,
            None => leader::alone(&metrics, shutdown, STOP_WITHIN, work).await,
        }
    }

    fn scope(&self) -> Result<Scope> {
        let mut names: Vec<&str> = self.namespaces.iter().map(|name| name.trim()).collect();
        names.sort_unstable();
        names.dedup();
        if names.is_empty() || names == [""] {
            return Ok(Scope::All);
        }
        if names.contains(&"") {
            bail!("--namespaces names an empty namespace; separate names by one comma, or leave it out for all namespaces");
        }
        Ok(Scope::Namespaces(names.into_iter().map(Arc::from).collect()))
    }

    /// Whom NetworkPolicies let in to the servers: the pods of this operator, where it runs in one.
    fn pods(&self) -> Option<OperatorPods> {
        let labels = BTreeMap::from([("app.kubernetes.io/name".to_owned(), "redoubt-operator".to_owned())]);
        self.lease.lease_namespace.clone().map(|namespace| OperatorPods { namespace, labels })
    }

    fn instance(&self) -> String {
        let host = || std::fs::read_to_string("/proc/sys/kernel/hostname").ok().map(|name| name.trim().to_owned());
        self.pod_name.clone().or_else(host).unwrap_or_else(|| "redoubt-operator".to_owned())
    }
}

impl ImageArgs {
    fn images(&self) -> Images {
        Images { roles: self.image.clone(), broker: self.broker_image.clone(), store: self.store_image.clone() }
    }
}

/// All controllers, until one fails or the order to stop.
async fn work(client: kube::Client, options: Options, metrics: Arc<Metrics>, health: Health, stop: CancellationToken) -> Result<()> {
    let mut siems = JoinSet::new();
    for namespace in options.scope.parts() {
        let options = siem::Options {
            images: options.images.clone(),
            operator: options.pods.clone(),
            namespace: namespace.map(|name| name.to_string()),
            concurrency: RECONCILES,
        };
        siems.spawn(siem::run(client.clone(), options, stop.clone().cancelled_owned()));
    }
    config::run(client, &options, metrics, health, stop).await?;
    siems.join_all().await;
    Ok(())
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

/// Cancelled with the first Ctrl-C or SIGTERM. A second one ends the process at once.
fn told_to_stop() -> Result<CancellationToken> {
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let token = CancellationToken::new();
    let stop = token.clone();
    tokio::spawn(async move {
        for again in [false, true] {
            tokio::select! {
                _ = interrupt.recv() => {}
                _ = terminate.recv() => {}
            }
            if again {
                std::process::exit(130);
            }
            info!("stopping: finishing what is under way; again to stop at once");
            stop.cancel();
        }
    });
    Ok(token)
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        run: Run,
    }

    #[test]
    fn namespaces_are_named_once_each_or_are_all() {
        for (arguments, expected) in [
            (vec!["run"], Some(Scope::All)),
            (vec!["run", "--namespaces", "b,a,b"], Some(Scope::Namespaces(vec!["a".into(), "b".into()]))),
            (vec!["run", "--namespaces", ""], Some(Scope::All)),
            (vec!["run", "--namespaces", "a,,b"], None),
        ] {
            let line = Line::try_parse_from(&arguments).unwrap();

            assert_eq!(line.run.scope().ok(), expected, "{arguments:?}");
        }
    }
}
