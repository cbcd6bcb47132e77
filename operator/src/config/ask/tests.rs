use axum::{
    Router,
    http::{HeaderMap, StatusCode},
    response::IntoResponse,
    routing::get,
};
use serde_json::json;
use tokio::net::TcpListener;

use super::*;

/// Asks a worker that answers with this body, and whose tag is `"v1"`.
async fn ask(body: &'static str, tag: Option<&str>) -> Answer {
    let answer = move |headers: HeaderMap| async move {
        if headers.get(header::IF_NONE_MATCH).is_some_and(|tag| tag == "\"v1\"") {
            return StatusCode::NOT_MODIFIED.into_response();
        }
        ([(header::ETAG, "\"v1\"")], body).into_response()
    };
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let server = tokio::spawn(async move { axum::serve(listener, Router::new().route("/programmed", get(answer))).await });
    let question = Question { namespace: "soc".into(), pod: "p".into(), uid: "u".into(), address: address.ip(), tag: tag.map(Into::into) };

    let answered = Asker::at(address.port(), Metrics::new()).unwrap().ask(question).await;

    server.abort();
    answered.answer
}

#[tokio::test]
async fn a_worker_is_asked_what_it_runs_and_then_whether_it_still_does() {
    let body = r#"{"siem": 1, "resources": {"AlertRule": {"r": 3}}, "digest": "v1"}"#;
    let expected = Programmed::read(&json!({"resources": {"AlertRule": {"r": 3}}}), Some("\"v1\"")).unwrap();

    assert_eq!(ask(body, None).await, Answer::Runs(expected.clone()));
    assert_eq!(ask(body, Some("\"v0\"")).await, Answer::Runs(expected));
    assert_eq!(ask(body, Some("\"v1\"")).await, Answer::Same);
}

#[tokio::test]
async fn an_answer_that_is_none_is_none() {
    for body in ["", "not json", "[]", r#"{"resources": 7}"#] {
        assert_eq!(ask(body, None).await, Answer::Nothing, "{body:?}");
    }
}

#[tokio::test]
async fn a_worker_that_is_not_there_has_no_answer() {
    let closed = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let question = Question { namespace: "soc".into(), pod: "p".into(), uid: "u".into(), address: closed.ip(), tag: None };

    let answered = Asker::at(closed.port(), Metrics::new()).unwrap().ask(question).await;

    assert_eq!(answered.answer, Answer::Nothing);
}
