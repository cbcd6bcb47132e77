//! Which rules an event meets (Sigma specification 2.1, "Log source").
//!
//! A rule is for an event when every dimension that the rule's logsource names is the event's too. A dimension that the event does
//! not have never fits: an event that is not known to be a process creation meets no rule about process creations. The other way
//! round is free: a rule for `product: windows` meets every Windows event, whatever its service.

use redoubt_crds::SigmaLogsource;

/// Categories that stand for several others (Sigma taxonomy 2.1).
const PARENTS: [(&str, &[&str]); 1] = [("registry_event", &["registry_add", "registry_delete", "registry_rename", "registry_set"])];

/// Whether a rule of one logsource is for events of another.
pub(super) fn fits(rule: &SigmaLogsource, event: &SigmaLogsource) -> bool {
    same(rule.product.as_deref(), event.product.as_deref())
        && same(rule.service.as_deref(), event.service.as_deref())
        && (same(rule.category.as_deref(), event.category.as_deref()) || stands_for(rule.category.as_deref(), event.category.as_deref()))
}

fn same(rule: Option<&str>, event: Option<&str>) -> bool {
    match (rule, event) {
        (None, _) => true,
        (Some(rule), Some(event)) => rule.eq_ignore_ascii_case(event),
        (Some(_), None) => false,
    }
}

fn stands_for(rule: Option<&str>, event: Option<&str>) -> bool {
    let (Some(rule), Some(event)) = (rule, event) else { return false };
    PARENTS
        .iter()
        .any(|(parent, children)| parent.eq_ignore_ascii_case(rule) && children.iter().any(|child| child.eq_ignore_ascii_case(event)))
}

/// A logsource as a person reads it: `product windows, category process_creation`.
pub(super) fn describe(logsource: &SigmaLogsource) -> String {
    let named: Vec<String> = [("product", &logsource.product), ("service", &logsource.service), ("category", &logsource.category)]
        .into_iter()
        .filter_map(|(name, value)| value.as_ref().map(|value| format!("{name} {value}")))
        .collect();
    if named.is_empty() { "none".to_owned() } else { named.join(", ") }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn logsource(text: &str) -> SigmaLogsource {
        let mut parts = text.split('/').map(|part| (part != "-").then(|| part.to_owned()));
        let mut next = || parts.next().flatten();
        SigmaLogsource { product: next(), service: next(), category: next() }
    }

    #[test]
    fn a_rule_is_for_an_event_that_has_every_dimension_it_names() {
        for (rule, event, expected) in [
            ("windows/-/process_creation", "windows/sysmon/process_creation", true),
            ("windows/-/process_creation", "Windows/-/Process_Creation", true),
            ("windows/-/-", "windows/security/-", true),
            ("-/-/webserver", "nginx/access/webserver", true),
            ("windows/-/process_creation", "windows/-/-", false),
            ("windows/-/process_creation", "linux/-/process_creation", false),
            ("windows/security/-", "windows/-/process_creation", false),
            ("windows/-/-", "-/-/-", false),
            ("-/-/-", "-/-/-", true),
            ("windows/-/registry_event", "windows/sysmon/registry_set", true),
            ("windows/-/registry_event", "windows/sysmon/registry_event", true),
            ("windows/-/registry_set", "windows/sysmon/registry_event", false),
            ("linux/-/registry_event", "windows/sysmon/registry_set", false),
        ] {
            assert_eq!(fits(&logsource(rule), &logsource(event)), expected, "rule {rule}, event {event}");
        }
    }

    #[test]
    fn a_logsource_names_what_it_has() {
        assert_eq!(describe(&logsource("windows/-/process_creation")), "product windows, category process_creation");
        assert_eq!(describe(&logsource("-/-/-")), "none");
    }
}
