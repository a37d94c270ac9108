//! Names: Rust code, and the code of doc comments and of Markdown.

use crate::assert_hits;

#[test]
fn names_are_found_in_rust_code() {
    assert_hits(
        "a.rs",
        "fn f() {\n    x.went_down();\n}\n\nfn went_down() {}\n",
        &[(2, "went_down"), (5, "went_down")],
    );
    assert_hits("a.rs", "r#went_down; went_down!(); 'went_down: loop {}\n", &[(1, "went_down")]);
}

#[test]
fn names_in_strings_and_comments_are_accepted() {
    assert_hits("a.rs", "f(\"went_down\", r\"went_down\", b\"went_down\"); // went_down\n", &[]);
    assert_hits("a.rs", "/* went_down */ /// went_down\n", &[]);
    assert_hits("a.rs", "let c = '\"'; let s = \"went_down\";\n", &[]);
    assert_hits("a.toml", "went_down = 1\n", &[]);
    assert_hits("ci/x", "#!/bin/sh\nwent_down\n", &[]);
}

#[test]
fn names_are_found_in_the_code_of_docs() {
    let doc = "/// One `went_down` and [`Self::went_down`].\n///\n/// ```\n/// # went_down();\n\
               /// f(\"went_down\"); // went_down\n/// ```\nfn f() {}\n";
    assert_hits("a.rs", doc, &[(1, "went_down"), (4, "went_down")]);
    let page = "went_down `went_down`\n\n```rust\nwent_down();\n\"went_down\"\n```\n\n\
                ```text\n\"went_down\"\n```\n\n    went_down\n";
    assert_hits(
        "a.md",
        page,
        &[(1, "went_down"), (4, "went_down"), (9, "went_down"), (12, "went_down")],
    );
}
