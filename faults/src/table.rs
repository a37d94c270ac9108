//! Generates the table of all faults, a page of the documentation.

use std::{collections::BTreeMap, fmt::Write as _, fs, path::Path, process::Command};

use anyhow::{Result, ensure};

use crate::{
    Job,
    catalogue::{Expect, Fault},
    plant::{Outcome, Verdict},
};

const PAGE: &str = "docs/faults.md";

const HEAD: &str = "\
# Planted faults

Each row is one fault that was planted in the code, alone, and the model or test that failed because
of it. So the table shows what each step and each atomic ordering of the protocol is needed for.

`ci/faults table` generates this page. It finds every atomic ordering and fence in `src/` itself,
and takes the steps from `faults/catalogue/`. It ends with an error if a fault is not caught by each
model and test that the catalogue names for it, or if a failure does not show the expected text.

";

pub(crate) fn write(
    root: &Path,
    all: &[Fault],
    jobs: &[Job<'_>],
    outcomes: &[Vec<Outcome>],
    earlier: &Rows,
) -> Result<()> {
    let mut page = HEAD.to_string();
    let mut rows = Rows::new();
    for ((fault, _), outcomes) in jobs.iter().zip(outcomes) {
        let (mut name, mut what) = (format!("`{}`", fault.name), fault.what.as_str());
        let lines: &mut Vec<String> = rows.entry(fault.name.clone()).or_default();
        for Outcome { by, verdict, seconds, .. } in outcomes {
            let by = match verdict {
                Verdict::Caught => format!("`{by}`"),
                verdict => verdict.to_string(),
            };
            lines.push(format!("| {name} | {what} | {by} | {seconds:.1} |"));
            (name, what) = (String::new(), "");
        }
    }
    for fault in all.iter().filter(|fault| kept(fault).is_none()) {
        if let (None, Some(lines)) = (rows.get(&fault.name), earlier.get(&fault.name)) {
            rows.insert(fault.name.clone(), lines.clone());
        }
    }
    let pairs: Vec<&String> = rows.values().flatten().collect();
    // The third cell of a row is a name in backquotes, or why nothing was caught.
    let is_caught =
        |line: &&&String| line.rsplit(" | ").nth(1).is_some_and(|by| by.starts_with('`'));
    let caught = pairs.iter().filter(is_caught);
    let kept: Vec<_> = all.iter().filter_map(kept).collect();
    writeln!(
        page,
        "{} faults, and {} pairs of a fault and a model or test that must catch it: {} are caught. \
         {} more faults cannot be caught; the last table says why their code is kept.\n\n\
         Generated on {} with {}. The times are those of the model or test, without its build.\n",
        rows.len(),
        pairs.len(),
        caught.count(),
        kept.len(),
        said(Command::new("date").args(["-u", "+%Y-%m-%d"]))?,
        said(Command::new("rustc").arg("--version"))?,
    )?;
    for (title, orderings) in [("Steps", false), ("Orderings and fences", true)] {
        writeln!(page, "## {title}\n\n| name | fault | caught by | seconds |\n|---|---|---|---|")?;
        for fault in all.iter().filter(|fault| is_ordering(fault) == orderings) {
            for line in rows.get(&fault.name).into_iter().flatten() {
                writeln!(page, "{line}")?;
            }
        }
        page.push('\n');
    }
    writeln!(
        page,
        "## Not caught, and why the code is kept\n\n| name | fault | reason |\n|---|---|---|"
    )?;
    for (fault, why) in kept {
        writeln!(
            page,
            "| `{}` | {} | {} |",
            fault.name,
            fault.what,
            why.trim().replace('\n', " ")
        )?;
    }
    fs::write(root.join(PAGE), page)?;
    Ok(())
}

/// The rows of each fault, as lines of the page.
pub(crate) type Rows = BTreeMap<String, Vec<String>>;

/// Returns the rows of the present page.
pub(crate) fn rows(root: &Path) -> Result<Rows> {
    let page = fs::read_to_string(root.join(PAGE))?;
    let (mut rows, mut name) = (Rows::new(), String::new());
    for line in page.lines() {
        if let Some((first, _)) = line.strip_prefix("| `").and_then(|row| row.split_once("` | ")) {
            name = first.to_string();
        } else if !line.starts_with("|  | ") {
            continue;
        }
        rows.entry(name.clone()).or_default().push(line.to_string());
    }
    Ok(rows)
}

/// Checks that the page is up to date: it names all faults of this source, and no other.
pub(crate) fn assert_complete(root: &Path, all: &[Fault]) -> Result<()> {
    let page = fs::read_to_string(root.join(PAGE))?;
    let mut rows: Vec<&str> = page
        .lines()
        .filter_map(|line| Some(line.strip_prefix("| `")?.split_once("` | ")?.0))
        .collect();
    let mut names: Vec<&str> = all.iter().map(|fault| fault.name.as_str()).collect();
    rows.sort_unstable();
    names.sort_unstable();
    let missing: Vec<_> = names.iter().filter(|name| !rows.contains(name)).collect();
    let stale: Vec<_> = rows.iter().filter(|name| !names.contains(name)).collect();
    ensure!(
        missing.is_empty() && stale.is_empty(),
        "{PAGE} is out of date, run `ci/faults table`: {missing:?} are missing, {stale:?} are gone"
    );
    Ok(())
}

fn is_ordering(fault: &Fault) -> bool {
    fault.name.contains(": ")
}

fn kept(fault: &Fault) -> Option<(&Fault, &str)> {
    match &fault.expect {
        Expect::Kept(why) => Some((fault, why)),
        Expect::Caught(_) => None,
    }
}

fn said(command: &mut Command) -> Result<String> {
    Ok(String::from_utf8(command.output()?.stdout)?.trim().to_string())
}
