//! Every object and every pod, held against a real API server without being made, in a namespace that enforces the `restricted` Pod
//! Security Standard. `REDOUBT_TEST_KUBECONFIG` names the cluster.

use k8s_openapi::api::core::v1::{Namespace, Pod, PodTemplateSpec, ServiceAccount};
use kube::{
    Api, Client, Config,
    api::{DeleteParams, DynamicObject, Patch, PatchParams, PostParams},
    config::{KubeConfigOptions, Kubeconfig},
};
use serde_json::{Value, json};

use crate::siem::{
    child::Child,
    dereference::Observed,
    owner::MANAGER,
    testing::{build, siem, siem_of},
};

async fn cluster() -> Option<Client> {
    let Some(path) = std::env::var_os("REDOUBT_TEST_KUBECONFIG") else {
        eprintln!("skipped: REDOUBT_TEST_KUBECONFIG names no cluster");
        return None;
    };
    drop(rustls::crypto::ring::default_provider().install_default());
    let kubeconfig = Kubeconfig::read_from(path).unwrap();
    let config = Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await.unwrap();
    Some(Client::try_from(config).unwrap())
}

#[tokio::test]
async fn the_api_server_takes_every_object_and_admits_every_pod() {
    let Some(client) = cluster().await else { return };
    let namespace = format!("dry-run-{}", std::process::id());
    let namespaces: Api<Namespace> = Api::all(client.clone());
    let enforced = json!({"metadata": {"name": namespace, "labels": {"pod-security.kubernetes.io/enforce": "restricted"}}});
    namespaces.create(&PostParams::default(), &serde_json::from_value(enforced).unwrap()).await.unwrap();
    let siems = [
        siem(include_str!("../../../../config/samples/quickstart/siem.yaml")),
        siem(include_str!("../../../../config/samples/kinds/siem.yaml")),
        siem_of(&json!({"store": {"managed": {"security": false}}})),
    ];

    let mut refused = Vec::new();
    for siem in siems {
        let (built, _) = build(&siem, &Observed::default());
        for child in &built.children {
            refused.extend(try_out(&client, &namespace, child).await);
        }
    }

    namespaces.delete(&namespace, &DeleteParams::default()).await.unwrap();
    assert!(refused.is_empty(), "{}", refused.join("\n"));
}

/// What the API server has against an object, or a pod of it.
async fn try_out(client: &Client, namespace: &str, child: &Child) -> Vec<String> {
    let mut body = child.body.clone();
    body["metadata"]["namespace"] = namespace.into();
    let api: Api<DynamicObject> = Api::namespaced_with(client.clone(), namespace, &child.resource);
    let params = PatchParams::apply(MANAGER).force().dry_run().validation_strict();
    let result = api.patch(&child.id.name, &params, &Patch::Apply(&body)).await;
    let mut refused: Vec<String> = result.err().map(|error| format!("{} {}: {error}", child.id.kind, child.id.name)).into_iter().collect();
    if child.id.kind == "ServiceAccount" {
        // A pod is admitted only where its account is.
        let accounts: Api<ServiceAccount> = Api::namespaced(client.clone(), namespace);
        body["metadata"].as_object_mut().unwrap().remove("ownerReferences");
        accounts.patch(&child.id.name, &PatchParams::apply(MANAGER).force(), &Patch::Apply(&body)).await.unwrap();
    }
    if let Some(template) = child.body["spec"].get("template") {
        refused.extend(admit(client, namespace, &child.id.name, template).await);
    }
    refused
}

async fn admit(client: &Client, namespace: &str, name: &str, template: &Value) -> Option<String> {
    let template: PodTemplateSpec = serde_json::from_value(template.clone()).unwrap();
    let mut pod = Pod { metadata: template.metadata.unwrap_or_default(), spec: template.spec, status: None };
    pod.metadata.name = Some(format!("{name}-0"));
    // A StatefulSet gives each of its pods a claim of its own.
    let volumes = pod.spec.as_mut().unwrap().volumes.get_or_insert_default();
    if !volumes.iter().any(|volume| volume.name == "data") {
        volumes.push(serde_json::from_value(json!({"name": "data", "persistentVolumeClaim": {"claimName": "data"}})).unwrap());
    }
    let pods: Api<Pod> = Api::namespaced(client.clone(), namespace);
    let params = PostParams { dry_run: true, field_manager: None };
    pods.create(&params, &pod).await.err().map(|error| format!("a pod of {name}: {error}"))
}
