//! The VRL compiler's findings as [`Problem`]s: where in the text, what, and what to do.

use vrl::{
    diagnostic::{Diagnostic, DiagnosticList, Note},
    parser::ast::RootExpr,
};

use super::functions;
use crate::diagnostic::Problem;

/// VRL's code for a call of a function that it does not know.
const UNDEFINED_FUNCTION: usize = 105;
/// Longest message and longest remedy.
const MAX_MESSAGE_CHARS: usize = 400;
/// Longest single hint. Parse errors list every token that could have stood there, which helps nobody.
const MAX_HINT_CHARS: usize = 160;

/// One problem for each error, in the compiler's order. Never empty.
pub(super) fn problems(source: &str, field: &str, list: &DiagnosticList) -> Vec<Problem> {
    let mut problems: Vec<Problem> = Vec::new();
    for diagnostic in list.iter().filter(|diagnostic| diagnostic.is_problem()) {
        let problem = problem(source, field, diagnostic);
        if !problems.contains(&problem) {
            problems.push(problem);
        }
    }
    if problems.is_empty() {
        problems.push(Problem::new(field, "the program does not compile", ""));
    }
    problems
}

fn problem(source: &str, field: &str, diagnostic: &Diagnostic) -> Problem {
    let primary = diagnostic.labels().iter().find(|label| label.primary).or_else(|| diagnostic.labels().first());
    let position = primary.map(|label| position(source, label.span.start()));

    let called = primary.and_then(|label| source.get(label.span.range()));
    let absent = called.filter(|_| diagnostic.code == UNDEFINED_FUNCTION).and_then(functions::find_absent);
    let problem = if let Some(absent) = absent {
        Problem::new(field, format!("{} is not available: {}", absent.name, absent.reason), absent.instead)
    } else if let Some(called) = called.filter(|_| diagnostic.code == UNDEFINED_FUNCTION) {
        Problem::new(field, format!("there is no function {called}"), remedy(diagnostic))
    } else {
        let mut message = diagnostic.message().to_owned();
        if let Some(label) = primary.filter(|label| !label.message.is_empty() && label.message != diagnostic.message()) {
            message = format!("{message}: {}", label.message);
        }
        Problem::new(field, shorten(&message), shorten(&remedy(diagnostic)))
    };
    match position {
        Some((line, column)) => problem.within(line, column),
        None => problem,
    }
}

/// What the compiler itself suggests: the labels beside the main one, then its notes, links left out.
fn remedy(diagnostic: &Diagnostic) -> String {
    let mut parts: Vec<String> =
        diagnostic.labels().iter().filter(|label| !label.primary).map(|label| label.message.trim().to_owned()).collect();
    for note in diagnostic.notes() {
        match note {
            Note::Hint(_) | Note::Example(_) | Note::CoerceValue | Note::Basic(_) | Note::UserErrorMessage(_) => {
                parts.push(note.to_string().trim().to_owned());
            }
            Note::SeeFunctionDocs(_)
            | Note::SeeErrorDocs
            | Note::SeeCodeDocs(_)
            | Note::SeeLangDocs
            | Note::SeeFunctionCharacteristicsDocs
            | Note::SeeRepl
            | Note::SeeDocs(..) => {}
        }
    }
    parts.retain(|part| !part.is_empty() && part.chars().count() <= MAX_HINT_CHARS);
    parts.join("; ")
}

fn shorten(text: &str) -> String {
    let mut line = text.split_whitespace().collect::<Vec<_>>().join(" ");
    if let Some((end, _)) = line.char_indices().nth(MAX_MESSAGE_CHARS) {
        line.truncate(end);
        line.push('…');
    }
    line
}

/// Line and column, from one, of a byte offset. Columns count characters.
pub(super) fn position(source: &str, offset: usize) -> (usize, usize) {
    let mut line = 1;
    let mut column = 1;
    for (at, character) in source.char_indices() {
        if at >= offset {
            break;
        }
        if character == '\n' {
            line += 1;
            column = 1;
        } else {
            column += 1;
        }
    }
    (line, column)
}

/// Where the last expression of a program that parses starts: the one whose value is the program's.
pub(super) fn last_expression(source: &str) -> (usize, usize) {
    let offset = vrl::parser::parse(source)
        .ok()
        .and_then(|program| {
            program.0.iter().rev().find_map(|node| match node.inner() {
                RootExpr::Expr(expression) => Some(expression.span().start()),
                RootExpr::Error(_) => None,
            })
        })
        .unwrap_or_default();
    position(source, offset)
}
