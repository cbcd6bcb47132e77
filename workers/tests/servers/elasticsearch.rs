//! A real Elasticsearch for the tests of one binary. `tests/servers/elasticsearch` starts it; it ends with the process that asked for it,
//! however that ends.

use std::io::{BufRead, BufReader, Read};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

/// What waits for the server to go away fails after this time.
const DEADLINE: Duration = Duration::from_secs(60);
/// The exit code of the script where the machine lacks what it needs.
const ABSENT: i32 = 3;

/// A server of its own folder.
pub(crate) struct Server {
    folder: PathBuf,
    url: String,
    script: Child,
}

/// The server that all tests of this binary share, or why there is none.
pub(crate) fn shared() -> Result<&'static Server, &'static str> {
    static SERVER: OnceLock<Result<Server, String>> = OnceLock::new();
    SERVER.get_or_init(Server::start).as_ref().map_err(String::as_str)
}

/// A prefix that no other test has.
pub(crate) fn unique_prefix() -> String {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    format!("t{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed))
}

impl Server {
    /// Starts a server, or says what the machine lacks. With `REDOUBT_REQUIRE_SERVERS=1` a lack is a failure.
    pub(crate) fn start() -> Result<Self, String> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let name = format!("elasticsearch-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
        match serve(&folder, "0", true) {
            Ok((script, url)) => Ok(Self { folder, url, script }),
            Err(why) if std::env::var("REDOUBT_REQUIRE_SERVERS").is_ok_and(|required| required == "1") => {
                panic!("Elasticsearch is required and not there: {why}")
            }
            Err(why) => Err(why),
        }
    }

    /// Where it listens.
    pub(crate) fn url(&self) -> &str {
        &self.url
    }

    /// Of its process.
    pub(crate) fn pid(&self) -> String {
        std::fs::read_to_string(self.folder.join("pid")).unwrap().trim().to_owned()
    }

    /// Ends it as a crash would.
    pub(crate) fn kill(&self) {
        assert!(Command::new("kill").args(["-9", &self.pid()]).status().unwrap().success());
        let deadline = Instant::now() + DEADLINE;
        // Its port closes before it has ended: until then it may hold its folder.
        while is_alive(&self.pid()) || TcpStream::connect(self.url.trim_start_matches("http://")).is_ok() {
            assert!(Instant::now() < deadline, "it is still there");
            std::thread::yield_now();
        }
    }

    /// Starts it again on the same data, at the same address.
    pub(crate) fn restart(&mut self) {
        let port = self.url.rsplit(':').next().unwrap().to_owned();
        // The script of before is told nothing: the folder must stay. What it started is dead.
        let _ = self.script.kill();
        let _ = self.script.wait();
        let (script, url) = serve(&self.folder, &port, true).unwrap();
        assert_eq!(url, self.url);
        self.script = script;
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        drop(self.script.stdin.take());
        let _ = self.script.wait();
    }
}

/// Whether a process has not ended; one that nobody has buried yet (state Z, proc(5)) has.
fn is_alive(pid: &str) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit(") ").next().is_some_and(|rest| !rest.is_empty() && !rest.starts_with(['Z', 'X']))
}

/// Starts the script that keeps a server as long as its standard input is open.
fn serve(folder: &Path, port: &str, temporary: bool) -> Result<(Child, String), String> {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/servers/elasticsearch");
    let mut command = Command::new(script);
    command.arg("serve").arg(folder).arg(port).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    if temporary {
        command.env("REDOUBT_SERVER_TEMPORARY", "1");
    }
    let mut child = command.spawn().map_err(|error| format!("the script does not start: {error}"))?;
    let mut url = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut url).unwrap();
    if url.starts_with("http") {
        return Ok((child, url.trim().to_owned()));
    }
    let mut said = String::new();
    child.stderr.take().unwrap().read_to_string(&mut said).unwrap();
    let status = child.wait().unwrap();
    assert!(status.code() == Some(ABSENT), "Elasticsearch does not start: {said}");
    Err(said.trim().to_owned())
}
