//! Finds the words and names that `docs/words.toml` does not allow. The header of that file defines
//! what an entry means; this crate implements it in four steps:
//!
//! - `tree` lists the files of a repository;
//! - `rust`, `markdown`, `shell`, `toml_file` and `catalogue` divide a file into pieces of prose,
//!   comments and names, with `comments` for what they have in common;
//! - `list` searches each piece for the patterns that apply to its kind;
//! - `style` checks the width of lines and the names of tests, for which there is no pattern.
//!
//! `text` relates each piece to the lines of its file.

mod catalogue;
mod comments;
mod list;
mod markdown;
mod rust;
mod shell;
mod style;
mod text;
mod toml_file;
mod tree;

use std::fmt;

use anyhow::Result;

pub use list::List;
pub use tree::files;

use text::{Piece, Text};
use tree::Language;

/// A place that does not pass.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Hit {
    pub line: usize,
    /// The words that were found, or a measure of them.
    pub found: String,
    pub instead: String,
}

impl fmt::Display for Hit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: \"{}\": write \"{}\"", self.line, self.found, self.instead)
    }
}

/// Checks one file. The path is relative to the root of the repository; the hits are in the order
/// of their lines.
pub fn check(list: &List, path: &str, content: &str) -> Result<Vec<Hit>> {
    let Some(language) = Language::of(path, content) else { return Ok(Vec::new()) };
    let file = Text::file(content);
    let mut hits = style::wide_lines(language, content);
    if language == Language::Rust {
        hits.extend(style::short_test_names(&file));
    }
    let pieces = pieces(language, &file)?;
    let found = pieces.iter().flat_map(|piece| list.search(piece));
    hits.extend(text::outside_of_skipped_lines(content, found)?);
    hits.sort();
    hits.dedup();
    Ok(hits)
}

fn pieces(language: Language, file: &Text) -> Result<Vec<Piece>> {
    Ok(match language {
        Language::Rust => rust::pieces(file),
        Language::Markdown => markdown::pieces(file, markdown::Code::Other),
        Language::Shell => shell::pieces(file),
        Language::Toml => toml_file::pieces(file),
        Language::Catalogue => [toml_file::pieces(file), catalogue::pieces(file)?].concat(),
    })
}
