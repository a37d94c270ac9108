//! Differential fuzzing of mainstay: its behaviour is compared with a model of its documentation.
//!
//! Each target is a function of bytes that panics if the two differ. The bytes come from libFuzzer
//! (`fuzz_targets/`), from a file, or from a random number generator (`tests/`).
#![warn(missing_docs)]

mod dot;
pub mod graph;
mod naive;
pub mod names_and_dot;
pub mod operations;
mod plan;
pub mod supervision;

/// A function that runs one input.
pub type Target = fn(&[u8]);

/// All targets, by the names of their corpora.
pub const TARGETS: [(&str, Target); 4] = [
    ("operations", operations::run),
    ("supervision", supervision::run),
    ("graph", graph::run),
    ("names_and_dot", names_and_dot::run),
];

/// Runs a target on the files that are arguments of the program.
///
/// # Errors
///
/// A file cannot be read.
pub fn replay(target: Target) -> std::io::Result<()> {
    for path in std::env::args_os().skip(1) {
        println!("{}", path.to_string_lossy());
        target(&std::fs::read(path)?);
    }
    Ok(())
}

/// Whether each decoded input is printed: `MAINSTAY_FUZZ_TRACE=1`.
pub(crate) fn is_traced() -> bool {
    use std::sync::LazyLock;
    static IS_TRACED: LazyLock<bool> =
        LazyLock::new(|| std::env::var_os("MAINSTAY_FUZZ_TRACE").is_some());
    *IS_TRACED
}
