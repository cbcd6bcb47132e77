//! The first role: takes events in.
