use redoubt_crds::Format::Zeek;
use serde_json::json;

use super::super::event_tests::{assert_holds, parse_json};

#[test]
fn a_connection_keeps_its_keys_and_has_ecs_fields() {
    let line = json!({
        "_path": "conn", "ts": 1_762_251_072.5, "uid": "CHh", "id.orig_h": "192.0.2.1", "id.orig_p": 4711,
        "id.resp_h": "198.51.100.2", "id.resp_p": 443, "proto": "tcp", "service": "ssl", "orig_bytes": 10, "resp_bytes": 20,
    });

    let event = parse_json(Zeek, &line);

    assert_eq!(event.document["details"], line);
    assert!(!event.natural_id);
    assert_eq!((event.logsource.product.as_deref(), event.logsource.service.as_deref()), (Some("zeek"), Some("conn")));
    assert_holds(
        &event,
        &json!({
            "@timestamp": "2025-11-04T10:11:12.500Z",
            "source": {"ip": "192.0.2.1", "port": 4711, "bytes": 10},
            "destination": {"ip": "198.51.100.2", "port": 443, "bytes": 20},
            "network": {"transport": "tcp", "protocol": "ssl", "type": "ipv4"},
            "details.id.orig_h": "192.0.2.1",
            "tags": null,
        }),
    );
}

#[test]
fn each_log_has_its_own_service_and_fields() {
    let cases = [
        (json!({"_path": "dns", "query": "example.org"}), Some("dns"), json!({"dns.question.name": "example.org"})),
        (
            json!({"_path": "http", "host": "x", "uri": "/a", "status_code": 200}),
            Some("http"),
            json!({"url": {"domain": "x", "original": "/a"}, "http.response.status_code": 200}),
        ),
        (json!({"_path": "ssl", "server_name": "x"}), Some("ssl"), json!({"tls.client.server_name": "x"})),
        (json!({"_path": "notice", "msg": "m", "src": "192.0.2.1"}), Some("notice"), json!({"message": "m", "source.ip": "192.0.2.1"})),
        (json!({"_path": "mine", "query": "x"}), Some("mine"), json!({"dns": null, "details.query": "x"})),
        (json!({"ts": "2025-11-04T10:11:12.000000Z"}), None, json!({"@timestamp": "2025-11-04T10:11:12.000Z"})),
        (json!({"_path": "dns", "id.orig_h": "-"}), Some("dns"), json!({"source": null, "tags": null})),
        (json!({"_path": "dns", "id.orig_h": "here"}), Some("dns"), json!({"source": null, "tags": ["_unparsed_value"]})),
    ];

    for (line, service, expected) in cases {
        let event = parse_json(Zeek, &line);

        assert_eq!(event.logsource.service.as_deref(), service, "{line}");
        assert_holds(&event, &expected);
    }
}
