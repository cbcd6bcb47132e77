//! Events from a queue of a RabbitMQ, published by a producer that knows nothing of this house.

use lapin::{
    BasicProperties, Channel, Connection, ConnectionProperties, ExchangeKind,
    options::{BasicGetOptions, BasicPublishOptions, ConfirmSelectOptions, ExchangeDeclareOptions, QueueDeclareOptions},
    types::FieldTable,
};
use redoubt::broker::embedded::Options;
use redoubt_crds::{AmqpInput, Format, IngestSpec, LogSourceSpec};
use redoubt_engine::source::Source;

use crate::{
    servers::rabbitmq::{available, shared},
    site::{Site, bodies, eventually, start_in, write_secret},
};

/// A producer with an exchange, and a source that takes what it publishes.
struct Producer {
    _connection: Connection,
    channel: Channel,
    name: &'static str,
}

impl Producer {
    async fn new(name: &'static str) -> Self {
        let connection = Connection::connect(&shared().url("a"), ConnectionProperties::default()).await.unwrap();
        let channel = connection.create_channel().await.unwrap();
        let durable = ExchangeDeclareOptions { durable: true, ..Default::default() };
        channel.exchange_declare(name.into(), ExchangeKind::Direct, durable, FieldTable::default()).await.unwrap();
        channel.confirm_select(ConfirmSelectOptions::default()).await.unwrap();
        Self { _connection: connection, channel, name }
    }

    async fn publish(&self, body: &[u8]) {
        let (exchange, options) = (self.name.into(), BasicPublishOptions::default());
        let published = self.channel.basic_publish(exchange, "task".into(), options, body, BasicProperties::default()).await;
        assert!(published.unwrap().await.unwrap().is_ack());
    }

    fn queue(&self) -> String {
        format!("{}-events", self.name)
    }

    fn source(&self) -> Source {
        let amqp: AmqpInput = serde_json::from_value(serde_json::json!({
            "urls": [shared().url("a")],
            "credentialsSecretRef": { "name": "mq" },
            "queue": self.queue(),
            "exchange": self.name,
            "bindingKey": "task",
        }))
        .unwrap();
        let spec = LogSourceSpec { amqp: Some(amqp), format: Some(Format::Mozdef), ..LogSourceSpec::default() };
        Source::compile("mq", &spec).unwrap()
    }

    /// Starts ingest and waits until it takes messages.
    async fn taken_by(&self, queue: Options) -> Site {
        let folder = tempfile::tempdir().unwrap();
        for key in ["username", "password"] {
            write_secret(folder.path(), "mq", key, "guest");
        }
        let spec = IngestSpec { max_event_bytes: 1024, ..IngestSpec::default() };
        let site = start_in(folder, vec![self.source()], spec, queue).await;
        eventually("a consumer", async || self.state(&self.queue()).await.is_some_and(|(_, consumers)| consumers == 1)).await;
        site
    }

    /// Messages and consumers of a queue, if it is there.
    async fn state(&self, queue: &str) -> Option<(u32, u32)> {
        let channel = self._connection.create_channel().await.unwrap();
        let passive = QueueDeclareOptions { passive: true, ..Default::default() };
        let found = channel.queue_declare(queue.into(), passive, FieldTable::default()).await.ok()?;
        Some((found.message_count(), found.consumer_count()))
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_producer_publishes_is_taken_once_and_in_order() {
    if !available() {
        return;
    }
    let producer = Producer::new("orderly").await;
    let site = producer.taken_by(Options::default()).await;
    let published: Vec<String> = (0..300).map(|number| format!("{{\"summary\":\"event {number}\"}}")).collect();

    for body in &published {
        producer.publish(body.as_bytes()).await;
    }

    let events = site.take(300).await;
    assert_eq!(bodies(&events), published);
    assert!(events.iter().all(|event| &*event.source == "mq"));
    eventually("all counted", async || site.counts(r#"redoubt_ingest_events_total{source="mq",result="accepted"} 300"#)).await;
    site.shutdown.cancel();
    site.running.await.unwrap().unwrap();
    // What was not acknowledged would be back in the queue.
    eventually("an empty queue", async || producer.state(&producer.queue()).await == Some((0, 0))).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_no_event_is_put_aside_with_the_reason_and_holds_up_nothing() {
    if !available() {
        return;
    }
    let producer = Producer::new("sloppy").await;
    let site = producer.taken_by(Options::default()).await;
    let large = format!("{{\"summary\":\"{}\"}}", "x".repeat(1024));
    let bad: [&[u8]; 4] = [b"not an event", b"\xff\xfe", b"", large.as_bytes()];

    for body in bad {
        producer.publish(body).await;
    }
    producer.publish(b"{\"summary\":\"good\"}").await;

    assert_eq!(bodies(&site.take(1).await), ["{\"summary\":\"good\"}"]);
    eventually("all counted", async || site.counts(r#"redoubt_ingest_events_total{source="mq",result="rejected"} 4"#)).await;
    let refused = format!("{}.refused", producer.queue());
    for body in bad {
        let letter = producer.channel.basic_get(refused.as_str().into(), BasicGetOptions { no_ack: true }).await.unwrap().unwrap();
        let reason = format!("{:?}", letter.delivery.properties.headers());
        assert_eq!(letter.delivery.data, body);
        assert!(reason.contains("redoubt-reason"), "{reason}");
    }
    assert_eq!(producer.state(&producer.queue()).await.unwrap().0, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn while_the_broker_is_full_messages_wait_in_their_queue() {
    if !available() {
        return;
    }
    let producer = Producer::new("patient").await;
    let site = producer.taken_by(Options { max_bytes: 1_000, ..Options::default() }).await;
    let filler = |number: usize| format!("{{\"summary\":\"{number} {}\"}}", uuid_like(number));

    for number in 0..40 {
        producer.publish(filler(number).as_bytes()).await;
        if number == 0 {
            eventually("the first is taken", async || site.queued().await > 0).await;
        }
    }

    // Each is taken when there is room, and none is lost.
    let expected: Vec<String> = (0..40).map(filler).collect();
    assert_eq!(bodies(&site.take(40).await), expected);
}

/// Text that does not compress well.
fn uuid_like(number: usize) -> String {
    (0..20_u64).map(|place| format!("{:016x}", (number as u64 * 20 + place + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15))).collect()
}
