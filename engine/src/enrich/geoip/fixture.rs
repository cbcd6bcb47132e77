//! Writes small databases in MaxMind DB format 2.0 (<https://maxmind.github.io/MaxMind-DB/>), for tests: an IPv6 search tree of
//! 24-bit records, one data record for each network, no pointers. Networks must not lie within each other.

use std::sync::Arc;

use ipnet::IpNet;
use serde_json::{Value, json};

/// Zero bytes between search tree and data.
const SEPARATOR: [u8; 16] = [0; 16];
const METADATA_MARKER: &[u8] = b"\xab\xcd\xefMaxMind.com";

#[derive(Clone, Copy)]
enum Record {
    Nothing,
    Node(usize),
    Data(usize),
}

/// A database of a type, with a record for each network.
pub(in crate::enrich) fn database(kind: &str, networks: &[(&str, Value)]) -> Arc<[u8]> {
    let mut tree = vec![[Record::Nothing; 2]];
    let mut data = Vec::new();
    for (network, value) in networks {
        let offset = data.len();
        encode(value, &mut data);
        insert(&mut tree, network.parse().unwrap(), offset);
    }

    let mut file = Vec::new();
    for record in tree.iter().flatten() {
        let number = match record {
            Record::Nothing => tree.len(),
            Record::Node(index) => *index,
            Record::Data(offset) => tree.len() + SEPARATOR.len() + offset,
        };
        file.extend_from_slice(&u32::try_from(number).unwrap().to_be_bytes()[1..]);
    }
    file.extend_from_slice(&SEPARATOR);
    file.extend_from_slice(&data);
    file.extend_from_slice(METADATA_MARKER);
    let metadata = json!({
        "binary_format_major_version": 2, "binary_format_minor_version": 0, "build_epoch": 1_700_000_000, "database_type": kind,
        "description": {"en": "test"}, "ip_version": 6, "languages": ["en"], "node_count": tree.len(), "record_size": 24,
    });
    encode(&metadata, &mut file);
    file.into()
}

fn insert(tree: &mut Vec<[Record; 2]>, network: IpNet, offset: usize) {
    // IPv4 lives in ::/96.
    let (bits, length) = match network {
        IpNet::V4(v4) => (u128::from(u32::from(v4.network())), v4.prefix_len() + 96),
        IpNet::V6(v6) => (u128::from(v6.network()), v6.prefix_len()),
    };
    let mut node = 0;
    for depth in 0..length {
        let side = usize::from(bits >> (127 - depth) & 1 == 1);
        if depth + 1 == length {
            tree[node][side] = Record::Data(offset);
            return;
        }
        node = match tree[node][side] {
            Record::Node(next) => next,
            Record::Nothing => {
                tree.push([Record::Nothing; 2]);
                let next = tree.len() - 1;
                tree[node][side] = Record::Node(next);
                next
            }
            Record::Data(_) => panic!("{network} lies within another network"),
        };
    }
}

fn encode(value: &Value, out: &mut Vec<u8>) {
    match value {
        Value::String(text) => {
            control(2, text.len(), out);
            out.extend_from_slice(text.as_bytes());
        }
        Value::Number(number) => {
            control(3, 8, out);
            out.extend_from_slice(&number.as_f64().unwrap().to_be_bytes());
        }
        Value::Array(items) => {
            control(11, items.len(), out);
            items.iter().for_each(|item| encode(item, out));
        }
        Value::Object(entries) => {
            control(7, entries.len(), out);
            for (key, item) in entries {
                control(2, key.len(), out);
                out.extend_from_slice(key.as_bytes());
                match item.as_u64() {
                    Some(number) => encode_integer(key, number, out),
                    None => encode(item, out),
                }
            }
        }
        Value::Null | Value::Bool(_) => panic!("not needed by any test: {value}"),
    }
}

/// Integers have the width that the format (or the record's schema) gives to the key.
fn encode_integer(key: &str, number: u64, out: &mut Vec<u8>) {
    let (kind, width) = match key {
        "build_epoch" => (9, 8),
        "node_count" | "autonomous_system_number" => (6, 4),
        _ => (5, 2),
    };
    control(kind, width, out);
    out.extend_from_slice(&number.to_be_bytes()[8 - width..]);
}

/// The control byte: type and size; types past 7 have a byte of their own, sizes past 28 too.
fn control(kind: u8, size: usize, out: &mut Vec<u8>) {
    let size = u8::try_from(size).unwrap();
    let (short, long) = if size < 29 { (size, None) } else { (29, Some(size - 29)) };
    if kind <= 7 {
        out.push(kind << 5 | short);
    } else {
        out.push(short);
        out.push(kind - 7);
    }
    out.extend(long);
}
