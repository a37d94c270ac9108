//! The entries of a list: exceptions, the lines that switch the check off and on, invalid entries.

use mainstay_words::{List, check};

use crate::{LIST, assert_hits, hits_of};

const REST: &str = r"
    [[word]]
    pattern = '\brests?\b'
    instead = 'backoff'
    in = ['prose', 'comments']
    except = '\b(the|its) rest\b|`code` rest\b'
";

#[test]
fn a_match_of_the_exception_must_contain_the_hit() {
    let found = |content| hits_of(REST, "a.md", content);
    assert_eq!(found("It rests.\nThe others are the\nrest.\n"), [(1, "rests".to_string())]);
    assert_eq!(found("the rests\n"), [(1, "rests".to_string())]);
    assert_eq!(found("its rest rests\n"), [(1, "rests".to_string())]);
    assert_eq!(found("its rest, the rest\n"), []);
}

#[test]
fn an_exception_may_contain_code() {
    assert_eq!(hits_of(REST, "a.md", "a `code` rest\n"), []);
    assert_eq!(hits_of(REST, "a.md", "a `else` rest\n"), [(1, "rest".to_string())]);
}

#[test]
fn text_between_off_and_on_is_skipped() {
    let page = "whoever\n\n<!-- words: off -->\n\nwhoever\n\n<!-- words: on -->\n\nwhoever\n";
    assert_hits("a.md", page, &[(1, "whoever"), (9, "whoever")]);
    let code = "//! whoever\n//!\n//! <!-- words: off -->\n//! whoever\n//! <!-- words: on -->\n\
                //!\n//! whoever\n";
    assert_hits("a.rs", code, &[(1, "whoever"), (7, "whoever")]);
    let toml = "# <!-- words: off -->\n# meanwhile\n# <!-- words: on -->\n# meanwhile\n";
    assert_hits("a.toml", toml, &[(4, "meanwhile")]);
}

#[test]
fn a_marker_within_a_line_switches_nothing_off() {
    assert_hits("a.md", "See `<!-- words: off -->`: whoever\n", &[(1, "whoever")]);
}

#[test]
fn a_marker_without_its_partner_is_an_error() {
    let list = List::parse(LIST).unwrap();
    let error = |content| check(&list, "a.md", content).unwrap_err().to_string();
    assert_eq!(error("\n<!-- words: off -->\n"), "2: `words: off` without `words: on`");
    assert_eq!(error("<!-- words: on -->\n"), "1: `words: on` without `words: off`");
    let off = "<!-- words: off -->\n";
    assert_eq!(error(&off.repeat(2)), "2: a second `words: off`");
}

#[test]
fn an_invalid_list_is_an_error() {
    let entry = |pattern: &str, instead: &str, kinds: &str| {
        let list =
            format!("[[word]]\npattern = '{pattern}'\ninstead = '{instead}'\nin = {kinds}\n");
        List::parse(&list).map(|_| ()).map_err(|error| error.to_string())
    };
    entry("a", "b", "['prose', 'comments', 'names']").unwrap();
    entry("(", "b", "['prose']").unwrap_err();
    entry("a", "b", "['verbs']").unwrap_err();
    entry("a", "b", "['prose']\nexcept = '('").unwrap_err();
    entry("a", "b", "['prose']\nexpect = 'a'").unwrap_err();
    assert_eq!(entry("a", "b", "[]").unwrap_err(), "`a` applies to nothing");
    assert_eq!(entry("a", "", "['prose']").unwrap_err(), "`a` has no replacement");
    assert_eq!(entry("a*", "b", "['prose']").unwrap_err(), "`a*` matches an empty text");
}

#[test]
fn a_hit_names_the_line_the_words_and_the_replacement() {
    let list = List::parse(LIST).unwrap();
    let hits = check(&list, "a.md", "One.\nWhoever.\n").unwrap();
    assert_eq!(hits[0].to_string(), "2: \"Whoever\": write \"the thread that\"");
}
