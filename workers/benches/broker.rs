//! How fast the embedded queue is, and what it adds to the database under it.
//!
//! `cargo bench -p redoubt --bench broker`. Records of 600 bytes, 500 a message: published by four at a time and confirmed, then
//! consumed and acknowledged; beside it plain redb with the same bodies, one transaction for each four. The disk decides the absolute
//! numbers, so read the ratio.

use std::{
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use redb::{Database, ReadableDatabase, TableDefinition};
use redoubt::broker::{
    Broker, Topic,
    embedded::{EmbeddedBroker, Options},
};

const RECORD: usize = 600;
const RECORDS: usize = 500;
const PUBLISHERS: usize = 4;
const MESSAGES: usize = 1_600;

fn body() -> Vec<u8> {
    (0..RECORD * RECORDS).map(|place| (place % 251) as u8).collect()
}

fn show(what: &str, time: Duration) -> f64 {
    let rate = (MESSAGES * RECORDS) as f64 / time.as_secs_f64();
    println!("{what:<24}{:>8.0} messages/s {rate:>10.0} records/s", rate / RECORDS as f64);
    rate
}

async fn publish(broker: &Arc<EmbeddedBroker>) -> anyhow::Result<Duration> {
    let start = Instant::now();
    let publishers: Vec<_> = (0..PUBLISHERS)
        .map(|_| {
            let broker = Arc::clone(broker);
            tokio::spawn(async move {
                for _ in 0..MESSAGES / PUBLISHERS {
                    broker.publish(Topic::Events, vec![body()]).await?;
                }
                anyhow::Ok(())
            })
        })
        .collect();
    for publisher in publishers {
        publisher.await??;
    }
    Ok(start.elapsed())
}

async fn consume(broker: &EmbeddedBroker) -> anyhow::Result<Duration> {
    let start = Instant::now();
    let mut consumer = broker.consume(Topic::Events, "process", 16 << 20).await?;
    let mut tags = Vec::new();
    for taken in 1..=MESSAGES {
        let Some(delivery) = consumer.next().await? else { anyhow::bail!("closed") };
        tags.push(delivery.tag);
        if tags.len() == 16 || taken == MESSAGES {
            consumer.ack(&tags).await?;
            tags.clear();
        }
    }
    Ok(start.elapsed())
}

/// The least that a queue on redb could do.
fn plain(path: &Path) -> anyhow::Result<(Duration, Duration)> {
    const TABLE: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("messages");
    let database = Database::create(path)?;
    let start = Instant::now();
    for group in 0..(MESSAGES / PUBLISHERS) as u64 {
        let transaction = database.begin_write()?;
        for number in 0..PUBLISHERS as u64 {
            transaction.open_table(TABLE)?.insert(group * PUBLISHERS as u64 + number, body().as_slice())?;
        }
        transaction.commit()?;
    }
    let written = start.elapsed();
    let start = Instant::now();
    for group in 0..MESSAGES as u64 / 16 {
        let range = group * 16..(group + 1) * 16;
        let mut bytes = 0;
        for entry in database.begin_read()?.open_table(TABLE)?.range(range.clone())? {
            bytes += entry?.1.value().to_vec().len();
        }
        assert_eq!(bytes, 16 * RECORD * RECORDS);
        let transaction = database.begin_write()?;
        for number in range {
            transaction.open_table(TABLE)?.remove(number)?;
        }
        transaction.commit()?;
    }
    Ok((written, start.elapsed()))
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let broker = Arc::new(EmbeddedBroker::open(folder.path(), Options::default())?);
    broker.declare(Topic::Events, "process").await?;
    let published = show("published", publish(&broker).await?);
    let consumed = show("consumed", consume(&broker).await?);
    broker.close().await;

    let (written, read) = plain(&folder.path().join("plain.redb"))?;
    let written = show("plain redb, written", written);
    let read = show("plain redb, read", read);
    println!("of plain redb: publish {:.2}, consume {:.2}", published / written, consumed / read);
    Ok(())
}
