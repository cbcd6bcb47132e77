//! From the resource to a rule that can run: every check that needs no event.

use std::sync::Arc;

use redoubt_crds::{AlertRuleSpec, Duration, RuleTest, Severity, Threshold};

use super::{
    Rule, RuleInfo,
    matcher::Matcher,
    sigma::{About, Use},
    testing,
};
use crate::diagnostic::Problem;

/// The longest window, and the longest lateness: what a correlator has to hold in memory.
const MAX_WINDOW: Duration = Duration::from_secs(31 * 86_400);

impl Rule {
    /// Makes an AlertRule ready. Its tests are not run here; see [`super::run_tests`].
    ///
    /// # Errors
    /// Every problem found, with the field it lies in.
    pub fn compile(name: &str, spec: &Arc<AlertRuleSpec>) -> Result<Self, Vec<Problem>> {
        let mut problems = check_bounds(spec);
        let matcher = match (&spec.sigma, &spec.threshold) {
            (Some(sigma), None) => Matcher::compile(Some(sigma), None, "spec", Use::Rule),
            (None, Some(threshold)) => {
                let matcher = &threshold.matcher;
                Matcher::compile(matcher.sigma.as_ref(), matcher.when.as_deref(), "spec.threshold.match", Use::Matcher)
            }
            _ => Err(vec![Problem::new("spec", "exactly one of sigma and threshold is needed", "keep one of them")]),
        };
        let matcher = matcher.map_err(|found| problems.extend(found)).ok();
        let mut exceptions = Vec::with_capacity(spec.exceptions.len());
        for (index, exception) in spec.exceptions.iter().enumerate() {
            let field = format!("spec.exceptions[{index}]");
            match Matcher::compile(exception.sigma.as_ref(), exception.when.as_deref(), &field, Use::Exception) {
                Ok((ready, _)) => exceptions.push(ready),
                Err(found) => problems.extend(found),
            }
        }
        match matcher {
            Some((matcher, about)) if problems.is_empty() => {
                Ok(Self { info: info(name, spec, about), spec: Arc::clone(spec), name: Arc::from(name), matcher, exceptions })
            }
            _ => Err(problems),
        }
    }
}

fn info(name: &str, spec: &AlertRuleSpec, about: About) -> RuleInfo {
    // A threshold counts what its matcher finds: the matcher's title says what one event is, not what the alert is.
    let sigma_title = spec.sigma.is_some().then_some(about.title);
    let mut attack = Vec::new();
    for technique in about.tags.iter().filter_map(|tag| technique(tag)).chain(spec.attack.iter().cloned()) {
        add_once(&mut attack, technique);
    }
    let mut tags = Vec::new();
    for tag in about.tags.into_iter().chain(spec.tags.iter().cloned()) {
        add_once(&mut tags, tag);
    }
    RuleInfo {
        name: name.to_owned(),
        id: about.id.unwrap_or_else(|| name.to_owned()),
        title: spec.title.clone().or(sigma_title).unwrap_or_else(|| name.to_owned()),
        description: spec.description.clone().or(about.description).unwrap_or_default(),
        severity: spec.severity.or(about.severity).unwrap_or(Severity::Medium),
        tags,
        attack,
        runbook: spec.runbook.clone(),
        author: about.author,
        license: about.license,
    }
}

fn add_once(list: &mut Vec<String>, text: String) {
    if !list.contains(&text) {
        list.push(text);
    }
}

/// The ATT&CK technique that a Sigma tag names: `attack.t1059.001` is `T1059.001`. Tactics, groups and software are no techniques.
fn technique(tag: &str) -> Option<String> {
    let id = tag.to_ascii_uppercase().strip_prefix("ATTACK.")?.to_owned();
    is_technique(&id).then_some(id)
}

fn is_technique(id: &str) -> bool {
    let digits = |text: &str, count| text.len() == count && text.bytes().all(|byte| byte.is_ascii_digit());
    let Some(number) = id.strip_prefix('T') else { return false };
    match number.split_once('.') {
        Some((technique, sub)) => digits(technique, 4) && digits(sub, 3),
        None => digits(number, 4),
    }
}

fn check_bounds(spec: &AlertRuleSpec) -> Vec<Problem> {
    let mut problems = Vec::new();
    for (index, id) in spec.attack.iter().enumerate().filter(|(_, id)| !is_technique(id)) {
        let message = format!("{id:?} is no ATT&CK technique");
        problems.push(Problem::new(format!("spec.attack[{index}]"), message, "write it as T1110 or T1059.001"));
    }
    if let Some(threshold) = &spec.threshold {
        check_threshold(threshold, &mut problems);
    }
    if let Some(suppression) = &spec.suppress {
        check_length("spec.suppress.for", suppression.period, &mut problems);
        check_paths("spec.suppress.by", &suppression.by, &mut problems);
        if let Some(threshold) = &spec.threshold {
            for (index, path) in suppression.by.iter().enumerate().filter(|(_, path)| !threshold.group_by.contains(path)) {
                let message = format!("{path:?} is none of the threshold's groups");
                let remedy = "a threshold's alerts are alike by groupBy: add the field there, or leave it out here";
                problems.push(Problem::new(format!("spec.suppress.by[{index}]"), message, remedy));
            }
        }
    }
    if spec.allowed_lateness > MAX_WINDOW {
        problems.push(too_long("spec.allowedLateness", spec.allowed_lateness));
    }
    for (index, test) in spec.tests.iter().enumerate() {
        check_test(index, test, &mut problems);
    }
    problems
}

fn check_threshold(threshold: &Threshold, problems: &mut Vec<Problem>) {
    if threshold.count == 0 {
        problems.push(Problem::new("spec.threshold.count", "is 0", "ask for at least 1"));
    }
    check_length("spec.threshold.window", threshold.window, problems);
    check_paths("spec.threshold.groupBy", &threshold.group_by, problems);
    if let Some(distinct) = &threshold.distinct {
        check_path("spec.threshold.distinct".to_owned(), distinct, problems);
    }
}

fn check_length(field: &str, length: Duration, problems: &mut Vec<Problem>) {
    if length.as_millis() == 0 {
        problems.push(Problem::new(field, "is no time at all", "write a length such as 5m"));
    } else if length > MAX_WINDOW {
        problems.push(too_long(field, length));
    }
}

fn too_long(field: &str, length: Duration) -> Problem {
    Problem::new(field, format!("{length} is longer than {MAX_WINDOW}"), format!("write {MAX_WINDOW} or less"))
}

fn check_paths(field: &str, paths: &[String], problems: &mut Vec<Problem>) {
    for (index, path) in paths.iter().enumerate() {
        check_path(format!("{field}[{index}]"), path, problems);
        if paths[..index].contains(path) {
            problems.push(Problem::new(format!("{field}[{index}]"), format!("{path:?} is named twice"), "leave one out"));
        }
    }
}

fn check_path(field: String, path: &str, problems: &mut Vec<Problem>) {
    if path.split('.').any(str::is_empty) {
        problems.push(Problem::new(field, format!("{path:?} is no field"), "write a path such as source.ip"));
    }
}

fn check_test(index: usize, test: &RuleTest, problems: &mut Vec<Problem>) {
    let field = format!("spec.tests[{index}]");
    if test.events.is_empty() {
        problems.push(Problem::new(format!("{field}.events"), "is empty", "write at least one event"));
    }
    if test.expect.fires.is_some() == test.expect.alerts.is_some() {
        problems.push(Problem::new(format!("{field}.expect"), "exactly one of alerts and fires is needed", "keep one of them"));
    }
    problems.extend(testing::check_events(index, test));
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::rule::fixture::spec;

    fn problems(value: Value) -> Vec<(String, String)> {
        let Err(problems) = Rule::compile("rule", &spec(value).into()) else { return Vec::new() };
        problems.into_iter().map(|problem| (problem.field, problem.message)).collect()
    }

    #[test]
    fn a_rule_says_of_itself_what_sigma_says_unless_the_resource_says_otherwise() {
        let sigma = json!({
            "title": "Whoami", "id": "an-id", "description": "Looks for whoami", "level": "high", "author": "A. Author", "license": "DRL 1.1",
            "tags": ["attack.discovery", "attack.t1033", "attack.t1059.001", "attack.s0075"],
            "logsource": {"category": "process_creation"},
            "detection": {"selection": {"CommandLine|contains": "whoami"}, "condition": "selection"},
        });

        let plain = Rule::compile("whoami", &spec(json!({"sigma": sigma})).into()).ok().unwrap().info;
        let own = json!({"sigma": sigma, "title": "Own", "severity": "low", "tags": ["mine"], "attack": ["T1110", "T1033"]});
        let own = Rule::compile("whoami", &spec(own).into()).ok().unwrap().info;

        assert_eq!((plain.id.as_str(), plain.title.as_str(), plain.severity), ("an-id", "Whoami", Severity::High));
        assert_eq!(plain.attack, ["T1033", "T1059.001"]);
        assert_eq!((plain.author.as_deref(), plain.license.as_deref()), (Some("A. Author"), Some("DRL 1.1")));
        assert_eq!((own.title.as_str(), own.severity, own.description.as_str()), ("Own", Severity::Low, "Looks for whoami"));
        assert_eq!(own.attack, ["T1033", "T1059.001", "T1110"]);
        assert_eq!(own.tags.last().map(String::as_str), Some("mine"));
    }

    #[test]
    fn a_threshold_has_its_name_for_title_and_id_and_is_of_medium_severity() {
        let rule = json!({"threshold": {"match": {"sigma": {"detection": {"s": {"a": 1}, "condition": "s"}}}, "count": 3, "window": "5m"}});

        let info = Rule::compile("brute-force", &spec(rule).into()).ok().unwrap().info;

        assert_eq!((info.id.as_str(), info.title.as_str(), info.severity), ("brute-force", "brute-force", Severity::Medium));
    }

    #[test]
    fn what_is_wrong_is_said_with_its_field() {
        let detection = json!({"s": {"a": 1}, "condition": "s"});
        let sigma = |detection: Value| json!({"title": "t", "logsource": {"category": "x"}, "detection": detection});
        let threshold = |extra: Value| {
            let mut threshold = json!({"match": {"sigma": {"detection": detection}}, "count": 1, "window": "1m"});
            threshold.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
            json!({"threshold": threshold})
        };
        let with = |mut rule: Value, key: &str, value: Value| {
            rule[key] = value;
            rule
        };

        for (rule, field, message) in [
            (json!({}), "spec", "exactly one of sigma and threshold"),
            (threshold(json!({"window": "0s"})), "spec.threshold.window", "no time at all"),
            (threshold(json!({"window": "32d"})), "spec.threshold.window", "longer than 31d"),
            (threshold(json!({"count": 0})), "spec.threshold.count", "is 0"),
            (threshold(json!({"groupBy": ["source..ip"]})), "spec.threshold.groupBy[0]", "no field"),
            (threshold(json!({"groupBy": ["a", "a"]})), "spec.threshold.groupBy[1]", "named twice"),
            (threshold(json!({"distinct": ""})), "spec.threshold.distinct", "no field"),
            (threshold(json!({"match": {}})), "spec.threshold.match", "exactly one of sigma and when"),
            (with(threshold(json!({})), "suppress", json!({"by": ["b"], "for": "1h"})), "spec.suppress.by[0]", "none of the threshold's"),
            (with(threshold(json!({})), "suppress", json!({"for": "0s"})), "spec.suppress.for", "no time at all"),
            (with(threshold(json!({})), "attack", json!(["1110"])), "spec.attack[0]", "no ATT&CK technique"),
            (with(threshold(json!({})), "allowedLateness", json!("32d")), "spec.allowedLateness", "longer than"),
            (with(threshold(json!({})), "exceptions", json!([{"reason": "r"}])), "spec.exceptions[0]", "exactly one of sigma and when"),
            (
                with(threshold(json!({})), "exceptions", json!([{"reason": "r", "sigma": {"s": {"a|nope": 1}, "condition": "s"}}])),
                "spec.exceptions[0].sigma.s",
                "Unknown modifier 'nope'",
            ),
            (
                with(threshold(json!({})), "tests", json!([{"name": "n", "events": [], "expect": {"fires": true}}])),
                "spec.tests[0].events",
                "is empty",
            ),
            (
                with(threshold(json!({})), "tests", json!([{"name": "n", "events": [{}], "expect": {}}])),
                "spec.tests[0].expect",
                "exactly one of alerts and fires",
            ),
            (json!({"sigma": {"title": "t", "detection": detection}}), "spec.sigma.logsource", "names no kind of event"),
            (
                json!({"sigma": sigma(json!({"s": {"a|nope": 1}, "condition": "s"}))}),
                "spec.sigma.detection.s",
                "`a|nope`: Unknown modifier",
            ),
            (json!({"sigma": sigma(json!({"s": {"a|re": "("}, "condition": "s"}))}), "spec.sigma.detection.s", "invalid regex"),
            (json!({"sigma": sigma(json!({"s": {"a": 1}, "condition": "s and t"}))}), "spec.sigma.detection.condition", "t"),
            (
                json!({"sigma": sigma(json!({"s": {"a": 1}, "condition": "s and ("}))}),
                "spec.sigma.detection.condition",
                "Condition parse error",
            ),
            (json!({"sigma": sigma(json!({"s": {"a": 1}}))}), "spec.sigma.detection.condition", "is missing"),
            (json!({"sigma": {"title": "t", "logsource": {"category": "x"}}}), "spec.sigma.detection", "is missing"),
            (json!({"sigma": {"logsource": {"category": "x"}, "detection": detection}}), "spec.sigma.title", "title"),
            (with(json!({}), "sigma", with(sigma(detection.clone()), "level", json!("loud"))), "spec.sigma.level", "loud"),
            (json!({"sigma": {"title": "t", "correlation": {}}}), "spec.sigma.correlation", "not supported yet"),
            (json!({"sigma": {"title": "t", "filter": {}}}), "spec.sigma.filter", "not supported yet"),
            (
                json!({"sigma": sigma(json!({"s": {"a": 1}, "condition": "s", "timeframe": "5m"}))}),
                "spec.sigma.detection.timeframe",
                "not supported",
            ),
            (
                with(json!({}), "sigma", with(sigma(detection.clone()), "sigma-version", json!(3))),
                "spec.sigma.sigma-version",
                "not supported",
            ),
            (
                json!({"sigma": {"title": "t", "logsource": {"tenant": "x"}, "detection": detection}}),
                "spec.sigma.logsource.tenant",
                "not a dimension",
            ),
        ] {
            let found = problems(rule.clone());

            assert!(found.iter().any(|(at, what)| at == field && what.contains(message)), "{rule}: {found:?}");
        }
    }
}
