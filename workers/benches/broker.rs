//! How fast the queues are, and what each adds to what is under it: the embedded one to its database, the one in a RabbitMQ to the
//! client library on the same server (where `tests/setup` has installed one).
//!
//! `cargo bench -p redoubt --bench broker`. Records of 600 bytes, 500 a message: published by four at a time and confirmed, then
//! consumed and acknowledged; beside it plain redb with the same bodies, one transaction for each four, and plain lapin on a quorum queue,
//! a channel for each publisher. The disk decides the absolute numbers, so read the ratios. For RabbitMQ the parts alternate and the
//! best of each counts, since its log is compacted now and then.

use std::{
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use lapin::{
    BasicProperties, Connection, ConnectionProperties,
    options::{BasicPublishOptions, ConfirmSelectOptions, QueueDeclareOptions},
    types::{AMQPValue, FieldTable},
};
use redb::{Database, ReadableDatabase, TableDefinition};
use redoubt::{
    broker::{
        Broker, Topic,
        embedded::{EmbeddedBroker, Options},
        rabbitmq::{Bounds, RabbitMq},
    },
    secrets::Secrets,
};

#[path = "../tests/servers/servers.rs"]
mod servers;

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

async fn publish<B: Broker>(broker: &Arc<B>) -> anyhow::Result<Duration> {
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

async fn consume<B: Broker>(broker: &B) -> anyhow::Result<Duration> {
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
    let consumed = show("consumed", consume(&*broker).await?);
    broker.close().await;

    let (written, read) = plain(&folder.path().join("plain.redb"))?;
    let written = show("plain redb, written", written);
    let read = show("plain redb, read", read);
    println!("of plain redb: publish {:.2}, consume {:.2}", published / written, consumed / read);
    if servers::rabbitmq::available() { rabbitmq().await } else { Ok(()) }
}

/// The queue in a RabbitMQ beside the least that a client of it could do.
async fn rabbitmq() -> anyhow::Result<()> {
    let nodes = servers::rabbitmq::Nodes::start(&["bench"]);
    let folder = tempfile::tempdir()?;
    std::fs::create_dir(folder.path().join("rabbit"))?;
    for key in ["username", "password"] {
        std::fs::write(folder.path().join("rabbit").join(key), "guest")?;
    }
    let spec = serde_json::json!({ "urls": [nodes.url("bench")], "credentialsSecretRef": { "name": "rabbit" } });
    let bounds = Bounds { max_bytes: 8 << 30, delivery_limit: 20 };
    let broker = Arc::new(RabbitMq::new(&serde_json::from_value(spec)?, bounds, Secrets::new(folder.path()), "bench"));
    broker.declare(Topic::Events, "process").await?;
    let (mut best, mut best_plain, mut consumed) = (0_f64, 0_f64, 0_f64);
    for _ in 0..3 {
        best = best.max(show("rabbitmq, published", publish(&broker).await?));
        consumed = consumed.max(show("rabbitmq, consumed", consume(&*broker).await?));
        best_plain = best_plain.max(show("plain lapin, published", plain_lapin(&nodes.url("bench")).await?));
    }
    broker.close().await;
    println!("of plain lapin: publish {:.2}", best / best_plain);
    Ok(())
}

async fn plain_lapin(url: &str) -> anyhow::Result<Duration> {
    let connection = Connection::connect(url, ConnectionProperties::default()).await?;
    let admin = connection.create_channel().await?;
    let mut arguments = FieldTable::default();
    arguments.insert("x-queue-type".into(), AMQPValue::LongString("quorum".into()));
    admin.queue_declare("plain".into(), QueueDeclareOptions { durable: true, ..Default::default() }, arguments).await?;
    let mut channels = Vec::new();
    for _ in 0..PUBLISHERS {
        let channel = connection.create_channel().await?;
        channel.confirm_select(ConfirmSelectOptions::default()).await?;
        channels.push(channel);
    }
    let start = Instant::now();
    let publishers: Vec<_> = channels
        .into_iter()
        .map(|channel| {
            tokio::spawn(async move {
                let properties = BasicProperties::default().with_delivery_mode(2);
                for _ in 0..MESSAGES / PUBLISHERS {
                    let options = BasicPublishOptions { mandatory: true, ..Default::default() };
                    channel.basic_publish("".into(), "plain".into(), options, &body(), properties.clone()).await?.await?;
                }
                anyhow::Ok(())
            })
        })
        .collect();
    for publisher in publishers {
        publisher.await??;
    }
    let took = start.elapsed();
    admin.queue_delete("plain".into(), lapin::options::QueueDeleteOptions::default()).await?;
    Ok(took)
}
