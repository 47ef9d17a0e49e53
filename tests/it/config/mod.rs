//! The configuration as users meet it: wrong files and the messages they get, misspelt keys, the committed files.
//!
//! `FOREBAY_BLESS=1 cargo test --test it config` writes the expected files anew; read the difference aloud.

mod committed;
mod explain;
mod files;
mod misspelt;
mod wrong;

use std::path::{Path, PathBuf};

/// A path in the repository.
fn repository(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

/// Compares with a committed file, or writes it when `FOREBAY_BLESS` is set.
pub fn assert_golden(path: &Path, actual: &str) {
    if std::env::var_os("FOREBAY_BLESS").is_some() {
        std::fs::write(path, actual).expect("the golden file can be written");
        return;
    }
    let expected = std::fs::read_to_string(path).unwrap_or_default();
    assert!(
        expected == actual,
        "{} differs; FOREBAY_BLESS=1 writes it anew\n--- committed\n{expected}\n--- actual\n{actual}",
        path.display()
    );
}
