//! Makes `docs/benchmarks.md` and its plots of what the benchmarks left behind.
//!
//! `ci/bench report`. What was not measured is left out.

mod canvas;
mod data;
mod format;
mod host;
mod limits;
mod plots;
mod sections;
mod tables;
mod targets;

use std::{fs, path::Path};

use anyhow::{Context, Result, ensure};

use crate::{data::Results, sections::Sections};

fn main() -> Result<()> {
    let crate_dir = Path::new(env!("CARGO_MANIFEST_DIR"));
    let criterion = mainstay_benches::results();
    let docs = crate_dir.join("../docs");

    let results = Results::read(&criterion, &mainstay_benches::target().join("gungraun"))?;
    let is_empty = results.points.is_empty() && results.building.is_empty();
    ensure!(!is_empty, "nothing was measured: {}", criterion.display());

    let plots = docs.join("benchmarks");
    fs::create_dir_all(&plots).with_context(|| format!("creating {}", plots.display()))?;
    let file = docs.join("benchmarks.md");
    let sections = Sections { results: &results, plots: &plots };
    let text = [
        "# Benchmarks\n\n",
        &host::describe(&format::date(results.newest), crate_dir)?,
        "Times are medians; those of building are of one run.\n\n",
        &results.all_features(),
        "## Targets\n\n",
        &targets::table(&results),
        "## Limits\n\n",
        "Beside what could not be left out: experiments of a few lines (`benches/src/rivals/limits.rs`, \
         `floor.rs`, `wakeups.rs`) that promise what mainstay promises there, and do nothing else.\n\n",
        &limits::tables(&results),
        "## Where it loses\n\n",
        "Whatever has a lower median than what of mainstay does the same, and how many times lower. Of reads, \
         `arc-swap Cache` is beside the cached reader, all others are beside `get`.\n\n",
        &tables::losses(&results),
        "In the tables below, **bold** is faster than what of mainstay does the same, ◂ is the fastest apart \
         from the floor, and ≈ is a median whose 95 % confidence interval reaches more than a tenth away.\n\n",
        &sections.all()?,
    ]
    .concat();
    fs::write(&file, text.trim_end().to_owned() + "\n")
        .with_context(|| format!("writing {}", file.display()))
}
