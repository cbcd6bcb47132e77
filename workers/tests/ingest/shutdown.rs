//! What a shutdown does to what is under way.

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpStream, UdpSocket},
    time::timeout,
};

use redoubt_crds::Format;

use crate::site::{DEADLINE, bodies, eventually, http, start, syslog};

#[tokio::test]
async fn a_request_that_is_under_way_is_answered_and_no_new_connection_is_taken() {
    let site = start(vec![http("web", Format::Json)]).await;
    site.secret("web", "tokens", "token");
    let address = site.address();
    let mut sender = TcpStream::connect(address).await.unwrap();
    let head = "POST /v1/sources/web HTTP/1.1\r\nhost: x\r\nauthorization: Bearer token\r\ncontent-length: 7\r\n\r\n{\"a\"";
    sender.write_all(head.as_bytes()).await.unwrap();
    eventually("the request is being read", async || site.counts("redoubt_ingest_body_bytes_in_flight 4")).await;

    site.shutdown.cancel();
    eventually("no new connection", async || TcpStream::connect(address).await.is_err()).await;
    sender.write_all(b":1}").await.unwrap();

    let mut answer = String::new();
    timeout(DEADLINE, sender.read_to_string(&mut answer)).await.expect("the connection is closed after the answer").unwrap();
    assert!(answer.starts_with("HTTP/1.1 202"), "{answer}");
    timeout(DEADLINE, site.running).await.expect("the role ends").unwrap().unwrap();
    assert_eq!(bodies(&crate::site::take(&site.broker, 1).await), ["{\"a\":1}"]);
}

#[tokio::test]
async fn buffered_syslog_messages_become_durable() {
    let site = start(vec![syslog("firewall")]).await;
    let udp = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    udp.send_to(b"<13>by udp", site.udp("firewall")).await.unwrap();
    let mut tcp = TcpStream::connect(site.tcp("firewall")).await.unwrap();
    tcp.write_all(b"<13>by tcp\n").await.unwrap();
    tcp.shutdown().await.unwrap();
    // The other side has read to the end when it closes as well: the message is then in the buffer.
    timeout(DEADLINE, tcp.read_to_end(&mut Vec::new())).await.unwrap().unwrap();

    site.shutdown.cancel();
    timeout(DEADLINE, site.running).await.expect("the role ends").unwrap().unwrap();

    let events = crate::site::take(&site.broker, 2).await;
    let mut found = bodies(&events);
    found.sort_unstable();
    assert_eq!(found, ["<13>by tcp", "<13>by udp"]);
}
