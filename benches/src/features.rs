//! The features with which mainstay is measured. `supervise` makes publications more expensive, so
//! each figure says with which features it was measured.

use std::fs;

use criterion::Criterion;

use crate::{is_test, results};

/// The features of mainstay that are enabled.
pub const FEATURES: &str = if cfg!(feature = "supervise") { "supervise" } else { "none" };

/// Returns criterion for the benchmark with this name.
///
/// Prints to stderr with which features mainstay is measured, and stores it in the directory of the
/// results, where the report reads it.
pub fn criterion(bench: &str) -> Criterion {
    eprintln!("mainstay with features: {FEATURES}");
    if !is_test() {
        let results = results();
        fs::create_dir_all(&results).unwrap();
        fs::write(results.join(format!("{bench}.features")), FEATURES).unwrap();
    }
    Criterion::default()
}
