use redoubt_crds::Format::Cloudtrail;
use serde_json::{Value, json};

use super::super::event_tests::{assert_holds, parse_json};
use crate::event::Event;

fn record(changes: &Value) -> Value {
    let mut record = json!({
        "eventVersion": "1.08",
        "userIdentity": {"type": "IAMUser", "principalId": "AID", "arn": "arn:aws:iam::111111111111:user/ben", "accountId": "111111111111", "userName": "ben"},
        "eventTime": "2023-07-10T11:42:36Z",
        "eventSource": "s3.amazonaws.com",
        "eventName": "GetObject",
        "awsRegion": "us-east-1",
        "sourceIPAddress": "192.0.2.1",
        "userAgent": "aws-cli",
        "requestParameters": null,
        "eventID": "293ba626",
        "recipientAccountId": "222222222222",
    });
    for (key, value) in changes.as_object().unwrap() {
        record[key] = value.clone();
    }
    record
}

#[test]
fn a_record_stands_untouched_under_details_and_has_ecs_fields() {
    let record = record(&json!({}));

    let event = parse_json(Cloudtrail, &record);

    assert_eq!(event.document["details"], record);
    assert_eq!(event.id, Event::natural_document_id("app", "293ba626"));
    assert_holds(
        &event,
        &json!({
            "@timestamp": "2023-07-10T11:42:36.000Z",
            "event": {
                "id": "293ba626", "action": "GetObject", "provider": "s3.amazonaws.com", "outcome": "success",
                "kind": "event", "dataset": "app", "ingested": "2025-11-04T12:00:00.000Z",
            },
            "source": {"ip": "192.0.2.1"},
            "user": {"name": "ben", "id": "AID"},
            "cloud": {"provider": "aws", "region": "us-east-1", "account": {"id": "222222222222"}},
            "user_agent.original": "aws-cli",
            "tags": null,
        }),
    );
}

#[test]
fn variants_are_understood() {
    let cases = [
        (
            json!({"errorCode": "AccessDenied", "errorMessage": "no"}),
            json!({"event.outcome": "failure", "error": {"code": "AccessDenied", "message": "no"}}),
        ),
        (json!({"responseElements": {"ConsoleLogin": "Failure"}}), json!({"event.outcome": "failure"})),
        (json!({"responseElements": {"ConsoleLogin": "Success"}}), json!({"event.outcome": "success"})),
        (json!({"sourceIPAddress": "cloudtrail.amazonaws.com"}), json!({"source": {"address": "cloudtrail.amazonaws.com"}})),
        (
            json!({"userIdentity": {"type": "AssumedRole", "arn": "arn:x:assumed-role/r/session", "sessionContext": {"sessionIssuer": {"userName": "r"}}}}),
            json!({"user": {"name": "r"}}),
        ),
        (json!({"userIdentity": {"type": "Root", "arn": "arn:aws:iam::111111111111:root"}}), json!({"user.name": "root"})),
        (json!({"userIdentity": {"type": "AWSService", "invokedBy": "x.amazonaws.com"}}), json!({"user": null})),
        (json!({"eventTime": "soon"}), json!({"@timestamp": "2025-11-04T12:00:00.000Z", "tags": ["_unparsed_value"]})),
        (json!({"userIdentity": {"userName": "-", "arn": "arn:aws:iam::111111111111:user/ann"}}), json!({"user.name": "ann"})),
        (
            json!({"userIdentity": null, "userIdentity.principalId": "AIE", "userIdentity.sessionContext.sessionIssuer.userName": "r"}),
            json!({"user": {"name": "r", "id": "AIE"}}),
        ),
        (json!({"eventID": null}), json!({"event.id": "raw-1"})),
        (json!({"eventID": "-"}), json!({"event.id": "raw-1"})),
    ];

    for (changes, expected) in cases {
        assert_holds(&parse_json(Cloudtrail, &record(&changes)), &expected);
    }
}
