//! Runs every stored input: the corpora, and the inputs that have failed once.

use std::{fs, io, path::Path};

use mainstay_fuzz::TARGETS;

#[test]
fn every_stored_input_agrees_with_the_model() -> io::Result<()> {
    for (name, target) in TARGETS {
        for kind in ["corpus", "regressions"] {
            let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join(kind).join(name);
            let mut inputs = fs::read_dir(&directory)?
                .map(|entry| Ok(entry?.path()))
                .collect::<io::Result<Vec<_>>>()?;
            inputs.sort();
            for input in inputs.iter().filter(|input| !is_hidden(input)) {
                println!("{}", input.display());
                target(&fs::read(input)?);
            }
        }
    }
    Ok(())
}

/// Whether the file is hidden, as `.gitkeep` is.
fn is_hidden(path: &Path) -> bool {
    path.file_name().is_some_and(|name| name.to_string_lossy().starts_with('.'))
}
