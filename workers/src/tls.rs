//! TLS for listeners, from a folder that may change under a running process.
//!
//! The folder is what a mounted Secret of type `kubernetes.io/tls` looks like: `tls.crt` (the chain, leaf first), `tls.key`, and where
//! senders must show a certificate, `ca.crt`. Certificates are renewed while connections run, so [`ServerTls::config`] looks at the
//! files again when a connection comes, at most every five seconds. A new set that does not work (half written, key and certificate of
//! two different pairs) never takes the place of one that does: the old one stays in use and the log says why.
//!
//! TLS 1.2 and 1.3 with ring; what is offered is rustls's default.

use std::{
    fmt, io,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use rustls::{
    RootCertStore, ServerConfig,
    crypto::{CryptoProvider, ring},
    server::WebPkiClientVerifier,
    sign::CertifiedKey,
};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _};

use crate::secrets::Stamp;

mod expiry;

/// How long a configuration is given out before the files are looked at again.
const RECHECK: Duration = Duration::from_secs(5);

/// Why a folder does not make a TLS configuration.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file is missing or not readable.
    #[error("{} cannot be read: {error}; a TLS Secret holds tls.crt, tls.key and optionally ca.crt", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        error: io::Error,
    },
    /// A file holds something else than it should.
    #[error("{} is not usable: {problem}; write it as PEM", path.display())]
    Pem {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        problem: String,
    },
    /// The parts do not make a whole.
    #[error("the certificate and key in {} do not work: {error}; replace both files together", directory.display())]
    Pair {
        /// The folder.
        directory: PathBuf,
        /// What rustls said.
        error: rustls::Error,
    },
}

/// The TLS side of a listener. Clones share what was loaded.
#[derive(Clone)]
pub struct ServerTls {
    directory: Arc<Path>,
    protocols: Arc<[Vec<u8>]>,
    loaded: Arc<Mutex<Loaded>>,
}

struct Loaded {
    config: Arc<ServerConfig>,
    expires: Option<i64>,
    stamps: [Option<Stamp>; 3],
    checked: Instant,
}

impl ServerTls {
    /// Loads a folder. `protocols` is what is offered by ALPN (RFC 7301), such as `h2`; empty for none.
    ///
    /// # Errors
    /// A file is missing or unusable, or key and certificate do not belong together.
    pub fn load(directory: impl Into<PathBuf>, protocols: &[&str]) -> Result<Self, TlsError> {
        let directory: Arc<Path> = directory.into().into();
        let protocols: Arc<[Vec<u8>]> = protocols.iter().map(|name| name.as_bytes().to_vec()).collect();
        // The stamps come first: what changes while the files are read is seen as a change at the next look.
        let stamps = stamps(&directory);
        let (config, expires) = read(&directory, &protocols)?;
        let loaded = Loaded { config: Arc::new(config), expires, stamps, checked: Instant::now() };
        Ok(Self { directory, protocols, loaded: Arc::new(Mutex::new(loaded)) })
    }

    /// The configuration for the next connection: the newest that works.
    #[must_use]
    pub fn config(&self) -> Arc<ServerConfig> {
        self.look(Instant::now()).config.clone()
    }

    /// When the newest certificate that works ends, in seconds since 1970; `None` where its validity cannot be read.
    #[must_use]
    pub fn expires(&self) -> Option<i64> {
        self.look(Instant::now()).expires
    }

    /// What is loaded, after a look at the files where it is time for one.
    fn look(&self, now: Instant) -> MutexGuard<'_, Loaded> {
        let mut loaded = self.loaded.lock().unwrap_or_else(PoisonError::into_inner);
        if now.saturating_duration_since(loaded.checked) < RECHECK {
            return loaded;
        }
        loaded.checked = now;
        let stamps = stamps(&self.directory);
        if stamps != loaded.stamps {
            loaded.stamps = stamps;
            match read(&self.directory, &self.protocols) {
                Ok((config, expires)) => {
                    loaded.config = Arc::new(config);
                    loaded.expires = expires;
                    tracing::info!(directory = %self.directory.display(), "certificate reloaded");
                }
                Err(error) => tracing::error!(%error, "changed certificate not taken over; the last one that works stays in use"),
            }
        }
        loaded
    }
}

impl fmt::Debug for ServerTls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ServerTls").field("directory", &self.directory).finish_non_exhaustive()
    }
}

/// What tells whether the files are still the same; `None` for one that is not there.
fn stamps(directory: &Path) -> [Option<Stamp>; 3] {
    ["tls.crt", "tls.key", "ca.crt"].map(|name| Stamp::of(&directory.join(name)).ok())
}

fn read(directory: &Path, protocols: &[Vec<u8>]) -> Result<(ServerConfig, Option<i64>), TlsError> {
    let provider = Arc::new(ring::default_provider());
    let pair = |error| TlsError::Pair { directory: directory.to_owned(), error };
    let chain = certificates(&directory.join("tls.crt"))?;
    let expires = chain.first().and_then(|leaf| expiry::not_after(leaf));
    let key = private_key(&directory.join("tls.key"))?;
    // Checks that key and certificate belong together, which the builder below would not.
    let certified = CertifiedKey::from_der(chain, key, &provider).map_err(pair)?;

    let builder = ServerConfig::builder_with_provider(provider.clone()).with_safe_default_protocol_versions().map_err(pair)?;
    let ca = directory.join("ca.crt");
    let builder =
        if ca.exists() { builder.with_client_cert_verifier(client_verifier(&ca, provider)?) } else { builder.with_no_client_auth() };
    let mut config = builder.with_cert_resolver(Arc::new(rustls::sign::SingleCertAndKey::from(certified)));
    config.alpn_protocols = protocols.to_vec();
    Ok((config, expires))
}

fn client_verifier(ca: &Path, provider: Arc<CryptoProvider>) -> Result<Arc<dyn rustls::server::danger::ClientCertVerifier>, TlsError> {
    let unusable = |problem: String| TlsError::Pem { path: ca.to_owned(), problem };
    let mut roots = RootCertStore::empty();
    for certificate in certificates(ca)? {
        roots.add(certificate).map_err(|error| unusable(error.to_string()))?;
    }
    WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider).build().map_err(|error| unusable(error.to_string()))
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let unusable = |problem: String| TlsError::Pem { path: path.to_owned(), problem };
    let pem = read_file(path)?;
    let certificates = CertificateDer::pem_slice_iter(&pem).collect::<Result<Vec<_>, _>>().map_err(|error| unusable(error.to_string()))?;
    if certificates.is_empty() { Err(unusable("it holds no certificate".into())) } else { Ok(certificates) }
}

fn private_key(path: &Path) -> Result<PrivateKeyDer<'static>, TlsError> {
    let pem = read_file(path)?;
    // The error of the PEM reader names kinds of blocks, never their content.
    PrivateKeyDer::from_pem_slice(&pem).map_err(|error| TlsError::Pem { path: path.to_owned(), problem: error.to_string() })
}

fn read_file(path: &Path) -> Result<Vec<u8>, TlsError> {
    std::fs::read(path).map_err(|error| TlsError::Read { path: path.to_owned(), error })
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, KeyPair, date_time_ymd};

    use super::*;

    /// A certificate for `localhost` that ends on the first of January of a year, and its key.
    fn pair(year: i32) -> (String, String) {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
        params.not_after = date_time_ymd(year, 1, 1);
        (params.self_signed(&key).unwrap().pem(), key.serialize_pem())
    }

    fn write(directory: &Path, certificate: &str, key: &str) {
        std::fs::write(directory.join("tls.crt"), certificate).unwrap();
        std::fs::write(directory.join("tls.key"), key).unwrap();
    }

    /// 1 January of a year, in seconds since 1970.
    fn new_year(year: i32) -> i64 {
        format!("{year}-01-01T00:00:00Z").parse::<jiff::Timestamp>().unwrap().as_second()
    }

    #[test]
    fn a_renewed_pair_is_served_from_the_next_look_on() {
        let directory = tempfile::tempdir().unwrap();
        let ((old_certificate, old_key), (new_certificate, new_key)) = (pair(2040), pair(2060));
        write(directory.path(), &old_certificate, &old_key);
        let tls = ServerTls::load(directory.path(), &["h2"]).unwrap();
        let old = tls.config();

        write(directory.path(), &new_certificate, &new_key);

        assert!(Arc::ptr_eq(&tls.config(), &old), "no look before the time");
        let new = tls.look(Instant::now() + RECHECK).config.clone();
        assert!(!Arc::ptr_eq(&new, &old));
        assert_eq!(new.alpn_protocols, [b"h2".to_vec()]);
        assert_eq!(tls.expires(), Some(new_year(2060)));
    }

    #[test]
    fn a_changed_pair_that_does_not_work_leaves_the_old_one_in_use() {
        let (certificate, key) = pair(2040);
        let (_, foreign_key) = pair(2041);

        for (case, broken_certificate, broken_key) in [
            ("a key of another pair", certificate.as_str(), foreign_key.as_str()),
            ("half a certificate", &certificate[..certificate.len() / 2], key.as_str()),
            ("no key", certificate.as_str(), ""),
        ] {
            let directory = tempfile::tempdir().unwrap();
            write(directory.path(), &certificate, &key);
            let tls = ServerTls::load(directory.path(), &[]).unwrap();
            let old = tls.config();

            write(directory.path(), broken_certificate, broken_key);
            let later = Instant::now() + RECHECK;
            let kept = tls.look(later).config.clone();
            write(directory.path(), &certificate, &key);
            let mended = tls.look(later + RECHECK).config.clone();

            assert!(Arc::ptr_eq(&kept, &old), "{case}");
            assert!(!Arc::ptr_eq(&mended, &old), "{case}: mended files are taken over");
        }
    }

    #[test]
    fn a_folder_that_cannot_serve_is_refused_with_the_file_and_the_remedy() {
        let (certificate, key) = pair(2040);
        let (_, foreign_key) = pair(2040);
        let fill = |certificate: Option<&str>, key: Option<&str>, ca: Option<&str>| {
            let directory = tempfile::tempdir().unwrap();
            for (name, content) in [("tls.crt", certificate), ("tls.key", key), ("ca.crt", ca)] {
                if let Some(content) = content {
                    std::fs::write(directory.path().join(name), content).unwrap();
                }
            }
            directory
        };

        for (directory, expected) in [
            (fill(None, Some(&key), None), "tls.crt cannot be read"),
            (fill(Some(&certificate), None, None), "tls.key cannot be read"),
            (fill(Some("text"), Some(&key), None), "holds no certificate"),
            (fill(Some(&certificate), Some("text"), None), "tls.key is not usable"),
            (fill(Some(&certificate), Some(&foreign_key), None), "replace both files together"),
            (fill(Some(&certificate), Some(&key), Some("text")), "ca.crt is not usable"),
        ] {
            let error = ServerTls::load(directory.path(), &[]).unwrap_err().to_string();

            assert!(error.contains(expected), "{error}");
        }
    }

    #[test]
    fn with_a_ca_senders_must_show_a_certificate() {
        let (certificate, key) = pair(2040);
        let directory = tempfile::tempdir().unwrap();
        write(directory.path(), &certificate, &key);
        std::fs::write(directory.path().join("ca.crt"), &certificate).unwrap();

        let tls = ServerTls::load(directory.path(), &[]).unwrap();

        assert!(format!("{:?}", tls.config()).contains("WebPkiClientVerifier"), "{:?}", tls.config());
    }
}
