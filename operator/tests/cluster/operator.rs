//! The operator's process.

use std::{
    fs,
    net::TcpListener,
    process::{Child, Command, Stdio},
    time::Duration,
};

use tempfile::TempDir;

use crate::namespace::{DEADLINE, Namespace, within};

/// A process that ends with its owner.
pub struct Operator {
    child: Child,
    port: u16,
    folder: TempDir,
}

impl Operator {
    /// Starts one that has the given kubeconfig, and waits until it works.
    pub async fn start(kubeconfig: &str, arguments: &[&str]) -> Self {
        let operator = Self::launch(kubeconfig, arguments);
        operator.until_ready("ok").await;
        operator
    }

    /// Starts one in the namespace alone, with an account of its own.
    pub async fn in_namespace(namespace: &Namespace) -> Self {
        let kubeconfig = namespace.account("operator", false).await;
        Self::start(&kubeconfig, &["--namespaces", &namespace.name]).await
    }

    pub fn launch(kubeconfig: &str, arguments: &[&str]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("kubeconfig");
        fs::write(&path, kubeconfig).unwrap();
        let log = fs::File::create(folder.path().join("log")).unwrap();
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let child = Command::new(env!("CARGO_BIN_EXE_redoubt-operator"))
            .args(["run", "--bind", "127.0.0.1", "--health-port", &port.to_string()])
            .args(arguments)
            .env("KUBECONFIG", path)
            .stderr(log)
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        Self { child, port, folder }
    }

    /// Waits until `/readyz` says that it is ready, in words that begin so.
    pub async fn until_ready(&self, begins: &str) {
        within(DEADLINE, "the operator is ready", async || {
            let (code, text) = self.page("readyz").await.ok_or_else(|| self.log())?;
            (code == 200 && text.starts_with(begins)).then_some(()).ok_or_else(|| format!("{code} {text}\n{}", self.log()))
        })
        .await;
    }

    pub async fn page(&self, path: &str) -> Option<(u16, String)> {
        let answer = reqwest::get(format!("http://127.0.0.1:{}/{path}", self.port)).await.ok()?;
        Some((answer.status().as_u16(), answer.text().await.ok()?))
    }

    /// The sum of a metric over all of its labels that have this text.
    pub async fn metric(&self, name: &str, labels: &str) -> f64 {
        let (_, page) = self.page("metrics").await.unwrap();
        let lines = page.lines().filter(|line| line.starts_with(name) && line.contains(labels));
        lines.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum()
    }

    pub fn log(&self) -> String {
        fs::read_to_string(self.folder.path().join("log")).unwrap_or_default()
    }

    /// Sends a signal, such as `TERM`, to the process.
    pub fn signal(&self, name: &str) {
        let status = Command::new("kill").args([&format!("-{name}"), &self.child.id().to_string()]).status().unwrap();
        assert!(status.success());
    }

    /// Waits until the process has ended. Gives its exit code.
    pub async fn ended(&mut self, deadline: Duration) -> Option<i32> {
        let child = &mut self.child;
        within(deadline, "the operator ends", async || match child.try_wait().unwrap() {
            Some(status) => Ok(status.code()),
            None => Err("it runs".to_owned()),
        })
        .await
    }
}

impl Drop for Operator {
    fn drop(&mut self) {
        // Whether it had ended by itself does not matter here.
        drop(self.child.kill());
        drop(self.child.wait());
        if std::thread::panicking() {
            eprintln!("the operator's log:\n{}", self.log());
        }
    }
}
