//! The queue in one file.
