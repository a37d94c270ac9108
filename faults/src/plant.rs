//! Plants one fault in a copy of the repository, and runs the model or test that must catch it.

use std::{
    fmt,
    fs::{self, File},
    io::Read,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use regex::{Captures, Regex};
use serde_json::Value;

use crate::catalogue::{Catcher, Fault, Suite};

/// A longer run is stopped; its log then ends with "timed out".
const PATIENCE: Duration = Duration::from_secs(300);

/// All models together take longer than one.
const PATIENCE_WITH_ALL: Duration = Duration::from_secs(1800);

/// How cargo builds the test programs of a suite.
struct Build {
    /// The folder of the package.
    package: &'static str,
    /// The flag `--cfg` of the build. Each flag has its own target directory.
    cfg: Option<&'static str>,
    options: &'static [&'static str],
}

const MODELS: Build =
    Build { package: "loom-tests", cfg: Some("loom"), options: &["--profile=model"] };

/// The models that run the real crossbeam-epoch.
const RETIREMENT: Build =
    Build { package: "loom-tests", cfg: Some("crossbeam_loom"), options: &["--profile=model"] };

const SUPERVISED: Build = Build {
    package: "loom-tests",
    cfg: Some("loom"),
    options: &["--profile=model", "--features=supervise"],
};

const SHUTTLE: Build =
    Build { package: "shuttle-tests", cfg: Some("shuttle"), options: &["--profile=model"] };

const SUPERVISED_SHUTTLE: Build = Build {
    package: "shuttle-tests",
    cfg: Some("shuttle"),
    options: &["--profile=model", "--features=supervise"],
};

const TESTS: Build =
    Build { package: "", cfg: None, options: &["--package=mainstay", "--all-features"] };

const STRESS: Build = Build {
    package: "",
    cfg: None,
    options: &["--package=mainstay", "--all-features", "--release"],
};

/// The result of one run against one fault.
#[derive(Clone)]
pub(crate) struct Outcome {
    pub(crate) name: String,
    pub(crate) what: String,
    /// The model or test that ran.
    pub(crate) by: String,
    pub(crate) verdict: Verdict,
    /// The time of the catcher, without its build.
    pub(crate) seconds: f64,
    pub(crate) log: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    Caught,
    /// It passed although the fault was planted.
    Missed,
    /// It failed, but without the expected text.
    Otherwise,
    /// The code with the fault does not compile, or the test does not exist.
    Broken,
    /// Listed as not caught, and all models passed.
    Kept,
    /// Listed as not caught, and a model failed.
    NotKept,
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Caught => "caught",
            Self::Missed => "MISSED",
            Self::Otherwise => "OTHER",
            Self::Broken => "BROKEN",
            Self::Kept => "kept",
            Self::NotKept => "NOT KEPT",
        })
    }
}

impl Outcome {
    pub(crate) fn as_expected(&self) -> bool {
        matches!(self.verdict, Verdict::Caught | Verdict::Kept)
    }
}

/// A copy of the repository, in which one fault at a time is planted.
pub(crate) struct Copy {
    root: PathBuf,
    folder: PathBuf,
    planted: Vec<String>,
}

impl Copy {
    pub(crate) fn make(root: &Path, number: usize) -> Result<Self> {
        let folder = root.join("target/faults").join(number.to_string());
        clear(&folder)?;
        copy(root, &folder).context("copying the repository")?;
        Ok(Self { root: root.to_path_buf(), folder, planted: Vec::new() })
    }

    pub(crate) fn plant(&mut self, fault: &Fault, catchers: &[Catcher]) -> Result<Vec<Outcome>> {
        for file in self.planted.drain(..) {
            fs::write(self.folder.join(&file), fs::read(self.root.join(&file))?)?;
        }
        for (file, source) in &fault.files {
            fs::write(self.folder.join(file), source)?;
            self.planted.push(file.clone());
        }
        let outcome = |by: String, (verdict, seconds, log)| Outcome {
            name: fault.name.clone(),
            what: fault.what.clone(),
            by,
            verdict,
            seconds,
            log,
        };
        if catchers.is_empty() {
            return Ok(vec![outcome("all models".to_string(), self.run_models()?)]);
        }
        catchers.iter().map(|by| Ok(outcome(by.to_string(), self.run(by)?))).collect()
    }

    /// Leaves out of a test program the modules whose tests are not the case: their build takes
    /// most of the time of a run. Returns the files that it has changed.
    fn leave_out(&self, file: &str, case: &str) -> Result<Vec<PathBuf>> {
        let declaration = Regex::new(r"(?m)^mod (\w+);").expect("it is valid");
        let mut folder = PathBuf::from("tests").join(file);
        let mut changed = Vec::new();
        for (depth, wanted) in case.split("::").enumerate() {
            let file = folder.join(if depth == 0 { "main.rs" } else { "mod.rs" });
            let Ok(source) = fs::read_to_string(self.root.join(&file)) else { break };
            let pruned = declaration.replace_all(&source, |found: &Captures<'_>| {
                let module = self.root.join(&folder).join(&found[1]);
                match &found[1] != wanted && has_tests(&module) {
                    true => format!("mod {} {{}}", &found[1]),
                    false => found[0].to_string(),
                }
            });
            fs::write(self.folder.join(&file), &*pruned)?;
            changed.push(file);
            folder.push(wanted);
        }
        Ok(changed)
    }

    fn restore(&self, files: &[PathBuf]) -> Result<()> {
        for file in files {
            fs::copy(self.root.join(file), self.folder.join(file))?;
        }
        Ok(())
    }

    fn run(&self, catcher: &Catcher) -> Result<(Verdict, f64, String)> {
        let (build, file) = match &catcher.suite {
            Suite::Model(file) => (MODELS, file.clone()),
            Suite::Retirement(file) => (RETIREMENT, file.clone()),
            Suite::Supervised(file) => (SUPERVISED, format!("supervised_{file}")),
            Suite::Shuttle(file) => (SHUTTLE, file.clone()),
            Suite::SupervisedShuttle(file) => (SUPERVISED_SHUTTLE, file.clone()),
            Suite::Test(file) => (TESTS, file.clone()),
            Suite::Stress(file) => (STRESS, file.clone()),
        };
        // `lib` is no file of `tests`, but the unit tests.
        let target = if file == "lib" { "--lib".to_string() } else { format!("--test={file}") };
        let mut cargo = self.cargo_test(&build);
        cargo.args(["--no-run", "--message-format=json-render-diagnostics", &target]);
        let left_out = self.leave_out(&file, &catcher.case)?;
        let mut built = cargo.output()?;
        self.restore(&left_out)?;
        // The case may use something of a module that was left out.
        if !built.status.success() && !left_out.is_empty() {
            built = cargo.output()?;
        }
        // rustc 1.95 sometimes finds its own incremental results inconsistent after a change.
        if String::from_utf8_lossy(&built.stderr).contains("internal compiler error") {
            built = cargo.env("CARGO_INCREMENTAL", "0").output()?;
        }
        if !built.status.success() {
            return Ok((Verdict::Broken, 0.0, String::from_utf8_lossy(&built.stderr).into()));
        }
        let program = executable(&built.stdout).context("cargo names no executable")?;
        let mut test = Command::new(program);
        // Also one that is ignored because it is slow: with the fault, it most often fails early.
        let options = ["--exact", "--include-ignored", &catcher.case];
        test.current_dir(self.folder.join(build.package)).args(options);
        let (passed, seconds, log) = self.watch(test, PATIENCE)?;
        let ran = !log.contains("running 0 tests");
        let verdict = match passed {
            _ if !ran => Verdict::Broken,
            true => Verdict::Missed,
            false if Regex::new(&catcher.shows)?.is_match(&log) => Verdict::Caught,
            false => Verdict::Otherwise,
        };
        Ok((verdict, seconds, log))
    }

    fn run_models(&self) -> Result<(Verdict, f64, String)> {
        let mut all = (Verdict::Kept, 0.0, String::new());
        for (build, targets) in [
            (RETIREMENT, "--test=retired_closure"),
            (SUPERVISED, "--test=supervised_*"),
            // Those that need no feature.
            (MODELS, "--tests"),
        ] {
            let mut cargo = self.cargo_test(&build);
            cargo.arg(targets);
            let (passed, seconds, log) = self.watch(cargo, PATIENCE_WITH_ALL)?;
            all = (if passed { Verdict::Kept } else { Verdict::NotKept }, all.1 + seconds, log);
            if !passed {
                break;
            }
        }
        Ok(all)
    }

    fn cargo_test(&self, build: &Build) -> Command {
        let mut cargo = Command::new(env!("CARGO"));
        // Each copy has its own target directory: for cargo, all copies are one package, and it
        // would reuse the build of another copy.
        let mut target = self.folder.join("target");
        if let Some(cfg) = build.cfg {
            cargo.env("RUSTFLAGS", format!("--cfg {cfg}"));
            target.push(cfg);
        }
        cargo.env("CARGO_TARGET_DIR", target);
        cargo.current_dir(self.folder.join(build.package)).arg("test").args(build.options);
        cargo
    }

    /// Runs a program. Returns whether it passed, its duration and its output.
    fn watch(&self, mut program: Command, patience: Duration) -> Result<(bool, f64, String)> {
        let path = self.folder.join("log");
        let log = File::create(&path)?;
        let begun = Instant::now();
        let mut child =
            program.stdout(log.try_clone()?).stderr(log).stdin(Stdio::null()).spawn()?;
        let mut end = String::new();
        let status = loop {
            if let Some(status) = child.try_wait()? {
                break Some(status);
            }
            if begun.elapsed() > patience {
                child.kill()?;
                child.wait()?;
                end.push_str("\ntimed out\n");
                break None;
            }
            thread::sleep(Duration::from_millis(20));
        };
        let seconds = begun.elapsed().as_secs_f64();
        let mut said = Vec::new();
        File::open(&path)?.read_to_end(&mut said)?;
        let said = String::from_utf8_lossy(&said).into_owned() + &end;
        Ok((status.is_some_and(|status| status.success()), seconds, said))
    }
}

/// Finds the path of the built test program in the messages of cargo.
fn executable(messages: &[u8]) -> Option<PathBuf> {
    let lines = messages.split(|&byte| byte == b'\n');
    let messages = lines.filter_map(|line| serde_json::from_slice::<Value>(line).ok());
    messages.filter_map(|message| message["executable"].as_str().map(PathBuf::from)).next_back()
}

/// Returns whether a module of a test program, `path.rs` or the folder `path`, contains tests.
fn has_tests(path: &Path) -> bool {
    let contains = |file: &Path| fs::read_to_string(file).is_ok_and(|it| it.contains("#[test]"));
    let Ok(entries) = fs::read_dir(path) else { return contains(&path.with_extension("rs")) };
    entries.flatten().any(|entry| match entry.path() {
        path if path.is_dir() => has_tests(&path),
        path => contains(&path),
    })
}

/// Removes the files of an old copy, except its builds, which consist mostly of other crates.
fn clear(folder: &Path) -> Result<()> {
    if !folder.exists() {
        return Ok(());
    }
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        if entry.file_name() == "target" {
            continue;
        }
        match entry.file_type()?.is_dir() {
            true => clear(&entry.path())?,
            false => fs::remove_file(entry.path())?,
        }
    }
    Ok(())
}

fn copy(from: &Path, to: &Path) -> Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let (name, path) = (entry.file_name(), entry.path());
        // The builds are large, and the copies are stored among them.
        if name == "target" || name == ".git" {
            continue;
        }
        if entry.file_type()?.is_dir() {
            copy(&path, &to.join(name))?;
        } else {
            fs::copy(&path, to.join(name))?;
        }
    }
    Ok(())
}
