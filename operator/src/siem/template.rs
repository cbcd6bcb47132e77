//! Pods of the managed servers are replaced when the Siem asks for something else, and not because a new release of the operator would make
//! them differently: that waits until `spec.templateRevision` is raised.
//!
//! What the pods of a StatefulSet were made from is kept in its annotations. While a release waits, they are made from that.

use k8s_openapi::api::{apps::v1::StatefulSet, core::v1::PodTemplateSpec};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::digest;

/// Annotation of a pod: the settings that it read at its start.
pub(crate) const CONFIG: &str = "redoubt.dev/config";
/// Annotation of a StatefulSet: what its pods are made from, as JSON.
const MADE_FROM: &str = "redoubt.dev/made-from";
/// Annotation of a StatefulSet: what the Siem asked for then.
const ASKED: &str = "redoubt.dev/asked-for";
/// Annotation of a StatefulSet: the `spec.templateRevision` then.
const REVISION: &str = "redoubt.dev/template-revision";

/// What the pods of a StatefulSet are made from.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct MadeFrom {
    /// Their template.
    pub(crate) template: PodTemplateSpec,
    /// The settings that they read at their start.
    pub(crate) settings: String,
}

/// What the pods of a StatefulSet are to be made from, and why.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Settled {
    pub(crate) made_from: MadeFrom,
    /// Whether this release would make them differently, and waits.
    pub(crate) waits: bool,
    asked: String,
    /// The revision that counts.
    pub(crate) revision: u32,
}

/// Decides between what this release makes and what is there. `asked` is what the Siem itself says of the pods: a release that puts more
/// into it must leave out what has its default, or every set that is there seems to be asked for anew.
pub(crate) fn settle(wanted: MadeFrom, there: Option<&StatefulSet>, asked: &Value, revision: u32) -> Settled {
    let asked = digest::short(asked);
    let fresh = |wanted| Settled { made_from: wanted, waits: false, asked: asked.clone(), revision };
    let annotation = |key: &str| there?.metadata.annotations.as_ref()?.get(key);
    let made_from = annotation(MADE_FROM).and_then(|text| serde_json::from_str::<MadeFrom>(text).ok());
    let made_at = annotation(REVISION).and_then(|text| text.parse::<u32>().ok());
    match (made_from, made_at) {
        (Some(made_from), Some(made_at)) if made_from != wanted && annotation(ASKED) == Some(&asked) && revision <= made_at => {
            Settled { made_from, waits: true, asked, revision: made_at }
        }
        _ => fresh(wanted),
    }
}

impl Settled {
    /// Notes in the StatefulSet what its pods are made from.
    pub(crate) fn note(&self, set: &mut StatefulSet) {
        // A template is plain data.
        let made_from = serde_json::to_string(&self.made_from).expect("plain data can be written as JSON");
        let notes = [(MADE_FROM, made_from), (ASKED, self.asked.clone()), (REVISION, self.revision.to_string())];
        let annotations = set.metadata.annotations.get_or_insert_default();
        annotations.extend(notes.map(|(key, value)| (key.to_owned(), value)));
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn made(settings: &str) -> MadeFrom {
        MadeFrom { template: PodTemplateSpec::default(), settings: settings.to_owned() }
    }

    fn there(settled: &Settled) -> StatefulSet {
        let mut set = StatefulSet::default();
        settled.note(&mut set);
        set
    }

    #[test]
    fn pods_follow_the_siem_at_once_and_a_release_when_they_may() {
        let (old_release, new_release) = ("one", "two");
        let cases = [
            ("nothing is new", old_release, "asked", 0, (old_release, false)),
            ("the release is new", new_release, "asked", 0, (old_release, true)),
            ("the Siem asks for something else", old_release, "otherwise", 0, (old_release, false)),
            ("both are new", new_release, "otherwise", 0, (new_release, false)),
            ("the revision is raised", new_release, "asked", 1, (new_release, false)),
            ("the revision is raised for nothing", old_release, "asked", 1, (old_release, false)),
        ];
        let before = settle(made(old_release), None, &json!("asked"), 0);
        assert_eq!((&*before.made_from.settings, before.waits), (old_release, false));

        for (name, release, asked, revision, expected) in cases {
            let settled = settle(made(release), Some(&there(&before)), &json!(asked), revision);

            assert_eq!((&*settled.made_from.settings, settled.waits), expected, "{name}");
        }
    }

    #[test]
    fn a_release_waits_for_a_higher_revision_than_that_of_the_pods() {
        let before = settle(made("one"), None, &json!("asked"), 3);

        let same = settle(made("two"), Some(&there(&before)), &json!("asked"), 3);
        assert_eq!((same.waits, same.revision), (true, 3));
        let lower = settle(made("two"), Some(&there(&before)), &json!("asked"), 0);
        assert_eq!((lower.waits, lower.revision), (true, 3));
        let higher = settle(made("two"), Some(&there(&before)), &json!("asked"), 4);
        assert_eq!((higher.waits, higher.revision), (false, 4));
        assert!(!settle(made("two"), Some(&there(&higher)), &json!("asked"), 4).waits);
    }

    #[test]
    fn what_waits_goes_back_to_what_it_was_made_from_when_somebody_changes_it() {
        let before = settle(made("one"), None, &json!("asked"), 0);
        let mut set = there(&before);
        set.spec =
            Some(serde_json::from_value(json!({"selector": {}, "serviceName": "x", "template": {"spec": {"containers": []}}})).unwrap());

        let settled = settle(made("two"), Some(&set), &json!("asked"), 0);

        assert_eq!(settled.made_from, made("one"));
    }
}
