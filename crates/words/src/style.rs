//! Checks that no pattern can express: the width of lines, and the names of tests.

use ra_ap_rustc_lexer::TokenKind;

use crate::{Hit, Language, rust, shell, text::Text, toml_file};

const WIDTH: usize = 100;

/// Lines that are too wide, except rows of Markdown tables, and lines that cannot be divided: they
/// contain a URL, or a string that has no place for a line break crosses the limit.
pub(crate) fn wide_lines(language: Language, content: &str) -> Vec<Hit> {
    let mut lines = Vec::new();
    let mut start = 0;
    for (line, text) in (1..).zip(content.split_inclusive('\n')) {
        let text = text.trim_end_matches('\n');
        match text.char_indices().nth(WIDTH) {
            Some((limit, _)) if !is_table_row(language, text) && !text.contains("://") => {
                lines.push((line, start + limit, text.chars().count()));
            }
            _ => {}
        }
        start += text.len() + 1;
    }
    if lines.is_empty() {
        return Vec::new();
    }
    let fixed = match language {
        Language::Rust => rust::fixed_literals(content),
        Language::Shell => shell::fixed_strings(content),
        Language::Toml | Language::Catalogue => toml_file::fixed_parts(content),
        Language::Markdown => Vec::new(),
    };
    // A comma that follows belongs to the part.
    let is_fixed = |limit: usize| fixed.iter().any(|part| part.start <= limit && limit <= part.end);
    lines.retain(|&(_, limit, _)| !is_fixed(limit));
    let hit = |(line, _, width)| Hit {
        line,
        found: format!("{width} columns"),
        instead: format!("at most {WIDTH} columns"),
    };
    lines.into_iter().map(hit).collect()
}

/// A row of a table in Markdown or in a doc comment.
fn is_table_row(language: Language, line: &str) -> bool {
    let line = line.trim_start();
    let text = match language {
        Language::Markdown => Some(line),
        _ => line.strip_prefix("///").or(line.strip_prefix("//!")),
    };
    text.is_some_and(|text| text.trim_start().starts_with('|'))
}

/// Tests whose names have fewer than three words.
pub(crate) fn short_test_names(file: &Text) -> Vec<Hit> {
    let code = file.content();
    let mut hits = Vec::new();
    // The last identifier of the path of an attribute, and whether a test attribute was seen.
    let (mut path, mut is_test) = (None, false);
    let mut tokens = rust::tokens(code).filter(|(kind, _)| is_code(*kind)).peekable();
    while let Some((kind, place)) = tokens.next() {
        match (kind, &code[place.clone()]) {
            (TokenKind::Pound, _) => {
                path = tokens.next_if(|(kind, _)| *kind == TokenKind::OpenBracket).map(|_| "");
            }
            (TokenKind::Colon, _) => {}
            (TokenKind::CloseBracket | TokenKind::OpenParen, _) => {
                is_test |= path == Some("test");
                path = None;
            }
            (TokenKind::Ident, "fn") if is_test => {
                is_test = false;
                if let Some((_, name)) = tokens.next_if(|(kind, _)| *kind == TokenKind::Ident) {
                    let name = &code[name];
                    if name.split('_').filter(|word| !word.is_empty()).count() < 3 {
                        hits.push(Hit {
                            line: file.line_at(place.start),
                            found: format!("fn {name}"),
                            instead: "three words or more, which say what holds".to_string(),
                        });
                    }
                }
            }
            (TokenKind::Ident, ident) => path = path.map(|_| ident),
            _ => path = None,
        }
    }
    hits
}

fn is_code(kind: TokenKind) -> bool {
    !matches!(
        kind,
        TokenKind::Whitespace | TokenKind::LineComment { .. } | TokenKind::BlockComment { .. }
    )
}
