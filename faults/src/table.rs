//! The table of all faults, as a page of the documentation.

use std::{fmt::Write as _, fs, path::Path, process::Command};

use anyhow::{Result, ensure};

use crate::{
    Job,
    catalogue::{Expect, Fault},
    plant::{Outcome, Verdict},
};

const PAGE: &str = "docs/faults.md";

const HEAD: &str = "\
# Planted faults

Each row is a fault that was planted in the code, alone, and the model or test that failed for it: what each step
and each ordering of the protocol is there for. `ci/faults table` makes this page: it finds every atomic ordering
and fence in `src/` by itself, takes the steps from `faults/catalogue/`, and ends with an error where one is not
caught by what must catch it, or where the failure does not show what it should.

";

pub(crate) fn write(
    root: &Path,
    all: &[Fault],
    jobs: &[Job<'_>],
    outcomes: &[Vec<Outcome>],
) -> Result<()> {
    let mut page = HEAD.to_string();
    let caught = outcomes.iter().flatten().filter(|outcome| outcome.verdict == Verdict::Caught);
    let kept: Vec<_> = all.iter().filter_map(kept).collect();
    writeln!(
        page,
        "{} faults, {} pairs of fault and catcher, {} caught; {} more that nothing can catch, each with its \
         reason. Made on {} with {}; seconds are those of the catcher, without its build.\n",
        jobs.len(),
        outcomes.iter().map(Vec::len).sum::<usize>(),
        caught.count(),
        kept.len(),
        said(Command::new("date").args(["-u", "+%Y-%m-%d"]))?,
        said(Command::new("rustc").arg("--version"))?,
    )?;
    for (title, orderings) in [("Steps", false), ("Orderings and fences", true)] {
        writeln!(page, "## {title}\n\n| name | fault | caught by | seconds |\n|---|---|---|---|")?;
        for ((fault, _), outcomes) in jobs.iter().zip(outcomes) {
            if is_ordering(fault) != orderings {
                continue;
            }
            let (mut name, mut what) = (fault.name.as_str(), fault.what.as_str());
            for Outcome { by, verdict, seconds, .. } in outcomes {
                let by = if *verdict == Verdict::Caught { by.clone() } else { verdict.to_string() };
                writeln!(page, "| {name} | {what} | {by} | {seconds:.1} |")?;
                (name, what) = ("", "");
            }
        }
        page.push('\n');
    }
    writeln!(page, "## Not caught, and why they stand\n\n| name | fault | why |\n|---|---|---|")?;
    for (fault, why) in kept {
        writeln!(page, "| {} | {} | {} |", fault.name, fault.what, why.trim().replace('\n', " "))?;
    }
    fs::write(root.join(PAGE), page)?;
    Ok(())
}

/// That the page is of this source: it names all of its faults, and no other.
pub(crate) fn assert_complete(root: &Path, all: &[Fault]) -> Result<()> {
    let page = fs::read_to_string(root.join(PAGE))?;
    let rows = page.lines().filter_map(|line| line.strip_prefix("| ")?.split(" | ").next());
    let mut rows: Vec<&str> =
        rows.filter(|name| !name.trim().is_empty() && *name != "name").collect();
    let mut names: Vec<&str> = all.iter().map(|fault| fault.name.as_str()).collect();
    rows.sort_unstable();
    names.sort_unstable();
    let missing: Vec<_> = names.iter().filter(|name| !rows.contains(name)).collect();
    let stale: Vec<_> = rows.iter().filter(|name| !names.contains(name)).collect();
    ensure!(
        missing.is_empty() && stale.is_empty(),
        "{PAGE} is not of this source, make it again: {missing:?} are not in it, {stale:?} are no more"
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
