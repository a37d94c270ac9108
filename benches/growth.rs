//! How the number of instructions of each operation grows with the number of services. Nothing may
//! be worse than n log n.
//!
//! `ci/bench growth` counts the instructions of each operation by callgrind, with 100, 1,000,
//! 10,000 and 100,000 services, and prints a table. Each count divided by the one before it must
//! not exceed the ratio of n log n, and a quarter of it as margin. The set-up and the cleanup are
//! not counted. An operation that exceeds its limit is not run with more services, because it might
//! take hours, and the command fails. `src/growth/` contains the operations, each of which checks
//! its effect.
//!
//! ```text
//! cargo bench --features instructions --bench growth -- [--max SERVICES] [PART-OF-A-NAME...]
//! ```
//!
//! Without a part of a name, all operations run, and the counts are written to `growth.json` in the
//! directory of criterion's results, where the report reads them.
//!
//! This program runs itself under callgrind, once for each number of services and each core.
//! Callgrind counts while one function is on the stack (`growth::COUNTED`), and writes a file after
//! each of its calls. gungraun would start one process for each operation and number, and cannot
//! compare two of its counts.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::{Command, ExitCode},
    thread,
};

use mainstay_benches::{
    features::FEATURES,
    growth::{self, Count, Exceeded, Growth, Operation, operations},
    results, target,
};

const SIZES: [u64; 4] = [100, 1_000, 10_000, 100_000];

/// The option with which this program runs itself under callgrind.
const UNDER_CALLGRIND: &str = "--under-callgrind";

fn main() -> ExitCode {
    let (mut max, mut under_callgrind, mut parts) = (u64::MAX, None, Vec::new());
    let mut arguments = env::args().skip(1);
    while let Some(argument) = arguments.next() {
        let mut number = || arguments.next().and_then(|n| n.parse().ok()).expect("a number");
        match &*argument {
            "--max" => max = number(),
            UNDER_CALLGRIND => under_callgrind = Some(number()),
            // From cargo.
            "--bench" => {}
            _ => parts.push(argument),
        }
    }
    if let Some(services) = under_callgrind {
        let named = |name: &String| operations().into_iter().find(|o| o.name == *name).unwrap();
        for operation in parts.iter().map(named) {
            // Before it runs, so that the last line names an operation that ends the process.
            // In one piece, because several processes print.
            let line = format!("{services} services: {}\n", operation.name);
            eprint!("{line}");
            (operation.run)(services as usize);
        }
        return ExitCode::SUCCESS;
    }
    let mut selected = operations();
    selected.retain(|o| parts.is_empty() || parts.iter().any(|part| o.name.contains(part)));
    assert!(!selected.is_empty(), "no operation has such a name");
    let all = count_all(&selected, max);
    print!("{}", table(&all));
    if parts.is_empty() {
        write(&all);
    }
    let exceeded = |growth: &&Growth| growth.limited && growth.exceeded().is_some();
    let exceeded: Vec<&Growth> = all.iter().filter(exceeded).collect();
    if exceeded.is_empty() {
        return ExitCode::SUCCESS;
    }
    eprintln!("{} of {} operations are worse than n log n:", exceeded.len(), all.len());
    exceeded.iter().for_each(|growth| eprintln!("    {}", growth.operation));
    ExitCode::FAILURE
}

/// Counts the instructions of the operations, with ascending numbers of services.
fn count_all(operations: &[Operation], max: u64) -> Vec<Growth> {
    let growth = |&Operation { name, limited, .. }: &Operation| Growth {
        operation: name.into(),
        limited,
        counts: Vec::new(),
    };
    let mut all: Vec<Growth> = operations.iter().map(growth).collect();
    // Files of an earlier run must not be taken for those of this one.
    let _ = fs::remove_dir_all(counts_dir());
    for services in SIZES.into_iter().filter(|&services| services <= max) {
        let mut within: Vec<&mut Growth> =
            all.iter_mut().filter(|growth| growth.exceeded().is_none()).collect();
        // Counts do not depend on what else runs, so each core has a process.
        let processes = thread::available_parallelism().map_or(1, usize::from);
        let each = within.len().div_ceil(processes).max(1);
        thread::scope(|scope| {
            for (process, part) in within.chunks_mut(each).enumerate() {
                scope.spawn(move || count(part, services, process));
            }
        });
    }
    all
}

fn counts_dir() -> PathBuf {
    target().join("growth")
}

/// Runs the operations under callgrind, in one process, and adds the count of each one.
fn count(operations: &mut [&mut Growth], services: u64, process: usize) {
    let dir = counts_dir().join(format!("{services}-{process}"));
    fs::create_dir_all(&dir).unwrap();
    let out = dir.join("callgrind");
    let mut callgrind = Command::new("valgrind");
    callgrind.args(["--quiet", "--tool=callgrind", "--collect-atstart=no"]);
    callgrind.arg(format!("--toggle-collect={}", growth::COUNTED));
    callgrind.arg(format!("--dump-after={}", growth::COUNTED));
    callgrind.arg(format!("--callgrind-out-file={}", out.display()));
    callgrind.arg(env::current_exe().unwrap());
    callgrind.arg(UNDER_CALLGRIND).arg(services.to_string());
    callgrind.args(operations.iter().map(|growth| &growth.operation));
    let status = callgrind.status().expect("valgrind is installed");
    assert!(status.success(), "{services} services: {status}");
    // The last file, from the end of the program, contains nothing.
    let files = fs::read_dir(&dir).unwrap().count();
    assert_eq!(files, operations.len() + 1, "each operation is counted once");
    for (call, growth) in operations.iter_mut().enumerate() {
        let count = Count { services, instructions: total(&numbered(&out, call + 1)) };
        // Every operation visits each service, so less than this was not the operation.
        assert!(count.instructions >= services, "{}: {count:?}", growth.operation);
        growth.counts.push(count);
    }
}

/// Returns the path of the file that callgrind writes after this number of calls.
fn numbered(out: &Path, number: usize) -> PathBuf {
    out.with_extension(number.to_string())
}

/// Returns the total of a file of callgrind.
fn total(file: &Path) -> u64 {
    let text = fs::read_to_string(file).unwrap();
    let total = text.lines().find_map(|line| line.strip_prefix("totals: "));
    total.and_then(|total| total.trim().parse().ok()).expect("a file of callgrind has a total")
}

/// Returns the counts as a table, with the verdict on each operation.
fn table(all: &[Growth]) -> String {
    let width = all.iter().map(|growth| growth.operation.len()).max().unwrap_or(0);
    let mut text = format!("instructions for each n log2 n; mainstay with features: {FEATURES}\n");
    text += &format!("{:width$}", "n");
    SIZES.iter().for_each(|size| text += &format!(" {size:>9}"));
    text += "\n";
    for growth in all {
        text += &format!("{:width$}", growth.operation);
        for place in 0..SIZES.len() {
            let count = growth.counts.get(place);
            text += &count.map_or(" ".repeat(10), |count| format!(" {:>9.1}", count.each()));
        }
        text += &match growth.exceeded() {
            None => "  within".into(),
            Some(Exceeded { ratio, limit, .. }) => format!("  EXCEEDED: {ratio:.1} > {limit:.1}"),
        };
        text += if growth.limited { "\n" } else { ", not yet limited\n" };
    }
    text
}

fn write(all: &[Growth]) {
    fs::create_dir_all(results()).unwrap();
    fs::write(results().join(growth::FILE), serde_json::to_string_pretty(all).unwrap()).unwrap();
    fs::write(results().join("growth.features"), FEATURES).unwrap();
}
