//! An API server in memory, as far as the writer needs one, and the faults that it can be told to have.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard},
};

use http::{Method, Request, Response, StatusCode};
use kube::{Client, client::Body};
use serde_json::{Value, json};
use tower::{BoxError, service_fn};

/// What goes wrong with a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fault {
    /// It is refused: 409, 429, 500.
    Refused(StatusCode),
    /// It never arrives.
    Lost,
    /// It is carried out, and the answer is lost.
    AnswerLost,
    /// The operator ends before it.
    EndsBefore,
    /// The operator ends after it, and never hears the answer.
    EndsAfter,
}

impl Fault {
    pub(super) const ALL: [Self; 7] = [
        Self::Refused(StatusCode::CONFLICT),
        Self::Refused(StatusCode::TOO_MANY_REQUESTS),
        Self::Refused(StatusCode::INTERNAL_SERVER_ERROR),
        Self::Lost,
        Self::AnswerLost,
        Self::EndsBefore,
        Self::EndsAfter,
    ];
}

/// Clones are one.
#[derive(Clone, Default)]
pub(super) struct Api(Arc<Mutex<State>>);

#[derive(Default)]
pub(super) struct State {
    /// Resources, by plural and name: `uid`, `generation`, `created`, `spec`, `status`.
    pub(super) resources: BTreeMap<(String, String), Value>,
    pub(super) config_maps: BTreeMap<String, Value>,
    pub(super) events: usize,
    pub(super) version: u64,
    /// Writes so far.
    pub(super) calls: usize,
    /// At which call something goes wrong, counted from 0.
    pub(super) fault: Option<(usize, Fault)>,
    /// The operator has ended: none of its calls arrives.
    pub(super) ended: bool,
}

impl Api {
    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap()
    }

    pub(super) fn client(&self) -> Client {
        let api = self.clone();
        let service = service_fn(move |request: Request<Body>| {
            let api = api.clone();
            async move {
                let (head, body) = request.into_parts();
                let body = body.collect_bytes().await?;
                let body = serde_json::from_slice(&body).unwrap_or_default();
                api.call(&head.method, head.uri.path(), &body)
            }
        });
        Client::new(service, "soc")
    }

    fn call(&self, method: &Method, path: &str, body: &Value) -> Result<Response<Body>, BoxError> {
        let mut state = self.state();
        let number = state.calls;
        state.calls += 1;
        let fault = state.fault.filter(|(at, _)| *at == number).map(|(_, fault)| fault);
        match fault {
            Some(Fault::EndsBefore) => state.ended = true,
            Some(Fault::Refused(status)) => return Ok(refuse(status)),
            Some(Fault::Lost) => return Err("the call was lost".into()),
            _ => {}
        }
        if state.ended {
            return Err("the operator has ended".into());
        }
        let answer = state.serve(method, path, body);
        match fault {
            Some(Fault::EndsAfter) => {
                state.ended = true;
                Err("the operator has ended".into())
            }
            Some(Fault::AnswerLost) => Err("the answer was lost".into()),
            _ => Ok(answer),
        }
    }
}

impl State {
    pub(super) fn next_version(&mut self) -> u64 {
        self.version += 1;
        self.version
    }

    fn serve(&mut self, method: &Method, path: &str, body: &Value) -> Response<Body> {
        let parts: Vec<&str> = path.split('/').skip(1).collect();
        match (method, parts.as_slice()) {
            (&Method::PATCH, ["apis", "redoubt.dev", "v1alpha1", "namespaces", "soc", plural, name, "status"]) => {
                self.apply_status(plural, name, body)
            }
            (&Method::PATCH, ["api", "v1", "namespaces", "soc", "configmaps", name]) => {
                let version = self.next_version();
                let mut map = body.clone();
                map["metadata"]["resourceVersion"] = json!(version.to_string());
                self.config_maps.insert((*name).to_owned(), map.clone());
                answer(StatusCode::OK, &map)
            }
            (&Method::DELETE, ["api", "v1", "namespaces", "soc", "configmaps", name]) => match self.config_maps.remove(*name) {
                Some(map) => answer(StatusCode::OK, &map),
                None => refuse(StatusCode::NOT_FOUND),
            },
            (&Method::POST | &Method::PATCH, ["apis", "events.k8s.io", "v1", "namespaces", "soc", "events", ..]) => {
                self.events += 1;
                answer(StatusCode::CREATED, body)
            }
            _ => panic!("the writer is not expected to call {method} {path}"),
        }
    }

    fn apply_status(&mut self, plural: &str, name: &str, body: &Value) -> Response<Body> {
        let version = self.next_version();
        let Some(object) = self.resources.get_mut(&(plural.to_owned(), name.to_owned())) else {
            return refuse(StatusCode::NOT_FOUND);
        };
        if body["metadata"]["uid"] != object["metadata"]["uid"] {
            return refuse(StatusCode::CONFLICT);
        }
        object["status"] = body["status"].clone();
        object["metadata"]["resourceVersion"] = json!(version.to_string());
        answer(StatusCode::OK, object)
    }
}

fn answer(status: StatusCode, body: &Value) -> Response<Body> {
    let mut response = Response::new(Body::from(body.to_string().into_bytes()));
    *response.status_mut() = status;
    response
}

fn refuse(status: StatusCode) -> Response<Body> {
    let body = json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "message": "refused", "reason": "Refused", "code": status.as_u16()});
    answer(status, &body)
}
