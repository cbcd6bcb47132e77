//! Resources as documents: the text that lines and columns are counted in, and the ConfigMap that keeps a last good version.
//!
//! The API server keeps neither comments nor the order in which people wrote fields. What they can look at is what
//! `kubectl get KIND NAME -o yaml` prints, so that is what places are told in ([`kubectl`]): the text is made only for a resource of which
//! there is something to tell.

pub(crate) mod kubectl;

use std::collections::BTreeMap;

use k8s_openapi::{
    api::core::v1::ConfigMap,
    apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference},
};
use redoubt_engine::resource::{Kind, manifest};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use super::version::{Kept, Key, Version};
use crate::options::FIELD_MANAGER;

/// The label of ConfigMaps that keep a last good version; its value is the kind in lower case.
pub const KEPT_LABEL: &str = "redoubt.dev/last-good";
/// The key under which such a ConfigMap holds the resource.
pub const KEPT_KEY: &str = "resource.yaml";

/// How many lines [`with_places`] puts before `spec:`.
pub(super) const LINES_BEFORE_SPEC: usize = 4;
/// Longest name of a ConfigMap.
const MAX_NAME: usize = 253;

/// The resource as a text in which places can be told; from `spec:` on it is what kubectl prints.
pub(super) fn with_places(key: &Key, spec: &str) -> String {
    let spec: Value = serde_json::from_str(spec).unwrap_or_default();
    kubectl::print(&json!({
        "apiVersion": redoubt_crds::API_VERSION,
        "kind": key.kind.as_str(),
        "metadata": { "name": &*key.name },
        "spec": spec,
    }))
}

/// The name of the ConfigMap that keeps a resource's last good version.
#[must_use]
pub fn kept_name(key: &Key) -> String {
    let name = format!("redoubt-last-good-{}-{}", key.kind.as_str().to_ascii_lowercase(), key.name);
    if name.len() <= MAX_NAME {
        return name;
    }
    let digest = hex::encode(Sha256::digest(&name));
    // Names are ASCII, and a name may not end in a dot before the digest.
    format!("{}-{}", name[..MAX_NAME - 17].trim_end_matches(['.', '-']), &digest[..16])
}

/// The ConfigMap that keeps a version of a resource, for the workers' next start. It goes with the resource.
pub(super) fn kept_config_map(key: &Key, uid: &str, good: &Version) -> ConfigMap {
    let spec: Value = serde_json::from_str(&good.spec).unwrap_or_default();
    let resource = manifest(key.kind, &key.name, Some(good.generation), spec);
    let owner = OwnerReference {
        api_version: redoubt_crds::API_VERSION.to_owned(),
        kind: key.kind.as_str().to_owned(),
        name: key.name.to_string(),
        uid: uid.to_owned(),
        ..OwnerReference::default()
    };
    let labels = [
        ("app.kubernetes.io/name", "redoubt".to_owned()),
        ("app.kubernetes.io/managed-by", FIELD_MANAGER.to_owned()),
        (KEPT_LABEL, key.kind.as_str().to_ascii_lowercase()),
    ];
    ConfigMap {
        metadata: ObjectMeta {
            name: Some(kept_name(key)),
            labels: Some(labels.map(|(name, value)| (name.to_owned(), value)).into()),
            owner_references: Some(vec![owner]),
            ..ObjectMeta::default()
        },
        data: Some(BTreeMap::from([(KEPT_KEY.to_owned(), resource)])),
        ..ConfigMap::default()
    }
}

/// The last good version that a ConfigMap keeps; `None` where it is none of ours.
pub(super) fn read_config_map(map: &ConfigMap) -> Option<Kept> {
    let resource: Value = serde_saphyr::from_str(map.data.as_ref()?.get(KEPT_KEY)?).ok()?;
    let kind = Kind::of(resource.get("kind")?.as_str()?)?;
    let metadata = resource.get("metadata")?;
    let key = Key { kind, name: metadata.get("name")?.as_str()?.into() };
    let version = map.metadata.resource_version.as_deref().and_then(|version| version.parse().ok()).unwrap_or(0);
    let owner = map.metadata.owner_references.as_ref()?.iter().find(|owner| owner.kind == kind.as_str())?;
    let good = Version { generation: metadata.get("generation")?.as_i64()?, spec: resource.get("spec")?.to_string().into() };
    let kept = Kept { uid: owner.uid.as_str().into(), good, version, key };
    (map.metadata.name.as_deref() == Some(&kept_name(&kept.key))).then_some(kept)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(name: &str) -> Key {
        Key { kind: Kind::AlertRule, name: name.into() }
    }

    fn version(spec: String) -> Version {
        Version { generation: 7, spec: spec.into() }
    }

    #[test]
    fn a_kept_version_is_read_as_it_was_written() {
        for spec in [
            json!({"sigma": {"title": "t", "detection": {"s": {"a": ["yes", "0x1f", "~", "1_000", "", "a: b", "# c"]}}}}),
            json!({"description": "two\nlines\n", "when": "\u{2028} \u{7f} \t", "numbers": [1, 1.5, -0.0, 1e300]}),
            json!({"on": "off", "1": {"null": null, "x": [], "y": {}, "z": [[1], [{"a": 1}]]}}),
        ] {
            let mut map = kept_config_map(&key("r"), "uid-1", &version(spec.to_string()));
            map.metadata.resource_version = Some("42".to_owned());

            let kept = read_config_map(&map).unwrap();

            assert_eq!((kept.key, &*kept.uid, kept.good.generation, kept.version), (key("r"), "uid-1", 7, 42));
            assert_eq!(serde_json::from_str::<Value>(&kept.good.spec).unwrap(), spec);
        }
    }

    #[test]
    fn a_config_map_of_another_name_is_none_of_ours() {
        let mut map = kept_config_map(&key("r"), "uid-1", &version("{}".to_owned()));
        map.metadata.name = Some("redoubt-last-good-alertrule-other".to_owned());

        assert_eq!(read_config_map(&map), None);
    }

    #[test]
    fn a_long_name_is_cut_and_stays_its_own() {
        let long = |end: &str| kept_name(&key(&format!("{}{end}", "a.b".repeat(83))));

        assert_eq!(kept_name(&key("r")), "redoubt-last-good-alertrule-r");
        assert!(long("x").len() <= MAX_NAME, "{}", long("x"));
        assert_ne!(long("x"), long("y"));
    }

    #[test]
    fn the_spec_begins_where_lines_are_counted_from() {
        let text = with_places(&key("r"), r#"{"a": 1}"#);

        assert_eq!(text.lines().nth(LINES_BEFORE_SPEC), Some("spec:"));
    }
}
