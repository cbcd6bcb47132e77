//! Secrets by reference: one file a key.
//!
//! A resource never holds a secret, it names one: `{name, key}`. Here that name becomes the file `DIRECTORY/NAME/KEY`, which is what a
//! mounted Kubernetes Secret looks like, and on one machine is a folder that its owner fills. A changed file is seen within a second,
//! so that a token is rotated without a restart. A value never reaches a log: its type prints as `[secret]`.
//!
//! In a cluster, [`mirror`] keeps such a folder.

use std::{
    collections::HashMap,
    fmt, fs, io,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use redoubt_crds::{SecretKeyRef, TlsSecretRef};

mod copies;
pub(crate) mod mirror;

/// How long a value is given out before its file is looked at again.
const RECHECK: Duration = Duration::from_secs(1);
/// Largest file that is read as a secret: the size that Kubernetes gives a whole Secret.
const MAX_BYTES: u64 = 1 << 20;

/// Why a secret has no value.
#[derive(Debug, thiserror::Error)]
pub enum SecretError {
    /// A name that would lead out of the directory.
    #[error("{part:?} cannot name a Secret or a key; use letters, digits, '-', '_' and '.', and no leading '..'")]
    Name {
        /// The name.
        part: String,
    },
    /// The file is not there or cannot be read.
    #[error("secret file {} cannot be read: {error}; create it, or correct the reference to key {key:?} of Secret {name:?}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Name of the Secret.
        name: String,
        /// Key within it.
        key: String,
        /// What the system said.
        error: io::Error,
    },
    /// The file holds no text, or too much.
    #[error("secret file {} {problem}", path.display())]
    Content {
        /// The file.
        path: PathBuf,
        /// What is wrong, and what to do.
        problem: &'static str,
    },
}

/// The value of a secret. Prints as `[secret]`.
#[derive(Clone, PartialEq, Eq)]
pub struct SecretValue(Arc<str>);

impl SecretValue {
    /// The value itself, for the one place that needs it.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// Whether two values are the same reading of the same file: cheap, and true until the file changes.
    #[must_use]
    pub fn same_reading(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl From<&str> for SecretValue {
    fn from(text: &str) -> Self {
        Self(text.into())
    }
}

impl fmt::Debug for SecretValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[secret]")
    }
}

/// The secrets of one directory. Clones share what was read.
#[derive(Debug, Clone)]
pub struct Secrets {
    directory: Arc<Path>,
    read: Arc<Mutex<HashMap<SecretKeyRef, Reading>>>,
}

/// A value with what tells that its file is still the same.
#[derive(Debug, Clone)]
struct Reading {
    value: SecretValue,
    stamp: Stamp,
    checked: Instant,
}

/// What changes when a file is written anew or replaced: modification time in seconds and nanoseconds, size, and inode. The inode
/// matters for mounted Secrets, where a link is turned to another folder.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Stamp(i64, i64, u64, u64);

impl Stamp {
    /// The stamp of the file at a path, links followed.
    pub(crate) fn of(path: &Path) -> io::Result<Self> {
        let metadata = fs::metadata(path)?;
        Ok(Self(metadata.mtime(), metadata.mtime_nsec(), metadata.size(), metadata.ino()))
    }
}

impl Secrets {
    /// The secrets below a directory, which need not exist yet.
    #[must_use]
    pub fn new(directory: impl Into<PathBuf>) -> Self {
        Self { directory: directory.into().into(), read: Arc::default() }
    }

    /// The value of a key, without one trailing line end. Reads the file when it is new or has changed, at most once a second; the
    /// read is of a small local file, so this may be called from async code.
    ///
    /// # Errors
    /// The reference leads out of the directory, or its file is missing, not readable, not UTF-8 or above 1 MiB. A file that went away
    /// is an error too, not its last value: taking the file away is how a credential is revoked.
    pub fn get(&self, reference: &SecretKeyRef) -> Result<SecretValue, SecretError> {
        self.get_at(reference, Instant::now())
    }

    /// [`Secrets::get`] at a given time.
    fn get_at(&self, reference: &SecretKeyRef, now: Instant) -> Result<SecretValue, SecretError> {
        let mut read = self.read.lock().unwrap_or_else(PoisonError::into_inner);
        let known = read.get(reference).cloned();
        if let Some(reading) = &known
            && now.saturating_duration_since(reading.checked) < RECHECK
        {
            return Ok(reading.value.clone());
        }
        let reading = self.reread(reference, known, now);
        match &reading {
            Ok(reading) => read.insert(reference.clone(), reading.clone()),
            Err(_) => read.remove(reference),
        };
        reading.map(|reading| reading.value)
    }

    /// The directory of a TLS Secret, for [`crate::tls`].
    ///
    /// # Errors
    /// The name leads out of the directory.
    pub fn tls_directory(&self, reference: &TlsSecretRef) -> Result<PathBuf, SecretError> {
        Ok(self.directory.join(component(&reference.name)?))
    }

    fn reread(&self, reference: &SecretKeyRef, known: Option<Reading>, now: Instant) -> Result<Reading, SecretError> {
        let path = self.directory.join(component(&reference.name)?).join(component(&reference.key)?);
        let unreadable = |error| SecretError::Read { path: path.clone(), name: reference.name.clone(), key: reference.key.clone(), error };
        let stamp = Stamp::of(&path).map_err(unreadable)?;
        if let Some(known) = known
            && known.stamp == stamp
        {
            return Ok(Reading { checked: now, ..known });
        }
        if stamp.2 > MAX_BYTES {
            return Err(SecretError::Content { path, problem: "is above 1 MiB; keep one key a file" });
        }
        let bytes = fs::read(&path).map_err(unreadable)?;
        let Ok(text) = String::from_utf8(bytes) else {
            return Err(SecretError::Content { path, problem: "is not UTF-8 text; write it without a binary encoding" });
        };
        let value = text.strip_suffix('\n').map_or(text.as_str(), |line| line.strip_suffix('\r').unwrap_or(line));
        Ok(Reading { value: value.into(), stamp, checked: now })
    }
}

/// A name as one component of a path.
fn component(part: &str) -> Result<&str, SecretError> {
    let plain = part.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.'));
    if part.is_empty() || !plain || part == "." || part.starts_with("..") {
        return Err(SecretError::Name { part: part.to_owned() });
    }
    Ok(part)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reference(name: &str, key: &str) -> SecretKeyRef {
        SecretKeyRef { name: name.into(), key: key.into() }
    }

    fn directory_with(content: &str) -> tempfile::TempDir {
        let directory = tempfile::tempdir().unwrap();
        fs::create_dir(directory.path().join("web")).unwrap();
        fs::write(directory.path().join("web/token"), content).unwrap();
        directory
    }

    #[test]
    fn a_reference_is_the_file_of_that_name_without_one_line_end() {
        for (content, expected) in [("s3cret", "s3cret"), ("s3cret\n", "s3cret"), ("s3cret\r\n", "s3cret"), ("a\nb\n\n", "a\nb\n")] {
            let directory = directory_with(content);

            let value = Secrets::new(directory.path()).get(&reference("web", "token")).unwrap();

            assert_eq!(value.expose(), expected, "{content:?}");
        }
    }

    #[test]
    fn a_changed_file_is_read_again_a_second_later() {
        let directory = directory_with("old");
        let secrets = Secrets::new(directory.path());
        let start = Instant::now();
        let token = reference("web", "token");
        let old = secrets.get_at(&token, start).unwrap();

        fs::write(directory.path().join("web/token"), "newer").unwrap();

        assert!(secrets.get_at(&token, start + Duration::from_millis(900)).unwrap().same_reading(&old));
        assert_eq!(secrets.get_at(&token, start + RECHECK).unwrap().expose(), "newer");
    }

    #[test]
    fn a_file_that_went_away_has_no_value_any_more() {
        let directory = directory_with("old");
        let secrets = Secrets::new(directory.path());
        let start = Instant::now();
        let token = reference("web", "token");
        secrets.get_at(&token, start).unwrap();

        fs::remove_file(directory.path().join("web/token")).unwrap();

        let error = secrets.get_at(&token, start + RECHECK).unwrap_err().to_string();
        assert!(error.contains("web/token") && error.contains("create it"), "{error}");
    }

    #[test]
    fn no_name_leads_out_of_the_directory() {
        let directory = directory_with("s3cret");
        let secrets = Secrets::new(directory.path().join("web"));

        for (name, key) in
            [("..", "token"), ("../web", "token"), (".", "token"), ("", "token"), ("a/b", "c"), ("a", "..data"), ("a\\b", "c")]
        {
            assert!(matches!(secrets.get(&reference(name, key)), Err(SecretError::Name { .. })), "{name}/{key}");
        }
    }

    #[test]
    fn a_value_does_not_print() {
        let directory = directory_with("s3cret");
        let secrets = Secrets::new(directory.path());

        let value = secrets.get(&reference("web", "token")).unwrap();

        assert_eq!(format!("{value:?}"), "[secret]");
        assert!(!format!("{secrets:?}").contains("s3cret"));
    }
}
