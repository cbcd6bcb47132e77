//! Copies of Secrets as files, laid out as Kubernetes mounts them: each changes as a whole.
//!
//! ```text
//! DIR/NAME                    a link to ..copies/NAME.7
//! DIR/..copies/NAME.7/KEY     the value
//! ```
//! A new version is written beside the old one and the link is turned, so that a reader meets the files of one version. What is in the
//! folder and no copy is never touched. Only this user may read what is written.

use std::{
    fs::{self, DirBuilder, OpenOptions},
    io::{self, Write as _},
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, symlink},
    path::{Path, PathBuf},
    sync::atomic::{AtomicU64, Ordering},
};

use super::component;

/// The folder of the versions. No Secret can have its name, since none begins with a dot.
const VERSIONS: &str = "..copies";

/// The copies in a folder. One process at a time keeps them.
#[derive(Debug)]
pub(super) struct Copies {
    directory: PathBuf,
    next: AtomicU64,
}

impl Copies {
    /// Takes a folder over, which is made where it is not there, and takes away the copies that a process before has left in it.
    pub(super) fn open(directory: &Path) -> io::Result<Self> {
        DirBuilder::new().recursive(true).mode(0o700).create(directory)?;
        for entry in fs::read_dir(directory)? {
            let path = entry?.path();
            if is_copy(&path) {
                fs::remove_file(path)?;
            }
        }
        let versions = directory.join(VERSIONS);
        match fs::remove_dir_all(&versions) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        DirBuilder::new().mode(0o700).create(versions)?;
        Ok(Self { directory: directory.to_owned(), next: AtomicU64::new(1) })
    }

    /// Writes a Secret, in the place of its version before.
    pub(super) fn write<'a>(&self, name: &str, values: impl IntoIterator<Item = (&'a str, &'a [u8])>) -> io::Result<()> {
        let link = self.link(name)?;
        if link.symlink_metadata().is_ok() && !is_copy(&link) {
            return Err(io::Error::other(format!("{} is there already, and not as a copy: take it away", link.display())));
        }
        let version = format!("{name}.{}", self.next.fetch_add(1, Ordering::Relaxed));
        let folder = self.directory.join(VERSIONS).join(&version);
        if let Err(error) = fill(&folder, values) {
            // What is there of it is of no use. That it cannot be taken away either adds nothing to what is said.
            let _ = fs::remove_dir_all(&folder);
            return Err(error);
        }
        let old = fs::read_link(&link).ok();
        let turned = self.directory.join(VERSIONS).join(format!("{version}.link"));
        symlink(Path::new(VERSIONS).join(&version), &turned)?;
        fs::rename(turned, &link)?;
        old.map_or(Ok(()), |old| fs::remove_dir_all(self.directory.join(old)))
    }

    /// Takes a Secret away, where it is there.
    pub(super) fn remove(&self, name: &str) -> io::Result<()> {
        let link = self.link(name)?;
        if !is_copy(&link) {
            return Ok(());
        }
        let version = fs::read_link(&link)?;
        fs::remove_file(link)?;
        fs::remove_dir_all(self.directory.join(version))
    }

    fn link(&self, name: &str) -> io::Result<PathBuf> {
        Ok(self.directory.join(component(name).map_err(io::Error::other)?))
    }
}

fn fill<'a>(folder: &Path, values: impl IntoIterator<Item = (&'a str, &'a [u8])>) -> io::Result<()> {
    DirBuilder::new().mode(0o700).create(folder)?;
    for (key, value) in values {
        let path = folder.join(component(key).map_err(io::Error::other)?);
        OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?.write_all(value)?;
    }
    Ok(())
}

/// Whether a path is a link to a version.
fn is_copy(path: &Path) -> bool {
    fs::read_link(path).is_ok_and(|to| to.starts_with(VERSIONS))
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeSet, os::unix::fs::PermissionsExt as _};

    use redoubt_crds::SecretKeyRef;

    use super::*;
    use crate::secrets::Secrets;

    fn names(directory: &Path) -> BTreeSet<String> {
        fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
    }

    fn value(directory: &Path, name: &str, key: &str) -> Option<String> {
        let reference = SecretKeyRef { name: name.to_owned(), key: key.to_owned() };
        Secrets::new(directory).get(&reference).ok().map(|value| value.expose().to_owned())
    }

    #[test]
    fn a_copy_is_what_a_mounted_secret_looks_like_and_changes_as_a_whole() {
        let folder = tempfile::tempdir().unwrap();
        let directory = folder.path().join("secrets");
        let copies = Copies::open(&directory).unwrap();

        copies.write("web", [("tls.crt", &b"old"[..]), ("tls.key", b"old"), ("ca.crt", b"old")]).unwrap();
        let open = fs::File::open(directory.join("web/tls.crt")).unwrap();
        copies.write("web", [("tls.crt", &b"new"[..]), ("tls.key", b"new")]).unwrap();

        assert_eq!(value(&directory, "web", "tls.crt").as_deref(), Some("new"));
        assert_eq!(names(&directory.join("web")), ["tls.crt".to_owned(), "tls.key".to_owned()].into());
        assert_eq!(io::read_to_string(open).unwrap(), "old", "a reader that has begun ends with what it began");
        assert_eq!(names(&directory.join(VERSIONS)).len(), 1, "the version before is gone");
    }

    #[test]
    fn nobody_else_may_read_a_copy() {
        let folder = tempfile::tempdir().unwrap();
        let directory = folder.path().join("secrets");
        let copies = Copies::open(&directory).unwrap();

        copies.write("web", [("token", &b"s3cret"[..])]).unwrap();

        let mode = |path: &str| fs::metadata(directory.join(path)).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(""), mode(VERSIONS), mode("web"), mode("web/token")), (0o700, 0o700, 0o700, 0o600));
    }

    #[test]
    fn what_is_removed_and_what_was_left_behind_is_gone() {
        let folder = tempfile::tempdir().unwrap();
        let copies = Copies::open(folder.path()).unwrap();
        copies.write("web", [("token", &b"1"[..])]).unwrap();
        copies.write("app", [("token", &b"2"[..])]).unwrap();

        copies.remove("web").unwrap();
        copies.remove("web").unwrap();
        assert_eq!(names(folder.path()), [VERSIONS.to_owned(), "app".to_owned()].into());
        Copies::open(folder.path()).unwrap();

        assert_eq!(names(folder.path()), [VERSIONS.to_owned()].into());
        assert!(names(&folder.path().join(VERSIONS)).is_empty());
    }

    #[test]
    fn what_is_no_copy_is_not_touched() {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("own")).unwrap();
        fs::write(folder.path().join("own/token"), "mine").unwrap();
        let copies = Copies::open(folder.path()).unwrap();

        let error = copies.write("own", [("token", &b"theirs"[..])]).unwrap_err();
        copies.remove("own").unwrap();

        assert!(error.to_string().contains("take it away"), "{error}");
        assert_eq!(value(folder.path(), "own", "token").as_deref(), Some("mine"));
    }

    #[test]
    fn no_name_leads_out_of_the_folder() {
        let folder = tempfile::tempdir().unwrap();
        let copies = Copies::open(&folder.path().join("secrets")).unwrap();

        for (name, key) in [("..", "a"), ("../b", "a"), ("", "a"), ("..copies", "a"), ("web", "../a"), ("web", "a/b")] {
            assert!(copies.write(name, [(key, &b"x"[..])]).is_err(), "{name}/{key}");
        }
        assert_eq!(names(folder.path()).len(), 1);
        assert!(names(&folder.path().join("secrets").join(VERSIONS)).is_empty(), "nothing is left of what failed");
    }
}
