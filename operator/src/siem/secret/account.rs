//! Users of a server and their passwords, in Secrets of the type `kubernetes.io/basic-auth`.
//!
//! A password is never changed in place: a rotation makes a new user, and the former one is taken away when nobody uses it any more. So
//! at every moment somebody's Secret is right.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::{
    certificate::Content,
    random::{self, NoRandomness},
};

/// The type of the Secret.
pub(crate) const TYPE: &str = "kubernetes.io/basic-auth";
/// Annotation: the `credentialsRevision` that the account was made for.
const REVISION: &str = "redoubt.dev/credentials-revision";
/// Annotation: when the account was made.
const MADE_AT: &str = "redoubt.dev/made-at";

/// A user. It has no `Debug`, so that no log can show it.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Account {
    pub(crate) name: String,
    pub(crate) password: String,
    /// The revision that it was made for.
    pub(crate) revision: String,
    /// When.
    pub(crate) made_at: Timestamp,
}

impl Account {
    /// A new one, whose name begins with a prefix.
    pub(crate) fn new(prefix: &str, revision: &str, now: Timestamp) -> Result<Self, NoRandomness> {
        let name = format!("{prefix}-{}", random::suffix()?);
        Ok(Self { name, password: random::password()?, revision: revision.to_owned(), made_at: now })
    }

    /// The one that a Secret holds, if it holds one.
    pub(crate) fn read(content: &Content) -> Option<Self> {
        let text = |key: &str| String::from_utf8(content.data.get(key)?.clone()).ok().filter(|text| !text.is_empty());
        let revision = content.annotations.get(REVISION).cloned().unwrap_or_default();
        let made_at = content.annotations.get(MADE_AT).and_then(|time| time.parse().ok()).unwrap_or_default();
        Some(Self { name: text("username")?, password: text("password")?, revision, made_at })
    }

    /// What of it goes into a Secret.
    pub(crate) fn content(self) -> Content {
        Content {
            annotations: [(REVISION.to_owned(), self.revision), (MADE_AT.to_owned(), self.made_at.to_string())].into(),
            data: [("username".to_owned(), self.name.into_bytes()), ("password".to_owned(), self.password.into_bytes())].into(),
        }
    }
}
