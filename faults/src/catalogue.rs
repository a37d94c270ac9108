//! The catalogue: the planted faults, with the models and tests that must catch them.

use std::{collections::BTreeMap, fmt, fs, path::Path};

use anyhow::{Context, Result, bail, ensure};
use regex::Regex;
use serde::Deserialize;

use crate::orderings;

/// One fault, ready to be planted.
pub(crate) struct Fault {
    pub(crate) name: String,
    pub(crate) what: String,
    /// The files that the fault changes, with their content.
    pub(crate) files: BTreeMap<String, String>,
    pub(crate) expect: Expect,
}

pub(crate) enum Expect {
    Caught(Vec<Catcher>),
    /// No model or test can catch it; the reason why the code is kept.
    Kept(String),
}

/// One test function that must fail, and how.
#[derive(Debug, Clone, Deserialize)]
pub(crate) struct Catcher {
    #[serde(flatten)]
    pub(crate) suite: Suite,
    /// The test function.
    pub(crate) case: String,
    /// A regular expression that the output of the failure must match, so that another failure is
    /// not mistaken for a catch.
    pub(crate) shows: String,
}

/// A file of tests, and the command that runs it.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Suite {
    /// Of `loom-tests`.
    Model(String),
    /// Of `loom-tests`, with the real crossbeam-epoch.
    Retirement(String),
    /// Of `loom-tests`, with the feature `supervise`; without the prefix `supervised_` of its file.
    Supervised(String),
    /// Of `shuttle-tests`.
    Shuttle(String),
    /// Of `shuttle-tests`, with the feature `supervise`.
    #[serde(rename = "supervised-shuttle")]
    SupervisedShuttle(String),
    /// Of `tests`; or `lib`, the unit tests.
    Test(String),
    /// Of `tests`, in a release build.
    Stress(String),
}

impl Suite {
    /// Whether its build is quick. The tests need the dependencies of all features.
    pub(crate) fn is_quick(&self) -> bool {
        matches!(
            self,
            Self::Model(_)
                | Self::Retirement(_)
                | Self::Supervised(_)
                | Self::Shuttle(_)
                | Self::SupervisedShuttle(_)
        )
    }
}

impl fmt::Display for Catcher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (kind, file) = match &self.suite {
            Suite::Model(file) | Suite::Retirement(file) | Suite::Supervised(file) => {
                ("model", file)
            }
            Suite::Shuttle(file) | Suite::SupervisedShuttle(file) => ("shuttle", file),
            Suite::Test(file) | Suite::Stress(file) => ("test", file),
        };
        write!(f, "{kind} {file} {}", self.case)
    }
}

/// A file of the catalogue.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Steps {
    fault: Vec<Step>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Step {
    name: String,
    what: String,
    edit: Vec<Edit>,
    #[serde(default)]
    caught: Vec<Catcher>,
    kept: Option<String>,
}

/// `old` occurs exactly once in the file.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Edit {
    file: String,
    old: String,
    new: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Ordering {
    #[serde(default)]
    caught: Vec<Catcher>,
    kept: Option<String>,
}

/// All faults, checked against the source: the steps first, then the orderings.
pub(crate) fn load(root: &Path) -> Result<Vec<Fault>> {
    let folder = root.join("faults/catalogue");
    let mut files: Vec<_> = fs::read_dir(&folder)?
        .map(|entry| Ok(entry?.path()))
        .collect::<Result<Vec<_>>>()?
        .into_iter()
        .filter(|path| path.extension().is_some_and(|extension| extension == "toml"))
        .collect();
    files.sort();
    let mut faults = Vec::new();
    for path in files.iter().filter(|path| !path.ends_with("orderings.toml")) {
        let steps: Steps = toml::from_str(&fs::read_to_string(path)?)
            .with_context(|| path.display().to_string())?;
        for step in steps.fault {
            let name = step.name.clone();
            faults.push(planted(root, step).with_context(|| name)?);
        }
    }
    faults.extend(weakened(root, &folder.join("orderings.toml"))?);
    for (n, fault) in faults.iter().enumerate() {
        ensure!(
            faults[..n].iter().all(|earlier| earlier.name != fault.name),
            "{} is in the catalogue twice",
            fault.name
        );
    }
    Ok(faults)
}

fn planted(root: &Path, step: Step) -> Result<Fault> {
    let mut files = BTreeMap::new();
    for Edit { file, old, new } in step.edit {
        if !files.contains_key(&file) {
            let source = fs::read_to_string(root.join(&file)).with_context(|| file.clone())?;
            files.insert(file.clone(), source);
        }
        let source = files.get_mut(&file).expect("it was inserted above");
        match source.matches(&old).count() {
            1 => *source = source.replacen(&old, &new, 1),
            n => bail!("occurs {n} times in {file}, instead of once:\n{old}"),
        }
    }
    Ok(Fault { name: step.name, what: step.what, files, expect: expect(step.caught, step.kept)? })
}

fn weakened(root: &Path, catalogue: &Path) -> Result<Vec<Fault>> {
    let mut known: BTreeMap<String, Ordering> = toml::from_str(&fs::read_to_string(catalogue)?)
        .with_context(|| catalogue.display().to_string())?;
    let mut faults = Vec::new();
    let mut unknown = Vec::new();
    for weaker in orderings::all(root)? {
        let Some(Ordering { caught, kept }) = known.remove(&weaker.name) else {
            unknown.push(format!("{:?}", weaker.name));
            continue;
        };
        faults.push(Fault {
            what: weaker.what,
            files: BTreeMap::from([(weaker.file, weaker.source)]),
            expect: expect(caught, kept).with_context(|| weaker.name.clone())?,
            name: weaker.name,
        });
    }
    ensure!(unknown.is_empty(), "these orderings are not in the catalogue: {}", unknown.join(", "));
    let gone: Vec<_> = known.into_keys().collect();
    ensure!(gone.is_empty(), "these orderings are not in the source: {}", gone.join(", "));
    Ok(faults)
}

fn expect(caught: Vec<Catcher>, kept: Option<String>) -> Result<Expect> {
    for catcher in &caught {
        Regex::new(&catcher.shows).with_context(|| catcher.shows.clone())?;
    }
    match kept {
        None if caught.is_empty() => bail!("neither `caught` nor `kept`"),
        None => Ok(Expect::Caught(caught)),
        Some(_) if !caught.is_empty() => bail!("both `caught` and `kept`"),
        Some(why) => Ok(Expect::Kept(why)),
    }
}
