//! Siems for tests, and servers.

pub(crate) mod server;

use jiff::Timestamp;
use k8s_openapi::{api::core::v1::Secret, apimachinery::pkg::apis::meta::v1::Time};
use redoubt_crds::{LogSource, Siem};
use redoubt_engine::resource::Spec;

use super::{
    Images, OperatorPods,
    build::{self, Built, Sizes},
    child::{Child, Id},
    dereference::{Children, Observed},
    preprocess, secret,
    validate::{self, Refusal, Valid},
};

/// A point in time.
pub(crate) fn now() -> Timestamp {
    "2026-11-26T12:00:00Z".parse().unwrap()
}

pub(crate) fn images() -> Images {
    let image = |name: &str| format!("registry.example/redoubt/{name}:0");
    Images { roles: image("redoubt"), broker: image("rabbitmq"), store: image("elasticsearch") }
}

pub(crate) fn operator() -> OperatorPods {
    OperatorPods {
        namespace: "redoubt-system".to_owned(),
        labels: [("app.kubernetes.io/name".to_owned(), "redoubt-operator".to_owned())].into(),
    }
}

/// A Siem as the API server has it.
pub(crate) fn siem(yaml: &str) -> Siem {
    let mut siem: Siem = serde_yaml::from_str(yaml).unwrap();
    siem.metadata.namespace = Some("security".to_owned());
    siem.metadata.uid = Some("5f0c9a4e-0000-4000-8000-000000000001".to_owned());
    siem.metadata.generation = Some(1);
    siem.metadata.creation_timestamp = Some(Time(now()));
    siem
}

/// A Siem named `soc` with this spec.
pub(crate) fn siem_of(spec: &serde_json::Value) -> Siem {
    siem(&serde_json::json!({"apiVersion": "redoubt.dev/v1alpha1", "kind": "Siem", "metadata": {"name": "soc"}, "spec": spec}).to_string())
}

pub(crate) fn source(yaml: &str) -> Spec {
    let source: LogSource = serde_yaml::from_str(yaml).unwrap();
    Spec::LogSource(Box::new(source.spec))
}

pub(crate) fn valid(siem: &Siem, observed: &Observed) -> Result<Valid, Refusal> {
    let name = siem.metadata.name.as_deref().unwrap();
    let prepared = preprocess::preprocess(name, "security", &siem.spec, observed);
    validate::validate(siem, prepared, observed, &images())
}

/// What is built for a Siem, and the Secrets that are a part of it.
pub(crate) fn build(siem: &Siem, observed: &Observed) -> (Built, Vec<Secret>) {
    let valid = valid(siem, observed).unwrap();
    let secrets = secret::complete(&valid, &observed.children, secret::Renewed::default(), now()).unwrap();
    let built = build::build(&valid, &observed.children, &secrets, &Sizes::default(), Some(&operator()));
    (built, secrets)
}

/// Objects as if they had been applied, and others had written into them since.
pub(crate) fn as_applied(children: &[Child]) -> Children {
    let live = |child: &Child| {
        let mut body = child.body.clone();
        body["metadata"]["annotations"]["redoubt.dev/applied"] = "0123456789abcdef".into();
        body["metadata"]["annotations"]["example.test/theirs"] = "theirs".into();
        body
    };
    Children(children.iter().map(|child| (child.id.clone(), live(child))).collect())
}

impl Built {
    pub(crate) fn get<K>(&self, name: &str) -> K
    where
        K: kube::Resource<DynamicType = ()> + serde::de::DeserializeOwned,
    {
        let id = Id::of::<K>(name);
        let child = self.children.iter().find(|child| child.id == id).unwrap_or_else(|| panic!("{id:?} is not built"));
        serde_json::from_value(child.body.clone()).unwrap()
    }
}
