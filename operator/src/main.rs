//! The command `redoubt-operator`.

use std::process::ExitCode;

/// The allocator: what many short-lived objects leave behind goes back to the system. Its settings are in `.cargo/config.toml`.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> ExitCode {
    redoubt_operator::cli::main()
}
