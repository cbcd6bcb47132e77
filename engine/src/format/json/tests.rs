use redoubt_crds::Format;
use serde_json::json;

use super::super::{
    UNPARSED_TAG,
    event_tests::{assert_holds, parse_json, parse_text},
};

#[test]
fn ecs_fields_are_taken_as_they_are_and_all_else_goes_to_details() {
    let event = parse_json(
        Format::Json,
        &json!({
            "@timestamp": "2025-11-04T10:11:12.5+01:00",
            "message": "hello",
            "source": {"ip": "192.0.2.1", "port": 4711},
            "labels": {"env": "prod"},
            "geo": {"name": "x"},
            "colour": "red",
            "nested": {"a": [1, null]},
            "empty": null,
            "details": {"native": true},
        }),
    );

    assert_holds(
        &event,
        &json!({
            "@timestamp": "2025-11-04T09:11:12.500Z",
            "message": "hello",
            "source": {"ip": "192.0.2.1", "port": 4711},
            "labels.env": "prod",
            "geo.name": "x",
            "details": {"colour": "red", "nested": {"a": [1, null]}, "empty": null, "native": true},
            "tags": null,
        }),
    );
}

#[test]
fn dotted_ecs_keys_become_nested_ones() {
    let event = parse_json(
        Format::Json,
        &json!({"source.ip": "192.0.2.1", "source": {"port": 1}, "source.nat.ip": "10.0.0.1", "my.key": 1, "source..x": 2}),
    );

    assert_holds(
        &event,
        &json!({
            "source": {"ip": "192.0.2.1", "port": 1, "nat": {"ip": "10.0.0.1"}},
            "details": {"my.key": 1, "source..x": 2},
        }),
    );
}

#[test]
fn a_scalar_in_a_field_sets_place_is_kept_and_where_plain_mapped() {
    let event = parse_json(Format::Json, &json!({"host": "web-1", "user": "bob", "source": "nginx", "url": ["a"], "error": null}));

    assert_holds(
        &event,
        &json!({
            "host.name": "web-1",
            "user.name": "bob",
            "source": null,
            "url": null,
            "details": {"host": "web-1", "user": "bob", "source": "nginx", "url": ["a"], "error": null},
        }),
    );

    let both = parse_json(Format::Json, &json!({"host": "short", "host.name": "web-1.example.org"}));
    assert_holds(&both, &json!({"host.name": "web-1.example.org", "details.host": "short"}));
}

#[test]
fn what_finds_its_place_taken_is_kept_beside() {
    let event = parse_json(Format::Json, &json!({"a": 1, "details": {"a": 2}, "host": {"name": "x"}, "host.name": "y"}));

    assert_holds(&event, &json!({"details.a": 1, "details._duplicate": {"a": 2}, "host.name": "x"}));
    assert_eq!(event.document["details"]["host.name"], json!("y"));
}

#[test]
fn a_value_of_the_wrong_type_is_kept_as_text_and_tagged() {
    let event = parse_json(
        Format::Json,
        &json!({
            "@timestamp": "soon",
            "source": {"ip": "somewhere", "port": "4711"},
            "process": {"pid": {"a": 1}},
            "event": {"created": 1_700_000_000},
        }),
    );

    assert_holds(
        &event,
        &json!({
            "@timestamp": "2025-11-04T12:00:00.000Z",
            "source": {"port": 4711},
            "event.created": "2023-11-14T22:13:20.000Z",
            "details": {"@timestamp": "soon", "source": {"ip": "somewhere"}, "process": {"pid": "{\"a\":1}"}},
            "tags": [UNPARSED_TAG],
        }),
    );
}

#[test]
fn a_plain_timestamp_counts_where_ecs_s_is_absent() {
    let event = parse_json(Format::Json, &json!({"timestamp": 1_700_000_000}));

    assert_holds(&event, &json!({"@timestamp": "2023-11-14T22:13:20.000Z", "details.timestamp": 1_700_000_000}));
    assert_holds(&parse_json(Format::Json, &json!({"timestamp": "soon"})), &json!({"details.timestamp": "soon", "tags": null}));
}

#[test]
fn tags_are_a_list_of_texts_whatever_was_sent() {
    for (sent, tags, kept) in [
        (json!(["a", 7, true, "a"]), json!(["a", "7", "true"]), json!(null)),
        (json!("a"), json!(["a"]), json!(null)),
        (json!(null), json!(null), json!(null)),
        (json!([]), json!(null), json!(null)),
        (json!(["a", {"b": 1}]), json!(["a"]), json!([{"b": 1}])),
    ] {
        assert_holds(&parse_json(Format::Json, &json!({ "tags": sent })), &json!({"tags": tags, "details.tags": kept}));
    }
}

#[test]
fn a_message_that_is_no_text_is_shown_as_text_and_kept() {
    assert_holds(&parse_json(Format::Json, &json!({"message": 7})), &json!({"message": "7", "details.message": 7}));
    assert_holds(&parse_json(Format::Json, &json!({"message": {"a": 1}})), &json!({"message": "{\"a\":1}", "details.message": {"a": 1}}));
    assert_holds(&parse_json(Format::Json, &json!({"message": null})), &json!({"message": null}));
}

#[test]
fn ndjson_reads_as_json_does() {
    assert_holds(&parse_text(Format::Ndjson, r#"{"host": "a"}"#), &json!({"host.name": "a"}));
}
