//! Who may send, and what those who may not get to see.

use redoubt_crds::Format;
use serde_json::Value;

use crate::site::{Site, bodies, eventually, http, start};

#[tokio::test]
async fn whoever_may_not_send_sees_the_same_answer_whatever_is_wrong() {
    let site = start(vec![http("web", Format::Json)]).await;
    site.secret("web", "tokens", "token");
    site.secret("web", "users", "ann:s3cret");
    let url = |path: &str| format!("http://{}{path}", site.address());
    let post = |path: &str| site.client.post(url(path)).body("{}");

    let mut seen = Vec::new();
    for request in [
        post("/v1/sources/web"),
        post("/v1/sources/web").bearer_auth("guess"),
        post("/v1/sources/web").bearer_auth(""),
        post("/v1/sources/web").basic_auth("ann", Some("guess")),
        post("/v1/sources/web").header("authorization", "Digest x"),
        post("/v1/sources/absent").bearer_auth("token"),
        post("/v1/events").bearer_auth("guess"),
        post("/v1/events?source=web").bearer_auth("guess"),
        post("/v1/events?source=absent").bearer_auth("token"),
        post("/events"),
        post("/_bulk").bearer_auth("guess"),
        site.client.get(url("/")),
    ] {
        let answer = request.send().await.unwrap();
        assert_eq!(answer.status(), 401);
        assert!(answer.headers()["www-authenticate"].to_str().unwrap().starts_with("Bearer"));
        seen.push(answer.text().await.unwrap());
    }

    seen.dedup();
    assert_eq!(seen.len(), 1, "{seen:?}");
    assert_eq!(site.queued().await, 0);
}

#[tokio::test]
async fn a_token_and_a_password_both_open_the_source() {
    let site = start(vec![http("web", Format::Json)]).await;
    site.secret("web", "tokens", "token");
    site.secret("web", "users", "ann:s3cret\n");
    let url = format!("http://{}/v1/sources/web", site.address());

    let by_token = site.client.put(&url).bearer_auth("token").body("{\"by\":\"token\"}").send().await.unwrap();
    let by_password = site.client.post(&url).basic_auth("ann", Some("s3cret")).body("{\"by\":\"password\"}").send().await.unwrap();

    assert_eq!((by_token.status().as_u16(), by_password.status().as_u16()), (202, 202));
    assert_eq!(bodies(&site.take(2).await), ["{\"by\":\"token\"}", "{\"by\":\"password\"}"]);
}

#[tokio::test]
async fn a_rotated_token_is_taken_over_without_a_restart() {
    let site = start(vec![http("web", Format::Json)]).await;
    site.secret("web", "tokens", "old-token");
    let status = async |token: &str| {
        let url = format!("http://{}/v1/sources/web", site.address());
        site.client.post(url).bearer_auth(token).body("{}").send().await.unwrap().status().as_u16()
    };
    assert_eq!((status("old-token").await, status("new-token").await), (202, 401));

    site.secret("web", "tokens", "new-token");

    eventually("the new token opens the source", async || status("new-token").await == 202).await;
    assert_eq!(status("old-token").await, 401);
}

#[tokio::test]
async fn a_secret_that_cannot_be_read_is_an_outage_and_not_the_senders_fault() {
    let site = start(vec![http("web", Format::Json)]).await;

    let answer = site.post("/v1/sources/web").body("{}").send().await.unwrap();

    assert_eq!(answer.status(), 503);
    assert!(answer.headers().contains_key("retry-after"));
    assert!(!answer.text().await.unwrap().contains("secrets/web"), "the path is for the log alone");
}

/// Three sources; `shared` opens two of them.
async fn three_sources() -> Site {
    let site = start(vec![http("a", Format::Json), http("b", Format::Mozdef), http("c", Format::Json)]).await;
    site.secret("a", "tokens", "token\nshared");
    site.secret("b", "tokens", "only-b\nshared");
    site.secret("c", "tokens", "only-c");
    for name in ["a", "b", "c"] {
        site.secret(name, "users", "");
    }
    site
}

#[tokio::test]
async fn without_a_name_in_the_path_the_token_tells_the_source() {
    let site = three_sources().await;

    for (path, expected) in [("/v1/events", 202), ("/events", 200), ("/nxlog", 200), ("/cef", 200)] {
        let url = format!("http://{}{path}", site.address());
        let answer = site.client.post(url).bearer_auth("only-b").body("{\"summary\":\"x\"}").send().await.unwrap();

        assert_eq!(answer.status(), expected, "{path}");
        assert_eq!(&*site.take(1).await[0].source, "b", "{path}");
    }
}

#[tokio::test]
async fn a_token_of_several_sources_needs_a_name_besides() {
    let site = three_sources().await;
    let post = |path: &str| site.client.post(format!("http://{}{path}", site.address())).bearer_auth("shared").body("{}");

    let unclear = post("/v1/events").send().await.unwrap();
    assert_eq!(unclear.status(), 400);
    let answer: Value = unclear.json().await.unwrap();
    assert!(answer["error"].as_str().is_some_and(|text| text.ends_with("a, b")), "{answer}");

    let by_parameter = post("/v1/events?source=a").send().await.unwrap();
    let by_header = post("/v1/events").header("x-redoubt-source", "b").send().await.unwrap();
    let foreign = post("/v1/events?source=c").send().await.unwrap();
    assert_eq!((by_parameter.status().as_u16(), by_header.status().as_u16(), foreign.status().as_u16()), (202, 202, 401));
    let sources: Vec<_> = site.take(2).await.into_iter().map(|event| event.source.to_string()).collect();
    assert_eq!(sources, ["a", "b"]);
}
