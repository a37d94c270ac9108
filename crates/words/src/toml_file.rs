//! Finds comments, strings and inline tables in a TOML file, with the lexer of the crate `toml`.

use std::ops::Range;

use toml_parser::{
    Source,
    lexer::{Token, TokenKind},
};

use crate::{
    comments::{self, Blocks},
    text::{Piece, Text},
};

pub(crate) fn pieces(file: &Text) -> Vec<Piece> {
    let content = file.content();
    let mut blocks = Blocks::new(file);
    for token in tokens(content).filter(|token| token.kind() == TokenKind::Comment) {
        blocks.push((), place(token), &content[place(token)][1..]);
    }
    blocks.finish().iter().flat_map(|(_, block)| comments::paragraphs(block)).collect()
}

/// The first string or inline table of each line: it cannot be divided between two lines, but what
/// follows it can be moved to the next one.
pub(crate) fn fixed_parts(content: &str) -> Vec<Range<usize>> {
    let (mut parts, mut is_first) = (Vec::new(), true);
    // The open inline tables of this line, and the beginning of the outermost one.
    let (mut depth, mut start) = (0, 0);
    for token in tokens(content) {
        let mut add = |part| {
            if std::mem::take(&mut is_first) {
                parts.push(part);
            }
        };
        match token.kind() {
            TokenKind::Newline => (depth, is_first) = (0, true),
            TokenKind::LeftCurlyBracket => {
                if depth == 0 {
                    start = place(token).start;
                }
                depth += 1;
            }
            TokenKind::RightCurlyBracket if depth > 0 => {
                depth -= 1;
                if depth == 0 {
                    add(start..place(token).end);
                }
            }
            TokenKind::BasicString | TokenKind::LiteralString if depth == 0 => add(place(token)),
            _ => {}
        }
    }
    parts
}

fn tokens(content: &str) -> impl Iterator<Item = Token> {
    Source::new(content).lex()
}

fn place(token: Token) -> Range<usize> {
    token.span().start()..token.span().end()
}
