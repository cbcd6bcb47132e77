//! TLS in front of a server that does not speak it: senders must show a certificate.

use std::{net::SocketAddr, path::Path};

use redoubt::tls::ServerTls;
use tokio::{
    io::copy_bidirectional,
    net::{TcpListener, TcpStream},
};
use tokio_rustls::TlsAcceptor;

/// Begins to pass on what arrives over TLS to an address; `folder` holds `tls.crt`, `tls.key` and, for those who connect, `ca.crt`.
pub async fn tls_front(folder: &Path, target: String) -> SocketAddr {
    let acceptor = TlsAcceptor::from(ServerTls::load(folder, &[]).unwrap().config());
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((client, _)) = listener.accept().await {
            let (acceptor, target) = (acceptor.clone(), target.clone());
            tokio::spawn(async move {
                // Who does not show a certificate is refused, and hears why from TLS.
                let Ok(mut client) = acceptor.accept(client).await else { return };
                let Ok(mut server) = TcpStream::connect(target).await else { return };
                let _ = copy_bidirectional(&mut client, &mut server).await;
            });
        }
    });
    address
}
