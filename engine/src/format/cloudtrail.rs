//! An AWS CloudTrail record (CloudTrail user guide, "CloudTrail record contents", event version 1.0x).
//!
//! The record stands under `details` as it is, so that Sigma's names (`eventSource`, `userIdentity.type`) are its own.

use redoubt_crds::FieldType;
use serde_json::{Map, Value};
use std::sync::Arc;

use super::{
    ParseError,
    draft::{Draft, json_object, says_nothing},
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

    if let Some(time) = record.get("eventTime") {
        draft.set_time(time);
    }
    draft.own_id = text(&record, "eventID").map(str::to_owned);
    draft.put_text("event.outcome", outcome(&record));
    draft.put_text("cloud.provider", "aws");
    draft.copy_from(
        &record,
        &[
            ("eventName", "event.action", FieldType::Keyword),
            ("eventSource", "event.provider", FieldType::Keyword),
            ("errorCode", "error.code", FieldType::Keyword),
            ("errorMessage", "error.message", FieldType::Keyword),
            ("awsRegion", "cloud.region", FieldType::Keyword),
            ("recipientAccountId", "cloud.account.id", FieldType::Keyword),
            ("userAgent", "user_agent.original", FieldType::Keyword),
        ],
    );
    // An AWS service that calls stands here by its name.
    if let Some(address) = text(&record, "sourceIPAddress") {
        match super::convert::address(address) {
            Some(ip) => draft.put_text("source.ip", &ip.to_string()),
            None => draft.put_text("source.address", address),
        }
    }
    user(&mut draft, &record);
    draft.details = record;
    Ok(draft.finish())
}

/// Who called.
fn user(draft: &mut Draft<'_>, record: &Map<String, Value>) {
    let identity = record.get("userIdentity").and_then(Value::as_object);
    // Of a record that somebody flattened the names hold dots.
    let said = |name: &str| match identity {
        Some(identity) => text(identity, name),
        None => text(record, &format!("userIdentity.{name}")),
    };
    // The root account and federated callers have no user name; the end of their ARN says who they are.
    let end_of_arn = || said("arn")?.rsplit(['/', ':']).next();
    let name = said("userName").or_else(|| said("sessionContext.sessionIssuer.userName")).or_else(end_of_arn);
    for (path, value) in [("cloud.account.id", said("accountId")), ("user.id", said("principalId")), ("user.name", name)] {
        draft.put_text(path, value.unwrap_or_default());
    }
}

/// The text at a path, where there is one that says something.
fn text<'r>(record: &'r Map<String, Value>, path: &str) -> Option<&'r str> {
    lookup(record, path).filter(|value| !says_nothing(value)).and_then(Value::as_str)
}

/// A refused call has an error; a refused console login has none, and says so in its response.
fn outcome(record: &Map<String, Value>) -> &'static str {
    let has_error = ["errorCode", "errorMessage"].iter().any(|key| record.get(*key).is_some_and(|value| !value.is_null()));
    if has_error || text(record, "responseElements.ConsoleLogin") == Some("Failure") { "failure" } else { "success" }
}

#[cfg(test)]
mod tests;
