//! The command line, command by command.

use std::{
    io::Write as _,
    path::Path,
    process::{Command, Output, Stdio},
};

use serde_json::Value;

use crate::harness::repository;

fn redoubt(arguments: &[&str]) -> Output {
    redoubt_with(arguments, "")
}

fn redoubt_with(arguments: &[&str], input: &str) -> Output {
    let mut child = Command::new(env!("CARGO_BIN_EXE_redoubt"))
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    child.wait_with_output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn path(relative: &str) -> String {
    repository(relative).to_str().unwrap().to_owned()
}

fn write(folder: &Path, name: &str, text: &str) -> String {
    let path = folder.join(name);
    std::fs::write(&path, text).unwrap();
    path.to_str().unwrap().to_owned()
}

#[test]
fn a_role_takes_files_or_a_namespace() {
    for (arguments, expected) in [
        (&[][..], "<--file <PATH>...|--namespace <NAMESPACE>>"),
        (&["-f", "siem.yaml", "--namespace", "security"], "cannot be used with"),
        (&["--namespace", "No Such Name"], "use lower-case letters"),
    ] {
        for role in ["ingest", "process", "correlate", "respond"] {
            let refused = redoubt(&[&[role], arguments].concat());

            assert_eq!(refused.status.code(), Some(2), "{role} {arguments:?}");
            assert!(text(&refused.stderr).contains(expected), "{role} {arguments:?}: {}", text(&refused.stderr));
        }
    }
}

#[test]
fn check_accepts_the_quick_start() {
    let checked = redoubt(&["check", "-f", &path("config/samples/quickstart")]);

    assert!(checked.status.success(), "{}", text(&checked.stderr));
    assert!(text(&checked.stdout).starts_with("15 resources accepted"), "{}", text(&checked.stdout));
}

#[test]
fn check_accepts_the_samples_of_each_kind_but_for_the_databases_that_are_not_there() {
    let checked = redoubt(&["check", "-f", &path("config/samples/kinds")]);

    let said = text(&checked.stderr);
    let problems: Vec<&str> = said.lines().filter(|line| line.contains("error: ")).collect();
    assert_eq!(problems.len(), 2, "{said}");
    assert!(problems.iter().all(|line| line.contains("Enrichment/geoip: spec.geoip.") && line.contains("there is no file")), "{said}");
}

#[test]
fn check_names_every_problem_with_file_line_column_field_and_remedy() {
    let folder = tempfile::tempdir().unwrap();
    let file = write(
        folder.path(),
        "bad.yaml",
        "apiVersion: redoubt.dev/v1alpha1\nkind: AlertRule\nmetadata: {name: both}\nspec:\n  severity: loud\n  sigma: {}\n---\n\
         apiVersion: redoubt.dev/v1alpha1\nkind: LogSource\nmetadata: {name: none}\nspec:\n  timezone: Mars/Olympus\n",
    );

    let checked = redoubt(&["check", "-f", &file]);

    assert_eq!(checked.status.code(), Some(1));
    let said = text(&checked.stderr);
    assert!(said.contains("bad.yaml:5:13: error: AlertRule/both: "), "{said}");
    assert!(said.contains("bad.yaml:11:1: error: LogSource/none: spec: exactly one input is needed"), "{said}");
}

#[test]
fn test_runs_the_samples_tests_and_writes_junit() {
    let folder = tempfile::tempdir().unwrap();
    let report = folder.path().join("report.xml");

    let tested = redoubt(&["test", "-f", &path("config/samples/quickstart"), "--junit", report.to_str().unwrap()]);

    assert!(tested.status.success(), "{}{}", text(&tested.stdout), text(&tested.stderr));
    assert!(text(&tested.stdout).contains("0 failed"));
    let xml = std::fs::read_to_string(report).unwrap();
    assert!(xml.contains("AlertRule/cloudtrail-switched-off") && xml.contains("an attempt that was denied"), "{xml}");
}

#[test]
fn test_fails_and_says_what_came_instead() {
    let folder = tempfile::tempdir().unwrap();
    let file = write(
        folder.path(),
        "rule.yaml",
        "apiVersion: redoubt.dev/v1alpha1\nkind: AlertRule\nmetadata: {name: colour}\nspec:\n  sigma:\n    title: Red\n    \
         logsource: {product: paint}\n    detection: {red: {colour: red}, condition: red}\n  tests:\n    - name: green is red\n      \
         events: [{colour: green}]\n      expect: {fires: true}\n",
    );

    let tested = redoubt(&["test", "-f", &file]);

    assert_eq!(tested.status.code(), Some(1));
    let said = text(&tested.stdout);
    assert!(said.contains("green is red") && said.contains("expected an alert, got no alert"), "{said}");
    assert!(said.contains("0 passed, 1 failed"), "{said}");
}

#[test]
fn replay_prints_alerts_as_lines_of_json() {
    let events = path("config/samples/attack/ssh.log");

    let replayed = redoubt(&["replay", "-f", &path("config/samples/quickstart"), "--events", &events, "--source", "linux"]);

    assert!(replayed.status.success(), "{}", text(&replayed.stderr));
    let alerts: Vec<Value> = text(&replayed.stdout).lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let names: Vec<&str> = alerts.iter().map(|alert| alert["rule"]["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["ssh-password-guessing", "ssh-login-from-bad-address"]);
    for key in ["severity", "@timestamp", "events"] {
        assert!(alerts.iter().all(|alert| !alert[key].is_null()), "{key}: {alerts:?}");
    }
}

#[test]
fn replay_reads_standard_input_and_names_what_is_no_event() {
    let input = "{\"a\": 1}\nnot json\n{\"a\": 2}\n";

    let replayed = redoubt_with(&["replay", "-f", &path("config/samples/quickstart"), "--events", "-", "--source", "app"], input);

    let said = text(&replayed.stderr);
    assert!(said.contains("-:2:"), "{said}");
    assert!(said.contains("2 events, 0 alerts, 0 dropped, 1 dead letters"), "{said}");
}

#[test]
fn explain_shows_what_held_and_what_did_not() {
    let event = r#"{"eventSource": "cloudtrail.amazonaws.com", "eventName": "DescribeTrails", "eventVersion": "1.08"}"#;
    let arguments = ["explain", "-f", &path("config/samples/quickstart"), "--rule", "cloudtrail-switched-off", "--source", "cloudtrail"];

    let explained = redoubt_with(&[&arguments[..], &["--event", "-"]].concat(), event);

    assert!(explained.status.success(), "{}", text(&explained.stderr));
    let said = text(&explained.stdout);
    for part in ["\u{2717} eventName", "stoplogging", "DescribeTrails", "\u{2713} eventSource"] {
        assert!(said.contains(part), "{part} in:\n{said}");
    }
}

#[test]
fn import_keeps_author_and_licence_and_what_it_writes_passes_check() {
    let folder = tempfile::tempdir().unwrap();
    let rule = "title: Whoami\nid: 5f1d3a52-8a6e-4a1a-9d0e-2b8f6a7c9d10\nauthor: A. Person\nlicense: DRL-1.1\nlogsource: {product: windows, \
                category: process_creation}\ndetection: {selection: {Image|endswith: '\\whoami.exe'}, condition: selection}\nlevel: low\n";
    std::fs::create_dir(folder.path().join("win")).unwrap();
    let sigma = write(&folder.path().join("win"), "proc_creation_whoami.yml", rule);
    let output = folder.path().join("out");
    let output = output.to_str().unwrap();

    let imported = redoubt(&["import", "sigma", &sigma, "-o", output]);

    assert!(imported.status.success(), "{}", text(&imported.stderr));
    let written = std::fs::read_to_string(Path::new(output).join("proc-creation-whoami.yaml")).unwrap();
    assert!(written.contains("A. Person") && written.contains("DRL-1.1"), "{written}");
    assert!(redoubt(&["check", "-f", output]).status.success());
}

#[test]
fn every_command_explains_itself_and_completions_and_manual_pages_are_made() {
    let folder = tempfile::tempdir().unwrap();
    for command in ["run", "check", "test", "replay", "explain", "import", "search", "send", "completions", "man"] {
        let helped = redoubt(&[command, "--help"]);

        assert!(helped.status.success());
        assert!(text(&helped.stdout).len() > 150, "{command}: {}", text(&helped.stdout));
    }
    assert!(text(&redoubt(&["completions", "bash"]).stdout).contains("redoubt"));
    let pages = folder.path().to_str().unwrap();
    assert!(redoubt(&["man", "-o", pages]).status.success());
    assert!(folder.path().join("redoubt-run.1").is_file());
}

#[test]
fn wrong_usage_ends_with_status_two() {
    assert_eq!(redoubt(&["check"]).status.code(), Some(2));
    assert_eq!(redoubt(&["search", "x", "--last", "soon"]).status.code(), Some(2));
}
