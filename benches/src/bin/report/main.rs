//! Generates `docs/benchmarks.md` and its plots from the results of the benchmarks.
//!
//! `ci/bench report` runs it. What was not measured is left out.

mod canvas;
mod data;
mod format;
mod growth;
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
        "Times are medians, except those of building, which are from one run.\n\n",
        "- A **floor** is the least that an operation can cost: only its accesses to memory, \
         without anything that makes it safe or usable. No complete implementation reaches it.\n\
         - A **limit** is a lower bound that a complete implementation could reach: an \
         experiment of a few lines that keeps the promises of mainstay for this operation, and \
         does nothing else (`benches/src/rivals/limits.rs`, `floor.rs`, `benches/wakeups.rs`).\n\
         - **Walked**: the failure is the first one since an edge changed, so the cascade walks. \
         Without this word, the closure is cached.\n\
         - **Waited for**: each service has one waiter for its failure.\n\n",
        &results.all_features(),
        "## Targets\n\n",
        &targets::table(&results),
        "## Limits\n\n",
        "The limits show which part of a cost cannot be avoided. `pointer and state` and `arc-swap \
         load and state` are reads that check a state word; `floor, remembered` is a floor that \
         also stores the reason of the failure, names it at each slot, and takes each slot down \
         only if it is up and below the generation to which it was condemned; `attempt and \
         instance` begins an attempt and publishes an instance that knows its generation and its \
         times; `relayed` calls wakers after the lock of event-listener is released.\n\n",
        &limits::tables(&results),
        "## Where it loses\n\n",
        "Each alternative with a lower median than the operation of mainstay with the same effect, \
         and how many times lower its median is. In reads, `arc-swap Cache` is compared with the \
         cached reader, and all others are compared with `get`.\n\n",
        &tables::losses(&results),
        "In the tables below, **bold** is faster than the operation of mainstay with the same \
         effect, ◂ is the fastest one apart from floors and limits, and ≈ is a median whose 95 % \
         confidence interval reaches more than a tenth away from it.\n\n",
        &sections.all()?,
    ]
    .concat();
    fs::write(&file, text.trim_end().to_owned() + "\n")
        .with_context(|| format!("writing {}", file.display()))
}
