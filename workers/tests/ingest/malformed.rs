//! Ten thousand bodies that are none, each answered, none harmful.

use futures::{StreamExt as _, stream};
use redoubt_crds::Format;
use reqwest::RequestBuilder;

use crate::site::{Site, http, start};

/// A small generator (xorshift64), so that a failing request can be made again from its number.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, bound: usize) -> usize {
        usize::try_from(self.next() % bound as u64).unwrap()
    }

    fn bytes(&mut self, most: usize) -> Vec<u8> {
        (0..self.below(most) + 1).map(|_| self.next().to_le_bytes()[0]).collect()
    }
}

/// A request that no part of may be taken.
fn malformed(site: &Site, seed: u64) -> RequestBuilder {
    let mut random = Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
    let path = ["/v1/sources/web", "/v1/events", "/events"][random.below(3)];
    let request = site.post(path);
    let noise = random.bytes(300);
    match random.below(9) {
        0 => request.body([vec![0xff], noise].concat()),
        1 => request.body([b"{\"a\":\"".to_vec(), noise.into_iter().filter(|byte| *byte != b'"').collect()].concat()),
        2 => request.body("[".repeat(random.below(5_000) + 1)),
        3 => request.body("{\"a\":".repeat(random.below(5_000) + 1)),
        4 => request.body(format!("[{}]", vec!["1"; random.below(500) + 1].join(","))),
        5 => request.body(["null", "\"text\"", "-", "tru", "}{", "]", ",", "\u{feff}", " \n\t"][random.below(9)]),
        6 => request.header("content-encoding", ["gzip", "zstd"][random.below(2)]).body(noise),
        7 => request.header("content-encoding", ["br", "deflate", "gzip, gzip", "\u{7f}"][random.below(3)]).body("{}"),
        _ => {
            let whole = zstd::encode_all(&b"{\"a\":1}"[..], 1).unwrap();
            let cut = random.below(whole.len() - 1) + 1;
            request.header("content-encoding", "zstd").body(whole[..cut].to_vec())
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_thousand_malformed_bodies_are_each_refused_and_nothing_else_happens() {
    let site = start(vec![http("web", Format::Json)]).await;
    site.secret("web", "tokens", "token");

    let answers = stream::iter(1..=10_000_u64).map(|seed| {
        let request = malformed(&site, seed);
        async move { (seed, request.send().await) }
    });
    let mut answers = answers.buffer_unordered(16);
    let mut refused = 0;
    while let Some((seed, answer)) = answers.next().await {
        let status = answer.unwrap_or_else(|error| panic!("request {seed} has no answer: {error}")).status();
        assert!(status.is_client_error(), "request {seed}: {status}");
        refused += 1;
    }

    assert_eq!(refused, 10_000);
    assert_eq!(site.queued().await, 0);
    let good = site.post("/v1/sources/web").body("{\"a\":1}").send().await.unwrap();
    assert_eq!(good.status(), 202, "and it still takes events");
}
