//! The command `redoubt-operator`.

fn main() {}
