//! A network that can be cut: a TCP proxy in front of one server.

use std::{net::SocketAddr, sync::Arc};

use tokio::{
    io::AsyncWriteExt as _,
    net::{TcpListener, TcpStream},
    sync::watch,
};

/// What becomes of the bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Network {
    /// They pass.
    Whole,
    /// Nothing passes, and nobody is told: connections stay open, new ones too.
    Silent,
    /// Connections end when what was sent has passed, and new ones are refused.
    Cut,
}

/// The proxy. Connections end with it.
pub struct Proxy {
    address: SocketAddr,
    network: Arc<watch::Sender<Network>>,
    /// Connections that are open.
    open: Arc<watch::Sender<usize>>,
}

impl Proxy {
    /// A whole network to an address.
    pub async fn to(target: String) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let network = Arc::new(watch::Sender::new(Network::Whole));
        let mut changes = network.subscribe();
        let open = Arc::new(watch::Sender::new(0));
        let counted = Arc::clone(&open);
        tokio::spawn(async move {
            loop {
                tokio::select! {
                    accepted = listener.accept() => {
                        let Ok((client, _)) = accepted else { return };
                        if *changes.borrow() != Network::Cut {
                            let (target, changes, open) = (target.clone(), changes.clone(), Arc::clone(&counted));
                            open.send_modify(|open| *open += 1);
                            tokio::spawn(async move {
                                carry(client, target, changes).await;
                                open.send_modify(|open| *open -= 1);
                            });
                        }
                    }
                    changed = changes.changed() => if changed.is_err() { return },
                }
            }
        });
        Self { address, network, open }
    }

    /// The address of this side.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// `amqp://HOST:PORT` of this side.
    pub fn url(&self) -> String {
        format!("amqp://{}", self.address)
    }

    /// Lets everything pass again.
    pub fn heal(&self) {
        self.network.send_replace(Network::Whole);
    }

    /// Ends all connections, and waits until they have ended.
    pub async fn cut(&self) {
        self.network.send_replace(Network::Cut);
        let _ = self.open.subscribe().wait_for(|open| *open == 0).await;
    }

    /// Holds everything up without a word.
    pub fn silence(&self) {
        self.network.send_replace(Network::Silent);
    }
}

async fn carry(client: TcpStream, target: String, network: watch::Receiver<Network>) {
    let Ok(server) = TcpStream::connect(target).await else { return };
    let (client_in, client_out) = client.into_split();
    let (server_in, server_out) = server.into_split();
    let there = one_way(client_in, server_out, network.clone());
    let back = one_way(server_in, client_out, network);
    tokio::join!(there, back);
}

async fn one_way(from: tokio::net::tcp::OwnedReadHalf, mut to: tokio::net::tcp::OwnedWriteHalf, mut network: watch::Receiver<Network>) {
    let mut bytes = vec![0; 64 << 10];
    loop {
        let state = *network.borrow_and_update();
        tokio::select! {
            changed = network.changed() => if changed.is_err() { return },
            readable = from.readable(), if state != Network::Silent => {
                if readable.is_err() {
                    return;
                }
                match from.try_read(&mut bytes) {
                    Ok(0) => break,
                    Ok(count) => if to.write_all(&bytes[..count]).await.is_err() { return },
                    // What was there has passed.
                    Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
                    Err(_) => return,
                }
            }
        }
        if *network.borrow() == Network::Cut {
            while let Ok(count @ 1..) = from.try_read(&mut bytes) {
                if to.write_all(&bytes[..count]).await.is_err() {
                    return;
                }
            }
            break;
        }
    }
    let _ = to.shutdown().await;
}
