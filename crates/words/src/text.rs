//! Texts that know the line of the file at which each of their parts begins.

use std::{iter, ops::Range};

use anyhow::{Result, bail};
use serde::Deserialize;

use crate::Hit;

/// The kind of a piece, which decides the entries of words.toml that apply: the values of `in`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Kind {
    Prose,
    Comments,
    Names,
}

/// A part of a file, or a text that was put together from parts of it.
#[derive(Debug, Clone, Default)]
pub(crate) struct Text {
    content: String,
    /// The beginning of each part in `content`, and its line in the file, both in ascending order.
    starts: Vec<(usize, usize)>,
}

impl Text {
    pub(crate) fn file(content: &str) -> Self {
        let mut text = Self::default();
        text.push_lines(1, content);
        text
    }

    pub(crate) fn content(&self) -> &str {
        &self.content
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.content.is_empty()
    }

    /// Adds text that begins in this line of the file, and is within it.
    pub(crate) fn push(&mut self, line: usize, part: &str) {
        self.starts.push((self.content.len(), line));
        self.content.push_str(part);
    }

    /// Adds text that begins in this line of the file, and has the same line breaks as the file.
    pub(crate) fn push_lines(&mut self, line: usize, lines: &str) {
        for (line, part) in (line..).zip(lines.split_inclusive('\n')) {
            self.push(line, part);
        }
    }

    /// The line of the file at this place of the content.
    pub(crate) fn line_at(&self, place: usize) -> usize {
        match self.starts.partition_point(|&(start, _)| start <= place) {
            0 => 1,
            after => self.starts[after - 1].1,
        }
    }

    /// The lines of the content, each with its line in the file.
    pub(crate) fn lines(&self) -> impl Iterator<Item = (usize, &str)> {
        let mut start = 0;
        self.content.split_inclusive('\n').map(move |part| {
            let line = self.line_at(start);
            start += part.len();
            (line, part.trim_end())
        })
    }

    /// The same text, with spaces in these places; line breaks remain.
    pub(crate) fn without(mut self, places: &[Range<usize>]) -> Self {
        for place in places {
            let blank = masked(&self.content[place.clone()], " ");
            self.content.replace_range(place.clone(), &blank);
        }
        self
    }
}

/// As many bytes as the text has, each of them replaced, except line breaks.
fn masked(text: &str, with: &str) -> String {
    text.split_inclusive('\n')
        .map(|line| match line.strip_suffix('\n') {
            Some(line) => with.repeat(line.len()) + "\n",
            None => with.repeat(line.len()),
        })
        .collect()
}

/// A paragraph, or a piece of code.
#[derive(Debug, Clone)]
pub(crate) struct Piece {
    pub(crate) kind: Kind,
    pub(crate) text: Text,
    /// The content of `text`, in which the code of code spans is replaced, with as many bytes.
    pub(crate) searched: String,
}

impl Piece {
    pub(crate) fn names(text: Text) -> Self {
        Self { kind: Kind::Names, searched: text.content.clone(), text }
    }

    /// A paragraph, and its code spans as pieces of their own.
    pub(crate) fn paragraph(kind: Kind, text: Text) -> impl Iterator<Item = Self> {
        let spans: Vec<_> = code_spans(&text.content).collect();
        let mut searched = text.content.clone();
        let mut pieces = Vec::new();
        for span in spans {
            let mut code = Text::default();
            code.push(text.line_at(span.start), &text.content[span.clone()]);
            pieces.push(Self::names(code));
            searched.replace_range(span.clone(), &masked(&text.content[span], "_"));
        }
        iter::once(Self { kind, text, searched }).chain(pieces)
    }
}

/// The code between backticks.
fn code_spans(paragraph: &str) -> impl Iterator<Item = Range<usize>> {
    let mut rest = 0..paragraph.len();
    iter::from_fn(move || {
        let start = rest.start + paragraph[rest.clone()].find('`')? + 1;
        let end = start + paragraph[start..].find('`')?;
        rest.start = end + 1;
        Some(start..end)
    })
}

/// Drops the hits between the lines `<!-- words: off -->` and `<!-- words: on -->`, which may be
/// lines of a comment.
pub(crate) fn outside_of_skipped_lines(
    content: &str,
    hits: impl Iterator<Item = Hit>,
) -> Result<Vec<Hit>> {
    let mut skipped: Vec<Range<usize>> = Vec::new();
    let mut off = None;
    for (line, text) in (1..).zip(content.lines()) {
        let text = text.trim().trim_start_matches(['/', '!', '#']).trim_start();
        match (text, off) {
            ("<!-- words: off -->", None) => off = Some(line),
            ("<!-- words: off -->", Some(_)) => bail!("{line}: a second `words: off`"),
            ("<!-- words: on -->", None) => bail!("{line}: `words: on` without `words: off`"),
            ("<!-- words: on -->", Some(start)) => {
                skipped.push(start..line);
                off = None;
            }
            _ => {}
        }
    }
    if let Some(line) = off {
        bail!("{line}: `words: off` without `words: on`");
    }
    Ok(hits.filter(|hit| !skipped.iter().any(|lines| lines.contains(&hit.line))).collect())
}
