//! Short texts that change when something else does.

use serde_json::Value;
use sha2::{Digest as _, Sha256};

/// Sixteen hexadecimal digits of the SHA-256 of a value. Keys are sorted, so that equal values have equal digests.
pub(crate) fn short(value: &Value) -> String {
    of_bytes(value.to_string().as_bytes())
}

/// The same of bytes.
pub(crate) fn of_bytes(bytes: &[u8]) -> String {
    let mut digest = hex::encode(Sha256::digest(bytes));
    digest.truncate(16);
    digest
}
