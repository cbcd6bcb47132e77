//! Stable hashes: the same in every process and release, and beyond anyone's power to bring into collision.

use sha2::{Digest as _, Sha256};

/// 128 bits of SHA-256 over some texts, each kept apart from its neighbours.
pub(super) fn fingerprint<'a>(parts: impl IntoIterator<Item = &'a str>) -> u128 {
    let mut hasher = Sha256::new();
    for part in parts {
        hasher.update((part.len() as u64).to_le_bytes());
        hasher.update(part.as_bytes());
    }
    let hash = hasher.finalize();
    hash[..16].iter().fold(0, |number, byte| (number << 8) | u128::from(*byte))
}

/// The fingerprint of a rule's name and a group's fields and values.
pub(super) fn group(rule: &str, group: &[(String, String)]) -> u128 {
    let pairs = group.iter().flat_map(|(field, value)| [field.as_str(), value.as_str()]);
    fingerprint(std::iter::once(rule).chain(pairs))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fingerprint_keeps_its_parts_apart() {
        assert_ne!(fingerprint(["ab", "c"]), fingerprint(["a", "bc"]));
        assert_ne!(group("rule", &[]), group("rule", &[(String::new(), String::new())]));
    }

    #[test]
    fn a_fingerprint_is_the_same_in_every_release() {
        assert_eq!(fingerprint([]), 0xe3b0_c442_98fc_1c14_9afb_f4c8_996f_b924);
    }
}
