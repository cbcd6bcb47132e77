//! Reading resources from YAML, or as objects of the Kubernetes API, with the place of each field.
//!
//! A file may hold many documents. A document that cannot be read is a [`Diagnostic`] with its line and column; the others of the
//! file stand. What is not of Redoubt's API group is passed over, so that resources may lie beside other manifests.

mod locate;
mod object;
mod secrets;

use std::{fmt, path::Path, path::PathBuf, sync::Arc};

use redoubt_crds::{AlertRule, Enrichment, LogSource, ResponseAction, Siem, Watchlist};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::Value;

use crate::diagnostic::{Diagnostic, Level, Location, Problem};

pub use object::manifest;
pub use secrets::referenced_secrets;

/// The kinds of resources, in the order in which they depend on each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// The installation.
    Siem,
    /// How events come in.
    LogSource,
    /// Sets of values.
    Watchlist,
    /// What happens to events in transit.
    Enrichment,
    /// What is worth an alert.
    AlertRule,
    /// What is done about alerts.
    ResponseAction,
}

impl Kind {
    /// All kinds.
    pub const ALL: [Self; 6] = [Self::Siem, Self::LogSource, Self::Watchlist, Self::Enrichment, Self::AlertRule, Self::ResponseAction];

    /// The name as a manifest writes it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Siem => "Siem",
            Self::LogSource => "LogSource",
            Self::Watchlist => "Watchlist",
            Self::Enrichment => "Enrichment",
            Self::AlertRule => "AlertRule",
            Self::ResponseAction => "ResponseAction",
        }
    }

    /// The kind of a name.
    #[must_use]
    pub fn of(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.as_str() == name)
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// One resource of any kind, without its metadata. It is written as the `spec` that it was read from.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(untagged)]
pub enum Spec {
    /// The installation.
    Siem(Box<redoubt_crds::SiemSpec>),
    /// How events come in.
    LogSource(Box<redoubt_crds::LogSourceSpec>),
    /// Sets of values.
    Watchlist(redoubt_crds::WatchlistSpec),
    /// What happens to events in transit.
    Enrichment(redoubt_crds::EnrichmentSpec),
    /// What is worth an alert. Shared, since there are thousands, and each is kept by whoever read it and by the plan it runs in.
    AlertRule(Arc<redoubt_crds::AlertRuleSpec>),
    /// What is done about alerts.
    ResponseAction(redoubt_crds::ResponseActionSpec),
}

/// A resource and where it was read.
#[derive(Debug, Clone)]
pub struct Resource {
    /// Its kind.
    pub kind: Kind,
    /// `metadata.name`.
    pub name: String,
    /// `metadata.generation`: which version of an object of the Kubernetes API this is. Files have none.
    pub generation: Option<i64>,
    /// What it says.
    pub spec: Spec,
    /// Where it was read.
    pub origin: Origin,
}

/// Where a resource was read: enough to find the place of each of its fields again.
#[derive(Debug, Clone)]
pub struct Origin {
    /// The file, as the user named it.
    pub file: Arc<PathBuf>,
    /// The document's text.
    text: Arc<str>,
    /// How many lines of the file stand before it.
    lines_before: usize,
}

impl Origin {
    /// The place of a problem. Where its field is not written in the file (it is missing, or a default), the nearest field around it.
    #[must_use]
    pub fn locate(&self, problem: &Problem) -> Location {
        self.at(locate::locate(&self.text, &problem.field, problem.within))
    }

    /// Lets go of the text, when no more problems are looked for: every place is then the first line of the document.
    pub fn forget_text(&mut self) {
        self.text = Arc::default();
    }

    fn at(&self, (line, column): (usize, usize)) -> Location {
        Location { file: Arc::clone(&self.file), line: line + self.lines_before, column }
    }
}

/// The resources of one file, and what was wrong with it.
#[derive(Debug, Clone, Default)]
pub struct File {
    /// What could be read.
    pub resources: Vec<Resource>,
    /// What could not.
    pub diagnostics: Vec<Diagnostic>,
    /// Resources whose names are known and whose specs make no sense: they are there, and not in `resources`.
    pub refused: Vec<(Kind, String)>,
    /// Whether some document could not be read so far that its name is known: resources of this file may be missing from `resources`.
    pub incomplete: bool,
}

/// Reads the resources of one file.
#[must_use]
pub fn read(path: &Path, text: &str) -> File {
    let path = Arc::new(path.to_owned());
    let mut file = File::default();
    for (lines_before, document) in locate::documents(text) {
        let origin = Origin { file: Arc::clone(&path), text: Arc::from(document), lines_before };
        file.add(match serde_saphyr::from_str::<Value>(document) {
            Ok(value) => read_document(&origin, value),
            Err(error) => Err(vec![not_yaml(&origin, &error)]),
        });
    }
    file
}

/// Reads one object of the Kubernetes API: what [`read`] makes of its [`manifest`] in a file called `KIND/NAME`. A spec that is not there
/// is `null`.
#[must_use]
pub fn read_object(kind: Kind, name: &str, generation: Option<i64>, spec: Value) -> File {
    let value = object::with_head(kind, name, generation, spec);
    let text = object::to_yaml(&value);
    read_whole(kind, name, value, &text)
}

/// The same with the places of another text of the object, such as people have before them. In an empty text every place is its first line.
#[must_use]
pub fn read_object_as(kind: Kind, name: &str, generation: Option<i64>, spec: Value, text: &str) -> File {
    read_whole(kind, name, object::with_head(kind, name, generation, spec), text)
}

fn read_whole(kind: Kind, name: &str, value: Value, text: &str) -> File {
    let path = Path::new(kind.as_str()).join(name);
    let origin = Origin { file: Arc::new(path), text: text.into(), lines_before: 0 };
    let mut file = File::default();
    file.add(read_document(&origin, value));
    file
}

impl File {
    fn add(&mut self, document: Result<Option<Resource>, Vec<Diagnostic>>) {
        match document {
            Ok(resource) => self.resources.extend(resource),
            Err(found) => {
                for diagnostic in &found {
                    match &diagnostic.resource {
                        Some((kind, name)) => self.refused.extend(Kind::of(kind).map(|kind| (kind, name.clone()))),
                        None => self.incomplete = true,
                    }
                }
                self.diagnostics.extend(found);
            }
        }
    }
}

fn read_document(origin: &Origin, value: Value) -> Result<Option<Resource>, Vec<Diagnostic>> {
    let text = |path: &str| value.pointer(path).and_then(Value::as_str).unwrap_or_default().to_owned();
    let api_version = text("/apiVersion");
    let kind_name = text("/kind");
    let refuse = |resource: Option<(String, String)>, problem: Problem| {
        vec![Diagnostic {
            level: Level::Error,
            location: origin.locate(&problem),
            resource,
            field: problem.field,
            message: problem.message,
            remedy: problem.remedy,
        }]
    };
    if value.is_null() {
        return Ok(None);
    }
    if value.get("detection").is_some() && api_version.is_empty() {
        let problem = Problem::new("", "this is a Sigma rule, not a resource", "turn it into an AlertRule with `redoubt import sigma`");
        return Err(refuse(None, problem));
    }
    if api_version.is_empty() || kind_name.is_empty() {
        let problem = Problem::new("", "apiVersion or kind is missing", "begin with `apiVersion: redoubt.dev/v1alpha1` and a `kind`");
        return Err(refuse(None, problem));
    }
    let Some((redoubt_crds::GROUP, version)) = api_version.split_once('/') else {
        return Ok(None);
    };
    if version != redoubt_crds::VERSION {
        let problem = Problem::new("apiVersion", format!("version {version} is not known"), format!("use {}", redoubt_crds::API_VERSION));
        return Err(refuse(None, problem));
    }
    let Some(kind) = Kind::of(&kind_name) else {
        let known = Kind::ALL.map(Kind::as_str).join(", ");
        return Err(refuse(None, Problem::new("kind", format!("{kind_name:?} is no kind of Redoubt"), format!("the kinds are {known}"))));
    };
    let name = text("/metadata/name");
    if !is_dns_name(&name) {
        let message = if name.is_empty() { "the resource has no name".to_owned() } else { format!("{name:?} is not a name") };
        let remedy = "use lower-case letters, digits, '-' and '.', at most 253 of them, a letter or digit first and last";
        return Err(refuse(None, Problem::new("metadata.name", message, remedy)));
    }
    let generation = value.pointer("/metadata/generation").and_then(Value::as_i64);
    let identity = Some((kind.as_str().to_owned(), name.clone()));
    let violations = redoubt_crds::validate(kind.as_str(), &value);
    let spec = read_spec(kind, value, origin).map_err(|diagnostic| vec![Diagnostic { resource: identity.clone(), ..*diagnostic }])?;
    if !violations.is_empty() {
        return Err(violations
            .into_iter()
            .flat_map(|violation| refuse(identity.clone(), Problem::new(violation.field, violation.message, "")))
            .collect());
    }
    Ok(Some(Resource { kind, name, generation, spec, origin: origin.clone() }))
}

fn read_spec(kind: Kind, value: Value, origin: &Origin) -> Result<Spec, Box<Diagnostic>> {
    Ok(match kind {
        Kind::Siem => Spec::Siem(Box::new(typed::<Siem>(value, origin)?.spec)),
        Kind::LogSource => Spec::LogSource(Box::new(typed::<LogSource>(value, origin)?.spec)),
        Kind::Watchlist => Spec::Watchlist(typed::<Watchlist>(value, origin)?.spec),
        Kind::Enrichment => Spec::Enrichment(typed::<Enrichment>(value, origin)?.spec),
        Kind::AlertRule => Spec::AlertRule(Arc::new(typed::<AlertRule>(value, origin)?.spec)),
        Kind::ResponseAction => Spec::ResponseAction(typed::<ResponseAction>(value, origin)?.spec),
    })
}

/// A value as its type. Only where that fails is the text read a second time, by the type, for the line and column of the fault.
fn typed<T: DeserializeOwned>(value: Value, origin: &Origin) -> Result<T, Box<Diagnostic>> {
    serde_json::from_value(value).map_err(|plain| {
        let located = (!origin.text.is_empty()).then(|| serde_saphyr::from_str::<T>(&origin.text).err()).flatten();
        let (message, place) = located.as_ref().map_or_else(|| (plain.to_string(), (1, 1)), locate::describe);
        Box::new(refusal(origin.at(place), message))
    })
}

fn not_yaml(origin: &Origin, error: &serde_saphyr::Error) -> Diagnostic {
    let (message, place) = locate::describe(error);
    refusal(origin.at(place), format!("not readable as YAML: {message}"))
}

fn refusal(location: Location, message: String) -> Diagnostic {
    Diagnostic { level: Level::Error, resource: None, location, field: String::new(), message, remedy: String::new() }
}

/// A DNS subdomain (RFC 1123), as Kubernetes asks of names.
fn is_dns_name(name: &str) -> bool {
    let inner = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    let edge = |c: Option<char>| c.is_some_and(|c| c.is_ascii_lowercase() || c.is_ascii_digit());
    name.len() <= 253
        && name.split('.').all(|label| edge(label.chars().next()) && edge(label.chars().next_back()) && label.chars().all(inner))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read_text(text: &str) -> File {
        read(Path::new("siem.yaml"), text)
    }

    fn first(file: &File) -> String {
        file.diagnostics.first().map(ToString::to_string).unwrap_or_default()
    }

    const WATCHLIST: &str = "apiVersion: redoubt.dev/v1alpha1\nkind: Watchlist\nmetadata: {name: bad-hosts}\nspec: {match: exact}\n";

    #[test]
    fn each_document_of_a_file_stands_by_itself() {
        let text = format!("{WATCHLIST}---\nkind: [oops\n---\n# nothing here\n---\n{WATCHLIST}");

        let file = read_text(&text);

        assert_eq!(file.resources.len(), 2);
        assert_eq!(file.diagnostics.len(), 1);
        assert!(file.incomplete);
        assert!(file.diagnostics[0].location.line >= 6, "{}", first(&file));
    }

    #[test]
    fn what_is_wrong_is_said_with_its_place_and_a_remedy() {
        for (text, expected) in [
            ("kind: Watchlist\n", "siem.yaml:1:1: apiVersion or kind is missing (begin with"),
            ("title: x\ndetection: {}\n", "siem.yaml:1:1: this is a Sigma rule, not a resource (turn it into an AlertRule with"),
            ("apiVersion: redoubt.dev/v9\nkind: Siem\n", "siem.yaml:1:13: apiVersion: version v9 is not known (use redoubt.dev/v1alpha1)"),
            ("apiVersion: redoubt.dev/v1alpha1\nkind: Wall\n", "siem.yaml:2:7: kind: \"Wall\" is no kind of Redoubt (the kinds are"),
            (
                "apiVersion: redoubt.dev/v1alpha1\nkind: Siem\nmetadata:\n  name: My_Siem\n",
                "siem.yaml:4:9: metadata.name: \"My_Siem\" is not a name (use",
            ),
            (
                "apiVersion: redoubt.dev/v1alpha1\nkind: Watchlist\nmetadata: {name: a}\nspec:\n  match: exact\n  entrys: []\n",
                "siem.yaml:6:3: Watchlist/a: unknown field `entrys`, expected one of match, entries",
            ),
        ] {
            let file = read_text(text);

            assert!(first(&file).starts_with(expected), "expected {expected}\n     got {}", first(&file));
            assert!(!first(&file).contains(" at line "), "the place is told twice: {}", first(&file));
        }
    }

    #[test]
    fn manifests_of_others_are_passed_over() {
        let file = read_text("apiVersion: v1\nkind: ConfigMap\nmetadata: {name: x}\n");

        assert!(file.resources.is_empty());
        assert!(file.diagnostics.is_empty());
    }

    #[test]
    fn places_are_those_of_the_text_that_people_have() {
        let spec = serde_json::json!({"match": "exactly"});
        let read = |text| read_object_as(Kind::Watchlist, "a", Some(1), spec.clone(), text);

        for (text, place) in [("spec:\n  # how\n match: oops\n", "Watchlist/a:3:9: "), ("", "Watchlist/a:1:1: ")] {
            assert!(first(&read(text)).starts_with(place), "{}", first(&read(text)));
            assert_eq!(read(text).refused, [(Kind::Watchlist, "a".to_owned())]);
        }
    }

    #[test]
    fn a_program_in_a_block_is_located_to_its_line() {
        let text = "apiVersion: redoubt.dev/v1alpha1\nkind: Enrichment\nmetadata: {name: e}\nspec:\n  vrl:\n    source: |\n      .a = 1\n      .b = oops\n";
        let file = read_text(text);

        let place = file.resources[0].origin.locate(&Problem::new("spec.vrl.source", "x", "").within(2, 6));

        assert_eq!((place.line, place.column), (8, 12));
    }
}
