//! How indices are called.
//!
//! ```text
//! PREFIX-events-2026.11.24-000001    a time series: family, day of receipt (UTC), generation within the day
//! PREFIX-alerts                      records: one index a family
//! ```
//!
//! The names `PREFIX-incidents` and `PREFIX-coverage` are kept free for what is to come.

use jiff::{Timestamp, civil::Date, tz::TimeZone};

use crate::store::Family;

/// Receive times outside of these years are no dates of a log; the names of indices rely on it.
const YEARS: std::ops::RangeInclusive<i16> = 2000..=2999;

/// The names of one SIEM.
#[derive(Debug, Clone)]
pub(super) struct Names {
    prefix: String,
}

/// One index of a time series.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Generation {
    pub(super) day: Date,
    /// Counts from 1.
    pub(super) number: u32,
}

impl Names {
    pub(super) fn new(prefix: &str) -> Self {
        Self { prefix: prefix.to_owned() }
    }

    /// What templates and settings of this SIEM are called.
    pub(super) fn template(&self, of: &str) -> String {
        format!("{}-{of}", self.prefix)
    }

    /// The index of a family of records.
    pub(super) fn records(&self, family: Family) -> String {
        format!("{}-{family}", self.prefix)
    }

    /// An index of a time series.
    pub(super) fn series(&self, family: Family, generation: &Generation) -> String {
        format!("{}-{family}-{}-{:06}", self.prefix, generation.day.strftime("%Y.%m.%d"), generation.number)
    }

    /// All indices of a day.
    pub(super) fn day(&self, family: Family, day: Date) -> String {
        format!("{}-{family}-{}-*", self.prefix, day.strftime("%Y.%m.%d"))
    }

    /// All indices of a family. The `2` begins a year: with it a SIEM whose prefix is `PREFIX-events` stays apart.
    pub(super) fn all(&self, family: Family) -> String {
        if family.is_series() { format!("{}-{family}-2*", self.prefix) } else { self.records(family) }
    }

    /// Which index of a time series a name stands for, if it is one.
    pub(super) fn parse(&self, family: Family, name: &str) -> Option<Generation> {
        let rest = name.strip_prefix(&self.prefix)?.strip_prefix('-')?.strip_prefix(family.as_str())?.strip_prefix('-')?;
        let (day, number) = rest.split_once('-')?;
        let day = Date::strptime("%Y.%m.%d", day).ok()?;
        let number = number.parse().ok().filter(|number| *number > 0)?;
        Some(Generation { day, number })
    }
}

/// The day on which a time lies, UTC; `None` outside of the years 2000 to 2999.
pub(super) fn day_of(millis: i64) -> Option<Date> {
    let day = Timestamp::from_millisecond(millis).ok()?.to_zoned(TimeZone::UTC).date();
    YEARS.contains(&day.year()).then_some(day)
}

/// A day, the day before and the day after.
pub(super) fn around(day: Date) -> impl Iterator<Item = Date> {
    [day.yesterday().ok(), Some(day), day.tomorrow().ok()].into_iter().flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_read_back_and_a_strangers_is_not() {
        let names = Names::new("siem-1");
        let generation = Generation { day: jiff::civil::date(2026, 11, 24), number: 7 };

        assert_eq!(names.series(Family::DeadLetters, &generation), "siem-1-dead-letters-2026.11.24-000007");
        assert_eq!(names.parse(Family::DeadLetters, "siem-1-dead-letters-2026.11.24-000007"), Some(generation));
        assert_eq!(names.parse(Family::Events, "siem-1-events-2026.11.24-1234567").unwrap().number, 1_234_567);
        for stranger in [
            "siem-1-events",
            "siem-1-events-2026.11.24",
            "siem-1-events-2026.13.24-000001",
            "siem-1-events-2026.11.24-000000",
            "siem-1-events-2026.11.24-000001-copy",
            "siem-10-events-2026.11.24-000001",
            "siem-1-events-events-2026.11.24-000001",
            "siem-1-matches-2026.11.24-000001",
        ] {
            assert_eq!(names.parse(Family::Events, stranger), None, "{stranger}");
        }
    }

    #[test]
    fn only_times_of_this_millennium_have_a_day() {
        assert_eq!(day_of(1_795_514_400_000), Some(jiff::civil::date(2026, 11, 24)));
        for millis in [0, -1, i64::MAX, i64::MIN, 32_503_680_000_000] {
            assert_eq!(day_of(millis), None, "{millis}");
        }
    }
}
