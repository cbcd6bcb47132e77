//! Diagnostics on the terminal, in the form that editors understand: `FILE:LINE:COLUMN: what`.

use redoubt_engine::diagnostic::{Diagnostic, Level};

use super::print::{DIM, RED, YELLOW, counted, styled};

/// Prints diagnostics to standard error. Returns how many of them are errors.
pub(super) fn print(diagnostics: &[Diagnostic]) -> usize {
    let mut errors = 0;
    for diagnostic in diagnostics {
        let label = match diagnostic.level {
            Level::Error => {
                errors += 1;
                styled(RED, "error")
            }
            Level::Warning => styled(YELLOW, "warning"),
        };
        let place = styled(DIM, &diagnostic.location.to_string());
        let resource = diagnostic.resource.as_ref().map(|(kind, name)| format!("{kind}/{name}: ")).unwrap_or_default();
        let field = if diagnostic.field.is_empty() { String::new() } else { format!("{}: ", diagnostic.field) };
        anstream::eprintln!("{place}: {label}: {resource}{field}{}", diagnostic.message);
        if !diagnostic.remedy.is_empty() {
            anstream::eprintln!("    {} {}", styled(DIM, "help:"), diagnostic.remedy);
        }
    }
    errors
}

/// A closing line such as `2 errors, 1 warning`.
pub(super) fn summary(diagnostics: &[Diagnostic]) -> String {
    let errors = diagnostics.iter().filter(|diagnostic| diagnostic.level == Level::Error).count();
    format!("{}, {}", counted(errors, "error"), counted(diagnostics.len() - errors, "warning"))
}
