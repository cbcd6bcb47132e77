//! What is found in a Watchlist, and what is refused in one.

use std::net::{Ipv4Addr, Ipv6Addr};

use proptest::prelude::*;

use super::*;

fn list(matching: WatchlistMatch, values: &[&str]) -> Result<Watchlist, Vec<Problem>> {
    let entries = values.iter().map(|value| WatchlistEntry { value: (*value).to_owned(), ..WatchlistEntry::default() }).collect();
    Watchlist::compile("it", &WatchlistSpec { matching, entries })
}

fn expiring(matching: WatchlistMatch, values: &[(&str, Option<&str>)]) -> Watchlist {
    let entries = values
        .iter()
        .map(|(value, expires)| WatchlistEntry {
            value: (*value).to_owned(),
            expires: expires.map(str::to_owned),
            ..WatchlistEntry::default()
        })
        .collect();
    Watchlist::compile("it", &WatchlistSpec { matching, entries }).unwrap()
}

fn found<'w>(list: &'w Watchlist, value: &str) -> Option<&'w str> {
    list.get(value, 0).map(|entry| entry.value.as_str())
}

#[test]
fn an_exact_list_does_not_mind_the_case_of_letters() {
    let list = list(WatchlistMatch::Exact, &["Mallory", "ÉVE", "D41D8CD9"]).unwrap();

    for (value, expected) in
        [("mallory", Some("Mallory")), ("éve", Some("ÉVE")), (" d41d8cd9 ", Some("D41D8CD9")), ("mall", None), ("", None)]
    {
        assert_eq!(found(&list, value), expected, "{value}");
    }
}

#[test]
fn a_cidr_list_answers_with_the_longest_prefix() {
    let list = list(
        WatchlistMatch::Cidr,
        &["0.0.0.0/0", "10.0.0.0/8", "10.1.0.0/16", "10.1.2.3", "2001:db8::/32", "2001:db8:1::/48", "::ffff:172.16.0.0/108"],
    )
    .unwrap();

    for (value, expected) in [
        ("10.1.2.3", Some("10.1.2.3")),
        ("::ffff:10.1.2.3", Some("10.1.2.3")),
        ("10.1.9.9", Some("10.1.0.0/16")),
        ("10.9.9.9", Some("10.0.0.0/8")),
        ("192.0.2.1", Some("0.0.0.0/0")),
        ("172.17.0.1", Some("::ffff:172.16.0.0/108")),
        ("2001:db8:1::9", Some("2001:db8:1::/48")),
        ("2001:DB8:2::9", Some("2001:db8::/32")),
        ("2001:db9::1", None),
        ("example.com", None),
    ] {
        assert_eq!(found(&list, value), expected, "{value}");
    }
}

#[test]
fn a_domain_list_answers_with_the_longest_suffix_on_label_borders() {
    let list = list(WatchlistMatch::DomainSuffix, &["example.com", "Bad.Example.com.", "test"]).unwrap();

    for (value, expected) in [
        ("example.com", Some("example.com")),
        ("EXAMPLE.com.", Some("example.com")),
        ("www.example.com", Some("example.com")),
        ("a.bad.example.com", Some("Bad.Example.com.")),
        ("notexample.com", None),
        ("com", None),
        ("x.test", Some("test")),
        ("", None),
        ("a..example.com", None),
    ] {
        assert_eq!(found(&list, value), expected, "{value}");
    }
    assert_eq!(found(&list, &format!("{}.example.com", ["a"; 130].join("."))), None, "longer than a name can be");
}

#[test]
fn an_expired_entry_gives_way_to_the_next_less_specific_one() {
    let soon = Some("1970-01-01T00:00:01Z");
    let cidr = expiring(WatchlistMatch::Cidr, &[("10.0.0.0/8", None), ("10.1.0.0/16", soon)]);
    let domain = expiring(WatchlistMatch::DomainSuffix, &[("example.com", None), ("bad.example.com", soon)]);
    let exact = expiring(WatchlistMatch::Exact, &[("eve", soon)]);

    for (list, value, before, after) in [
        (&cidr, "10.1.0.1", Some("10.1.0.0/16"), Some("10.0.0.0/8")),
        (&domain, "bad.example.com", Some("bad.example.com"), Some("example.com")),
        (&exact, "eve", Some("eve"), None),
    ] {
        assert_eq!(list.get(value, 999).map(|entry| entry.value.as_str()), before, "{value}");
        assert_eq!(list.get(value, 1000).map(|entry| entry.value.as_str()), after, "{value}");
    }
}

#[test]
fn what_is_not_of_the_lists_kind_is_refused() {
    for (matching, value, message) in [
        (WatchlistMatch::Cidr, "10.0.0.0/33", "neither a CIDR nor an address"),
        (WatchlistMatch::Cidr, "example.com", "neither a CIDR nor an address"),
        (WatchlistMatch::Cidr, "10.0.0.1/8", "bits set past its prefix"),
        (WatchlistMatch::DomainSuffix, "*.example.com", "no domain name"),
        (WatchlistMatch::DomainSuffix, "https://example.com/", "no domain name"),
        (WatchlistMatch::DomainSuffix, ".", "no domain name"),
    ] {
        let problems = list(matching, &["192.0.2.7", value]).err().unwrap_or_else(|| panic!("{value} is taken"));

        let problem = problems.iter().find(|problem| problem.field == "spec.entries[1].value").unwrap();
        assert!(problem.message.contains(message), "{problem:?}");
        assert!(problem.remedy.contains("write"), "{problem:?}");
    }
}

#[test]
fn the_same_value_twice_is_refused_with_both_places() {
    for (matching, first, second) in [
        (WatchlistMatch::Exact, "Eve", "eve "),
        (WatchlistMatch::Cidr, "10.0.0.1", "10.0.0.1/32"),
        (WatchlistMatch::Cidr, "10.0.0.0/8", "::ffff:10.0.0.0/104"),
        (WatchlistMatch::DomainSuffix, "example.com", "EXAMPLE.com."),
    ] {
        let problems = list(matching, &["192.0.2.7", first, second]).unwrap_err();

        assert_eq!(problems.len(), 1);
        assert_eq!(problems[0].field, "spec.entries[2].value");
        assert!(problems[0].message.contains("spec.entries[1].value"), "{problems:?}");
    }
}

#[test]
fn an_expiry_that_is_no_time_is_refused() {
    let entry = WatchlistEntry { value: "a".into(), expires: Some("tomorrow".into()), ..WatchlistEntry::default() };

    let problems = Watchlist::compile("it", &WatchlistSpec { matching: WatchlistMatch::Exact, entries: vec![entry] }).unwrap_err();

    assert_eq!(problems[0].field, "spec.entries[0].expires");
}

proptest! {
    #[test]
    fn the_longest_prefix_is_the_one_that_a_plain_search_finds(
        // Few bits, so that networks often lie within each other.
        networks in prop::collection::btree_map((any::<bool>(), 0_u8..16, 0_u8..=8), any::<bool>(), 0..24),
        address in (any::<bool>(), 0_u8..16),
    ) {
        let ip = |v6: bool, high: u8| -> IpAddr {
            if v6 { Ipv6Addr::new(u16::from(high) << 12, 0, 0, 0, 0, 0, 0, 1).into() } else { Ipv4Addr::new(high << 4, 0, 0, 1).into() }
        };
        let mut networks: Vec<(IpNet, bool)> =
            networks.into_iter().map(|((v6, high, length), live)| (IpNet::new(ip(v6, high), length).unwrap().trunc(), live)).collect();
        networks.sort();
        networks.dedup_by_key(|(network, _)| *network);
        let texts: Vec<(String, Option<&str>)> =
            networks.iter().map(|(network, live)| (network.to_string(), (!live).then_some("1960-01-01T00:00:00Z"))).collect();
        let list = expiring(WatchlistMatch::Cidr, &texts.iter().map(|(text, expires)| (text.as_str(), *expires)).collect::<Vec<_>>());
        let address = ip(address.0, address.1);

        let expected = networks.iter().filter(|(network, live)| *live && network.contains(&address)).max_by_key(|(network, _)| network.prefix_len());

        prop_assert_eq!(found(&list, &address.to_string()).map(str::to_owned), expected.map(|(network, _)| network.to_string()));
    }
}
