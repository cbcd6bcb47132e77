use proptest::prelude::*;
use redoubt_crds::Format;

use super::super::frame;

/// Frames as they are; errors as `line:column`.
fn shown(format: Format, body: &str) -> Vec<String> {
    frame(format, body)
        .into_iter()
        .map(|found| match found {
            Ok(text) => text.to_owned(),
            Err(error) => format!("{}:{}", error.line, error.column),
        })
        .collect()
}

#[test]
fn json_bodies_are_cut_into_objects() {
    let cases: [(&str, &str, &[&str]); 13] = [
        ("nothing", "", &[]),
        ("blanks", " \r\n\t\n", &[]),
        ("one object", r#"{"a":1}"#, &[r#"{"a":1}"#]),
        ("a byte order mark", "\u{feff}{\"a\":1}", &[r#"{"a":1}"#]),
        ("lines", "{\"a\":1}\n{\"a\":2}\n", &[r#"{"a":1}"#, r#"{"a":2}"#]),
        ("lines with blank ones and \\r", "\r\n{\"a\":1}\r\n\r\n{\"a\":2}\r\n", &[r#"{"a":1}"#, r#"{"a":2}"#]),
        ("objects without anything between", r#"{"a":1}{"a":2} {"a":3}"#, &[r#"{"a":1}"#, r#"{"a":2}"#, r#"{"a":3}"#]),
        ("a pretty-printed object", "{\n  \"a\": {\n\"b\": 1\n}\n}\n", &["{\n  \"a\": {\n\"b\": 1\n}\n}"]),
        ("an array", r#" [ {"a":1} , {"a":[{}]} ] "#, &[r#"{"a":1}"#, r#"{"a":[{}]}"#]),
        ("an empty array", "[ ]", &[]),
        ("an array with an element a line", "[\n{\"a\":1},\n{\"a\":2}\n]", &[r#"{"a":1}"#, r#"{"a":2}"#]),
        ("arrays one a line", "[{\"a\":1}]\n[{\"a\":2}]", &[r#"{"a":1}"#, r#"{"a":2}"#]),
        ("brackets in text", r#"{"a":"}{]["}{"b":"\"}"}"#, &[r#"{"a":"}{]["}"#, r#"{"b":"\"}"}"#]),
    ];

    for (name, body, expected) in cases {
        assert_eq!(shown(Format::Json, body), expected, "{name}");
    }
}

#[test]
fn a_broken_piece_is_an_error_in_its_place_and_the_others_stand() {
    let cases: [(&str, &str, &[&str]); 16] = [
        ("a line that is no JSON", "{\"a\":1}\nnonsense\n{\"a\":2}", &[r#"{"a":1}"#, "2:1", r#"{"a":2}"#]),
        ("two of them", "x\ny\n{\"a\":2}", &["1:1", "2:1", r#"{"a":2}"#]),
        ("a scalar is no event", "7\n\"text\"\nnull\n{\"a\":1}", &["1:1", "2:1", "3:1", r#"{"a":1}"#]),
        ("a wrong value", "{\"a\":1}\n{\"a\": oops}\n{\"a\":2}", &[r#"{"a":1}"#, "2:7", r#"{"a":2}"#]),
        ("a text cut short", "{\"a\":\"b\n{\"a\":2}", &["1:7", r#"{"a":2}"#]),
        ("an object cut short", "{\"a\":1\n{\"a\":2}\n", &["1:7", r#"{"a":2}"#]),
        ("cut short behind a comma", "{\"a\":1,\n{\"a\":2}\n", &["1:8", r#"{"a":2}"#]),
        ("cut short where a value is due", "{\"a\":\n{\"b\":2}\n{\"c\":3}", &["2:8", r#"{"b":2}"#, r#"{"c":3}"#]),
        ("the end of the body", "{\"a\":1}\n{\"a\":", &[r#"{"a":1}"#, "2:5"]),
        ("something behind an object", "{\"a\":1} x\n{\"a\":2}", &[r#"{"a":1}"#, "1:9", r#"{"a":2}"#]),
        ("columns count characters", "{\"é\":1, oops}", &["1:9"]),
        ("the inside of a broken object is no event", "{\n \"a\": oops,\n {\"b\": 1},\n}\n{\"a\":2}", &["2:7", r#"{"a":2}"#]),
        ("elements that are no objects", r#"[1,{"a":1},"x",[{"b":1}]]"#, &["1:2", r#"{"a":1}"#, "1:12", "1:16"]),
        ("a broken array", "[{\"a\":1},{\"a\" 2},{\"a\":3}]\n{\"a\":4}", &[r#"{"a":1}"#, "1:15", r#"{"a":4}"#]),
        ("a broken array over lines", "[\n{\"a\":1},\n{\"a\" 2},\n{\"a\":3}\n]", &[r#"{"a":1}"#, "3:6"]),
        ("an array without its end", "[{\"a\":1},", &[r#"{"a":1}"#, "1:10"]),
    ];

    for (name, body, expected) in cases {
        assert_eq!(shown(Format::Json, body), expected, "{name}");
    }
}

#[test]
fn cloudtrail_files_are_unwrapped_wherever_they_stand() {
    let cases: [(&str, &str, &[&str]); 9] = [
        ("a delivered file", r#"{"Records":[{"a":1},{"a":2}]}"#, &[r#"{"a":1}"#, r#"{"a":2}"#]),
        ("with fields around", r#"{ "x": [1], "Records" : [ {"a":1} ] , "y": {} }"#, &[r#"{"a":1}"#]),
        ("without records", r#"{"Records":[]}"#, &[]),
        ("files one a line", "{\"Records\":[{\"a\":1}]}\n{\"Records\":[{\"a\":2}]}\n", &[r#"{"a":1}"#, r#"{"a":2}"#]),
        ("an array of files", r#"[{"Records":[{"a":1}]},{"Records":[{"a":2}]}]"#, &[r#"{"a":1}"#, r#"{"a":2}"#]),
        ("single records", "{\"a\":{\"Records\":[{}]}}\n{}", &[r#"{"a":{"Records":[{}]}}"#, "{}"]),
        ("Records that are no array", r#"{"Records":"none"}"#, &[r#"{"Records":"none"}"#]),
        ("a record that is no object", r#"{"Records":[7,{"a":1}]}"#, &["1:13", r#"{"a":1}"#]),
        ("a file cut short", "{\"Records\":[{\"a\":1},{\"a\"\n", &[r#"{"a":1}"#, "1:25"]),
    ];

    for (name, body, expected) in cases {
        assert_eq!(shown(Format::Cloudtrail, body), expected, "{name}");
    }
}

#[test]
fn text_formats_take_one_event_a_line() {
    assert_eq!(shown(Format::Syslog, "<13>a\r\n\n \n<13>b\0\n<13> c"), ["<13>a", "<13>b", "<13> c"]);
}

#[test]
fn a_hostile_body_costs_a_few_passes_not_one_a_line() {
    let body = "{\"a\":\n".repeat(200_000);

    let found = frame(Format::Json, &body);

    assert!(found.iter().all(Result::is_err));
    assert!(found.len() <= super::EARLY_RESUMES + 1, "{}", found.len());
}

#[test]
fn depth_does_not_exhaust_the_stack() {
    let deep = format!("{{\"a\":{}{}}}", "[".repeat(1_000_000), "]".repeat(1_000_000));

    assert_eq!(frame(Format::Json, &deep).len(), 1);
    assert_eq!(frame(Format::Cloudtrail, &deep).len(), 1);
}

proptest! {
    #[test]
    fn whole_objects_come_out_as_they_went_in(values in proptest::collection::vec("[a-z{}\\[\\],:é\n\\\\\"]{0,12}", 0..8), gap in prop_oneof!["\n", "\r\n", " ", ""]) {
        let objects: Vec<String> = values.iter().map(|value| serde_json::json!({ value.as_str(): value }).to_string()).collect();

        prop_assert_eq!(shown(Format::Json, &objects.join(&gap)), objects.clone());
        prop_assert_eq!(shown(Format::Json, &format!("[{}]", objects.join(","))), objects.clone());
        prop_assert_eq!(shown(Format::Cloudtrail, &format!("{{\"Records\":[{}]}}", objects.join(", "))), objects);
    }

    #[test]
    fn no_body_panics_and_no_frame_is_empty(body in "([{}\\[\\],:\n 1a\"é]|\"a\"|\"Records\":|\\{\"a\":1\\}\n){0,40}") {
        for format in [Format::Json, Format::Cloudtrail, Format::Syslog] {
            for found in frame(format, &body) {
                match found {
                    Ok(text) => prop_assert!(!text.trim().is_empty()),
                    Err(error) => prop_assert!(error.line >= 1 && error.column >= 1),
                }
            }
        }
        let _ = super::super::frame_bulk(&body, usize::MAX);
    }
}

#[test]
fn no_more_pieces_are_cut_than_asked_for_whatever_the_body_is_made_of() {
    for (format, piece) in [
        (Format::Json, "{}\n"),
        (Format::Json, "1\n"),
        (Format::Json, "{]\n"),
        (Format::Cloudtrail, "{\"Records\":[{},{},{}]}\n"),
        (Format::Syslog, "a line\n"),
    ] {
        let body = piece.repeat(1_000);

        assert_eq!(super::super::frame_at_most(format, &body, 7).len(), 7, "{piece}");
    }
    let array = format!("[{}{{}}]", "1,".repeat(1_000));
    assert_eq!(super::super::frame_at_most(Format::Json, &array, 7).len(), 7);
    assert_eq!(super::super::frame_bulk(&"{\"index\":{}}\n{}\n".repeat(1_000), 7).len(), 7);
}
