//! Differential fuzzing of mainstay: what it does, against what it says that it does.
//!
//! Each target is a function from bytes, which panics where the two differ. The bytes come from libFuzzer
//! (`fuzz_targets/`), from a file or from a generator of random numbers (`tests/`).
#![warn(missing_docs)]

mod dot;
pub mod graph;
mod naive;
pub mod names_and_dot;
pub mod operations;

/// A function that runs one input.
pub type Target = fn(&[u8]);

/// All targets, by the names of their corpora.
pub const TARGETS: [(&str, Target); 3] =
    [("operations", operations::run), ("graph", graph::run), ("names_and_dot", names_and_dot::run)];

/// Runs a target on the files that are named as arguments of the program.
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

/// Whether every step is to be printed, to read what an input does: `MAINSTAY_FUZZ_TRACE=1`.
pub(crate) fn traced() -> bool {
    use std::sync::LazyLock;
    static TRACED: LazyLock<bool> =
        LazyLock::new(|| std::env::var_os("MAINSTAY_FUZZ_TRACE").is_some());
    *TRACED
}
