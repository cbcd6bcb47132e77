//! What a shipper with an Elasticsearch output sees.

use redoubt_crds::Format;
use redoubt_engine::format::parse;
use serde_json::{Value, json};

use crate::site::{bodies, http, start};

#[tokio::test]
async fn a_bulk_request_is_answered_item_by_item() {
    let site = start(vec![http("web", Format::Json)]).await;
    site.secret("web", "tokens", "token");
    let body = concat!(
        "{\"create\":{\"_index\":\"logs\"}}\n{\"message\":\"one\"}\n",
        "{\"delete\":{\"_id\":\"9\"}}\n",
        "{\"index\":{\"_id\":\"own\"}}\n{\"message\":\"two\"}\n",
    );

    let answer = site.post("/_bulk").header("content-type", "application/x-ndjson").body(body).send().await.unwrap();

    assert_eq!(answer.status(), 200);
    let answer: Value = answer.json().await.unwrap();
    assert!(answer["took"].is_u64() && answer["errors"] == true, "{answer}");
    let statuses: Vec<_> = answer["items"].as_array().unwrap().iter().map(|item| item["index"]["status"].clone()).collect();
    assert_eq!(statuses, [json!(201), json!(400), json!(201)]);
    assert_eq!(answer["items"][2]["index"]["_id"], "own");
    let refused = &answer["items"][1]["index"]["error"];
    assert!(refused["type"].is_string() && refused["reason"].as_str().is_some_and(|text| text.contains("line 3")), "{refused}");
    let events = site.take(2).await;
    assert_eq!(bodies(&events), ["{\"message\":\"one\"}", "{\"event.id\":\"own\",\"message\":\"two\"}"]);
    assert_eq!(answer["items"][0]["index"]["_id"], events[0].id);
}

#[tokio::test]
async fn the_same_bulk_request_sent_twice_makes_each_document_once() {
    let source = http("web", Format::Json);
    let site = start(vec![source.clone()]).await;
    site.secret("web", "tokens", "token");

    for _ in 0..2 {
        let answer = site.post("/logs/_bulk").body("{\"create\":{\"_id\":\"own\"}}\n{\"message\":\"two\"}\n").send().await.unwrap();
        assert_eq!(answer.json::<Value>().await.unwrap()["errors"], false);
    }

    let ids: Vec<_> = site.take(2).await.iter().map(|event| parse(&source, event).unwrap().id).collect();
    assert_eq!(ids[0], ids[1]);
}

#[tokio::test]
async fn a_source_of_text_lines_takes_no_bulk_request() {
    let site = start(vec![http("firewall", Format::Syslog)]).await;
    site.secret("firewall", "tokens", "token");

    let answer = site.post("/_bulk").body("{\"index\":{}}\n{}\n").send().await.unwrap();

    assert_eq!(answer.status(), 400);
    assert_eq!(site.queued().await, 0);
}

#[tokio::test]
async fn the_root_says_which_bulk_form_is_spoken() {
    let site = start(vec![http("web", Format::Json)]).await;
    site.secret("web", "tokens", "token");

    let answer = site.client.get(format!("http://{}/", site.address())).bearer_auth("token").send().await.unwrap();

    assert_eq!(answer.status(), 200);
    let answer: Value = answer.json().await.unwrap();
    assert!(answer["version"]["number"].as_str().is_some_and(|version| version.starts_with("8.")), "{answer}");
    assert_eq!(answer["name"], "redoubt");
}
