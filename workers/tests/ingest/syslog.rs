//! Syslog over UDP and TCP.

use redoubt::broker::embedded::Options;
use redoubt_crds::{IngestSpec, SyslogInput};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpStream, UdpSocket},
    time::timeout,
};

use crate::site::{DEADLINE, NOW, bodies, eventually, start, start_with, syslog, syslog_with};

#[tokio::test]
async fn a_datagram_is_a_message() {
    let site = start(vec![syslog("firewall")]).await;
    let sender = UdpSocket::bind("127.0.0.1:0").await.unwrap();

    for datagram in [&b"<13>one\n"[..], b"\n", b"<13>two lines\nin one", b"<13>caf\xe9\0"] {
        sender.send_to(datagram, site.udp("firewall")).await.unwrap();
    }

    let events = site.take(3).await;
    assert_eq!(bodies(&events), ["<13>one", "<13>two lines\nin one", "<13>caf\u{fffd}"]);
    assert_eq!((&*events[0].source, events[0].sender.as_deref(), events[0].received_millis), ("firewall", Some("127.0.0.1"), NOW));
    assert!(site.counts(r#"redoubt_ingest_events_total{source="firewall",result="accepted"} 3"#));
}

#[tokio::test]
async fn a_stream_is_cut_by_counts_and_by_lines() {
    let site = start(vec![syslog("firewall")]).await;
    let mut sender = TcpStream::connect(site.tcp("firewall")).await.unwrap();

    for part in ["<13>li", "ne\n12 <13>co", "unted\n<13>a", "fter"] {
        sender.write_all(part.as_bytes()).await.unwrap();
        sender.flush().await.unwrap();
    }
    sender.shutdown().await.unwrap();

    assert_eq!(bodies(&site.take(3).await), ["<13>line", "<13>counted\n", "<13>after"]);
}

#[tokio::test]
async fn what_is_above_the_limit_or_cut_short_is_counted() {
    let spec = IngestSpec { max_event_bytes: 1024, ..IngestSpec::default() };
    let site = start_with(vec![syslog("firewall")], spec, Options::default()).await;
    let large = format!("<13>{}", "x".repeat(2000));
    let udp = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    udp.send_to(large.as_bytes(), site.udp("firewall")).await.unwrap();
    let mut tcp = TcpStream::connect(site.tcp("firewall")).await.unwrap();
    tcp.write_all(format!("{large}\n<13>good\n99 <13>cut").as_bytes()).await.unwrap();
    tcp.shutdown().await.unwrap();

    assert_eq!(bodies(&site.take(1).await), ["<13>good"]);
    eventually("both are counted", async || {
        site.counts(r#"redoubt_ingest_dropped_total{source="firewall",reason="too_large"} 2"#)
            && site.counts(r#"redoubt_ingest_dropped_total{source="firewall",reason="incomplete"} 1"#)
    })
    .await;
}

#[tokio::test]
async fn only_allowed_addresses_may_send() {
    let input = SyslogInput { allow_from: vec!["192.0.2.0/24".into()], ..SyslogInput::default() };
    let site = start(vec![syslog_with("closed", input), syslog("open")]).await;
    let udp = UdpSocket::bind("127.0.0.1:0").await.unwrap();

    udp.send_to(b"<13>no", site.udp("closed")).await.unwrap();
    let mut tcp = TcpStream::connect(site.tcp("closed")).await.unwrap();

    let closed = timeout(DEADLINE, tcp.read(&mut [0])).await.expect("the connection is closed");
    assert!(matches!(closed, Ok(0) | Err(_)), "{closed:?}");
    eventually("both are counted", async || site.counts(r#"redoubt_ingest_dropped_total{source="closed",reason="sender"} 2"#)).await;
    udp.send_to(b"<13>yes", site.udp("open")).await.unwrap();
    assert_eq!(bodies(&site.take(1).await), ["<13>yes"]);
}

/// Messages that packing does not make much smaller.
fn messages(count: u64) -> Vec<String> {
    (0..count).map(|n| format!("<13>{n} {:x}", (n + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15))).collect()
}

#[tokio::test]
async fn a_full_queue_makes_a_stream_wait_and_loses_nothing() {
    let site = start_with(vec![syslog("firewall")], IngestSpec::default(), Options { max_bytes: 20_000, ..Options::default() }).await;
    let sent = messages(20_000);
    let mut sender = TcpStream::connect(site.tcp("firewall")).await.unwrap();
    let text = sent.iter().map(|message| format!("{message}\n")).collect::<String>();
    let writing = tokio::spawn(async move {
        sender.write_all(text.as_bytes()).await.unwrap();
        sender.shutdown().await.unwrap();
    });
    eventually("the queue is full", async || site.queued().await > 10_000).await;

    let events = site.take(sent.len()).await;

    assert_eq!(bodies(&events), sent);
    writing.await.unwrap();
    assert!(!site.metrics.encode().contains("redoubt_ingest_dropped_total{"));
}

#[tokio::test]
async fn a_full_queue_makes_datagrams_fall_away_and_be_counted() {
    let site = start_with(vec![syslog("firewall")], IngestSpec::default(), Options { max_bytes: 20_000, ..Options::default() }).await;
    let sender = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    sender.connect(site.udp("firewall")).await.unwrap();

    let dropped = r#"redoubt_ingest_dropped_total{source="firewall",reason="full"}"#;
    eventually("the buffer is full", async || {
        for message in messages(500) {
            sender.send(message.as_bytes()).await.unwrap();
        }
        site.metrics.encode().contains(dropped)
    })
    .await;

    // What was buffered still gets through once there is room.
    assert_eq!(site.take(10_000).await.len(), 10_000);
}
