//! The HTTP listener's connections: accepted, wrapped in TLS, served, ended in order.
//!
//! HTTP/1.1, and HTTP/2 where a TLS client asks for it. A connection that does not get to its first request in time is dropped, one
//! that sends its headers slowly as well, and so is an HTTP/2 peer that answers no ping.

use std::{net::SocketAddr, pin::pin, sync::Arc, time::Duration};

use axum::{Router, http::Request};
use hyper::{body::Incoming, service::Service};
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::conn::auto::Builder,
    service::TowerToHyperService,
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, TcpStream},
    sync::{Notify, Semaphore},
    time::{sleep, timeout},
};
use tokio_rustls::TlsAcceptor;

use super::{http::Peer, lifecycle::Lifecycle};
use crate::{metrics::Metrics, tls::ServerTls};

/// Most connections at a time; further ones wait in the system's queue.
const MAX_CONNECTIONS: usize = 1024;
/// From the connection to the end of the TLS handshake.
pub(super) const HANDSHAKE: Duration = Duration::from_secs(10);
/// From there to the first request, and from one request's end to the headers of the next.
const HEADERS: Duration = Duration::from_secs(30);
/// How often an HTTP/2 peer is asked whether it is there, and how long it may take to answer.
const PING: Duration = Duration::from_secs(20);
/// After a failed accept: the system is out of descriptors, and trying at once would only burn time.
pub(super) const ACCEPT_AGAIN: Duration = Duration::from_millis(100);

/// Accepts connections until told to stop. The connections go on by themselves.
pub(super) async fn serve(listener: TcpListener, tls: Option<ServerTls>, router: Router, metrics: Arc<Metrics>, life: Lifecycle) {
    let slots = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    loop {
        let (slot, accepted) = tokio::select! {
            () = life.stop.cancelled() => return,
            accepted = async {
                // The semaphore is never closed.
                let slot = slots.clone().acquire_owned().await.ok();
                (slot, listener.accept().await)
            } => accepted,
        };
        match accepted {
            Ok((stream, peer)) => {
                let (tls, router, life) = (tls.clone(), router.clone(), life.clone());
                let open = metrics.ingest_connections.clone();
                life.tracker.clone().spawn(async move {
                    open.inc();
                    tokio::select! {
                        () = life.kill.cancelled() => {}
                        () = connection(stream, peer, tls, router, &life) => {}
                    }
                    open.dec();
                    drop(slot);
                });
            }
            Err(error) => {
                tracing::warn!(%error, "a connection could not be accepted");
                sleep(ACCEPT_AGAIN).await;
            }
        }
    }
}

async fn connection(stream: TcpStream, peer: SocketAddr, tls: Option<ServerTls>, router: Router, life: &Lifecycle) {
    // Answers are small and whole: nothing is gained by holding them back.
    let _ = stream.set_nodelay(true);
    let Some(tls) = tls else { return requests(stream, peer, router, false, life).await };
    match timeout(HANDSHAKE, TlsAcceptor::from(tls.config()).accept(stream)).await {
        Ok(Ok(stream)) => {
            let http2 = stream.get_ref().1.alpn_protocol() == Some(b"h2");
            requests(stream, peer, router, http2, life).await;
        }
        Ok(Err(error)) => tracing::debug!(%peer, %error, "no TLS"),
        Err(_) => tracing::debug!(%peer, "no TLS handshake in time"),
    }
}

/// Serves a connection's requests. After a stop the running ones are still answered.
async fn requests<S>(stream: S, peer: SocketAddr, router: Router, http2: bool, life: &Lifecycle)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    // The version is known here; guessing it from the first bytes would wait for them without a limit.
    let mut builder = Builder::new(TokioExecutor::new());
    builder.http1().timer(TokioTimer::new()).header_read_timeout(HEADERS);
    builder.http2().timer(TokioTimer::new()).keep_alive_interval(PING).keep_alive_timeout(PING);
    let builder = if http2 { builder.http2_only() } else { builder.http1_only() };
    let first = Arc::new(Notify::new());
    let service = WithPeer { inner: TowerToHyperService::new(router), peer, first: first.clone() };
    let mut served = pin!(builder.serve_connection(TokioIo::new(stream), service));
    let mut unused = pin!(async {
        if timeout(HEADERS, first.notified()).await.is_ok() {
            std::future::pending::<()>().await;
        }
    });
    let result = tokio::select! {
        result = served.as_mut() => result,
        () = unused.as_mut() => return,
        () = life.stop.cancelled() => {
            served.as_mut().graceful_shutdown();
            served.await
        }
    };
    if let Err(error) = result {
        tracing::debug!(%peer, %error, "the connection ended early");
    }
}

/// Puts the sender's address among a request's extensions, and tells that there was a request.
struct WithPeer {
    inner: TowerToHyperService<Router>,
    peer: SocketAddr,
    first: Arc<Notify>,
}

impl Service<Request<Incoming>> for WithPeer {
    type Response = <TowerToHyperService<Router> as Service<Request<Incoming>>>::Response;
    type Error = <TowerToHyperService<Router> as Service<Request<Incoming>>>::Error;
    type Future = <TowerToHyperService<Router> as Service<Request<Incoming>>>::Future;

    fn call(&self, mut request: Request<Incoming>) -> Self::Future {
        self.first.notify_one();
        request.extensions_mut().insert(Peer(self.peer));
        self.inner.call(request)
    }
}
