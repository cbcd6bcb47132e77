//! Sigma rule files made into AlertRules, the rule word for word.

use std::{borrow::Cow, sync::Arc};

use redoubt_crds::{AlertRule, AlertRuleSpec, Object};
use serde::Deserialize as _;
use serde_json::{Map, Value, json};
use serde_yaml::Mapping;

use super::Rule;
use crate::{diagnostic::Problem, event::digest};

/// Longest name of a resource that is also a label's value.
const MAX_NAME: usize = 63;

/// Sigma's keys in the order in which its specification and people write them; others follow by name.
const SIGMA_ORDER: [&str; 16] = [
    "title",
    "name",
    "id",
    "related",
    "status",
    "description",
    "references",
    "author",
    "date",
    "modified",
    "tags",
    "logsource",
    "detection",
    "fields",
    "falsepositives",
    "level",
];

/// Makes AlertRules of the Sigma rules of one file. `file` is the file's name: the resource's name is made from it, or from the rule's
/// title where that gives none. A file of several documents gives several rules, numbered from the second on; names may still
/// be taken by other files' rules.
///
/// # Errors
/// Every problem found: a document that is no YAML (with line and column), and what [`Rule::compile`] refuses.
pub fn import(sigma_yaml: &str, file: &str) -> Result<Vec<AlertRule>, Vec<Problem>> {
    let mut rules = Vec::new();
    let mut problems = Vec::new();
    for document in serde_yaml::Deserializer::from_str(sigma_yaml) {
        // By way of YAML's own value, which refuses a key that stands twice; JSON's would keep the last in silence.
        let value = match serde_yaml::Value::deserialize(document) {
            Ok(serde_yaml::Value::Null) => continue,
            Ok(value) => value,
            Err(error) => {
                let problem = Problem::new("", format!("not YAML: {error}"), "");
                problems.push(error.location().map_or(problem.clone(), |at| problem.within(at.line(), at.column())));
                // What follows a syntax error cannot be told apart from it.
                break;
            }
        };
        let object = match serde_json::to_value(value) {
            Ok(Value::Object(object)) => object,
            Ok(_) => {
                problems.push(Problem::new("", "not a Sigma rule", "a rule is an object with title, logsource and detection"));
                continue;
            }
            Err(error) => {
                problems.push(Problem::new("", format!("not a Sigma rule: {error}"), "write every key as a text"));
                continue;
            }
        };
        let title = object.get("title").and_then(Value::as_str).unwrap_or_default();
        let name = name(file, title, rules.len());
        let spec = Arc::new(spec(object));
        match Rule::compile(&name, &spec).map(drop) {
            Ok(()) => rules.push(AlertRule::new(&name, Arc::unwrap_or_clone(spec))),
            Err(found) => problems.extend(found),
        }
    }
    if rules.is_empty() && problems.is_empty() {
        problems.push(Problem::new("", "there is no Sigma rule in the file", ""));
    }
    if problems.is_empty() { Ok(rules) } else { Err(problems) }
}

fn spec(sigma: Map<String, Value>) -> AlertRuleSpec {
    // Absent fields by their declared defaults, which `AlertRuleSpec::default()` does not know.
    AlertRuleSpec { sigma: Some(Object(sigma)), ..serde_json::from_value(json!({})).unwrap_or_default() }
}

/// A resource name (RFC 1123 label) from a file's stem, else from a title.
fn name(file: &str, title: &str, earlier: usize) -> String {
    let base = file.rsplit(['/', '\\']).next().unwrap_or(file);
    let stem = base.rsplit_once('.').map_or(base, |(stem, _)| stem);
    let slug = [stem, title].into_iter().map(slug).find(|slug| !slug.is_empty()).unwrap_or_else(|| "rule".to_owned());
    let suffix = if earlier == 0 { String::new() } else { format!("-{}", earlier + 1) };
    if slug.len() + suffix.len() <= MAX_NAME {
        return slug + &suffix;
    }
    // Long names that begin alike stay apart by a hash of the whole.
    let hash = &digest(&["name", &slug])[..8];
    let kept = slug[..MAX_NAME - suffix.len() - hash.len() - 1].trim_end_matches('-');
    format!("{kept}-{hash}{suffix}")
}

fn slug(text: &str) -> String {
    let mut slug = String::with_capacity(text.len());
    for character in text.chars() {
        if character.is_ascii_alphanumeric() {
            slug.push(character.to_ascii_lowercase());
        } else if !slug.is_empty() && !slug.ends_with('-') {
            slug.push('-');
        }
    }
    slug.trim_end_matches('-').to_owned()
}

/// An AlertRule as a resource file: the same text each time, keys in the order in which people read them, fields that have their default
/// value left out. A header names the author and the licence of the Sigma rule.
#[must_use]
pub fn to_yaml(rule: &AlertRule) -> String {
    let mut text = String::new();
    if let Some(Object(sigma)) = &rule.spec.sigma {
        for (label, key) in [("Author", "author"), ("License", "license")] {
            if let Some(value) = sigma.get(key).and_then(Value::as_str) {
                let line = value.split_whitespace().collect::<Vec<_>>().join(" ");
                text.push_str(&format!("# {label}: {line}\n"));
            }
        }
    }
    let mut metadata = Map::new();
    metadata.insert("name".to_owned(), json!(rule.metadata.name));
    if let Some(labels) = &rule.metadata.labels {
        metadata.insert("labels".to_owned(), json!(labels));
    }
    if let Some(annotations) = &rule.metadata.annotations {
        metadata.insert("annotations".to_owned(), json!(annotations));
    }
    let mut document = Mapping::new();
    document.insert("apiVersion".into(), redoubt_crds::API_VERSION.into());
    document.insert("kind".into(), "AlertRule".into());
    document.insert("metadata".into(), ordered(&Value::Object(metadata), &["name"], &[]));
    document.insert("spec".into(), spec_yaml(&rule.spec));
    // A tree of texts, numbers, lists and maps with text keys has a YAML form.
    for line in serde_yaml::to_string(&document).unwrap_or_default().lines() {
        text.push_str(&with_quoted_infinity(line));
        text.push('\n');
    }
    text
}

/// Quotes a text such as `530065006e0073006500`: hexadecimal that reads as a number too large for any float. The writer sees a text in it,
/// readers of YAML (kubectl's among them) see infinity, which JSON has no word for.
fn with_quoted_infinity(line: &str) -> Cow<'_, str> {
    let start = line.rfind([' ', ':']).map_or(0, |at| at + 1);
    let value = &line[start..];
    let too_large = value.starts_with(|c: char| c.is_ascii_digit()) && value.parse::<f64>().is_ok_and(f64::is_infinite);
    if too_large { Cow::Owned(format!("{}'{value}'", &line[..start])) } else { Cow::Borrowed(line) }
}

fn spec_yaml(spec: &AlertRuleSpec) -> serde_yaml::Value {
    let Ok(Value::Object(mut fields)) = serde_json::to_value(spec) else { return serde_yaml::Value::Null };
    let defaults = serde_json::from_value::<AlertRuleSpec>(json!({})).ok().and_then(|defaults| serde_json::to_value(defaults).ok());
    if let Some(Value::Object(defaults)) = defaults {
        fields.retain(|key, value| defaults.get(key) != Some(value));
    }
    let sigma = fields.remove("sigma");
    let serde_yaml::Value::Mapping(mut spec) =
        ordered(&Value::Object(fields), &["title", "description", "severity", "enabled"], &["tests"])
    else {
        return serde_yaml::Value::Null;
    };
    if let Some(Value::Object(mut sigma)) = sigma {
        let detection = sigma.get_mut("detection").map(|detection| ordered(&detection.take(), &[], &["condition"]));
        let mut sigma = ordered(&Value::Object(sigma), &SIGMA_ORDER, &[]);
        if let (Some(detection), serde_yaml::Value::Mapping(sigma)) = (detection, &mut sigma) {
            sigma.insert("detection".into(), detection);
        }
        spec.insert("sigma".into(), sigma);
    }
    serde_yaml::Value::Mapping(spec)
}

/// A JSON value as YAML; of an object, the keys named first, then others, then the keys named last.
fn ordered(value: &Value, first: &[&str], last: &[&str]) -> serde_yaml::Value {
    let Value::Object(object) = value else { return serde_yaml::to_value(value).unwrap_or_default() };
    let mut mapping = Mapping::new();
    let others = object.keys().map(String::as_str).filter(|key| !first.contains(key) && !last.contains(key));
    for key in first.iter().copied().chain(others).chain(last.iter().copied()) {
        if let Some(value) = object.get(key) {
            mapping.insert(key.into(), serde_yaml::to_value(value).unwrap_or_default());
        }
    }
    serde_yaml::Value::Mapping(mapping)
}

#[cfg(test)]
mod tests {
    use super::*;

    const WHOAMI: &str = r"
title: Whoami
id: e28a5a99-da44-436d-b7a0-2afc20a5f413
status: test
author: A. Author,
    B. Author
license: DRL 1.1
date: 2018-08-13
custom: kept
logsource:
    category: process_creation
    product: windows
detection:
    selection:
        - Image|endswith: '\whoami.exe'
        - OriginalFileName: 'whoami.exe'
    filter:
        Level: 0x10
    condition: selection and not filter
level: medium
";

    #[test]
    fn a_sigma_file_becomes_a_rule_that_keeps_every_word() {
        let rules = import(WHOAMI, "rules/windows/proc_creation_win_whoami.yml").unwrap();

        let [rule] = rules.as_slice() else { panic!("{} rules", rules.len()) };
        let sigma = &rule.spec.sigma.as_ref().unwrap().0;
        assert_eq!(rule.metadata.name.as_deref(), Some("proc-creation-win-whoami"));
        assert_eq!((sigma["date"].as_str(), sigma["custom"].as_str()), (Some("2018-08-13"), Some("kept")));
        assert!(rule.spec.enabled && rule.spec.title.is_none());
    }

    #[test]
    fn the_yaml_is_readable_and_reads_back_as_the_same_rule() {
        let rule = import(WHOAMI, "whoami.yml").unwrap().remove(0);

        let text = to_yaml(&rule);

        let expected = r"# Author: A. Author, B. Author
# License: DRL 1.1
apiVersion: redoubt.dev/v1alpha1
kind: AlertRule
metadata:
  name: whoami
spec:
  sigma:
    title: Whoami
    id: e28a5a99-da44-436d-b7a0-2afc20a5f413
    status: test
    author: A. Author, B. Author
    date: 2018-08-13
    logsource:
      category: process_creation
      product: windows
    detection:
      filter:
        Level: 16
      selection:
      - Image|endswith: \whoami.exe
      - OriginalFileName: whoami.exe
      condition: selection and not filter
    level: medium
    custom: kept
    license: DRL 1.1
";
        assert_eq!(text, expected);
        assert_eq!(serde_yaml::from_str::<AlertRule>(&text).unwrap(), rule);
    }

    #[test]
    fn names_are_labels_and_stay_apart() {
        for (file, title, earlier, expected) in [
            ("a/b/net_dns.yml", "Title", 0, "net-dns"),
            ("net_dns.yml", "Title", 1, "net-dns-2"),
            ("", "Some Title (2)", 0, "some-title-2"),
            ("日本.yml", "日本", 0, "rule"),
        ] {
            assert_eq!(name(file, title, earlier), expected);
        }
        let (one, other) = (name(&format!("{}_one.yml", "x".repeat(80)), "", 0), name(&format!("{}_two.yml", "x".repeat(80)), "", 0));
        assert!(one != other && one.len() <= MAX_NAME && other.len() <= MAX_NAME, "{one} {other}");
    }

    #[test]
    fn what_cannot_be_imported_is_said_with_its_place() {
        for (text, field, message) in [
            ("title: [", "", "not YAML"),
            ("title: a\ntitle: b\n", "", "duplicate"),
            ("- a list\n", "", "not a Sigma rule"),
            ("", "", "no Sigma rule"),
            ("title: t\ncorrelation: {type: event_count}\n", "spec.sigma.correlation", "not supported yet"),
        ] {
            let problems = import(text, "file.yml").unwrap_err();

            assert!(problems.iter().any(|problem| problem.field == field && problem.message.contains(message)), "{text:?}: {problems:?}");
        }
        assert_eq!(import("title: ok\nbad: [\n", "f").unwrap_err()[0].within.map(|(line, _)| line), Some(3));
    }
}
