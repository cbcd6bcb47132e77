//! Watchlists made ready for look-ups.
//!
//! A look-up takes the time at which the event was received: an entry counts while that is before its expiry. So the answer for an
//! event stays the same however often and however late it is processed. An expired entry gives way to the next less specific one.

#[cfg(test)]
mod tests;

use std::{
    collections::{HashMap, hash_map},
    fmt,
    net::IpAddr,
    sync::Arc,
};

use ipnet::{IpNet, Ipv4Net};
use jiff::Timestamp;
use prefix_trie::joint::JointPrefixMap;
use redoubt_crds::{WatchlistEntry, WatchlistMatch, WatchlistSpec};

use crate::diagnostic::Problem;

/// Longest value that is looked up in an exact list, in bytes: four for each character that an entry may have.
const MAX_VALUE_BYTES: usize = 4096;
/// Longest domain name, in bytes (RFC 1035, section 2.3.4). Nothing longer is looked up.
const MAX_DOMAIN_BYTES: usize = 253;

/// A Watchlist made ready.
pub struct Watchlist {
    name: Arc<str>,
    entries: Vec<Entry>,
    index: Index,
}

struct Entry {
    spec: WatchlistEntry,
    /// Milliseconds since 1970.
    expires: Option<i64>,
}

/// From a normal form of the value to the entry's place.
enum Index {
    Exact(HashMap<String, usize>),
    Cidr(Box<JointPrefixMap<IpNet, usize>>),
    Domain(HashMap<String, usize>),
}

impl Watchlist {
    /// Makes a Watchlist ready.
    ///
    /// # Errors
    /// Every entry that is not of the list's kind, stands there twice, or whose expiry is no time.
    pub fn compile(name: &str, spec: &WatchlistSpec) -> Result<Self, Vec<Problem>> {
        let mut problems = Vec::new();
        let mut index = match spec.matching {
            WatchlistMatch::Exact => Index::Exact(HashMap::with_capacity(spec.entries.len())),
            WatchlistMatch::Cidr => Index::Cidr(Box::default()),
            WatchlistMatch::DomainSuffix => Index::Domain(HashMap::with_capacity(spec.entries.len())),
        };
        let mut entries = Vec::with_capacity(spec.entries.len());
        for (position, entry) in spec.entries.iter().enumerate() {
            if let Err((message, remedy)) = index.add(&entry.value, position) {
                problems.push(Problem::new(format!("spec.entries[{position}].value"), message, remedy));
            }
            let expires = entry.expires.as_deref().and_then(|text| match text.parse::<Timestamp>() {
                Ok(time) => Some(time.as_millisecond()),
                Err(_) => {
                    problems.push(Problem::new(
                        format!("spec.entries[{position}].expires"),
                        format!("{text:?} is no time"),
                        "write RFC 3339 with a zone, such as 2026-01-31T00:00:00Z",
                    ));
                    None
                }
            });
            entries.push(Entry { spec: entry.clone(), expires });
        }
        if problems.is_empty() { Ok(Self { name: name.into(), entries, index }) } else { Err(problems) }
    }

    /// Name of the resource.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The most specific entry that holds a value and counts at a time in milliseconds since 1970: the time of the event's receipt.
    #[must_use]
    pub fn get(&self, value: &str, at_millis: i64) -> Option<&WatchlistEntry> {
        let live = |position: &usize| {
            let entry = self.entries.get(*position)?;
            entry.expires.is_none_or(|expires| at_millis < expires).then_some(&entry.spec)
        };
        match &self.index {
            Index::Exact(map) if value.len() <= MAX_VALUE_BYTES => map.get(&exact(value)).and_then(live),
            Index::Exact(_) => None,
            Index::Cidr(map) => {
                let address: IpAddr = value.trim().parse().ok()?;
                // The covering networks come shortest first.
                let mut found = None;
                for position in map.cover_values(&IpNet::from(address.to_canonical())) {
                    found = live(position).or(found);
                }
                found
            }
            Index::Domain(map) => {
                let name = domain(value).filter(|name| name.len() <= MAX_DOMAIN_BYTES)?;
                let mut rest = name.as_str();
                loop {
                    if let Some(entry) = map.get(rest).and_then(live) {
                        return Some(entry);
                    }
                    rest = rest.split_once('.')?.1;
                }
            }
        }
    }
}

impl fmt::Debug for Watchlist {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Watchlist").field("name", &self.name).field("entries", &self.entries.len()).finish_non_exhaustive()
    }
}

impl Index {
    /// Adds an entry's value; on failure says what is wrong and what to do.
    fn add(&mut self, value: &str, position: usize) -> Result<(), (String, String)> {
        let earlier = match self {
            Self::Exact(map) => claim(map, exact(value), position),
            Self::Cidr(map) => {
                let network = network(value)?;
                let earlier = map.get(&network).copied();
                if earlier.is_none() {
                    map.insert(network, position);
                }
                earlier
            }
            Self::Domain(map) => {
                let name = domain(value).ok_or_else(|| {
                    (
                        format!("{value:?} is no domain name"),
                        "write names with dots between them, such as example.com; what lies under it is meant too".to_owned(),
                    )
                })?;
                claim(map, name, position)
            }
        };
        match earlier {
            Some(earlier) => Err((
                format!("{value:?} is the same as spec.entries[{earlier}].value"),
                format!("keep one of entries {earlier} and {position}"),
            )),
            None => Ok(()),
        }
    }
}

/// Puts a key into a map that does not hold it yet; else answers who does.
fn claim(map: &mut HashMap<String, usize>, key: String, position: usize) -> Option<usize> {
    match map.entry(key) {
        hash_map::Entry::Occupied(taken) => Some(*taken.get()),
        hash_map::Entry::Vacant(free) => {
            free.insert(position);
            None
        }
    }
}

fn exact(value: &str) -> String {
    value.trim().to_lowercase()
}

/// A CIDR or a bare address; IPv4 addresses written as IPv6 (`::ffff:10.0.0.0/104`) are IPv4.
fn network(value: &str) -> Result<IpNet, (String, String)> {
    let text = value.trim();
    let network = match text.parse::<IpNet>() {
        Ok(network) => network,
        Err(_) => text.parse::<IpAddr>().map(IpNet::from).map_err(|_| {
            (format!("{value:?} is neither a CIDR nor an address"), "write such as 10.0.0.0/8, 2001:db8::/32 or 192.0.2.7".to_owned())
        })?,
    };
    if network != network.trunc() {
        return Err((
            format!("{value} has bits set past its prefix"),
            format!("write {}, or the single address without a prefix", network.trunc()),
        ));
    }
    if let IpNet::V6(v6) = network
        && let Some(prefix) = v6.prefix_len().checked_sub(96)
        && let Some(address) = v6.addr().to_ipv4_mapped()
        && let Ok(v4) = Ipv4Net::new(address, prefix)
    {
        return Ok(IpNet::V4(v4));
    }
    Ok(network)
}

/// A domain name in small letters, without the dot that ends a fully qualified one.
fn domain(value: &str) -> Option<String> {
    let text = value.trim();
    let name = text.strip_suffix('.').unwrap_or(text).to_lowercase();
    let sound = |label: &str| !label.is_empty() && !label.contains(|c: char| c.is_whitespace() || "*/:@".contains(c));
    name.split('.').all(sound).then_some(name)
}
