//! Markdown and doc comments.
//!
//! - A phrase is found across line breaks, emphasis and links, in the line in which it begins.
//! - Headings, list items and table cells are paragraphs of their own.
//! - Code is not prose.

use crate::{assert_hits, hits_of};

#[test]
fn a_phrase_is_found_across_a_line_break() {
    assert_hits("a.md", "# Title\n\nThe waiter\nis\ntold of it.\n", &[(4, "is told")]);
    assert_hits(
        "a.md",
        "It *is* told, it [is](x.md) told.\n\nIt is **told**.\n",
        &[(1, "is told"), (3, "is told")],
    );
    assert_hits("a.rs", "/// The waiter is\n/// told of it.\nfn f() {}\n", &[(1, "is told")]);
    assert_hits("src/lib.rs", "//! One.\n//!\n//! It is\n//! told.\n", &[(3, "is told")]);
}

#[test]
fn paragraphs_are_not_joined() {
    assert_hits("a.md", "It is\n\ntold\n", &[]);
    assert_hits("a.md", "# It is\n\ntold\n", &[]);
    assert_hits("a.md", "- it is\n- told\n", &[]);
    assert_hits("a.md", "| it is | told |\n|---|---|\n| it is | told |\n", &[]);
    assert_hits("a.rs", "/// It is\n///\n/// told\nfn f() {}\n", &[]);
    assert_hits("a.rs", "/// It is\nfn f() {}\n/// told\nfn g() {}\n", &[]);
}

#[test]
fn each_kind_of_paragraph_is_searched() {
    let all = "# Whoever\n\nWhoever\n\n- Whoever\n  1. Whoever\n\n> Whoever\n\n\
               | Whoever |\n|---|\n| Whoever |\n\nIt[^1].\n\n[^1]: Whoever\n";
    let lines = [1, 3, 5, 6, 8, 10, 12, 16];
    assert_hits("a.md", all, &lines.map(|line| (line, "Whoever")));
    let doc: String = all.lines().map(|line| format!("//! {line}\n")).collect();
    assert_hits("a.rs", &doc, &lines.map(|line| (line, "Whoever")));
}

#[test]
fn an_anchor_is_the_beginning_of_a_paragraph() {
    let list = "[[word]]\npattern = '^Where'\ninstead = 'if'\nin = ['prose', 'comments']\n";
    let content = "Where it is.\nWhere it is.\n\n- Where\n\n| a | Where |\n|---|---|\n";
    let found = hits_of(list, "a.md", content);
    assert_eq!(found.into_iter().map(|(line, _)| line).collect::<Vec<_>>(), [1, 4, 6]);
    let found = hits_of(list, "a.rs", "// Where\n// Where\n\n// - a\n// - Where\n");
    assert_eq!(found.into_iter().map(|(line, _)| line).collect::<Vec<_>>(), [1, 5]);
}

#[test]
fn code_and_links_are_not_prose() {
    assert_hits("a.md", "The `whoever` of [it](whoever.md).\n\n```\nwhoever\n```\n", &[]);
    assert_hits("a.md", "It is `x` told.\n", &[]);
    assert_hits("a.md", "The `x` whoever `y`.\n", &[(1, "whoever")]);
    assert_hits("a.rs", "/// Calls `whoever`, [`whoever`] and [it](whoever).\nfn f() {}\n", &[]);
    assert_hits("a.rs", "/// ```\n/// whoever(\"whoever\");\n/// ```\nfn f() {}\n", &[]);
    assert_hits("a.md", "<p title=\"whoever\">\n\n[whoever]: whoever.md\n", &[]);
}

#[test]
fn unresolved_links_have_no_words_but_their_text() {
    assert_hits("a.rs", "/// A [text][Self::whoever].\nfn f() {}\n", &[]);
    assert_hits("a.rs", "/// A [whoever][Self::text].\nfn f() {}\n", &[(1, "whoever")]);
}

#[test]
fn prose_entries_do_not_apply_to_comments_and_code() {
    assert_hits("a.rs", "// whoever\nfn whoever() { \"whoever\" }\n", &[]);
    assert_hits("a.toml", "# whoever\nkey = \"whoever\"\n", &[]);
}

#[test]
fn block_comments_are_joined_too() {
    assert_hits("a.rs", "/** It\n * is\n * told. */\nfn f() {}\n", &[(2, "is told")]);
}
