//! Certificates of servers, signed by the SIEM's own authority: made once, and again when two thirds of their life are over, when their
//! names or their authority change, or when somebody has changed what the Secret holds.

use std::collections::BTreeMap;

use jiff::Timestamp;
use rcgen::{CertificateParams, ExtendedKeyUsagePurpose, KeyPair, KeyUsagePurpose};

use super::authority::{Authority, LIFE_OF_SIGNED, NotIssued, common_name, days_after, set_validity, two_thirds};
use crate::siem::digest;

/// Annotation: when the certificate began to count.
const FROM: &str = "redoubt.dev/not-before";
/// Annotation: when it ends.
const UNTIL: &str = "redoubt.dev/not-after";
/// Annotation: what it was made for and by whom, and what came of it. Another one means that it must be made again.
const MADE_OF: &str = "redoubt.dev/made-of";

/// Keys of the Secret, which is of the type `kubernetes.io/tls`.
const CERTIFICATE: &str = "tls.crt";
const KEY: &str = "tls.key";

/// What a Secret holds.
#[derive(Clone, Default, PartialEq, Eq)]
pub(crate) struct Content {
    pub(crate) annotations: BTreeMap<String, String>,
    pub(crate) data: BTreeMap<String, Vec<u8>>,
}

/// What a certificate is for.
#[derive(Debug, Clone)]
pub(crate) struct Purpose {
    /// By which names its server is called.
    pub(crate) names: Vec<String>,
    /// Whether its server shows it as a client too: nodes of a cluster do, to each other.
    pub(crate) mutual: bool,
}

/// The Secret as it is to be: as it is, while it is good.
pub(crate) fn keep_or_issue(
    there: Option<Content>,
    purpose: &Purpose,
    authority: &Authority,
    now: Timestamp,
) -> Result<Content, NotIssued> {
    match there.filter(|there| is_good(there, purpose, authority, now)) {
        Some(mut there) => {
            // Annotations of others are theirs.
            there.annotations.retain(|key, _| [FROM, UNTIL, MADE_OF].contains(&key.as_str()));
            there.data.retain(|key, _| [CERTIFICATE, KEY].contains(&key.as_str()));
            Ok(there)
        }
        None => issue(purpose, authority, now),
    }
}

fn is_good(there: &Content, purpose: &Purpose, authority: &Authority, now: Timestamp) -> bool {
    let time = |key: &str| there.annotations.get(key)?.parse::<Timestamp>().ok();
    let (Some(from), Some(until)) = (time(FROM), time(UNTIL)) else { return false };
    now < two_thirds(from, until) && there.annotations.get(MADE_OF) == Some(&made_of(purpose, authority, &there.data))
}

fn issue(purpose: &Purpose, authority: &Authority, now: Timestamp) -> Result<Content, NotIssued> {
    let names = purpose.names.as_slice();
    let (from, until) = (days_after(now, -1), days_after(now, LIFE_OF_SIGNED).min(authority.ends()));
    let mut parameters = CertificateParams::new(names)?;
    // A common name has at most 64 characters, and nobody looks at it: the names are in the extension.
    parameters.distinguished_name = common_name(names.first().map_or("redoubt", |name| name.split('.').next().unwrap_or(name)));
    parameters.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    parameters.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    parameters.extended_key_usages.extend(purpose.mutual.then_some(ExtendedKeyUsagePurpose::ClientAuth));
    parameters.use_authority_key_identifier_extension = true;
    set_validity(&mut parameters, from, until);
    let key = KeyPair::generate()?;
    let certificate = parameters.signed_by(&key, &authority.issuer()?)?;

    let data =
        BTreeMap::from([(CERTIFICATE.to_owned(), certificate.pem().into_bytes()), (KEY.to_owned(), key.serialize_pem().into_bytes())]);
    let made_of = made_of(purpose, authority, &data);
    let annotations = [(FROM, from.to_string()), (UNTIL, until.to_string()), (MADE_OF, made_of)];
    Ok(Content { annotations: annotations.map(|(key, value)| (key.to_owned(), value)).into(), data })
}

fn made_of(purpose: &Purpose, authority: &Authority, data: &BTreeMap<String, Vec<u8>>) -> String {
    let mut all = format!("{} {}", purpose.names.join(","), purpose.mutual).into_bytes();
    for part in [Some(authority.certificate().as_bytes()), data.get(CERTIFICATE).map(Vec::as_slice), data.get(KEY).map(Vec::as_slice)] {
        all.push(0);
        all.extend_from_slice(part.unwrap_or_default());
    }
    digest::of_bytes(&all)
}
