//! Finds every atomic ordering and fence in the source, and replaces each by the next weaker one.

use std::{fs, ops::Range, path::Path};

use anyhow::Result;
use regex::Regex;

/// One ordering, weakened.
pub(crate) struct Weaker {
    /// The function that contains it, the ordering and its replacement.
    pub(crate) name: String,
    pub(crate) what: String,
    pub(crate) file: String,
    /// The content of the file with the weaker ordering.
    pub(crate) source: String,
}

/// The substitutes for other crates in a model are not under test.
const NOT_TESTED: &str = "src/sync/model.rs";

pub(crate) fn all(root: &Path) -> Result<Vec<Weaker>> {
    let mut files = Vec::new();
    rust_files(&root.join("src"), &mut files)?;
    files.sort();
    let mut found = Vec::new();
    for path in files {
        let file = path.strip_prefix(root)?.to_string_lossy().into_owned();
        if file != NOT_TESTED {
            of_file(&file, &fs::read_to_string(&path)?, &mut found)?;
        }
    }
    Ok(found)
}

fn rust_files(folder: &Path, found: &mut Vec<std::path::PathBuf>) -> Result<()> {
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() {
            rust_files(&path, found)?;
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
    Ok(())
}

fn of_file(file: &str, source: &str, found: &mut Vec<Weaker>) -> Result<()> {
    let item = Regex::new(r"^(\s*)impl(?:<.*?>)? (?:\S+ for )?(\w+)")?;
    let function = Regex::new(r"^\s*(?:pub(?:\(\w+\))? )?(?:const )?fn (\w+)")?;
    let ordering = Regex::new(r"(fence\()?Ordering::(\w+)\)?(;?)")?;

    let (mut owner, mut inside, mut seen) = (None::<(String, String)>, String::new(), Vec::new());
    let mut start = 0;
    for line in source.split_inclusive('\n') {
        let at = start;
        start += line.len();
        if line.trim_start().starts_with("//") {
            continue;
        }
        if let Some(item) = item.captures(line) {
            owner = Some((item[2].to_string(), format!("{}}}", &item[1])));
        } else if owner.as_ref().is_some_and(|(_, end)| line.trim_end() == end) {
            owner = None;
        }
        if let Some(function) = function.captures(line) {
            inside = match &owner {
                Some((owner, _)) => format!("{owner}::{}", &function[1]),
                None => function[1].to_string(),
            };
            seen.clear();
        }
        for one in ordering.captures_iter(line) {
            let (whole, order) = (one.get(0).expect("it matched"), one.get(2).expect("it has one"));
            let fence = one.get(1).is_some();
            seen.push(order.as_str().to_string());
            let nth = seen.iter().filter(|earlier| *earlier == order.as_str()).count();
            let nth = if nth > 1 { format!(" #{nth}") } else { String::new() };
            let place = |range: Range<usize>| at + range.start..at + range.end;
            let mut add = |to: &str, range: Range<usize>, with: &str| {
                let mut source = source.to_string();
                source.replace_range(place(range), with);
                found.push(Weaker {
                    name: format!("{inside}: {}{nth} to {to}", order.as_str()),
                    what: match to {
                        "nothing" => "the fence is removed".to_string(),
                        _ => format!("{} in place of {}", to, order.as_str()),
                    },
                    file: file.to_string(),
                    source,
                });
            };
            for weaker in weaker_than(order.as_str(), fence) {
                add(weaker, order.range(), weaker);
            }
            if fence {
                add("nothing", whole.range(), "");
            }
        }
    }
    Ok(())
}

/// A fence cannot be `Relaxed`: the step below its weakest ordering is no fence.
fn weaker_than(order: &str, fence: bool) -> &'static [&'static str] {
    match order {
        "SeqCst" => &["AcqRel"],
        "AcqRel" => &["Acquire", "Release"],
        "Acquire" | "Release" if !fence => &["Relaxed"],
        _ => &[],
    }
}
