//! The catalogue of planted faults.

use mainstay_words::{List, check};

use crate::{LIST, assert_hits};

const PATH: &str = "faults/catalogue/a.toml";

#[test]
fn texts_are_prose_and_edits_are_code() {
    let content = "# meanwhile\n\n[[fault]]\nname = \"whoever\"\nwhat = \"whoever `went_down`\"\n\
                   [[fault.edit]]\nfile = \"whoever\"\n\
                   old = '''\n    whoever();\n    went_down(); // meanwhile\n'''\n\
                   new = '''\n    /// whoever\n    \"went_down\"\n'''\n";
    assert_hits(
        PATH,
        content,
        &[
            (1, "meanwhile"),
            (5, "went_down"),
            (5, "whoever"),
            (10, "meanwhile"),
            (10, "went_down"),
            (13, "whoever"),
        ],
    );
    assert_hits("faults/a.toml", content, &[(1, "meanwhile")]);
}

#[test]
fn a_text_of_several_lines_is_one_paragraph() {
    let content =
        "[\"f: Acquire to Relaxed\"]\nkept = \"\"\"\nThe waiter is\ntold of it.\n\"\"\"\n";
    assert_hits(PATH, content, &[(3, "is told")]);
    assert_hits(PATH, "[a]\nkept = \"\"\"The waiter is\ntold.\"\"\"\n", &[(2, "is told")]);
}

#[test]
fn invalid_toml_is_an_error() {
    let list = List::parse(LIST).unwrap();
    assert!(check(&list, PATH, "what = ").is_err());
}
