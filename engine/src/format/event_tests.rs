//! What holds for the events of every format.

use std::sync::Arc;

use proptest::prelude::*;
use redoubt_crds::{FieldType, Format, HttpInput, LogSourceSpec, TypedField};
use serde_json::{Map, Value, json};

use super::*;

/// 2025-11-04T12:00:00Z.
pub(super) const RECEIVED: i64 = 1_762_257_600_000;

pub(super) const FORMATS: [Format; 8] =
    [Format::Json, Format::Ndjson, Format::Mozdef, Format::Syslog, Format::Cef, Format::Cloudtrail, Format::Windows, Format::Zeek];

pub(super) fn source(format: Format) -> Source {
    declared(LogSourceSpec { format: Some(format), ..LogSourceSpec::default() })
}

fn declared(spec: LogSourceSpec) -> Source {
    Source::compile("app", &LogSourceSpec { http: Some(HttpInput::default()), ..spec }).unwrap()
}

pub(super) fn raw(body: impl Into<String>) -> RawEvent {
    RawEvent { id: "raw-1".to_owned(), received_millis: RECEIVED, source: Arc::from("app"), sender: None, body: body.into() }
}

pub(super) fn parse_text(format: Format, body: &str) -> Event {
    parse(&source(format), &raw(body)).unwrap()
}

pub(super) fn parse_json(format: Format, body: &Value) -> Event {
    parse_text(format, &body.to_string())
}

/// Checks that an event holds these values at these paths; null stands for nothing.
#[track_caller]
pub(super) fn assert_holds(event: &Event, expected: &Value) {
    for (path, value) in expected.as_object().unwrap() {
        let found = event.get(path).cloned().unwrap_or_default();
        assert_eq!(found, *value, "{path} of {}", Value::Object(event.document.clone()));
    }
}

fn has_tag(event: &Event, tag: &str) -> bool {
    event.document.get("tags").and_then(Value::as_array).is_some_and(|tags| tags.iter().any(|known| known == tag))
}

#[test]
fn every_event_has_its_id_times_dataset_kind_and_tags() {
    let source = declared(LogSourceSpec {
        dataset: Some("corp.app".to_owned()),
        tags: vec!["prod".to_owned(), "web".to_owned()],
        ..LogSourceSpec::default()
    });
    let mut raw = raw(r#"{"tags": ["web", "mine"], "message": "hello"}"#);
    raw.sender = Some(Arc::from("192.0.2.9"));

    let event = parse(&source, &raw).unwrap();

    assert_eq!((event.id.as_str(), event.natural_id, event.timestamp_millis), ("raw-1", false, RECEIVED));
    assert_eq!(
        Value::Object(event.document),
        json!({
            "@timestamp": "2025-11-04T12:00:00.000Z",
            "event": {"id": "raw-1", "kind": "event", "dataset": "corp.app", "ingested": "2025-11-04T12:00:00.000Z"},
            "log": {"source": {"address": "192.0.2.9"}},
            "message": "hello",
            "tags": ["prod", "web", "mine"],
        })
    );
}

#[test]
fn the_same_event_sent_twice_has_one_id() {
    for body in [r#"{"event": {"id": "abc"}}"#, r#"{"event.id": "abc", "n": 2}"#] {
        let event = parse_text(Format::Json, body);

        assert_eq!(event.id, Event::natural_document_id("app", "abc"));
        assert!(event.natural_id);
        assert_holds(&event, &json!({"event.id": "abc"}));
    }
    for body in [r#"{"id": "abc"}"#, r#"{"_id": "abc"}"#, r#"{"event": {"id": ""}}"#, r#"{"event": {"id": null}}"#] {
        assert_eq!(parse_text(Format::Json, body).id, "raw-1", "{body}");
    }
}

#[test]
fn a_sender_cannot_say_what_redoubt_says() {
    let event = parse_json(
        Format::Json,
        &json!({
            "event": {"dataset": "other", "ingested": "2001-01-01T00:00:00Z", "kind": "alert"},
            "log": {"source": {"address": "forged"}},
        }),
    );

    assert_holds(
        &event,
        &json!({
            "event.dataset": "app",
            "event.ingested": "2025-11-04T12:00:00.000Z",
            "event.kind": "alert",
            "details.event.dataset": "other",
            "details.event.ingested": "2001-01-01T00:00:00Z",
        }),
    );
}

#[test]
fn declared_fields_are_copied_with_their_type() {
    let field = |from: &str, to: &str, field_type| TypedField { from: from.to_owned(), to: to.to_owned(), field_type };
    let source = declared(LogSourceSpec {
        fields: vec![
            field("client.addr", "source.ip", FieldType::Ip),
            field("bytes", "source.bytes", FieldType::Long),
            field("took", "app.took", FieldType::Double),
            field("at", "@timestamp", FieldType::Date),
            field("absent", "app.absent", FieldType::Keyword),
        ],
        ..LogSourceSpec::default()
    });

    let sound =
        parse(&source, &raw(r#"{"details": {"client": {"addr": "192.0.2.1"}}, "bytes": "17", "took": 1.5, "at": 1700000000}"#)).unwrap();
    let odd = parse(&source, &raw(r#"{"bytes": "many", "took": null}"#)).unwrap();

    assert_holds(
        &sound,
        &json!({
            "source.ip": "192.0.2.1", "source.bytes": 17, "app.took": 1.5, "app.absent": null,
            "@timestamp": "2023-11-14T22:13:20.000Z", "details.bytes": "17", "tags": null,
        }),
    );
    assert_eq!(sound.timestamp_millis, 1_700_000_000_000);
    assert_holds(&odd, &json!({"source.bytes": null, "details.bytes": "many", "tags": [UNPARSED_TAG]}));
}

#[test]
fn an_event_past_the_bounds_is_kept_and_tagged() {
    let many: Map<String, Value> = (0..20_000).map(|n| (format!("k{n}"), json!(n))).collect();
    let event = parse_json(Format::Json, &json!({"a": 1, "many": many}));

    assert!(has_tag(&event, OVERFLOW_TAG));
    assert_holds(&event, &json!({"details.a": 1, "details.many": null}));
    assert!(event.get_text("details._overflow").unwrap().contains("\"k19999\":19999"));
}

#[test]
fn what_is_not_of_the_format_is_refused_with_a_reason() {
    for (format, body, expected) in [
        (Format::Json, "[]", "a JSON object"),
        (Format::Json, "{\"a\":", "a JSON object"),
        (Format::Mozdef, "7", "a MozDef event (a JSON object)"),
        (Format::Cef, "<13>no such thing", "a CEF event"),
        (Format::Cef, "CEF:0|a|b", "a CEF event"),
        (Format::Cloudtrail, "{\"a\":1}", "a CloudTrail record"),
        (Format::Windows, "{\"a\":1}", "a Windows event"),
        (Format::Zeek, "null", "a Zeek log line in JSON"),
    ] {
        let error = parse(&source(format), &raw(body)).unwrap_err();

        assert_eq!(error.expected, expected, "{body}");
        assert!(!error.message.is_empty());
    }
}

#[test]
fn depth_beyond_what_can_be_read_is_refused_not_a_crash() {
    let body = format!("{{\"a\":{}{}}}", "[".repeat(100_000), "]".repeat(100_000));
    let dotted = format!("{{\"source.{}\": 1}}", "a.".repeat(50_000));

    assert!(parse(&source(Format::Json), &raw(body)).is_err());
    assert!(parse(&source(Format::Json), &raw(dotted)).is_ok());
}

/// Arbitrary JSON, in which the names that formats look for are frequent.
fn json_value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        "[a-z0-9 :./=\\\\|é\\-\\[\\]]{0,20}".prop_map(Value::from),
        prop_oneof![Just("192.0.2.1"), Just("-"), Just("4688"), Just("2025-11-04T10:11:12Z"), Just("A=1,MD5=2")].prop_map(Value::from),
    ];
    let key = prop_oneof![
        "[a-z.@_]{0,8}",
        proptest::sample::select(vec![
            "Event",
            "System",
            "EventData",
            "UserData",
            "Data",
            "#text",
            "#attributes",
            "Name",
            "EventID",
            "Channel",
            "Provider",
            "winlog",
            "event_data",
            "event_id",
            "user_data",
            "event",
            "event.id",
            "id",
            "host",
            "host.name",
            "host.name.x",
            "source.ip",
            "source",
            "ip",
            "user",
            "name",
            "tags",
            "details",
            "fields",
            "details.x_int",
            "@timestamp",
            "timestamp",
            "message",
            "summary",
            "severity",
            "_path",
            "ts",
            "id.orig_h",
            "proto",
            "eventName",
            "eventTime",
            "userIdentity",
            "arn",
            "_duplicate",
            "_overflow",
            "log",
            "dataset",
            "TimeCreated",
            "SystemTime",
            "Hashes",
            "User",
            "NewProcessName",
            "EventType",
        ])
        .prop_map(str::to_owned),
    ];
    leaf.prop_recursive(4, 40, 6, move |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            proptest::collection::btree_map(key.clone(), inner, 0..6).prop_map(|map| Value::Object(map.into_iter().collect())),
        ]
    })
}

fn check_one(format: Format, body: &str) -> Result<(), TestCaseError> {
    let source = source(format);
    for text in frame(format, body).into_iter().flatten() {
        let Ok(event) = parse(&source, &raw(text)) else { continue };
        let Ok(again) = parse(&source, &raw(text)) else { return Err(TestCaseError::fail("refused the second time")) };
        prop_assert_eq!(&event.document, &again.document);
        prop_assert!(event.get("@timestamp").is_some_and(Value::is_string));
        prop_assert!(event.get("event.id").is_some_and(Value::is_string));
        prop_assert_eq!(event.get("event.dataset"), Some(&json!("app")));
        prop_assert!(event.document.get("details").is_none_or(Value::is_object));
        prop_assert!(event.document.get("tags").is_none_or(Value::is_array));
        prop_assert!(event.document.get("message").is_none_or(Value::is_string));
    }
    Ok(())
}

/// All texts and numbers in a value.
fn scalars(value: &Value, found: &mut Vec<String>) {
    match value {
        Value::Object(map) => map.values().for_each(|inner| scalars(inner, found)),
        Value::Array(list) => list.iter().for_each(|inner| scalars(inner, found)),
        Value::Null => {}
        scalar => found.extend(crate::event::scalar_text(scalar)),
    }
}

proptest! {
    #[test]
    fn no_text_panics_in_any_format(body in "(CEF:0|<13>1 |<13>|[\\[\\]{}|=\\\\\" :\n-]|Nov  4 10:11:12 |[a-z0-9é]{1,4}){0,30}") {
        for format in FORMATS {
            check_one(format, &body)?;
        }
    }

    #[test]
    fn no_object_panics_in_any_format(value in json_value()) {
        let body = value.to_string();
        for format in FORMATS {
            check_one(format, &body)?;
        }
    }

    #[test]
    fn nothing_that_a_sender_wrote_is_lost(fields in proptest::collection::btree_map("(host|user|event|source|tags|details|labels|log|message|x|a\\.b|host\\.name|user\\.name)", json_value(), 0..6)) {
        let value = json!(fields);
        let event = parse_json(Format::Json, &value);

        let (mut sent, mut kept) = (Vec::new(), Vec::new());
        scalars(&value, &mut sent);
        scalars(&Value::Object(event.document), &mut kept);
        for text in sent {
            // A typed field is written in its own spelling; only texts that are no value of a type stay letter by letter.
            if text.len() > 3 && text.chars().all(|c| c.is_ascii_lowercase()) {
                prop_assert!(kept.iter().any(|known| known.contains(&text)), "{text} of {value}");
            }
        }
    }
}
