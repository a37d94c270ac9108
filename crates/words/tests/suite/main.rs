//! Planted text that the checker must find, and text that it must accept, with the lines.

mod catalogue;
mod comments;
mod entries;
mod names;
mod prose;
mod repository;
mod style;

use mainstay_words::{List, check};

/// A list with one entry of each kind.
const LIST: &str = r"
    [[word]]
    pattern = '\b[Ww]hoever\b'
    instead = 'the thread that'
    in = ['prose']

    [[word]]
    pattern = '\bmeanwhile\b'
    instead = 'while'
    in = ['comments']

    [[word]]
    pattern = '\bis told\b'
    instead = 'is notified'
    in = ['prose', 'comments']

    [[word]]
    pattern = '\bwent_down\b'
    instead = 'failed'
    in = ['names']
";

/// The hits in a file with this path and content: lines and words.
fn hits_of(list: &str, path: &str, content: &str) -> Vec<(usize, String)> {
    let list = List::parse(list).unwrap();
    let hits = check(&list, path, content).unwrap();
    hits.into_iter().map(|hit| (hit.line, hit.found)).collect()
}

#[track_caller]
fn assert_hits(path: &str, content: &str, expected: &[(usize, &str)]) {
    let found = hits_of(LIST, path, content);
    let found: Vec<_> = found.iter().map(|(line, words)| (*line, words.as_str())).collect();
    assert_eq!(found, expected);
}
