//! Events from a file or standard input, cut and stamped as ingest would.

use std::{
    fs,
    io::{self, Read as _},
    path::Path,
    sync::Arc,
};

use anyhow::{Context as _, Result, bail};
use redoubt_crds::Format;
use redoubt_engine::{compile::Plan, event::RawEvent, format::frame, source::Source};

/// What a file holds: events, and pieces that are none, each with what is wrong with it.
pub(super) struct Read {
    pub(super) events: Vec<RawEvent>,
    pub(super) refused: Vec<String>,
}

/// Reads a whole file, or standard input for `-`.
pub(super) fn read_input(path: &Path) -> Result<String> {
    let mut bytes = Vec::new();
    if path == Path::new("-") {
        io::stdin().lock().read_to_end(&mut bytes).context("reading events from standard input")?;
    } else {
        bytes = fs::read(path).with_context(|| format!("reading events from {}", path.display()))?;
    }
    String::from_utf8(bytes).with_context(|| format!("{} is not UTF-8 text", path.display()))
}

/// Cuts a text into events of a source, as if they had been received at `received_millis`.
pub(super) fn cut(source: &Source, text: &str, file: &Path, received_millis: i64) -> Read {
    let mut read = Read { events: Vec::new(), refused: Vec::new() };
    let name: Arc<str> = Arc::clone(&source.name);
    for (number, piece) in frame(source.format, text).into_iter().enumerate() {
        match piece {
            Ok(body) => read.events.push(RawEvent {
                id: format!("{}-{number}", file.display()),
                received_millis,
                source: Arc::clone(&name),
                sender: None,
                body: body.to_owned(),
            }),
            Err(error) => {
                read.refused.push(format!("{}:{}:{}: {} ({})", file.display(), error.line, error.column, error.message, error.remedy));
            }
        }
    }
    read
}

/// The LogSource of a name, or the only one, or a plain one of the given format where the resources declare none.
pub(super) fn choose_source(plan: &Plan, name: Option<&str>, format: Option<Format>) -> Result<Arc<Source>> {
    if let Some(name) = name {
        let known: Vec<&str> = plan.sources.keys().map(String::as_str).collect();
        return match plan.sources.get(name) {
            Some(source) => Ok(Arc::clone(source)),
            None => bail!(
                "there is no LogSource/{name}; the resources declare {}",
                if known.is_empty() { "none".to_owned() } else { known.join(", ") }
            ),
        };
    }
    if let Some(format) = format {
        return Ok(Arc::new(plain_source(format)?));
    }
    match plan.sources.len() {
        0 => Ok(Arc::new(plain_source(Format::Json)?)),
        1 => plan.sources.values().next().cloned().context("one source"),
        _ => bail!(
            "which LogSource are these events of? Say --source NAME, one of: {}",
            plan.sources.keys().cloned().collect::<Vec<_>>().join(", ")
        ),
    }
}

fn plain_source(format: Format) -> Result<Source> {
    let spec = redoubt_crds::LogSourceSpec { format: Some(format), ..Default::default() };
    Source::compile("events", &spec).map_err(|problems| anyhow::anyhow!("{problems:?}"))
}
