//! The controller of Siems alone, for trials: `siem ROLES-IMAGE RABBITMQ-IMAGE ELASTICSEARCH-IMAGE [NAMESPACE]`, with `KUBECONFIG` set.

use redoubt_operator::siem::{Images, Options, run};

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    tracing_subscriber::fmt().with_env_filter("info").with_ansi(false).with_writer(std::io::stderr).init();
    drop(rustls::crypto::ring::default_provider().install_default());
    let mut arguments = std::env::args().skip(1);
    let mut image = || arguments.next().ok_or_else(|| anyhow::anyhow!("three images are needed: roles, RabbitMQ, Elasticsearch"));
    let images = Images { roles: image()?, broker: image()?, store: image()? };
    let options = Options { images, operator: None, namespace: arguments.next(), concurrency: 2 };
    run(kube::Client::try_default().await?, options, async { drop(tokio::signal::ctrl_c().await) }).await;
    Ok(())
}
