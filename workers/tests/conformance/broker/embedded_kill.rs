//! A real process, killed by SIGKILL while it publishes: what it said was confirmed is there.

use std::{
    io::{BufRead, BufReader, Write},
    path::Path,
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use redoubt::broker::{
    Broker, Topic,
    embedded::{EmbeddedBroker, Options},
};

const FOLDER: &str = "REDOUBT_TEST_PUBLISHER_FOLDER";
const FIRST: &str = "REDOUBT_TEST_PUBLISHER_FIRST";

/// Not a test by itself: the process that is killed. It publishes numbers and writes each down when it is confirmed.
#[tokio::test]
#[ignore = "runs in a process of its own, started by the test below"]
async fn publisher() {
    let folder = std::env::var(FOLDER).expect("started by the test below");
    let first: u64 = std::env::var(FIRST).unwrap().parse().unwrap();
    let broker = EmbeddedBroker::open(Path::new(&folder), Options::default()).unwrap();
    broker.declare(Topic::Events, "s").await.unwrap();

    for number in first.. {
        // Large enough that a commit takes a while, so that kills meet it at work.
        let body = format!("{number}\n{}", "x".repeat(100_000));
        broker.publish(Topic::Events, vec![body.into_bytes()]).await.unwrap();
        let mut out = std::io::stdout().lock();
        writeln!(out, "confirmed {number}").unwrap();
        out.flush().unwrap();
    }
}

/// Runs the publisher from a number on, kills it after it confirmed so many and some microseconds more; the last number it confirmed.
fn publish_until_killed(folder: &Path, first: u64, confirmations: u64, then: Duration) -> u64 {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["broker::embedded_kill::publisher", "--exact", "--ignored", "--nocapture"])
        .env(FOLDER, folder)
        .env(FIRST, first.to_string())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let confirmed = |line: String| line.rsplit_once("confirmed ").and_then(|(_, number)| number.parse::<u64>().ok());
    let mut last = 0;
    let enough = first + confirmations - 1;
    for line in lines.by_ref() {
        last = confirmed(line.unwrap()).unwrap_or(last);
        if last >= enough {
            break;
        }
    }
    assert!(last >= enough, "the publisher ended by itself");

    // Not a wait for a condition: the moment of the kill is the variable.
    let kill_at = Instant::now() + then;
    while Instant::now() < kill_at {
        std::hint::spin_loop();
    }
    child.kill().unwrap();
    child.wait().unwrap();
    for line in lines {
        last = confirmed(line.unwrap()).unwrap_or(last);
    }
    last
}

#[tokio::test]
async fn what_a_killed_process_had_confirmed_is_there_once_and_in_order() {
    let folder = tempfile::tempdir().unwrap();
    let mut confirmed: Vec<std::ops::RangeInclusive<u64>> = Vec::new();
    let mut first = 1;

    for round in 0_u64..10 {
        let last = publish_until_killed(folder.path(), first, 1 + round % 4, Duration::from_micros(round * 737));
        confirmed.push(first..=last);
        // One more may be durable though its confirmation was lost.
        first = last + 2;
    }

    let broker = EmbeddedBroker::open(folder.path(), Options::default()).unwrap();
    let messages = broker.depth(Topic::Events, "s").await.unwrap().messages;
    let mut consumer = broker.consume(Topic::Events, "s", 1 << 30).await.unwrap();
    let mut found = Vec::new();
    for _ in 0..messages {
        let delivery = consumer.next().await.unwrap().unwrap();
        let (number, _) = std::str::from_utf8(&delivery.body).unwrap().split_once('\n').unwrap();
        found.push(number.parse::<u64>().unwrap());
    }
    assert!(found.is_sorted_by(|before, after| before < after), "twice, or out of order: {found:?}");
    for range in confirmed {
        for number in range {
            assert!(found.contains(&number), "{number} was confirmed and is not there: {found:?}");
        }
    }
}
