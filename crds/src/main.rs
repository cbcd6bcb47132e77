//! Writes the manifests and the reference pages that are made from the resource types.

use std::{
    env, fs,
    io::{self, Write as _},
    path::PathBuf,
};

use anyhow::Context as _;

fn main() -> anyhow::Result<()> {
    let root = env::args_os().nth(1).map_or_else(|| PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/..")), PathBuf::from);
    let mut out = io::stdout().lock();
    for (path, text) in redoubt_crds::generate::files(&root)? {
        let file = root.join(&path);
        if let Some(folder) = file.parent() {
            fs::create_dir_all(folder).with_context(|| format!("cannot make the folder {}", folder.display()))?;
        }
        fs::write(&file, text).with_context(|| format!("cannot write {}", file.display()))?;
        writeln!(out, "{}", path.display())?;
    }
    Ok(())
}
