//! Where an example's binary is, built where that has not been done.

use std::{
    collections::HashMap,
    fs,
    path::{Path, PathBuf},
    process::Command,
    sync::{Mutex, PoisonError},
    time::SystemTime,
};

/// `cargo test` builds the examples with the tests, `cargo test --test server` does not.
pub(crate) fn path(example: &'static str) -> PathBuf {
    static BUILT: Mutex<Option<HashMap<&str, PathBuf>>> = Mutex::new(None);
    // Locked while it is built: one at a time.
    let mut built = BUILT.lock().unwrap_or_else(PoisonError::into_inner);
    built.get_or_insert_default().entry(example).or_insert_with(|| build(example)).clone()
}

fn build(example: &str) -> PathBuf {
    let test = std::env::current_exe().expect("the test has a path");
    let profile = test.ancestors().nth(2).expect("it is in <target>/<profile>/deps");
    let binary =
        profile.join("examples").join(format!("{example}{}", std::env::consts::EXE_SUFFIX));
    if modified(&binary) < newest_source(example) {
        let mut cargo = Command::new(env!("CARGO"));
        cargo.args(["build", "--example", example]).current_dir(env!("CARGO_MANIFEST_DIR"));
        if !cfg!(debug_assertions) {
            cargo.arg("--release");
        }
        if let Some(target) = profile.parent() {
            cargo.env("CARGO_TARGET_DIR", target);
        }
        let built = cargo.status().expect("cargo can be called");
        assert!(built.success(), "the example does not build");
        assert!(binary.exists(), "it was built, but not as {}", binary.display());
    }
    binary
}

/// When the file was written; `None`, which is less than any time, if there is none.
fn modified(path: &Path) -> Option<SystemTime> {
    fs::metadata(path).and_then(|metadata| metadata.modified()).ok()
}

fn newest_source(example: &str) -> Option<SystemTime> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let examples = root.join("examples");
    let mut newest = modified(&examples.join(format!("{example}.rs")));
    let mut open = vec![root.join("src"), examples.join(example)];
    while let Some(directory) = open.pop() {
        // An example in one file has no directory.
        for entry in fs::read_dir(directory).into_iter().flatten() {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                open.push(path);
            } else {
                newest = newest.max(modified(&path));
            }
        }
    }
    newest
}
