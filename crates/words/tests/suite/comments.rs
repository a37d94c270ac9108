//! Comments in Rust, in shell scripts and in TOML files.
//!
//! - Lines below each other are joined; a blank line and a list item begin a new paragraph.
//! - Strings, and `#` within a word, are no comments.
//! - Code spans are names.

use crate::assert_hits;

#[test]
fn a_phrase_is_found_across_lines() {
    let found = &[(2, "is told")];
    assert_hits("a.rs", "fn f() {\n    // it is\n    // told\n}\n", found);
    assert_hits("a.toml", "[a]\n# it is\n# told\n", found);
    assert_hits("ci/run", "#!/usr/bin/env bash\n# it is\n# told\n", found);
    assert_hits("run.sh", "\n# it is\n# told\n", found);
    assert_hits("a.rs", "let a = 1;\nlet b = 2; // it is\n           // told\n", found);
    assert_hits("a.rs", "/*\n it is\n told */\n", found);
}

#[test]
fn separate_comments_are_not_joined() {
    assert_hits("a.rs", "// it is\n//\n// told\n", &[]);
    assert_hits("a.rs", "// it is\n\n// told\n", &[]);
    assert_hits("a.rs", "// it is\nf(); // told\n", &[]);
    assert_hits("a.rs", "// - it is\n// - told\n", &[]);
    assert_hits("a.rs", "// it is\n/// told\nfn f() {}\n", &[]);
}

#[test]
fn comments_in_examples_are_comments() {
    assert_hits(
        "a.rs",
        "/// ```\n/// f(); // meanwhile\n/// ```\nfn f() {}\n",
        &[(2, "meanwhile")],
    );
    assert_hits("a.md", "```rust\n// meanwhile\n```\n", &[(2, "meanwhile")]);
    assert_hits("a.md", "```sh\nls # meanwhile\n```\n", &[(2, "meanwhile")]);
    assert_hits("a.md", "```toml\n# meanwhile\n```\n", &[(2, "meanwhile")]);
}

#[test]
fn comment_entries_do_not_apply_to_prose_and_code() {
    assert_hits("a.rs", "/// meanwhile\nfn meanwhile() { \"// meanwhile\" }\n", &[]);
    assert_hits("a.rs", "fn f() { r#\"\n// meanwhile\n\"# }\n", &[]);
    assert_hits("a.toml", "a = '# meanwhile'\nb = \"\"\"\n# meanwhile\n\"\"\"\n", &[]);
    assert_hits("a.md", "meanwhile\n", &[]);
}

#[test]
fn a_hash_within_a_word_or_a_quote_begins_no_comment() {
    let script = "#!/bin/sh\necho ${a#meanwhile} a#meanwhile \"a # meanwhile\" '\n# meanwhile'\n\
                  echo \\\" # meanwhile\necho \"it's\" # meanwhile\n\
                  echo \"a \\\" # meanwhile\"\n";
    assert_hits("ci/x", script, &[(4, "meanwhile"), (5, "meanwhile")]);
}

#[test]
fn code_spans_in_comments_are_names() {
    assert_hits("a.rs", "// `meanwhile`\n// calls `went_down`\n", &[(2, "went_down")]);
    assert_hits("a.toml", "# `meanwhile`\n# calls `went_down`\n", &[(2, "went_down")]);
}

#[test]
fn files_of_other_languages_are_not_checked() {
    assert_hits("a.txt", "# meanwhile\n", &[]);
    assert_hits("a.svg", "#!/bin/sh\n", &[]);
    assert_hits("ci/python", "#!/usr/bin/python3\n# meanwhile\n", &[]);
    assert_hits("LICENSE", "meanwhile\n", &[]);
}
