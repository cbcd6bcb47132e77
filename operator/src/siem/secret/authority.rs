//! The SIEM's own certificate authority: who signs, whom to trust, and how one authority follows another.
//!
//! An authority is used for two thirds of its life. Then a next one is made and published beside it, so that everybody trusts both. When
//! all had time to hear of it, the next one signs, and the former stays published until it ends, since certificates of its are in use
//! until they are replaced.
//!
//! ```text
//! ca.crt:  current | current + next | current (was next) + former | current
//! signs:   current | current        | current (was next)          | current
//! ```

use std::{collections::BTreeMap, time::Duration};

use jiff::{Timestamp, civil::Date, tz::TimeZone};
use rcgen::{BasicConstraints, CertificateParams, DistinguishedName, DnType, IsCa, Issuer, KeyPair, KeyUsagePurpose};
use serde::{Deserialize, Serialize};

/// How long an authority lives, in days.
const LIFE: i64 = 3 * 365;
/// How long a certificate lives that it signs, in days.
pub(crate) const LIFE_OF_SIGNED: i64 = 90;
/// How long a next authority is published before it signs: much longer than pods take to see a changed Secret.
const OVERLAP: Duration = Duration::from_secs(3600);

/// No certificate could be made.
#[derive(Debug, thiserror::Error)]
#[error("cannot make a certificate: {0}")]
pub(crate) struct NotIssued(#[from] rcgen::Error);

/// One authority: its certificate, and its key while it may sign.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Member {
    /// The common name of its certificate.
    subject: String,
    /// When its certificate begins to count.
    not_before: Timestamp,
    /// When it ends.
    not_after: Timestamp,
    #[serde(skip)]
    certificate: String,
    #[serde(skip)]
    key: String,
}

/// The authorities of one Siem.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Authority {
    current: Member,
    /// The one that will follow, and since when it is published.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    next: Option<(Member, Timestamp)>,
    /// The one before, while certificates of its may be in use.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    former: Option<Member>,
}

/// Keys of the Secret.
const STATE: &str = "state.json";
const CURRENT: (&str, &str) = ("ca.crt", "ca.key");
const NEXT: (&str, &str) = ("next.crt", "next.key");
const FORMER: &str = "former.crt";

impl Authority {
    /// The authorities that a Secret holds; nothing where it holds none, or where something of them is missing.
    pub(crate) fn read(data: &BTreeMap<String, Vec<u8>>) -> Option<Self> {
        let text = |key: &str| String::from_utf8(data.get(key)?.clone()).ok().filter(|text| !text.is_empty());
        let mut authority: Self = serde_json::from_slice(data.get(STATE)?).ok()?;
        (authority.current.certificate, authority.current.key) = (text(CURRENT.0)?, text(CURRENT.1)?);
        if let Some((next, _)) = &mut authority.next {
            (next.certificate, next.key) = (text(NEXT.0)?, text(NEXT.1)?);
        }
        if let Some(former) = &mut authority.former {
            former.certificate = text(FORMER)?;
        }
        Some(authority)
    }

    /// A first authority. Where everybody trusts another one, whose key is lost, that stays published for the life of a certificate.
    pub(crate) fn new(siem: &str, lost: Option<&str>, now: Timestamp) -> Result<Self, NotIssued> {
        let former = lost.map(|certificate| Member {
            subject: String::new(),
            not_before: now,
            not_after: days_after(now, LIFE_OF_SIGNED),
            certificate: certificate.to_owned(),
            key: String::new(),
        });
        Ok(Self { current: Member::new(siem, now)?, next: None, former })
    }

    /// What of it goes into the Secret that the operator alone reads.
    pub(crate) fn data(&self) -> BTreeMap<String, Vec<u8>> {
        // Names and dates: plain data.
        let state = serde_json::to_string(self).expect("plain data can be written as JSON");
        let mut texts = vec![(STATE, &state), (CURRENT.0, &self.current.certificate), (CURRENT.1, &self.current.key)];
        if let Some((next, _)) = &self.next {
            texts.extend([(NEXT.0, &next.certificate), (NEXT.1, &next.key)]);
        }
        if let Some(former) = &self.former {
            texts.push((FORMER, &former.certificate));
        }
        texts.into_iter().map(|(key, text)| (key.to_owned(), text.clone().into_bytes())).collect()
    }

    /// The authorities after what the time asks for.
    pub(crate) fn advance(mut self, siem: &str, now: Timestamp) -> Result<Self, NotIssued> {
        self.former = self.former.filter(|former| now < former.not_after);
        match self.next.take() {
            Some((next, since)) if now >= since + OVERLAP => {
                let mut former = std::mem::replace(&mut self.current, next);
                // It signs no more.
                former.key.clear();
                self.former = Some(former);
            }
            Some(waiting) => self.next = Some(waiting),
            None if now >= two_thirds(self.current.not_before, self.current.not_after) => {
                self.next = Some((Member::new(siem, now)?, now));
            }
            None => {}
        }
        Ok(self)
    }

    /// The certificates that everybody is to trust, the one that signs first.
    pub(crate) fn bundle(&self) -> String {
        let all = [Some(&self.current), self.next.as_ref().map(|(next, _)| next), self.former.as_ref()];
        all.into_iter().flatten().map(|member| member.certificate.as_str()).collect()
    }

    /// The certificate that signs now.
    pub(crate) fn certificate(&self) -> &str {
        &self.current.certificate
    }

    /// When a certificate that is made now ends at the latest.
    pub(crate) fn ends(&self) -> Timestamp {
        self.current.not_after
    }

    /// What signs.
    pub(super) fn issuer(&self) -> Result<Issuer<'static, KeyPair>, NotIssued> {
        Ok(Issuer::new(self.current.parameters(), KeyPair::from_pem(&self.current.key)?))
    }
}

impl Member {
    fn new(siem: &str, now: Timestamp) -> Result<Self, NotIssued> {
        let key = KeyPair::generate()?;
        let mut made = Self {
            subject: format!("Redoubt {siem}, {}", now.strftime("%Y-%m-%dT%H:%M:%SZ")),
            not_before: days_after(now, -1),
            not_after: days_after(now, LIFE),
            certificate: String::new(),
            key: key.serialize_pem(),
        };
        made.certificate = made.parameters().self_signed(&key)?.pem();
        Ok(made)
    }

    fn parameters(&self) -> CertificateParams {
        let mut parameters = CertificateParams::default();
        parameters.distinguished_name = common_name(&self.subject);
        parameters.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        parameters.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        set_validity(&mut parameters, self.not_before, self.not_after);
        parameters
    }
}

/// A name that is all of a certificate's subject.
pub(super) fn common_name(name: &str) -> DistinguishedName {
    let mut subject = DistinguishedName::new();
    subject.push(DnType::CommonName, name);
    subject
}

/// A point so many days later, at midnight: certificates begin and end with days.
pub(super) fn days_after(now: Timestamp, days: i64) -> Timestamp {
    let date = now.to_zoned(TimeZone::UTC).date();
    let moved = date.checked_add(jiff::Span::new().days(days)).unwrap_or(Date::MAX);
    moved.to_zoned(TimeZone::UTC).map_or(now, |midnight| midnight.timestamp())
}

/// Has a certificate begin and end with these days.
pub(super) fn set_validity(parameters: &mut CertificateParams, from: Timestamp, to: Timestamp) {
    let day = |time: Timestamp| {
        let date = time.to_zoned(TimeZone::UTC).date();
        // Months and days of a date are never negative.
        rcgen::date_time_ymd(i32::from(date.year()), date.month().unsigned_abs(), date.day().unsigned_abs())
    };
    (parameters.not_before, parameters.not_after) = (day(from), day(to));
}

/// The point from which something is to be renewed.
pub(super) fn two_thirds(from: Timestamp, to: Timestamp) -> Timestamp {
    let life = to.as_second() - from.as_second();
    Timestamp::from_second(from.as_second() + life / 3 * 2).unwrap_or(from)
}
