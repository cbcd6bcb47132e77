//! What is wrong with a resource, said so that it can be mended: where, what, and what to do.

use std::{fmt, path::PathBuf, sync::Arc};

/// How much a finding matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Level {
    /// The resource runs; something about it deserves a look.
    Warning,
    /// The resource is left out, or its last good version keeps running.
    Error,
}

/// A place in a file. Lines and columns count from one.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Location {
    /// The file, as the user named it; or the object's URL path when it came from the Kubernetes API.
    pub file: Arc<PathBuf>,
    /// Line, from one.
    pub line: usize,
    /// Column, from one.
    pub column: usize,
}

impl fmt::Display for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}", self.file.display(), self.line, self.column)
    }
}

/// A problem inside one resource, before it is known where the resource stands: the parts of the engine that compile a piece of a
/// resource answer with this, and [`crate::compile`] adds file, line and column.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// Path of the field from the resource's root, such as `spec.vrl.source` or `spec.tests[2].events[0]`.
    pub field: String,
    /// Position inside the field's text, for programs that span lines: line and column from one.
    pub within: Option<(usize, usize)>,
    /// What is wrong.
    pub message: String,
    /// What to do about it; may be empty where the message says it all.
    pub remedy: String,
}

impl Problem {
    /// A problem with a whole field.
    pub fn new(field: impl Into<String>, message: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { field: field.into(), within: None, message: message.into(), remedy: remedy.into() }
    }

    /// The same problem, at a line and column of the field's text.
    #[must_use]
    pub fn within(mut self, line: usize, column: usize) -> Self {
        self.within = Some((line, column));
        self
    }
}

/// A problem with its place: what `redoubt check` prints and a condition's message holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Diagnostic {
    /// How much it matters.
    pub level: Level,
    /// Kind and name of the resource, where it has been understood so far.
    pub resource: Option<(String, String)>,
    /// Where.
    pub location: Location,
    /// Path of the field from the resource's root; empty when the file itself is not readable.
    pub field: String,
    /// What is wrong.
    pub message: String,
    /// What to do about it.
    pub remedy: String,
}

impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: ", self.location)?;
        if let Some((kind, name)) = &self.resource {
            write!(f, "{kind}/{name}: ")?;
        }
        if !self.field.is_empty() {
            write!(f, "{}: ", self.field)?;
        }
        f.write_str(&self.message)?;
        if !self.remedy.is_empty() {
            write!(f, " ({})", self.remedy)?;
        }
        Ok(())
    }
}
