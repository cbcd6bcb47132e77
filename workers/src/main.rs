//! The `redoubt` command.

use std::process::ExitCode;

fn main() -> ExitCode {
    redoubt::cli::main()
}
