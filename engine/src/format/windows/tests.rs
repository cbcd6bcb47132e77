use redoubt_crds::Format::Windows;
use serde_json::{Value, json};

use super::super::event_tests::{assert_holds, parse_json};

const SYSMON: &str = "Microsoft-Windows-Sysmon/Operational";

/// One process creation in the three shapes.
fn process_creation() -> [Value; 3] {
    [
        json!({"Event": {
            "#attributes": {"xmlns": "x"},
            "System": {
                "Provider": {"#attributes": {"Name": "Microsoft-Windows-Sysmon", "Guid": "G"}},
                "EventID": 1, "Level": 4, "Correlation": null,
                "TimeCreated": {"#attributes": {"SystemTime": "2025-11-04T10:11:12.5Z"}},
                "Execution": {"#attributes": {"ProcessID": 3308, "ThreadID": 4008}},
                "Channel": SYSMON, "Computer": "pc-1", "Security": {"#attributes": {"UserID": "S-1-5-18"}},
            },
            "EventData": {
                "ProcessId": 7876, "Image": "C:\\Windows\\cmdkey.exe", "CommandLine": "cmdkey /list", "User": "CORP\\ann",
                "Hashes": "SHA1=AB,MD5=CD,IMPHASH=EF", "ParentImage": "C:\\Windows\\cmd.exe", "ParentProcessId": 6304,
            },
        }}),
        json!({
            "@timestamp": "2025-11-04T10:11:12.5Z",
            "host": {"name": "pc-1", "os": {"type": "windows"}},
            "event": {"code": "1"},
            "winlog": {
                "channel": SYSMON, "event_id": "1", "provider_name": "Microsoft-Windows-Sysmon", "computer_name": "pc-1",
                "process": {"pid": 3308, "thread": {"id": 4008}}, "user": {"identifier": "S-1-5-18"}, "api": "wineventlog",
                "event_data": {
                    "ProcessId": "7876", "Image": "C:\\Windows\\cmdkey.exe", "CommandLine": "cmdkey /list", "User": "CORP\\ann",
                    "Hashes": "SHA1=AB,MD5=CD,IMPHASH=EF", "ParentImage": "C:\\Windows\\cmd.exe", "ParentProcessId": "6304",
                },
            },
        }),
        json!({
            "EventID": 1, "Channel": SYSMON, "SourceName": "Microsoft-Windows-Sysmon", "Hostname": "pc-1",
            "UtcTime": "2025-11-04 10:11:12.500", "ProcessId": "7876", "Image": "C:\\Windows\\cmdkey.exe",
            "CommandLine": "cmdkey /list", "User": "CORP\\ann", "Hashes": "SHA1=AB,MD5=CD,IMPHASH=EF",
            "ParentImage": "C:\\Windows\\cmd.exe", "ParentProcessId": "6304", "Message": "Process Create",
        }),
    ]
}

#[test]
fn the_three_shapes_come_out_alike() {
    for body in process_creation() {
        let event = parse_json(Windows, &body);

        assert_eq!(event.logsource.product.as_deref(), Some("windows"));
        assert_eq!(event.logsource.service.as_deref(), Some("sysmon"));
        assert_eq!(event.logsource.category.as_deref(), Some("process_creation"));
        assert_holds(
            &event,
            &json!({
                "@timestamp": "2025-11-04T10:11:12.500Z",
                "event.code": "1",
                "event.provider": "Microsoft-Windows-Sysmon",
                "host.name": "pc-1",
                "process.executable": "C:\\Windows\\cmdkey.exe",
                "process.name": "cmdkey.exe",
                "process.pid": 7876,
                "process.command_line": "cmdkey /list",
                "process.parent": {"executable": "C:\\Windows\\cmd.exe", "name": "cmd.exe", "pid": 6304},
                "process.hash": {"sha1": "ab", "md5": "cd"},
                "user": {"domain": "CORP", "name": "ann"},
                "details.EventID": 1,
                "details.Channel": SYSMON,
                "details.Provider_Name": "Microsoft-Windows-Sysmon",
                "details.Computer": "pc-1",
                "details.Image": "C:\\Windows\\cmdkey.exe",
                "tags": null,
            }),
        );
    }
}

#[test]
fn each_shape_keeps_what_is_its_own() {
    let [xml, winlogbeat, flat] = process_creation().map(|body| parse_json(Windows, &body));

    assert_holds(
        &xml,
        &json!({
            "details.ProcessId": 7876, "details.Level": 4, "details.Execution_ProcessID": 3308, "details.Execution_ThreadID": 4008,
            "details.Security_UserID": "S-1-5-18", "details.Provider_Guid": "G", "details.Correlation": null,
        }),
    );
    assert_holds(
        &winlogbeat,
        &json!({
            "details.ProcessId": "7876", "details.Execution_ProcessID": 3308, "details.Security_UserID": "S-1-5-18",
            "details.winlog.api": "wineventlog", "host.os.type": "windows",
        }),
    );
    assert_holds(
        &flat,
        &json!({"details.SourceName": "Microsoft-Windows-Sysmon", "details.Hostname": "pc-1", "message": "Process Create"}),
    );
}

#[test]
fn event_data_is_read_however_it_is_written() {
    let event = |data: Value| {
        parse_json(
            Windows,
            &json!({"Event": {"System": {
            "Provider": {"Name": "P"}, "EventID": {"#text": "4100", "#attributes": {"Qualifiers": 16384}},
            "TimeCreated": {"@SystemTime": "2025-11-04 10:11:12"}, "Channel": "Application", "Computer": "pc-1",
        }, "EventData": data}}),
        )
    };
    let cases = [
        (json!({"A": 1, "B": "x"}), json!({"details.A": 1, "details.B": "x"})),
        (
            json!({"Data": [{"#attributes": {"Name": "A"}, "#text": "1"}, {"@Name": "B", "#text": "x"}, {"#attributes": {"Name": "C"}}]}),
            json!({"details.A": "1", "details.B": "x", "details.C": null}),
        ),
        (json!({"Data": {"#attributes": {"Name": "A"}, "#text": 1}}), json!({"details.A": 1})),
        (json!({"Data": "one"}), json!({"details.Data": "one"})),
        (json!({"Data": ["one", "two"]}), json!({"details.Data": ["one", "two"]})),
        (json!({"Data": {"#text": ["one", "two"]}, "Binary": "00"}), json!({"details.Data": ["one", "two"], "details.Binary": "00"})),
        (json!({"#attributes": {"Name": "TaskDisabled"}, "A": 1}), json!({"details.EventData_Name": "TaskDisabled", "details.A": 1})),
        (json!("text"), json!({"details.Data": "text"})),
        (json!(null), json!({"details.Data": null})),
        (
            json!({"Channel": "other", "Level": 9}),
            json!({"details.Channel": "Application", "details._duplicate.Channel": "other", "details.Level": 9}),
        ),
    ];

    for (data, expected) in cases {
        let event = event(data);

        assert_holds(&event, &expected);
        assert_holds(
            &event,
            &json!({
                "@timestamp": "2025-11-04T10:11:12.000Z", "event.code": "4100", "event.provider": "P",
                "details.EventID": 4100, "details.EventID_Qualifiers": 16384, "tags": null,
            }),
        );
    }
}

#[test]
fn user_data_is_flattened_by_its_one_element() {
    let event = parse_json(
        Windows,
        &json!({"Event": {
            "System": {"EventID": 5858, "Channel": "Microsoft-Windows-WMI-Activity/Operational"},
            "UserData": {"Operation_ClientFailure": {"#attributes": {"xmlns": "x"}, "Id": "{0}", "Operation": "Start"}},
        }}),
    );

    assert_eq!(event.logsource.service.as_deref(), Some("wmi"));
    assert_holds(&event, &json!({"details.Operation": "Start", "details.Id": "{0}"}));
}

#[test]
fn the_security_log_has_its_own_names() {
    let event = |id: i64, data: Value| {
        parse_json(Windows, &json!({"Event": {"System": {"EventID": id, "Channel": "Security", "Computer": "dc"}, "EventData": data}}))
    };

    let created = event(
        4688,
        json!({
            "SubjectUserName": "ann", "SubjectDomainName": "CORP", "SubjectUserSid": "S-1", "NewProcessId": "0x1a4", "ProcessId": "0x10",
            "NewProcessName": "C:\\x\\a.exe", "ParentProcessName": "C:\\x\\b.exe", "CommandLine": "a", "TargetUserName": "-",
        }),
    );
    assert_eq!(created.logsource.category.as_deref(), Some("process_creation"));
    assert_eq!(created.logsource.service.as_deref(), Some("security"));
    assert_holds(
        &created,
        &json!({
            "process": {"executable": "C:\\x\\a.exe", "name": "a.exe", "pid": 420, "command_line": "a",
                        "parent": {"executable": "C:\\x\\b.exe", "name": "b.exe", "pid": 16}},
            "user": {"name": "ann", "domain": "CORP", "id": "S-1"},
            "details.Image": "C:\\x\\a.exe", "details.ParentImage": "C:\\x\\b.exe", "details.User": "CORP\\ann", "details.ProcessId": "0x10",
        }),
    );

    let logon = event(
        4624,
        json!({
            "SubjectUserName": "DC$", "TargetUserName": "ann", "TargetDomainName": "CORP", "IpAddress": "::ffff:192.0.2.1", "IpPort": "4711",
        }),
    );
    assert_holds(&logon, &json!({"user": {"name": "ann", "domain": "CORP"}, "source": {"ip": "192.0.2.1", "port": 4711}, "tags": null}));

    let local = event(4624, json!({"TargetUserName": "ann", "IpAddress": "-", "IpPort": "-"}));
    assert_holds(&local, &json!({"source": null, "tags": null}));
}

#[test]
fn each_kind_of_sysmon_event_has_its_fields() {
    let cases = [
        (
            3,
            json!({"SourceIp": "192.0.2.1", "SourcePort": 1, "DestinationIp": "198.51.100.1", "DestinationPort": "443", "Protocol": "tcp"}),
            json!({"source": {"ip": "192.0.2.1", "port": 1}, "destination": {"ip": "198.51.100.1", "port": 443}, "network.transport": "tcp"}),
        ),
        (
            7,
            json!({"ImageLoaded": "C:\\a.dll", "Hashes": "SHA256=FF", "Image": "C:\\b.exe"}),
            json!({"dll": {"path": "C:\\a.dll", "name": "a.dll", "hash": {"sha256": "ff"}}, "process.name": "b.exe"}),
        ),
        (
            6,
            json!({"ImageLoaded": "C:\\a.sys", "Hashes": "MD5=FF"}),
            json!({"file": {"path": "C:\\a.sys", "name": "a.sys", "hash": {"md5": "ff"}}}),
        ),
        (11, json!({"TargetFilename": "C:\\x\\y.txt"}), json!({"file": {"path": "C:\\x\\y.txt", "name": "y.txt"}})),
        (13, json!({"TargetObject": "HKLM\\x"}), json!({"registry.path": "HKLM\\x"})),
        (22, json!({"QueryName": "example.org"}), json!({"dns.question.name": "example.org"})),
    ];

    for (id, data, expected) in cases {
        let event = parse_json(Windows, &json!({"Event": {"System": {"EventID": id, "Channel": SYSMON}, "EventData": data}}));

        assert_holds(&event, &expected);
        assert_holds(&event, &json!({"tags": null}));
    }
}
