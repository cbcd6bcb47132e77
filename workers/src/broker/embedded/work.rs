//! What each command does within a transaction.
//!
//! Nothing here touches what other threads see: a transaction that fails leaves no trace.

use std::{collections::HashMap, time::Instant};

use redb::{ReadableTable, Table};

use super::{
    Options,
    command::{Change, Outcome},
    drain::Drain,
    file::{Fill, Ledger, Row, Tables},
};
use crate::broker::{BrokerError, Topic};

/// What a message weighs in the bound of a topic besides its body, so that empty messages fill it too.
const MESSAGE_OVERHEAD: u64 = 64;

/// A reason is cut to so many bytes.
const REASON_BYTES: usize = 1024;

/// The answer to one command.
pub(super) type Verdict = Result<Outcome, BrokerError>;

/// A transaction at work.
pub(super) struct Work<'a> {
    ledger: Ledger,
    tables: Tables<'a>,
    options: Options,
    drains: &'a mut HashMap<Topic, Drain>,
    removed: HashMap<Topic, u64>,
    changed: bool,
}

/// What to take over once the transaction is durable.
pub(super) struct Done {
    pub(super) ledger: Ledger,
    /// Bytes that left each topic.
    pub(super) removed: HashMap<Topic, u64>,
    /// Whether there is anything to commit.
    pub(super) changed: bool,
}

impl<'a> Work<'a> {
    pub(super) fn new(ledger: Ledger, tables: Tables<'a>, options: Options, drains: &'a mut HashMap<Topic, Drain>) -> Self {
        Self { ledger, tables, options, drains, removed: HashMap::new(), changed: false }
    }

    pub(super) fn finish(mut self, before: &Ledger) -> Result<Done, redb::Error> {
        self.ledger.save(before, &mut self.tables)?;
        Ok(Done { ledger: self.ledger, removed: self.removed, changed: self.changed })
    }

    /// Carries out a change. An error fails the whole transaction; a refusal concerns this change only, and has done nothing.
    pub(super) fn apply(&mut self, change: &mut Change) -> Result<Verdict, redb::Error> {
        match change {
            Change::Declare { topic, subscription } => self.declare(*topic, subscription),
            Change::Publish { topic, bodies } => {
                if let Err(refusal) = self.admit(*topic, bodies) {
                    return Ok(Err(refusal));
                }
                // Taken out, so that the memory is free as soon as the file has it.
                self.publish(*topic, &std::mem::take(bodies))?;
            }
            Change::Acknowledge { queue, sequences } => {
                for &sequence in sequences.iter() {
                    self.remove(*queue, sequence)?;
                }
            }
            Change::Hold { queue, prefetch, counts } => self.hold(*queue, *prefetch, counts)?,
            Change::Count { queue, sequence, times } => self.count(*queue, *sequence, *times)?,
            Change::SetAside { queue, sequence, reason } => return self.set_aside(*queue, *sequence, reason).map(Ok),
            Change::Replay { number } => return self.replay(*number),
            Change::Discard { number } => return self.discard(*number).map(Ok),
            Change::Reopen => {}
        }
        Ok(Ok(Outcome::Done))
    }

    fn declare(&mut self, topic: Topic, subscription: &str) {
        if self.ledger.find(topic, subscription).is_some() {
            return;
        }
        let id = self.ledger.rows.last_key_value().map_or(0, |(&last, _)| last + 1);
        let row = Row { topic, subscription: subscription.to_owned(), next: 0, fill: Fill::default(), held: 0 };
        self.ledger.rows.insert(id, row);
        self.changed = true;
    }

    /// Whether a publish may be taken. A topic that is empty takes any: a bound smaller than one publish must not block for ever.
    fn admit(&mut self, topic: Topic, bodies: &[Vec<u8>]) -> Result<(), BrokerError> {
        if bodies.is_empty() {
            return Ok(());
        }
        let fills: Vec<Fill> = self.ledger.rows.values().filter(|row| row.topic == topic).map(|row| row.fill).collect();
        if fills.is_empty() {
            let reason = format!("no subscription of {topic} is declared, so nobody would keep the messages: declare one first");
            return Err(BrokerError::Unavailable(reason));
        }
        let queued: u64 = fills.iter().map(|fill| weight(*fill)).sum();
        let copy = Fill { messages: bodies.len() as u64, bytes: bodies.iter().map(|body| body.len() as u64).sum() };
        let total = queued + weight(copy) * fills.len() as u64;
        let limit = self.options.max_bytes;
        if queued == 0 || total <= limit {
            return Ok(());
        }
        let now = Instant::now();
        let drain = self.drains.entry(topic).or_insert_with(|| Drain::new(now));
        Err(BrokerError::Full { topic, limit, retry_after: drain.time_for(total - limit, now) })
    }

    fn publish(&mut self, topic: Topic, bodies: &[Vec<u8>]) -> Result<(), redb::Error> {
        for (&id, row) in self.ledger.rows.iter_mut().filter(|(_, row)| row.topic == topic) {
            for body in bodies {
                append(&mut self.tables.messages, id, row, body)?;
                self.changed = true;
            }
        }
        Ok(())
    }

    /// Deletes a message, if it is there.
    fn remove(&mut self, queue: u32, sequence: u64) -> Result<(), redb::Error> {
        let Some(row) = self.ledger.rows.get_mut(&queue) else { return Ok(()) };
        let bytes = match self.tables.messages.remove((queue, sequence))? {
            Some(body) => body.value().len() as u64,
            None => return Ok(()),
        };
        self.tables.returns.remove((queue, sequence))?;
        row.fill.messages -= 1;
        row.fill.bytes -= bytes;
        *self.removed.entry(row.topic).or_default() += bytes + MESSAGE_OVERHEAD;
        self.changed = true;
        Ok(())
    }

    fn hold(&mut self, queue: u32, prefetch: u64, counts: &[(u64, u32)]) -> Result<(), redb::Error> {
        if let Some(row) = self.ledger.rows.get_mut(&queue) {
            // 0 says that nobody holds it; one message goes out whatever the prefetch.
            row.held = prefetch.max(1);
            self.changed = true;
        }
        for &(sequence, times) in counts {
            self.count(queue, sequence, times)?;
        }
        Ok(())
    }

    fn count(&mut self, queue: u32, sequence: u64, times: u32) -> Result<(), redb::Error> {
        // A message that has gone must not leave a count behind.
        if self.tables.messages.get((queue, sequence))?.is_some() {
            self.tables.returns.insert((queue, sequence), times)?;
            self.changed = true;
        }
        Ok(())
    }

    fn set_aside(&mut self, queue: u32, sequence: u64, reason: &str) -> Result<Outcome, redb::Error> {
        let Some(row) = self.ledger.rows.get(&queue) else { return Ok(Outcome::Done) };
        let Some(body) = self.tables.messages.get((queue, sequence))?.map(|body| body.value().to_vec()) else {
            return Ok(Outcome::Done);
        };
        let dead = &mut self.ledger.dead;
        let bytes = dead.bytes + body.len() as u64;
        if dead.messages >= self.options.max_dead_messages || (bytes > self.options.max_dead_bytes && dead.messages > 0) {
            return Ok(Outcome::NoRoom);
        }
        let number = self.tables.dead.last()?.map_or(0, |(last, _)| last.value() + 1);
        let reason = &reason[..reason.floor_char_boundary(REASON_BYTES)];
        let topic = row.topic.to_string();
        self.tables.dead.insert(number, (topic.as_str(), row.subscription.as_str(), reason, body.as_slice()))?;
        *dead = Fill { messages: dead.messages + 1, bytes };
        tracing::warn!(topic, subscription = row.subscription, reason, "a message was set aside");
        self.remove(queue, sequence)?;
        Ok(Outcome::Done)
    }

    fn replay(&mut self, number: u64) -> Result<Verdict, redb::Error> {
        let Some((topic, subscription, body)) = self.dead_message(number)? else { return Ok(Ok(Outcome::NotThere)) };
        let id = topic.parse().ok().and_then(|topic| self.ledger.find(topic, &subscription));
        let Some((id, row)) = id.and_then(|id| Some((id, self.ledger.rows.get_mut(&id)?))) else {
            let reason = format!("{topic} has no subscription `{subscription}` any more, so the message stays among the dead");
            return Ok(Err(BrokerError::Unavailable(reason)));
        };
        append(&mut self.tables.messages, id, row, &body)?;
        self.discard(number).map(Ok)
    }

    fn discard(&mut self, number: u64) -> Result<Outcome, redb::Error> {
        let bytes = match self.tables.dead.remove(number)? {
            Some(entry) => entry.value().3.len() as u64,
            None => return Ok(Outcome::NotThere),
        };
        self.ledger.dead.messages -= 1;
        self.ledger.dead.bytes -= bytes;
        self.changed = true;
        Ok(Outcome::Done)
    }

    fn dead_message(&self, number: u64) -> Result<Option<(String, String, Vec<u8>)>, redb::Error> {
        let Some(entry) = self.tables.dead.get(number)? else { return Ok(None) };
        let (topic, subscription, _, body) = entry.value();
        Ok(Some((topic.to_owned(), subscription.to_owned(), body.to_vec())))
    }
}

fn append(messages: &mut Table<'_, (u32, u64), &'static [u8]>, id: u32, row: &mut Row, body: &[u8]) -> Result<(), redb::Error> {
    messages.insert((id, row.next), body)?;
    row.next += 1;
    row.fill.messages += 1;
    row.fill.bytes += body.len() as u64;
    Ok(())
}

fn weight(fill: Fill) -> u64 {
    fill.bytes + fill.messages * MESSAGE_OVERHEAD
}
