//! Lengths of time as people write them: `90s`, `1h30m`, `30d`.

use std::{borrow::Cow, fmt, str::FromStr, time};

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A length of time: one or more whole numbers of at most nine digits, each with a unit `ms`, `s`, `m`, `h` or `d`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Duration(time::Duration);

/// Why a text is not a [`Duration`].
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("{text:?} is not a length of time: write whole numbers with a unit of ms, s, m, h or d, such as 90s or 1h30m")]
pub struct DurationError {
    text: String,
}

const UNITS: [(&str, u64); 5] = [("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1_000), ("ms", 1)];
/// The pattern of every field that holds a length of time.
pub(crate) const PATTERN: &str = "^([0-9]{1,9}(ms|s|m|h|d))+$";
/// More digits than this are a slip of the hand; with it, no text that fits the pattern and the length can overflow.
const MAX_DIGITS: usize = 9;
const MAX_LENGTH: usize = 32;

impl Duration {
    /// A length of whole seconds.
    #[must_use]
    pub const fn from_secs(seconds: u64) -> Self {
        Self(time::Duration::from_secs(seconds))
    }

    /// The same length as the standard library's type.
    #[must_use]
    pub const fn as_std(self) -> time::Duration {
        self.0
    }

    /// Whole milliseconds; lengths past 292 million years saturate.
    #[must_use]
    pub fn as_millis(self) -> i64 {
        i64::try_from(self.0.as_millis()).unwrap_or(i64::MAX)
    }
}

impl FromStr for Duration {
    type Err = DurationError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let error = || DurationError { text: text.to_owned() };
        let mut rest = text;
        let mut millis = 0_u64;
        while !rest.is_empty() {
            let digits = rest.find(|c: char| !c.is_ascii_digit()).ok_or_else(error)?;
            if digits > MAX_DIGITS {
                return Err(error());
            }
            let count: u64 = rest[..digits].parse().map_err(|_| error())?;
            rest = &rest[digits..];
            let unit_end = rest.find(|c: char| c.is_ascii_digit()).unwrap_or(rest.len());
            let (_, factor) = UNITS.iter().find(|(unit, _)| *unit == &rest[..unit_end]).ok_or_else(error)?;
            millis = count.checked_mul(*factor).and_then(|part| millis.checked_add(part)).ok_or_else(error)?;
            rest = &rest[unit_end..];
        }
        if text.is_empty() || text.len() > MAX_LENGTH { Err(error()) } else { Ok(Self(time::Duration::from_millis(millis))) }
    }
}

impl fmt::Display for Duration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut rest = u64::try_from(self.0.as_millis()).unwrap_or(u64::MAX);
        if rest == 0 {
            return f.write_str("0s");
        }
        for (unit, factor) in UNITS {
            if rest >= factor {
                write!(f, "{}{unit}", rest / factor)?;
                rest %= factor;
            }
        }
        Ok(())
    }
}

impl Serialize for Duration {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Duration {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = Cow::<'_, str>::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

impl JsonSchema for Duration {
    fn schema_name() -> Cow<'static, str> {
        "Duration".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string", "pattern": PATTERN, "maxLength": MAX_LENGTH })
    }
}

/// The rule of a field in which no time at all would make no sense.
pub(crate) fn longer_than_zero(schema: &mut Schema) {
    crate::rule::add(schema, "self.matches('[1-9]')", "must be longer than zero");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_are_read_and_written_the_same_way() {
        for (text, millis) in [("90s", 90_000), ("1h30m", 5_400_000), ("30d", 2_592_000_000), ("250ms", 250)] {
            let duration: Duration = text.parse().unwrap();

            assert_eq!(duration.as_millis(), millis, "{text}");
        }
        assert_eq!("90s".parse::<Duration>().unwrap().to_string(), "1m30s");
    }

    #[test]
    fn what_is_no_length_is_refused_with_the_remedy() {
        for text in ["", "5", "m", "5x", "1.5h", "-3s", "1234567890s", "1d1d1d1d1d1d1d1d1d1d1d1d1d1d1d1d1d"] {
            let error = text.parse::<Duration>().unwrap_err();

            assert!(error.to_string().contains("such as 90s"), "{text}: {error}");
        }
    }
}
