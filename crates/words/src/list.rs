//! The list of words and names: words.toml.

use anyhow::{Result, ensure};
use regex::Regex;
use serde::{Deserialize, Deserializer, de::Error};

use crate::{
    Hit,
    text::{Kind, Piece},
};

/// The content of words.toml.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct List {
    /// Paths of files that are not checked.
    #[serde(default)]
    pub skip: Vec<String>,
    #[serde(rename = "word")]
    words: Vec<Word>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Word {
    #[serde(deserialize_with = "regex")]
    pattern: Regex,
    instead: String,
    #[serde(rename = "in")]
    kinds: Vec<Kind>,
    #[serde(default, deserialize_with = "optional_regex")]
    except: Option<Regex>,
}

fn regex<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Regex, D::Error> {
    let pattern = String::deserialize(deserializer)?;
    Regex::new(&pattern).map_err(D::Error::custom)
}

fn optional_regex<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Regex>, D::Error> {
    regex(deserializer).map(Some)
}

impl List {
    pub fn parse(content: &str) -> Result<Self> {
        let list: Self = toml::from_str(content)?;
        for word in &list.words {
            ensure!(!word.kinds.is_empty(), "`{}` applies to nothing", word.pattern);
            ensure!(!word.instead.is_empty(), "`{}` has no replacement", word.pattern);
            ensure!(!word.pattern.is_match(""), "`{}` matches an empty text", word.pattern);
        }
        Ok(list)
    }

    /// The hits in this piece, entry by entry.
    pub(crate) fn search(&self, piece: &Piece) -> Vec<Hit> {
        let applicable = self.words.iter().filter(|word| word.kinds.contains(&piece.kind));
        applicable.flat_map(|word| word.search(piece)).collect()
    }
}

impl Word {
    fn search<'a>(&'a self, piece: &'a Piece) -> impl Iterator<Item = Hit> + 'a {
        let content = piece.text.content();
        self.pattern
            .find_iter(&piece.searched)
            .filter(|hit| !self.accepts(content, hit.start(), hit.end()))
            .map(|hit| Hit {
                line: piece.text.line_at(hit.start()),
                found: content[hit.range()].trim().to_string(),
                instead: self.instead.clone(),
            })
    }

    /// Whether a match of `except` contains the hit.
    fn accepts(&self, content: &str, start: usize, end: usize) -> bool {
        let mut exceptions = self.except.iter().flat_map(|except| except.find_iter(content));
        exceptions.any(|except| except.start() <= start && end <= except.end())
    }
}
