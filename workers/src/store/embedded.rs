//! The store in one folder.
