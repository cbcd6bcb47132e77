//! Reading a request's body: unpacked as it comes, within bounds of size, of memory and of time.
//!
//! Nothing is read past a bound. A body that unpacks to more than its limit is given up at the limit, however small it came; all bodies
//! together share a [`Budget`], so that many senders at once are told to come back rather than the process running out of memory; and a
//! sender that trickles is cut off.

use std::{
    io::{self, Write},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use axum::{
    body::{Body, HttpBody as _},
    http::{HeaderMap, header},
};
use flate2::write::MultiGzDecoder;
use futures::{Stream, StreamExt as _};
use tokio::time::{Instant, timeout, timeout_at};

use crate::metrics::Metrics;

/// Longest silence within a body.
const SILENCE: Duration = Duration::from_secs(30);
/// Longest time for a whole body.
const WHOLE: Duration = Duration::from_secs(300);
/// What a compressed body may have above the limit of the unpacked one: packing what cannot be packed adds a little.
const PACKING: usize = 64 << 10;
/// zstd's window, as a power of two: the 8 MiB that RFC 8878, section 3.1.1.1.2, asks every decoder to take.
const ZSTD_WINDOW_LOG: u32 = 23;
/// What is still read of a body that is refused, so that its sender gets to read the answer.
const DISCARD_BYTES: usize = 4 << 20;
const DISCARD_TIME: Duration = Duration::from_secs(2);

/// Why a body was not taken.
#[derive(Debug, thiserror::Error)]
pub(super) enum BodyError {
    #[error("the body is above {limit} bytes after decompression")]
    TooLarge { limit: usize },
    #[error("the body's encoding {0:?} is not known")]
    UnknownEncoding(String),
    #[error("the body is not whole {encoding} data: {problem}")]
    Damaged { encoding: &'static str, problem: String },
    #[error("the body did not come within the time allowed")]
    TimedOut,
    #[error("the connection broke within the body: {0}")]
    Broken(String),
    #[error("other requests take all the memory there is for bodies")]
    Busy,
}

/// How a body is packed (RFC 9110, section 8.4).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Encoding {
    Identity,
    Gzip,
    Zstd,
}

impl Encoding {
    /// The encoding that the headers declare. Encodings one on top of the other are refused: no shipper sends them, and each would
    /// multiply how far a small body can swell.
    pub(super) fn from_headers(headers: &HeaderMap) -> Result<Self, BodyError> {
        let mut encoding = Self::Identity;
        for value in headers.get_all(header::CONTENT_ENCODING) {
            let text = String::from_utf8_lossy(value.as_bytes()).trim().to_ascii_lowercase();
            let declared = match text.as_str() {
                "" | "identity" => continue,
                "gzip" | "x-gzip" => Self::Gzip,
                "zstd" => Self::Zstd,
                _ => return Err(BodyError::UnknownEncoding(text)),
            };
            if encoding != Self::Identity {
                return Err(BodyError::UnknownEncoding("several encodings".to_owned()));
            }
            encoding = declared;
        }
        Ok(encoding)
    }

    const fn name(self) -> &'static str {
        match self {
            Self::Identity => "plain",
            Self::Gzip => "gzip",
            Self::Zstd => "zstd",
        }
    }
}

/// The memory that all bodies share, in bytes of unpacked text.
#[derive(Debug)]
pub(super) struct Budget {
    used: AtomicU64,
    metrics: Arc<Metrics>,
}

impl Budget {
    pub(super) fn new(metrics: Arc<Metrics>) -> Arc<Self> {
        Arc::new(Self { used: AtomicU64::new(0), metrics })
    }

    /// A body's share, empty at first. `total` is what all shares together may hold.
    pub(super) fn share(self: &Arc<Self>, total: u64) -> Share {
        Share { budget: self.clone(), total, bytes: 0 }
    }
}

/// What one body holds of the [`Budget`]; given back when dropped.
#[derive(Debug)]
pub(super) struct Share {
    budget: Arc<Budget>,
    total: u64,
    bytes: u64,
}

impl Share {
    /// An empty share of the same budget.
    fn sibling(&self) -> Self {
        self.budget.share(self.total)
    }

    /// Adds to the share; false when the budget is used up.
    fn grow(&mut self, bytes: usize) -> bool {
        let bytes = bytes as u64;
        let before = self.budget.used.fetch_add(bytes, Ordering::Relaxed);
        if before + bytes > self.total {
            self.budget.used.fetch_sub(bytes, Ordering::Relaxed);
            return false;
        }
        self.bytes += bytes;
        self.publish();
        true
    }

    fn publish(&self) {
        let used = self.budget.used.load(Ordering::Relaxed);
        self.budget.metrics.ingest_body_bytes.set(i64::try_from(used).unwrap_or(i64::MAX));
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.budget.used.fetch_sub(self.bytes, Ordering::Relaxed);
        self.publish();
    }
}

/// An unpacked body. Its share of the budget is held until it is dropped.
#[derive(Debug)]
pub(super) struct Unpacked {
    /// The bytes.
    pub(super) bytes: Vec<u8>,
    share: Share,
}

impl Unpacked {
    /// The body as text; what is no UTF-8 is an error with its line, and its column in bytes.
    pub(super) fn into_text(self) -> Result<(String, Share), (usize, usize)> {
        match String::from_utf8(self.bytes) {
            Ok(text) => Ok((text, self.share)),
            Err(error) => {
                let good = &error.as_bytes()[..error.utf8_error().valid_up_to()];
                let line = good.iter().filter(|byte| **byte == b'\n').count() + 1;
                let column = good.iter().rev().take_while(|byte| **byte != b'\n').count() + 1;
                Err((line, column))
            }
        }
    }

    /// The body as text; what is no UTF-8 becomes U+FFFD.
    pub(super) fn into_text_lossy(self) -> (String, Share) {
        let text = match String::from_utf8(self.bytes) {
            Ok(text) => text,
            Err(error) => String::from_utf8_lossy(error.as_bytes()).into_owned(),
        };
        (text, self.share)
    }
}

/// Reads a body to its end and unpacks it.
pub(super) async fn read(body: Body, encoding: Encoding, limit: usize, share: Share) -> Result<Unpacked, BodyError> {
    let announced = body.size_hint().exact().and_then(|bytes| usize::try_from(bytes).ok()).unwrap_or(0);
    let mut stream = body.into_data_stream();
    let mut bytes = Vec::new();
    // Room for as much as is announced, so that nothing is copied as it grows. What is not written to takes no memory; where there is
    // none to be had, the bytes will tell.
    let _ = bytes.try_reserve_exact(announced.min(limit));
    let result = unpack(&mut stream, encoding, Capped { bytes, limit, share, refusal: None }).await;
    if result.is_err() {
        discard(&mut stream).await;
    }
    result
}

/// Reads some more of a body that is refused unread. A sender that is still writing when the connection closes would see a reset, not
/// the answer.
pub(super) async fn refuse(body: Body) {
    discard(&mut body.into_data_stream()).await;
}

async fn discard<S, B, E>(stream: &mut S)
where
    S: Stream<Item = Result<B, E>> + Unpin,
    B: AsRef<[u8]>,
{
    let mut read = 0;
    let all = async {
        while let Some(Ok(chunk)) = stream.next().await {
            read += chunk.as_ref().len();
            if read > DISCARD_BYTES {
                break;
            }
        }
    };
    // Whether it was read to its end or not, the answer comes now.
    let _ = timeout(DISCARD_TIME, all).await;
}

async fn unpack<S, B, E>(stream: &mut S, encoding: Encoding, output: Capped) -> Result<Unpacked, BodyError>
where
    S: Stream<Item = Result<B, E>> + Unpin,
    B: AsRef<[u8]>,
    E: std::fmt::Display,
{
    let end = Instant::now() + WHOLE;
    let limit = output.limit;
    let mut decoder = Decoder::new(encoding, output)?;
    let mut received = 0;
    loop {
        let silent = Instant::now() + SILENCE;
        let Ok(next) = timeout_at(silent.min(end), stream.next()).await else { return Err(BodyError::TimedOut) };
        let Some(chunk) = next else { break };
        let chunk = chunk.map_err(|error| BodyError::Broken(error.to_string()))?;
        received += chunk.as_ref().len();
        if received > limit.saturating_add(PACKING) {
            return Err(BodyError::TooLarge { limit });
        }
        decoder.push(chunk.as_ref())?;
    }
    // Nothing at all is no gzip and no zstd data, and yet some clients declare an encoding for it.
    if received == 0 {
        let Capped { share, .. } = decoder.into_output();
        return Ok(Unpacked { bytes: Vec::new(), share });
    }
    let Capped { bytes, share, .. } = decoder.finish()?;
    Ok(Unpacked { bytes, share })
}

/// Where unpacked bytes go: as many as the limit and the budget allow.
struct Capped {
    bytes: Vec<u8>,
    limit: usize,
    share: Share,
    refusal: Option<Refusal>,
}

#[derive(Clone, Copy)]
enum Refusal {
    TooLarge,
    Busy,
}

impl Write for Capped {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.bytes.len() + bytes.len() > self.limit {
            self.refusal = Some(Refusal::TooLarge);
        } else if !self.share.grow(bytes.len()) {
            self.refusal = Some(Refusal::Busy);
        }
        if self.refusal.is_some() {
            return Err(io::Error::other("a bound is reached"));
        }
        self.bytes.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

enum Decoder {
    Identity(Capped),
    Gzip(Box<MultiGzDecoder<Capped>>),
    /// With the share that its window takes while it unpacks.
    Zstd {
        decoder: Box<zstd::stream::write::Decoder<'static, Capped>>,
        _window: Share,
    },
}

impl Decoder {
    fn new(encoding: Encoding, output: Capped) -> Result<Self, BodyError> {
        Ok(match encoding {
            Encoding::Identity => Self::Identity(output),
            Encoding::Gzip => Self::Gzip(Box::new(MultiGzDecoder::new(output))),
            Encoding::Zstd => {
                let damaged = |error: io::Error| BodyError::Damaged { encoding: "zstd", problem: error.to_string() };
                let mut window = output.share.sibling();
                if !window.grow(1 << ZSTD_WINDOW_LOG) {
                    return Err(BodyError::Busy);
                }
                let mut decoder = zstd::stream::write::Decoder::new(output).map_err(damaged)?;
                decoder.window_log_max(ZSTD_WINDOW_LOG).map_err(damaged)?;
                Self::Zstd { decoder: Box::new(decoder), _window: window }
            }
        })
    }

    fn push(&mut self, chunk: &[u8]) -> Result<(), BodyError> {
        let written = match self {
            Self::Identity(output) => output.write_all(chunk),
            Self::Gzip(decoder) => decoder.write_all(chunk),
            Self::Zstd { decoder, .. } => decoder.write_all(chunk),
        };
        written.map_err(|error| self.error(&error))
    }

    /// The unpacked bytes, once the data is known to be whole.
    fn finish(mut self) -> Result<Capped, BodyError> {
        let finished = match &mut self {
            Self::Identity(_) => Ok(()),
            Self::Gzip(decoder) => decoder.try_finish(),
            Self::Zstd { decoder, .. } => decoder.do_finish(),
        };
        match finished {
            Ok(()) => Ok(self.into_output()),
            Err(error) => Err(self.error(&error)),
        }
    }

    fn into_output(self) -> Capped {
        match self {
            Self::Identity(output) => output,
            Self::Gzip(mut decoder) => decoder.get_mut().take(),
            Self::Zstd { mut decoder, .. } => decoder.get_mut().take(),
        }
    }

    fn error(&self, error: &io::Error) -> BodyError {
        let (encoding, output) = match self {
            Self::Identity(output) => (Encoding::Identity, output),
            Self::Gzip(decoder) => (Encoding::Gzip, decoder.get_ref()),
            Self::Zstd { decoder, .. } => (Encoding::Zstd, decoder.get_ref()),
        };
        match output.refusal {
            Some(Refusal::TooLarge) => BodyError::TooLarge { limit: output.limit },
            Some(Refusal::Busy) => BodyError::Busy,
            None => BodyError::Damaged { encoding: encoding.name(), problem: error.to_string() },
        }
    }
}

impl Capped {
    /// Takes the bytes and their share, leaving nothing behind.
    fn take(&mut self) -> Self {
        let nothing = self.share.sibling();
        let share = std::mem::replace(&mut self.share, nothing);
        Self { bytes: std::mem::take(&mut self.bytes), limit: self.limit, share, refusal: self.refusal }
    }
}

#[cfg(test)]
mod tests;
