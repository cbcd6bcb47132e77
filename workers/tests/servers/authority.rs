//! An authority of the tests' own, and what it vouches for.

use std::path::Path;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DistinguishedName, DnType, IsCa, KeyPair, KeyUsagePurpose};
use rustls::pki_types::CertificateDer;

/// Issues certificates.
pub struct Authority(CertifiedIssuer<'static, KeyPair>);

impl Authority {
    /// One that nobody trusts yet.
    pub fn new() -> Self {
        let mut params = named("an authority", Vec::new());
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        Self(CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap())
    }

    /// A certificate and its key, as PEM.
    pub fn issue(&self, name: &str) -> (String, String) {
        let key = KeyPair::generate().unwrap();
        let certificate = named(name, vec![name.to_owned()]).signed_by(&key, &self.0).unwrap();
        (certificate.pem(), key.serialize_pem())
    }

    /// Its own certificate, as PEM.
    pub fn pem(&self) -> String {
        self.0.pem()
    }

    /// Its own certificate.
    pub fn der(&self) -> CertificateDer<'static> {
        self.0.der().clone()
    }

    /// Issues a pair into a folder: `tls.crt`, `tls.key`, and `ca.crt`, by which the holder knows the other side.
    pub fn equip(&self, folder: &Path, name: &str) {
        let (certificate, key) = self.issue(name);
        std::fs::create_dir_all(folder).unwrap();
        for (file, text) in [("tls.crt", certificate), ("tls.key", key), ("ca.crt", self.pem())] {
            std::fs::write(folder.join(file), text).unwrap();
        }
    }
}

/// A certificate whose subject and issuer are alike passes for self-signed, so each has a name.
fn named(name: &str, hosts: Vec<String>) -> CertificateParams {
    let mut params = CertificateParams::new(hosts).unwrap();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name);
    params
}
