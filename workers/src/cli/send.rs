//! `redoubt send`: posts events from files, and keeps at it until they are taken.

use std::{fs, path::PathBuf, process::ExitCode, time::Duration};

use anyhow::{Context as _, Result, bail};
use clap::{ArgGroup, Args};
use jiff::{SignedDuration, Timestamp};
use tokio::{io::AsyncWriteExt as _, net::TcpStream, time::timeout};
use tokio_util::sync::CancellationToken;

use super::events::read_input;
use crate::backoff::Backoff;

/// Attempts before a file is given up: with growing pauses, some four minutes.
const ATTEMPTS: u32 = 30;
/// How long a connection may take to be made. One to an address that has just gone would otherwise be tried for two minutes.
const CONNECT_WITHIN: Duration = Duration::from_secs(5);

/// Send events from files to a running Redoubt
///
/// Over HTTP each file is one request, tried again until it is accepted; over syslog each line is one message.
#[derive(Debug, Args)]
#[command(group(ArgGroup::new("target").required(true).args(["source", "syslog"])))]
pub(super) struct Send {
    /// Files with events; `-` reads standard input.
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
    /// The address of the HTTP listener.
    #[arg(long, value_name = "URL", default_value = "http://127.0.0.1:8080", env = "REDOUBT_URL")]
    to: String,
    /// The LogSource that the events belong to.
    #[arg(long, value_name = "NAME")]
    source: Option<String>,
    /// A file with the LogSource's bearer token.
    #[arg(long, value_name = "FILE", requires = "source")]
    token_file: Option<PathBuf>,
    /// A file with certificates of the authorities to trust, PEM, instead of those of the system. In a cluster that is `ca.crt` of the
    /// Siem's Secret `NAME-ca`.
    #[arg(long, value_name = "FILE", requires = "source")]
    ca_file: Option<PathBuf>,
    /// Send each line as a syslog message over TCP to this HOST:PORT.
    #[arg(long, value_name = "HOST:PORT")]
    syslog: Option<String>,
    /// Move all times that are written in the files (RFC 3339) by the same amount, so that the latest of them is now.
    #[arg(long)]
    shift_to_now: bool,
}

impl Send {
    pub(super) fn execute(self) -> Result<ExitCode> {
        let mut texts = Vec::new();
        for file in &self.files {
            texts.push((file.clone(), read_input(file)?));
        }
        if self.shift_to_now {
            shift_to_now(&mut texts, Timestamp::now());
        }
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(async {
            for (file, text) in &texts {
                match (&self.syslog, &self.source) {
                    (Some(address), _) => send_syslog(address, text).await,
                    (None, Some(source)) => self.post(source, text).await,
                    (None, None) => bail!("say where to: --source or --syslog"),
                }
                .with_context(|| format!("sending {}", file.display()))?;
            }
            Ok(ExitCode::SUCCESS)
        })
    }

    async fn post(&self, source: &str, text: &str) -> Result<()> {
        let url = format!("{}/v1/sources/{source}", self.to.trim_end_matches('/'));
        let mut request = self.client()?.post(&url).timeout(Duration::from_secs(60));
        if let Some(path) = &self.token_file {
            let token = fs::read_to_string(path).with_context(|| format!("reading the token in {}", path.display()))?;
            request = request.bearer_auth(token.lines().next().unwrap_or_default().trim());
        }
        retried(&format!("{url} does not take events"), || async {
            let again = request.try_clone().context("a request that cannot be repeated")?;
            match again.body(text.to_owned()).send().await {
                Ok(answer) => {
                    let status = answer.status();
                    let said = answer.text().await.unwrap_or_default();
                    if status.is_success() {
                        anstream::eprintln!("{}", said.trim());
                        return Ok(None);
                    }
                    if status.as_u16() == 429 || status.is_server_error() {
                        return Ok(Some(format!("{status}: {}", said.trim())));
                    }
                    bail!("refused with {status}: {}", said.trim());
                }
                Err(error) => Ok(Some(format!("{:#}", anyhow::Error::from(error)))),
            }
        })
        .await
    }

    fn client(&self) -> Result<reqwest::Client> {
        let mut builder = reqwest::Client::builder().connect_timeout(CONNECT_WITHIN);
        if let Some(path) = &self.ca_file {
            let text = fs::read(path).with_context(|| format!("reading the certificates in {}", path.display()))?;
            let trusted = reqwest::Certificate::from_pem_bundle(&text)
                .ok()
                .filter(|certificates| !certificates.is_empty())
                .with_context(|| format!("{} holds no certificates in PEM", path.display()))?;
            builder = trusted.into_iter().fold(builder.tls_built_in_root_certs(false), reqwest::ClientBuilder::add_root_certificate);
        }
        Ok(builder.build()?)
    }
}

async fn send_syslog(address: &str, text: &str) -> Result<()> {
    retried(&format!("{address} does not take syslog"), || async {
        let mut stream = match timeout(CONNECT_WITHIN, TcpStream::connect(address)).await {
            Ok(Ok(stream)) => stream,
            Ok(Err(error)) => return Ok(Some(error.to_string())),
            Err(elapsed) => return Ok(Some(format!("no connection: {elapsed}"))),
        };
        for line in text.lines().filter(|line| !line.is_empty()) {
            stream.write_all(format!("{} {line}", line.len()).as_bytes()).await?;
        }
        stream.shutdown().await?;
        anstream::eprintln!("{} lines sent", text.lines().count());
        Ok(None)
    })
    .await
}

/// Tries until an attempt says `None`; what it says instead is the reason for the next.
async fn retried<F: Future<Output = Result<Option<String>>>>(failing: &str, mut attempt: impl FnMut() -> F) -> Result<()> {
    let mut backoff = Backoff::default();
    let never = CancellationToken::new();
    for number in 1..ATTEMPTS {
        let Some(reason) = attempt().await? else { return Ok(()) };
        if number == 1 {
            anstream::eprintln!("{failing}: {reason}; trying again");
        }
        backoff.pause(&never).await?;
    }
    match attempt().await? {
        None => Ok(()),
        Some(reason) => bail!("{failing}: {reason}"),
    }
}

/// Moves every RFC 3339 time in the texts by one amount, so that the latest is `now`.
fn shift_to_now(texts: &mut [(PathBuf, String)], now: Timestamp) {
    let latest = texts.iter().flat_map(|(_, text)| times(text)).map(|(_, time)| time).max();
    let Some(latest) = latest else { return };
    let shift = now.duration_since(latest);
    for (_, text) in texts {
        *text = shifted(text, shift);
    }
}

fn shifted(text: &str, shift: SignedDuration) -> String {
    let mut moved = String::with_capacity(text.len());
    let mut end = 0;
    for (range, time) in times(text) {
        moved.push_str(&text[end..range.start]);
        let later = time.checked_add(shift).unwrap_or(time);
        moved.push_str(&format!("{later:.3}"));
        end = range.end;
    }
    moved.push_str(&text[end..]);
    moved
}

/// The RFC 3339 times that a text holds, and where. A time starts with a digit that no digit goes before, and ends with `Z` or an offset.
fn times(text: &str) -> Vec<(std::ops::Range<usize>, Timestamp)> {
    let bytes = text.as_bytes();
    let mut found = Vec::new();
    let mut start = 0;
    while start + 20 <= bytes.len() {
        let fresh = start == 0 || !bytes[start - 1].is_ascii_digit();
        if fresh && bytes[start].is_ascii_digit() && bytes[start + 4] == b'-' && matches!(bytes[start + 10], b'T' | b' ') {
            let part = |byte: &u8| byte.is_ascii_digit() || matches!(byte, b'-' | b'+' | b':' | b'.' | b'T' | b' ' | b'Z');
            let longest = bytes[start..].iter().take(35).take_while(|byte| part(byte)).count();
            let time = (20..=longest).rev().find_map(|length| Some((length, text[start..start + length].parse::<Timestamp>().ok()?)));
            if let Some((length, time)) = time {
                found.push((start..start + length, time));
                start += length;
                continue;
            }
        }
        start += 1;
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_times_move_by_the_amount_that_makes_the_latest_now() {
        let mut texts = vec![
            (PathBuf::from("a"), "<38>1 2026-03-02T10:00:00.000Z host".to_owned()),
            (PathBuf::from("b"), r#"{"t": "2026-03-02T10:01:00Z", "n": 120260302}"#.to_owned()),
        ];

        shift_to_now(&mut texts, "2027-01-01T00:01:00Z".parse().unwrap());

        assert_eq!(texts[0].1, "<38>1 2027-01-01T00:00:00.000Z host");
        assert_eq!(texts[1].1, r#"{"t": "2027-01-01T00:01:00.000Z", "n": 120260302}"#);
    }

    #[test]
    fn a_text_without_times_stays_as_it_is() {
        assert_eq!(shifted("no time 2026-03 here, ünï", SignedDuration::from_secs(5)), "no time 2026-03 here, ünï");
    }
}
