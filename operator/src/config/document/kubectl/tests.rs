use serde_json::json;

use super::*;

#[test]
fn objects_are_printed_as_kubectl_prints_them() {
    for (object, expected) in [
        (
            json!({"b": 1, "a": {"c": [1, "x", {"d": true, "e": null}], "f": {}, "g": []}}),
            "a:\n  c:\n  - 1\n  - x\n  - d: true\n    e: null\n  f: {}\n  g: []\nb: 1\n",
        ),
        (json!({"a": [["x"], [["z"]]]}), "a:\n- - x\n- - - z\n"),
        (json!({"a10": 1, "a9": 2, "a": 3, "a|re": 4, "ab": 5, "B": 6}), "B: 6\na: 3\na|re: 4\na9: 2\na10: 1\nab: 5\n"),
        (
            json!({"t": "one\ntwo\n", "u": "one\n  two", "v": "\n", "w": " x\n\n"}),
            "t: |\n  one\n  two\nu: |-\n  one\n    two\nv: |2+\n\nw: |2+\n   x\n\n",
        ),
        (
            json!({"a": "yes", "b": "12", "c": "a: b", "d": "- x", "e": "", "f": "it's", "g": "'q'", "h": "# x", "i": "a\tb"}),
            "a: \"yes\"\nb: \"12\"\nc: 'a: b'\nd: '- x'\ne: \"\"\nf: it's\ng: '''q'''\nh: '# x'\ni: \"a\\tb\"\n",
        ),
        (
            json!({"2024-01-02": "2024-01-02", "x": "1:30", "y": "0x1f", "z": "1.2.3.4"}),
            "\"2024-01-02\": \"2024-01-02\"\nx: \"1:30\"\n\"y\": \"0x1f\"\nz: 1.2.3.4\n",
        ),
    ] {
        assert_eq!(print(&object), expected, "{object}");
    }
}

#[test]
fn a_long_text_is_wrapped_behind_column_eighty() {
    let text = "word ".repeat(30);

    let printed = print(&json!({"a": {"b": text.trim_end()}}));

    let lines: Vec<&str> = printed.lines().collect();
    assert_eq!(lines.len(), 3, "{printed}");
    assert_eq!(lines[1], format!("  b: {}word", "word ".repeat(15)));
    assert_eq!(lines[2], format!("    {}", "word ".repeat(14).trim_end()));
}

#[test]
fn the_lines_before_the_spec_are_counted() {
    let metadata = json!({"name": "r", "labels": {"a": "b"}, "annotations": {"x": "one\ntwo\n"}});

    // apiVersion, kind, metadata, annotations, x, one, two, labels, a, name
    assert_eq!(lines_before_spec(&metadata), 10);
}
