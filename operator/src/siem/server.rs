//! What the StatefulSets of the managed servers have in common: their nodes start side by side, keep a volume each, and stay as they are
//! until the operator deletes their pods one by one.

use std::collections::BTreeMap;

use k8s_openapi::{
    api::{
        apps::v1::{StatefulSet, StatefulSetSpec, StatefulSetUpdateStrategy},
        core::v1::{KeyToPath, PodSpec, PodTemplateSpec, ProjectedVolumeSource, SecretProjection, Volume, VolumeProjection},
    },
    apimachinery::pkg::apis::meta::v1::{LabelSelector, ObjectMeta},
};

use super::{
    digest,
    pod::{self, User},
    template::{CONFIG, Settled},
    validate, volume,
};

/// Time for a node to stop, in seconds.
const GRACE: i64 = 120;

/// A set of so many nodes, with what its pods are made from.
pub(crate) fn stateful_set(
    metadata: ObjectMeta,
    replicas: u16,
    (service, selector): (String, LabelSelector),
    volume: &validate::Volume,
    settled: &Settled,
) -> StatefulSet {
    let mut built = StatefulSet {
        metadata,
        spec: Some(StatefulSetSpec {
            replicas: Some(i32::from(replicas)),
            service_name: Some(service),
            selector,
            pod_management_policy: Some("Parallel".to_owned()),
            update_strategy: Some(StatefulSetUpdateStrategy { type_: Some("OnDelete".to_owned()), rolling_update: None }),
            persistent_volume_claim_retention_policy: Some(volume::retention(volume)),
            volume_claim_templates: Some(vec![volume::claim("data", volume)]),
            template: settled.made_from.template.clone(),
            revision_history_limit: Some(3),
            ..StatefulSetSpec::default()
        }),
        status: None,
    };
    settled.note(&mut built);
    built
}

/// The template of a node's pod: `spec` is what one server has and the other has not.
pub(crate) fn template(
    labels: BTreeMap<String, String>,
    settings: &str,
    (account, user, like): (String, User, LabelSelector),
    spec: PodSpec,
) -> PodTemplateSpec {
    PodTemplateSpec {
        metadata: Some(ObjectMeta {
            labels: Some(labels),
            annotations: Some([(CONFIG.to_owned(), digest::of_bytes(settings.as_bytes()))].into()),
            ..ObjectMeta::default()
        }),
        spec: Some(PodSpec {
            service_account_name: Some(account),
            automount_service_account_token: Some(false),
            enable_service_links: Some(false),
            security_context: Some(pod::pod_security(user)),
            affinity: Some(pod::apart(like)),
            termination_grace_period_seconds: Some(GRACE),
            ..spec
        }),
    }
}

/// Keys, and the files that they become.
pub(crate) fn files(files: &[(&str, &str)]) -> Option<Vec<KeyToPath>> {
    let file = |(key, path): &(&str, &str)| KeyToPath { key: (*key).to_owned(), path: (*path).to_owned(), mode: None };
    Some(files.iter().map(file).collect())
}

/// Files from a Secret.
pub(crate) fn secret(name: String, keys: &[(&str, &str)]) -> VolumeProjection {
    VolumeProjection { secret: Some(SecretProjection { name, items: files(keys), optional: None }), ..VolumeProjection::default() }
}

/// A volume of such files, for the server alone.
pub(crate) fn projected(name: &str, sources: Vec<VolumeProjection>) -> Volume {
    let source = ProjectedVolumeSource { default_mode: Some(0o440), sources: Some(sources) };
    Volume { name: name.to_owned(), projected: Some(source), ..Volume::default() }
}
