//! Secrets by reference: one file a key.
