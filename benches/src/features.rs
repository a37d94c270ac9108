//! The features with which mainstay is measured: what is counted with one of them costs more.

use std::fs;

use criterion::Criterion;

use crate::{is_test, results};

/// Those of mainstay that are on.
pub const FEATURES: &str = if cfg!(feature = "supervise") { "supervise" } else { "none" };

/// Criterion, for the benchmark of this name.
///
/// Says on stderr with which features mainstay is measured. The report finds them beside the
/// figures.
pub fn criterion(bench: &str) -> Criterion {
    eprintln!("mainstay with features: {FEATURES}");
    if !is_test() {
        let results = results();
        fs::create_dir_all(&results).unwrap();
        fs::write(results.join(format!("{bench}.features")), FEATURES).unwrap();
    }
    Criterion::default()
}
