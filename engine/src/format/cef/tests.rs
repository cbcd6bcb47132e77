use redoubt_crds::Format::Cef;
use serde_json::json;

use super::super::{
    UNPARSED_TAG,
    event_tests::{assert_holds, parse_text},
};

#[test]
fn header_and_extension_find_their_fields() {
    let line = r"CEF:0|Security\|Inc|threat\\manager|1.0|100|worm = stopped|10|src=192.0.2.1 spt=1232 dst=2001:db8::2 dpt=443 suser=bob duser=root act=blocked msg=a \= b\nnext line cs1=eth0 cs1Label=Interface request=http://x/?a=b&c=d rt=1762251072000 proto=TCP in=10 cn1=7";

    let event = parse_text(Cef, line);

    assert_holds(
        &event,
        &json!({
            "@timestamp": "2025-11-04T10:11:12.000Z",
            "observer": {"vendor": "Security|Inc", "product": "threat\\manager", "version": "1.0"},
            "event.code": "100",
            "event.severity": 10,
            "event.action": "blocked",
            "event.original": line,
            "message": "a = b\nnext line",
            "source": {"ip": "192.0.2.1", "port": 1232, "bytes": 10, "user": {"name": "bob"}},
            "destination": {"ip": "2001:db8::2", "port": 443, "user": {"name": "root"}},
            "user.name": "bob",
            "url.original": "http://x/?a=b&c=d",
            "network.transport": "TCP",
            "details.name": "worm = stopped",
            "details.cs1": "eth0",
            "details.cs1Label": "Interface",
            "details.Interface": "eth0",
            "details.cn1": "7",
            "details.deviceVendor": "Security|Inc",
            "tags": null,
        }),
    );
}

#[test]
fn variants_are_understood() {
    let cases = [
        (
            "a syslog header",
            "<134>Nov  4 10:11:12 fw-1 CEF:0|a|b|c|d|name|3|",
            json!({"@timestamp": "2025-11-04T10:11:12.000Z", "host.name": "fw-1", "message": "name", "event.severity": 3, "log.syslog.priority": 134}),
        ),
        (
            "an RFC 5424 header",
            "<134>1 2025-11-04T10:11:12Z fw-1 cef - - - CEF:0|a|b|c|d|name|3|",
            json!({"@timestamp": "2025-11-04T10:11:12.000Z", "host.name": "fw-1"}),
        ),
        (
            "the event's own words go before the header's",
            "<134>Nov  4 10:11:12 relay CEF:0|a|b|c|d|name|3|dvchost=fw-2 rt=Nov 04 2025 09:00:00.500 UTC",
            json!({"@timestamp": "2025-11-04T09:00:00.500Z", "host.name": "fw-2"}),
        ),
        ("a word for a severity", "CEF:0|a|b|c|d|name|Very-High", json!({"event.severity": 10, "tags": null})),
        ("no extension", "CEF:1|a|b|c|d|name|Unknown|", json!({"event.severity": null, "message": "name", "tags": null})),
        (
            "a host for an address",
            "CEF:0|a|b|c|d|n|1|src=web-1.example.org",
            json!({"source": {"domain": "web-1.example.org"}, "tags": null}),
        ),
        ("a value with blanks", "CEF:0|a|b|c|d|n|1|fname=my file.txt  act=x", json!({"file.name": "my file.txt", "event.action": "x"})),
        (
            "empty values",
            "CEF:0|a|b|c|d|n|1|act= outcome=failure",
            json!({"event.action": null, "event.outcome": "failure", "details.act": ""}),
        ),
        ("a key twice", "CEF:0|a|b|c|d|n|1|k=1 k=2", json!({"details.k": "1", "details._duplicate.k": "2"})),
        ("a key of the header's name", "CEF:0|a|b|c|d|n|1|name=other", json!({"details.name": "n", "details._duplicate.name": "other"})),
    ];

    for (name, line, expected) in cases {
        println!("{name}");
        assert_holds(&parse_text(Cef, line), &expected);
    }
}

#[test]
fn what_makes_no_sense_is_tagged_and_kept() {
    for (line, expected) in [
        ("CEF:0|a|b|c|d|n|bad|", json!({"details.severity": "bad", "event.severity": null})),
        ("CEF:0|a|b|c|d|n|11|", json!({"details.severity": "11", "event.severity": null})),
        ("CEF:0|a|b|c|d|n|1|dpt=https", json!({"details.dpt": "https", "destination": null})),
        ("CEF:0|a|b|c|d|n|1|rt=soon", json!({"details.rt": "soon", "@timestamp": "2025-11-04T12:00:00.000Z"})),
    ] {
        let event = parse_text(Cef, line);

        assert_holds(&event, &expected);
        assert_holds(&event, &json!({"tags": [UNPARSED_TAG]}));
    }
}
