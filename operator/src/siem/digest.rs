//! Short texts that change when something else does.

use redoubt_crds::sorted;
use serde_json::Value;
use sha2::{Digest as _, Sha256};

/// Sixteen hexadecimal digits of the SHA-256 of a value. Equal values have equal digests, whichever map `serde_json` was built with.
pub(crate) fn short(value: &Value) -> String {
    of_bytes(sorted(value).to_string().as_bytes())
}

/// The same of bytes.
pub(crate) fn of_bytes(bytes: &[u8]) -> String {
    let mut digest = hex::encode(Sha256::digest(bytes));
    digest.truncate(16);
    digest
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_order_of_keys_does_not_count() {
        assert_eq!(short(&json!({"a": 1, "b": [{"c": 2, "d": 3}]})), short(&json!({"b": [{"d": 3, "c": 2}], "a": 1})));
        assert_ne!(short(&json!({"a": [1, 2]})), short(&json!({"a": [2, 1]})));
    }
}
