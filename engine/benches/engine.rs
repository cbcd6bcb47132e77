//! How much of bare rule matching is left when an event is also parsed, normalised, enriched and respects its logsource.
//!
//! The peer is rsigma-eval alone, given events that are parsed already, on one core, in the same run. Limits: the whole engine does at
//! least 0.8 of the peer's rate; a tenth of the rules makes it less than twice as fast, so that a rule more costs little.
//!
//! `cargo bench -p redoubt-engine --bench engine`; it needs the corpora, by `REDOUBT_CORPORA` or beside the repository.

use std::{
    collections::BTreeMap,
    fs,
    hint::black_box,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};

use redoubt_crds::Format;
use redoubt_engine::{
    compile::{Input, Outcome, Plan, compile},
    event::RawEvent,
    format::{frame, parse},
    resource::{self, Kind, Resource},
    rule::import,
    source::Source,
};
use rsigma_eval::{Engine, event::JsonEvent};
use serde_json::Value;

const RECEIVED_MILLIS: i64 = 1_760_000_000_000;
/// How long each figure is measured.
const MEASURE: Duration = Duration::from_secs(4);

fn main() {
    let Some(corpora) = corpora() else {
        println!("skipped: no corpora; set REDOUBT_CORPORA to the folder that holds sigma/ and cloudtrail/");
        return;
    };
    let rules = rule_files(&corpora);
    let samples = resource_files(&Path::new(env!("CARGO_MANIFEST_DIR")).join("../config/samples/quickstart"));
    let texts: Vec<String> = rules.iter().map(|path| fs::read_to_string(path).expect("a rule can be read")).collect();

    let started = Instant::now();
    let all = plan(&samples, &texts);
    println!("{} rules imported, read, validated and compiled in {:.2} s", texts.len(), started.elapsed().as_secs_f64());
    let tenth = plan(&samples, &texts.iter().step_by(10).cloned().collect::<Vec<_>>());
    let events = events(&corpora);
    println!(
        "{} events ({} kB), one core, all rules unless said otherwise\n",
        events.len(),
        events.iter().map(|raw| raw.body.len()).sum::<usize>() / 1024
    );

    let parsed = parsed(&all, &events);
    let bare_all = bare(&texts);
    let bare_tenth = bare(&texts.iter().step_by(10).cloned().collect::<Vec<_>>());
    let peer = rate(events.len(), || parsed.iter().for_each(|event| drop(black_box(bare_all.evaluate(&JsonEvent::borrow(event))))));
    let peer_tenth = rate(events.len(), || parsed.iter().for_each(|event| drop(black_box(bare_tenth.evaluate(&JsonEvent::borrow(event))))));
    let whole = rate(events.len(), || events.iter().for_each(|raw| drop(black_box(all.process(raw)))));
    let whole_tenth = rate(events.len(), || events.iter().for_each(|raw| drop(black_box(tenth.process(raw)))));
    let parsing = rate(events.len(), || {
        for raw in &events {
            drop(black_box(parse(&all.sources[&*raw.source], raw)));
        }
    });

    println!("{:<58} {:>10}", "bare rsigma-eval over parsed events", per_second(peer));
    println!("{:<58} {:>10}", "bare rsigma-eval, a tenth of the rules", per_second(peer_tenth));
    println!("{:<58} {:>10}", "engine: parse and normalise alone", per_second(parsing));
    println!("{:<58} {:>10}", "engine: parse, normalise, enrich, match", per_second(whole));
    println!("{:<58} {:>10}", "engine, a tenth of the rules", per_second(whole_tenth));
    println!();
    verdict("engine / bare matching", whole / peer, "at least 0.8", whole / peer >= 0.8);
    verdict("engine with a tenth of the rules / with all", whole_tenth / whole, "below 2", whole_tenth / whole < 2.0);
    println!("matches: {} in {} events", count_matches(&all, &events), events.len());
    println!("resident memory with all rules loaded twice over (engine and peer): {} MB", resident_mb());
}

fn corpora() -> Option<PathBuf> {
    let given = std::env::var_os("REDOUBT_CORPORA").map(PathBuf::from);
    let path = given.unwrap_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/corpora"));
    path.join("sigma").is_dir().then_some(path)
}

fn rule_files(corpora: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for folder in ["rules", "rules-compliance", "rules-emerging-threats", "rules-threat-hunting"] {
        walk(&corpora.join("sigma").join(folder), "yml", &mut found);
    }
    found.sort();
    found
}

fn resource_files(folder: &Path) -> Vec<Resource> {
    let mut files = Vec::new();
    walk(folder, "yaml", &mut files);
    let texts = files.iter().map(|path| (path, fs::read_to_string(path).expect("a sample can be read")));
    texts.flat_map(|(path, text)| resource::read(path, &text).resources).filter(|resource| resource.kind != Kind::AlertRule).collect()
}

fn walk(folder: &Path, extension: &str, found: &mut Vec<PathBuf>) {
    let Ok(entries) = fs::read_dir(folder) else { return };
    for path in entries.flatten().map(|entry| entry.path()) {
        if path.is_dir() {
            walk(&path, extension, found);
        } else if path.extension().is_some_and(|other| other == extension) {
            found.push(path);
        }
    }
}

/// The samples' sources and enrichments, with these rules.
fn plan(samples: &[Resource], rules: &[String]) -> Plan {
    let mut resources = samples.to_vec();
    let mut names: BTreeMap<String, usize> = BTreeMap::new();
    for text in rules {
        for mut rule in import::import(text, "rule.yml").unwrap_or_default() {
            let name = rule.metadata.name.clone().unwrap_or_default();
            let count = names.entry(name.clone()).or_default();
            rule.metadata.name = Some(format!("{name}-{count}"));
            *count += 1;
            resources.extend(resource::read(Path::new("rule.yaml"), &import::to_yaml(&rule)).resources);
        }
    }
    compile(&Input { resources, ..Input::default() }, None).plan
}

/// The regression cases and the CloudTrail records, as ingest would hand them on.
fn events(corpora: &Path) -> Vec<RawEvent> {
    let mut files = Vec::new();
    walk(&corpora.join("sigma/regression"), "ndjson", &mut files);
    walk(&corpora.join("cloudtrail"), "json", &mut files);
    files.sort();
    let mut events = Vec::new();
    for path in files {
        let text = fs::read_to_string(&path).expect("an event file can be read");
        let (source, format): (Arc<str>, Format) = match path.extension().and_then(|extension| extension.to_str()) {
            Some("ndjson") => ("windows".into(), Format::Windows),
            _ => ("cloudtrail".into(), Format::Cloudtrail),
        };
        for body in frame(format, &text).into_iter().flatten() {
            let id = format!("bench-{}", events.len());
            events.push(RawEvent {
                id,
                received_millis: RECEIVED_MILLIS,
                source: Arc::clone(&source),
                sender: None,
                body: body.to_owned(),
            });
        }
    }
    events
}

/// What the peer gets: the native fields at the top, parsed.
fn parsed(plan: &Plan, events: &[RawEvent]) -> Vec<Value> {
    let sources: &BTreeMap<String, Arc<Source>> = &plan.sources;
    let native = |raw: &RawEvent| parse(&sources[&*raw.source], raw).ok().and_then(|event| event.document.get("details").cloned());
    events.iter().map(|raw| native(raw).expect("each event of the corpora can be parsed")).collect()
}

fn bare(rules: &[String]) -> Engine {
    let mut engine = Engine::new();
    let parsed: Vec<_> = rules.iter().filter_map(|text| rsigma_parser::parse_sigma_yaml(text).ok()).flat_map(|found| found.rules).collect();
    drop(engine.add_rules(&parsed));
    engine
}

/// Events a second: the best of the rounds that fit the time, since the machine's other work can only slow one down.
fn rate(events: usize, mut round: impl FnMut()) -> f64 {
    round();
    let started = Instant::now();
    let mut best = f64::MAX;
    while started.elapsed() < MEASURE {
        let round_started = Instant::now();
        round();
        best = best.min(round_started.elapsed().as_secs_f64());
    }
    events as f64 / best
}

fn per_second(rate: f64) -> String {
    format!("{rate:.0}/s")
}

fn verdict(what: &str, ratio: f64, limit: &str, holds: bool) {
    println!("{what:<58} {ratio:>10.2} ({limit}: {})", if holds { "holds" } else { "MISSED" });
}

fn count_matches(plan: &Plan, events: &[RawEvent]) -> usize {
    let found = |raw: &RawEvent| match plan.process(raw) {
        Outcome::Event { evaluation, .. } => evaluation.matches.len(),
        Outcome::Dropped { .. } | Outcome::DeadLetter { .. } => 0,
    };
    events.iter().map(found).sum()
}

fn resident_mb() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap_or_default();
    line.trim().trim_end_matches("kB").trim().parse::<u64>().unwrap_or(0) / 1024
}
