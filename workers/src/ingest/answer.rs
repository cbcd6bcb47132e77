//! What a sender is told: status, JSON body, and when to come back.
//!
//! ```text
//! 202  {"accepted":2,"rejected":1,"errors":[{"item":1,"line":2,"column":5,"error":"...","remedy":"..."}]}
//! 429  {"accepted":0,"error":"...","remedy":"..."}      with Retry-After
//! ```
//!
//! One rule holds for every answer but the first: the request may be sent again as it is when the answer has a `Retry-After`, and must be
//! mended first when it has none. Nothing of it was taken; only after a failure inside (500) is that not certain.

use std::time::Duration;

use axum::{
    Json,
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use serde_json::{Value, json};

use super::{
    body::BodyError,
    intake::{Intake, IntakeError, MAX_ITEMS, Outcome, Refusal},
};
use crate::{broker::BrokerError, secrets::SecretError};

/// How many refused items an answer describes; the counts tell of all.
const MAX_ERRORS: usize = 100;
/// When it is worth coming back if nothing more is known.
const SOON: Duration = Duration::from_secs(1);
const LATER: Duration = Duration::from_secs(10);

/// Why a request is refused as a whole.
#[derive(Debug, thiserror::Error)]
pub(super) enum RequestError {
    #[error("these credentials do not open this source")]
    Unauthenticated,
    #[error("these credentials open several sources: {}", .0.join(", "))]
    Ambiguous(Vec<String>),
    #[error("the credentials cannot be checked now")]
    Unchecked(#[source] SecretError),
    #[error(transparent)]
    Body(#[from] BodyError),
    #[error("the body is not UTF-8 text (line {line}, column {column})")]
    NotUtf8 { line: usize, column: usize },
    #[error("source {source_name} takes lines of text, and a bulk request carries JSON documents")]
    NotJson { source_name: String },
    #[error("the body holds no event")]
    Empty,
    #[error(transparent)]
    Intake(#[from] IntakeError),
    #[error("events come faster than the quota of source {source_name} allows")]
    Quota { source_name: String, wait: Duration },
    #[error("{0}")]
    Full(String, Duration),
    #[error("{0}")]
    NeverTaken(String),
    #[error("{0}")]
    Unavailable(String),
    #[error("the request failed inside; its events were not taken as far as is known")]
    Internal,
    #[error("there is nothing at this path")]
    NoSuchPath,
}

impl From<BrokerError> for RequestError {
    fn from(error: BrokerError) -> Self {
        match error {
            BrokerError::Full { retry_after, .. } => Self::Full(error.to_string(), retry_after),
            BrokerError::TooLarge { .. } => Self::NeverTaken(error.to_string()),
            BrokerError::Unavailable(_) | BrokerError::Closed => Self::Unavailable(error.to_string()),
        }
    }
}

impl RequestError {
    fn status(&self) -> StatusCode {
        match self {
            Self::Unauthenticated => StatusCode::UNAUTHORIZED,
            Self::Body(BodyError::TooLarge { .. }) | Self::Intake(_) | Self::NeverTaken(_) => StatusCode::PAYLOAD_TOO_LARGE,
            Self::Body(BodyError::UnknownEncoding(_)) => StatusCode::UNSUPPORTED_MEDIA_TYPE,
            Self::Body(BodyError::TimedOut) => StatusCode::REQUEST_TIMEOUT,
            Self::Body(BodyError::Damaged { .. } | BodyError::Broken(_))
            | Self::Ambiguous(_)
            | Self::NotUtf8 { .. }
            | Self::NotJson { .. }
            | Self::Empty => StatusCode::BAD_REQUEST,
            Self::Quota { .. } | Self::Full(..) => StatusCode::TOO_MANY_REQUESTS,
            Self::Body(BodyError::Busy) | Self::Unchecked(_) | Self::Unavailable(_) => StatusCode::SERVICE_UNAVAILABLE,
            Self::Internal => StatusCode::INTERNAL_SERVER_ERROR,
            Self::NoSuchPath => StatusCode::NOT_FOUND,
        }
    }

    fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Quota { wait, .. } | Self::Full(_, wait) => Some(*wait),
            Self::Body(BodyError::Busy | BodyError::TimedOut | BodyError::Broken(_)) | Self::Unavailable(_) => Some(SOON),
            Self::Unchecked(_) | Self::Internal => Some(LATER),
            _ => None,
        }
    }

    fn remedy(&self) -> String {
        match self {
            Self::Unauthenticated => "send `Authorization: Bearer TOKEN` or Basic, as the LogSource's Secret has it; check the name".into(),
            Self::Ambiguous(_) => "name one with the query parameter source=NAME or the header X-Redoubt-Source".into(),
            Self::Body(BodyError::TooLarge { .. }) => "split the body, or raise ingest.maxBodyBytes of the Siem".into(),
            Self::Body(BodyError::UnknownEncoding(_)) => "use one Content-Encoding of gzip, zstd or identity".into(),
            Self::Body(BodyError::Damaged { .. }) => "check that Content-Encoding says how the body is packed, and send it whole".into(),
            Self::Body(BodyError::TimedOut) => "send a body within 5 minutes and without silences of 30 seconds".into(),
            Self::Body(BodyError::Broken(_)) | Self::Internal => "send the request again after the time in Retry-After".into(),
            Self::NotUtf8 { .. } => "send JSON as UTF-8 (RFC 8259, section 8.1)".into(),
            Self::NotJson { .. } => "give the LogSource a JSON format, or post the lines to /v1/sources/NAME".into(),
            Self::Empty => "send at least one event".into(),
            Self::Intake(IntakeError::TooMany) => format!("send at most {MAX_ITEMS} events in a body"),
            Self::Intake(IntakeError::Batch(_)) | Self::NeverTaken(_) => "send smaller events".into(),
            Self::NoSuchPath => "post to /v1/sources/NAME, /v1/events or /_bulk".into(),
            Self::Unchecked(_) | Self::Body(BodyError::Busy) | Self::Quota { .. } | Self::Full(..) | Self::Unavailable(_) => {
                "send the same request again after the time in Retry-After".into()
            }
        }
    }
}

impl IntoResponse for RequestError {
    fn into_response(self) -> Response {
        let body = json!({ "accepted": 0, "error": self.to_string(), "remedy": self.remedy() });
        let mut response = (self.status(), Json(body)).into_response();
        if let Some(wait) = self.retry_after() {
            // Whole seconds, rounded up: RFC 9110, section 10.2.3.
            let seconds = wait.as_millis().div_ceil(1000).clamp(1, 3600);
            if let Ok(value) = HeaderValue::from_str(&seconds.to_string()) {
                response.headers_mut().insert(header::RETRY_AFTER, value);
            }
        }
        if matches!(self, Self::Unauthenticated) {
            let challenge = HeaderValue::from_static("Bearer realm=\"redoubt\", Basic realm=\"redoubt\"");
            response.headers_mut().insert(header::WWW_AUTHENTICATE, challenge);
        }
        response
    }
}

/// The answer to a body of which something was taken, with `taken` as its status; or nothing, which is 400.
pub(super) fn taken(intake: &Intake, taken: StatusCode) -> Response {
    let refused = intake.outcomes.iter().enumerate().filter_map(|(item, outcome)| match outcome {
        Outcome::Accepted { .. } => None,
        Outcome::Refused(Refusal { line, column, error, remedy, .. }) => {
            Some(json!({ "item": item, "line": line, "column": column, "error": error, "remedy": remedy }))
        }
    });
    let errors: Vec<Value> = refused.take(MAX_ERRORS).collect();
    let status = if intake.accepted == 0 { StatusCode::BAD_REQUEST } else { taken };
    (status, Json(json!({ "accepted": intake.accepted, "rejected": intake.rejected(), "errors": errors }))).into_response()
}

/// The same as Elasticsearch's answer to `_bulk`: always 200, with a status for each item.
pub(super) fn taken_bulk(intake: &Intake, took: Duration) -> Response {
    let items: Vec<Value> = intake
        .outcomes
        .iter()
        .map(|outcome| match outcome {
            Outcome::Accepted { id } => json!({ "index": { "_id": id, "status": 201 } }),
            Outcome::Refused(Refusal { status, line, column, error, remedy }) => {
                let reason = format!("{error} (line {line}, column {column}); {remedy}");
                let kind = if *status == 413 { "event_too_large" } else { "document_parsing_exception" };
                json!({ "index": { "_id": null, "status": status, "error": { "type": kind, "reason": reason } } })
            }
        })
        .collect();
    let took = u64::try_from(took.as_millis()).unwrap_or(u64::MAX);
    Json(json!({ "took": took, "errors": intake.rejected() > 0, "items": items })).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::broker::Topic;

    fn retry_after(error: RequestError) -> (u16, Option<String>) {
        let response = error.into_response();
        let seconds = response.headers().get(header::RETRY_AFTER).map(|value| value.to_str().unwrap().to_owned());
        (response.status().as_u16(), seconds)
    }

    #[test]
    fn what_passes_by_itself_says_when_to_come_back_and_nothing_else_does() {
        let full = |millis| BrokerError::Full { topic: Topic::Events, limit: 8, retry_after: Duration::from_millis(millis) };
        let quota = RequestError::Quota { source_name: "web".into(), wait: Duration::from_millis(2_100) };

        for (error, status, seconds) in [
            (full(2_001).into(), 429, Some("3")),
            (full(0).into(), 429, Some("1")),
            (quota, 429, Some("3")),
            (BrokerError::Unavailable("disk".into()).into(), 503, Some("1")),
            (BrokerError::Closed.into(), 503, Some("1")),
            (BodyError::Busy.into(), 503, Some("1")),
            (BodyError::TimedOut.into(), 408, Some("1")),
            (RequestError::Internal, 500, Some("10")),
            (BodyError::TooLarge { limit: 1 }.into(), 413, None),
            (BodyError::UnknownEncoding("br".into()).into(), 415, None),
            (RequestError::Unauthenticated, 401, None),
            (RequestError::Empty, 400, None),
            (IntakeError::TooMany.into(), 413, None),
        ] {
            let shown = error.to_string();

            assert_eq!(retry_after(error), (status, seconds.map(str::to_owned)), "{shown}");
        }
    }
}
