//! A server that answers as it is told and notes what it is asked.

use std::{
    net::{IpAddr, Ipv4Addr},
    sync::{Arc, Mutex},
};

use axum::{
    Router,
    body::{Bytes, to_bytes},
    extract::Request,
    http::StatusCode,
};
use serde_json::Value;

use crate::siem::endpoint::{Endpoint, Server, network};

/// Method and path, and what is answered to them.
pub(crate) type Answer = (&'static str, u16, Value);

/// One that runs until the test ends.
pub(crate) struct Fake {
    pub(crate) endpoint: Endpoint,
    asked: Arc<Mutex<Vec<(String, Value)>>>,
}

impl Fake {
    /// Starts one. What it has no answer to, it does not find.
    pub(crate) async fn start(answers: Vec<Answer>) -> Self {
        let asked = Arc::new(Mutex::new(Vec::new()));
        let noted = Arc::clone(&asked);
        let answer = move |request: Request| {
            let (noted, answers) = (Arc::clone(&noted), answers.clone());
            async move {
                let what = format!("{} {}", request.method(), request.uri());
                let body: Bytes = to_bytes(request.into_body(), 1 << 20).await.unwrap();
                noted.lock().unwrap().push((what.clone(), serde_json::from_slice(&body).unwrap_or_default()));
                let found = answers.iter().find(|(asked, ..)| *asked == what);
                let (status, body) = found.map_or((404, Value::Null), |(_, status, body)| (*status, body.clone()));
                (StatusCode::from_u16(status).unwrap(), body.to_string())
            }
        };
        let listener = tokio::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        tokio::spawn(async move { axum::serve(listener, Router::new().fallback(answer)).await });
        let server = Server { host: "fake", address: IpAddr::V4(Ipv4Addr::LOCALHOST), port };
        Self { endpoint: Endpoint::new(&network(), server, None, None).unwrap(), asked }
    }

    /// What it was asked to do: method, path and body of everything but GET.
    pub(crate) fn told(&self) -> Vec<(String, Value)> {
        self.asked.lock().unwrap().iter().filter(|(what, _)| !what.starts_with("GET")).cloned().collect()
    }
}
