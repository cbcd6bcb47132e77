//! A running `redoubt` with a data folder and an address of its own.

use std::{
    fs,
    io::{BufRead as _, BufReader},
    net::Ipv4Addr,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{
        Arc, Mutex,
        atomic::{AtomicU8, Ordering},
    },
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use redoubt::store::{Family, SearchRequest, SearchResponse, embedded::StoreReader};
use tempfile::TempDir;

/// How long anything that must happen may take on a busy machine: longer than two requests to a server that was killed and are given up
/// after a minute each.
pub const DEADLINE: Duration = Duration::from_secs(180);
pub const TOKEN: &str = "a-token-for-tests";

static NEXT: AtomicU8 = AtomicU8::new(1);

/// One SIEM: its resources, its data, and the process when it runs.
pub struct Siem {
    pub folder: TempDir,
    pub address: Ipv4Addr,
    processes: Vec<(String, Child)>,
    log: Arc<Mutex<Vec<String>>>,
    /// The namespace of its resources, and the file that leads to its cluster; without it they are files.
    namespace: Option<(String, PathBuf)>,
}

impl Siem {
    /// A SIEM on the given resources, not started yet. It listens on a loopback address that no other test of any process uses, so
    /// that every test can have the same ports.
    pub fn new(resources: &[(&str, &str)]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let pid = std::process::id();
        let [_, _, high, low] = pid.to_be_bytes();
        let address = Ipv4Addr::new(127, 100 + NEXT.fetch_add(1, Ordering::Relaxed) % 100, high, low.max(1));
        let siem = Self { folder, address, processes: Vec::new(), log: Arc::default(), namespace: None };
        fs::create_dir_all(siem.path("resources")).unwrap();
        fs::create_dir_all(siem.path("data/secrets/ingest")).unwrap();
        fs::write(siem.path("data/secrets/ingest/token"), TOKEN).unwrap();
        for (name, text) in resources {
            siem.write(name, text);
        }
        siem
    }

    /// A SIEM on the resources of a namespace. Each role keeps its data, and the copies of its Secrets, in `data/ROLE`.
    pub fn of_namespace(name: &str, kubeconfig: &Path) -> Self {
        let mut siem = Self::new(&[]);
        siem.namespace = Some((name.to_owned(), kubeconfig.to_owned()));
        siem
    }

    pub fn path(&self, relative: &str) -> PathBuf {
        self.folder.path().join(relative)
    }

    /// Writes a file of resources the way editors do: whole, by renaming.
    pub fn write(&self, name: &str, text: &str) {
        let draft = self.path(&format!("draft-{name}"));
        fs::write(&draft, text).unwrap();
        fs::rename(draft, self.path("resources").join(name)).unwrap();
    }

    /// The Secret `rabbitmq` with the user that every node of the tests knows.
    pub fn write_rabbitmq_login(&self) {
        let folder = self.path("data/secrets/rabbitmq");
        fs::create_dir_all(&folder).unwrap();
        for key in ["username", "password"] {
            fs::write(folder.join(key), "guest").unwrap();
        }
    }

    pub fn start(&mut self) {
        self.start_role("run", None);
    }

    /// Starts one role in a process of its own, with the port of its health page; or, as `run`, all in one.
    pub fn start_role(&mut self, role: &str, health_port: Option<u16>) {
        let health_port = health_port.map(|port| ["--health-port".to_owned(), port.to_string()]);
        let mut command = Command::new(env!("CARGO_BIN_EXE_redoubt"));
        command.arg(role).args(health_port.into_iter().flatten());
        match &self.namespace {
            Some((name, kubeconfig)) => {
                command.args(["--namespace", name]).env("KUBECONFIG", kubeconfig).arg("--data").arg(self.path("data").join(role))
            }
            None => command.arg("-f").arg(self.path("resources")).arg("--data").arg(self.path("data")),
        };
        let mut child = command
            .args(["--bind", &self.address.to_string(), "--log", "info"])
            .stderr(Stdio::piped())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let log = Arc::clone(&self.log);
        std::thread::spawn(move || {
            for line in lines.map_while(Result::ok) {
                log.lock().unwrap().push(line);
            }
        });
        self.processes.push((role.to_owned(), child));
    }

    /// Starts and waits until events are taken.
    pub async fn start_ready(&mut self) {
        self.start();
        self.until_ready(8080).await;
    }

    /// Waits until the process whose health page is on a port says that it is ready.
    pub async fn until_ready(&self, port: u16) {
        let url = format!("http://{}:{port}/readyz", self.address);
        let client = reqwest::Client::new();
        self.until("it is ready", async || client.get(&url).send().await.is_ok_and(|answer| answer.status().is_success())).await;
    }

    /// kill -9.
    pub fn kill(&mut self) {
        for (_, child) in self.processes.drain(..) {
            end(child);
        }
    }

    /// kill -9 of one role.
    pub fn kill_role(&mut self, role: &str) {
        let at = self.processes.iter().position(|(name, _)| name == role).unwrap();
        end(self.processes.remove(at).1);
    }

    /// The pid of a role's process.
    pub fn pid(&self, role: &str) -> u32 {
        self.processes.iter().find(|(name, _)| name == role).unwrap().1.id()
    }

    /// Ctrl-C, and waits for the clean end.
    pub fn stop(&mut self) {
        for (_, mut child) in std::mem::take(&mut self.processes) {
            let pid = child.id().to_string();
            assert!(Command::new("kill").args(["-INT", &pid]).status().unwrap().success());
            let status = child.wait().unwrap();
            assert!(status.success(), "ended with {status}:\n{}", self.log());
        }
    }

    pub fn url(&self, path: &str) -> String {
        format!("http://{}:8080{path}", self.address)
    }

    pub fn log(&self) -> String {
        self.log.lock().unwrap().join("\n")
    }

    /// Waits until a condition holds; fails with the process's log when it does not in time.
    pub async fn until(&self, what: &str, mut condition: impl AsyncFnMut() -> bool) {
        let started = Instant::now();
        while !condition().await {
            assert!(started.elapsed() < DEADLINE, "after {DEADLINE:?} it does not hold that {what}; the log:\n{}", self.log());
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// Waits until the log holds a text.
    pub async fn until_logged(&self, text: &str) {
        self.until(&format!("the log says {text:?}"), async || self.log().contains(text)).await;
    }

    /// Posts a body until it is taken, as a careful client does: again after every failure that is not the body's own fault.
    pub async fn post(&self, client: &reqwest::Client, source: &str, body: String) -> reqwest::StatusCode {
        let url = self.url(&format!("/v1/sources/{source}"));
        let started = Instant::now();
        loop {
            let sent = client.post(&url).bearer_auth(TOKEN).body(body.clone()).timeout(Duration::from_secs(20)).send().await;
            match sent {
                Ok(answer) if answer.status().as_u16() != 429 && !answer.status().is_server_error() => return answer.status(),
                _ => tokio::time::sleep(Duration::from_millis(20)).await,
            }
            assert!(started.elapsed() < DEADLINE * 3, "nobody takes events; the log:\n{}", self.log());
        }
    }

    /// A search in the store, beside the process that may be running.
    pub async fn search(&self, family: Family, request: SearchRequest) -> SearchResponse {
        let folder = self.path("data/store");
        tokio::task::spawn_blocking(move || StoreReader::open(&folder).unwrap().search(family, &request).unwrap()).await.unwrap()
    }

    pub async fn count(&self, family: Family, query: &str) -> u64 {
        if !self.path("data/store/records.redb").is_file() {
            return 0;
        }
        self.search(family, SearchRequest { query: query.to_owned(), ..SearchRequest::default() }).await.total
    }

    /// The value of a counter or gauge, summed over the series whose labels hold a text.
    pub async fn metric(&self, name: &str, labels: &str) -> f64 {
        self.metric_at(8080, name, labels).await
    }

    /// Waits until the process with this port has seen topics whose names begin so empty, all that was published before the call counted.
    /// With the queue in the data folder, what is handed out counts as well.
    pub async fn until_empty(&self, port: u16, topics: &str) {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs_f64();
        let label = format!("topic=\"{topics}");
        self.until(&format!("{topics} is empty"), async || {
            self.metric_at(port, "redoubt_queues_measured_timestamp_seconds", "").await > now
                && self.metric_at(port, "redoubt_queue_messages", &label).await == 0.0
        })
        .await;
    }

    /// The same of the process whose metrics are on a port.
    pub async fn metric_at(&self, port: u16, name: &str, labels: &str) -> f64 {
        let url = format!("http://{}:{port}/metrics", self.address);
        let page = reqwest::get(url).await.unwrap().text().await.unwrap();
        let series = page.lines().filter(|line| line.starts_with(name) && line.contains(labels));
        series.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum()
    }
}

fn end(mut child: Child) {
    child.kill().unwrap();
    child.wait().unwrap();
}

impl Drop for Siem {
    fn drop(&mut self) {
        for (_, child) in &mut self.processes {
            drop(child.kill());
            drop(child.wait());
        }
    }
}

/// A file or folder of the repository.
pub fn repository(relative: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(relative)
}

pub const JSON_SOURCE: &str = "
apiVersion: redoubt.dev/v1alpha1
kind: LogSource
metadata: {name: app}
spec:
  http: {auth: {bearer: {name: ingest, key: token}}}
";
