use std::path::Path;

use serde_json::{Map, Value, json};

use super::*;
use crate::resource::{self, Kind};

fn secrets_of(manifest: &str) -> Vec<String> {
    let file = resource::read(Path::new("resource.yaml"), manifest);
    assert!(file.diagnostics.is_empty(), "{:?}", file.diagnostics);
    referenced_secrets(&file.resources[0].spec).into_iter().collect()
}

#[test]
fn a_resource_refers_to_the_secrets_that_it_names() {
    for (kind, spec, expected) in [
        ("Siem", "{}", &[][..]),
        ("Siem", "{ingest: {tls: {name: web}}}", &["web"]),
        (
            "Siem",
            "{broker: {external: {urls: ['amqps://mq:5671'], credentialsSecretRef: {name: mq}, \
             tls: {caSecretRef: {name: ca, key: ca.crt}, clientCertificateSecretRef: {name: us}}}}}",
            &["ca", "mq", "us"],
        ),
        (
            "Siem",
            "{store: {external: {urls: ['https://es:9200'], apiKeySecretRef: {name: es, key: key}, tls: {caSecretRef: {name: ca, key: c}}}}}",
            &["ca", "es"],
        ),
        ("LogSource", "{http: {auth: {bearer: {name: tokens, key: app}, basic: {name: users, key: app}}}}", &["tokens", "users"]),
        ("LogSource", "{http: {auth: {bearer: {name: both, key: a}, basic: {name: both, key: b}}}}", &["both"]),
        ("LogSource", "{syslog: {tcpPort: 6514, tls: {name: syslog}}}", &["syslog"]),
        ("LogSource", "{amqp: {urls: ['amqp://mq:5672'], queue: q, credentialsSecretRef: {name: theirs}}}", &["theirs"]),
        (
            "ResponseAction",
            "{webhook: {urlSecretRef: {name: chat, key: url}, signingSecretRef: {name: signing, key: key}}}",
            &["chat", "signing"],
        ),
        ("ResponseAction", "{log: {}}", &[]),
        ("Watchlist", "{match: exact}", &[]),
    ] {
        let manifest = format!("apiVersion: redoubt.dev/v1alpha1\nkind: {kind}\nmetadata: {{name: r}}\nspec: {spec}\n");

        assert_eq!(secrets_of(&manifest), expected, "{kind} {spec}");
    }
}

/// What an ingress controller reads, and no role.
const OF_OTHERS: &str = "spec.ingest.ingress.tls";

/// The examples are filled in from the schemas, so a new reference in any of them is in here by itself.
#[test]
fn no_reference_that_a_schema_has_is_passed_over() {
    let mut all = 0;
    for definition in redoubt_crds::definitions() {
        let schema = serde_json::to_value(&definition.spec.versions[0].schema).unwrap();
        let mut example = Example::default();
        let spec = example.of(&schema["openAPIV3Schema"]["properties"]["spec"], "spec");

        let kind = Kind::of(&definition.spec.names.kind).unwrap();
        let found = referenced_secrets(&typed(kind, spec));

        assert_eq!(found, example.references, "{kind}");
        all += found.len();
    }
    assert!(all >= 16, "the schemas had 16 references when this was written, and {all} were found in them");
}

fn typed(kind: Kind, spec: Value) -> Spec {
    match kind {
        Kind::Siem => Spec::Siem(serde_json::from_value(spec).unwrap()),
        Kind::LogSource => Spec::LogSource(serde_json::from_value(spec).unwrap()),
        Kind::Watchlist => Spec::Watchlist(serde_json::from_value(spec).unwrap()),
        Kind::Enrichment => Spec::Enrichment(serde_json::from_value(spec).unwrap()),
        Kind::AlertRule => Spec::AlertRule(std::sync::Arc::new(serde_json::from_value(spec).unwrap())),
        Kind::ResponseAction => Spec::ResponseAction(serde_json::from_value(spec).unwrap()),
    }
}

/// An example of a schema with every Secret that it lets name, each called by the path of its field.
#[derive(Default)]
struct Example {
    references: BTreeSet<String>,
}

impl Example {
    fn of(&mut self, schema: &Value, path: &str) -> Value {
        if is_reference(schema) {
            if path != OF_OTHERS {
                self.references.insert(path.to_owned());
            }
            let mut reference = json!({"name": path});
            if schema["properties"].get("key").is_some() {
                reference["key"] = json!("key");
            }
            return reference;
        }
        assert!(!path.ends_with("SecretRef"), "{path} looks like a reference, and its schema is not known as one");
        if let Some(choices) = schema["enum"].as_array() {
            return choices[0].clone();
        }
        match schema["type"].as_str() {
            Some("object") => self.object(schema, path),
            Some("array") => json!([self.of(&schema["items"], &format!("{path}[]"))]),
            Some("integer" | "number") => json!(1),
            Some("boolean") => json!(false),
            // A text that is a duration, a quantity and a name.
            _ => json!("1m"),
        }
    }

    fn object(&mut self, schema: &Value, path: &str) -> Value {
        let no_fields = Map::new();
        let fields = schema["properties"].as_object().unwrap_or(&no_fields);
        fields.iter().map(|(name, field)| (name.clone(), self.of(field, &format!("{path}.{name}")))).collect::<Map<_, _>>().into()
    }
}

/// Whether a schema is that of one of the three types of references: their names have the same description.
fn is_reference(schema: &Value) -> bool {
    schema["properties"]["name"]["description"] == "Name of the Secret."
}
