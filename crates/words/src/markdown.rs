//! Divides Markdown, also of doc comments, into paragraphs and code.

use pulldown_cmark::{CodeBlockKind, CowStr, Event, Options, Parser, Tag, TagEnd};

use crate::{
    rust, shell,
    text::{Kind, Piece, Text},
    toml_file,
};

/// The language of a code block.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Code {
    Rust,
    Shell,
    Toml,
    Other,
}

/// Each paragraph, heading, list item and table cell as prose; code spans and blocks as names. The
/// comments in a code block are comments. `default` is the language of blocks that name none.
pub(crate) fn pieces(source: &Text, default: Code) -> Vec<Piece> {
    let options = Options::ENABLE_TABLES | Options::ENABLE_FOOTNOTES;
    // rustdoc resolves links to items, which have no definition.
    let resolve = |_| Some((CowStr::Borrowed(""), CowStr::Borrowed("")));
    let parser = Parser::new_with_broken_link_callback(source.content(), options, Some(resolve));

    let mut pieces = Vec::new();
    let mut paragraph = Text::default();
    let mut block = None;
    for (event, place) in parser.into_offset_iter() {
        let line = source.line_at(place.start);
        if is_boundary(&event) && !paragraph.is_empty() {
            pieces.extend(Piece::paragraph(Kind::Prose, std::mem::take(&mut paragraph)));
        }
        match event {
            Event::Start(Tag::CodeBlock(kind)) => {
                block = Some((language(&kind, default), Text::default()));
            }
            Event::End(TagEnd::CodeBlock) => {
                pieces.extend(block.take().into_iter().flat_map(|(code, text)| code.pieces(text)));
            }
            Event::Text(text) => match &mut block {
                Some((_, block)) => block.push_lines(line, &text),
                None => paragraph.push(line, &text),
            },
            Event::Code(code) => {
                paragraph.push(line, &format!("`{}`", code.replace('`', " ")));
            }
            Event::SoftBreak | Event::HardBreak => paragraph.push(line, " "),
            _ => {}
        }
    }
    pieces
}

/// Whether a paragraph, heading, list item or table cell begins or ends here.
fn is_boundary(event: &Event<'_>) -> bool {
    let tag = match event {
        Event::Start(tag) => tag.to_end(),
        Event::End(tag) => *tag,
        _ => return false,
    };
    !matches!(tag, TagEnd::Emphasis | TagEnd::Strong | TagEnd::Link | TagEnd::Image)
}

impl Code {
    fn pieces(self, text: Text) -> Vec<Piece> {
        match self {
            Self::Rust => rust::pieces(&text),
            Self::Shell => [shell::pieces(&text), vec![Piece::names(text)]].concat(),
            Self::Toml => [toml_file::pieces(&text), vec![Piece::names(text)]].concat(),
            Self::Other => vec![Piece::names(text)],
        }
    }
}

fn language(kind: &CodeBlockKind<'_>, default: Code) -> Code {
    let info = match kind {
        CodeBlockKind::Indented => "",
        CodeBlockKind::Fenced(info) => info,
    };
    match info.split([',', ' ']).next().unwrap_or_default() {
        "" => default,
        "rust" | "ignore" | "no_run" | "should_panic" | "compile_fail" => Code::Rust,
        "sh" | "bash" | "console" => Code::Shell,
        "toml" => Code::Toml,
        _ => Code::Other,
    }
}
