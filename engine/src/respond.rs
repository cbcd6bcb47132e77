//! ResponseActions made ready: which alerts they mean, and what they say. Doing it is the workers' part.

use minijinja::{
    Environment, UndefinedBehavior, context,
    value::{Serde, Value},
};
use redoubt_crds::ResponseActionSpec;

use crate::{alert::Alert, diagnostic::Problem};

/// Steps that one rendering may take: some thousand times more than a template of a page needs.
const TEMPLATE_FUEL: u64 = 1_000_000;
const TEMPLATE: &str = "body";
const DEFAULT_LOG_LINE: &str = "{{ alert.severity }} {{ alert.rule.name }}: {{ alert.rule.title }}: {{ alert.summary }}";
const DEFAULT_WEBHOOK_BODY: &str = "{{ alert | tojson }}";

/// One ResponseAction made ready.
pub struct Action {
    /// Name of the resource.
    pub name: String,
    /// The resource itself.
    pub spec: ResponseActionSpec,
    templates: Environment<'static>,
}

/// Why an action's text could not be made.
#[derive(Debug, thiserror::Error)]
#[error("the template of ResponseAction/{action} fails on this alert: {message}")]
pub struct RenderError {
    action: String,
    message: String,
}

impl Action {
    /// Makes a ResponseAction ready.
    ///
    /// # Errors
    /// The template is not one, with its line.
    pub fn compile(name: &str, spec: &ResponseActionSpec) -> Result<Self, Vec<Problem>> {
        let (field, template) = match (&spec.webhook, &spec.log) {
            (Some(webhook), _) => ("spec.webhook.body", webhook.body.as_deref().unwrap_or(DEFAULT_WEBHOOK_BODY)),
            (None, Some(log)) => ("spec.log.message", log.message.as_deref().unwrap_or(DEFAULT_LOG_LINE)),
            (None, None) => return Err(vec![Problem::new("spec", "the action does nothing", "give it a webhook or a log")]),
        };
        let mut templates = Environment::new();
        templates.set_undefined_behavior(UndefinedBehavior::Chainable);
        templates.set_fuel(Some(TEMPLATE_FUEL));
        templates.add_template_owned(TEMPLATE, template.to_owned()).map_err(|error| {
            let problem = Problem::new(field, format!("not a template: {error}"), "templates are minijinja's, over `alert`");
            vec![error.line().map_or_else(|| problem.clone(), |line| problem.clone().within(line, 1))]
        })?;
        Ok(Self { name: name.to_owned(), spec: spec.clone(), templates })
    }

    /// Whether the action means this alert.
    #[must_use]
    pub fn applies(&self, alert: &Alert) -> bool {
        let wanted = &self.spec.alerts;
        wanted.min_severity.is_none_or(|least| alert.severity >= least)
            && (wanted.rules.is_empty() || wanted.rules.contains(&alert.rule.name))
            && (wanted.tags.is_empty() || wanted.tags.iter().any(|tag| alert.rule.tags.contains(tag)))
    }

    /// The text of the action for one alert: a webhook's body or a log's line.
    ///
    /// # Errors
    /// The template asks of the alert what it does not bear, such as the length of a number.
    pub fn render(&self, alert: &Alert) -> Result<String, RenderError> {
        let render = || self.templates.get_template(TEMPLATE)?.render(context! { alert => Value::from(Serde(alert)) });
        render().map_err(|error| RenderError { action: self.name.clone(), message: error.to_string() })
    }
}

#[cfg(test)]
mod tests {
    use redoubt_crds::{AlertSelector, LogAction, Severity};
    use serde_json::Map;

    use super::*;
    use crate::rule::RuleInfo;

    fn alert() -> Alert {
        Alert {
            id: "a1".into(),
            timestamp: "2026-01-01T00:00:00.000Z".into(),
            rule: RuleInfo {
                name: "ssh-guessing".into(),
                id: "ssh-guessing".into(),
                title: "Password guessing over SSH".into(),
                description: String::new(),
                severity: Severity::High,
                tags: vec!["ssh".into()],
                attack: vec![],
                runbook: None,
                author: None,
                license: None,
            },
            severity: Severity::High,
            group: Map::new(),
            reasons: vec![],
            summary: "10 events in 2m".into(),
            event_count: 10,
            events: vec![],
        }
    }

    fn log(message: Option<&str>, alerts: AlertSelector) -> ResponseActionSpec {
        let log = LogAction { message: message.map(str::to_owned) };
        ResponseActionSpec { alerts, dry_run: true, webhook: None, log: Some(log) }
    }

    #[test]
    fn an_action_means_the_alerts_that_fit_every_given_field() {
        for (name, selector, expected) in [
            ("empty means all", AlertSelector::default(), true),
            ("severe enough", AlertSelector { min_severity: Some(Severity::High), ..Default::default() }, true),
            ("not severe enough", AlertSelector { min_severity: Some(Severity::Critical), ..Default::default() }, false),
            ("named", AlertSelector { rules: vec!["ssh-guessing".into()], ..Default::default() }, true),
            ("another is named", AlertSelector { rules: vec!["other".into()], tags: vec!["ssh".into()], ..Default::default() }, false),
        ] {
            let action = Action::compile("a", &log(None, selector)).unwrap();

            assert_eq!(action.applies(&alert()), expected, "{name}");
        }
    }

    #[test]
    fn the_text_is_made_from_the_alert_and_absent_fields_are_empty() {
        let action = Action::compile("a", &log(Some("{{ alert.rule.title }}/{{ alert.nothing.here }}"), AlertSelector::default())).unwrap();

        assert_eq!(action.render(&alert()).unwrap(), "Password guessing over SSH/");
    }

    #[test]
    fn a_broken_template_is_refused_with_its_line() {
        let refused = Action::compile("a", &log(Some("one\n{{ alert."), AlertSelector::default()));

        let problem = refused.err().unwrap().remove(0);
        assert_eq!(problem.field, "spec.log.message");
        assert_eq!(problem.within, Some((2, 1)));
    }

    #[test]
    fn a_template_that_never_ends_is_stopped() {
        let endless = "{% for a in range(9999) %}{% for b in range(9999) %}x{% endfor %}{% endfor %}";
        let action = Action::compile("a", &log(Some(endless), AlertSelector::default())).unwrap();

        assert!(action.render(&alert()).is_err());
    }
}
