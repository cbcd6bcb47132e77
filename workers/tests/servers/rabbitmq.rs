//! Real RabbitMQ nodes, started by `tests/servers/rabbitmq` and ended with the test process, however that ends: the script waits for
//! the end of its standard input, which this process holds open.

use std::{
    io::{BufRead as _, BufReader},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::OnceLock,
};

use tempfile::TempDir;

use super::authority::Authority;

fn script() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/servers/rabbitmq")
}

/// Nodes of one cluster, or a single one.
pub struct Nodes {
    folder: TempDir,
    guard: Child,
}

impl Nodes {
    /// Starts nodes and waits until they answer.
    pub fn start(names: &[&str]) -> Self {
        Self::start_in(tempfile::tempdir().unwrap(), names)
    }

    /// The same, and they listen over TLS too and ask for certificates of the authority.
    pub fn start_with_tls(names: &[&str], authority: &Authority) -> Self {
        let folder = tempfile::tempdir().unwrap();
        authority.equip(&folder.path().join("tls"), "localhost");
        Self::start_in(folder, names)
    }

    fn start_in(folder: TempDir, names: &[&str]) -> Self {
        let mut guard = Command::new(script())
            .arg("guard")
            .arg(folder.path())
            .args(names)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(guard.stdout.take().unwrap()).read_line(&mut line).unwrap();
        assert_eq!(line, "ready\n", "RabbitMQ did not start; its log is above");
        Self { folder, guard }
    }

    /// `amqp://HOST:PORT` of a node.
    pub fn url(&self, node: &str) -> String {
        format!("amqp://{}", self.address(node))
    }

    /// `HOST:PORT` of a node.
    pub fn address(&self, node: &str) -> String {
        format!("127.0.0.1:{}", self.noted(node, "port"))
    }

    /// `amqps://HOST:PORT` of a node that listens over TLS.
    pub fn tls_url(&self, node: &str) -> String {
        format!("amqps://localhost:{}", self.noted(node, "tls-port"))
    }

    fn noted(&self, node: &str, what: &str) -> String {
        std::fs::read_to_string(self.folder.path().join(format!("{node}.{what}"))).unwrap().trim().to_owned()
    }

    /// Of a node's process.
    pub fn pid(&self, node: &str) -> String {
        self.noted(node, "pid")
    }

    fn run(&self, action: &str, arguments: &[&str]) -> String {
        let done = Command::new(script()).arg(action).arg(self.folder.path()).args(arguments).output().unwrap();
        let said = String::from_utf8_lossy(&done.stdout).into_owned();
        assert!(done.status.success(), "{action} {arguments:?}: {said} {}", String::from_utf8_lossy(&done.stderr));
        said
    }

    /// Ends a node by SIGKILL.
    pub fn kill(&self, node: &str) {
        self.run("kill", &[node]);
    }

    /// Starts a node again that was killed, and waits until it answers.
    pub fn again(&self, node: &str) {
        self.run("again", &[node]);
    }

    /// `rabbitmqctl` for a node.
    pub fn ctl(&self, node: &str, arguments: &[&str]) -> String {
        self.run("ctl", &[&[node], arguments].concat())
    }
}

impl Drop for Nodes {
    fn drop(&mut self) {
        drop(self.guard.stdin.take());
        let _ = self.guard.wait();
    }
}

/// Whether there is a RabbitMQ to test with. Without one says so and skips, or fails where `REDOUBT_REQUIRE_SERVERS` is set.
pub fn available() -> bool {
    let installed = Path::new("/usr/lib/rabbitmq/bin/rabbitmq-server").exists();
    if !installed {
        assert!(std::env::var_os("REDOUBT_REQUIRE_SERVERS").is_none(), "RabbitMQ is not installed: run tests/setup servers");
        eprintln!("skipped: RabbitMQ is not installed; `tests/setup servers` does it");
    }
    installed
}

/// One node that all tests of this process share.
pub fn shared() -> &'static Nodes {
    static SHARED: OnceLock<Nodes> = OnceLock::new();
    SHARED.get_or_init(|| Nodes::start(&["a"]))
}
