//! The `redoubt` command.

use std::process::ExitCode;

/// The allocator: events are made by some threads and let go by others, for which the system's own keeps several times the memory in
/// use. Its settings are in `.cargo/config.toml`.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> ExitCode {
    redoubt::cli::main()
}
