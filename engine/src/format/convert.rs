//! Reading a native value as a declared type.

use std::net::IpAddr;

use redoubt_crds::FieldType;
use serde_json::{Number, Value};

use super::time::Clock;
use crate::event::{rfc3339, scalar_text};

/// The value in the given type; `None` where it makes no sense in it. Of an array each element must fit. Dates come out as RFC 3339
/// in UTC, addresses in their canonical spelling.
pub(super) fn convert(value: &Value, to: FieldType, clock: &Clock<'_>) -> Option<Value> {
    if let Value::Array(elements) = value {
        return elements.iter().map(|element| scalar(element, to, clock)).collect::<Option<Vec<_>>>().map(Value::Array);
    }
    scalar(value, to, clock)
}

/// An address from text, without the brackets and the zone that some write around it. An IPv4 address mapped into IPv6 is that IPv4
/// address.
pub(super) fn address(text: &str) -> Option<IpAddr> {
    let text = text.trim();
    let text = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(text);
    text.split_once('%').map_or(text, |(address, _)| address).parse().ok().map(|ip: IpAddr| ip.to_canonical())
}

/// A whole number from a number or text; text may be hexadecimal after `0x`, as Windows writes process ids.
pub(super) fn long(value: &Value) -> Option<i64> {
    match value {
        Value::Number(number) => number.as_i64().or_else(|| number.as_f64().and_then(whole)),
        Value::String(text) => {
            let text = text.trim();
            match text.strip_prefix("0x").or_else(|| text.strip_prefix("0X")) {
                Some(hex) if !hex.starts_with(['+', '-']) => i64::from_str_radix(hex, 16).ok(),
                Some(_) => None,
                None => text.parse().ok(),
            }
        }
        Value::Null | Value::Bool(_) | Value::Array(_) | Value::Object(_) => None,
    }
}

fn scalar(value: &Value, to: FieldType, clock: &Clock<'_>) -> Option<Value> {
    match to {
        FieldType::Keyword => scalar_text(value).map(Value::String),
        FieldType::Long => long(value).map(Value::from),
        FieldType::Double => double(value).map(Value::Number),
        FieldType::Boolean => boolean(value).map(Value::Bool),
        FieldType::Ip => address(value.as_str()?).map(|ip| Value::String(ip.to_string())),
        FieldType::Date => clock.read(value).map(|millis| Value::String(rfc3339(millis))),
    }
}

/// A float that holds a whole number within 53 bits, where it is exact.
fn whole(number: f64) -> Option<i64> {
    const EXACT: f64 = 9_007_199_254_740_992.0;
    (number.fract() == 0.0 && number.abs() <= EXACT).then_some(number as i64)
}

fn double(value: &Value) -> Option<Number> {
    match value {
        Value::Number(number) => Number::from_f64(number.as_f64()?),
        Value::String(text) => Number::from_f64(text.trim().parse().ok()?),
        Value::Null | Value::Bool(_) | Value::Array(_) | Value::Object(_) => None,
    }
}

fn boolean(value: &Value) -> Option<bool> {
    let text = scalar_text(value)?;
    match text.trim().to_ascii_lowercase().as_str() {
        "true" | "yes" | "on" | "1" => Some(true),
        "false" | "no" | "off" | "0" => Some(false),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use jiff::tz::TimeZone;
    use serde_json::json;

    use super::*;

    #[test]
    fn a_value_is_read_as_the_declared_type_or_not_at_all() {
        let clock = Clock { zone: &TimeZone::UTC, received_millis: 1_700_000_000_000 };
        let cases = [
            (json!("x"), FieldType::Keyword, Some(json!("x"))),
            (json!(7), FieldType::Keyword, Some(json!("7"))),
            (json!(["a", 1]), FieldType::Keyword, Some(json!(["a", "1"]))),
            (json!({"a": 1}), FieldType::Keyword, None),
            (json!("42"), FieldType::Long, Some(json!(42))),
            (json!("-42 "), FieldType::Long, Some(json!(-42))),
            (json!("0x1f"), FieldType::Long, Some(json!(31))),
            (json!("0x-1f"), FieldType::Long, None),
            (json!(42.0), FieldType::Long, Some(json!(42))),
            (json!(42.5), FieldType::Long, None),
            (json!(1e300), FieldType::Long, None),
            (json!("seven"), FieldType::Long, None),
            (json!(true), FieldType::Long, None),
            (json!("1.5"), FieldType::Double, Some(json!(1.5))),
            (json!("NaN"), FieldType::Double, None),
            (json!("inf"), FieldType::Double, None),
            (json!("Yes"), FieldType::Boolean, Some(json!(true))),
            (json!(0), FieldType::Boolean, Some(json!(false))),
            (json!("maybe"), FieldType::Boolean, None),
            (json!("192.0.2.1"), FieldType::Ip, Some(json!("192.0.2.1"))),
            (json!("[2001:DB8::1]"), FieldType::Ip, Some(json!("2001:db8::1"))),
            (json!("::ffff:192.0.2.1"), FieldType::Ip, Some(json!("192.0.2.1"))),
            (json!("fe80::1%eth0"), FieldType::Ip, Some(json!("fe80::1"))),
            (json!("192.0.2.256"), FieldType::Ip, None),
            (json!(["192.0.2.1", "x"]), FieldType::Ip, None),
            (json!(1_700_000_000), FieldType::Date, Some(json!("2023-11-14T22:13:20.000Z"))),
            (json!("soon"), FieldType::Date, None),
            (json!(null), FieldType::Keyword, None),
        ];

        for (value, to, expected) in cases {
            assert_eq!(convert(&value, to, &clock), expected, "{value} as {to:?}");
        }
    }
}
