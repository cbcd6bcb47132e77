//! `_bulk` requests to an Elasticsearch by the plainest client: what there is to be had from the server.
#![allow(clippy::unwrap_used, reason = "a benchmark that fails has no result")]

use std::{
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use bytes::Bytes;
use serde_json::Value;

/// Posts requests that are ready, in their order and so many at a time, and waits until all are answered without an error.
pub async fn send(url: &str, requests: Vec<Vec<u8>>, clients: usize) -> Duration {
    let requests = Arc::new(Mutex::new(requests.into_iter().map(Bytes::from)));
    let (client, url) = (reqwest::Client::new(), format!("{url}/_bulk?filter_path=errors"));
    let started = Instant::now();
    let clients = (0..clients).map(|_| {
        let (client, url, requests) = (client.clone(), url.clone(), Arc::clone(&requests));
        tokio::spawn(async move {
            loop {
                let Some(request) = requests.lock().unwrap().next() else { break };
                let post = || client.post(&url).header("content-type", "application/x-ndjson").body(request.clone()).send();
                let mut answer = post().await.unwrap();
                // The server has no memory for it just now.
                while answer.status() == 429 {
                    tokio::time::sleep(Duration::from_millis(20)).await;
                    answer = post().await.unwrap();
                }
                let answer: Value = answer.json().await.unwrap();
                assert_eq!(answer["errors"], false, "{answer}");
            }
        })
    });
    futures::future::join_all(clients).await.into_iter().for_each(Result::unwrap);
    started.elapsed()
}
