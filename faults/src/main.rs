//! Plants faults in mainstay, one at a time, and requires that a model or a test catches each.
//!
//! ```text
//! catalogue/*.toml  steps of the protocol, removed or swapped     \
//! src/**/*.rs       every ordering and fence, found in the source  } -> faults -> planted in a copy of the
//! catalogue/orderings.toml  who must catch which of those         /     repository -> the catcher must fail
//! ```
//!
//! A fault that does not fit the source any more is an error, and so is an ordering in the source that the
//! catalogue does not know: the table that comes of it is complete.

mod catalogue;
mod orderings;
mod plant;
mod table;

use std::{
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

/// Plants the faults of the catalogue, one at a time; fails unless each is caught by what must catch it.
#[derive(Parser)]
struct Options {
    /// Only faults with one of these in their name
    names: Vec<String>,
    /// One fault for every second file of models, and the table looked at for being complete
    #[arg(long)]
    short: bool,
    /// Plant those that are listed as not caught, and run all the models against them
    #[arg(long, conflicts_with = "short")]
    kept: bool,
    /// Write the table of all faults
    #[arg(long, conflicts_with_all = ["short", "kept", "names"])]
    table: bool,
    /// Show which there are, and run none
    #[arg(long)]
    list: bool,
    /// How many are planted at a time
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
    let jobs = choose(&all, &options);
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
        table::write(&root, &all, &jobs, &outcomes)?;
    }
    ensure!(failed == 0, "{failed} not as expected");
    Ok(())
}

type Job<'a> = (&'a Fault, Vec<Catcher>);

/// Which faults are to be planted, and what is to be run against each.
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
        // Each is a build of its own.
        jobs = jobs.into_iter().step_by(2).collect();
    }
    jobs
}

/// Runs the jobs on so many copies of the repository; gives what came of each, in their order.
fn run(root: &std::path::Path, jobs: &[Job<'_>], workers: usize) -> Result<Vec<Vec<Outcome>>> {
    let next = AtomicUsize::new(0);
    let done: Vec<Mutex<Vec<Outcome>>> = jobs.iter().map(|_| Mutex::default()).collect();
    thread::scope(|scope| -> Result<()> {
        let work = |number: usize| -> Result<()> {
            let mut copy = Copy::make(root, number)?;
            loop {
                // Relaxed: only that each is taken once counts.
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
            handle.join().expect("a worker says what went wrong as an error")?;
        }
        Ok(())
    })?;
    Ok(done.into_iter().map(|outcomes| outcomes.into_inner().unwrap_or_default()).collect())
}

/// What a row of the output says of one run.
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
