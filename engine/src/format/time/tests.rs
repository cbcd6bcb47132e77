use jiff::tz::TimeZone;
use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::event::rfc3339;

/// 2025-11-04T12:00:00Z.
const RECEIVED: i64 = 1_762_257_600_000;

fn read_in(zone: &TimeZone, value: &Value) -> Option<String> {
    Clock { zone, received_millis: RECEIVED }.read(value).map(rfc3339)
}

#[test]
fn epochs_are_told_apart_by_magnitude() {
    let expected = Some("2016-07-13T20:45:23.000Z".to_owned());
    for value in [
        json!(1_468_442_723),
        json!(1_468_442_723_000_i64),
        json!(1_468_442_723_000_000_i64),
        json!(1_468_442_723_000_000_000_i64),
        json!(1_468_442_723.0),
        json!("1468442723"),
        json!("1468442723.000"),
        json!("1468442723000"),
        json!("/Date(1468442723000)/"),
    ] {
        assert_eq!(read_in(&TimeZone::UTC, &value), expected, "{value}");
    }
    assert_eq!(read_in(&TimeZone::UTC, &json!(999_999_999)), Some("2001-09-09T01:46:39.000Z".to_owned()));
    assert_eq!(read_in(&TimeZone::UTC, &json!("1468442723.25")), Some("2016-07-13T20:45:23.250Z".to_owned()));
}

#[test]
fn times_are_read_as_people_and_programs_write_them() {
    let cases = [
        ("2025-11-04T10:11:12Z", "2025-11-04T10:11:12.000Z"),
        ("2025-11-04T10:11:12.345678+01:00", "2025-11-04T09:11:12.345Z"),
        ("2025-11-04 10:11:12,345", "2025-11-04T10:11:12.345Z"),
        ("2025-11-04T10:11:12+0100", "2025-11-04T09:11:12.000Z"),
        ("2025-11-04 10:11:12 +0530", "2025-11-04T04:41:12.000Z"),
        ("2025-11-04 10:11:12 UTC", "2025-11-04T10:11:12.000Z"),
        ("2025-11-04T10:11:12+01:00[Europe/Berlin]", "2025-11-04T09:11:12.000Z"),
        ("2025/11/04 10:11", "2025-11-04T10:11:00.000Z"),
        ("2025-11-04", "2025-11-04T00:00:00.000Z"),
        ("20251104", "2025-11-04T00:00:00.000Z"),
        ("20160713", "2016-07-13T00:00:00.000Z"),
        ("20251104101112", "2025-11-04T10:11:12.000Z"),
        ("2016-12-31T23:59:60Z", "2016-12-31T23:59:59.000Z"),
        ("Tue, 04 Nov 2025 10:11:12 -0800", "2025-11-04T18:11:12.000Z"),
        ("4 Nov 2025 10:11:12 PST", "2025-11-04T18:11:12.000Z"),
        ("Tue Nov  4 10:11:12 2025", "2025-11-04T10:11:12.000Z"),
        ("Tue Nov  4 10:11:12 GMT+0100 2025", "2025-11-04T09:11:12.000Z"),
        ("10/Oct/2000:13:55:36 -0700", "2000-10-10T20:55:36.000Z"),
        ("10-Oct-2000 13:55:36", "2000-10-10T13:55:36.000Z"),
        ("Nov 04 2025 10:11:12.500", "2025-11-04T10:11:12.500Z"),
        ("November 4, 2025 1:02:03 PM", "2025-11-04T13:02:03.000Z"),
        ("November 4, 2025 12:02:03 AM", "2025-11-04T00:02:03.000Z"),
    ];

    for (text, expected) in cases {
        assert_eq!(read_in(&TimeZone::UTC, &json!(text)).as_deref(), Some(expected), "{text}");
    }
}

#[test]
fn what_is_no_time_or_could_be_two_is_none() {
    for value in [
        json!("yesterday"),
        json!("10/11/2025 10:11:12"),
        json!("2025-13-04T10:11:12Z"),
        json!("2025-11-04T25:11:12Z"),
        json!("2025-11-04T10:11:12 XYZ"),
        json!("2025-11-04T10:11:12é"),
        json!("Nov 4"),
        json!("10:11:12"),
        json!("Nov Nov 10:11:12"),
        json!("1e9"),
        json!("1.2.3"),
        json!(""),
        json!(" "),
        json!("."),
        json!(0),
        json!("0"),
        json!(-5),
        json!("-1468442723"),
        json!("0001-01-01T00:00:00Z"),
        json!("9999-12-31T23:59:59Z"),
        json!(i64::MAX),
        json!(u64::MAX),
        json!(1e300),
        json!(true),
        json!(null),
        json!([1_468_442_723]),
    ] {
        assert_eq!(read_in(&TimeZone::UTC, &value), None, "{value}");
    }
}

#[test]
fn a_time_without_a_zone_is_in_the_sources_zone() {
    let berlin = TimeZone::get("Europe/Berlin").unwrap();

    for (text, expected) in [
        ("2025-11-04T10:11:12", "2025-11-04T09:11:12.000Z"),
        ("2025-07-04 10:11:12", "2025-07-04T08:11:12.000Z"),
        ("Nov  4 10:11:12", "2025-11-04T09:11:12.000Z"),
        ("2025-11-04T10:11:12Z", "2025-11-04T10:11:12.000Z"),
        // The hour that summer time skips, and the one that comes twice.
        ("2025-03-30 02:30:00", "2025-03-30T01:30:00.000Z"),
        ("2025-10-26 02:30:00", "2025-10-26T00:30:00.000Z"),
    ] {
        assert_eq!(read_in(&berlin, &json!(text)).as_deref(), Some(expected), "{text}");
    }
}

#[test]
fn a_time_without_a_year_is_at_most_a_day_ahead_of_its_receipt() {
    for (text, expected) in [
        ("Nov  4 11:59:59", "2025-11-04T11:59:59.000Z"),
        ("Nov  5 11:59:59", "2025-11-05T11:59:59.000Z"),
        ("Nov  5 12:00:01", "2024-11-05T12:00:01.000Z"),
        ("Dec 31 23:59:59", "2024-12-31T23:59:59.000Z"),
        ("Jan  1 00:00:00", "2025-01-01T00:00:00.000Z"),
        ("Feb 29 10:00:00", "2024-02-29T10:00:00.000Z"),
    ] {
        assert_eq!(read_in(&TimeZone::UTC, &json!(text)).as_deref(), Some(expected), "{text}");
    }

    let new_year = Clock { zone: &TimeZone::UTC, received_millis: 1_767_225_595_000 };
    assert_eq!(new_year.read_text("Jan  1 00:00:01").map(rfc3339).as_deref(), Some("2026-01-01T00:00:01.000Z"));
}

proptest! {
    #[test]
    fn a_written_time_is_read_back(millis in 1..END_MILLIS) {
        let clock = Clock { zone: &TimeZone::UTC, received_millis: RECEIVED };

        prop_assert_eq!(clock.read_text(&rfc3339(millis)), Some(millis));
        prop_assert_eq!(clock.read(&json!(rfc3339(millis).replace('T', " "))), Some(millis));
    }

    #[test]
    fn no_text_panics(text in ".{0,60}", words in "([A-Z][a-z]{2} |[0-9]{1,4}[ :/,.-]|[+-][0-9]{2,5}|é|T|Z){0,12}", received in any::<i64>()) {
        let clock = Clock { zone: &TimeZone::UTC, received_millis: received };

        for text in [text, words] {
            if let Some(millis) = clock.read_text(&text) {
                prop_assert!((1..END_MILLIS).contains(&millis));
            }
        }
    }
}
