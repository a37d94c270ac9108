//! Plants faults in mainstay, one at a time, and requires that a model or a test catches each.
//!
//! ```text
//! catalogue/*.toml: steps of the protocol,      src/**/*.rs: every ordering and fence;
//! removed or exchanged                          catalogue/orderings.toml: their catchers
//!                       |                                   |
//!                       +----------------+------------------+
//!                                        v
//!         a fault, planted in a copy of the repository -> its catcher must fail
//! ```
//!
//! A fault that does not fit the source any more is an error, and so is an ordering in the source
//! that the catalogue does not list. So the generated table is complete.

mod catalogue;
mod orderings;
mod plant;
mod table;

use std::{
    collections::BTreeMap,
    path::PathBuf,
    sync::{
        Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
};

use anyhow::{Result, ensure};
use clap::Parser;

use catalogue::{Catcher, Expect, Fault};
use plant::{Copy, Outcome};

/// Plants the faults of the catalogue, one at a time; fails if one of them is not caught by a model
/// or test that must catch it.
#[derive(Parser)]
struct Options {
    /// Only faults whose names contain one of these texts
    names: Vec<String>,
    /// One fault for every sixth file of models, and whether the table is complete
    #[arg(long)]
    short: bool,
    /// Plant the faults that are listed as not caught, and run all models against them
    #[arg(long, conflicts_with = "short")]
    kept: bool,
    /// Write the table of all faults
    #[arg(long, conflicts_with_all = ["short", "kept", "names"])]
    table: bool,
    /// Plant the faults that are not in the table, and write the table with them
    #[arg(long, conflicts_with_all = ["short", "kept", "names", "table"])]
    update: bool,
    /// Print the faults, and run nothing
    #[arg(long)]
    list: bool,
    /// The number of faults that are planted at a time
    #[arg(long, default_value_t = 2)]
    jobs: usize,
}

fn main() -> Result<()> {
    let options = Options::parse();
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("..").canonicalize()?;
    let all = catalogue::load(&root)?;
    if options.short {
        table::assert_complete(&root, &all)?;
    }
    let mut jobs = choose(&all, &options);
    let rows = table::rows(&root)?;
    if options.update {
        jobs.retain(|(fault, _)| !rows.contains_key(&fault.name));
    }
    ensure!(!jobs.is_empty(), "there is no such fault");
    if options.list {
        for (fault, catchers) in &jobs {
            let by: Vec<String> = catchers.iter().map(Catcher::to_string).collect();
            println!("{:<45} {:<75} {}", fault.name, fault.what, by.join(", "));
        }
        return Ok(());
    }
    let outcomes = run(&root, &jobs, options.jobs.max(1))?;
    let failed = outcomes.iter().flatten().filter(|outcome| !outcome.as_expected()).count();
    let (faults, pairs) = (jobs.len(), outcomes.iter().map(Vec::len).sum::<usize>());
    println!("{faults} faults, {pairs} runs, {failed} not as expected");
    if options.table {
        table::write(&root, &all, &jobs, &outcomes, &BTreeMap::new())?;
    }
    if options.update {
        table::write(&root, &all, &jobs, &outcomes, &rows)?;
    }
    ensure!(failed == 0, "{failed} not as expected");
    Ok(())
}

type Job<'a> = (&'a Fault, Vec<Catcher>);

/// Chooses the faults to plant, and the catchers to run against each.
fn choose<'a>(all: &'a [Fault], options: &Options) -> Vec<Job<'a>> {
    let mut seen = Vec::new();
    let named = |fault: &&Fault| {
        options.names.is_empty() || options.names.iter().any(|name| fault.name.contains(name))
    };
    let mut jobs = Vec::new();
    for fault in all.iter().filter(named) {
        match &fault.expect {
            Expect::Caught(by) if !options.kept => {
                if options.short {
                    let fresh = |by: &&Catcher| by.suite.is_quick() && !seen.contains(&by.suite);
                    let Some(first) = by.iter().find(fresh) else { continue };
                    seen.push(first.suite.clone());
                    jobs.push((fault, vec![first.clone()]));
                } else {
                    jobs.push((fault, by.clone()));
                }
            }
            Expect::Kept(_) if options.kept || options.list => jobs.push((fault, Vec::new())),
            _ => {}
        }
    }
    if options.short {
        // Each needs its own build.
        jobs = jobs.into_iter().step_by(6).collect();
    }
    jobs
}

/// Runs the jobs on as many copies of the repository as there are workers. Returns the outcomes in
/// the order of the jobs.
fn run(root: &std::path::Path, jobs: &[Job<'_>], workers: usize) -> Result<Vec<Vec<Outcome>>> {
    let next = AtomicUsize::new(0);
    let done: Vec<Mutex<Vec<Outcome>>> = jobs.iter().map(|_| Mutex::default()).collect();
    thread::scope(|scope| -> Result<()> {
        let work = |number: usize| -> Result<()> {
            let mut copy = Copy::make(root, number)?;
            loop {
                // Relaxed: each job is taken once, which is all that is required.
                let n = next.fetch_add(1, Ordering::Relaxed);
                let Some((fault, catchers)) = jobs.get(n) else { return Ok(()) };
                let outcomes = copy.plant(fault, catchers)?;
                for outcome in &outcomes {
                    println!("{outcome}");
                }
                *done[n].lock().expect("no thread panics with it") = outcomes;
            }
        };
        let handles: Vec<_> =
            (0..workers).map(|number| scope.spawn(move || work(number))).collect();
        for handle in handles {
            handle.join().expect("a worker returns its errors")?;
        }
        Ok(())
    })?;
    Ok(done.into_iter().map(|outcomes| outcomes.into_inner().unwrap_or_default()).collect())
}

/// The row of the output for one run.
impl std::fmt::Display for Outcome {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { name, what, by, verdict, seconds, log } = self;
        write!(f, "{verdict:<8} {seconds:>6.1} s  {name}: {what} [{by}]")?;
        if !self.as_expected() {
            for line in log.lines().rev().take(12).collect::<Vec<_>>().into_iter().rev() {
                write!(f, "\n    {line}")?;
            }
        }
        Ok(())
    }
}
