//! `redoubt-operator check`: could the operator work here, and does one?

use std::{
    collections::BTreeSet,
    process::ExitCode,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};
use clap::Args;
use futures::{StreamExt as _, TryStreamExt as _, stream};
use k8s_openapi::api::authorization::v1::{ResourceAttributes, SelfSubjectAccessReview, SelfSubjectAccessReviewSpec};
use kube::{Api, Client, Config, api::PostParams};
use reqwest::Url;

use crate::{
    client,
    metrics::Metrics,
    permissions::{Permission, permissions},
};

/// How many questions are under way at a time.
const AT_ONCE: usize = 16;
/// The pause between two looks at an operator that is not ready.
const PAUSE: Duration = Duration::from_secs(1);

/// Check that the operator can work here
///
/// Asks the API server whether it knows the kinds of Redoubt, and whether whoever runs this command may do all that the operator has to;
/// with --operator, waits until a running operator is ready. Changes nothing. Exit status 1 tells that something is missing, and the text
/// what.
#[derive(Debug, Args)]
pub(super) struct Check {
    /// The namespaces to ask about, separated by commas [default: all of them].
    #[arg(long, value_name = "NAMES", value_delimiter = ',', env = "REDOUBT_NAMESPACES")]
    namespaces: Vec<String>,
    /// Where an operator serves its page of health, such as `http://redoubt.redoubt-system.svc:8080`.
    #[arg(long, value_name = "URL")]
    operator: Option<Url>,
    /// How long to wait for it to be ready.
    #[arg(long, value_name = "SECONDS", default_value_t = 60)]
    within: u64,
}

impl Check {
    pub(super) fn execute(self) -> Result<ExitCode> {
        // A provider can be installed once in a process, and this is the first to do it.
        drop(rustls::crypto::ring::default_provider().install_default());
        tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(self.ask())
    }

    async fn ask(self) -> Result<ExitCode> {
        let config = Config::infer().await.context("where the API server is: no service account of a pod, and no kubeconfig, tells it")?;
        let client = client::connect(config, &Metrics::new())?;
        let places: Vec<Option<&str>> = match self.namespaces.iter().map(|name| name.trim()).filter(|name| !name.is_empty()).collect() {
            names if Vec::<&str>::is_empty(&names) => vec![None],
            names => names.into_iter().map(Some).collect(),
        };

        let mut complaints = unknown_kinds(&client).await?;
        println!("{}", verdict("the API server knows the kinds of Redoubt", complaints.is_empty()));
        let denied = denied(&client, &places).await?;
        println!("{}", verdict("the operator may do all that it has to", denied.is_empty()));
        complaints.extend(denied);
        if let Some(operator) = &self.operator {
            let not_ready = not_ready(operator, Duration::from_secs(self.within)).await?;
            println!("{}", verdict("the operator is ready", not_ready.is_none()));
            complaints.extend(not_ready);
        }
        for complaint in &complaints {
            println!("{complaint}");
        }
        Ok(if complaints.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    }
}

fn verdict(what: &str, holds: bool) -> String {
    format!("{}: {what}", if holds { "yes" } else { "no" })
}

/// The kinds that the API server does not serve.
async fn unknown_kinds(client: &Client) -> Result<Vec<String>> {
    let served = match client.list_api_group_resources(redoubt_crds::API_VERSION).await {
        Ok(list) => list.resources.into_iter().map(|resource| resource.name).collect(),
        Err(kube::Error::Api(status)) if status.code == 404 => BTreeSet::new(),
        Err(error) => return Err(error).context("cannot ask the API server for its kinds"),
    };
    let missing = redoubt_crds::definitions().into_iter().map(|definition| definition.spec.names.plural);
    let missing = missing.filter(|plural| !served.contains(plural));
    Ok(missing.map(|plural| format!("The API server does not know {plural}.{}: apply the folder crds/.", redoubt_crds::GROUP)).collect())
}

/// What the operator would have to do and may not.
async fn denied(client: &Client, places: &[Option<&str>]) -> Result<Vec<String>> {
    let wanted = permissions();
    let questions = places.iter().flat_map(|place| wanted.iter().map(move |permission| (*place, permission)));
    let answers = stream::iter(questions).map(|(place, permission)| async move {
        let allowed = allowed(client, place, permission).await?;
        anyhow::Ok((!allowed).then(|| {
            let place = place.map_or_else(|| "in all namespaces".to_owned(), |name| format!("in the namespace {name}"));
            format!("No right to {permission} {place}: the Role or ClusterRole of this release's chart gives it.")
        }))
    });
    let answers: Vec<Option<String>> = answers.buffered(AT_ONCE).try_collect().await?;
    Ok(answers.into_iter().flatten().collect())
}

async fn allowed(client: &Client, namespace: Option<&str>, permission: &Permission) -> Result<bool> {
    let attributes = ResourceAttributes {
        group: Some(permission.group.clone()),
        resource: Some(permission.resource.clone()),
        subresource: permission.subresource.clone(),
        verb: Some(permission.verb.clone()),
        namespace: namespace.map(str::to_owned),
        ..ResourceAttributes::default()
    };
    let spec = SelfSubjectAccessReviewSpec { resource_attributes: Some(attributes), ..SelfSubjectAccessReviewSpec::default() };
    let review = SelfSubjectAccessReview { spec, ..SelfSubjectAccessReview::default() };
    let answer = Api::all(client.clone()).create(&PostParams::default(), &review).await.context("cannot ask the API server for rights")?;
    Ok(answer.status.is_some_and(|status| status.allowed))
}

/// Why an operator is not ready, if it is not within this time.
async fn not_ready(operator: &Url, within: Duration) -> Result<Option<String>> {
    let page = operator.join("readyz").with_context(|| format!("--operator {operator} is no URL of a page"))?;
    let http = reqwest::Client::builder().timeout(Duration::from_secs(5)).no_proxy().build()?;
    let until = Instant::now() + within;
    loop {
        let said = match http.get(page.clone()).send().await {
            Ok(answer) if answer.status().is_success() => return Ok(None),
            // A page of ours is one line; nothing longer is read than its status needs.
            Ok(answer) => format!("{page} answers {}", answer.status()),
            Err(error) => format!("{page} cannot be reached: {}", error.without_url()),
        };
        if Instant::now() + PAUSE > until {
            return Ok(Some(format!("{said}, for {} seconds: look at the operator's log.", within.as_secs())));
        }
        tokio::time::sleep(PAUSE).await;
    }
}
