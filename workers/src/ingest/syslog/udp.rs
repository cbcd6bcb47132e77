//! Syslog over UDP (RFC 5426): a datagram is a message.

use std::{
    io,
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::UdpSocket;

use super::{
    super::{Shared, lifecycle::Lifecycle},
    Drops,
    buffer::Buffer,
};

/// Room for a burst in the system's own buffer; the system may grant less.
const RECEIVE_BUFFER: usize = 8 << 20;
/// The largest datagram there is.
const MAX_DATAGRAM: usize = 65_535;

/// Opens the socket.
pub(in super::super) fn bind(address: SocketAddr) -> io::Result<UdpSocket> {
    let socket = Socket::new(Domain::for_address(address), Type::DGRAM, Some(Protocol::UDP))?;
    if let Err(error) = socket.set_recv_buffer_size(RECEIVE_BUFFER) {
        tracing::debug!(%error, "the receive buffer keeps its size");
    }
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    UdpSocket::from_std(socket.into())
}

/// Takes datagrams until told to stop, and then those that the system already holds.
pub(in super::super) async fn receive(socket: UdpSocket, source: String, shared: Arc<Shared>, life: Lifecycle) {
    let mut receiver =
        Receiver { buffer: Buffer::start(&source, shared.clone(), &life), source, shared, drops: Drops::default(), last_sender: None };
    let mut datagram = vec![0; MAX_DATAGRAM];
    loop {
        let received = tokio::select! {
            () = life.stop.cancelled() => break,
            received = socket.recv_from(&mut datagram) => received,
        };
        match received {
            Ok((length, peer)) => receiver.datagram(&datagram[..length], peer),
            Err(error) => tracing::debug!(%error, "a datagram could not be received"),
        }
    }
    // Bounded, since a sender that does not stop would keep the listener open.
    for _ in 0..100_000 {
        let Ok((length, peer)) = socket.try_recv_from(&mut datagram) else { return };
        receiver.datagram(&datagram[..length], peer);
    }
}

struct Receiver {
    source: String,
    shared: Arc<Shared>,
    buffer: Buffer,
    drops: Drops,
    /// The last sender's address as text: datagrams come in runs.
    last_sender: Option<(IpAddr, Arc<str>)>,
}

impl Receiver {
    fn datagram(&mut self, datagram: &[u8], peer: SocketAddr) {
        let plan = self.shared.plan();
        let Some(source) = plan.sources.get(&self.source) else { return };
        if !source.allows(peer.ip()) {
            return self.drops.count(&self.shared, source, "sender", 1, Some(peer));
        }
        let end = datagram.iter().rposition(|byte| !matches!(byte, b'\n' | b'\r' | b'\0')).map_or(0, |last| last + 1);
        if end == 0 {
            return;
        }
        if end as u64 > plan.spec.max_event_bytes {
            return self.drops.count(&self.shared, source, "too_large", 1, Some(peer));
        }
        let body = String::from_utf8_lossy(&datagram[..end]).into_owned();
        let sender = self.sender(peer.ip().to_canonical());
        if self.buffer.try_push((self.shared.clock)(), &sender, body).is_err() {
            self.drops.count(&self.shared, source, "full", 1, Some(peer));
        }
    }

    fn sender(&mut self, address: IpAddr) -> Arc<str> {
        match &self.last_sender {
            Some((last, text)) if *last == address => text.clone(),
            _ => {
                let text: Arc<str> = address.to_string().into();
                self.last_sender = Some((address, text.clone()));
                text
            }
        }
    }
}
