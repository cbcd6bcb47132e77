//! Paths that Enrichments read and write.

use crate::diagnostic::Problem;

/// What no step may write over: what an event is, and what the program keeps about it.
const RESERVED: [&str; 4] = ["@timestamp", "event.id", "event.ingested", "tags"];

/// Checks a path that is read.
pub(super) fn check_read(path: &str, field: &str) -> Result<(), Problem> {
    if path.split('.').any(str::is_empty) {
        return Err(Problem::new(
            field,
            format!("{path:?} is no path of a field"),
            "write names with dots between them, such as source.ip",
        ));
    }
    Ok(())
}

/// Checks a path that is written.
pub(super) fn check_write(path: &str, field: &str) -> Result<(), Problem> {
    check_read(path, field)?;
    for reserved in RESERVED {
        let within = |inner: &str, outer: &str| inner == outer || inner.strip_prefix(outer).is_some_and(|rest| rest.starts_with('.'));
        if within(path, reserved) || within(reserved, path) {
            return Err(Problem::new(
                field,
                format!("{path} would overwrite {reserved}"),
                "choose a field of its own, such as labels.known",
            ));
        }
    }
    Ok(())
}
