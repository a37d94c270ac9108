//! The strings of a file of `faults/catalogue/` that are texts or Rust code.

use anyhow::Result;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use crate::{
    markdown, rust,
    text::{Piece, Text},
};

/// `what` and `kept` are prose, `old` and `new` are code.
pub(crate) fn pieces(file: &Text) -> Result<Vec<Piece>> {
    let table = DeTable::parse(file.content())?;
    let mut pieces = Vec::new();
    for (key, value) in table.get_ref() {
        add(file, key.get_ref(), value, &mut pieces);
    }
    Ok(pieces)
}

fn add(file: &Text, key: &str, value: &Spanned<DeValue<'_>>, pieces: &mut Vec<Piece>) {
    match (key, value.get_ref()) {
        ("what" | "kept", DeValue::String(_)) => {
            pieces.extend(markdown::pieces(&text(file, value), markdown::Code::Rust));
        }
        ("old" | "new", DeValue::String(_)) => pieces.extend(rust::pieces(&text(file, value))),
        (_, DeValue::Array(values)) => {
            for value in values {
                add(file, key, value, pieces);
            }
        }
        (_, DeValue::Table(table)) => {
            for (key, value) in table {
                add(file, key.get_ref(), value, pieces);
            }
        }
        _ => {}
    }
}

/// The value of a string, with its lines.
fn text(file: &Text, value: &Spanned<DeValue<'_>>) -> Text {
    let mut text = Text::default();
    let written = &file.content()[value.span()];
    // The first line break of a multi-line string is not part of its value.
    let starts_below = written.starts_with("\"\"\"\n") || written.starts_with("'''\n");
    let line = file.line_at(value.span().start) + usize::from(starts_below);
    text.push_lines(line, value.get_ref().as_str().unwrap_or_default());
    text
}
