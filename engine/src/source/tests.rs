use redoubt_crds::{FieldType, HttpInput, SyslogInput};

use super::*;

fn http() -> LogSourceSpec {
    LogSourceSpec { http: Some(HttpInput::default()), ..LogSourceSpec::default() }
}

fn syslog(allow_from: &[&str]) -> LogSourceSpec {
    let allow_from = allow_from.iter().map(|text| (*text).to_owned()).collect();
    LogSourceSpec { syslog: Some(SyslogInput { udp_port: Some(514), allow_from, ..SyslogInput::default() }), ..LogSourceSpec::default() }
}

fn field(from: &str, to: &str) -> TypedField {
    TypedField { from: from.to_owned(), to: to.to_owned(), field_type: FieldType::Keyword }
}

fn problems(spec: &LogSourceSpec) -> Vec<String> {
    Source::compile("s", spec).expect_err("the spec is not sound").into_iter().map(|problem| problem.field).collect()
}

#[test]
fn defaults_come_from_the_name_and_the_input() {
    let web = Source::compile("web", &http()).unwrap();
    let edge = Source::compile("edge", &syslog(&[])).unwrap();

    assert_eq!((web.format, web.dataset.as_str()), (Format::Json, "web"));
    assert_eq!((edge.format, edge.dataset.as_str()), (Format::Syslog, "edge"));
    assert_eq!(web.timezone, TimeZone::UTC);
    assert_eq!(*web.logsource, SigmaLogsource::default());
}

#[test]
fn what_is_declared_counts() {
    let spec = LogSourceSpec {
        format: Some(Format::Mozdef),
        dataset: Some("corp.web".to_owned()),
        timezone: Some("Europe/Berlin".to_owned()),
        fields: vec![field("a.b", "source.ip"), field("c", "source.port"), field("t", "@timestamp")],
        ..http()
    };

    let source = Source::compile("web", &spec).unwrap();

    assert_eq!((source.format, source.dataset.as_str()), (Format::Mozdef, "corp.web"));
    assert_eq!(source.timezone.iana_name(), Some("Europe/Berlin"));
}

#[test]
fn an_empty_list_of_senders_allows_all_and_any_other_only_those_in_it() {
    let all = Source::compile("s", &syslog(&[])).unwrap();
    let some = Source::compile("s", &syslog(&["192.0.2.7", "198.51.100.9/24", "2001:db8::/32"])).unwrap();

    assert!(all.allows("203.0.113.1".parse().unwrap()));
    for (address, allowed) in [
        ("192.0.2.7", true),
        ("::ffff:192.0.2.7", true),
        ("192.0.2.8", false),
        ("198.51.100.200", true),
        ("2001:db8:1::1", true),
        ("2001:db9::1", false),
    ] {
        assert_eq!(some.allows(address.parse().unwrap()), allowed, "{address}");
    }
}

#[test]
fn each_problem_is_named_with_its_field() {
    let cases = [
        (LogSourceSpec { timezone: Some("Mars/Olympus".to_owned()), ..http() }, vec!["spec.timezone"]),
        (syslog(&["192.0.2.0/24", "192.0.2.0/33", "example.org"]), vec!["spec.syslog.allowFrom[1]", "spec.syslog.allowFrom[2]"]),
        (LogSourceSpec { fields: vec![field("a", "x.y"), field("b", "x.y")], ..http() }, vec!["spec.fields[1].to"]),
        (LogSourceSpec { fields: vec![field("a", "x.y"), field("b", "x.y.z")], ..http() }, vec!["spec.fields[1].to"]),
        (LogSourceSpec { fields: vec![field("a", "x.y.z"), field("b", "x.y")], ..http() }, vec!["spec.fields[1].to"]),
        (
            LogSourceSpec { fields: vec![field("a..b", "x."), field("a", "host")], ..http() },
            vec!["spec.fields[0].from", "spec.fields[0].to", "spec.fields[1].to"],
        ),
        (
            LogSourceSpec { fields: vec![field("a", "event.id"), field("a", "details.b")], ..http() },
            vec!["spec.fields[0].to", "spec.fields[1].to"],
        ),
        (LogSourceSpec { timezone: Some(String::new()), ..syslog(&["x"]) }, vec!["spec.timezone", "spec.syslog.allowFrom[0]"]),
    ];

    for (spec, expected) in cases {
        assert_eq!(problems(&spec), expected);
    }
}

#[test]
fn fields_beside_each_other_do_not_clash() {
    let spec = LogSourceSpec { fields: vec![field("a", "x.y"), field("b", "x.yz")], ..http() };

    assert!(Source::compile("s", &spec).is_ok());
}

#[test]
fn a_declared_logsource_goes_over_the_formats() {
    let declared = SigmaLogsource { product: Some("mine".to_owned()), service: None, category: None };

    let filled = fill_in(&declared, "aws", Some("cloudtrail"), None);

    assert_eq!(filled, SigmaLogsource { product: Some("mine".to_owned()), service: Some("cloudtrail".to_owned()), category: None });
}
