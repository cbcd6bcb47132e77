//! The controller of the kinds that say what the SIEM does: LogSource, Enrichment, Watchlist, AlertRule, ResponseAction, and of a Siem
//! whether it is the one that counts.
//!
//! ```text
//! watch --events--> index --changes--> write --status, ConfigMap, event--> API server
//!                     | ^
//!            questions| |answers
//!                     v |
//!                     ask --GET /programmed--> workers
//! ```
//!
//! [`index`] decides everything and touches nothing; [`watch`] feeds it, [`write`](mod@write) and [`ask`] do what it says, and what came of
//! that goes back into it. This loop is all that connects them. Judging thousands of rules takes seconds of processor time: it goes in
//! slices, on a thread of its own, and what each slice found is written while the next one is judged.

pub mod ask;
pub mod document;
#[cfg(test)]
mod faults;
pub mod index;
mod version;
pub mod watch;
pub mod write;

use std::{sync::Arc, time::Duration};

use anyhow::{Context as _, Result};
use futures::{StreamExt as _, future::BoxFuture, stream::FuturesUnordered};
use jiff::Timestamp;
use kube::Client;
use redoubt_engine::resource::Kind;
use tokio::{sync::mpsc, time::Instant};
use tokio_util::sync::CancellationToken;
use tracing::info;

use self::{
    ask::Asker,
    index::{Answered, Budget, Census, Done, Event, Index, Round},
    watch::Told,
    write::Writer,
};
use crate::{
    health::{Health, Phase},
    metrics::{KindLabels, Metrics, ResourceLabels},
    options::Options,
};

/// Changes under way at once.
const CHANGES: usize = 16;
/// Questions under way at once.
const QUESTIONS: usize = 16;
/// Rules of each namespace judged in one slice: a slice takes some tens of milliseconds.
const SLICE: usize = 64;
/// Events taken in before what they mean is looked at.
const EVENTS: usize = 256;
/// The loop turns at least so often, as a sign of life.
const BEAT: Duration = Duration::from_secs(10);
/// How often resources are counted for the metrics.
const COUNT: Duration = Duration::from_secs(1);

/// What goes on outside, each with the namespace it is of.
type UnderWay<T> = FuturesUnordered<BoxFuture<'static, (Arc<str>, T)>>;

/// Watches, judges and tells until the order to stop; then what is being written is finished.
///
/// # Errors
/// Something that the loop stands on has ended, which only a fault in the code can bring about.
pub async fn run(client: Client, options: &Options, metrics: Arc<Metrics>, health: Health, stop: CancellationToken) -> Result<()> {
    let (sender, told) = mpsc::channel(EVENTS);
    let _watches = watch::start(&client, &options.scope, &metrics, &sender);
    let controller = Controller {
        index: Index::new(&options.scope),
        writer: Arc::new(Writer::new(client, &options.instance, Arc::clone(&metrics))),
        asker: Arc::new(Asker::new(Arc::clone(&metrics))?),
        writing: FuturesUnordered::new(),
        asking: FuturesUnordered::new(),
        counted: None,
        metrics,
        health,
    };
    controller.follow(told, stop).await
}

struct Controller {
    index: Index,
    writer: Arc<Writer>,
    asker: Arc<Asker>,
    writing: UnderWay<Done>,
    asking: UnderWay<Answered>,
    counted: Option<Instant>,
    metrics: Arc<Metrics>,
    health: Health,
}

impl Controller {
    async fn follow(mut self, mut told: mpsc::Receiver<Told>, stop: CancellationToken) -> Result<()> {
        let mut news = Vec::with_capacity(EVENTS);
        let mut again_at = Instant::now();
        let mut complete = false;
        self.health.is(Phase::Reading);
        loop {
            tokio::select! {
                () = stop.cancelled() => break,
                count = told.recv_many(&mut news, EVENTS) => {
                    anyhow::ensure!(count > 0, "the watches have ended");
                }
                Some((namespace, done)) = self.writing.next() => self.index.apply(&namespace, Event::Done(done), Timestamp::now()),
                Some((namespace, answered)) = self.asking.next() => {
                    self.index.apply(&namespace, Event::Answered(answered), Timestamp::now());
                }
                () = tokio::time::sleep_until(again_at.min(Instant::now() + BEAT)) => {}
            }
            let now = Timestamp::now();
            for told in news.drain(..) {
                match told {
                    Told::Event(namespace, event) => self.index.apply(&namespace, event, now),
                    Told::Listed(listing) => self.index.listed(&listing, now),
                }
            }
            let round;
            (self, round) = self.round(now).await?;
            again_at = wake(&round, now);
            self.begin(round);
            if self.index.is_complete() && !complete {
                complete = true;
                info!("all resources have been read");
            }
            self.health.is(if complete { Phase::Working } else { Phase::Reading });
        }
        while self.writing.next().await.is_some() {}
        Ok(())
    }

    /// One round of the index; on a thread of its own where there is something to judge.
    async fn round(mut self, now: Timestamp) -> Result<(Self, Round)> {
        let budget = Budget {
            judge: SLICE,
            changes: CHANGES.saturating_sub(self.writing.len()),
            questions: QUESTIONS.saturating_sub(self.asking.len()),
        };
        if !self.index.has_to_judge() {
            let round = self.index.recompute(now, budget);
            return Ok((self, round));
        }
        let started = Instant::now();
        let mut index = self.index;
        let (index, round) = tokio::task::spawn_blocking(move || {
            let round = index.recompute(now, budget);
            (index, round)
        })
        .await
        .context("judging the resources failed")?;
        self.index = index;
        if !round.judged.is_empty() {
            self.metrics.judge_seconds.observe(started.elapsed().as_secs_f64());
        }
        Ok((self, round))
    }

    /// Begins what a round came to.
    fn begin(&mut self, round: Round) {
        for (kind, count) in round.judged {
            self.metrics.judged.get_or_create(&KindLabels { kind: kind.as_str() }).inc_by(count);
        }
        for change in round.changes {
            let writer = Arc::clone(&self.writer);
            self.writing.push(Box::pin(async move { (Arc::clone(&change.namespace), writer.write(change).await) }));
        }
        for question in round.questions {
            let asker = Arc::clone(&self.asker);
            self.asking.push(Box::pin(async move { (Arc::clone(&question.namespace), asker.ask(question).await) }));
        }
        if self.counted.is_none_or(|counted| counted.elapsed() >= COUNT) {
            self.counted = Some(Instant::now());
            show(&self.metrics, &self.index.census());
        }
    }
}

/// When the next round is due.
fn wake(round: &Round, now: Timestamp) -> Instant {
    if round.more {
        return Instant::now();
    }
    // The metrics are to show the last change, too.
    let pause = round.again_at.map_or(BEAT, |at| Duration::try_from(at.duration_since(now)).unwrap_or_default());
    Instant::now() + pause.min(BEAT)
}

fn show(metrics: &Metrics, census: &Census) {
    let number = |count: u64| i64::try_from(count).unwrap_or(i64::MAX);
    for kind in Kind::ALL {
        let counts = census.kinds.get(&kind).copied().unwrap_or_default();
        for (state, count) in ["accepted", "rejected", "pending"].into_iter().zip(counts) {
            metrics.resources.get_or_create(&ResourceLabels { kind: kind.as_str(), state }).set(number(count));
        }
    }
    metrics.unprogrammed.set(number(census.unprogrammed));
    metrics.last_good.set(number(census.kept));
}
