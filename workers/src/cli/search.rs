//! `redoubt search`: finds events, alerts and dead letters in the store of a data folder, also while `redoubt run` uses it, or in the
//! cluster that the Siem names.

use std::{io::Write as _, path::PathBuf, process::ExitCode};

use anyhow::{Context as _, Result, anyhow};
use clap::{Args, ValueEnum};
use redoubt_crds::Duration;
use redoubt_engine::event::lookup;
use serde_json::Value;

use super::{
    DataArgs,
    print::{DIM, counted, styled},
};
use crate::{
    resources::load_and_compile,
    run::now_millis,
    secrets::Secrets,
    store::{
        Family, Hit, SearchRequest, SearchResponse, Store as _,
        elasticsearch::{ElasticsearchStore, Options},
        embedded::StoreReader,
    },
};

/// How long a person waits for a cluster that does not answer.
const PATIENCE: std::time::Duration = std::time::Duration::from_secs(5);

/// Find events, alerts or dead letters
///
/// The query is in query-string syntax: `source.ip:203.0.113.9 AND event.outcome:failure`, `details.EventID:4688`,
/// `message:"failed password"`, `process.name:power*`, `event.severity:>=3`, `_exists_:user.name`. An empty query finds everything.
#[derive(Debug, Args)]
pub(super) struct Search {
    /// What to look for.
    #[arg(default_value = "")]
    query: String,
    #[command(flatten)]
    place: DataArgs,
    /// Resources, as for `redoubt run`: if their Siem names an Elasticsearch, it is searched instead of the data folder.
    #[arg(short = 'f', long = "file", value_name = "PATH", num_args = 1..)]
    resources: Vec<PathBuf>,
    /// What to look through.
    #[arg(long, value_enum, default_value_t = What::Events)]
    what: What,
    /// How far back, by the time at which it happened, such as 15m, 24h or 7d.
    #[arg(long, value_name = "DURATION", default_value = "24h")]
    last: Duration,
    /// Look at all times.
    #[arg(long, conflicts_with = "last")]
    all: bool,
    /// The most to print, newest first; at most 10,000.
    #[arg(short = 'n', long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(0..=10_000))]
    limit: u32,
    /// How to print.
    #[arg(short = 'o', long = "output", value_enum, default_value_t = Output::Table)]
    output: Output,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum What {
    /// What was taken in.
    Events,
    /// What rules raised.
    Alerts,
    /// What was done about alerts.
    Responses,
    /// What could not be taken, and why.
    DeadLetters,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Output {
    /// One line each, for people.
    Table,
    /// One whole document a line, as JSON.
    Ndjson,
}

impl Search {
    pub(super) fn execute(self) -> Result<ExitCode> {
        let family = match self.what {
            What::Events => Family::Events,
            What::Alerts => Family::Alerts,
            What::Responses => Family::Responses,
            What::DeadLetters => Family::DeadLetters,
        };
        let request = SearchRequest {
            query: self.query.clone(),
            from_millis: (!self.all).then(|| now_millis().saturating_sub(self.last.as_millis())),
            size: self.limit as usize,
            ..SearchRequest::default()
        };
        let found = self.find(family, request)?;
        for hit in &found.hits {
            self.show(hit)?;
        }
        let shown = if found.hits.len() as u64 == found.total { String::new() } else { format!(", {} shown", found.hits.len()) };
        anstream::eprintln!("{} found{shown}", counted(usize::try_from(found.total).unwrap_or(usize::MAX), "document"));
        Ok(ExitCode::SUCCESS)
    }

    fn find(&self, family: Family, request: SearchRequest) -> Result<SearchResponse> {
        let external = match self.resources.as_slice() {
            [] => None,
            paths => load_and_compile(paths).plan.siem.store.external.clone(),
        };
        let Some(external) = external else {
            let folder = self.place.data.join("store");
            let store = StoreReader::open(&folder).with_context(|| format!("opening the store in {}", folder.display()))?;
            return Ok(store.search(family, &request)?);
        };
        let secrets = Secrets::new(self.place.secrets());
        // Fails only where another one is installed, which is as good.
        drop(rustls::crypto::ring::default_provider().install_default());
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(async {
            let opened = ElasticsearchStore::open_to_read(&external, secrets, &Options { patience: PATIENCE, ..Options::default() }).await;
            let store = opened.map_err(|error| anyhow!("the store at {}: {error}", external.urls.join(", ")))?;
            Ok(store.search(family, request).await?)
        })
    }

    fn show(&self, hit: &Hit) -> Result<()> {
        if self.output == Output::Ndjson {
            writeln!(std::io::stdout().lock(), "{}", serde_json::to_string(&hit.body)?)?;
            return Ok(());
        }
        let columns: &[&str] = match self.what {
            What::Events => &["event.dataset", "host.name", "source.ip", "user.name", "event.action"],
            What::Alerts => &["severity", "rule.name", "summary"],
            What::Responses => &["action", "state", "rule.name", "detail"],
            What::DeadLetters => &["source.name", "reason"],
        };
        let text = |path: &str| lookup(&hit.body, path).map(plain).filter(|text| !text.is_empty());
        let mut line = styled(DIM, &text("@timestamp").unwrap_or_default());
        for column in columns {
            line.push_str("  ");
            line.push_str(text(column).as_deref().unwrap_or("-"));
        }
        if self.what == What::Events
            && let Some(message) = text("message")
        {
            line.push_str("  ");
            line.push_str(&message.chars().take(200).collect::<String>());
        }
        anstream::println!("{line}");
        Ok(())
    }
}

fn plain(value: &Value) -> String {
    match value {
        Value::String(text) => text.replace(char::is_control, " "),
        Value::Null => String::new(),
        other => other.to_string(),
    }
}
