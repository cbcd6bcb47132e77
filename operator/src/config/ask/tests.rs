use axum::{
    Router,
    http::{HeaderMap, StatusCode},
    response::IntoResponse,
    routing::get,
};
use redoubt_engine::resource::Kind;
use serde_json::json;
use tokio::net::TcpListener;

use super::*;

/// Asks a worker that answers with this body at this path, and whose tag is `"v1"`.
async fn ask(path: &str, body: &'static str, about: About) -> Answer {
    let answer = move |headers: HeaderMap| async move {
        if headers.get(header::IF_NONE_MATCH).is_some_and(|tag| tag == "\"v1\"") {
            return StatusCode::NOT_MODIFIED.into_response();
        }
        ([(header::ETAG, "\"v1\"")], body).into_response()
    };
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let site = Router::new().route(path, get(answer));
    let server = tokio::spawn(async move { axum::serve(listener, site).await });
    let question = Question { namespace: "soc".into(), pod: "p".into(), uid: "u".into(), address: address.ip(), about };

    let answered = Asker::at(address.port(), Metrics::new()).unwrap().ask(question).await;

    server.abort();
    answered.answer
}

#[tokio::test]
async fn a_worker_is_asked_what_it_runs_and_then_whether_it_still_does() {
    let body = r#"{"siem": 1, "resources": {"AlertRule": {"r": 3}}, "digest": "v1"}"#;
    let expected = Programmed::read(&json!({"resources": {"AlertRule": {"r": 3}}}), Some("\"v1\"")).unwrap();

    for (tag, answer) in
        [(None, Answer::Runs(expected.clone())), (Some("\"v0\"".into()), Answer::Runs(expected)), (Some("\"v1\"".into()), Answer::Same)]
    {
        assert_eq!(ask("/programmed", body, About::Programmed(tag)).await, answer);
    }
}

#[tokio::test]
async fn an_answer_that_is_none_is_none() {
    for body in ["", "not json", "[]", r#"{"resources": 7}"#] {
        assert_eq!(ask("/programmed", body, About::Programmed(None)).await, Answer::Nothing, "{body:?}");
    }
}

#[tokio::test]
async fn a_worker_is_asked_for_a_version_that_it_runs() {
    let key = Key { kind: Kind::AlertRule, name: "r".into() };
    let version = Version { generation: 3, spec: r#"{"a":1}"#.into() };
    for (path, body, answer) in [
        ("/programmed/AlertRule/r", r#"{"generation": 3, "spec": {"a": 1}}"#, Answer::Version(key.clone(), Some(version))),
        ("/programmed/AlertRule/other", "", Answer::Version(key.clone(), None)),
        ("/programmed/AlertRule/r", r#"{"generation": 3}"#, Answer::Nothing),
    ] {
        assert_eq!(ask(path, body, About::Version(key.clone())).await, answer, "{path} {body}");
    }
}

#[tokio::test]
async fn a_worker_that_is_not_there_has_no_answer() {
    let closed = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let question =
        Question { namespace: "soc".into(), pod: "p".into(), uid: "u".into(), address: closed.ip(), about: About::Programmed(None) };

    let answered = Asker::at(closed.port(), Metrics::new()).unwrap().ask(question).await;

    assert_eq!(answered.answer, Answer::Nothing);
}
