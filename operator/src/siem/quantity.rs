//! Amounts as Kubernetes writes them, as numbers: `500m`, `2Gi`.
//!
//! The API server writes `1000m` back as `1`, so amounts are compared by what they mean.

/// The amount in thousandths, or nothing where the text is none or is beyond what volumes and machines have.
pub(super) fn thousandths(text: &str) -> Option<u128> {
    let digits = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, suffix) = text.split_at(digits);
    let factor: u128 = match suffix {
        "m" => 1,
        "" => 1000,
        "k" => 1000 * 1000,
        "M" => 1000 * 1000_u128.pow(2),
        "G" => 1000 * 1000_u128.pow(3),
        "T" => 1000 * 1000_u128.pow(4),
        "P" => 1000 * 1000_u128.pow(5),
        "Ki" => 1000 << 10,
        "Mi" => 1000 << 20,
        "Gi" => 1000 << 30,
        "Ti" => 1000 << 40,
        "Pi" => 1000 << 50,
        _ => return None,
    };
    let (whole, part) = number.split_once('.').unwrap_or((number, ""));
    // Enough for any amount there is, and too little to overflow.
    if whole.is_empty() || whole.len() > 18 || part.len() > 9 {
        return None;
    }
    let whole = whole.parse::<u128>().ok()? * factor;
    if part.is_empty() {
        return (!number.ends_with('.')).then_some(whole);
    }
    let exponent = u32::try_from(part.len()).ok()?;
    Some(whole + (part.parse::<u128>().ok()? * factor).div_ceil(10_u128.pow(exponent)))
}

/// The amount in whole bytes, rounded up.
pub(super) fn bytes(text: &str) -> Option<u64> {
    u64::try_from(thousandths(text)?.div_ceil(1000)).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts_mean_what_kubernetes_means() {
        let cases = [
            ("1", Some(1000)),
            ("1000m", Some(1000)),
            ("0.5", Some(500)),
            ("2Gi", Some(2_147_483_648_000)),
            ("1.5Gi", Some(1_610_612_736_000)),
            ("2G", Some(2_000_000_000_000)),
            ("10k", Some(10_000_000)),
            ("", None),
            ("Gi", None),
            ("1.", None),
            ("1.5.5", None),
            ("1e3", None),
            ("-1", None),
            ("9999999999999999999Pi", None),
        ];

        for (text, expected) in cases {
            assert_eq!(thousandths(text), expected, "{text}");
        }
        assert_eq!(bytes("10Gi"), Some(10 << 30));
        assert_eq!(bytes("1m"), Some(1));
    }
}
