//! Finds the comments and the quoted words of a shell script. It does not know here-documents.

use std::ops::Range;

use crate::{
    comments::{self, Blocks},
    text::{Piece, Text},
};

pub(crate) fn pieces(script: &Text) -> Vec<Piece> {
    let content = script.content();
    let mut blocks = Blocks::new(script);
    for (part, place) in parts(content) {
        if part == Part::Comment {
            blocks.push((), place.clone(), &content[place][1..]);
        }
    }
    blocks.finish().iter().flat_map(|(_, block)| comments::paragraphs(block)).collect()
}

/// Words in single quotes, which cannot be divided between two lines.
pub(crate) fn fixed_strings(script: &str) -> Vec<Range<usize>> {
    parts(script).into_iter().filter(|(part, _)| *part == Part::Quoted).map(|(_, at)| at).collect()
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Part {
    Comment,
    Quoted,
}

fn parts(script: &str) -> Vec<(Part, Range<usize>)> {
    let mut parts = Vec::new();
    let mut chars = script.char_indices().peekable();
    let (mut before, mut in_double_quotes) = ('\n', false);
    while let Some((start, c)) = chars.next() {
        let part = match c {
            '\\' => {
                chars.next();
                None
            }
            '"' => {
                in_double_quotes = !in_double_quotes;
                None
            }
            '\'' if !in_double_quotes => Some((Part::Quoted, '\'')),
            // Within a word, it is part of it.
            '#' if !in_double_quotes && before.is_whitespace() => Some((Part::Comment, '\n')),
            _ => None,
        };
        before = c;
        if let Some((part, end)) = part {
            // A quote is part of what it ends, a line break is not.
            while chars.next_if(|&(_, c)| c != end).is_some() {}
            if part == Part::Quoted {
                chars.next();
            }
            let end = chars.peek().map_or(script.len(), |&(at, _)| at);
            parts.push((part, start..end));
        }
    }
    parts
}
