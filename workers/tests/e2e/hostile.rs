//! Input that means harm, or is merely broken: always answered, never a crash, nothing else disturbed.

use redoubt::store::Family;

use crate::harness::{JSON_SOURCE, Siem, TOKEN};

const BODIES: u64 = 10_000;

/// A generator of our own, so that each run tries the same bodies (xorshift64*, Vigna 2016).
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_F491_4F6C_DD1D)
    }

    fn below(&mut self, bound: usize) -> usize {
        usize::try_from(self.next() % bound as u64).unwrap()
    }
}

/// A body that cannot be taken whole: sound JSON that was cut, spliced or sprinkled with noise, or noise alone.
fn malformed(random: &mut Random) -> Vec<u8> {
    let sound = br#"{"message":"ok","source":{"ip":"203.0.113.9"},"list":[1,2.5e3,null,true,"\u00e9"],"deep":{"a":{"b":{"c":"d"}}}}"#;
    let mut body = sound.to_vec();
    match random.below(6) {
        0 => body.truncate(1 + random.below(sound.len() - 1)),
        1 => body = (0..random.below(300)).map(|_| random.next().to_le_bytes()[0]).collect(),
        2 => body = [b"[".repeat(1 + random.below(5000)), b"]".repeat(random.below(5000))].concat(),
        3 => {
            for _ in 0..=random.below(8) {
                let at = random.below(body.len());
                body[at] = random.next().to_le_bytes()[0];
            }
        }
        4 => body = b"{\"a\":".repeat(1 + random.below(3000)),
        _ => {
            let at = random.below(body.len());
            body.splice(at..at, random.next().to_le_bytes());
        }
    }
    body
}

#[tokio::test]
async fn ten_thousand_malformed_bodies_are_all_answered_and_the_next_event_is_taken() {
    let mut siem = Siem::new(&[("source.yaml", JSON_SOURCE)]);
    siem.start_ready().await;
    let client = reqwest::Client::new();
    let url = siem.url("/v1/sources/app");
    let mut random = Random(0x5EED);
    let (mut refused, mut taken) = (0, 0);

    for number in 0..BODIES {
        let mut request = client.post(&url).bearer_auth(TOKEN).body(malformed(&mut random));
        if number % 5 == 0 {
            request = request.header("content-encoding", ["gzip", "zstd", "br", "nonsense"][random.below(4)]);
        }
        let answer = request.send().await.unwrap_or_else(|error| panic!("body {number} got no answer: {error}\n{}", siem.log()));
        match answer.status().as_u16() {
            400..=499 => refused += 1,
            // Some flipped bits make another sound document.
            202 => taken += 1,
            other => panic!("body {number} was answered with {other}\n{}", siem.log()),
        }
    }

    assert_eq!(refused + taken, BODIES);
    assert!(refused > BODIES / 2, "{refused} of {BODIES} were refused");
    assert_eq!(siem.post(&client, "app", r#"{"message": "after the storm"}"#.to_owned()).await, 202);
    siem.until("the next event is found", async || siem.count(Family::Events, "message:storm").await == 1).await;
    assert!(!siem.log().contains("panicked"), "{}", siem.log());
    siem.stop();
}
