//! What is committed is what the types say.

use std::{fs, path::Path};

use redoubt_crds::generate;

#[test]
fn the_committed_manifests_and_pages_are_what_the_generator_makes() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");

    let files = generate::files(&root).unwrap();

    for (path, expected) in files {
        let committed = fs::read_to_string(root.join(&path)).unwrap_or_default();
        assert!(
            committed == expected,
            "{} differs from the types; run `cargo run -p redoubt-crds` and commit what it writes",
            path.display()
        );
    }
}
