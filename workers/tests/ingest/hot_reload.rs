//! What a change of the plan does, and what it leaves alone.

use std::{net::SocketAddr, sync::Arc};

use redoubt_crds::{Format, IngestSpec};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::timeout,
};

use crate::site::{DEADLINE, Site, bodies, eventually, http, plan, start, syslog};

fn change(site: &Site, sources: Vec<redoubt_engine::source::Source>) {
    site.plan.send_replace(Arc::new(plan(sources, IngestSpec::default())));
}

async fn connects(address: SocketAddr) -> bool {
    TcpStream::connect(address).await.is_ok()
}

#[tokio::test]
async fn a_syslog_port_opens_and_closes_with_its_source_and_other_connections_stay() {
    let site = start(vec![syslog("old"), syslog("kept")]).await;
    let (old, kept, web) = (site.tcp("old"), site.tcp("kept"), site.address());
    let mut kept_sender = TcpStream::connect(kept).await.unwrap();
    kept_sender.write_all(b"<13>before\n").await.unwrap();
    assert_eq!(bodies(&site.take(1).await), ["<13>before"]);
    let mut old_sender = TcpStream::connect(old).await.unwrap();

    change(&site, vec![syslog("kept"), syslog("new")]);
    site.until(|bound| bound.tcp.contains_key("new") && !bound.tcp.contains_key("old")).await;

    assert_eq!((site.tcp("kept"), site.address()), (kept, web), "what both plans want is not touched");
    eventually("the old port is closed", async || !connects(old).await).await;
    let closed = timeout(DEADLINE, old_sender.read(&mut [0])).await.expect("its connections end");
    assert!(matches!(closed, Ok(0) | Err(_)), "{closed:?}");
    kept_sender.write_all(b"<13>after\n").await.unwrap();
    let mut new_sender = TcpStream::connect(site.tcp("new")).await.unwrap();
    assert_eq!(bodies(&site.take(1).await), ["<13>after"]);
    new_sender.write_all(b"<13>new\n").await.unwrap();
    assert_eq!(&*site.take(1).await[0].source, "new");
}

#[tokio::test]
async fn an_http_source_comes_and_goes_on_the_open_port() {
    let site = start(vec![]).await;
    site.secret("web", "tokens", "token");
    let status = async || site.post("/v1/sources/web").body("{}").send().await.unwrap().status().as_u16();
    assert_eq!(status().await, 401);

    change(&site, vec![http("web", Format::Json)]);
    eventually("the source is there", async || status().await == 202).await;
    change(&site, vec![]);
    eventually("the source is gone", async || status().await == 401).await;
}

#[tokio::test]
async fn a_port_that_is_taken_is_opened_when_it_becomes_free() {
    let site = start(vec![]).await;
    let holder = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = holder.local_addr().unwrap().port();
    let mut source = syslog("late");
    if let Some(syslog) = &mut source.spec.syslog {
        syslog.tcp_port = Some(port);
    }

    change(&site, vec![source]);
    site.until(|bound| bound.udp.contains_key("late")).await;
    assert!(!site.bound.borrow().tcp.contains_key("late"));
    drop(holder);

    site.until(|bound| bound.tcp.contains_key("late")).await;
    assert_eq!(site.tcp("late").port(), port);
}

#[tokio::test]
async fn a_listener_that_cannot_open_at_the_start_is_told_with_the_remedy() {
    use redoubt::{
        broker::embedded::{EmbeddedBroker, Options},
        ingest::{Ingest, IngestOptions},
        metrics::Metrics,
        secrets::Secrets,
    };

    let folder = tempfile::tempdir().unwrap();
    let holder = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let mut taken = plan(vec![], IngestSpec::default());
    taken.spec.port = holder.local_addr().unwrap().port();
    let (_plan, plans) = tokio::sync::watch::channel(Arc::new(taken));
    let broker = Arc::new(EmbeddedBroker::open(&folder.path().join("queue"), Options::default()).unwrap());
    let options = IngestOptions { bind: [127, 0, 0, 1].into(), ..IngestOptions::default() };
    let ingest = Ingest::new(plans, broker, Secrets::new(folder.path()), Metrics::new(), Arc::new(|| 0), options);

    let error = ingest.run(tokio_util::sync::CancellationToken::new()).await.unwrap_err().to_string();

    assert!(error.contains(&holder.local_addr().unwrap().to_string()) && error.contains("free the port"), "{error}");
}
