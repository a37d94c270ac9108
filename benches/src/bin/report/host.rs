//! Where and with what the numbers were made.

use std::{fs, path::Path, process::Command, thread};

use anyhow::{Context, Result};
use serde::Deserialize;

/// Whose versions matter.
const RIVALS: [&str; 10] = [
    "arc-swap",
    "crossbeam-epoch",
    "dashmap",
    "event-listener",
    "left-right",
    "papaya",
    "parking_lot",
    "petgraph",
    "tokio",
    "tokio-util",
];

#[derive(Deserialize)]
struct Lock {
    package: Vec<Package>,
}

#[derive(Deserialize)]
struct Package {
    name: String,
    version: String,
    #[serde(default)]
    dependencies: Vec<String>,
}

/// What the benchmarks' own crate depends on; of others of that name somebody else does.
fn versions(lock: &str) -> Result<String> {
    let lock: Lock = toml::from_str(lock)?;
    let ours = lock.package.iter().find(|package| package.name == env!("CARGO_PKG_NAME"));
    let ours = ours.context("Cargo.lock is of another workspace")?;
    let rival = |name: &str| {
        // "name version" where there are several of that name.
        let entry = ours.dependencies.iter().find(|d| d.split(' ').next() == Some(name))?;
        let version = match entry.split(' ').nth(1) {
            Some(version) => version,
            None => &lock.package.iter().find(|package| package.name == name)?.version,
        };
        Some(format!("{name} {version}"))
    };
    Ok(RIVALS.into_iter().filter_map(rival).collect::<Vec<_>>().join(", "))
}

/// The first line of that kind in a file of keys and values.
fn value(file: &str, key: &str, separator: char) -> Option<String> {
    let text = fs::read_to_string(file).ok()?;
    let pairs = text.lines().filter_map(|line| line.split_once(separator));
    let (_, value) = pairs.into_iter().find(|(found, _)| found.trim() == key)?;
    Some(value.trim().trim_matches('"').into())
}

fn rustc() -> Option<String> {
    let output = Command::new("rustc").arg("--version").output().ok()?;
    Some(String::from_utf8(output.stdout).ok()?.trim().into())
}

pub fn describe(date: &str, crate_dir: &Path) -> Result<String> {
    let cpu = value("/proc/cpuinfo", "model name", ':').unwrap_or_else(|| "unknown CPU".into());
    let cores = thread::available_parallelism().map_or(1, usize::from);
    let cores = format!("{cores} core{}", if cores == 1 { "" } else { "s" });
    let os = value("/etc/os-release", "PRETTY_NAME", '=');
    let os = os.unwrap_or_else(|| std::env::consts::OS.into());
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let os = format!("{os} {}", kernel.trim());
    let rustc = rustc().unwrap_or_else(|| "unknown rustc".into());
    let lock = crate_dir.join("../Cargo.lock");
    let lock = fs::read_to_string(&lock).with_context(|| format!("reading {}", lock.display()))?;
    let rivals = versions(&lock)?;
    let os = os.trim();
    Ok(format!("{date}; {rustc}; {cpu}, {cores}; {os}; {rivals}. Made by `ci/bench full`.\n\n"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_those_that_are_measured() {
        let lock = r#"
            [[package]]
            name = "dashmap"
            version = "5.0.0"
            [[package]]
            name = "dashmap"
            version = "6.1.0"
            [[package]]
            name = "mainstay-benches"
            version = "0.0.0"
            dependencies = ["dashmap 6.1.0", "papaya", "toml"]
            [[package]]
            name = "papaya"
            version = "0.2.3"
            [[package]]
            name = "toml"
            version = "1.0.0"
        "#;
        assert_eq!(versions(lock).unwrap(), "dashmap 6.1.0, papaya 0.2.3");
    }
}
