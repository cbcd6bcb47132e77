//! Volumes of the managed servers: what a StatefulSet asks for, and how they grow.

use k8s_openapi::{
    api::{
        apps::v1::StatefulSetPersistentVolumeClaimRetentionPolicy,
        core::v1::{PersistentVolumeClaim, PersistentVolumeClaimSpec, VolumeResourceRequirements},
    },
    apimachinery::pkg::{api::resource::Quantity, apis::meta::v1::ObjectMeta},
};
use redoubt_crds::OnDelete;

use super::validate::Volume;

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
