//! `redoubt dlq`: the messages that were set aside, and what to do with them.

use std::{io::Write as _, process::ExitCode};

use anyhow::{Context as _, Result, bail};
use clap::{Args, Subcommand};
use serde_json::{Value, json};

use super::{
    DataArgs, ResourceArgs, diagnostics,
    print::{DIM, counted, styled},
};
use crate::{
    batch::{self, Kind},
    broker::{
        Broker, DeadMessage,
        embedded::OpenError,
        rabbitmq::{Bounds, RabbitMq},
    },
    resources::load_and_compile,
    run::open_embedded_broker,
    secrets::Secrets,
};

/// Look at messages that were set aside, and replay or drop them
///
/// A message is a batch of events, matches or alerts on its way between two roles. One that was handed out spec.broker.deliveryLimit times
/// without success is set aside with the reason, so that it does not hold up those behind it. Nothing in it is lost: find out what
/// it died of (`list`, `show`), repair that, and `replay` it; or `drop` it if it is beyond repair. Replaying a message that was worked
/// on in part is harmless: events, alerts and responses have ids by which a repeat is found.
///
/// Single events that could not be read or stored are not here but in the store: `redoubt search --what dead-letters`.
///
/// With a RabbitMQ (spec.broker.external) this works beside the running SIEM. The queue in a data folder belongs to one process, so
/// stop `redoubt run` first.
#[derive(Debug, Args)]
#[command(after_long_help = "Examples:
  redoubt dlq list -f siem.yaml                 what was set aside, and why
  redoubt dlq show 3f2a61b09c11d7e4 -f siem.yaml   what is in it
  redoubt dlq replay 3f2a61b09c11d7e4 -f siem.yaml
  redoubt dlq replay --all -f siem.yaml         after a repair
  redoubt dlq drop 3f2a61b09c11d7e4 -f siem.yaml")]
pub(super) struct Dlq {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// List dead messages, oldest first: id, where from, size, why
    List {
        /// The most to list.
        #[arg(short = 'n', long, default_value_t = 100)]
        limit: usize,
        /// One JSON object a line instead of a table.
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        place: Place,
    },
    /// Show what is in a dead message: its items, one JSON object a line
    Show {
        /// The message's id, as `list` prints it.
        id: String,
        /// The message as it is, byte by byte.
        #[arg(long)]
        raw: bool,
        #[command(flatten)]
        place: Place,
    },
    /// Put dead messages back at the end of the queue that they came from
    Replay {
        #[command(flatten)]
        chosen: Chosen,
        #[command(flatten)]
        place: Place,
    },
    /// Delete dead messages
    Drop {
        #[command(flatten)]
        chosen: Chosen,
        #[command(flatten)]
        place: Place,
    },
}

#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
struct Chosen {
    /// Ids of messages, as `list` prints them.
    #[arg(value_name = "ID")]
    ids: Vec<String>,
    /// All that there are now.
    #[arg(long)]
    all: bool,
}

/// Where the queue is.
#[derive(Debug, Args)]
struct Place {
    #[command(flatten)]
    resources: ResourceArgs,
    #[command(flatten)]
    data: DataArgs,
}

impl Place {
    fn open(&self) -> Result<Box<dyn Broker>> {
        let compiled = load_and_compile(&self.resources.paths);
        diagnostics::print(&compiled.diagnostics);
        let settings = &compiled.plan.siem.broker;
        if let Some(external) = &settings.external {
            let secrets = Secrets::new(self.data.secrets());
            let bounds = Bounds { max_bytes: settings.max_bytes, delivery_limit: settings.delivery_limit };
            return Ok(Box::new(RabbitMq::new(external, bounds, secrets, "redoubt dlq")));
        }
        let data = &self.data.data;
        if !data.join("queue").exists() {
            bail!("there is no queue in {}: name the data folder of `redoubt run` with --data", data.display());
        }
        match open_embedded_broker(data, &compiled.plan) {
            Ok(broker) => Ok(Box::new(broker)),
            Err(error) if matches!(error.downcast_ref(), Some(OpenError::InUse { .. })) => {
                Err(error.context("`redoubt run` has the queue open; stop it, do this, and start it again: nothing is lost meanwhile"))
            }
            Err(error) => Err(error),
        }
    }
}

impl Dlq {
    pub(super) fn execute(self) -> Result<ExitCode> {
        drop(rustls::crypto::ring::default_provider().install_default());
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
        runtime.block_on(self.act())
    }

    async fn act(self) -> Result<ExitCode> {
        let place = match &self.action {
            Action::List { place, .. } | Action::Show { place, .. } | Action::Replay { place, .. } | Action::Drop { place, .. } => place,
        };
        let broker = place.open()?;
        let done = match &self.action {
            Action::List { limit, json, .. } => list(&*broker, *limit, *json).await,
            Action::Show { id, raw, .. } => show(&*broker, id, *raw).await,
            Action::Replay { chosen, .. } => each(&*broker, chosen, "replayed").await,
            Action::Drop { chosen, .. } => each(&*broker, chosen, "dropped").await,
        };
        broker.close().await;
        done
    }
}

async fn list(broker: &dyn Broker, limit: usize, as_json: bool) -> Result<ExitCode> {
    let dead = broker.dead_messages(limit).await.context("listing the dead messages")?;
    let mut out = anstream::stdout().lock();
    for message in &dead {
        let DeadMessage { id, topic, subscription, reason, body } = message;
        if as_json {
            let line = json!({ "id": id, "topic": topic, "subscription": subscription, "bytes": body.len(), "reason": reason });
            writeln!(out, "{line}")?;
        } else {
            writeln!(out, "{id}  {topic}  {}  {reason}", styled(DIM, &format!("{} bytes for {subscription}", body.len())))?;
        }
    }
    if !as_json {
        let more = if dead.len() == limit { " or more; -n shows more" } else { "" };
        anstream::eprintln!("{}", styled(DIM, &format!("{}{more}", counted(dead.len(), "dead message"))));
    }
    Ok(ExitCode::SUCCESS)
}

async fn show(broker: &dyn Broker, id: &str, raw: bool) -> Result<ExitCode> {
    let dead = broker.dead_messages(usize::MAX).await.context("looking for the dead message")?;
    let Some(message) = dead.into_iter().find(|message| message.id == id) else { bail!(unknown(id)) };
    let mut out = std::io::stdout().lock();
    if raw {
        out.write_all(&message.body)?;
        return Ok(ExitCode::SUCCESS);
    }
    let DeadMessage { topic, subscription, reason, body, .. } = message;
    anstream::eprintln!("{}", styled(DIM, &format!("{topic} for {subscription}, {} bytes: {reason}", body.len())));
    for item in items(&body)? {
        writeln!(out, "{item}")?;
    }
    Ok(ExitCode::SUCCESS)
}

/// What a message holds, whatever its kind.
fn items(body: &[u8]) -> Result<Vec<Value>> {
    let events = match batch::decode_events(body) {
        Ok(events) => return Ok(events.into_iter().map(|event| json!(event)).collect()),
        Err(error) => error,
    };
    let others = [Kind::Matches, Kind::Alerts].into_iter().find_map(|kind| batch::decode::<Value>(kind, body).ok());
    others.with_context(|| format!("what is in the message cannot be read ({events}); --raw prints it as it is"))
}

/// Does one thing with each message; the first failure ends it.
async fn each(broker: &dyn Broker, chosen: &Chosen, done: &str) -> Result<ExitCode> {
    let ids = if chosen.all {
        broker.dead_messages(usize::MAX).await.context("listing the dead messages")?.into_iter().map(|message| message.id).collect()
    } else {
        chosen.ids.clone()
    };
    let mut missing = 0;
    for id in &ids {
        let was_there = if done == "replayed" { broker.replay_dead(id).await } else { broker.drop_dead(id).await };
        if was_there.with_context(|| format!("the message {id} was not {done}, nor were those after it"))? {
            anstream::println!("{done} {id}");
        } else if !chosen.all {
            missing += 1;
            anstream::eprintln!("{}", unknown(id));
        }
    }
    Ok(if missing == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn unknown(id: &str) -> String {
    format!("there is no dead message {id}; `redoubt dlq list` shows those that there are")
}
