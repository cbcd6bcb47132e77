//! The GeoIP databases that Enrichments name by their paths. A database is tens of megabytes: it is read again only when its file changed.

use std::{
    collections::BTreeMap,
    io,
    path::{Path, PathBuf},
    sync::Arc,
};

use redoubt_engine::{
    enrich::Assets,
    resource::{Resource, Spec},
};
use tracing::warn;

use crate::secrets::Stamp;

/// Largest GeoIP database that is read, in bytes.
const MAX_BYTES: u64 = 1 << 30;

/// The databases that were read last.
#[derive(Default)]
pub(super) struct Databases {
    read: BTreeMap<PathBuf, (Stamp, Arc<[u8]>)>,
}

impl Databases {
    /// The databases that resources name, as their files are now. One that is not there is left for the compiler to report, at its field.
    pub(super) fn named_by(&mut self, resources: &[Resource]) -> Assets {
        let mut read = BTreeMap::new();
        for path in resources.iter().flat_map(|resource| named(&resource.spec)) {
            let path = Path::new(path);
            match self.database(path) {
                Ok(database) => drop(read.insert(path.to_owned(), database)),
                Err(error) => warn!(path = %path.display(), %error, "a GeoIP database cannot be read"),
            }
        }
        self.read = read;
        self.read.iter().map(|(path, (_, bytes))| (path.clone(), Arc::clone(bytes))).collect()
    }

    fn database(&self, path: &Path) -> io::Result<(Stamp, Arc<[u8]>)> {
        // The stamp comes first: what changes while the file is read is seen as a change at the next look.
        let stamp = Stamp::of(path)?;
        if let Some((known, bytes)) = self.read.get(path)
            && *known == stamp
        {
            return Ok((stamp, Arc::clone(bytes)));
        }
        let found = std::fs::metadata(path)?;
        if !found.is_file() || found.len() > MAX_BYTES {
            return Err(io::Error::other(format!("not a file of at most {MAX_BYTES} bytes")));
        }
        Ok((stamp, std::fs::read(path)?.into()))
    }
}

fn named(spec: &Spec) -> impl Iterator<Item = &String> {
    let geoip = match spec {
        Spec::Enrichment(spec) => spec.geoip.as_ref(),
        _ => None,
    };
    geoip.into_iter().flat_map(|geoip| [&geoip.city, &geoip.asn].into_iter().flatten())
}

/// Whether a resource names a database.
pub(super) fn are_named_by(spec: &Spec) -> bool {
    named(spec).next().is_some()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_database_is_read_again_only_when_its_file_changed() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("city.mmdb");
        std::fs::write(&path, "old").unwrap();
        let manifest = format!(
            "apiVersion: redoubt.dev/v1alpha1\nkind: Enrichment\nmetadata: {{name: geo}}\nspec: {{geoip: {{city: {}}}}}\n",
            path.display()
        );
        let resources = redoubt_engine::resource::read(Path::new("geo.yaml"), &manifest).resources;
        let mut databases = Databases::default();

        let first = databases.named_by(&resources)[&path].clone();
        let again = databases.named_by(&resources)[&path].clone();
        std::fs::write(&path, "newer").unwrap();
        let changed = databases.named_by(&resources)[&path].clone();

        assert!(Arc::ptr_eq(&first, &again));
        assert_eq!(&*changed, b"newer");
        assert!(databases.named_by(&[]).is_empty() && databases.read.is_empty(), "one that nobody names is let go of");
    }
}
