//! A namespace of a real Kubernetes, and the way to fill it. `REDOUBT_TEST_KUBECONFIG` names the file that leads to its API, as
//! `tests/cluster/cluster up` writes it.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    time::{SystemTime, UNIX_EPOCH},
};

use k8s_openapi::{
    ByteString,
    api::{
        authentication::v1::TokenRequest,
        core::v1::{Secret, ServiceAccount},
    },
    apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition,
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};
use kube::{
    Api, Client, Config,
    api::{ApiResource, DeleteParams, DynamicObject, Patch, PatchParams, PostParams},
    config::{KubeConfigOptions, Kubeconfig},
    core::GroupVersionKind,
    runtime::{conditions, wait::await_condition},
};
use serde::Deserialize as _;
use serde_json::{Value, json};
use tokio::sync::OnceCell;

use crate::harness::repository;

/// A namespace that nobody else has.
pub struct Namespace {
    client: Client,
    pub name: String,
    pub kubeconfig: PathBuf,
}

impl Namespace {
    /// A new one, in a cluster that knows the kinds of Redoubt. Without a cluster says so, and the test is passed over.
    pub async fn new() -> Option<Self> {
        let Some(kubeconfig) = std::env::var_os("REDOUBT_TEST_KUBECONFIG").map(PathBuf::from) else {
            eprintln!("skipped: no Kubernetes; REDOUBT_TEST_KUBECONFIG names the kubeconfig of one (`make cluster-up` starts it)");
            return None;
        };
        let read = Kubeconfig::read_from(&kubeconfig).unwrap();
        let config = Config::from_custom_kubeconfig(read, &KubeConfigOptions::default()).await.unwrap();
        let client = Client::try_from(config).unwrap();
        static KINDS: OnceCell<()> = OnceCell::const_new();
        KINDS.get_or_init(|| install_kinds(&client)).await;
        let name = format!("e2e-{}", SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_nanos());
        let namespace = Self { client, name, kubeconfig };
        namespace.apply(&format!("apiVersion: v1\nkind: Namespace\nmetadata: {{name: {}}}\n", namespace.name)).await;
        Some(namespace)
    }

    fn objects(&self, object: &Value) -> Api<DynamicObject> {
        let text = |key: &str| object[key].as_str().unwrap();
        let (group, version) = text("apiVersion").split_once('/').unwrap_or(("", text("apiVersion")));
        let resource = ApiResource::from_gvk(&GroupVersionKind::gvk(group, version, text("kind")));
        if text("kind") == "Namespace" {
            return Api::all_with(self.client.clone(), &resource);
        }
        Api::namespaced_with(self.client.clone(), &self.name, &resource)
    }

    /// Applies manifests and gives back the last one, as the API then has it.
    pub async fn apply(&self, manifests: &str) -> DynamicObject {
        let mut last = None;
        for document in serde_yaml::Deserializer::from_str(manifests) {
            let object = Value::deserialize(document).unwrap();
            last = Some(self.apply_object(&object).await);
        }
        last.unwrap()
    }

    pub async fn apply_object(&self, object: &Value) -> DynamicObject {
        let name = object["metadata"]["name"].as_str().unwrap();
        self.objects(object).patch(name, &PatchParams::apply("test").force(), &Patch::Apply(object)).await.unwrap()
    }

    /// Deletes an object of Redoubt.
    pub async fn delete(&self, kind: &str, name: &str) {
        let kind = json!({"apiVersion": redoubt_crds::API_VERSION, "kind": kind});
        self.objects(&kind).delete(name, &DeleteParams::default()).await.unwrap();
    }

    /// Writes a Secret, as a whole.
    pub async fn write_secret(&self, name: &str, values: &[(&str, &str)]) {
        let data = values.iter().map(|(key, value)| ((*key).to_owned(), ByteString((*value).into()))).collect();
        let metadata = ObjectMeta { name: Some(name.to_owned()), ..ObjectMeta::default() };
        let secret = Secret { metadata, data: Some(data), ..Secret::default() };
        let secrets: Api<Secret> = Api::namespaced(self.client.clone(), &self.name);
        secrets.patch(name, &PatchParams::apply("test").force(), &Patch::Apply(&secret)).await.unwrap();
    }

    pub async fn delete_secret(&self, name: &str) {
        let secrets: Api<Secret> = Api::namespaced(self.client.clone(), &self.name);
        secrets.delete(name, &DeleteParams::default()).await.unwrap();
    }

    /// The ConfigMap by which the operator tells of an object's last good version.
    pub async fn write_last_good(&self, object: &DynamicObject) {
        let (kind, name) = (&object.types.as_ref().unwrap().kind, object.metadata.name.as_deref().unwrap());
        let lower = kind.to_lowercase();
        let owner = json!({"apiVersion": redoubt_crds::API_VERSION, "kind": kind, "name": name, "uid": object.metadata.uid});
        let whole = serde_yaml::to_string(object).unwrap();
        self.apply_object(&json!({
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": {
                "name": format!("redoubt-last-good-{lower}-{name}"),
                "labels": {"redoubt.dev/last-good": lower},
                "ownerReferences": [owner],
            },
            "data": {"resource.yaml": whole},
        }))
        .await;
    }

    /// A file by which one has these rights in the namespace and no others.
    pub async fn kubeconfig_with_rights(&self, rules: &Value, folder: &Path) -> PathBuf {
        self.give_rights(rules).await;
        self.apply("{apiVersion: v1, kind: ServiceAccount, metadata: {name: worker}}").await;
        let accounts: Api<ServiceAccount> = Api::namespaced(self.client.clone(), &self.name);
        let issued = accounts.create_token_request("worker", &PostParams::default(), &TokenRequest::default()).await.unwrap();
        let mut config = self.read_kubeconfig();
        config["users"][0]["user"] = json!({"token": issued.status.unwrap().token});
        write_kubeconfig(&config, folder)
    }

    /// Gives the holder of [`Namespace::kubeconfig_with_rights`] these rights instead.
    pub async fn give_rights(&self, rules: &Value) {
        let api = "rbac.authorization.k8s.io/v1";
        let account = json!({"kind": "ServiceAccount", "name": "worker", "namespace": self.name});
        let role = json!({"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "worker"});
        self.apply_object(&json!({"apiVersion": api, "kind": "Role", "metadata": {"name": "worker"}, "rules": rules})).await;
        let binding =
            json!({"apiVersion": api, "kind": "RoleBinding", "metadata": {"name": "worker"}, "subjects": [account], "roleRef": role});
        self.apply_object(&binding).await;
    }

    /// A file that leads to the same cluster by way of another address.
    pub fn kubeconfig_by_way_of(&self, address: &str, folder: &Path) -> PathBuf {
        let mut config = self.read_kubeconfig();
        config["clusters"][0]["cluster"]["server"] = json!(format!("https://{address}"));
        write_kubeconfig(&config, folder)
    }

    /// `HOST:PORT` of the API.
    pub fn address(&self) -> String {
        self.read_kubeconfig()["clusters"][0]["cluster"]["server"].as_str().unwrap().trim_start_matches("https://").to_owned()
    }

    fn read_kubeconfig(&self) -> Value {
        serde_yaml::from_str(&std::fs::read_to_string(&self.kubeconfig).unwrap()).unwrap()
    }
}

fn write_kubeconfig(config: &Value, folder: &Path) -> PathBuf {
    let path = folder.join("kubeconfig");
    std::fs::write(&path, config.to_string()).unwrap();
    path
}

async fn install_kinds(client: &Client) {
    let definitions: Api<CustomResourceDefinition> = Api::all(client.clone());
    let mut installed = BTreeMap::new();
    for entry in std::fs::read_dir(repository("crds")).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|extension| extension == "yaml") {
            let definition: CustomResourceDefinition = serde_yaml::from_str(&std::fs::read_to_string(&path).unwrap()).unwrap();
            let name = definition.metadata.name.clone().unwrap();
            definitions.patch(&name, &PatchParams::apply("test").force(), &Patch::Apply(&definition)).await.unwrap();
            installed.insert(name, path);
        }
    }
    assert_eq!(installed.len(), redoubt_crds::definitions().len(), "{installed:?}");
    for name in installed.keys() {
        await_condition(definitions.clone(), name, conditions::is_crd_established()).await.unwrap();
    }
}
