//! Which VRL functions are available, and for the others, why not.

use std::sync::LazyLock;

use vrl::compiler::Function;

const CLOCK: &str = "it reads the clock, and an event that is delivered twice must become the same document twice";
const RANDOM: &str = "it answers differently each time, and an event that is delivered twice must become the same document twice";
const NETWORK: &str = "programs have no network";
const MACHINE: &str = "programs do not see the machine they run on";
const FILES: &str = "programs open no files";
const UNBOUNDED: &str = "what it unpacks has no bound";
const SIDE_EFFECT: &str = "programs change the event and nothing else";

const NO_YEAR: &str =
    "take the time apart with parse_regex and parse_timestamp, the year named; a LogSource of format syslog does it by itself";
const EVENT_TIME: &str = "use .\"@timestamp\" or .event.ingested";
const HASH: &str = "derive it from the event, such as sha2(.event.id)";
const LOOKUP: &str = "use a Watchlist and a lookup step";

/// A function that VRL has and Redoubt does not.
#[derive(Debug)]
pub(super) struct Absent {
    /// Its name.
    pub(super) name: &'static str,
    /// Why it is absent.
    pub(super) reason: &'static str,
    /// What to do instead; empty where there is nothing to say.
    pub(super) instead: &'static str,
}

const fn absent(name: &'static str, reason: &'static str, instead: &'static str) -> Absent {
    Absent { name, reason, instead }
}

/// Every absent function, by name. Some are compiled in and left out here; others are not compiled in at all.
pub(super) static ABSENT: [Absent; 29] = [
    absent("decode_gzip", UNBOUNDED, ""),
    absent("decode_lz4", UNBOUNDED, ""),
    absent("decode_snappy", UNBOUNDED, ""),
    absent("decode_zlib", UNBOUNDED, ""),
    absent("decode_zstd", UNBOUNDED, ""),
    absent("dns_lookup", NETWORK, LOOKUP),
    absent("encode_proto", FILES, ""),
    absent("get_env_var", MACHINE, "write the value into the program"),
    absent("get_hostname", MACHINE, "use .observer or .host"),
    absent("get_secret", MACHINE, ""),
    absent("get_timezone_name", MACHINE, "times are UTC"),
    absent("http_request", NETWORK, LOOKUP),
    absent("log", SIDE_EFFECT, "show what the program does in the resource's tests"),
    absent("now", CLOCK, EVENT_TIME),
    absent("parse_etld", FILES, "use a Watchlist of type domainSuffix"),
    absent("parse_groks", FILES, "use parse_grok"),
    absent("parse_klog", CLOCK, NO_YEAR),
    absent("parse_linux_authorization", CLOCK, NO_YEAR),
    absent("parse_proto", FILES, ""),
    absent("parse_syslog", CLOCK, NO_YEAR),
    absent("random_bool", RANDOM, HASH),
    absent("random_bytes", RANDOM, HASH),
    absent("random_float", RANDOM, HASH),
    absent("random_int", RANDOM, HASH),
    absent("reverse_dns", NETWORK, LOOKUP),
    absent("set_secret", MACHINE, ""),
    absent("uuid_v4", RANDOM, HASH),
    absent("uuid_v7", RANDOM, HASH),
    absent("validate_json_schema", FILES, ""),
];

static AVAILABLE: LazyLock<Vec<Box<dyn Function>>> =
    LazyLock::new(|| vrl::stdlib::all().into_iter().filter(|function| find_absent(function.identifier()).is_none()).collect());

/// The functions that programs may call.
pub(super) fn available() -> &'static [Box<dyn Function>] {
    &AVAILABLE
}

/// Why a function is absent, where it is one that VRL has elsewhere.
pub(super) fn find_absent(name: &str) -> Option<&'static Absent> {
    ABSENT.iter().find(|absent| absent.name == name)
}
