//! Connections to a RabbitMQ: opened on any of its nodes, and opened again when they break.
//!
//! A [`Link`] is one connection for one purpose. Whoever needs it asks for it each time; a connection that broke is replaced then,
//! with growing pauses between attempts that fail, and within a bounded time. Nothing here remembers channels: they die with their
//! connection, and those who opened them open them again.
//!
//! What publishes and what consumes have connections of their own. RabbitMQ stops reading from a connection that publishes while it is
//! short of memory or disk, and acknowledgements behind a stopped publish would never arrive.

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use futures::StreamExt as _;
use lapin::{
    Channel, Connection, ConnectionProperties, ErrorKind, Event,
    protocol::AMQPErrorKind,
    tcp::{OwnedIdentity, OwnedTLSConfig},
    uri::AMQPUri,
};
use redoubt_crds::{BasicAuthSecretRef, ClientTls, SecretKeyRef};
use tokio::{
    sync::{Mutex, watch},
    time::{Instant, timeout},
};
use tracing::{info, warn};

use crate::{backoff, secrets::Secrets};

/// Both sides send something at least twice in this time, and take a silent peer for gone after about twice of it. Seconds.
const HEARTBEAT: u16 = 10;
/// How long one node is given to answer, TLS and login included.
const CONNECT: Duration = Duration::from_secs(5);
/// How long the opening of a channel, or another question to the server, may take.
pub(crate) const ANSWER: Duration = Duration::from_secs(10);
/// How long an orderly farewell may take.
const FAREWELL: Duration = Duration::from_secs(2);
/// First and longest pause between attempts.
const PAUSES: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(10));

/// Where a RabbitMQ is and how to log in. Credentials and certificates are read anew for each connection, so they may be rotated.
#[derive(Debug, Clone)]
pub(crate) struct Server {
    /// Nodes, as `amqp://HOST:PORT` or `amqps://HOST:PORT`.
    pub(crate) urls: Vec<String>,
    /// Virtual host.
    pub(crate) vhost: String,
    /// User and password.
    pub(crate) credentials: BasicAuthSecretRef,
    /// Whom to trust and what to show, over `amqps`.
    pub(crate) tls: Option<ClientTls>,
    /// Where both come from.
    pub(crate) secrets: Secrets,
}

impl Server {
    /// Connects to the first node that answers.
    async fn connect(&self, name: &str) -> Result<Connection, String> {
        let key = |key: &str| self.secrets.get(&SecretKeyRef { name: self.credentials.name.clone(), key: key.to_owned() });
        let user = key("username").map_err(|error| error.to_string())?;
        let password = key("password").map_err(|error| error.to_string())?;
        let mut refusals = Vec::new();
        for url in &self.urls {
            let mut uri: AMQPUri = url.parse().map_err(|error| format!("{url} is no address of a RabbitMQ: {error}"))?;
            user.expose().clone_into(&mut uri.authority.userinfo.username);
            password.expose().clone_into(&mut uri.authority.userinfo.password);
            self.vhost.clone_into(&mut uri.vhost);
            uri.query.heartbeat = Some(HEARTBEAT);
            match self.connect_to(uri, name).await {
                Ok(connection) => return Ok(connection),
                Err(refusal) => refusals.push(format!("{url}: {refusal}")),
            }
        }
        Err(refusals.join("; "))
    }

    async fn connect_to(&self, uri: AMQPUri, name: &str) -> Result<Connection, String> {
        let properties = ConnectionProperties::default().with_connection_name(name.into());
        let tls = self.tls_config()?;
        let runtime = lapin::runtime::default_runtime().map_err(|error| error.to_string())?;
        match timeout(CONNECT, Connection::connect_uri_with_config(uri, properties, tls, runtime)).await {
            Ok(Ok(connection)) => Ok(connection),
            Ok(Err(error)) => Err(error.to_string()),
            Err(_) => Err(format!("no answer within {CONNECT:?}")),
        }
    }

    fn tls_config(&self) -> Result<OwnedTLSConfig, String> {
        let Some(tls) = &self.tls else { return Ok(OwnedTLSConfig::default()) };
        let text = |error: &dyn fmt::Display| error.to_string();
        let trusted = tls.ca_secret_ref.as_ref().map(|reference| self.secrets.get(reference)).transpose();
        let cert_chain = trusted.map_err(|error| text(&error))?.map(|value| value.expose().to_owned());
        let identity = match &tls.client_certificate_secret_ref {
            None => None,
            Some(reference) => {
                let folder = self.secrets.tls_directory(reference).map_err(|error| text(&error))?;
                let read = |file: &str| {
                    let path = folder.join(file);
                    std::fs::read(&path).map_err(|error| format!("{} cannot be read: {error}", path.display()))
                };
                Some(OwnedIdentity::PKCS8 { pem: read("tls.crt")?, key: read("tls.key")? })
            }
        };
        Ok(OwnedTLSConfig { identity, cert_chain })
    }
}

/// A connection that was opened.
#[derive(Debug)]
pub(crate) struct Live {
    connection: Connection,
    /// Why the server takes no publishes now.
    blocked: watch::Receiver<Option<String>>,
    given_up: AtomicBool,
}

impl Live {
    fn new(connection: Connection) -> Arc<Self> {
        let (sender, blocked) = watch::channel(None);
        let mut events = Box::pin(connection.events_listener());
        tokio::spawn(async move {
            while let Some(event) = events.next().await {
                match event {
                    Event::ConnectionBlocked(reason) => {
                        warn!(reason, "RabbitMQ takes no messages for now: it is short of memory or disk");
                        sender.send_replace(Some(reason));
                    }
                    Event::ConnectionUnblocked => {
                        info!("RabbitMQ takes messages again");
                        sender.send_replace(None);
                    }
                    Event::Error(_) => return,
                    _ => {}
                }
            }
        });
        Arc::new(Self { connection, blocked, given_up: AtomicBool::new(false) })
    }

    fn usable(&self) -> bool {
        self.connection.status().connected() && !self.given_up.load(Ordering::Relaxed)
    }

    /// Why the server takes no publishes over this connection now, as it changes. Ends when the connection breaks.
    pub(crate) fn blocked(&self) -> watch::Receiver<Option<String>> {
        self.blocked.clone()
    }

    /// A new channel.
    pub(crate) async fn channel(&self) -> Result<Channel, String> {
        match timeout(ANSWER, self.connection.create_channel()).await {
            Ok(Ok(channel)) => Ok(channel),
            Ok(Err(error)) => Err(error.to_string()),
            Err(_) => {
                self.give_up();
                Err(format!("no channel within {ANSWER:?}"))
            }
        }
    }

    /// Takes the connection for broken: the next one to ask gets another.
    pub(crate) fn give_up(&self) {
        self.given_up.store(true, Ordering::Relaxed);
    }

    async fn close(&self) {
        self.give_up();
        // Fails where it is broken, which is as good.
        let _ = timeout(FAREWELL, self.connection.close(200, "OK".into())).await;
    }
}

/// One connection for one purpose, opened when it is first needed.
#[derive(Debug)]
pub(crate) struct Link {
    server: Server,
    /// What RabbitMQ's own tools show the connection as.
    name: String,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    live: Option<Arc<Live>>,
    /// Why the last attempt failed, and when the next is due.
    failed: Option<(String, Instant)>,
    pause: Duration,
}

impl Link {
    pub(crate) fn new(server: Server, name: String) -> Self {
        Self { server, name, state: Mutex::new(State::default()) }
    }

    /// The connection, opened now where there is none. After a failure the next attempt waits for its time: until then all get the
    /// reason of the last one, at once.
    pub(crate) async fn get(&self) -> Result<Arc<Live>, String> {
        let mut state = self.state.lock().await;
        if let Some(live) = state.live.as_ref().filter(|live| live.usable()) {
            return Ok(Arc::clone(live));
        }
        if let Some((reason, due)) = &state.failed
            && Instant::now() < *due
        {
            return Err(reason.clone());
        }
        if let Some(broken) = state.live.take() {
            tokio::spawn(async move { broken.close().await });
        }
        match self.server.connect(&self.name).await {
            Ok(connection) => {
                info!(connection = self.name, "connected to RabbitMQ");
                let live = Live::new(connection);
                *state = State { live: Some(Arc::clone(&live)), failed: None, pause: Duration::ZERO };
                Ok(live)
            }
            Err(reason) => {
                warn!(connection = self.name, reason, "no connection to RabbitMQ");
                state.pause = (state.pause * 2).clamp(PAUSES.0, PAUSES.1);
                state.failed = Some((reason.clone(), Instant::now() + backoff::jittered(state.pause)));
                Err(reason)
            }
        }
    }

    /// How long it is until the next attempt is due.
    pub(crate) async fn next_attempt(&self) -> Duration {
        let state = self.state.lock().await;
        state.failed.as_ref().map_or(PAUSES.0, |(_, due)| due.saturating_duration_since(Instant::now()))
    }

    pub(crate) async fn close(&self) {
        let live = self.state.lock().await.live.take();
        if let Some(live) = live {
            live.close().await;
        }
    }
}

/// The code of a refusal that closed a channel and left the connection whole.
pub(crate) fn code(error: &lapin::Error) -> Option<u16> {
    match error.kind() {
        ErrorKind::ProtocolError(error) => match error.kind() {
            AMQPErrorKind::Soft(_) => Some(error.get_id()),
            AMQPErrorKind::Hard(_) => None,
        },
        _ => None,
    }
}
