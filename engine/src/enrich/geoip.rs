//! The GeoIP step: place and network of addresses, from databases in MaxMind DB format.
//!
//! For each field `X.ip` the step writes `X.geo.*` and `X.as.*` by their ECS names, as far as the databases know them. An address that
//! is private, unknown or no address at all leaves nothing behind: absence is not a place.

#[cfg(test)]
pub(super) mod fixture;

use std::{net::IpAddr, path::Path, sync::Arc};

use maxminddb::{MaxMindDbError, Reader, geoip2};
use redoubt_crds::GeoIp as GeoIpSpec;
use serde_json::{Value, json};

use super::{Assets, path, transit::Transit};
use crate::diagnostic::Problem;

type Database = Reader<Arc<[u8]>>;

/// GeoIP made ready.
pub(super) struct GeoIp {
    city: Option<Database>,
    asn: Option<Database>,
    /// The fields to be read, and the prefix under which to write.
    fields: Vec<(String, String)>,
}

impl GeoIp {
    pub(super) fn compile(spec: &GeoIpSpec, assets: &Assets) -> Result<Self, Vec<Problem>> {
        let mut problems = Vec::new();
        let mut open = |name: Option<&String>, field: &str, kinds: &[&str]| {
            let name = name?;
            match open(name, field, kinds, assets) {
                Ok(database) => Some(database),
                Err(problem) => {
                    problems.push(problem);
                    None
                }
            }
        };
        let city = open(spec.city.as_ref(), "spec.geoip.city", &["City", "Country", "Enterprise"]);
        let asn = open(spec.asn.as_ref(), "spec.geoip.asn", &["ASN"]);
        if spec.city.is_none() && spec.asn.is_none() {
            problems.push(Problem::new("spec.geoip", "no database is named", "name at least one of city and asn"));
        }

        let mut fields = Vec::with_capacity(spec.fields.len());
        for (index, name) in spec.fields.iter().enumerate() {
            let field = format!("spec.geoip.fields[{index}]");
            if let Err(problem) = path::check_read(name, &field) {
                problems.push(problem);
            } else if let Some(prefix) = name.strip_suffix(".ip") {
                fields.push((name.clone(), prefix.to_owned()));
            } else {
                // Anywhere else the place could only be written over the address itself.
                problems.push(Problem::new(
                    field,
                    format!("{name} does not end in .ip, so there is no place beside it for geo and as"),
                    "copy the address to such a field first, in a vrl step of lower order: `.client.ip = .details.addr`",
                ));
            }
        }
        if problems.is_empty() { Ok(Self { city, asn, fields }) } else { Err(problems) }
    }

    /// Looks every field up. Of an array, the first element that a database knows counts.
    ///
    /// # Errors
    /// A database is damaged; nothing has been written then.
    pub(super) fn apply(&self, event: &mut Transit<'_>) -> Result<(), String> {
        let mut found = Vec::new();
        for (field, prefix) in &self.fields {
            let addresses: Vec<IpAddr> =
                event.texts(field).iter().filter_map(|text| text.trim().parse::<IpAddr>().ok()).map(|a| a.to_canonical()).collect();
            if let Some(city) = &self.city {
                add_first(&addresses, |address| place(city, address), &format!("{prefix}.geo"), &mut found)?;
            }
            if let Some(asn) = &self.asn {
                add_first(&addresses, |address| network(asn, address), &format!("{prefix}.as"), &mut found)?;
            }
        }
        for (path, value) in found {
            event.set(&path, value);
        }
        Ok(())
    }
}

/// A field below the prefix, and its value.
type Found = Vec<(&'static str, Value)>;

/// What is known of the first address of which anything is known.
fn add_first(
    addresses: &[IpAddr],
    look_up: impl Fn(IpAddr) -> Result<Found, MaxMindDbError>,
    prefix: &str,
    found: &mut Vec<(String, Value)>,
) -> Result<(), String> {
    for address in addresses {
        let fields = look_up(*address).map_err(|error| format!("the database cannot be read for {address}: {error}"))?;
        if !fields.is_empty() {
            found.extend(fields.into_iter().map(|(name, value)| (format!("{prefix}.{name}"), value)));
            break;
        }
    }
    Ok(())
}

fn place(database: &Database, address: IpAddr) -> Result<Found, MaxMindDbError> {
    let Some(city) = read::<geoip2::City<'_>>(database, address)? else { return Ok(Found::new()) };
    let region = city.subdivisions.first();
    // ECS wants the region as ISO 3166-2 writes it, country first; the database holds the second half.
    let region_code =
        city.country.iso_code.zip(region.and_then(|region| region.iso_code)).map(|(country, code)| format!("{country}-{code}"));
    let location = city.location.latitude.zip(city.location.longitude).map(|(lat, lon)| json!({ "lat": lat, "lon": lon }));

    let texts = [
        ("city_name", city.city.names.english),
        ("continent_code", city.continent.code),
        ("continent_name", city.continent.names.english),
        ("country_iso_code", city.country.iso_code),
        ("country_name", city.country.names.english),
        ("postal_code", city.postal.code),
        ("region_name", region.and_then(|region| region.names.english)),
        ("region_iso_code", region_code.as_deref()),
        ("timezone", city.location.time_zone),
    ];
    let mut found: Found = texts.into_iter().filter_map(|(name, text)| Some((name, Value::from(text?)))).collect();
    found.extend(location.map(|location| ("location", location)));
    Ok(found)
}

fn network(database: &Database, address: IpAddr) -> Result<Found, MaxMindDbError> {
    let Some(asn) = read::<geoip2::Asn<'_>>(database, address)? else { return Ok(Found::new()) };
    let number = asn.autonomous_system_number.map(|number| ("number", number.into()));
    let name = asn.autonomous_system_organization.map(|name| ("organization.name", name.into()));
    Ok(number.into_iter().chain(name).collect())
}

/// The record of an address; `None` where the database has none, or knows IPv4 alone and the address is none.
fn read<'d, T: serde::Deserialize<'d>>(database: &'d Database, address: IpAddr) -> Result<Option<T>, MaxMindDbError> {
    if address.is_ipv6() && database.metadata().ip_version == 4 {
        return Ok(None);
    }
    database.lookup(address)?.decode::<T>()
}

/// Opens a database whose type names one of `kinds`.
fn open(name: &str, field: &str, kinds: &[&str], assets: &Assets) -> Result<Database, Problem> {
    let bytes = assets
        .get(Path::new(name))
        .ok_or_else(|| Problem::new(field, format!("there is no file {name}"), "put the database there, or correct the path"))?;
    let database = Reader::from_source(Arc::clone(bytes))
        .map_err(|error| Problem::new(field, format!("{name} is no MaxMind database: {error}"), "download it again, unpacked, as .mmdb"))?;
    let kind = &database.metadata().database_type;
    if !kinds.iter().any(|known| kind.contains(known)) {
        return Err(Problem::new(
            field,
            format!("{name} is a database of type {kind}"),
            format!("a database of type {} is needed here", kinds.join(" or ")),
        ));
    }
    Ok(database)
}
