use redoubt_crds::Format::Mozdef;
use serde_json::{Value, json};

use super::super::{
    UNPARSED_TAG,
    event_tests::{assert_holds, parse_json, parse_text},
};

#[test]
fn a_complete_event_finds_its_ecs_fields() {
    let event = parse_json(
        Mozdef,
        &json!({
            "utctimestamp": "2013-12-02T15:29:54+00:00",
            "receivedtimestamp": "2013-12-02T15:29:55+00:00",
            "hostname": "web-1",
            "processname": "sshd",
            "processid": "1337",
            "severity": "NOTICE",
            "summary": "joe login failed",
            "category": "authentication",
            "source": "ssh-agent",
            "tags": ["ssh", "auth"],
            "details": {
                "username": "joe", "sourceipaddress": "192.0.2.1", "sourceport": "4711",
                "destinationipaddress": "198.51.100.1", "destinationport": 22, "useragent": "curl", "success": false,
            },
        }),
    );

    assert_holds(
        &event,
        &json!({
            "@timestamp": "2013-12-02T15:29:54.000Z",
            "host.name": "web-1",
            "process": {"name": "sshd", "pid": 1337},
            "event.severity": 5,
            "log.level": "notice",
            "message": "joe login failed",
            "event.category": "authentication",
            "event.provider": "ssh-agent",
            "tags": ["ssh", "auth"],
            "user.name": "joe",
            "source": {"ip": "192.0.2.1", "port": 4711},
            "destination": {"ip": "198.51.100.1", "port": 22},
            "user_agent.original": "curl",
            "details.username": "joe",
            "details.success": false,
            "details.program": "sshd",
            "details.receivedtimestamp": "2013-12-02T15:29:55+00:00",
        }),
    );
}

#[test]
fn every_alias_leads_to_its_field() {
    let time = json!("2013-12-02T15:29:54Z");
    let cases: Vec<(&str, Value, Value)> = vec![
        ("sourceip", json!("192.0.2.1"), json!({"details.eventsourceipaddress": "192.0.2.1", "host.ip": "192.0.2.1"})),
        ("facility", json!("auth"), json!({"event.provider": "auth", "details.facility": "auth", "log.syslog.facility.name": "auth"})),
        ("syslogfacility", json!("auth"), json!({"details.facility": "auth", "log.syslog.facility.name": "auth"})),
        ("source", json!("x"), json!({"event.provider": "x"})),
        ("message", json!("x"), json!({"message": "x"})),
        ("summary", json!("x"), json!({"message": "x"})),
        ("payload", json!("x"), json!({"message": "x"})),
        ("eventtime", time.clone(), json!({"@timestamp": "2013-12-02T15:29:54.000Z"})),
        ("timestamp", time.clone(), json!({"@timestamp": "2013-12-02T15:29:54.000Z"})),
        ("utctimestamp", time.clone(), json!({"@timestamp": "2013-12-02T15:29:54.000Z"})),
        ("date", time, json!({"@timestamp": "2013-12-02T15:29:54.000Z"})),
        ("hostname", json!("h"), json!({"host.name": "h"})),
        ("source_host", json!("h"), json!({"host.name": "h"})),
        ("host", json!("h"), json!({"host.name": "h"})),
        ("tags", json!("t"), json!({"tags": ["t"]})),
        ("syslogseverity", json!("err"), json!({"log.level": "err", "event.severity": 3})),
        ("severity", json!("WARN"), json!({"log.level": "warn", "event.severity": 4})),
        ("severityvalue", json!(3), json!({"log.level": "error", "event.severity": 3})),
        ("level", json!("SEVERE"), json!({"log.level": "severe", "event.severity": null})),
        ("priority", json!("INFO"), json!({"log.level": "info", "event.severity": 6})),
        ("pid", json!(7), json!({"process.pid": 7})),
        ("processid", json!("7"), json!({"process.pid": 7})),
        ("pname", json!("p"), json!({"process.name": "p", "details.program": "p"})),
        ("processname", json!("p"), json!({"process.name": "p"})),
        ("sourcename", json!("p"), json!({"process.name": "p"})),
        ("program", json!("p"), json!({"process.name": "p", "details.program": "p"})),
        ("path", json!("/x"), json!({"log.file.path": "/x"})),
        ("file", json!("/x"), json!({"log.file.path": "/x"})),
        ("logger", json!("l"), json!({"log.logger": "l"})),
        ("type", json!("c"), json!({"event.category": "c"})),
        ("eventtype", json!("c"), json!({"event.category": "c"})),
        ("category", json!("c"), json!({"event.category": "c"})),
        ("fields", json!({"Inner": 1}), json!({"details.Inner": 1})),
        ("details", json!({"Inner": 1}), json!({"details.Inner": 1})),
        ("details", json!("text"), json!({"details.message": "text"})),
    ];

    for (key, value, expected) in cases {
        let dressed = format!("@{}", key.to_uppercase());
        for key in [key, &dressed] {
            assert_holds(&parse_json(Mozdef, &json!({ key: value })), &expected);
        }
    }
}

#[test]
fn of_two_keys_for_a_field_the_specific_one_counts_and_the_other_is_kept() {
    let event = parse_json(
        Mozdef,
        &json!({"message": "m", "summary": "s", "host": "short", "hostname": "long", "type": "event", "category": "auth"}),
    );

    assert_holds(
        &event,
        &json!({
            "message": "s", "details.message": "m", "host.name": "long", "details.host": "short",
            "event.category": "auth", "details.type": "event",
        }),
    );
}

#[test]
fn suffixes_ask_for_numbers() {
    let event =
        parse_json(Mozdef, &json!({"details.a_int": "7", "fields.b_float": "1.5", "details": {"c_int": 3, "d": "4"}, "details.x.y": 1}));

    assert_holds(&event, &json!({"details": {"a_int": 7, "b_float": 1.5, "c_int": 3, "d": "4", "x.y": 1}, "tags": null}));
}

/// What MozDef's own code did with these was to lose the event, or to read it wrongly.
#[test]
fn no_value_loses_the_event() {
    let now = "2025-11-04T12:00:00.000Z";
    let cases = [
        ("null tags", json!({"tags": null}), json!({"tags": null})),
        ("a null timestamp", json!({"timestamp": null}), json!({"@timestamp": now, "tags": null})),
        ("a number that is none", json!({"details.c_int": "seven"}), json!({"details.c_int": "seven", "tags": [UNPARSED_TAG]})),
        (
            "a time that is none",
            json!({"utctimestamp": "soon"}),
            json!({"@timestamp": now, "details.utctimestamp": "soon", "tags": [UNPARSED_TAG]}),
        ),
        ("an epoch as text", json!({"timestamp": "1468443523"}), json!({"@timestamp": "2016-07-13T20:58:43.000Z", "tags": null})),
        ("nine digits", json!({"timestamp": 999_999_999}), json!({"@timestamp": "2001-09-09T01:46:39.000Z"})),
        ("a date as a number", json!({"timestamp": 20_160_713}), json!({"@timestamp": "2016-07-13T00:00:00.000Z"})),
        ("zero", json!({"timestamp": 0}), json!({"@timestamp": now, "details.timestamp": 0, "tags": [UNPARSED_TAG]})),
        ("a negative number", json!({"timestamp": -1}), json!({"@timestamp": now, "details.timestamp": -1, "tags": [UNPARSED_TAG]})),
        ("a list for a time", json!({"timestamp": [1]}), json!({"@timestamp": now, "details.timestamp": [1], "tags": [UNPARSED_TAG]})),
        ("a zone by its name", json!({"timestamp": "4 Nov 2025 10:11:12 PST"}), json!({"@timestamp": "2025-11-04T18:11:12.000Z"})),
        ("no year", json!({"timestamp": "Dec 31 10:00:00"}), json!({"@timestamp": "2024-12-31T10:00:00.000Z"})),
        ("keys inside \"tags\"", json!({"a": 1, "g": 2, "tag": 3}), json!({"details": {"a": 1, "g": 2, "tag": 3}, "tags": null})),
        ("keys inside \"payload\"", json!({"load": 1}), json!({"details.load": 1, "message": null})),
        ("a key of its own", json!({"mykey": {"x": 1}}), json!({"details.mykey": {"x": 1}})),
        ("customfields", json!({"details.customfields.x": 1}), json!({"details": {"customfields.x": 1}})),
        ("an object for a message", json!({"summary": {"a": 1}}), json!({"message": "{\"a\":1}", "details.summary": {"a": 1}})),
        ("a field named index", json!({"index": "main", "summary": "s"}), json!({"details.index": "main", "message": "s"})),
        (
            "a custom endpoint",
            json!({"customendpoint": true, "endpoint": "x", "summary": "s"}),
            json!({"message": "s", "details.endpoint": "x"}),
        ),
        ("an unknown process id", json!({"processid": "UNKNOWN"}), json!({"process": null, "details.processid": "UNKNOWN", "tags": null})),
        (
            "an odd address",
            json!({"details": {"sourceipaddress": "here"}}),
            json!({"source": null, "details.sourceipaddress": "here", "tags": [UNPARSED_TAG]}),
        ),
        ("an IPv6 address", json!({"details": {"sourceipaddress": "2001:db8::1"}}), json!({"source.ip": "2001:db8::1"})),
        (
            "an object for a host",
            json!({"hostname": {"a": 1}}),
            json!({"host": null, "details.hostname": {"a": 1}, "tags": [UNPARSED_TAG]}),
        ),
    ];

    for (name, body, expected) in cases {
        println!("{name}");
        assert_holds(&parse_json(Mozdef, &body), &expected);
    }
}

#[test]
fn an_empty_event_is_an_event() {
    assert_eq!(parse_text(Mozdef, "{}").id, "raw-1");
}
