//! Vector Remap Language: the expressions behind every `when` and the programs that rewrite events.
//!
//! A [`Predicate`] answers yes or no and cannot change the event; a [`Program`] may change everything but who the event is
//! (`event.id`, `event.ingested`). Both are compiled once, hold no state, and may be shared by all threads.
//!
//! What comes out is a function of the event alone: functions that read a clock, draw a random number, open a file or a socket are
//! not available ([`functions`]), so that a redelivered event becomes the same document again.
//!
//! Bounds. VRL has no unbounded loop; its closures walk arrays and objects, and could still walk them often, so each run has a budget
//! of [`MAX_STEPS`] expressions, counted and not timed. A program's text, the nesting in it, and the size and depth of what it leaves
//! behind are bounded too. What is *not* bounded is the memory of a single expression (`"x" * 1000000000`), nor the depth of a value on
//! its way through a program's variables: whoever may write an Enrichment can bring a worker down on purpose, as can whoever may write
//! its pod.

mod depth;
mod diagnostics;
mod event;
mod functions;
#[cfg(test)]
mod tests;

use std::{ops::ControlFlow, sync::LazyLock};

use serde_json::Map;
use vrl::{
    compiler::{CompileConfig, TimeZone, compile_with_external, runtime::Runtime, runtime::Terminate, state::ExternalEnv},
    path::{OwnedSegment, OwnedTargetPath, PathPrefix},
    value::Value,
};

use crate::{
    diagnostic::Problem,
    event::{self as ecs, Event},
};

pub use event::VrlEvent;
pub(super) use event::to_vrl;

/// How many expressions one run may evaluate.
pub const MAX_STEPS: u32 = 20_000;
/// Longest program, in bytes.
pub const MAX_SOURCE_BYTES: usize = 64 << 10;
/// Deepest nesting of objects and arrays in the event that a program leaves behind; past what a JSON reader lets in.
pub const MAX_DEPTH: usize = 160;
/// Largest event that a program may make, in bytes of JSON, roughly. One that was larger before may stay as large as it was.
pub const MAX_EVENT_BYTES: usize = 4 << 20;

/// Programs never see the machine's own time zone: a time without one is UTC.
static UTC: LazyLock<TimeZone> = LazyLock::new(|| TimeZone::parse("UTC").expect("UTC is in the time zone database that VRL is built with"));

/// A VRL expression that is `true` or `false` of an event.
#[derive(Debug)]
pub struct Predicate {
    program: vrl::compiler::Program,
    needs: Needs,
    /// Its answer to an event that has nothing of what it reads: most events have none, and the answer is always the same.
    of_nothing: Option<bool>,
}

/// Which part of the document an expression reads.
#[derive(Debug, PartialEq, Eq)]
enum Needs {
    /// These top-level fields.
    Fields(Vec<String>),
    /// All of it.
    Everything,
}

impl Predicate {
    /// Compiles an expression; `field` is the path of its text in the resource, such as `spec.when`.
    ///
    /// # Errors
    /// Every problem found, each with line and column: it does not parse, calls what is not available, may fail without saying what
    /// then, changes the event, or is of another type than boolean.
    pub fn compile(source: &str, field: &str) -> Result<Self, Vec<Problem>> {
        let program = compile(source, field, Role::Predicate)?;
        let result = program.final_type_info().result;
        if !result.kind().is_boolean() || !(result.returns().is_boolean() || result.returns().is_never()) {
            let (line, column) = diagnostics::last_expression(source);
            let kind = if result.kind().is_boolean() { result.returns() } else { result.kind() };
            return Err(vec![
                Problem::new(
                    field,
                    format!("a condition must be true or false; this is {kind}"),
                    "compare the value (`.user.name == \"root\"`), ask for it (`exists(.user.name)`), or write `?? false` after what may fail",
                )
                .within(line, column),
            ]);
        }
        if program.info().abortable {
            return Err(vec![Problem::new(field, "a condition cannot abort", "answer `false` instead")]);
        }
        let needs = Needs::of(&program.info().target_queries);
        let mut predicate = Self { program, needs, of_nothing: None };
        predicate.of_nothing = predicate.test_value(&mut VrlEvent::from_document(Map::new())).ok();
        Ok(predicate)
    }

    /// Whether it is true of an event. Copies only the top-level fields that the expression reads.
    ///
    /// # Errors
    /// A function that was called with `!` failed, or the budget of steps ran out; the text says which.
    pub fn test(&self, event: &Event) -> Result<bool, String> {
        let read = match &self.needs {
            Needs::Everything => event.document.clone(),
            Needs::Fields(names) => {
                let mut found = names.iter().filter_map(|name| event.document.get_key_value(name)).peekable();
                if let (None, Some(answer)) = (found.peek(), self.of_nothing) {
                    return Ok(answer);
                }
                // One after the other: collecting would sort them in a list of their own first.
                found.fold(Map::new(), |mut read, (name, value)| {
                    read.insert(name.clone(), value.clone());
                    read
                })
            }
        };
        self.test_value(&mut VrlEvent::from_document(read))
    }

    /// Whether it is true of an event that is in VRL's form already.
    ///
    /// # Errors
    /// As of [`Predicate::test`].
    pub fn test_value(&self, target: &mut VrlEvent) -> Result<bool, String> {
        match resolve(&self.program, target) {
            Ok(Value::Boolean(answer)) => Ok(answer),
            Ok(other) => Err(format!("the condition came out as {}, not as true or false", other.kind_str())),
            Err(Terminate::Interrupted) => Err(out_of_steps()),
            Err(Terminate::Abort(error) | Terminate::Error(error)) => Err(error.to_string()),
        }
    }
}

impl Needs {
    fn of(queries: &[OwnedTargetPath]) -> Self {
        let mut names: Vec<String> = Vec::new();
        for query in queries {
            match query.path.segments.first() {
                Some(OwnedSegment::Field(name)) if query.prefix == PathPrefix::Event => {
                    if !names.iter().any(|known| *known == **name) {
                        names.push(name.to_string());
                    }
                }
                _ => return Self::Everything,
            }
        }
        Self::Fields(names)
    }
}

/// What a program did to an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Outcome {
    /// It ran to its end. Holds the new `@timestamp` in milliseconds where that changed.
    Done(Option<i64>),
    /// It said `abort`: the event is as it was.
    Aborted,
}

/// A VRL program that rewrites an event.
#[derive(Debug)]
pub(super) struct Program {
    program: vrl::compiler::Program,
}

impl Program {
    /// Compiles a program; `field` is the path of its text in the resource.
    ///
    /// # Errors
    /// Every problem found, each with line and column.
    pub(super) fn compile(source: &str, field: &str) -> Result<Self, Vec<Problem>> {
        Ok(Self { program: compile(source, field, Role::Program)? })
    }

    /// Runs it over an event. `event.id` and `event.ingested` are put back afterwards, whatever the program did to them.
    ///
    /// # Errors
    /// The program failed, ran out of steps, or left behind what is no event: not an object, too large, too deep, or with an
    /// `@timestamp` that is no time. The event is then as it was.
    pub(super) fn run(&self, event: &mut VrlEvent) -> Result<Outcome, String> {
        // A copy of an event copies its keys and shares its texts.
        let before = event.root().clone();
        let outcome = match resolve(&self.program, event) {
            Ok(_) => settle(&before, event.root_mut()).map(Outcome::Done),
            Err(Terminate::Abort(error)) if self.program.info().abortable && is_abort(&error) => Ok(Outcome::Aborted),
            Err(Terminate::Interrupted) => Err(out_of_steps()),
            Err(Terminate::Abort(error) | Terminate::Error(error)) => Err(error.to_string()),
        };
        if !matches!(outcome, Ok(Outcome::Done(_))) {
            *event.root_mut() = before;
        }
        outcome
    }
}

/// Whether a termination is the program's own `abort`, not a failed function.
fn is_abort(error: &vrl::compiler::ExpressionError) -> bool {
    matches!(error, vrl::compiler::ExpressionError::Abort { .. })
}

/// Checks what a program left behind, puts back what it may not change, and answers the new `@timestamp` where that changed.
fn settle(before: &Value, after: &mut Value) -> Result<Option<i64>, String> {
    if !after.is_object() {
        return Err(format!("the program left {} in place of the event: `.` must stay an object", after.kind_str()));
    }
    let bytes = event::weigh(after, MAX_DEPTH).ok_or_else(|| format!("the program left an event nested deeper than {MAX_DEPTH} levels"))?;
    if bytes > MAX_EVENT_BYTES && event::weigh(before, MAX_DEPTH).is_none_or(|known| bytes > known) {
        return Err(format!("the program left an event of {bytes} bytes; {MAX_EVENT_BYTES} are allowed"));
    }
    for path in [vrl::path!("event", "id"), vrl::path!("event", "ingested")] {
        match before.get(path) {
            Some(value) if after.get(path) != Some(value) => {
                after.insert(path, value.clone());
            }
            None if after.contains(path) => {
                after.remove(path, false);
            }
            _ => {}
        }
    }
    let path = vrl::path!("@timestamp");
    if before.get(path) == after.get(path) {
        return Ok(None);
    }
    let millis = match after.get(path) {
        Some(Value::Timestamp(time)) => Some(time.timestamp_millis()),
        Some(text) => text.to_str().and_then(|text| text.parse::<jiff::Timestamp>().ok()).map(jiff::Timestamp::as_millisecond),
        None => None,
    };
    let millis = millis.ok_or("the program left an `@timestamp` that is no time: assign a timestamp or RFC 3339 text")?;
    after.insert(path, ecs::rfc3339(millis));
    Ok(Some(millis))
}

fn resolve(program: &vrl::compiler::Program, event: &mut VrlEvent) -> Result<Value, Terminate> {
    let mut steps = 0_u32;
    let mut budget = || {
        steps += 1;
        if steps > MAX_STEPS { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    };
    Runtime::default().resolve_with_control(event.target_mut(), program, &UTC, &mut budget)
}

fn out_of_steps() -> String {
    format!("stopped after {MAX_STEPS} expressions: the event holds more than the program can walk")
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Role {
    Predicate,
    Program,
}

fn compile(source: &str, field: &str, role: Role) -> Result<vrl::compiler::Program, Vec<Problem>> {
    if source.len() > MAX_SOURCE_BYTES {
        return Err(vec![Problem::new(
            field,
            format!("the program has {} bytes; {MAX_SOURCE_BYTES} are allowed", source.len()),
            "split it into several Enrichments",
        )]);
    }
    if let Err(found) = depth::check(source) {
        let (line, column) = diagnostics::position(source, found.offset);
        return Err(vec![Problem::new(field, found.message, found.remedy).within(line, column)]);
    }
    let mut config = CompileConfig::default();
    if role == Role::Predicate {
        config.set_read_only();
    }
    let compiled = compile_with_external(source, functions::available(), &ExternalEnv::default(), config)
        .map_err(|list| diagnostics::problems(source, field, &list))?;
    let info = compiled.program.info();
    if info.target_queries.iter().chain(&info.target_assignments).any(|path| path.prefix == PathPrefix::Metadata) {
        return Err(vec![Problem::new(field, "events have no metadata: `%` is not available", "read and write fields of the event (`.`)")]);
    }
    Ok(compiled.program)
}
