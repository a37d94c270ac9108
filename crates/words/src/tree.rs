//! The files of a repository that are checked.

use std::path::{Path, PathBuf};

use anyhow::Result;
use ignore::WalkBuilder;

/// Folders that are not checked: inputs for fuzzing are no text.
const SKIPPED: [&str; 4] = [".git", "target", "fuzz/corpus", "fuzz/regressions"];

/// The language of a file, which decides how it is divided.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Language {
    Rust,
    Markdown,
    Shell,
    Toml,
    /// TOML that contains texts and Rust code.
    Catalogue,
}

impl Language {
    /// `None` for a file that is not checked.
    pub(crate) fn of(path: &str, content: &str) -> Option<Self> {
        match Path::new(path).extension().and_then(|extension| extension.to_str()) {
            Some("rs") => Some(Self::Rust),
            Some("md") => Some(Self::Markdown),
            Some("sh") => Some(Self::Shell),
            Some("toml") if path.starts_with("faults/catalogue/") => Some(Self::Catalogue),
            Some("toml") => Some(Self::Toml),
            _ => {
                let interpreter = content.lines().next()?.strip_prefix("#!")?;
                interpreter.ends_with("sh").then_some(Self::Shell)
            }
        }
    }
}

/// The paths of all files below `root`, relative to it and in order, except those that `.gitignore`
/// files list.
pub fn files(root: &Path) -> Result<Vec<PathBuf>> {
    let all = root.to_path_buf();
    let walk = WalkBuilder::new(root)
        .hidden(false)
        .parents(false)
        .git_global(false)
        .git_exclude(false)
        .require_git(false)
        .filter_entry(move |entry| {
            let path = entry.path().strip_prefix(&all).unwrap_or(entry.path());
            !SKIPPED.iter().any(|skipped| path == Path::new(skipped))
        })
        .build();
    let mut files = Vec::new();
    for entry in walk {
        let entry = entry?;
        if entry.file_type().is_some_and(|file_type| file_type.is_file()) {
            files.push(entry.path().strip_prefix(root)?.to_path_buf());
        }
    }
    files.sort();
    Ok(files)
}
