//! All that there is: the API server, what Kubernetes does, the servers, and an operator, which may be started anew.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, MutexGuard},
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use jiff::SignedDuration;
use kube::core::DeserializeGuard;
use redoubt_crds::Siem;
use reqwest::{Request, Response, StatusCode};
use serde_json::{Value, json};
use tower::BoxError;

use super::{
    kubernetes::{self, is_ready},
    servers::{Answer, Asked, Elasticsearch, RabbitMq, secret},
};
use crate::{
    siem::{
        Context, Options, digest,
        endpoint::{Connect, Line},
        look, testing,
    },
    testing::api::{Api, State},
};

/// Looks of an operator at a Siem that changes, after which it must have come to rest.
const MOST_LOOKS: usize = 120;
/// Between two looks.
const PAUSE: SignedDuration = SignedDuration::from_secs(5);
/// When nothing happens any more, something may still wait for its time.
const LONG_PAUSE: SignedDuration = SignedDuration::from_secs(61);

#[derive(Debug, Clone, Default)]
struct Servers {
    broker: RabbitMq,
    store: Elasticsearch,
}

pub(super) struct World {
    pub(super) api: Api,
    servers: Arc<Mutex<Servers>>,
    operator: Context,
    /// How often pods were restarted by the operator.
    restarts: BTreeMap<String, usize>,
}

/// What came of a look.
pub(super) struct Looked {
    pub(super) failure: Option<String>,
    /// Whether something was written, or something happened by itself.
    pub(super) moved: bool,
    /// What was called, as method and place.
    pub(super) calls: Vec<String>,
}

impl World {
    pub(super) fn new() -> Self {
        let api = Api::default();
        api.state().now = testing::now();
        Self::with(api, Arc::default(), BTreeMap::new())
    }

    fn with(api: Api, servers: Arc<Mutex<Servers>>, restarts: BTreeMap<String, usize>) -> Self {
        let operator = operator(&api, &servers);
        Self { api, servers, operator, restarts }
    }

    /// A world of its own that is like this one, with an operator that knows nothing.
    pub(super) fn fork(&self) -> Self {
        Self::with(self.api.fork(), Arc::new(Mutex::new(self.servers().clone())), self.restarts.clone())
    }

    fn servers(&self) -> MutexGuard<'_, Servers> {
        self.servers.lock().unwrap()
    }

    /// The operator looks at the Siem once, and all others do what they do meanwhile.
    pub(super) async fn look(&mut self) -> Looked {
        let (version, now) = {
            let mut state = self.api.state();
            state.faults.log.clear();
            (state.next_version(), state.now)
        };
        let siem: Option<DeserializeGuard<Siem>> =
            self.api.state().get("siems", "soc").map(|siem| serde_json::from_value(siem.clone()).unwrap());
        let before = self.api.fork();
        let mut failure = None;
        if let Some(siem) = siem {
            failure = look(&siem, &self.operator, now).await.err().map(|error| error.to_string());
        }
        self.check_restarts(&before.state());
        let calls = self.api.state().faults.log.clone();
        if std::mem::take(&mut self.api.state().faults.ended) {
            self.operator = operator(&self.api, &self.servers);
        }
        let wrote = calls.iter().any(|call| is_write(call));
        let servers_before = format!("{:?}", self.servers());
        self.step();
        let mut state = self.api.state();
        state.now += PAUSE;
        let moved = wrote || state.next_version() != version + 1 || servers_before != format!("{:?}", self.servers());
        Looked { failure, moved, calls }
    }

    /// All but the operator do what they do.
    fn step(&self) {
        let mut servers = self.servers();
        let mut state = self.api.state();
        let may_be_ready = |state: &State, pod: &Value| {
            pod["metadata"]["labels"]["app.kubernetes.io/component"] != "store" || servers.store.may_join(state, pod)
        };
        kubernetes::step(&mut state, may_be_ready);
        servers.broker.step(&state);
        servers.store.step(&state);
    }

    /// Nobody is restarted while another of its kind is away.
    fn check_restarts(&mut self, before: &State) {
        let state = self.api.state();
        let pods = "DELETE /api/v1/namespaces/security/pods/";
        for pod in state.faults.log.iter().filter_map(|call| call.strip_prefix(pods)) {
            let Some(there) = before.get("pods", pod).filter(|_| state.get("pods", pod).is_none_or(|pod| !is_ready(pod))) else { continue };
            *self.restarts.entry(pod.to_owned()).or_default() += 1;
            let component = |pod: &Value| pod["metadata"]["labels"]["app.kubernetes.io/component"].clone();
            let away: Vec<&Value> = before.all("pods").filter(|other| component(other) == component(there) && !is_ready(other)).collect();
            assert!(away.is_empty(), "{pod} is restarted while {away:?}");
        }
    }

    /// Lets time go by until nothing more happens, and tells the world before each look, and the calls of that look.
    pub(super) async fn come_to_rest(&mut self) -> Vec<(Self, Vec<String>)> {
        let (mut looks, mut quiet) = (Vec::new(), 0);
        while quiet < 2 {
            let before = self.fork();
            let looked = self.look().await;
            assert_eq!(looked.failure, None);
            assert!(looks.len() < MOST_LOOKS, "does not come to rest: {:?} {:#?}", looked.calls, self.status());
            looks.push((before, looked.calls));
            quiet = if looked.moved { 0 } else { quiet + 1 };
            if quiet == 1 {
                self.api.state().now += LONG_PAUSE;
            }
        }
        looks
    }

    /// Lets time go by until all is as it was once on a way that led to the end. A look that does not fail leaves all Secrets as they are
    /// to be, so what is chance in them need not be compared.
    pub(super) async fn find_the_way_back(&mut self, ways: &mut BTreeSet<String>) -> Result<(), String> {
        let mut visited = Vec::new();
        for number in 0..MOST_LOOKS {
            let looked = self.look().await;
            if looked.failure.is_none() {
                let seen = self.fingerprint();
                if ways.contains(&seen) {
                    ways.extend(visited);
                    return Ok(());
                }
                visited.push(seen);
            }
            if !looked.moved && number % 10 == 9 {
                self.api.state().now += LONG_PAUSE;
            }
        }
        Err(format!("finds no way back: {:#?}", self.status()))
    }

    /// What is to be seen, in short.
    pub(super) fn fingerprint(&self) -> String {
        digest::of_bytes(format!("{:?}", self.seen()).as_bytes())
    }

    fn status(&self) -> Option<Value> {
        self.api.state().get("siems", "soc").map(|siem| siem["status"].clone())
    }

    /// What is to be seen in the end: everything but times, versions, and what is chance.
    pub(super) fn seen(&self) -> BTreeMap<String, Value> {
        let (state, servers) = (self.api.state(), self.servers());
        let mut seen: BTreeMap<String, Value> = state
            .objects
            .iter()
            .map(|((plural, name), object)| (format!("{plural}/{name}"), without_chance(&state, plural, &object.body)))
            .collect();
        let login = |of: &str| Some((secret(&state, of, "username")?, secret(&state, of, "password")?));
        let knows = |of: &str| login(of).is_some_and(|(name, password)| servers.broker.knows(&name, &password));
        let client = login("soc-broker-user").map(|(name, _)| name);
        seen.insert(
            "RabbitMQ".to_owned(),
            json!({
                "users": servers.broker.users.len(),
                "knowsWorkers": knows("soc-broker-user"),
                "knowsOperator": knows("soc-broker-admin"),
                "workersAreConnected": servers.broker.client.is_some() && servers.broker.client == client,
                "queue": servers.broker.queue,
            }),
        );
        let knows = login("soc-store-user").is_some_and(|(name, password)| servers.store.users.get(&name) == Some(&password));
        seen.insert(
            "Elasticsearch".to_owned(),
            json!({
                "settings": servers.store.settings,
                "withoutVote": servers.store.without_vote,
                "holders": servers.store.holders.len(),
                "role": servers.store.role,
                "knowsWorkers": knows,
            }),
        );
        seen.insert("restarts".to_owned(), json!(self.restarts));
        seen
    }
}

/// Whether a call changes something.
pub(super) fn is_write(call: &str) -> bool {
    !call.starts_with("GET ")
}

fn operator(api: &Api, servers: &Arc<Mutex<Servers>>) -> Context {
    let options = Options { images: testing::images(), operator: Some(testing::operator()), namespace: None, concurrency: 1 };
    Context { client: api.client(), connect: connect(api.clone(), servers.clone()), options, memories: Mutex::default() }
}

/// Takes requests to the servers, and has them meet the same faults as calls of the API server.
fn connect(api: Api, servers: Arc<Mutex<Servers>>) -> Connect {
    Arc::new(move |server, _| {
        let (api, servers, address) = (api.clone(), servers.clone(), server.address.to_string());
        let line: Line = Arc::new(move |request| {
            let answer = exchange(&api, &servers, &address, &request);
            Box::pin(async move { answer })
        });
        Ok(line)
    })
}

fn exchange(api: &Api, servers: &Arc<Mutex<Servers>>, address: &str, request: &Request) -> Result<Response, BoxError> {
    let mut state = api.state();
    let fault = match state
        .faults
        .meet(format!("{} {}", request.method(), request.url()), |status| response((status, json!("it was to be refused"))))
    {
        Ok(fault) => fault,
        Err(instead) => return instead,
    };
    let asked = read(request);
    let pod = state.get("pods", &asked.pod).filter(|pod| pod["status"]["podIP"] == *address);
    let Some(component) = pod.map(|pod| pod["metadata"]["labels"]["app.kubernetes.io/component"].clone()) else {
        return Err("connection refused".into());
    };
    let mut servers = servers.lock().unwrap();
    let answer = if component == "broker" { servers.broker.serve(&state, &asked) } else { servers.store.serve(&state, &asked) };
    state.faults.hear(fault, response(answer))
}

fn read(request: &Request) -> Asked {
    let login = request.headers().get("authorization").map(|value| {
        let credentials = STANDARD.decode(value.to_str().unwrap().strip_prefix("Basic ").unwrap()).unwrap();
        let (name, password) = std::str::from_utf8(&credentials).unwrap().split_once(':').unwrap();
        (name.to_owned(), password.to_owned())
    });
    let body = request.body().and_then(|body| body.as_bytes()).unwrap_or_default();
    Asked {
        pod: request.url().host_str().unwrap().split('.').next().unwrap().to_owned(),
        login,
        method: request.method().clone(),
        path: request.url().path().to_owned(),
        query: request.url().query_pairs().into_owned().collect(),
        body: serde_json::from_slice(body).unwrap_or_default(),
    }
}

fn response((status, body): Answer) -> Response {
    let body = if body.is_null() { String::new() } else { body.to_string() };
    Response::from(http::Response::builder().status(StatusCode::as_u16(&status)).body(body).unwrap())
}

/// Annotations whose value is chance, or a time.
const CHANCE: [&str; 4] = ["redoubt.dev/made-at", "redoubt.dev/made-of", "redoubt.dev/not-before", "redoubt.dev/not-after"];

fn without_chance(state: &State, plural: &str, body: &Value) -> Value {
    let mut body = body.clone();
    let metadata = body["metadata"].as_object_mut().unwrap();
    metadata.retain(|key, _| !["uid", "resourceVersion", "generation", "creationTimestamp"].contains(&key.as_str()));
    for reference in metadata.get_mut("ownerReferences").and_then(Value::as_array_mut).into_iter().flatten() {
        let there = state.objects.values().any(|object| object.body["metadata"]["uid"] == reference["uid"]);
        reference["uid"] = json!(there);
    }
    if let Some(annotations) = metadata.get_mut("annotations").and_then(Value::as_object_mut) {
        annotations.retain(|key, _| !CHANCE.contains(&key.as_str()) && !(plural == "secrets" && key == "redoubt.dev/applied"));
    }
    if plural == "secrets" {
        body["data"].as_object_mut().unwrap().iter_mut().for_each(|(_, value)| *value = json!("(secret)"));
    }
    for condition in body.pointer_mut("/status/conditions").and_then(Value::as_array_mut).into_iter().flatten() {
        condition["lastTransitionTime"] = Value::Null;
    }
    if let Some(status) = body.get_mut("status").and_then(Value::as_object_mut).filter(|_| plural != "siems") {
        status.remove("observedGeneration");
    }
    body
}
