//! The query-string syntax, part by part.

use redoubt::store::{Document, Family, StoreError};
use serde_json::json;

use super::fixture::{DAY, Harness, MINUTE, TEN, event, ids, query, search, write};

/// Five events to be told apart.
fn events() -> Vec<Document> {
    vec![
        event(
            "ssh",
            TEN,
            json!({
                "message": "Failed password for root from 10.0.0.1 port 22",
                "event": {"severity": 3, "outcome": "failure", "dataset": "sshd"},
                "source": {"ip": "10.0.0.1", "port": 22},
                "user": {"name": "root"},
                "tags": ["ssh", "auth"],
            }),
        ),
        event(
            "logon",
            TEN + MINUTE,
            json!({
                "message": "An account was successfully logged on: password accepted, failed before",
                "event": {"severity": 1, "outcome": "success", "dataset": "windows"},
                "source": {"ip": "192.168.7.9"},
                "user": {"name": "bob"},
                "details": {"EventID": 4624, "LogonType": "3", "SubjectUserName": "bob"},
            }),
        ),
        event(
            "process",
            TEN + 2 * MINUTE,
            json!({
                "event": {"severity": 5, "dataset": "windows", "created": "2026-11-24T09:59:58.250Z"},
                "process": {"executable": "C:\\Windows\\System32\\cmd.exe", "command_line": "cmd.exe /c whoami", "pid": 4688},
                "user": {"name": "alice"},
                "details": {"EventID": "4688", "Image": "C:\\Windows\\System32\\cmd.exe"},
            }),
        ),
        event(
            "v6",
            TEN + DAY,
            json!({
                "message": "connection accepted",
                "event": {"severity": 4.5, "dataset": "firewall"},
                "source": {"ip": "2001:db8::17"},
                "details": {"Threat Name": "Some Worm", "ratio": 0.25, "negative": -5, "big": 9_007_199_254_740_993_i64},
            }),
        ),
        event("bare", TEN + 2 * DAY, json!({"event": {"severity": 2}, "details": {"flag": true, "q": "what? (a+b)"}})),
    ]
}

pub(super) async fn each_part_of_the_query_syntax_finds_what_it_says<H: Harness>() {
    let harness = H::fresh().await;
    let store = harness.store();
    write(&store, events()).await;
    let everything: &[&str] = &["bare", "v6", "process", "logon", "ssh"];

    let cases: &[(&str, &[&str])] = &[
        // All.
        ("", everything),
        ("  ", everything),
        ("*", everything),
        ("*:*", everything),
        // A value of a field: text, numbers and booleans.
        ("source.ip:10.0.0.1", &["ssh"]),
        ("source.ip: 10.0.0.1", &["ssh"]),
        ("user.name:bob", &["logon"]),
        ("user.name:BOB", &[]),
        ("user.name:bo", &[]),
        ("details.EventID:4624", &["logon"]),
        ("details.EventID:4688", &["process"]),
        ("details.LogonType:3", &["logon"]),
        ("details.flag:true", &["bare"]),
        ("details.ratio:0.25", &["v6"]),
        ("details.negative:-5", &["v6"]),
        ("details.big:9007199254740993", &["v6"]),
        ("event.severity:3", &["ssh"]),
        ("tags:auth", &["ssh"]),
        ("nowhere:x", &[]),
        ("source.ip:2001\\:db8\\:\\:17", &["v6"]),
        ("source.ip:\"2001:db8::17\"", &["v6"]),
        // Quotation and escapes.
        ("details.q:\"what? (a+b)\"", &["bare"]),
        ("details.q:what\\?\\ \\(a\\+b\\)", &["bare"]),
        ("details.Threat\\ Name:\"Some Worm\"", &["v6"]),
        ("process.executable:\"C:\\\\Windows\\\\System32\\\\cmd.exe\"", &["process"]),
        // Words of a message.
        ("message:password", &["logon", "ssh"]),
        ("message:PASSWORD", &["logon", "ssh"]),
        ("message:passwor", &[]),
        ("message:\"failed password\"", &["ssh"]),
        ("message:\"password failed\"", &[]),
        ("message:\"failed root\"~3", &["ssh"]),
        ("message:10.0.0.1", &["ssh"]),
        ("message:passw*", &["logon", "ssh"]),
        ("message:*SSWOR?", &["logon", "ssh"]),
        // Words and values anywhere.
        ("password", &["logon", "ssh"]),
        ("\"failed password\"", &["ssh"]),
        ("10.0.0.1", &["ssh"]),
        ("alice", &["process"]),
        ("4688", &["process"]),
        ("windows", &["process", "logon"]),
        ("firewal*", &["v6"]),
        // Wildcards.
        ("process.executable:*\\\\cmd.exe", &["process"]),
        ("process.executable:C\\:\\\\*\\\\cmd.ex?", &["process"]),
        ("user.name:*o*", &["logon", "ssh"]),
        ("user.name:?ob", &["logon"]),
        ("user.name:ob*", &[]),
        ("source.ip:10.0.*", &["ssh"]),
        ("event.dataset:win*ws", &["process", "logon"]),
        // A field by a wildcard.
        ("details.\\*:bob", &["logon"]),
        ("details.*:bob", &["logon"]),
        // Ranges.
        ("event.severity:[3 TO 5]", &["v6", "process", "ssh"]),
        ("event.severity:{3 TO 5}", &["v6"]),
        ("event.severity:{3 TO 5]", &["v6", "process"]),
        ("event.severity:[4.5 TO *]", &["v6", "process"]),
        ("event.severity:>4", &["v6", "process"]),
        ("event.severity:>=3", &["v6", "process", "ssh"]),
        ("event.severity:<2", &["logon"]),
        ("event.severity:<=2", &["bare", "logon"]),
        ("event.severity:[* TO *]", everything),
        ("user.name:[a TO c]", &["process", "logon"]),
        ("source.port:[20 TO 30]", &["ssh"]),
        ("source.ip:[10.0.0.0 TO 10.0.0.255]", &["ssh"]),
        // Networks.
        ("source.ip:10.0.0.0/8", &["ssh"]),
        ("source.ip:\"192.168.0.0/16\"", &["logon"]),
        ("source.ip:10.0.0.2/31", &[]),
        ("source.ip:0.0.0.0/0", &["logon", "ssh"]),
        ("source.ip:\"2001:db8::/32\"", &["v6"]),
        // Times.
        ("@timestamp:2026-11-24", &["process", "logon", "ssh"]),
        ("@timestamp:[2026-11-24 TO 2026-11-25]", &["v6", "process", "logon", "ssh"]),
        ("@timestamp:[2026-11-24 TO 2026-11-25}", &["process", "logon", "ssh"]),
        ("@timestamp:[2026-11-24T10:01:00Z TO *]", &["bare", "v6", "process", "logon"]),
        ("@timestamp:>\"2026-11-24T10:01:00Z\"", &["bare", "v6", "process"]),
        ("@timestamp:[2020-01-01 TO now-1h] AND @timestamp:>=now", &[]),
        ("event.created:[2026-11-24T09:00:00Z TO 2026-11-24T10:00:00Z]", &["process"]),
        ("event.created:\"2026-11-24T09:59:58.250Z\"", &["process"]),
        ("event.created:\"2026-11-24T09:59:58.251Z\"", &[]),
        // Whether there is a value.
        ("_exists_:source.ip", &["v6", "logon", "ssh"]),
        ("_exists_:details", &["bare", "v6", "process", "logon"]),
        ("_exists_:message", &["v6", "logon", "ssh"]),
        ("_exists_:nowhere", &[]),
        ("source.ip:*", &["v6", "logon", "ssh"]),
        ("NOT _exists_:user.name", &["bare", "v6"]),
        // Together.
        ("user.name:bob AND event.outcome:success", &["logon"]),
        ("user.name:bob AND NOT event.outcome:failure", &["logon"]),
        ("user.name:root AND NOT event.outcome:failure", &[]),
        ("user.name:bob OR user.name:root", &["logon", "ssh"]),
        ("user.name:bob user.name:root", &["logon", "ssh"]),
        ("user.name:bob || user.name:root", &["logon", "ssh"]),
        ("user.name:bob && event.dataset:windows", &["logon"]),
        ("NOT event.dataset:windows", &["bare", "v6", "ssh"]),
        ("-event.dataset:windows", &["bare", "v6", "ssh"]),
        ("!event.dataset:windows", &["bare", "v6", "ssh"]),
        ("+event.dataset:windows -user.name:bob", &["process"]),
        ("event.dataset:windows -user.name:bob", &["process"]),
        ("event.dataset:windows NOT user.name:bob", &["process"]),
        ("+event.dataset:windows user.name:bob", &["process", "logon"]),
        ("(user.name:bob OR user.name:alice) AND event.severity:>2", &["process"]),
        ("(user.name:alice AND event.severity:5) OR (user.name:bob AND event.severity:5)", &["process"]),
        ("NOT (user.name:bob OR user.name:alice)", &["bare", "v6", "ssh"]),
        ("user.name:(bob OR root)", &["logon", "ssh"]),
        ("user.name:(bob \"root\")", &["logon", "ssh"]),
        ("message:(password AND NOT root)", &["logon"]),
        ("user.name:bob^2 OR user.name:root", &["logon", "ssh"]),
        // Ids.
        ("_id:ssh", &["ssh"]),
        ("_id:(ssh OR v6)", &["v6", "ssh"]),
    ];
    let mut wrong = Vec::new();
    for (text, expected) in cases {
        let found = search(&store, query(text)).await;

        if &ids(&found) != expected || found.total != expected.len() as u64 {
            wrong.push(format!("{text}: {} found, {:?}, not {expected:?}", found.total, ids(&found)));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

pub(super) async fn a_query_that_makes_no_sense_is_refused<H: Harness>() {
    let harness = H::fresh().await;
    let store = harness.store();
    write(&store, events()).await;

    for text in
        ["(user.name:bob", "user.name:bob)", "user.name:\"bob", "user.name:", "a AND", "a OR", "severity:[1 TO", "severity:[1 5]", "()"]
    {
        let refused = store.search(Family::Events, query(text)).await;

        assert!(matches!(&refused, Err(StoreError::BadRequest(reason)) if !reason.is_empty()), "{text}: {refused:?}");
    }
}
