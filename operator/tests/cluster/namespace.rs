//! A namespace of the cluster, and the way to fill it.

use std::{
    path::PathBuf,
    process::Command,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::{
    Api, Client, Config,
    api::{ApiResource, DeleteParams, DynamicObject, Patch, PatchParams},
    config::{KubeConfigOptions, Kubeconfig},
    core::GroupVersionKind,
    runtime::{conditions, wait::await_condition},
};
use serde_json::{Value, json};
use tokio::sync::OnceCell;

/// The most that anything is waited for.
pub const DEADLINE: Duration = Duration::from_secs(120);

/// A namespace that nobody else has.
pub struct Namespace {
    pub client: Client,
    pub name: String,
    /// The folder of the kubeconfig.
    folder: PathBuf,
    kubeconfig: PathBuf,
}

impl Namespace {
    /// A new one, in a cluster that knows the kinds of Redoubt. Without a cluster says so.
    pub async fn new(what: &str) -> Option<Self> {
        let Some(kubeconfig) = std::env::var_os("REDOUBT_TEST_KUBECONFIG").map(PathBuf::from) else {
            eprintln!("skipped: no Kubernetes; REDOUBT_TEST_KUBECONFIG names the kubeconfig of one (`make cluster-up` starts it)");
            return None;
        };
        drop(rustls::crypto::ring::default_provider().install_default());
        let read = Kubeconfig::read_from(&kubeconfig).unwrap();
        let config = Config::from_custom_kubeconfig(read, &KubeConfigOptions::default()).await.unwrap();
        let client = Client::try_from(config).unwrap();
        static KINDS: OnceCell<()> = OnceCell::const_new();
        KINDS.get_or_init(|| install_kinds(&client)).await;
        let name = format!("{what}-{}", SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_nanos());
        let folder = kubeconfig.parent().unwrap().to_owned();
        let namespace = Self { client, name, folder, kubeconfig };
        namespace.put(json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace.name}})).await;
        Some(namespace)
    }

    pub fn api(&self, api_version: &str, kind: &str) -> Api<DynamicObject> {
        let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
        let resource = ApiResource::from_gvk(&GroupVersionKind::gvk(group, version, kind));
        if matches!(kind, "Namespace" | "ClusterRole" | "ClusterRoleBinding") {
            return Api::all_with(self.client.clone(), &resource);
        }
        Api::namespaced_with(self.client.clone(), &self.name, &resource)
    }

    /// Resources of one of Redoubt's kinds.
    pub fn kind(&self, kind: &str) -> Api<DynamicObject> {
        self.api(redoubt_crds::API_VERSION, kind)
    }

    /// Applies an object.
    pub async fn put(&self, object: Value) -> DynamicObject {
        let text = |path: &str| object.pointer(path).and_then(Value::as_str).unwrap().to_owned();
        let params = PatchParams::apply("test").force();
        self.api(&text("/apiVersion"), &text("/kind")).patch(&text("/metadata/name"), &params, &Patch::Apply(&object)).await.unwrap()
    }

    /// Applies a resource of Redoubt.
    pub async fn resource(&self, kind: &str, name: &str, spec: Value) -> DynamicObject {
        self.put(json!({"apiVersion": redoubt_crds::API_VERSION, "kind": kind, "metadata": {"name": name}, "spec": spec})).await
    }

    pub async fn delete(&self, kind: &str, name: &str) {
        self.kind(kind).delete(name, &DeleteParams::default()).await.unwrap();
    }

    /// A condition as `status reason: message`; empty where it is not there or is not of the newest generation.
    pub async fn condition(&self, kind: &str, name: &str, type_: &str) -> String {
        says(&self.kind(kind).get(name).await.unwrap(), type_)
    }

    /// Waits until a condition begins so. Gives it.
    pub async fn until(&self, kind: &str, name: &str, type_: &str, begins: &str) -> String {
        let mut says = String::new();
        within(DEADLINE, &format!("{kind}/{name} is {type_}: {begins}"), async || {
            says = self.condition(kind, name, type_).await;
            says.starts_with(begins).then_some(()).ok_or_else(|| says.clone())
        })
        .await;
        says
    }

    /// What kubectl answers.
    pub fn kubectl(&self, arguments: &[&str]) -> String {
        let output = Command::new(self.folder.join("bin/kubectl"))
            .args(arguments)
            .args(["--namespace", &self.name])
            .env("KUBECONFIG", &self.kubeconfig)
            .output()
            .unwrap();
        assert!(output.status.success(), "kubectl {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }

    /// Writes in the audit log by a service account of this namespace.
    pub fn writes_by(&self, account: &str) -> Vec<Value> {
        let user = format!("system:serviceaccount:{}:{account}", self.name);
        let log = std::fs::read_to_string(self.folder.join("logs/audit.log")).unwrap();
        let lines = log.lines().filter(|line| line.contains(&user)).filter_map(|line| serde_json::from_str::<Value>(line).ok());
        lines.filter(|event| event["user"]["username"] == user.as_str()).collect()
    }
}

/// A condition as `status reason: message`; empty where it is not there or is not of the newest generation.
pub fn says(object: &DynamicObject, type_: &str) -> String {
    let conditions = object.data["status"]["conditions"].as_array().cloned().unwrap_or_default();
    let generation = object.metadata.generation;
    let found = conditions.iter().find(|it| it["type"] == type_ && it["observedGeneration"].as_i64() == generation);
    let text = |it: &Value, field: &str| it[field].as_str().unwrap_or_default().to_owned();
    found.map(|it| format!("{} {}: {}", text(it, "status"), text(it, "reason"), text(it, "message"))).unwrap_or_default()
}

/// Waits until the answer is `Ok`; fails with the last other one.
pub async fn within<T>(deadline: Duration, what: &str, mut ask: impl AsyncFnMut() -> Result<T, String>) -> T {
    let started = Instant::now();
    loop {
        match ask().await {
            Ok(answer) => return answer,
            Err(last) if started.elapsed() > deadline => panic!("not within {} s: {what}; instead: {last}", deadline.as_secs()),
            Err(_) => tokio::time::sleep(Duration::from_millis(100)).await,
        }
    }
}

async fn install_kinds(client: &Client) {
    let api: Api<CustomResourceDefinition> = Api::all(client.clone());
    for definition in redoubt_crds::definitions() {
        let name = definition.metadata.name.clone().unwrap();
        api.patch(&name, &PatchParams::apply("test").force(), &Patch::Apply(&definition)).await.unwrap();
        await_condition(api.clone(), &name, conditions::is_crd_established()).await.unwrap();
    }
}
