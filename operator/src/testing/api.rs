//! An API server in memory: objects of one namespace, with versions, generations, owners and who applied what. It does what Kubernetes'
//! "API Concepts" and "Server-Side Apply" say of the calls that the operator makes, and panics at any other.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, OnceLock},
};

use http::{HeaderMap, Method, Request, Response, StatusCode, header::CONTENT_TYPE};
use jiff::Timestamp;
use kube::{Client, client::Body};
use serde_json::{Value, json};
use tower::{BoxError, service_fn};

use super::{
    fault::Faults,
    merge::{apply, merge},
};

/// Clones are one.
#[derive(Clone, Default)]
pub(crate) struct Api(Arc<Mutex<State>>);

/// What the API server has. Clones are two.
#[derive(Clone, Default)]
pub(crate) struct State {
    /// By plural and name.
    pub(crate) objects: BTreeMap<(String, String), Arc<Object>>,
    pub(crate) faults: Faults,
    /// Secrets whose `data` was written over.
    pub(crate) overwritten: Vec<String>,
    pub(crate) now: Timestamp,
    /// What discovery tells besides the kinds that are always there: by group and version, the plurals.
    pub(crate) served: BTreeMap<String, Vec<String>>,
    /// How discovery fails, if it does.
    pub(crate) discovery_fails: Option<StatusCode>,
    version: u64,
}

#[derive(Debug, Clone, Default)]
pub(crate) struct Object {
    pub(crate) body: Value,
    /// What each manager has applied, that of the status apart.
    applied: BTreeMap<String, Value>,
    /// What a test makes of it, for as long as it is as it is.
    pub(crate) digest: OnceLock<String>,
}

/// What a call is about.
struct Target<'a> {
    plural: &'a str,
    name: Option<&'a str>,
    status: bool,
}

impl Api {
    pub(crate) fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap()
    }

    /// Another API server, which has the same.
    pub(crate) fn fork(&self) -> Self {
        Self(Arc::new(Mutex::new(self.state().clone())))
    }

    pub(crate) fn client(&self) -> Client {
        let api = self.clone();
        let service = service_fn(move |request: Request<Body>| {
            let api = api.clone();
            async move {
                let (head, body) = request.into_parts();
                let body = body.collect_bytes().await?;
                let body = serde_json::from_slice(&body).unwrap_or_default();
                let url = format!("http://api{}", head.uri).parse()?;
                api.call(&head.method, &url, &head.headers, &body)
            }
        });
        Client::new(service, "soc")
    }

    fn call(&self, method: &Method, url: &reqwest::Url, headers: &HeaderMap, body: &Value) -> Result<Response<Body>, BoxError> {
        let mut state = self.state();
        let fault = match state.faults.meet(format!("{method} {}", url.path()), |status| refuse(status, "it was to be refused")) {
            Ok(fault) => fault,
            Err(instead) => return instead,
        };
        let answer = match state.serve(method, url, headers, body) {
            Ok(body) => answer(StatusCode::OK, &body),
            Err((status, message)) => refuse(status, &message),
        };
        state.faults.hear(fault, answer)
    }
}

type Served = Result<Value, (StatusCode, String)>;

impl State {
    pub(crate) fn next_version(&mut self) -> u64 {
        self.version += 1;
        self.version
    }

    pub(crate) fn get(&self, plural: &str, name: &str) -> Option<&Value> {
        self.objects.get(&(plural.to_owned(), name.to_owned())).map(|object| &object.body)
    }

    /// The objects of one kind.
    pub(crate) fn all(&self, plural: &str) -> impl Iterator<Item = &Value> {
        let plural = plural.to_owned();
        self.objects.iter().filter(move |((of, _), _)| *of == plural).map(|(_, object)| &object.body)
    }

    /// Somebody makes an object.
    pub(crate) fn create(&mut self, plural: &str, mut body: Value) -> Value {
        let version = self.next_version();
        let metadata = &mut body["metadata"];
        metadata["uid"] = json!(format!("uid-{version}"));
        metadata["resourceVersion"] = json!(version.to_string());
        metadata["creationTimestamp"] = json!(self.now);
        if body.get("spec").is_some() {
            body["metadata"]["generation"] = json!(1);
        }
        let name = body["metadata"]["name"].as_str().unwrap().to_owned();
        self.objects.insert((plural.to_owned(), name), Arc::new(Object { body: body.clone(), ..Object::default() }));
        body
    }

    /// Somebody changes an object. Nothing happens where nothing is otherwise then, or where there is no such object.
    pub(crate) fn edit(&mut self, plural: &str, name: &str, change: impl FnOnce(&mut Value)) -> bool {
        let Some(object) = self.objects.get(&(plural.to_owned(), name.to_owned())) else { return false };
        let mut body = object.body.clone();
        change(&mut body);
        self.put(plural, name, body)
    }

    /// Somebody scales an object, as a HorizontalPodAutoscaler does, and is noted for it.
    pub(crate) fn scale(&mut self, plural: &str, name: &str, replicas: u32) {
        let by = json!([{"manager": "kube-controller-manager", "operation": "Update", "subresource": "scale", "apiVersion": "apps/v1",
            "fieldsType": "FieldsV1", "fieldsV1": {"f:spec": {"f:replicas": {}}}}]);
        self.edit(plural, name, |live| {
            live["spec"]["replicas"] = json!(replicas);
            live["metadata"]["managedFields"] = by;
        });
    }

    /// What a manager applies of an object.
    pub(crate) fn applied_by(&self, plural: &str, name: &str, manager: &str) -> Value {
        let object = self.objects.get(&(plural.to_owned(), name.to_owned()));
        object.and_then(|object| object.applied.get(manager)).cloned().unwrap_or_default()
    }

    pub(crate) fn remove(&mut self, plural: &str, name: &str) -> Option<Value> {
        self.objects.remove(&(plural.to_owned(), name.to_owned())).map(|object| object.body.clone())
    }

    fn put(&mut self, plural: &str, name: &str, mut body: Value) -> bool {
        let key = (plural.to_owned(), name.to_owned());
        let old = self.objects[&key].body.clone();
        if old == body {
            return false;
        }
        let parts = |body: &Value| {
            let mut parts = body.clone();
            parts.as_object_mut().unwrap().retain(|key, _| key != "metadata" && key != "status");
            parts
        };
        if body.get("spec").is_some() && parts(&old) != parts(&body) {
            body["metadata"]["generation"] = json!(old["metadata"]["generation"].as_i64().unwrap_or_default() + 1);
        }
        let is_otherwise = |(key, value): (&String, &Value)| body["data"][key] != *value;
        if plural == "secrets" && old["data"].as_object().is_some_and(|data| data.iter().any(is_otherwise)) {
            self.overwritten.push(name.to_owned());
        }
        body["metadata"]["resourceVersion"] = json!(self.next_version().to_string());
        let object = Arc::make_mut(self.objects.get_mut(&key).unwrap());
        (object.body, object.digest) = (body, OnceLock::new());
        true
    }

    fn serve(&mut self, method: &Method, url: &reqwest::Url, headers: &HeaderMap, body: &Value) -> Served {
        let parts: Vec<&str> = url.path().split('/').skip(1).collect();
        if let ["apis", group, version] = parts.as_slice() {
            return self.discover(&format!("{group}/{version}"));
        }
        let (version, rest) = match parts.as_slice() {
            ["api", "v1", "namespaces", _, rest @ ..] => ("v1".to_owned(), rest),
            ["apis", group, version, "namespaces", _, rest @ ..] => (format!("{group}/{version}"), rest),
            _ => panic!("the operator is not expected to call {method} {url}"),
        };
        let target = match rest {
            [plural] => Target { plural, name: None, status: false },
            [plural, name] => Target { plural, name: Some(name), status: false },
            [plural, name, "status"] => Target { plural, name: Some(name), status: true },
            _ => panic!("the operator is not expected to call {method} {url}"),
        };
        let query: BTreeMap<String, String> = url.query_pairs().into_owned().collect();
        let text = |key: &str| query.get(key).map_or("", String::as_str);
        match (method, target.name) {
            (&Method::GET, None) => Ok(self.list(&version, target.plural, text("labelSelector"))),
            (&Method::GET, Some(name)) => self.get(target.plural, name).cloned().ok_or_else(|| not_found(name)),
            (&Method::POST, None) => {
                let name = body["metadata"]["name"].as_str().unwrap();
                match self.get(target.plural, name) {
                    Some(_) => Err((StatusCode::CONFLICT, format!("{name} is there"))),
                    None => Ok(self.create(target.plural, body.clone())),
                }
            }
            (&Method::PATCH, Some(name)) => {
                let of = headers.get(CONTENT_TYPE).map(|value| value.to_str().unwrap());
                match of {
                    Some("application/apply-patch+yaml") => self.apply(&target, name, text("fieldManager"), body),
                    Some("application/merge-patch+json") => self.change(&target, name, body, |live| merge(live, body)),
                    other => panic!("the operator is not expected to send a patch of the type {other:?}"),
                }
            }
            (&Method::DELETE, Some(name)) => self.delete(target.plural, name, body),
            _ => panic!("the operator is not expected to call {method} {url}"),
        }
    }

    fn discover(&self, version: &str) -> Served {
        if let Some(status) = self.discovery_fails {
            return Err((status, "discovery is not available".to_owned()));
        }
        let plurals = self.served.get(version).ok_or_else(|| not_found(version))?;
        let resource = |plural: &String| json!({"name": plural, "singularName": "", "namespaced": true, "kind": "", "verbs": ["list"]});
        let resources: Vec<Value> = plurals.iter().map(resource).collect();
        Ok(json!({"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": version, "resources": resources}))
    }

    fn list(&self, version: &str, plural: &str, selector: &str) -> Value {
        let matches = |body: &&Value| {
            selector.split(',').filter(|part| !part.is_empty()).all(|part| match part.split_once('=') {
                Some((key, value)) => body["metadata"]["labels"][key] == value,
                None => !body["metadata"]["labels"][part].is_null(),
            })
        };
        let mut items: Vec<Value> = self.all(plural).filter(matches).cloned().collect();
        if !version.starts_with("redoubt.dev/") {
            // Lists of Kubernetes' own kinds leave out what all items have in common.
            items.iter_mut().for_each(|item| item.as_object_mut().unwrap().retain(|key, _| key != "kind" && key != "apiVersion"));
        }
        json!({"kind": "List", "apiVersion": version, "metadata": {"resourceVersion": self.version.to_string()}, "items": items})
    }

    fn apply(&mut self, target: &Target<'_>, name: &str, manager: &str, body: &Value) -> Served {
        let key = (target.plural.to_owned(), name.to_owned());
        let by = format!("{manager}{}", if target.status { "/status" } else { "" });
        let mut wanted = body.clone();
        for field in ["uid", "resourceVersion", "creationTimestamp"] {
            wanted["metadata"].as_object_mut().unwrap().remove(field);
        }
        if self.objects.contains_key(&key) {
            let before = self.objects[&key].applied.get(&by).cloned().unwrap_or_default();
            self.change(target, name, body, |live| apply(live, &before, &wanted))?;
        } else if target.status {
            return Err(not_found(name));
        } else {
            self.create(target.plural, wanted.clone());
        }
        let object = Arc::make_mut(self.objects.get_mut(&key).unwrap());
        object.applied.insert(by, wanted);
        Ok(object.body.clone())
    }

    fn change(&mut self, target: &Target<'_>, name: &str, patch: &Value, change: impl FnOnce(&mut Value)) -> Served {
        let Some(live) = self.get(target.plural, name) else { return Err(not_found(name)) };
        for field in ["uid", "resourceVersion"] {
            let asked = &patch["metadata"][field];
            if !asked.is_null() && *asked != live["metadata"][field] {
                return Err((StatusCode::CONFLICT, format!("{name} has another {field}")));
            }
        }
        let mut changed = live.clone();
        change(&mut changed);
        let mut kept = live.clone();
        let body = if target.status {
            kept["status"] = changed["status"].clone();
            kept
        } else {
            changed["metadata"]["resourceVersion"] = kept["metadata"]["resourceVersion"].clone();
            if kept.get("status").is_some() {
                changed["status"] = kept["status"].take();
            }
            changed
        };
        if let Some(field) = immutable(target.plural, live, &body) {
            return Err((StatusCode::UNPROCESSABLE_ENTITY, format!("{name}: {field} cannot be changed")));
        }
        self.put(target.plural, name, body);
        Ok(self.get(target.plural, name).unwrap().clone())
    }

    /// An object goes at once, if nothing holds it: a pod has to end, dependents may have to go before or be let go.
    fn delete(&mut self, plural: &str, name: &str, options: &Value) -> Served {
        let Some(live) = self.get(plural, name).cloned() else { return Err(not_found(name)) };
        let uid = &options["preconditions"]["uid"];
        if !uid.is_null() && *uid != live["metadata"]["uid"] {
            return Err((StatusCode::CONFLICT, format!("{name} is another one")));
        }
        let finalizer = match options["propagationPolicy"].as_str() {
            Some("Orphan") => json!(["orphan"]),
            Some("Foreground") => json!(["foregroundDeletion"]),
            _ => json!([]),
        };
        if plural == "pods" || finalizer != json!([]) {
            let now = json!(self.now);
            self.edit(plural, name, |live| {
                let metadata = &mut live["metadata"];
                if metadata["deletionTimestamp"].is_null() {
                    metadata["deletionTimestamp"] = now;
                    metadata["finalizers"] = finalizer;
                }
            });
        } else {
            self.remove(plural, name);
        }
        Ok(live)
    }

    /// Somebody deletes an object, as `kubectl delete --cascade=...` does.
    pub(crate) fn delete_as(&mut self, plural: &str, name: &str, propagation: &str) {
        self.delete(plural, name, &json!({"propagationPolicy": propagation})).unwrap();
    }
}

/// The first field that is otherwise and may not be.
fn immutable(plural: &str, live: &Value, changed: &Value) -> Option<&'static str> {
    let fields: &[&str] = match plural {
        "statefulsets" => &["/spec/selector", "/spec/serviceName", "/spec/podManagementPolicy", "/spec/volumeClaimTemplates"],
        "deployments" => &["/spec/selector"],
        "rolebindings" => &["/roleRef"],
        "secrets" => &["/type"],
        _ => &[],
    };
    fields.iter().copied().find(|field| live.pointer(field) != changed.pointer(field))
}

fn not_found(name: &str) -> (StatusCode, String) {
    (StatusCode::NOT_FOUND, format!("{name} not found"))
}

fn answer(status: StatusCode, body: &Value) -> Response<Body> {
    let mut response = Response::new(Body::from(body.to_string().into_bytes()));
    *response.status_mut() = status;
    response
}

fn refuse(status: StatusCode, message: &str) -> Response<Body> {
    let reason = match status {
        StatusCode::NOT_FOUND => "NotFound",
        StatusCode::CONFLICT => "Conflict",
        StatusCode::TOO_MANY_REQUESTS => "TooManyRequests",
        StatusCode::UNPROCESSABLE_ENTITY => "Invalid",
        _ => "InternalError",
    };
    let body =
        json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "message": message, "reason": reason, "code": status.as_u16()});
    answer(status, &body)
}
