//! Runs the check over the repository in the current directory, for `ci/words`.

use std::{
    fs,
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::{Context, Result, ensure};
use clap::Parser;
use mainstay_words::{List, check, files};

/// Finds words and names that docs/words.toml does not allow, lines that are too wide, and tests
/// with short names.
#[derive(Parser)]
struct Options {
    /// Only files below these folders, or these files
    paths: Vec<PathBuf>,
}

fn main() -> Result<ExitCode> {
    let options = Options::parse();
    let words = fs::read_to_string("docs/words.toml").context("docs/words.toml")?;
    let list = List::parse(&words).context("docs/words.toml")?;
    for path in &options.paths {
        ensure!(path.exists(), "{} does not exist", path.display());
    }
    let mut count = 0;
    for file in files(Path::new("."))? {
        let path = file.to_string_lossy();
        let chosen =
            options.paths.is_empty() || options.paths.iter().any(|path| file.starts_with(path));
        if !chosen || list.skip.iter().any(|skipped| *skipped == path) {
            continue;
        }
        let content = fs::read(&file).with_context(|| path.to_string())?;
        // A file that is not text has no words.
        let Ok(content) = String::from_utf8(content) else { continue };
        for hit in check(&list, &path, &content).with_context(|| path.to_string())? {
            println!("{path}:{hit}");
            count += 1;
        }
    }
    if count == 0 {
        return Ok(ExitCode::SUCCESS);
    }
    eprintln!("{count} hits. docs/glossary.md defines the words to use.");
    Ok(ExitCode::FAILURE)
}
