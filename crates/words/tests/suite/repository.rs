//! The files that are checked, and the program.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use mainstay_words::files;

use crate::LIST;

/// A folder with these files: paths and contents.
fn repository(name: &str, content: &[(&str, &str)]) -> PathBuf {
    let root = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    for (path, content) in content {
        let path = root.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    }
    root
}

#[test]
fn ignored_files_and_inputs_for_fuzzing_are_left_out() {
    let root = repository(
        "ignored",
        &[
            (".gitignore", "*.log\n"),
            (".ci/run", ""),
            ("a/b.rs", ""),
            ("a/.gitignore", "/c.rs\n"),
            ("a/c.rs", ""),
            ("c.rs", ""),
            ("x.log", ""),
            (".git/config", ""),
            ("target/a.rs", ""),
            ("fuzz/corpus/a", ""),
            ("fuzz/regressions/a", ""),
        ],
    );
    let found = files(&root).unwrap();
    let found: Vec<_> = found.iter().map(|path| path.to_str().unwrap()).collect();
    assert_eq!(found, [".ci/run", ".gitignore", "a/.gitignore", "a/b.rs", "c.rs"]);
}

#[test]
fn the_program_prints_hits_and_fails_unless_there_are_none() {
    let words = format!("skip = ['a/skipped.md']\n{LIST}");
    let root = repository(
        "program",
        &[
            ("docs/words.toml", &words),
            ("a/found.md", "whoever\n\nwhoever\n"),
            ("a/skipped.md", "whoever\n"),
            ("b/clean.md", "a reader\n"),
            ("c/found.rs", "fn went_down() {}\n"),
        ],
    );
    let run = |paths: &[&str]| {
        let mut program = Command::new(env!("CARGO_BIN_EXE_mainstay-words"));
        let output = program.args(paths).current_dir(&root).output().unwrap();
        let text = |bytes| String::from_utf8(bytes).unwrap();
        (output.status.code(), text(output.stdout), text(output.stderr))
    };
    let a = "a/found.md:1: \"whoever\": write \"the thread that\"\n\
             a/found.md:3: \"whoever\": write \"the thread that\"\n";
    let c = "c/found.rs:1: \"went_down\": write \"failed\"\n";

    let (code, stdout, stderr) = run(&[]);
    assert_eq!((code, stdout), (Some(1), format!("{a}{c}")));
    assert!(stderr.starts_with("3 hits."), "{stderr}");
    assert_eq!(run(&["b", "c/found.rs"]).1, c);
    assert_eq!(run(&["b"]), (Some(0), String::new(), String::new()));
    let (code, _, stderr) = run(&["d"]);
    assert_eq!(code, Some(1));
    assert!(stderr.contains("d does not exist"), "{stderr}");
}
