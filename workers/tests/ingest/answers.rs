//! What a request is answered, and what has then become of its events.

use std::io::Write as _;

use flate2::{Compression, write::GzEncoder};
use redoubt::broker::embedded::{EmbeddedBroker, Options};
use redoubt_crds::{Format, IngestSpec, Quota};
use redoubt_engine::source::Source;
use serde_json::{Value, json};

use crate::site::{NOW, Site, bodies, http, http_spec, start, start_with, take};

async fn json_site() -> Site {
    let site = start(vec![http("web", Format::Json)]).await;
    site.secret("web", "tokens", "token\n");
    site
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

#[tokio::test]
async fn accepted_events_are_in_the_queue_even_if_the_process_ends_at_once() {
    let site = json_site().await;

    let answer = site.post("/v1/sources/web").body("{\"a\":1}\n{\"a\":2}\n").send().await.unwrap();
    assert_eq!(answer.status(), 202);
    assert_eq!(answer.json::<Value>().await.unwrap(), json!({"accepted": 2, "rejected": 0, "errors": []}));
    assert!(site.counts(r#"redoubt_ingest_events_total{source="web",result="accepted"} 2"#));
    assert!(site.counts(r#"redoubt_ingest_bytes_total{source="web"} 14"#));

    // No shutdown: another broker opens a copy of the file as it is at this moment.
    let copy = site.folder.path().join("copy");
    std::fs::create_dir(&copy).unwrap();
    for entry in std::fs::read_dir(site.folder.path().join("queue")).unwrap() {
        let file = entry.unwrap().path();
        std::fs::copy(&file, copy.join(file.file_name().unwrap())).unwrap();
    }
    let reopened = EmbeddedBroker::open(&copy, Options::default()).unwrap();
    let events = take(&reopened, 2).await;
    assert_eq!(bodies(&events), ["{\"a\":1}", "{\"a\":2}"]);
    for event in &events {
        assert_eq!((&*event.source, event.sender.as_deref(), event.received_millis), ("web", Some("127.0.0.1"), NOW));
    }
    assert_ne!(events[0].id, events[1].id);
}

#[tokio::test]
async fn an_item_that_is_no_event_is_told_with_its_place_and_the_others_are_taken() {
    let site = json_site().await;

    let answer = site.post("/v1/sources/web").body("{\"a\":1}\n42\n{\"a\":2}").send().await.unwrap();

    assert_eq!(answer.status(), 202);
    let answer: Value = answer.json().await.unwrap();
    assert_eq!((&answer["accepted"], &answer["rejected"]), (&json!(2), &json!(1)));
    let error = &answer["errors"][0];
    assert_eq!((&error["item"], &error["line"], &error["column"]), (&json!(1), &json!(2), &json!(1)));
    assert!(error["error"].as_str().is_some_and(|text| text.contains("object")), "{error}");
    assert!(error["remedy"].as_str().is_some_and(|text| !text.is_empty()), "{error}");
    assert_eq!(bodies(&site.take(2).await), ["{\"a\":1}", "{\"a\":2}"]);
    assert!(site.counts(r#"redoubt_ingest_events_total{source="web",result="rejected"} 1"#));
}

#[tokio::test]
async fn a_request_of_which_nothing_is_taken_is_an_error_in_the_same_shape() {
    let site = json_site().await;

    let answer = site.post("/v1/sources/web").body("42\n".repeat(150)).send().await.unwrap();

    assert_eq!(answer.status(), 400);
    let answer: Value = answer.json().await.unwrap();
    assert_eq!((&answer["accepted"], &answer["rejected"]), (&json!(0), &json!(150)));
    assert_eq!(answer["errors"].as_array().map(Vec::len), Some(100), "the first hundred are described");
    assert_eq!(site.queued().await, 0);
}

#[tokio::test]
async fn packed_bodies_are_taken_like_plain_ones() {
    let site = json_site().await;
    let body = "{\"a\":1}\n";

    for (encoding, bytes) in
        [("identity", body.as_bytes().to_vec()), ("gzip", gzip(body.as_bytes())), ("zstd", zstd::encode_all(body.as_bytes(), 3).unwrap())]
    {
        let answer = site.post("/v1/sources/web").header("content-encoding", encoding).body(bytes).send().await.unwrap();
        assert_eq!(answer.status(), 202, "{encoding}");
    }

    assert_eq!(bodies(&site.take(3).await), ["{\"a\":1}"; 3]);
}

#[tokio::test]
async fn what_is_above_a_limit_is_refused_and_told_the_limit() {
    let spec = IngestSpec { max_body_bytes: 100_000, max_event_bytes: 1024, ..IngestSpec::default() };
    let site = start_with(vec![http("web", Format::Json)], spec, Options::default()).await;
    site.secret("web", "tokens", "token");
    let bomb = gzip(&vec![b' '; 50 << 20]);

    for (name, encoding, body) in [("plain", "identity", vec![b' '; 3_000_000]), ("packed", "gzip", bomb)] {
        let answer = site.post("/v1/sources/web").header("content-encoding", encoding).body(body).send().await.unwrap();
        assert_eq!(answer.status(), 413, "{name}");
        let answer: Value = answer.json().await.unwrap();
        assert!(answer["error"].as_str().is_some_and(|text| text.contains("100000 bytes")), "{name}: {answer}");
        assert_eq!(answer["accepted"], 0);
    }
    let large = format!("{{\"a\":\"{}\"}}\n{{\"a\":2}}", "x".repeat(1024));
    let answer: Value = site.post("/v1/sources/web").body(large).send().await.unwrap().json().await.unwrap();
    assert_eq!((&answer["accepted"], &answer["rejected"]), (&json!(1), &json!(1)), "{answer}");
    assert!(answer["errors"][0]["error"].as_str().is_some_and(|text| text.ends_with("the limit is 1024")), "{answer}");
}

#[tokio::test]
async fn a_full_queue_takes_nothing_and_says_when_to_come_back() {
    let queue = Options { max_bytes: 5_000, ..Options::default() };
    let site = start_with(vec![http("web", Format::Json)], IngestSpec::default(), queue).await;
    site.secret("web", "tokens", "token");
    // Numbers without a pattern, so that packing does not make the batch small.
    let large: String = (1_u64..800).map(|n| format!("{{\"a\":{}}}\n", n.wrapping_mul(0x9e37_79b9_7f4a_7c15))).collect();
    let first = site.post("/v1/sources/web").body(large.clone()).send().await.unwrap();
    assert_eq!(first.status(), 202, "an empty queue takes one batch of any size");
    let before = site.queued().await;

    let refused = site.post("/v1/sources/web").body("{\"late\":1}").send().await.unwrap();

    assert_eq!(refused.status(), 429);
    let seconds: u64 = refused.headers()["retry-after"].to_str().unwrap().parse().unwrap();
    assert!((1..=60).contains(&seconds), "{seconds}");
    let answer: Value = refused.json().await.unwrap();
    assert_eq!(answer["accepted"], 0);
    assert!(answer["error"].as_str().is_some_and(|text| text.contains("full")), "{answer}");
    assert_eq!(site.queued().await, before);

    site.take(799).await;
    let again = site.post("/v1/sources/web").body("{\"late\":1}").send().await.unwrap();
    assert_eq!(again.status(), 202);
    assert_eq!(bodies(&site.take(1).await), ["{\"late\":1}"]);
    assert!(site.counts(r#"redoubt_ingest_requests_total{code="429"} 1"#));
}

#[tokio::test]
async fn a_queue_that_is_closed_is_an_outage_that_passes() {
    use redoubt::broker::Broker as _;

    let site = json_site().await;
    site.broker.close().await;

    let answer = site.post("/v1/sources/web").body("{\"a\":1}").send().await.unwrap();
    assert_eq!(answer.status(), 503);
    assert!(answer.headers().contains_key("retry-after"));
    let url = format!("http://{}", site.address());
    assert_eq!(site.client.get(format!("{url}/readyz")).send().await.unwrap().status(), 503);
    assert_eq!(site.client.get(format!("{url}/healthz")).send().await.unwrap().status(), 200);
}

#[tokio::test]
async fn events_above_the_quota_wait_for_their_time() {
    let mut spec = http_spec("web", Format::Json);
    spec.quota = Some(Quota { events_per_second: 1, burst: Some(3) });
    let site = start(vec![Source::compile("web", &spec).unwrap()]).await;
    site.secret("web", "tokens", "token");

    let first = site.post("/v1/sources/web").body("{}\n{}\n{}").send().await.unwrap();
    let refused = site.post("/v1/sources/web").body("{}\n{}\n{}").send().await.unwrap();

    assert_eq!(first.status(), 202);
    assert_eq!(refused.status(), 429);
    assert!(["2", "3"].contains(&refused.headers()["retry-after"].to_str().unwrap()), "{:?}", refused.headers());
    assert_eq!(site.take(3).await.len(), 3);
    assert_eq!(site.queued().await, 0);
}

#[tokio::test]
async fn lines_of_text_are_taken_whatever_their_bytes_and_json_must_be_utf8() {
    let site = start(vec![http("web", Format::Json), http("firewall", Format::Syslog)]).await;
    site.secret("web", "tokens", "token");
    site.secret("firewall", "tokens", "token");

    let text = site.post("/v1/sources/firewall").body(b"<13>caf\xe9\n\n<13>two".to_vec()).send().await.unwrap();
    let json = site.post("/v1/sources/web").body(b"{}\n{\"a\":\"caf\xe9\"}".to_vec()).send().await.unwrap();

    assert_eq!(text.status(), 202);
    assert_eq!(bodies(&site.take(2).await), ["<13>caf\u{fffd}", "<13>two"]);
    assert_eq!(json.status(), 400);
    let answer: Value = json.json().await.unwrap();
    assert!(answer["error"].as_str().is_some_and(|text| text.contains("line 2, column 10")), "{answer}");
}

#[tokio::test]
async fn a_path_or_method_that_is_not_there_is_told_so() {
    let site = json_site().await;

    let answer = site.post("/v1/nothing").body("{}").send().await.unwrap();
    assert_eq!(answer.status(), 404);
    let answer: Value = answer.json().await.unwrap();
    assert!(answer["remedy"].as_str().is_some_and(|text| text.contains("/v1/sources/NAME")), "{answer}");
    let read = site.client.get(format!("http://{}/v1/sources/web", site.address())).send().await.unwrap();
    assert_eq!(read.status(), 405);
}

#[tokio::test]
async fn metrics_are_served_as_text() {
    let site = json_site().await;
    site.post("/v1/sources/web").body("{}").send().await.unwrap();

    let page = site.client.get(format!("http://{}/metrics", site.address())).send().await.unwrap();

    assert!(page.headers()["content-type"].to_str().unwrap().starts_with("application/openmetrics-text"));
    assert!(page.text().await.unwrap().contains(r#"redoubt_ingest_requests_total{code="202"} 1"#));
}
