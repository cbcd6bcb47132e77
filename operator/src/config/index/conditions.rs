//! Conditions: what is said of a resource, and what the API server shows of it.

use std::{
    borrow::Cow,
    hash::{DefaultHasher, Hash as _, Hasher as _},
};

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use redoubt_crds::ConfigStatus;

/// Whether a resource compiles and its tests pass.
pub(super) const ACCEPTED: &str = "Accepted";
/// Whether the workers run it.
pub(super) const READY: &str = "Ready";

/// Longest message in bytes. The API server takes 32,768; people read less.
const MAX_MESSAGE: usize = 8192;

/// The status of a condition.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Truth {
    True,
    False,
    Unknown,
}

impl Truth {
    const fn as_str(self) -> &'static str {
        match self {
            Self::True => "True",
            Self::False => "False",
            Self::Unknown => "Unknown",
        }
    }

    fn of(word: &str) -> Self {
        match word {
            "True" => Self::True,
            "False" => Self::False,
            _ => Self::Unknown,
        }
    }
}

/// What is said of a resource in one respect.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Says {
    pub(super) truth: Truth,
    pub(super) reason: &'static str,
    pub(super) message: Cow<'static, str>,
}

impl Says {
    pub(super) fn new(truth: Truth, reason: &'static str, message: impl Into<Cow<'static, str>>) -> Self {
        Self { truth, reason, message: shortened(message.into()) }
    }

    /// As the API server would show it, since the given time.
    pub(super) fn shown(&self, generation: i64, since: Timestamp) -> Shown {
        let print = fingerprint(self.truth, self.reason, &self.message, Some(generation));
        Shown { truth: self.truth, print, since: since.as_second() }
    }

    /// The condition. Its time is that of the last change of its status: the shown one's, where that says the same.
    pub(super) fn condition(&self, type_: &str, generation: i64, shown: Option<Shown>, now: Timestamp) -> Condition {
        let since = shown.filter(|shown| shown.truth == self.truth).and_then(|shown| Timestamp::from_second(shown.since).ok());
        Condition {
            type_: type_.to_owned(),
            status: self.truth.as_str().to_owned(),
            reason: self.reason.to_owned(),
            message: self.message.clone().into_owned(),
            observed_generation: Some(generation),
            last_transition_time: Time(since.unwrap_or(now)),
        }
    }
}

/// A condition that the API server shows, as few bytes: there are thousands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Shown {
    pub(super) truth: Truth,
    /// Of everything but the time.
    pub(super) print: u64,
    /// Seconds since 1970.
    pub(super) since: i64,
}

/// What the API server shows of a resource's status.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Reported {
    pub(super) observed_generation: Option<i64>,
    pub(super) accepted: Option<Shown>,
    pub(super) ready: Option<Shown>,
}

impl Reported {
    /// Of an object's status. What is not as the operator writes it is as if it were not there, and so written anew.
    #[must_use]
    pub fn of(status: &serde_json::Value) -> Self {
        let status: ConfigStatus = serde_json::from_value(status.clone()).unwrap_or_default();
        let shown = |type_: &str| status.conditions.iter().find(|condition| condition.type_ == type_).map(shown);
        Self { observed_generation: status.observed_generation, accepted: shown(ACCEPTED), ready: shown(READY) }
    }
}

fn shown(condition: &Condition) -> Shown {
    let truth = Truth::of(&condition.status);
    let print = fingerprint(truth, &condition.reason, &condition.message, condition.observed_generation);
    Shown { truth, print, since: condition.last_transition_time.0.as_second() }
}

fn fingerprint(truth: Truth, reason: &str, message: &str, generation: Option<i64>) -> u64 {
    let mut hasher = DefaultHasher::new();
    (truth, reason, message, generation).hash(&mut hasher);
    hasher.finish()
}

fn shortened(message: Cow<'static, str>) -> Cow<'static, str> {
    if message.len() <= MAX_MESSAGE {
        return message;
    }
    let cut = message.floor_char_boundary(MAX_MESSAGE - 4);
    Cow::Owned(format!("{} …", &message[..cut]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_message_is_cut_between_characters() {
        let says = Says::new(Truth::False, "Invalid", "ü".repeat(MAX_MESSAGE));

        assert!(says.message.len() <= MAX_MESSAGE && says.message.ends_with("ü …"), "{}", says.message.len());
    }

    #[test]
    fn what_was_written_is_known_again() {
        let now = Timestamp::from_second(1_760_000_000).unwrap();
        let says = Says::new(Truth::True, "Compiled", "compiles");

        let condition = says.condition(ACCEPTED, 3, None, now);

        assert_eq!(shown(&condition), says.shown(3, now));
        assert_ne!(shown(&condition).print, says.shown(4, now).print);
    }
}
