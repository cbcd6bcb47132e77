//! How heavy a JSON value is, without writing it.
//!
//! What passes through a queue or goes into a store has bounds there: bytes, values, depth. Whoever makes such things asks here first,
//! so that none of them is refused on its way. One walk over the tree, no allocation.

use serde_json::{Map, Value};

/// Bytes that are taken for a number: none is longer as serde_json writes them.
const NUMBER_BYTES: usize = 24;
/// Depth at which the walk ends; whatever goes deeper is above every bound.
const MAX_DEPTH: usize = 128;

/// The weight of a value.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Weight {
    /// Bytes as compact JSON, or a few more.
    pub bytes: usize,
    /// Scalars, nulls among them.
    pub values: usize,
    /// How deep objects and arrays nest; a scalar has 0.
    pub depth: usize,
}

impl Weight {
    /// The weight of an object.
    #[must_use]
    pub fn of_object(object: &Map<String, Value>) -> Self {
        let mut weight = Self::default();
        weight.add_object(object, 1);
        weight
    }

    /// The weight of any value.
    #[must_use]
    pub fn of(value: &Value) -> Self {
        let mut weight = Self::default();
        weight.add(value, 0);
        weight
    }

    fn add(&mut self, value: &Value, depth: usize) {
        let bytes = match value {
            Value::Object(object) => return self.add_object(object, depth + 1),
            Value::Array(values) => {
                self.depth = self.depth.max(depth + 1);
                self.bytes += 2;
                if depth < MAX_DEPTH {
                    for value in values {
                        self.bytes += 1;
                        self.add(value, depth + 1);
                    }
                }
                return;
            }
            Value::String(text) => text_bytes(text),
            Value::Number(_) => NUMBER_BYTES,
            Value::Bool(_) | Value::Null => 5,
        };
        self.bytes += bytes;
        self.values += 1;
    }

    fn add_object(&mut self, object: &Map<String, Value>, depth: usize) {
        self.depth = self.depth.max(depth);
        self.bytes += 2;
        if depth <= MAX_DEPTH {
            for (key, value) in object {
                self.bytes += text_bytes(key) + 2;
                self.add(value, depth);
            }
        }
    }
}

/// Bytes of a text as JSON, with its quotes and escapes.
#[must_use]
pub fn text_bytes(text: &str) -> usize {
    let escapes = text.bytes().map(|byte| match byte {
        b'"' | b'\\' => 1,
        0..0x20 => 5,
        _ => 0,
    });
    text.len() + 2 + escapes.sum::<usize>()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_value_is_never_lighter_than_its_json() {
        for value in [
            json!(null),
            json!(false),
            json!(-1.797_693_134_862_315_7e308),
            json!(u64::MAX),
            json!("quote \" backslash \\ line \n nul \u{0} é"),
            json!([]),
            json!([1, [2, "three"], {}]),
            json!({"a": {"b\n": [null, true]}, "c": "d"}),
        ] {
            assert!(Weight::of(&value).bytes >= value.to_string().len(), "{value}");
        }
    }

    #[test]
    fn values_and_depth_are_counted() {
        for (value, values, depth) in
            [(json!(1), 1, 0), (json!([]), 0, 1), (json!({"a": [1, {"b": null}], "c": "d"}), 3, 3), (json!([[[]]]), 0, 3)]
        {
            let weight = Weight::of(&value);

            assert_eq!((weight.values, weight.depth), (values, depth), "{value}");
        }
    }

    #[test]
    fn a_tower_of_arrays_does_not_exhaust_the_stack() {
        let tower = (0..1_000).fold(Value::Null, |inner, _| Value::Array(vec![inner]));

        assert!(Weight::of(&tower).depth > 100);
    }
}
