//! Senders that speak TLS, with certificates of their own where the listener asks for them.

use std::{path::Path, sync::Arc};

use axum::{
    body::Body,
    http::{Request, StatusCode},
};
use hyper_util::rt::{TokioExecutor, TokioIo};
use redoubt::broker::embedded::Options;
use redoubt_crds::{Format, IngestSpec, SyslogInput, TlsSecretRef};
use rustls::{
    ClientConfig, RootCertStore,
    client::WantsClientCert,
    crypto::ring,
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem::PemObject as _},
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::timeout,
};
use tokio_rustls::{TlsConnector, client::TlsStream};

use crate::{
    servers::authority::Authority,
    site::{DEADLINE, bodies, http, start_in, syslog_with, write_secret},
};

/// Writes a Secret with a pair for `localhost`, and the authority where senders must show a certificate of it.
fn write_listener(authority: &Authority, folder: &Path, secret: &str, ask_senders: bool) {
    let (certificate, key) = authority.issue("localhost");
    write_secret(folder, secret, "tls.crt", &certificate);
    write_secret(folder, secret, "tls.key", &key);
    if ask_senders {
        write_secret(folder, secret, "ca.crt", &authority.pem());
    }
}

fn trusting(authority: &Authority) -> rustls::ConfigBuilder<ClientConfig, WantsClientCert> {
    let mut roots = RootCertStore::empty();
    roots.add(authority.der()).unwrap();
    let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()));
    builder.with_safe_default_protocol_versions().unwrap().with_root_certificates(roots)
}

async fn connect(config: ClientConfig, address: std::net::SocketAddr) -> std::io::Result<TlsStream<TcpStream>> {
    let stream = TcpStream::connect(address).await?;
    TlsConnector::from(Arc::new(config)).connect(ServerName::try_from("localhost").unwrap(), stream).await
}

fn secret(name: &str) -> Option<TlsSecretRef> {
    Some(TlsSecretRef { name: name.into() })
}

#[tokio::test]
async fn events_are_posted_over_http_1_and_http_2() {
    let (folder, authority) = (tempfile::tempdir().unwrap(), Authority::new());
    write_listener(&authority, folder.path(), "listener", false);
    write_secret(folder.path(), "web", "tokens", "token");
    let spec = IngestSpec { tls: secret("listener"), ..IngestSpec::default() };
    let site = start_tls(folder, vec![http("web", Format::Json)], spec).await;

    let mut http1 = connect(trusting(&authority).with_no_client_auth(), site.address()).await.unwrap();
    let request = "POST /v1/events HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\nauthorization: Bearer token\r\ncontent-length: 7\r\n\r\n{\"a\":1}";
    http1.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    timeout(DEADLINE, http1.read_to_string(&mut answer)).await.unwrap().unwrap();
    assert!(answer.starts_with("HTTP/1.1 202"), "{answer}");

    let mut config = trusting(&authority).with_no_client_auth();
    config.alpn_protocols = vec![b"h2".to_vec()];
    let stream = connect(config, site.address()).await.unwrap();
    assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"h2"[..]));
    let (mut http2, connection) = hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection);
    let request = Request::post("https://localhost/v1/events").header("authorization", "Bearer token").body(Body::from("{\"a\":2}"));
    let answer = timeout(DEADLINE, http2.send_request(request.unwrap())).await.unwrap().unwrap();
    assert_eq!(answer.status(), StatusCode::ACCEPTED);

    assert_eq!(bodies(&site.take(2).await), ["{\"a\":1}", "{\"a\":2}"]);
}

#[tokio::test]
async fn syslog_senders_show_a_certificate_where_the_listener_asks_for_one() {
    let (folder, authority) = (tempfile::tempdir().unwrap(), Authority::new());
    write_listener(&authority, folder.path(), "listener", true);
    let source = syslog_with("firewall", SyslogInput { tls: secret("listener"), ..SyslogInput::default() });
    let site = start_in(folder, vec![source], IngestSpec::default(), Options::default()).await;
    let (certificate, key) = authority.issue("sender");
    let chain = vec![CertificateDer::from_pem_slice(certificate.as_bytes()).unwrap()];
    let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).unwrap();

    let unknown = async {
        let mut stream = connect(trusting(&authority).with_no_client_auth(), site.tcp("firewall")).await?;
        stream.write_all(b"<13>unknown\n").await?;
        // With TLS 1.3 the refusal comes with the first read.
        stream.read(&mut [0]).await
    };
    assert!(timeout(DEADLINE, unknown).await.unwrap().is_err());
    let known = trusting(&authority).with_client_auth_cert(chain, key).unwrap();
    let mut stream = connect(known, site.tcp("firewall")).await.unwrap();
    stream.write_all(b"9 <13>known").await.unwrap();
    stream.shutdown().await.unwrap();

    assert_eq!(bodies(&site.take(1).await), ["<13>known"]);
    assert_eq!(site.queued().await, 0);
}

/// Starts a site whose HTTP listener speaks TLS; its readiness is asked for over TLS too.
async fn start_tls(folder: tempfile::TempDir, sources: Vec<redoubt_engine::source::Source>, spec: IngestSpec) -> crate::site::Site {
    // Only for the readiness: the tests themselves check the certificate.
    let client = reqwest::Client::builder().danger_accept_invalid_certs(true).build().unwrap();
    crate::site::start_with_client(folder, sources, spec, Options::default(), client, "https").await
}
