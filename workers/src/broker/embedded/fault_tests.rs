//! The disk fails in every way it can, and heals: what was confirmed is there, and nobody needs a restart.

use std::{
    fs::OpenOptions,
    io,
    ops::Bound,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering},
    },
    time::Duration,
};

use redb::{BackendError, DatabaseError, StorageBackend, backends::FileBackend};
use tempfile::TempDir;

use super::*;
use crate::broker::Delivery;

/// What is wrong with the disk; shared with the test.
#[derive(Debug)]
struct Disk {
    /// The file cannot grow.
    full: AtomicBool,
    /// Reads fail.
    unreadable: AtomicBool,
    /// Counts changes (writes, growth, syncs) down, and fails all of them below zero.
    changes_left: AtomicI64,
    /// Changes so far.
    changes: AtomicU64,
}

impl Disk {
    fn new() -> Arc<Self> {
        Arc::new(Self {
            full: AtomicBool::new(false),
            unreadable: AtomicBool::new(false),
            changes_left: AtomicI64::new(i64::MAX),
            changes: AtomicU64::new(0),
        })
    }

    fn heal(&self) {
        self.full.store(false, Ordering::SeqCst);
        self.unreadable.store(false, Ordering::SeqCst);
        self.changes_left.store(i64::MAX, Ordering::SeqCst);
    }

    fn change(&self) -> io::Result<()> {
        self.changes.fetch_add(1, Ordering::SeqCst);
        if self.changes_left.fetch_sub(1, Ordering::SeqCst) <= 0 { Err(errno(EIO)) } else { Ok(()) }
    }
}

const EIO: i32 = 5;
const ENOSPC: i32 = 28;

fn errno(code: i32) -> io::Error {
    io::Error::from_raw_os_error(code)
}

/// A file on that disk.
#[derive(Debug)]
struct FaultyFile {
    file: FileBackend,
    disk: Arc<Disk>,
}

impl StorageBackend for FaultyFile {
    fn len(&self) -> io::Result<u64> {
        self.file.len()
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        if self.disk.unreadable.load(Ordering::SeqCst) { Err(errno(EIO)) } else { self.file.read(offset, out) }
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        if self.disk.full.load(Ordering::SeqCst) && len > self.file.len()? {
            return Err(errno(ENOSPC));
        }
        self.disk.change()?;
        self.file.set_len(len)
    }

    fn sync_data(&self) -> io::Result<()> {
        let outcome = self.disk.change();
        // The worst kind of failure: it says no, and yet the data is there.
        self.file.sync_data()?;
        outcome
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.disk.change()?;
        self.file.write(offset, data)
    }

    fn close(&self) -> io::Result<()> {
        self.file.close()
    }

    fn try_lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, BackendError> {
        self.file.try_lock_range(start, end)
    }

    fn unlock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        self.file.unlock_range(start, end)
    }
}

fn open_on(disk: &Arc<Disk>, folder: &Path) -> EmbeddedBroker {
    let path = folder.join(FILE_NAME);
    let (disk, file) = (Arc::clone(disk), path.clone());
    let open = move || -> Result<Database, DatabaseError> {
        let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(&file)?;
        let faulty = FaultyFile { file: FileBackend::new(file)?, disk: Arc::clone(&disk) };
        // Without a cache every read meets the disk.
        Database::builder().set_cache_size(0).create_with_backend(faulty)
    };
    EmbeddedBroker::open_with(path, Options::default(), Box::new(open)).unwrap()
}

async fn broker_on(disk: &Arc<Disk>) -> (TempDir, EmbeddedBroker) {
    let folder = tempfile::tempdir().unwrap();
    let broker = open_on(disk, folder.path());
    broker.declare(Topic::Events, "s").await.unwrap();
    (folder, broker)
}

async fn publish(broker: &EmbeddedBroker, body: &str) -> Result<(), BrokerError> {
    broker.publish(Topic::Events, vec![body.as_bytes().to_vec()]).await
}

async fn consume(broker: &EmbeddedBroker) -> Box<dyn Consumer> {
    broker.consume(Topic::Events, "s", 1 << 20).await.unwrap()
}

async fn next(consumer: &mut Box<dyn Consumer>) -> Result<Delivery, BrokerError> {
    let delivery = tokio::time::timeout(Duration::from_secs(30), consumer.next()).await.expect("an answer within the deadline");
    delivery.map(|delivery| delivery.expect("the broker is open"))
}

fn text(delivery: &Delivery) -> String {
    String::from_utf8(delivery.body.clone()).unwrap()
}

#[tokio::test]
async fn a_full_disk_is_named_and_publishing_goes_on_when_there_is_space_again() {
    let disk = Disk::new();
    let (_folder, broker) = broker_on(&disk).await;
    publish(&broker, "before").await.unwrap();

    disk.full.store(true, Ordering::SeqCst);
    let refusal = broker.publish(Topic::Events, vec![vec![0; 16 << 20]]).await.expect_err("there is no space");
    disk.heal();

    let BrokerError::Unavailable(reason) = refusal else { panic!("{refusal:?}") };
    assert!(reason.contains("No space left on device") && reason.contains(FILE_NAME), "{reason}");
    publish(&broker, "after").await.unwrap();
    let mut consumer = consume(&broker).await;
    assert_eq!(text(&next(&mut consumer).await.unwrap()), "before");
    assert_eq!(text(&next(&mut consumer).await.unwrap()), "after");
    assert_eq!(broker.depth(Topic::Events, "s").await.unwrap().messages, 2);
}

#[tokio::test]
async fn what_is_queued_can_be_consumed_while_the_disk_is_full() {
    let disk = Disk::new();
    let (_folder, broker) = broker_on(&disk).await;
    for body in ["a", "b"] {
        publish(&broker, body).await.unwrap();
    }
    let mut consumer = consume(&broker).await;
    disk.full.store(true, Ordering::SeqCst);
    broker.publish(Topic::Events, vec![vec![0; 16 << 20]]).await.expect_err("there is no space");

    for body in ["a", "b"] {
        let delivery = next(&mut consumer).await.unwrap();
        assert_eq!(text(&delivery), body);
        consumer.ack(&[delivery.tag]).await.unwrap();
    }

    assert_eq!(broker.depth(Topic::Events, "s").await.unwrap(), Depth { messages: 0, bytes: Some(0) });
}

#[tokio::test]
async fn a_failed_read_is_said_and_reading_goes_on_when_it_works_again() {
    let disk = Disk::new();
    let (_folder, broker) = broker_on(&disk).await;
    publish(&broker, "a").await.unwrap();
    let mut consumer = consume(&broker).await;

    disk.unreadable.store(true, Ordering::SeqCst);
    let failure = next(&mut consumer).await.expect_err("it cannot be read");
    disk.heal();

    assert!(matches!(&failure, BrokerError::Unavailable(reason) if reason.contains("Input/output error")), "{failure:?}");
    let delivery = next(&mut consumer).await.unwrap();
    assert_eq!((text(&delivery).as_str(), delivery.redeliveries), ("a", 0));
}

/// Fails the disk at each of its changes in turn, and retries as the roles do.
#[tokio::test]
async fn wherever_the_disk_fails_nothing_confirmed_is_lost_and_nothing_acknowledged_returns() {
    let changes = {
        let disk = Disk::new();
        let (_folder, broker) = broker_on(&disk).await;
        let before = disk.changes.load(Ordering::SeqCst);
        run_and_check(&disk, &broker, i64::MAX, "no failure").await;
        disk.changes.load(Ordering::SeqCst) - before
    };
    assert!(changes > 20, "{changes} changes: the sweep below shows little");

    for fail_at in 0..i64::try_from(changes).unwrap() {
        let disk = Disk::new();
        let (folder, broker) = broker_on(&disk).await;
        let what = format!("failing at change {fail_at}");

        run_and_check(&disk, &broker, fail_at, &what).await;

        broker.close().await;
        let again = open_on(&disk, folder.path());
        assert_eq!(again.depth(Topic::Events, "s").await.unwrap(), Depth { messages: 0, bytes: Some(0) }, "{what}");
    }
}

/// Publishes, consumes and acknowledges five messages on a disk that fails at a change and is healed after the first error.
async fn run_and_check(disk: &Arc<Disk>, broker: &EmbeddedBroker, fail_at: i64, what: &str) {
    disk.changes_left.store(fail_at, Ordering::SeqCst);
    let mut possible_repeats = Vec::new();
    for number in 0..5 {
        let body = format!("{number} {}", "x".repeat(10_000));
        while let Err(error) = publish(broker, &body).await {
            assert!(matches!(error, BrokerError::Unavailable(_)), "{what}: {error}");
            possible_repeats.push(body.clone());
            disk.heal();
        }
    }
    let mut consumer = loop {
        match broker.consume(Topic::Events, "s", 1 << 20).await {
            Ok(consumer) => break consumer,
            Err(_) => disk.heal(),
        }
    };
    let mut acknowledged: Vec<String> = Vec::new();
    while broker.depth(Topic::Events, "s").await.unwrap().messages > 0 {
        let delivery = next(&mut consumer).await.unwrap();
        let body = text(&delivery);
        while consumer.ack(&[delivery.tag]).await.is_err() {
            disk.heal();
        }
        let is_repeat = acknowledged.contains(&body);
        assert!(!is_repeat || possible_repeats.contains(&body), "{what}: a second {body:.10}");
        acknowledged.push(body);
    }
    acknowledged.dedup();
    let numbers: Vec<&str> = acknowledged.iter().map(|body| &body[..1]).collect();
    assert_eq!(numbers, ["0", "1", "2", "3", "4"], "{what}");
}
