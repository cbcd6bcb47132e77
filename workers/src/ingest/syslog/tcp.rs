//! Syslog over TCP (RFC 6587) and TLS (RFC 5425): a connection is a stream of messages.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use socket2::{SockRef, TcpKeepalive};
use tokio::{
    io::{AsyncRead, AsyncReadExt as _},
    net::{TcpListener, TcpStream},
    sync::Semaphore,
    time::{sleep, timeout},
};
use tokio_rustls::TlsAcceptor;

use super::{
    super::{
        Shared,
        lifecycle::Lifecycle,
        server::{ACCEPT_AGAIN, HANDSHAKE},
    },
    Drops,
    buffer::Buffer,
    splitter::{Piece, Splitter},
};
use crate::tls::ServerTls;

/// Most connections of a listener; further ones wait in the system's queue.
const MAX_CONNECTIONS: usize = 1024;
/// How long a sender may be silent. Long, since many senders notice only when they next write that a connection was closed, and lose
/// what they write then; a peer that is gone is found by TCP's own probes long before.
const SILENCE: Duration = Duration::from_secs(3600);
const PROBE: Duration = Duration::from_secs(60);
/// Bytes of one read.
const CHUNK: usize = 16 << 10;

/// What all connections of a listener share.
struct Listener {
    source: String,
    shared: Arc<Shared>,
    buffer: Buffer,
    drops: Drops,
    life: Lifecycle,
}

/// Accepts connections until told to stop.
pub(in super::super) async fn serve(listener: TcpListener, tls: Option<ServerTls>, source: String, shared: Arc<Shared>, life: Lifecycle) {
    let slots = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    let buffer = Buffer::start(&source, shared.clone(), &life);
    let common = Arc::new(Listener { source, shared, buffer, drops: Drops::default(), life: life.clone() });
    loop {
        let accepted = tokio::select! {
            () = life.stop.cancelled() => return,
            accepted = async {
                // The semaphore is never closed.
                let slot = slots.clone().acquire_owned().await.ok();
                (slot, listener.accept().await)
            } => accepted,
        };
        match accepted {
            (slot, Ok((stream, peer))) => {
                let (common, tls) = (common.clone(), tls.clone());
                life.tracker.spawn(async move {
                    let open = common.shared.metrics.ingest_connections.clone();
                    open.inc();
                    common.connection(stream, peer, tls).await;
                    open.dec();
                    drop(slot);
                });
            }
            (_, Err(error)) => {
                tracing::warn!(%error, "a connection could not be accepted");
                sleep(ACCEPT_AGAIN).await;
            }
        }
    }
}

impl Listener {
    async fn connection(&self, stream: TcpStream, peer: SocketAddr, tls: Option<ServerTls>) {
        if let Some(source) = self.shared.plan().sources.get(&self.source)
            && !source.allows(peer.ip())
        {
            return self.drops.count(&self.shared, source, "sender", 1, Some(peer));
        }
        // Without probes a peer that is gone is found by the silence.
        let _ = SockRef::from(&stream).set_tcp_keepalive(&TcpKeepalive::new().with_time(PROBE).with_interval(PROBE));
        let Some(tls) = tls else { return self.messages(stream, peer).await };
        match timeout(HANDSHAKE, TlsAcceptor::from(tls.config()).accept(stream)).await {
            Ok(Ok(stream)) => self.messages(stream, peer).await,
            Ok(Err(error)) => tracing::debug!(%peer, %error, "no TLS"),
            Err(_) => tracing::debug!(%peer, "no TLS handshake in time"),
        }
    }

    /// Reads messages until the sender is done, silent for too long, or the listener stops.
    async fn messages<S: AsyncRead + Unpin>(&self, mut stream: S, peer: SocketAddr) {
        let sender: Arc<str> = peer.ip().to_canonical().to_string().into();
        let limit = usize::try_from(self.shared.plan().spec.max_event_bytes).unwrap_or(usize::MAX);
        let mut splitter = Splitter::new(limit);
        let mut pieces = Vec::new();
        let mut chunk = vec![0; CHUNK];
        loop {
            let read = tokio::select! {
                () = self.life.stop.cancelled() => break,
                read = timeout(SILENCE, stream.read(&mut chunk)) => read,
            };
            let length = match read {
                Ok(Ok(length)) if length > 0 => length,
                Ok(Ok(_)) | Err(_) => break,
                Ok(Err(error)) => {
                    tracing::debug!(%peer, %error, "the connection broke");
                    break;
                }
            };
            splitter.push(&chunk[..length], &mut pieces);
            // Not reading on before all pieces have room is what slows the sender down.
            if !self.take(&mut pieces, &sender, peer).await {
                return;
            }
        }
        splitter.finish(&mut pieces);
        self.take(&mut pieces, &sender, peer).await;
    }

    /// Hands pieces to the buffer; false when the buffer has ended.
    async fn take(&self, pieces: &mut Vec<Piece>, sender: &Arc<str>, peer: SocketAddr) -> bool {
        let received_millis = (self.shared.clock)();
        let source = self.shared.plan().sources.get(&self.source).cloned();
        let count = |reason| {
            if let Some(source) = &source {
                self.drops.count(&self.shared, source, reason, 1, Some(peer));
            }
        };
        for piece in pieces.drain(..) {
            match piece {
                Piece::Message(message) => {
                    let body = match String::from_utf8(message) {
                        Ok(body) => body,
                        Err(error) => String::from_utf8_lossy(error.as_bytes()).into_owned(),
                    };
                    let taken = tokio::select! {
                        () = self.life.kill.cancelled() => false,
                        pushed = self.buffer.push(received_millis, sender, body) => pushed.is_ok(),
                    };
                    if !taken {
                        count("shutdown");
                        return false;
                    }
                }
                Piece::TooLarge => count("too_large"),
                Piece::Incomplete => count("incomplete"),
            }
        }
        true
    }
}
