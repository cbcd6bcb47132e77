//! A LogSource made ready: what is known of each of its events.

use std::{collections::BTreeMap, net::IpAddr, sync::Arc};

use ipnet::IpNet;
use jiff::tz::TimeZone;
use redoubt_crds::{Format, LogSourceSpec, SigmaLogsource, TypedField};

use crate::{
    diagnostic::Problem,
    format::{ecs, logsource::fill_in, windows_logsource, zeek_logsource},
};

/// A LogSource made ready.
#[derive(Debug, Clone)]
pub struct Source {
    /// Name of the resource.
    pub name: Arc<str>,
    /// The format in force.
    pub format: Format,
    /// `event.dataset`.
    pub dataset: String,
    /// The declared Sigma logsource; empty where the format tells it event by event.
    pub logsource: Arc<SigmaLogsource>,
    /// The zone of timestamps that carry none.
    pub timezone: TimeZone,
    /// Networks that may send to a syslog input; empty means all.
    pub allow_from: Vec<IpNet>,
    /// The resource itself.
    pub spec: LogSourceSpec,
    /// Every logsource that the format can tell, in the format's own order, with the declared one over it: made once, so that none
    /// is made for an event.
    pub(crate) logsources: Arc<[Arc<SigmaLogsource>]>,
}

/// Fields that Redoubt writes itself.
const RESERVED: [&str; 5] = ["event.id", "event.dataset", "event.ingested", "log.source.address", "tags"];

impl Source {
    /// Makes a LogSource ready.
    ///
    /// # Errors
    /// Every problem found: an unknown time zone, a malformed CIDR, a field whose path cannot be written, two fields written to one
    /// path.
    pub fn compile(name: &str, spec: &LogSourceSpec) -> Result<Self, Vec<Problem>> {
        let mut problems = Vec::new();
        let timezone = timezone(spec.timezone.as_deref()).unwrap_or_else(|problem| {
            problems.push(problem);
            TimeZone::UTC
        });
        let allow_from = allow_from(spec, &mut problems);
        check_fields(&spec.fields, &mut problems);
        if !problems.is_empty() {
            return Err(problems);
        }

        let format = spec.format.unwrap_or(if spec.syslog.is_some() { Format::Syslog } else { Format::Json });
        let declared = spec.logsource.clone().unwrap_or_default();
        Ok(Self {
            name: name.into(),
            format,
            dataset: spec.dataset.clone().unwrap_or_else(|| name.to_owned()),
            logsources: logsources(format, &declared).into(),
            logsource: Arc::new(declared),
            timezone,
            allow_from,
            spec: spec.clone(),
        })
    }

    /// Whether an address may send to the syslog input.
    #[must_use]
    pub fn allows(&self, sender: IpAddr) -> bool {
        // A dual-stack listener sees IPv4 senders by their mapped addresses.
        let sender = sender.to_canonical();
        self.allow_from.is_empty() || self.allow_from.iter().any(|network| network.contains(&sender))
    }
}

fn logsources(format: Format, declared: &SigmaLogsource) -> Vec<Arc<SigmaLogsource>> {
    match format {
        Format::Windows => windows_logsource::logsources(declared),
        Format::Zeek => zeek_logsource::logsources(declared),
        Format::Cloudtrail => vec![Arc::new(fill_in(declared, "aws", Some("cloudtrail"), None))],
        Format::Json | Format::Ndjson | Format::Mozdef | Format::Syslog | Format::Cef => Vec::new(),
    }
}

fn timezone(name: Option<&str>) -> Result<TimeZone, Problem> {
    let Some(name) = name else { return Ok(TimeZone::UTC) };
    TimeZone::get(name).map_err(|_| {
        let remedy = "name a zone of the IANA database, such as Europe/Berlin or UTC";
        Problem::new("spec.timezone", format!("{name:?} is not a known time zone"), remedy)
    })
}

fn allow_from(spec: &LogSourceSpec, problems: &mut Vec<Problem>) -> Vec<IpNet> {
    let mut networks = Vec::new();
    for (index, text) in spec.syslog.iter().flat_map(|syslog| &syslog.allow_from).enumerate() {
        match text.parse::<IpNet>().or_else(|_| text.parse::<IpAddr>().map(IpNet::from)) {
            Ok(network) => networks.push(network.trunc()),
            Err(_) => problems.push(Problem::new(
                format!("spec.syslog.allowFrom[{index}]"),
                format!("{text:?} is neither an address nor a network"),
                "write an address such as 192.0.2.7, or a network such as 192.0.2.0/24 or 2001:db8::/32",
            )),
        }
    }
    networks
}

fn check_fields(fields: &[TypedField], problems: &mut Vec<Problem>) {
    let mut written: BTreeMap<&str, usize> = BTreeMap::new();
    for (index, field) in fields.iter().enumerate() {
        let to = field.to.as_str();
        let place = format!("spec.fields[{index}].to");
        if field.from.split('.').any(str::is_empty) {
            problems.push(Problem::new(
                format!("spec.fields[{index}].from"),
                format!("{:?} is not a path: a name in it is empty", field.from),
                "write names with dots between them, such as EventData.Image",
            ));
        }
        if to.split('.').any(str::is_empty) {
            let remedy = "write names with dots between them, such as source.ip";
            problems.push(Problem::new(place, format!("{to:?} is not a path: a name in it is empty"), remedy));
            continue;
        }
        if RESERVED.contains(&to) || to == "details" || to.starts_with("details.") {
            let remedy = "choose another field; native fields stay under details in any case";
            problems.push(Problem::new(place, format!("{to} is written by Redoubt itself"), remedy));
            continue;
        }
        if ecs::is_field_set(to) {
            let remedy = "name a field inside it, such as host.name";
            problems.push(Problem::new(place, format!("{to} is a set of fields in the Elastic Common Schema"), remedy));
            continue;
        }
        let clash = written.iter().find(|(other, _)| **other == to || is_inside(to, other) || is_inside(other, to));
        if let Some((other, first)) = clash {
            let message = if *other == to {
                format!("{to} is already written by spec.fields[{first}]")
            } else {
                format!("{to} and {other} of spec.fields[{first}] lie inside each other")
            };
            problems.push(Problem::new(place, message, "give each field a path of its own"));
            continue;
        }
        written.insert(to, index);
    }
}

fn is_inside(path: &str, outer: &str) -> bool {
    path.strip_prefix(outer).is_some_and(|rest| rest.starts_with('.'))
}

#[cfg(test)]
mod tests;
