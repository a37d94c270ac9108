//! Random inputs for each target.
//!
//! `MAINSTAY_FUZZ_RUNS` is the number of inputs for each target, and `MAINSTAY_SEED` repeats an
//! earlier run. An input that fails is stored as `failed-TARGET` in the temporary directory of the
//! build, and its path is printed.

use std::{
    env, fs,
    hash::{BuildHasher, RandomState},
    panic::{AssertUnwindSafe, catch_unwind, resume_unwind},
    path::Path,
    time::Instant,
};

use mainstay_fuzz::{TARGETS, Target};
use mainstay_test_support::Random;

#[test]
fn random_operations_agree_with_the_model() {
    run("operations", 20_000, 8..260);
}

#[test]
fn supervised_services_agree_with_the_model() {
    run("supervision", 5_000, 12..180);
}

#[test]
fn random_edges_in_a_graph_agree_with_a_naive_search() {
    run("graph", 5_000, 8..300);
}

#[test]
fn random_names_and_dot_texts_are_read_back() {
    run("names_and_dot", 20_000, 8..200);
}

fn run(name: &str, runs: u64, lengths: std::ops::Range<u64>) {
    let target: Target =
        TARGETS.iter().find(|(target, _)| *target == name).expect("TARGETS contains the name").1;
    let (runs, seed) = (
        number("MAINSTAY_FUZZ_RUNS").unwrap_or(runs),
        number("MAINSTAY_SEED").unwrap_or_else(|| RandomState::new().hash_one(name)),
    );
    println!("{name}: {runs} runs, MAINSTAY_SEED={seed}");
    let (mut random, start) = (Random::new(seed), Instant::now());
    for run in 0..runs {
        let length = lengths.start + random.next() % (lengths.end - lengths.start);
        let input: Vec<u8> = (0..length).map(|_| (random.next() >> 32) as u8).collect();
        if let Err(panic) = catch_unwind(AssertUnwindSafe(|| target(&input))) {
            let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("failed-{name}"));
            fs::write(&path, &input).expect("the input can be written");
            println!("run {run} of seed {seed} failed: {}", path.display());
            resume_unwind(panic);
        }
    }
    println!("{name}: {:.0} runs a second", runs as f64 / start.elapsed().as_secs_f64());
}

fn number(variable: &str) -> Option<u64> {
    let text = env::var(variable).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{variable} must be a number, not {text:?}")))
}
