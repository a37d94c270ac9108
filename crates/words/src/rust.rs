//! Divides Rust code, whole files or parts of one, with the lexer of rustc.

use std::ops::Range;

use ra_ap_rustc_lexer::{DocStyle, FrontmatterAllowed, LiteralKind, TokenKind, tokenize};

use crate::{
    comments::{self, Blocks},
    markdown,
    text::{Piece, Text},
};

pub(crate) fn tokens(code: &str) -> impl Iterator<Item = (TokenKind, Range<usize>)> {
    let mut end = 0;
    tokenize(code, FrontmatterAllowed::No).map(move |token| {
        let start = end;
        end += token.len as usize;
        (token.kind, start..end)
    })
}

/// Doc comments as prose, other comments, and the rest of the code without its literals.
pub(crate) fn pieces(code: &Text) -> Vec<Piece> {
    let content = code.content();
    let mut blocks = Blocks::new(code);
    let mut blank = Vec::new();
    for (kind, place) in tokens(content) {
        let text = &content[place.clone()];
        match kind {
            TokenKind::LineComment { doc_style } => {
                blocks.push(doc_style, place.clone(), &text[marker(doc_style)..]);
            }
            TokenKind::BlockComment { doc_style, .. } => {
                let inner = &text[marker(doc_style)..];
                blocks.add(doc_style, block(code.line_at(place.start), inner));
            }
            TokenKind::Literal { .. } => {}
            _ => continue,
        }
        blank.push(place);
    }
    let mut pieces = vec![Piece::names(code.clone().without(&blank))];
    for (doc_style, block) in blocks.finish() {
        pieces.extend(match doc_style {
            Some(_) => markdown::pieces(&block, markdown::Code::Rust),
            None => comments::paragraphs(&block),
        });
    }
    pieces
}

/// The length of what begins a comment.
fn marker(doc_style: Option<DocStyle>) -> usize {
    if doc_style.is_some() { 3 } else { 2 }
}

/// The text of a block comment, without the asterisks at the beginning of its lines.
fn block(line: usize, inner: &str) -> Text {
    let mut block = Text::default();
    for (line, part) in (line..).zip(inner.strip_suffix("*/").unwrap_or(inner).lines()) {
        let part = part.trim();
        block.push(line, part.strip_prefix('*').unwrap_or(part).trim_start());
        block.push(line, "\n");
    }
    block
}

/// The literals that cannot be divided between two lines: raw strings, and those without a space.
pub(crate) fn fixed_literals(code: &str) -> Vec<Range<usize>> {
    use LiteralKind::{RawByteStr, RawCStr, RawStr};
    tokens(code)
        .filter(|(kind, place)| match kind {
            TokenKind::Literal { kind, .. } => {
                let is_raw = matches!(kind, RawStr { .. } | RawByteStr { .. } | RawCStr { .. });
                is_raw || !code[place.clone()].contains(' ')
            }
            _ => false,
        })
        .map(|(_, place)| place)
        .collect()
}
