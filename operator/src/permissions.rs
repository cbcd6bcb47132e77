//! What the operator has to be allowed: the list that the chart makes its Role of, taken apart.

use std::fmt;

use serde::Deserialize;

/// One thing that the operator does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Permission {
    /// The API group; empty for Kubernetes' core.
    pub group: String,
    /// The plural name of the kind.
    pub resource: String,
    /// A part of the object, such as `status`.
    pub subresource: Option<String>,
    /// What is done to it.
    pub verb: String,
}

impl fmt::Display for Permission {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.verb, self.resource)?;
        if !self.group.is_empty() {
            write!(f, ".{}", self.group)?;
        }
        self.subresource.iter().try_for_each(|part| write!(f, "/{part}"))
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Rule {
    api_groups: Vec<String>,
    resources: Vec<String>,
    verbs: Vec<String>,
}

/// All of it.
///
/// # Panics
/// Never: a test reads the same list.
#[must_use]
pub fn permissions() -> Vec<Permission> {
    let rules: Vec<Rule> =
        serde_yaml::from_str(include_str!("../../charts/redoubt/permissions.yaml")).expect("the chart's list of permissions is valid");
    let mut all = Vec::new();
    for Rule { api_groups, resources, verbs } in &rules {
        for (group, resource) in api_groups.iter().flat_map(|group| resources.iter().map(move |resource| (group, resource))) {
            let (resource, subresource) = match resource.split_once('/') {
                Some((resource, part)) => (resource, Some(part.to_owned())),
                None => (resource.as_str(), None),
            };
            all.extend(verbs.iter().map(|verb| Permission {
                group: group.clone(),
                resource: resource.to_owned(),
                subresource: subresource.clone(),
                verb: verb.clone(),
            }));
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said() -> Vec<String> {
        permissions().iter().map(ToString::to_string).collect()
    }

    #[test]
    fn each_verb_on_each_resource_is_one_permission() {
        let said = said();

        for expected in ["watch secrets", "patch siems.redoubt.dev/status", "delete statefulsets.apps"] {
            assert_eq!(said.iter().filter(|permission| *permission == expected).count(), 1, "{expected}");
        }
    }

    #[test]
    fn nothing_is_allowed_in_general_and_nobody_is_given_more_than_the_operator_has() {
        for permission in said() {
            assert!(!permission.contains('*'), "{permission}");
            for verb in ["escalate", "bind", "impersonate"] {
                assert!(!permission.starts_with(verb), "{permission}");
            }
        }
    }

    #[test]
    fn no_spec_is_ever_written() {
        for definition in redoubt_crds::definitions() {
            let resource = format!("{}.{}", definition.spec.names.plural, redoubt_crds::GROUP);
            let written: Vec<String> = said().into_iter().filter(|permission| permission.ends_with(&resource)).collect();

            assert_eq!(written, ["get", "list", "watch"].map(|verb| format!("{verb} {resource}")));
        }
    }
}
