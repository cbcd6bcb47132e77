use redoubt_crds::Format::Syslog;
use serde_json::{Value, json};

use super::super::{
    UNPARSED_TAG,
    event_tests::{assert_holds, parse_text},
};

#[test]
fn a_message_of_rfc_5424_is_taken_apart() {
    let line = "<165>1 2003-10-11T22:14:15.003Z mymachine.example.com evntslog 111 ID47 \
                [exampleSDID@32473 iut=\"3\" eventSource=\"App\\\"l\\]i\\\\c\\x\"][x@1 a=\"1\" a=\"2\"][flag@1] \u{feff}An application event";

    let event = parse_text(Syslog, line);

    assert_holds(
        &event,
        &json!({
            "@timestamp": "2003-10-11T22:14:15.003Z",
            "message": "An application event",
            "host.name": "mymachine.example.com",
            "process": {"name": "evntslog", "pid": 111},
            "log.level": "notice",
            "event.severity": 5,
            "event.original": line,
            "log.syslog": {
                "priority": 165, "version": "1", "msgid": "ID47",
                "facility": {"code": 20, "name": "local4"},
                "severity": {"code": 5, "name": "notice"},
            },
            "details": {
                "program": "evntslog", "procid": "111", "msgid": "ID47",
                "structured_data": {
                    "exampleSDID@32473": {"iut": "3", "eventSource": "App\"l]i\\c\\x"},
                    "x@1": {"a": ["1", "2"]},
                    "flag@1": {},
                },
            },
            "tags": null,
        }),
    );
}

#[test]
fn each_header_is_understood() {
    let full: Value = json!({"@timestamp": "2025-11-04T10:11:12.000Z", "host.name": "web-1", "details.program": "sshd", "process.pid": 42, "message": "hello: world", "tags": null});
    let cases = [
        ("RFC 3164", "<38>Nov  4 10:11:12 web-1 sshd[42]: hello: world", full.clone()),
        ("without priority", "Nov  4 10:11:12 web-1 sshd[42]: hello: world", full.clone()),
        ("with a year", "<38>Nov  4 2025 10:11:12 web-1 sshd[42]: hello: world", full.clone()),
        ("an RFC 3339 time", "<38>2025-11-04T10:11:12Z web-1 sshd[42]: hello: world", full.clone()),
        ("an offset", "<38>2025-11-04T11:11:12.000+01:00 web-1 sshd[42]: hello: world", full.clone()),
        ("no colon behind the tag", "<38>Nov 04 10:11:12 web-1 sshd[42] hello: world", full),
        (
            "no process id",
            "<38>Nov  4 10:11:12 web-1 kernel: [1.2] x",
            json!({"details.program": "kernel", "process.pid": null, "message": "[1.2] x"}),
        ),
        ("no host", "<13>Nov  4 10:11:12 su[7]: x", json!({"host": null, "details.program": "su", "process.pid": 7, "message": "x"})),
        (
            "no tag",
            "<13>Nov  4 10:11:12 web-1 last message repeated 2 times",
            json!({"host.name": "web-1", "process": null, "message": "last message repeated 2 times"}),
        ),
        ("an address for a host", "<13>Nov  4 10:11:12 2001:db8::1 x: y", json!({"host.name": "2001:db8::1", "message": "y"})),
        (
            "no header",
            "<13>just words",
            json!({"@timestamp": "2025-11-04T12:00:00.000Z", "message": "just words", "log.syslog.priority": 13}),
        ),
        ("a tag alone", "<13>app: x", json!({"details.program": "app", "message": "x"})),
        ("nothing but words", "just words", json!({"message": "just words", "log": null, "tags": null})),
        (
            "a zone",
            "<13>Nov  4 10:11:12 PST web-1 app: x",
            json!({"@timestamp": "2025-11-04T18:11:12.000Z", "host.name": "web-1", "message": "x"}),
        ),
        (
            "Cisco",
            "<189>000123: *Nov  4 10:11:12.345: %SYS-5-CONFIG_I: Configured",
            json!({"@timestamp": "2025-11-04T10:11:12.345Z", "details.program": "%SYS-5-CONFIG_I", "message": "Configured"}),
        ),
        (
            "all nil",
            "<0>1 - - - - - -",
            json!({"message": null, "log.syslog.severity.name": "emergency", "host": null, "event.original": "<0>1 - - - - - -"}),
        ),
        ("nil with text", "<0>1 - - - - - - text", json!({"message": "text"})),
        ("a procid that is no number", "<13>1 - h a x1 - - t", json!({"process": {"name": "a"}, "details.procid": "x1", "tags": null})),
        ("a cut header", "<13>1 2025-11-04T10:11:12Z host", json!({"host.name": "host", "tags": null})),
    ];

    for (name, line, expected) in cases {
        println!("{name}");
        assert_holds(&parse_text(Syslog, line), &expected);
    }
}

#[test]
fn what_makes_no_sense_is_tagged_and_kept() {
    let cases = [
        ("<999>Nov  4 10:11:12 h a: x", json!({"message": "<999>Nov  4 10:11:12 h a: x", "log": null})),
        ("<13>1 soon h a - - - x", json!({"details.timestamp": "soon", "host.name": "h", "message": "x"})),
        ("<13>1 - h a - - [broken x", json!({"host.name": "h", "message": "[broken x"})),
        ("<13>1 - h a - - [x a=\"1\"]y", json!({"host.name": "h", "message": "[x a=\"1\"]y", "details.structured_data": null})),
    ];

    for (line, expected) in cases {
        let event = parse_text(Syslog, line);

        assert_holds(&event, &expected);
        assert_holds(&event, &json!({"tags": [UNPARSED_TAG], "event.original": line}));
    }
}
