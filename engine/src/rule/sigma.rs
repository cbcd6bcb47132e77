//! Sigma rules (specification 2.1), compiled and evaluated by rsigma. With [`super::clue`], which looks into its compiled rules, this is the
//! one module that knows that crate's rules and engine, so that another core, or another version of this one, changes nothing else.
//! [`super::event_view`] is its counterpart for events.

use std::{borrow::Cow, collections::BTreeMap, sync::Arc};

use redoubt_crds::{Severity, SigmaLogsource};
use rsigma_eval::{CompiledRule, Engine, EvaluationResult, MatchDetailLevel, MatcherKind, ResultBody};
use rsigma_parser::{ConditionExpr, Level, SigmaCollection};
use serde_json::{Map, Value, json};

use super::{Reason, candidates::Candidates, event_view::EventView, logsource};
use crate::diagnostic::Problem;

mod trace;

/// Most reasons that one match names.
const MAX_REASONS: usize = 32;

/// What a piece of Sigma is used for, and so which parts it must have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Use {
    /// A whole rule: title, logsource and detection.
    Rule,
    /// The events that a threshold counts: a detection, and a logsource where not every event is meant.
    Matcher,
    /// A rule's exception: a detection's selections and condition, nothing around them.
    Exception,
}

/// A Sigma rule's words about itself.
#[derive(Debug, Clone, Default)]
pub(super) struct About {
    pub(super) title: String,
    pub(super) id: Option<String>,
    pub(super) description: Option<String>,
    pub(super) severity: Option<Severity>,
    pub(super) tags: Vec<String>,
    pub(super) author: Option<String>,
    pub(super) license: Option<String>,
}

/// One Sigma rule that has been compiled once and found good. What it was compiled into is kept for an exception only, which is asked by
/// itself: an [`Index`] makes its own of the text, and a second one of thousands of rules would be a good part of the process's memory.
pub(super) struct Sigma {
    text: Box<str>,
    asked: Option<Box<CompiledRule>>,
    /// Which events it is for.
    pub(super) logsource: SigmaLogsource,
    /// The condition as it is understood.
    pub(super) condition: String,
}

impl Sigma {
    /// Makes a piece of Sigma ready. `field` is where it stands in the resource.
    pub(super) fn compile(object: &Map<String, Value>, field: &str, usage: Use) -> Result<(Self, About), Vec<Problem>> {
        let unsupported = unsupported(object, field, usage);
        if !unsupported.is_empty() {
            return Err(unsupported);
        }
        let whole = match usage {
            Use::Rule => Cow::Borrowed(object),
            Use::Matcher => Cow::Owned(with_title(object.clone())),
            Use::Exception => Cow::Owned(exception_rule(object)),
        };
        let (compiled, about) = compile_object(&whole).map_err(|message| locate(&whole, field, usage, &message))?;
        let logsource = SigmaLogsource {
            product: compiled.logsource.product.clone(),
            service: compiled.logsource.service.clone(),
            category: compiled.logsource.category.clone(),
        };
        if usage == Use::Rule && logsource == SigmaLogsource::default() {
            let remedy = "name at least one of product, service and category, so that the rule meets only the events it is written for";
            return Err(vec![Problem::new(format!("{field}.logsource"), "names no kind of event", remedy)]);
        }
        let condition = compiled.conditions.iter().map(ConditionExpr::to_string).collect::<Vec<_>>().join(" or ");
        let text = yaml_text(&detection_only(&whole)).into();
        let asked = (usage == Use::Exception).then(|| Box::new(compiled));
        Ok((Self { text, asked, logsource, condition }, about))
    }

    /// Whether the detection is true of the event; the logsource is not asked.
    pub(super) fn holds(&self, event: &EventView<'_>) -> bool {
        rsigma_eval::evaluate_rule(&self.compiled(), event).is_some()
    }

    fn compiled(&self) -> Cow<'_, CompiledRule> {
        match &self.asked {
            Some(compiled) => Cow::Borrowed(compiled),
            None => Cow::Owned(self.compile_again()),
        }
    }

    fn compile_again(&self) -> CompiledRule {
        // Compiling is a function of the parts that the text holds, and it went well with them before.
        let (compiled, _) = compile_text(&self.text).expect("what has compiled compiles again");
        compiled
    }
}

/// The parts of a rule that matching depends on.
fn detection_only(rule: &Map<String, Value>) -> Map<String, Value> {
    let kept = ["title", "logsource", "detection"].into_iter().filter_map(|key| rule.get_key_value(key));
    kept.map(|(key, value)| (key.clone(), value.clone())).collect()
}

/// What of a Sigma document cannot be run, each with what to do instead.
fn unsupported(object: &Map<String, Value>, field: &str, usage: Use) -> Vec<Problem> {
    let mut problems = Vec::new();
    let mut refuse = |key: &str, message: String, remedy: &str| problems.push(Problem::new(format!("{field}.{key}"), message, remedy));
    for (key, remedy) in [
        ("correlation", "write the counting as spec.threshold: match, groupBy, count and window"),
        ("filter", "write it as one of spec.exceptions of the rule that it is to quieten"),
        ("action", "write each document of a collection out as a rule of its own"),
    ] {
        if usage != Use::Exception && object.contains_key(key) {
            refuse(key, format!("not supported yet: a Sigma document with `{key}`"), remedy);
        }
    }
    let major = object.get("sigma-version").map(|version| version.to_string().trim_matches('"').split('.').next().unwrap_or("").to_owned());
    if let Some(major) = major
        && !matches!(major.as_str(), "1" | "2")
    {
        refuse("sigma-version", format!("not supported yet: Sigma {major}"), "write the rule by version 2.1 of the specification");
    }
    if object.get("detection").and_then(|detection| detection.get("timeframe")).is_some() {
        refuse("detection.timeframe", "not supported yet: a detection over time".to_owned(), "write the counting as spec.threshold");
    }
    if let Some(Value::Object(dimensions)) = object.get("logsource") {
        for key in dimensions.keys().filter(|key| !matches!(key.as_str(), "product" | "service" | "category" | "definition")) {
            refuse(&format!("logsource.{key}"), "not a dimension of a Sigma logsource".to_owned(), "use product, service and category");
        }
        for key in ["product", "service", "category"] {
            if dimensions.get(key).is_some_and(|value| !value.is_string()) {
                refuse(&format!("logsource.{key}"), "not a text".to_owned(), "write a name, such as `windows`");
            }
        }
    }
    problems
}

fn with_title(mut object: Map<String, Value>) -> Map<String, Value> {
    object.entry("title").or_insert_with(|| json!("matcher"));
    object
}

fn exception_rule(detection: &Map<String, Value>) -> Map<String, Value> {
    let mut rule = Map::new();
    rule.insert("title".to_owned(), json!("exception"));
    rule.insert("detection".to_owned(), Value::Object(detection.clone()));
    rule
}

/// Parses and compiles one whole rule; the error is rsigma's own sentence.
fn compile_object(object: &Map<String, Value>) -> Result<(CompiledRule, About), String> {
    compile_text(&yaml_text(object))
}

fn compile_text(text: &str) -> Result<(CompiledRule, About), String> {
    let SigmaCollection { mut rules, errors, .. } = rsigma_parser::parse_sigma_yaml(text).map_err(|error| error.to_string())?;
    if let Some(error) = errors.into_iter().next() {
        return Err(error);
    }
    let rule = rules.pop().ok_or_else(|| "not a Sigma rule".to_owned())?;
    let compiled = rsigma_eval::compile_rule(&rule).map_err(|error| error.to_string())?;
    let about = About {
        title: rule.title,
        id: rule.id,
        description: rule.description,
        severity: rule.level.map(severity),
        tags: rule.tags,
        author: rule.author,
        license: rule.license,
    };
    Ok((compiled, about))
}

/// An object as text that a YAML reader understands in the same way: JSON, in which the characters that YAML takes for line breaks or
/// refuses are written as escapes. In JSON they can stand only inside texts, where an escape means the same.
fn yaml_text(object: &Map<String, Value>) -> String {
    let json = Value::Object(object.clone()).to_string();
    if json.is_ascii() && !json.contains('\u{7f}') {
        return json;
    }
    let mut text = String::with_capacity(json.len());
    for character in json.chars() {
        if matches!(character, '\u{7f}'..='\u{9f}' | '\u{2028}' | '\u{2029}' | '\u{feff}' | '\u{fffe}' | '\u{ffff}') {
            text.push_str(&format!("\\u{:04x}", u32::from(character)));
        } else {
            text.push(character);
        }
    }
    text
}

fn severity(level: Level) -> Severity {
    match level {
        Level::Informational => Severity::Informational,
        Level::Low => Severity::Low,
        Level::Medium => Severity::Medium,
        Level::High => Severity::High,
        Level::Critical => Severity::Critical,
    }
}

/// Where a rule that does not compile is wrong. rsigma does not say, so each selection is tried alone: those that fail by themselves are
/// the ones, else it is the condition or something around the detection.
fn locate(rule: &Map<String, Value>, field: &str, usage: Use, message: &str) -> Vec<Problem> {
    let detection_field = if usage == Use::Exception { field.to_owned() } else { format!("{field}.detection") };
    let Some(detection) = rule.get("detection") else {
        return vec![Problem::new(detection_field, "is missing", "write the selections and the condition that combines them")];
    };
    let Value::Object(detection) = detection else {
        return vec![Problem::new(detection_field, "is not an object", "write the selections and the condition that combines them")];
    };
    let mut problems = Vec::new();
    for (name, selection) in detection.iter().filter(|(name, _)| *name != "condition") {
        if let Err(message) = try_selection(selection) {
            problems.push(Problem::new(format!("{detection_field}.{name}"), describe_selection(selection, message), ""));
        }
    }
    if !problems.is_empty() {
        return problems;
    }
    let Some(condition) = detection.get("condition") else {
        let remedy = "write one that combines the selections, such as `selection and not filter`";
        return vec![Problem::new(format!("{detection_field}.condition"), "is missing", remedy)];
    };
    let mut without_condition = rule.clone();
    if let Some(Value::Object(detection)) = without_condition.get_mut("detection") {
        detection.insert("condition".to_owned(), json!("1 of them"));
    }
    if compile_object(&without_condition).is_ok() || detection.len() == 1 {
        let names: Vec<&str> = detection.keys().map(String::as_str).filter(|name| *name != "condition").collect();
        let remedy = format!("it can combine these selections: {}", names.join(", "));
        return vec![Problem::new(format!("{detection_field}.condition"), format!("{message}, in {condition}"), remedy)];
    }
    for key in ["title", "level", "status", "related", "logsource"] {
        if message.split(|character: char| !character.is_ascii_alphabetic()).any(|word| word == key) {
            return vec![Problem::new(format!("{field}.{key}"), message, "")];
        }
    }
    vec![Problem::new(field, message, "")]
}

fn try_selection(selection: &Value) -> Result<(), String> {
    let mut rule = exception_rule(&Map::new());
    rule.insert("detection".to_owned(), json!({"selection": selection, "condition": "selection"}));
    compile_object(&rule).map(|_| ())
}

/// Adds the field of the selection that is at fault, where one fails by itself.
fn describe_selection(selection: &Value, message: String) -> String {
    let Value::Object(items) = selection else { return message };
    for (key, value) in items {
        let mut one = Map::new();
        one.insert(key.clone(), value.clone());
        if let Err(message) = try_selection(&Value::Object(one)) {
            return format!("`{key}`: {message}");
        }
    }
    message
}

/// Many rules at once, so that an event meets only those that may fit it: a part for each logsource that rules name.
#[derive(Default)]
pub(super) struct Index {
    buckets: Vec<Arc<Bucket>>,
}

/// A rule under its name.
type Named = (Arc<str>, Arc<Sigma>);

struct Bucket {
    logsource: SigmaLogsource,
    /// In the order of their names.
    rules: Vec<Named>,
    candidates: Candidates,
    /// One engine a rule, in the same order. The engine's own index of many rules would take ten times the memory of the rules.
    engines: Vec<Engine>,
}

impl Index {
    /// Indexes rules, each under the name by which [`Index::visit`] tells of it. Where all rules of a logsource are those of an index of
    /// before, that part of it serves on.
    pub(super) fn new<'a>(rules: impl Iterator<Item = (&'a Arc<str>, &'a Arc<Sigma>)>, previous: Option<&Self>) -> Self {
        let mut grouped: BTreeMap<[Option<String>; 3], Vec<Named>> = BTreeMap::new();
        for (name, sigma) in rules {
            let lower = |dimension: &Option<String>| dimension.as_deref().map(str::to_ascii_lowercase);
            let key = [lower(&sigma.logsource.product), lower(&sigma.logsource.service), lower(&sigma.logsource.category)];
            grouped.entry(key).or_default().push((Arc::clone(name), Arc::clone(sigma)));
        }
        let buckets = grouped
            .into_iter()
            .map(|([product, service, category], mut rules)| {
                rules.sort_by(|a, b| a.0.cmp(&b.0));
                let logsource = SigmaLogsource { product, service, category };
                let known = previous.and_then(|previous| previous.buckets.iter().find(|bucket| bucket.holds(&logsource, &rules)));
                known.map_or_else(|| Arc::new(Bucket::new(logsource, rules)), Arc::clone)
            })
            .collect();
        Self { buckets }
    }

    /// Calls `found` for each rule that is for events of this logsource and true of this one, with its name and the reasons why.
    pub(super) fn visit(&self, event: &EventView<'_>, event_logsource: &SigmaLogsource, found: &mut dyn FnMut(&str, Vec<Reason>)) {
        for bucket in self.buckets.iter().filter(|bucket| logsource::fits(&bucket.logsource, event_logsource)) {
            for place in bucket.candidates.of(event) {
                let engine = &bucket.engines[place as usize];
                if engine.rules().iter().any(|rule| rsigma_eval::evaluate_rule(rule, event).is_some()) {
                    found(&bucket.rules[place as usize].0, engine.evaluate(event).into_iter().flat_map(reasons).collect());
                }
            }
        }
    }
}

impl Bucket {
    fn new(logsource: SigmaLogsource, rules: Vec<Named>) -> Self {
        let engines: Vec<Engine> = rules.iter().map(|(_, sigma)| engine_of(sigma)).collect();
        let candidates = Candidates::new(engines.iter().flat_map(Engine::rules));
        Self { logsource, rules, candidates, engines }
    }

    fn holds(&self, logsource: &SigmaLogsource, rules: &[Named]) -> bool {
        self.logsource == *logsource
            && self.rules.len() == rules.len()
            && self.rules.iter().zip(rules).all(|(a, b)| a.0 == b.0 && Arc::ptr_eq(&a.1, &b.1))
    }
}

/// An engine of one rule, with nothing but what matching needs.
fn engine_of(sigma: &Sigma) -> Engine {
    let mut engine = Engine::new();
    engine.set_match_detail(MatchDetailLevel::Summary);
    // Added by itself, a rule is not indexed.
    engine.add_compiled_rule(CompiledRule { title: String::new(), custom_attributes: Arc::default(), ..sigma.compile_again() });
    engine
}

fn reasons(result: EvaluationResult) -> Vec<Reason> {
    let ResultBody::Detection(detection) = result.body else { return Vec::new() };
    let mut reasons: Vec<Reason> = Vec::new();
    for matched in detection.matched_fields {
        let keyword = matched.matcher == Some(MatcherKind::Keyword);
        let reason = Reason { field: if keyword { String::new() } else { matched.field }, value: matched.value };
        if !reasons.contains(&reason) {
            reasons.push(reason);
        }
        if reasons.len() == MAX_REASONS {
            break;
        }
    }
    reasons
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sigma(product: &str, text: &str) -> Arc<Sigma> {
        let rule = json!({"title": "t", "logsource": {"product": product}, "detection": {"s": {"a": text}, "condition": "s"}});
        Arc::new(Sigma::compile(rule.as_object().unwrap(), "spec.sigma", Use::Rule).unwrap().0)
    }

    #[test]
    fn what_no_change_touches_serves_on() {
        let names: [Arc<str>; 3] = ["a", "b", "c"].map(Arc::from);
        let [a, b, c] = [sigma("linux", "1"), sigma("linux", "2"), sigma("windows", "3")];
        let before = Index::new(names.iter().zip([&a, &b, &c]), None);
        let changed = sigma("linux", "4");

        let after = Index::new(names.iter().zip([&a, &changed, &c]), Some(&before));

        let shared: Vec<bool> = before.buckets.iter().zip(&after.buckets).map(|(one, other)| Arc::ptr_eq(one, other)).collect();
        assert_eq!(shared, [false, true]);
    }
}
