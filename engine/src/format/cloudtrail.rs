//! An AWS CloudTrail record (CloudTrail user guide, "CloudTrail record contents", event version 1.0x).
//!
//! The record stands under `details` as it is, so that Sigma's names (`eventSource`, `userIdentity.type`) are its own.

use redoubt_crds::FieldType;
use serde_json::Value;
use std::sync::Arc;

use super::{
    ParseError,
    draft::{Draft, json_object},
};
use crate::{
    event::{Event, RawEvent, lookup},
    source::Source,
};

const EXPECTED: &str = "a CloudTrail record";

pub(super) fn parse(source: &Source, raw: &RawEvent) -> Result<Event, ParseError> {
    let record = json_object(raw, EXPECTED)?;
    if !record.contains_key("eventName") && !record.contains_key("eventSource") {
        let message = "the object has neither eventName nor eventSource".to_owned();
        return Err(ParseError { expected: EXPECTED, message });
    }
    let mut draft = Draft::new(source, raw);
    draft.logsource = source.logsources.first().map(Arc::clone);
    draft.details = record;

    if let Some(time) = draft.details.get("eventTime").cloned() {
        draft.set_time(&time);
    }
    draft.own_id = text(&draft, "eventID").map(str::to_owned).filter(|id| !id.is_empty());
    draft.put_text("event.outcome", outcome(&draft));
    draft.put_text("cloud.provider", "aws");
    draft.copy(&[
        ("eventName", "event.action", FieldType::Keyword),
        ("eventSource", "event.provider", FieldType::Keyword),
        ("errorCode", "error.code", FieldType::Keyword),
        ("errorMessage", "error.message", FieldType::Keyword),
        ("awsRegion", "cloud.region", FieldType::Keyword),
        ("recipientAccountId", "cloud.account.id", FieldType::Keyword),
        ("userAgent", "user_agent.original", FieldType::Keyword),
    ]);
    // An AWS service that calls stands here by its name.
    if let Some(address) = text(&draft, "sourceIPAddress").map(str::to_owned) {
        match super::convert::address(&address) {
            Some(ip) => draft.put_text("source.ip", &ip.to_string()),
            None => draft.put_text("source.address", &address),
        }
    }
    for (path, from) in [
        ("cloud.account.id", "userIdentity.accountId"),
        ("user.id", "userIdentity.principalId"),
        ("user.name", "userIdentity.userName"),
        ("user.name", "userIdentity.sessionContext.sessionIssuer.userName"),
    ] {
        if let Some(value) = text(&draft, from).map(str::to_owned) {
            draft.put_text(path, &value);
        }
    }
    // The root account and federated callers have no user name; the end of their ARN says who they are.
    if let Some(arn) = text(&draft, "userIdentity.arn").map(str::to_owned) {
        let name = arn.rsplit(['/', ':']).next().unwrap_or_default();
        draft.put_text("user.name", name);
    }
    Ok(draft.finish())
}

fn text<'d>(draft: &'d Draft<'_>, path: &str) -> Option<&'d str> {
    lookup(&draft.details, path).and_then(Value::as_str)
}

/// A refused call has an error; a refused console login has none, and says so in its response.
fn outcome(draft: &Draft<'_>) -> &'static str {
    let has_error = ["errorCode", "errorMessage"].iter().any(|key| draft.details.get(*key).is_some_and(|value| !value.is_null()));
    if has_error || text(draft, "responseElements.ConsoleLogin") == Some("Failure") { "failure" } else { "success" }
}

#[cfg(test)]
mod tests;
