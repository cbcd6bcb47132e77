use std::sync::Arc;

use jiff::{SignedDuration, ToSpan as _};
use rustls::{
    RootCertStore,
    client::{WebPkiServerVerifier, danger::ServerCertVerifier as _},
    pki_types::{CertificateDer, ServerName, UnixTime, pem::PemObject as _},
};
use serde_json::json;

use super::*;
use crate::siem::{
    child::Child,
    dereference::Observed,
    testing::{as_applied, now, siem_of, valid},
};

/// The Secrets of the Siem `soc`, given what is there.
fn secrets(there: &Children, now: Timestamp) -> Children {
    let valid = valid(&siem_of(&json!({})), &Observed::default()).unwrap();
    let made = complete(&valid, there, Renewed::default(), now).unwrap();
    as_applied(&made.iter().map(Child::new).collect::<Vec<_>>())
}

fn text(there: &Children, secret: &str, key: &str) -> String {
    String::from_utf8(content(there, secret).unwrap().data[key].clone()).unwrap()
}

/// Whether somebody who trusts `bundle` is content with `certificate` at that time.
fn is_trusted(bundle: &str, certificate: &str, name: &str, now: Timestamp) -> Result<(), rustls::Error> {
    let mut roots = RootCertStore::empty();
    for root in CertificateDer::pem_slice_iter(bundle.as_bytes()) {
        roots.add(root.unwrap()).unwrap();
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let verifier = WebPkiServerVerifier::builder_with_provider(roots.into(), provider).build().unwrap();
    let certificate = CertificateDer::from_pem_slice(certificate.as_bytes()).unwrap();
    let time = UnixTime::since_unix_epoch(std::time::Duration::from_secs(now.as_second().unsigned_abs()));
    verifier.verify_server_cert(&certificate, &[], &ServerName::try_from(name.to_owned()).unwrap(), &[], time).map(drop)
}

#[test]
fn what_is_there_is_kept() {
    let first = secrets(&Children::default(), now());

    assert_eq!(secrets(&first, now() + 30.hours()).0, first.0);
}

/// Without some of the Secrets that were there first, which of all are others than they were.
fn changed_without(lost: &[&str]) -> Vec<String> {
    let first = secrets(&Children::default(), now());
    let mut there = first.clone();
    there.0.retain(|id, _| !lost.contains(&id.name.as_str()));

    let second = secrets(&there, now() + 1.hours());

    first.0.iter().filter(|(id, value)| second.0[id] != **value).map(|(id, _)| id.name.clone()).collect()
}

#[test]
fn a_certificate_that_is_lost_is_made_anew_and_the_others_stay() {
    assert_eq!(changed_without(&["soc-broker-tls"]), ["soc-broker-tls"]);
}

#[test]
fn passwords_and_the_cookie_that_are_lost_are_again_what_the_servers_know() {
    let known = ["soc-broker-user", "soc-broker-admin", "soc-broker-nodes", "soc-store-user", "soc-store-admin"];
    for lost in known.map(|lost| vec![lost]).into_iter().chain([known.to_vec(), vec!["soc-recovery"]]) {
        assert_eq!(changed_without(&lost), [""; 0], "{lost:?}");
    }
}

#[test]
fn without_the_second_copy_others_are_made() {
    assert_eq!(changed_without(&["soc-broker-admin", "soc-recovery"]), ["soc-broker-admin", "soc-broker-nodes", "soc-recovery"]);
}

#[test]
fn certificates_are_for_the_names_by_which_servers_are_called() {
    let there = secrets(&Children::default(), now());
    let cases = [
        ("soc-ingest-tls", "soc-ingest.security.svc", true),
        ("soc-broker-tls", "soc-broker.security.svc", true),
        ("soc-broker-tls", "soc-broker-2.soc-broker-nodes.security.svc", true),
        ("soc-store-tls", "soc-store.security.svc.cluster.local", true),
        ("soc-store-tls", "soc-store-nodes-0.soc-store-nodes.security.svc", true),
        ("soc-store-tls", "soc-broker.security.svc", false),
        ("soc-ingest-tls", "soc-ingest.other.svc", false),
    ];

    for (secret, name, expected) in cases {
        let result = is_trusted(&text(&there, "soc-ca", "ca.crt"), &text(&there, secret, "tls.crt"), name, now());

        assert_eq!(result.is_ok(), expected, "{secret} for {name}: {result:?}");
    }
}

#[test]
fn a_certificate_that_somebody_has_changed_is_made_anew() {
    let mut there = secrets(&Children::default(), now());
    let good = text(&there, "soc-broker-tls", "tls.crt");
    for (id, value) in &mut there.0 {
        if id.name == "soc-broker-tls" {
            value["data"]["tls.crt"] = json!("bm90IG91cnM=");
        }
    }

    let second = secrets(&there, now());

    let certificate = text(&second, "soc-broker-tls", "tls.crt");
    assert!(certificate != good && is_trusted(&text(&second, "soc-ca", "ca.crt"), &certificate, "soc-broker", now()).is_ok());
}

#[test]
fn a_certificate_is_renewed_when_two_thirds_of_its_life_are_over() {
    let first = secrets(&Children::default(), now());
    let renewed = |days: i64| {
        let later = secrets(&first, now() + SignedDuration::from_hours(24 * days));
        text(&later, "soc-ingest-tls", "tls.crt") != text(&first, "soc-ingest-tls", "tls.crt")
    };

    assert_eq!([1, 30, 58, 61, 200].map(renewed), [false, false, false, true, true]);
}

#[test]
fn who_lost_the_authoritys_key_trusts_the_old_certificates_until_they_are_over() {
    let first = secrets(&Children::default(), now());
    let mut there = first.clone();
    there.0.retain(|id, _| id.name != "soc-ca-key");

    let second = secrets(&there, now());

    let bundle = text(&second, "soc-ca", "ca.crt");
    for there in [&first, &second] {
        is_trusted(&bundle, &text(there, "soc-broker-tls", "tls.crt"), "soc-broker", now()).unwrap();
    }
    let much_later = secrets(&second, now() + SignedDuration::from_hours(24 * 91));
    assert_eq!(CertificateDer::pem_slice_iter(text(&much_later, "soc-ca", "ca.crt").as_bytes()).count(), 1);
}

/// Servers and clients see a changed Secret some time after it was written. Whoever is behind, by half a day even, is still understood.
#[test]
fn over_the_years_nobody_is_ever_locked_out() {
    let half_a_day = SignedDuration::from_hours(12);
    let (mut before, mut time) = (secrets(&Children::default(), now()), now());
    let mut authorities = std::collections::BTreeSet::new();

    while time < now() + SignedDuration::from_hours(24 * 365 * 9) {
        time += half_a_day;
        let after = secrets(&before, time);
        for client in [&before, &after] {
            for server in [&before, &after] {
                let (bundle, certificate) = (text(client, "soc-ca", "ca.crt"), text(server, "soc-broker-tls", "tls.crt"));
                is_trusted(&bundle, &certificate, "soc-broker.security.svc", time).unwrap_or_else(|error| panic!("{time}: {error}"));
            }
        }
        authorities.insert(text(&after, "soc-ca-key", "ca.crt"));
        let bundle = text(&after, "soc-ca", "ca.crt");
        assert!(CertificateDer::pem_slice_iter(bundle.as_bytes()).count() <= 2, "{time}: {bundle}");
        before = after;
    }

    assert_eq!(authorities.len(), 5, "an authority is followed by another after two years");
}

#[test]
fn every_secret_is_looked_for_by_its_name() {
    let made: std::collections::BTreeSet<String> = secrets(&Children::default(), now()).0.into_keys().map(|id| id.name).collect();

    assert_eq!(made, crate::siem::name::secrets("soc").into());
}

#[test]
fn no_role_can_read_the_authoritys_key() {
    let valid = valid(&siem_of(&json!({})), &Observed::default()).unwrap();

    let never = [
        valid.owner.siem.authority_key(),
        valid.owner.siem.recovery(),
        valid.owner.siem.broker_admin(),
        valid.owner.siem.store_admin(),
        valid.owner.siem.broker_nodes_secret(),
    ];
    assert!(never.iter().all(|secret| !valid.secrets.contains(secret)), "{:?}", valid.secrets);
}
