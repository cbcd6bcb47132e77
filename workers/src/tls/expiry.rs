//! When a certificate ends: the one field of X.509 that an operator must watch.
//!
//! A walk to `tbsCertificate.validity.notAfter` (RFC 5280, section 4.1) over DER's tag-length-value items, and no more of X.509 than
//! that. It is for a gauge; whether a certificate is good is rustls's to say, never this file's.

/// The end of a certificate's validity in seconds since 1970; `None` where the bytes are not laid out as RFC 5280 says.
pub(super) fn not_after(certificate: &[u8]) -> Option<i64> {
    const SEQUENCE: u8 = 0x30;
    const EXPLICIT_VERSION: u8 = 0xa0;
    const UTC_TIME: u8 = 0x17;
    const GENERALIZED_TIME: u8 = 0x18;

    let whole = content(SEQUENCE, &mut { certificate })?;
    let mut to_be_signed = content(SEQUENCE, &mut { whole })?;
    if to_be_signed.first() == Some(&EXPLICIT_VERSION) {
        item(&mut to_be_signed)?;
    }
    // Serial number, signature algorithm and issuer stand before the validity.
    for _ in 0..3 {
        item(&mut to_be_signed)?;
    }
    let mut validity = content(SEQUENCE, &mut to_be_signed)?;
    item(&mut validity)?;
    let (tag, text) = item(&mut validity)?;
    let text = std::str::from_utf8(text).ok()?;
    match tag {
        // Two digits of the year, 50 and above for the last century (section 4.1.2.5.1).
        UTC_TIME => seconds(&format!("{}{text}", if text >= "50" { "19" } else { "20" })),
        GENERALIZED_TIME => seconds(text),
        _ => None,
    }
}

/// Takes one item off the front: its tag and its content.
fn item<'a>(rest: &mut &'a [u8]) -> Option<(u8, &'a [u8])> {
    let (&[tag, first], mut after) = rest.split_first_chunk::<2>()?;
    let length = if first < 0x80 {
        usize::from(first)
    } else {
        // The long form: that many bytes of length, most significant first. Four name more than any certificate has.
        let digits = usize::from(first & 0x7f);
        let (bytes, behind) = after.split_at_checked(digits).filter(|_| digits <= 4)?;
        after = behind;
        bytes.iter().fold(0, |length, byte| length << 8 | usize::from(*byte))
    };
    let (content, behind) = after.split_at_checked(length)?;
    *rest = behind;
    Some((tag, content))
}

/// Takes one item of a given tag off the front.
fn content<'a>(expected: u8, rest: &mut &'a [u8]) -> Option<&'a [u8]> {
    item(rest).filter(|(tag, _)| *tag == expected).map(|(_, content)| content)
}

/// `YYYYMMDDhhmmssZ` in seconds since 1970.
fn seconds(text: &str) -> Option<i64> {
    let time = jiff::civil::DateTime::strptime("%Y%m%d%H%M%S", text.strip_suffix('Z')?).ok()?;
    Some(time.to_zoned(jiff::tz::TimeZone::UTC).ok()?.timestamp().as_second())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rcgen::{CertificateParams, KeyPair, date_time_ymd};

    use super::*;

    fn certificate(year: i32) -> Vec<u8> {
        let mut params = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
        params.not_after = date_time_ymd(year, 7, 4);
        params.self_signed(&KeyPair::generate().unwrap()).unwrap().der().to_vec()
    }

    #[test]
    fn the_end_is_read_from_both_forms_of_time() {
        // Up to 2049 a certificate writes UTCTime, from 2050 on GeneralizedTime.
        for year in [1999, 2027, 2049, 2050, 2999] {
            let expected = format!("{year}-07-04T00:00:00Z").parse::<jiff::Timestamp>().unwrap().as_second();

            assert_eq!(not_after(&certificate(year)), Some(expected), "{year}");
        }
    }

    #[test]
    fn a_certificate_that_is_cut_anywhere_before_its_validity_has_no_end() {
        let whole = certificate(2040);

        for length in 0..100 {
            assert_eq!(not_after(&whole[..length]), None, "{length}");
        }
    }

    proptest! {
        #[test]
        fn no_bytes_make_reading_panic(bytes in prop::collection::vec(any::<u8>(), 0..300), long in any::<bool>()) {
            let mut bytes = bytes;
            if long {
                bytes.splice(0..0, [0x30, 0x82]);
            }

            let _ = not_after(&bytes);
        }
    }
}
