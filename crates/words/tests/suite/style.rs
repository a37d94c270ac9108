//! The width of lines, and the names of tests.

use crate::assert_hits;

fn line(length: usize) -> String {
    "a ".repeat(length / 2) + &"é".repeat(length % 2)
}

#[test]
fn a_hundred_columns_are_accepted_and_one_more_is_not() {
    for (path, prefix) in
        [("a.rs", "// "), ("a.toml", "# "), ("ci/x", "#!/bin/sh\n# "), ("a.md", "")]
    {
        let width = 100 - prefix.lines().last().map_or(0, str::len);
        assert_hits(path, &format!("{prefix}{}", line(width)), &[]);
        let found = (prefix.lines().count().max(1), "101 columns");
        assert_hits(path, &format!("{prefix}{}", line(width + 1)), &[found]);
    }
}

#[test]
fn columns_are_characters() {
    assert_hits("a.rs", &format!("// {}\n", "é".repeat(97)), &[]);
}

#[test]
fn tables_and_urls_may_be_wider() {
    assert_hits("a.md", &format!("| a |\n|---|\n| {} |\n", line(120)), &[]);
    assert_hits("a.rs", &format!("//! | {} |\n//! |---|\n", line(120)), &[]);
    assert_hits("a.rs", &format!("// {} https://example.com\n", line(120)), &[]);
    assert_hits("a.rs", &format!("| {} |\n", line(120)), &[(1, "124 columns")]);
}

#[test]
fn strings_without_a_place_for_a_line_break_may_be_wider() {
    let word = "a".repeat(120);
    assert_hits("a.rs", &format!("f(\"{word}\");\n"), &[]);
    let lines_before = "// é\n".repeat(200);
    assert_hits("a.rs", &format!("{lines_before}f(\"{word}\");\n"), &[]);
    assert_hits("a.rs", &format!("f(\"a {word}\");\n"), &[(1, "128 columns")]);
    assert_hits("a.rs", &format!("f(r\"a {word}\");\n"), &[]);
    assert_hits("a.rs", &format!("f(b\"a {word}\");\n"), &[(1, "129 columns")]);
    assert_hits("a.rs", &format!("f(\"a\"); // {word}\n"), &[(1, "131 columns")]);
    assert_hits("ci/x", &format!("#!/bin/sh\ngrep 'a {word}'\n"), &[]);
    assert_hits("ci/x", &format!("#!/bin/sh\necho \"a {word}\"\n"), &[(2, "129 columns")]);
}

#[test]
fn the_first_string_or_table_of_a_line_of_toml_may_be_wider() {
    let word = "a ".repeat(60);
    assert_hits("a.toml", &format!("a = '{word}'\n"), &[]);
    assert_hits("a.toml", &format!("a = [{{ a = 'a', b = 'a', c = '{word}' }}]\n"), &[]);
    assert_hits("a.toml", &format!("a = '{word}'\nb = {{ c = {{ d = 1 }}, e = '{word}' }}\n"), &[]);
    assert_hits("a.toml", &format!("a = {{\n  b = '{word}'\n}}\n"), &[]);
    assert_hits("a.toml", &format!("a = [\n'{}',\n]\n", "a".repeat(98)), &[]);
    assert_hits("a.toml", &format!("# {word}\na = {{ b = 1 }}\n"), &[(1, "122 columns")]);
    assert_hits("a.toml", &format!("a = ['a', '{word}']\n"), &[(1, "133 columns")]);
    assert_hits(
        "a.toml",
        &format!("a = [{{ a = 1 }}, {{ a = '{word}' }}]\n"),
        &[(1, "147 columns")],
    );
    assert_hits("a.toml", &format!("a = 'a' # {word}\n"), &[(1, "130 columns")]);
}

#[test]
fn a_test_name_has_three_words() {
    let content = "#[test]\nfn a_short() {}\n\n#[test]\nfn a_name_of_four() {}\n\n\
                   #[test]\n#[should_panic]\nfn panics() {}\n\n\
                   #[tokio::test(flavor = \"multi_thread\")]\nasync fn waits() {}\n";
    assert_hits("a.rs", content, &[(2, "fn a_short"), (9, "fn panics"), (12, "fn waits")]);
}

#[test]
fn other_functions_may_have_short_names() {
    assert_hits("a.rs", "#[cfg(test)]\nfn f() {}\n\n#[inline]\nfn g() {}\n", &[]);
    assert_hits("a.rs", "#[test]\nfn a_long_name() { fn f() {} }\n// #[test]\nfn g() {}\n", &[]);
    assert_hits("a.rs", "#[test]\nfn $name() {}\n", &[]);
}
