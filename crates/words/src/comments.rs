//! Comments of any language: joins lines into blocks, and divides a block into paragraphs.

use std::ops::Range;

use crate::text::{Kind, Piece, Text};

/// Joins comments that are below each other, in the same column and of the same style.
pub(crate) struct Blocks<'a, S> {
    file: &'a Text,
    done: Vec<(S, Text)>,
    last: Option<Last<S>>,
}

/// The end of a block, to which another line may be joined.
struct Last<S> {
    style: S,
    line: usize,
    column: usize,
    block: Text,
}

impl<'a, S: Copy + PartialEq> Blocks<'a, S> {
    pub(crate) fn new(file: &'a Text) -> Self {
        Self { file, done: Vec::new(), last: None }
    }

    /// Adds the comment of one line: its place in the file, and its text without the marker.
    pub(crate) fn push(&mut self, style: S, place: Range<usize>, text: &str) {
        let line = self.file.line_at(place.start);
        let before = &self.file.content()[..place.start];
        let column = place.start - before.rfind('\n').map_or(0, |end| end + 1);
        let joins = self.last.as_ref().is_some_and(|last| {
            last.style == style && last.column == column && last.line + 1 == line
        });
        if !joins {
            self.close();
            self.last = Some(Last { style, line, column, block: Text::default() });
        }
        let last = self.last.as_mut().expect("it was set");
        last.line = line;
        last.block.push(line, text.strip_prefix(' ').unwrap_or(text));
        last.block.push(line, "\n");
    }

    /// Adds a comment of several lines.
    pub(crate) fn add(&mut self, style: S, block: Text) {
        self.close();
        self.done.push((style, block));
    }

    fn close(&mut self) {
        self.done.extend(self.last.take().map(|last| (last.style, last.block)));
    }

    pub(crate) fn finish(mut self) -> Vec<(S, Text)> {
        self.close();
        self.done
    }
}

/// The paragraphs of a block. A list item begins a new one.
pub(crate) fn paragraphs(block: &Text) -> Vec<Piece> {
    let mut pieces = Vec::new();
    let mut paragraph = Text::default();
    for (line, text) in block.lines() {
        let item = ["- ", "* "].iter().find_map(|marker| text.trim_start().strip_prefix(marker));
        let text = item.unwrap_or(text).trim();
        if item.is_some() || text.is_empty() {
            close(&mut paragraph, &mut pieces);
        }
        if !text.is_empty() {
            if !paragraph.is_empty() {
                paragraph.push(line, " ");
            }
            paragraph.push(line, text);
        }
    }
    close(&mut paragraph, &mut pieces);
    pieces
}

fn close(paragraph: &mut Text, pieces: &mut Vec<Piece>) {
    if !paragraph.is_empty() {
        pieces.extend(Piece::paragraph(Kind::Comments, std::mem::take(paragraph)));
    }
}
