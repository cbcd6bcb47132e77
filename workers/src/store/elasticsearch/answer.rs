//! What a cluster says when it is unwilling, in one line.

use serde::Deserialize;
use serde_json::Value;

/// How much of an answer that is no JSON is kept for people to read, in bytes.
const MAX_TEXT: usize = 512;

/// An error as Elasticsearch and OpenSearch write it.
#[derive(Debug, Deserialize)]
pub(super) struct Cause {
    #[serde(rename = "type", default)]
    pub(super) kind: String,
    #[serde(default)]
    reason: Option<String>,
    #[serde(default)]
    caused_by: Option<Box<Cause>>,
    #[serde(default)]
    root_cause: Vec<Cause>,
}

#[derive(Deserialize)]
struct Whole {
    error: Value,
}

impl Cause {
    /// The reason with what led to it.
    pub(super) fn text(&self) -> String {
        // "all shards failed" says nothing; what the first shard said does.
        let told = self.root_cause.first().filter(|root| root.reason.is_some()).unwrap_or(self);
        let mut text = told.reason.clone().unwrap_or_else(|| told.kind.clone());
        let mut cause = told.caused_by.as_deref().or(self.caused_by.as_deref());
        while let Some(deeper) = cause {
            if let Some(reason) = deeper.reason.as_deref().filter(|reason| !text.contains(*reason)) {
                text.push_str(": ");
                text.push_str(reason);
            }
            cause = deeper.caused_by.as_deref();
        }
        text
    }
}

/// What an answer of this status and body says.
pub(super) fn reason(status: u16, body: &[u8]) -> String {
    let text = match serde_json::from_slice::<Whole>(body) {
        Ok(Whole { error: Value::String(text) }) => text,
        Ok(Whole { error }) => serde_json::from_value::<Cause>(error.clone()).map_or_else(|_| error.to_string(), |cause| cause.text()),
        Err(_) => String::from_utf8_lossy(&body[..body.len().min(MAX_TEXT)]).into_owned(),
    };
    match status {
        401 | 403 => format!("it refuses the credentials or lacks a permission ({status}): {text}"),
        400 => text,
        _ => format!("status {status}: {text}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_reason_is_the_deepest_that_tells_something() {
        for (status, body, expected) in [
            (
                400,
                r#"{"error":{"root_cause":[{"type":"a","reason":"no such field"}],"type":"b","reason":"all shards failed"}}"#,
                "no such field",
            ),
            (
                400,
                r#"{"error":{"type":"mapper","reason":"failed to parse","caused_by":{"type":"x","reason":"not a number"}}}"#,
                "failed to parse: not a number",
            ),
            (405, r#"{"error":"Incorrect HTTP method","status":405}"#, "status 405: Incorrect HTTP method"),
            (502, "<html>bad gateway</html>", "status 502: <html>bad gateway</html>"),
            (403, r#"{"error":{"type":"security","reason":"no"}}"#, "it refuses the credentials or lacks a permission (403): no"),
            (429, "", "status 429: "),
        ] {
            assert_eq!(reason(status, body.as_bytes()), expected);
        }
    }
}
