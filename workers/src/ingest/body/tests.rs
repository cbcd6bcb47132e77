use flate2::{Compression, write::GzEncoder};
use futures::stream;

use super::*;

const LIMIT: usize = 1 << 20;

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn zstd(bytes: &[u8]) -> Vec<u8> {
    zstd::stream::encode_all(bytes, 3).unwrap()
}

fn share(total: u64) -> Share {
    Budget::new(Metrics::new()).share(total)
}

fn body(bytes: &[u8], chunk: usize) -> Body {
    let chunks: Vec<Result<Vec<u8>, io::Error>> = bytes.chunks(chunk).map(|chunk| Ok(chunk.to_vec())).collect();
    Body::from_stream(stream::iter(chunks))
}

async fn unpacked(bytes: &[u8], encoding: Encoding) -> Result<Vec<u8>, BodyError> {
    read(body(bytes, 1000), encoding, LIMIT, share(u64::MAX)).await.map(|unpacked| unpacked.bytes)
}

#[tokio::test]
async fn a_body_is_unpacked_as_its_encoding_says() {
    let text = "{\"message\":\"hello\"}\n".repeat(5000).into_bytes();
    let members = [gzip(&text[..100]), gzip(&text[100..])].concat();
    let frames = [zstd(&text[..100]), zstd(&text[100..])].concat();

    for (name, bytes, encoding) in [
        ("plain", text.clone(), Encoding::Identity),
        ("gzip", gzip(&text), Encoding::Gzip),
        ("gzip of two members", members, Encoding::Gzip),
        ("zstd", zstd(&text), Encoding::Zstd),
        ("zstd of two frames", frames, Encoding::Zstd),
    ] {
        assert!(unpacked(&bytes, encoding).await.unwrap() == text, "{name}");
    }
    assert!(unpacked(b"", Encoding::Gzip).await.unwrap().is_empty());
}

#[tokio::test]
async fn a_body_whose_length_is_announced_is_taken_up_to_the_limit() {
    let whole = |bytes: usize| read(Body::from(vec![b'x'; bytes]), Encoding::Identity, LIMIT, share(u64::MAX));

    assert_eq!(whole(LIMIT).await.unwrap().bytes.len(), LIMIT);
    assert!(matches!(whole(LIMIT + 1).await.unwrap_err(), BodyError::TooLarge { limit: LIMIT }));
}

#[tokio::test]
async fn a_body_that_swells_past_the_limit_is_given_up() {
    let bomb = vec![b' '; 200 << 20];

    for (encoding, bytes) in [(Encoding::Gzip, gzip(&bomb)), (Encoding::Zstd, zstd(&bomb)), (Encoding::Identity, vec![b' '; LIMIT + 1])] {
        let error = unpacked(&bytes, encoding).await.unwrap_err();

        assert!(matches!(error, BodyError::TooLarge { limit: LIMIT }), "{encoding:?}: {error}");
    }
}

#[tokio::test]
async fn packed_data_that_unpacks_to_nothing_does_not_go_on_for_ever() {
    let empty_members = gzip(b"").repeat((LIMIT + PACKING) / gzip(b"").len() + 1);

    assert!(matches!(unpacked(&empty_members, Encoding::Gzip).await, Err(BodyError::TooLarge { .. })));
}

#[tokio::test]
async fn a_damaged_body_is_refused_whole() {
    let text = "line\n".repeat(1000).into_bytes();
    for encoding in [Encoding::Gzip, Encoding::Zstd] {
        let packed = if encoding == Encoding::Gzip { gzip(&text) } else { zstd(&text) };
        let mut flipped = packed.clone();
        let middle = flipped.len() / 2;
        flipped[middle] ^= 0x55;

        for (name, bytes) in [
            ("no such data", b"plain text, not packed".to_vec()),
            ("cut short by a byte", packed[..packed.len() - 1].to_vec()),
            ("cut in half", packed[..packed.len() / 2].to_vec()),
            ("a changed byte", flipped),
        ] {
            let error = unpacked(&bytes, encoding).await.err();

            // zstd without a checksum may unpack a changed byte to other text: then it is the events that are judged.
            let unnoticed = encoding == Encoding::Zstd && name == "a changed byte" && error.is_none();
            assert!(unnoticed || matches!(error, Some(BodyError::Damaged { .. })), "{encoding:?}, {name}: {error:?}");
        }
    }
}

#[tokio::test]
async fn bodies_share_one_budget_and_give_it_back() {
    let budget = Budget::new(Metrics::new());
    let bytes = vec![b'x'; 600];
    let first = read(body(&bytes, 100), Encoding::Identity, LIMIT, budget.share(1000)).await.unwrap();

    let refused = read(body(&bytes, 100), Encoding::Identity, LIMIT, budget.share(1000)).await;
    drop(first);
    let taken = read(body(&bytes, 100), Encoding::Identity, LIMIT, budget.share(1000)).await;

    assert!(matches!(refused, Err(BodyError::Busy)));
    assert_eq!(taken.unwrap().bytes.len(), 600);
    assert_eq!(budget.used.load(Ordering::Relaxed), 0);
}

#[tokio::test(start_paused = true)]
async fn a_sender_that_falls_silent_or_trickles_is_cut_off() {
    let silent = Body::from_stream(stream::pending::<Result<Vec<u8>, io::Error>>());
    let trickling = Body::from_stream(stream::unfold((), |()| async {
        tokio::time::sleep(Duration::from_secs(20)).await;
        Some((Ok::<_, io::Error>(b"x".to_vec()), ()))
    }));

    for (name, body, expected) in [("silent", silent, SILENCE), ("trickling", trickling, WHOLE)] {
        let start = Instant::now();
        let error = read(body, Encoding::Identity, LIMIT, share(u64::MAX)).await.unwrap_err();

        assert!(matches!(error, BodyError::TimedOut), "{name}: {error}");
        assert_eq!(start.elapsed(), expected + DISCARD_TIME, "{name}");
    }
}

#[test]
fn the_encoding_is_read_from_the_headers_and_a_stack_is_refused() {
    let encoding = |values: &[&'static str]| {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(header::CONTENT_ENCODING, value.parse().unwrap());
        }
        Encoding::from_headers(&headers).ok()
    };

    assert_eq!(encoding(&[]), Some(Encoding::Identity));
    assert_eq!(encoding(&["identity"]), Some(Encoding::Identity));
    assert_eq!(encoding(&["GZip"]), Some(Encoding::Gzip));
    assert_eq!(encoding(&["zstd"]), Some(Encoding::Zstd));
    for refused in [&["br"][..], &["deflate"], &["gzip, gzip"], &["gzip", "gzip"], &["gzip", "zstd"]] {
        assert_eq!(encoding(refused), None, "{refused:?}");
    }
}
