//! `redoubt import sigma`: Sigma rules to AlertRules.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::{Context as _, Result, bail};
use clap::{Args, Subcommand};
use redoubt_engine::rule::import;

use super::{
    print::{RED, counted, styled},
    progress,
};

/// Turn rules of other systems into resources
#[derive(Debug, Args)]
pub(super) struct Import {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    Sigma(Sigma),
}

/// Sigma rules: each becomes an AlertRule that holds it word for word, author and licence with it
#[derive(Debug, Args)]
struct Sigma {
    /// Files with Sigma rules, or folders: all .yml and .yaml files below them.
    #[arg(required = true, value_name = "PATH")]
    paths: Vec<PathBuf>,
    /// The folder to write to, one file a rule, in the same folders as the rules lie in.
    #[arg(short = 'o', long = "output", value_name = "DIR")]
    output: PathBuf,
}

impl Import {
    pub(super) fn execute(self) -> Result<ExitCode> {
        let What::Sigma(sigma) = self.what;
        sigma.execute()
    }
}

impl Sigma {
    fn execute(self) -> Result<ExitCode> {
        let mut files = Vec::new();
        for root in &self.paths {
            find_rules(root, root, &mut files).with_context(|| format!("looking for rules in {}", root.display()))?;
        }
        if files.is_empty() {
            bail!("no .yml or .yaml file found");
        }
        let bar = progress::bar(Some(files.len() as u64), "importing");
        let mut names = BTreeSet::new();
        let (mut imported, mut refused) = (0, 0);
        for (path, relative) in &files {
            let text = fs::read_to_string(path).with_context(|| format!("reading {}", path.display()))?;
            match import::import(&text, &path.display().to_string()) {
                Ok(rules) => {
                    for mut rule in rules {
                        let name = unique_name(rule.metadata.name.as_deref().unwrap_or("rule"), &mut names);
                        let target = self.output.join(relative).with_file_name(format!("{name}.yaml"));
                        rule.metadata.name = Some(name);
                        write(&target, &import::to_yaml(&rule))?;
                        imported += 1;
                    }
                }
                Err(problems) => {
                    refused += 1;
                    for problem in problems {
                        bar.suspend(|| anstream::eprintln!("{}: {} {}", path.display(), styled(RED, "not imported:"), problem.message));
                    }
                }
            }
            progress::advance(&bar, 1);
        }
        bar.finish_and_clear();
        anstream::println!("{} imported to {}, {} not", counted(imported, "rule"), self.output.display(), refused);
        Ok(if refused == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    }
}

/// Files with rules below a path, each with its path relative to where the search began.
fn find_rules(root: &Path, path: &Path, files: &mut Vec<(PathBuf, PathBuf)>) -> Result<()> {
    if path.is_file() {
        let base = if path == root { path.parent().unwrap_or(root) } else { root };
        files.push((path.to_owned(), path.strip_prefix(base).unwrap_or(path).to_owned()));
        return Ok(());
    }
    let mut entries: Vec<PathBuf> = fs::read_dir(path)?.map(|entry| entry.map(|entry| entry.path())).collect::<Result<_, _>>()?;
    entries.sort();
    for entry in entries {
        let rule = entry.extension().is_some_and(|extension| extension == "yml" || extension == "yaml");
        if entry.is_dir() || rule {
            find_rules(root, &entry, files)?;
        }
    }
    Ok(())
}

/// A name that no rule has been given yet.
fn unique_name(wanted: &str, names: &mut BTreeSet<String>) -> String {
    let mut name = wanted.to_owned();
    let mut number = 2;
    while !names.insert(name.clone()) {
        name = format!("{wanted}-{number}");
        number += 1;
    }
    name
}

fn write(path: &Path, text: &str) -> Result<()> {
    let folder = path.parent().unwrap_or(Path::new("."));
    fs::create_dir_all(folder).with_context(|| format!("making the folder {}", folder.display()))?;
    fs::write(path, text).with_context(|| format!("writing {}", path.display()))
}
