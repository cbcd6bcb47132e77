//! `redoubt completions` and `redoubt man`: made from the command line's own definition.

use std::{fs, io, path::PathBuf, process::ExitCode};

use anyhow::{Context as _, Result};
use clap::{Args, Command};
use clap_complete::Shell;

/// Print the completion script of a shell
#[derive(Debug, Args)]
pub(super) struct Completions {
    /// Which shell.
    shell: Shell,
}

impl Completions {
    pub(super) fn execute(self, command: &mut Command) -> Result<ExitCode> {
        clap_complete::generate(self.shell, command, "redoubt", &mut io::stdout());
        Ok(ExitCode::SUCCESS)
    }
}

/// Write manual pages, one a command
#[derive(Debug, Args)]
pub(super) struct Man {
    /// The folder to write to.
    #[arg(short = 'o', long = "output", value_name = "DIR")]
    output: PathBuf,
}

impl Man {
    pub(super) fn execute(self, command: Command) -> Result<ExitCode> {
        fs::create_dir_all(&self.output).with_context(|| format!("making the folder {}", self.output.display()))?;
        clap_mangen::generate_to(command, &self.output)?;
        Ok(ExitCode::SUCCESS)
    }
}
