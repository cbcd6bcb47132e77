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
