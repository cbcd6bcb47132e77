//! Volumes of the managed servers: what a StatefulSet asks for, and how they grow.
//!
//! The claims of a StatefulSet cannot be changed in it. So the claims that are there grow first; when all have been asked to, the set is
//! taken away without its pods and made anew, and takes them up again. Each step is seen in the cluster, so that it does not matter when
//! the operator ends in between.

use k8s_openapi::{
    api::{
        apps::v1::{StatefulSet, StatefulSetPersistentVolumeClaimRetentionPolicy},
        core::v1::{PersistentVolumeClaim, PersistentVolumeClaimSpec, VolumeResourceRequirements},
    },
    apimachinery::pkg::{api::resource::Quantity, apis::meta::v1::ObjectMeta},
};
use redoubt_crds::{OnDelete, Operation};

use super::{quantity, validate::Volume};

/// The claim of each pod.
pub(crate) fn claim(name: &str, volume: &Volume) -> PersistentVolumeClaim {
    PersistentVolumeClaim {
        metadata: ObjectMeta { name: Some(name.to_owned()), ..ObjectMeta::default() },
        spec: Some(PersistentVolumeClaimSpec {
            access_modes: Some(vec!["ReadWriteOnce".to_owned()]),
            storage_class_name: volume.class.clone(),
            resources: Some(VolumeResourceRequirements {
                requests: Some([("storage".to_owned(), Quantity(volume.size.clone()))].into()),
                limits: None,
            }),
            ..PersistentVolumeClaimSpec::default()
        }),
        status: None,
    }
}

/// What becomes of the volumes. Those of nodes that a smaller set gave up stay: they may be taken up again.
pub(crate) fn retention(volume: &Volume) -> StatefulSetPersistentVolumeClaimRetentionPolicy {
    let when_deleted = match volume.on_delete {
        OnDelete::Retain => "Retain",
        OnDelete::Delete => "Delete",
    };
    StatefulSetPersistentVolumeClaimRetentionPolicy { when_deleted: Some(when_deleted.to_owned()), when_scaled: Some("Retain".to_owned()) }
}

/// Something to do for a larger volume.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Step {
    /// Ask for a larger volume in this claim.
    Grow { claim: String, size: String },
    /// Take this set away, and leave its pods.
    Release { set: String, uid: String },
}

/// How the volumes of a set are on their way to the size that the Siem asks for.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Growth {
    pub(crate) steps: Vec<Step>,
    pub(crate) operations: Vec<Operation>,
    /// The size that the set has to keep for now.
    pub(crate) keeps: Option<String>,
}

/// Decides, given the set and the claims of the namespace.
pub(crate) fn grow(set: Option<&StatefulSet>, claims: &[PersistentVolumeClaim], wanted: &Volume) -> Growth {
    let mut growth = Growth::default();
    let Some(set) = set else { return growth };
    let name = set.metadata.name.clone().unwrap_or_default();
    let prefix = format!("data-{name}-");
    let own = claims.iter().filter_map(|claim| {
        let of_set = claim.metadata.name.as_deref()?.strip_prefix(&prefix)?.parse::<u16>().is_ok();
        of_set.then_some((claim.metadata.name.clone()?, claim))
    });
    let mut resizing = 0_usize;
    for (claim, there) in own {
        let size = |sizes: Option<&std::collections::BTreeMap<String, Quantity>>| quantity::bytes(&sizes?.get("storage")?.0);
        let asked = size(there.spec.as_ref().and_then(|spec| spec.resources.as_ref()?.requests.as_ref()));
        let given = size(there.status.as_ref().and_then(|status| status.capacity.as_ref()));
        if asked < Some(wanted.bytes) {
            growth.steps.push(Step::Grow { claim, size: wanted.size.clone() });
        } else if given.is_some() && given < asked {
            resizing += 1;
        }
    }
    let template = set.spec.as_ref().and_then(|spec| spec.volume_claim_templates.as_ref()?.first()?.spec.as_ref());
    let size = template.and_then(|claim| Some(claim.resources.as_ref()?.requests.as_ref()?.get("storage")?.0.clone()));
    let smaller = size.filter(|size| quantity::bytes(size) < Some(wanted.bytes));
    if let (Some(_), true, Some(uid)) = (&smaller, growth.steps.is_empty(), &set.metadata.uid) {
        growth.steps.push(Step::Release { set: name.clone(), uid: uid.clone() });
    }
    growth.keeps = smaller;
    if !growth.steps.is_empty() || resizing > 0 {
        let waits_for = if growth.steps.is_empty() { "VolumesResized".to_owned() } else { String::new() };
        growth.operations.push(Operation {
            name: "GrowStorage".to_owned(),
            target: name,
            waits_for,
            message: format!("to {}; {resizing} volumes are being made larger", wanted.size),
        });
    }
    growth
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn set(size: &str) -> StatefulSet {
        let template = json!({"metadata": {"name": "data"}, "spec": {"resources": {"requests": {"storage": size}}}});
        let spec = json!({"selector": {}, "serviceName": "x", "template": {}, "volumeClaimTemplates": [template]});
        serde_json::from_value(json!({"metadata": {"name": "soc-broker", "uid": "u"}, "spec": spec})).unwrap()
    }

    fn claim(name: &str, asked: &str, given: &str) -> PersistentVolumeClaim {
        let spec = json!({"resources": {"requests": {"storage": asked}}});
        serde_json::from_value(json!({"metadata": {"name": name}, "spec": spec, "status": {"capacity": {"storage": given}}})).unwrap()
    }

    fn wanted() -> Volume {
        Volume { size: "20Gi".to_owned(), bytes: 20 << 30, class: None, on_delete: OnDelete::Retain }
    }

    #[test]
    fn claims_grow_first_then_the_set_is_made_anew() {
        let grow_second = Step::Grow { claim: "data-soc-broker-1".to_owned(), size: "20Gi".to_owned() };
        let release = Step::Release { set: "soc-broker".to_owned(), uid: "u".to_owned() };
        let cases = [
            ("one claim is small", "10Gi", ["20Gi", "10Gi"], ["20Gi", "10Gi"], vec![grow_second.clone()], Some("10Gi"), Some("")),
            ("all are asked to grow", "10Gi", ["20Gi", "20Gi"], ["20Gi", "10Gi"], vec![release], Some("10Gi"), Some("")),
            ("the set is new", "20Gi", ["20Gi", "20Gi"], ["20Gi", "10Gi"], vec![], None, Some("VolumesResized")),
            ("a claim was left behind", "20Gi", ["20Gi", "10Gi"], ["20Gi", "10Gi"], vec![grow_second], None, Some("")),
            ("all is done", "20480Mi", ["20Gi", "21Gi"], ["20Gi", "21Gi"], vec![], None, None),
        ];

        for (name, size, asked, given, steps, keeps, waits_for) in cases {
            let others = [claim("data-soc-broker-nodes-0", "1Gi", "1Gi"), claim("other", "1Gi", "1Gi")];
            let claims: Vec<_> = (0..2).map(|n| claim(&format!("data-soc-broker-{n}"), asked[n], given[n])).chain(others).collect();

            let growth = grow(Some(&set(size)), &claims, &wanted());

            assert_eq!(growth.steps, steps, "{name}");
            assert_eq!(growth.keeps.as_deref(), keeps, "{name}");
            assert_eq!(growth.operations.first().map(|operation| operation.waits_for.as_str()), waits_for, "{name}");
        }
        assert_eq!(grow(None, &[], &wanted()), Growth::default());
    }
}
