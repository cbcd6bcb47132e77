//! A second copy of what cannot be made anew while servers run: they know the passwords and the cookie that they were given at their start,
//! and no others. A Secret that somebody deletes is made again from here, as it was.

use std::collections::BTreeMap;

use super::{account::Account, certificate::Content};

/// What was lost may be found in here, by the name of the Secret that had it.
#[derive(Default)]
pub(crate) struct Recovery(BTreeMap<String, Vec<u8>>);

impl Recovery {
    /// What the Secret of this holds.
    pub(crate) fn read(content: Option<Content>) -> Self {
        Self(content.map(|content| content.data).unwrap_or_default())
    }

    /// The account that a Secret had.
    pub(crate) fn account(&self, secret: &str) -> Option<Account> {
        serde_json::from_slice(self.0.get(secret)?).ok()
    }

    /// The bytes that a Secret had.
    pub(crate) fn bytes(&self, secret: &str) -> Option<Vec<u8>> {
        self.0.get(secret).cloned()
    }

    pub(crate) fn add_account(&mut self, secret: String, account: &Account) {
        // Texts and a time: all of it can be said in JSON.
        self.0.insert(secret, serde_json::to_vec(account).expect("plain data can be written as JSON"));
    }

    pub(crate) fn add_bytes(&mut self, secret: String, bytes: Vec<u8>) {
        self.0.insert(secret, bytes);
    }

    /// What goes into the Secret; nothing where there is nothing to lose.
    pub(crate) fn content(self) -> Option<Content> {
        (!self.0.is_empty()).then(|| Content { data: self.0, ..Content::default() })
    }
}
