//! The results of criterion, of the benchmarks of building and of growth, and of gungraun.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
    time::{SystemTime, UNIX_EPOCH},
};

use anyhow::{Context, Result};
use mainstay_benches::growth::{self, Growth};
use serde::{Deserialize, de::DeserializeOwned};

/// The directory below `GUNGRAUN_HOME` in which gungraun stores its counts.
const COUNTED: &str = "mainstay-benches/instructions/instructions";

/// The median of one benchmark.
#[derive(Clone, Debug, PartialEq)]
pub struct Point {
    pub group: String,
    pub function: String,
    /// The parameter, if there is one. All parameters of these benchmarks are numbers.
    pub value: Option<u64>,
    pub ns: f64,
    /// The distance from the median to the farther end of its confidence interval, as a part of the
    /// median.
    pub spread: f64,
}

/// A row of `building.json`: a registry of many services.
#[derive(Clone, Debug, Deserialize)]
pub struct Building {
    pub graph: String,
    pub services: u64,
    pub seconds_slab: f64,
    pub seconds_register: f64,
    pub seconds_edges: f64,
    pub seconds_build: f64,
    pub seconds_first_failure: f64,
    pub bytes_slab: i64,
    pub bytes_names: i64,
    pub bytes_edges: i64,
    pub bytes_closures: i64,
    pub peak_bytes: i64,
}

impl Building {
    /// Returns the time to build the registry.
    pub fn seconds(&self) -> f64 {
        self.seconds_slab + self.seconds_register + self.seconds_edges + self.seconds_build
    }

    pub fn bytes(&self) -> i64 {
        self.bytes_slab + self.bytes_names + self.bytes_edges + self.bytes_closures
    }
}

#[derive(Default)]
pub struct Results {
    pub points: Vec<Point>,
    pub building: Vec<Building>,
    pub growth: Vec<Growth>,
    /// The counts, by the features of mainstay and by the function that was counted.
    pub instructions: BTreeMap<String, BTreeMap<String, u64>>,
    /// The features of mainstay with which each benchmark was run.
    pub features: BTreeMap<String, String>,
    /// The time of the last measurement, in seconds since 1970.
    pub newest: u64,
}

#[derive(Deserialize)]
struct Benchmark {
    group_id: String,
    function_id: Option<String>,
    value_str: Option<String>,
}

#[derive(Deserialize)]
struct Estimates {
    median: Estimate,
}

#[derive(Deserialize)]
struct Estimate {
    point_estimate: f64,
    confidence_interval: Interval,
}

#[derive(Deserialize)]
struct Interval {
    lower_bound: f64,
    upper_bound: f64,
}

impl Estimate {
    fn spread(&self) -> f64 {
        let Interval { lower_bound, upper_bound } = self.confidence_interval;
        let distance = (self.point_estimate - lower_bound).max(upper_bound - self.point_estimate);
        distance / self.point_estimate
    }
}

fn parse<T: DeserializeOwned>(path: &Path) -> Result<T> {
    let text = fs::read_to_string(path).with_context(|| format!("reading {}", path.display()))?;
    serde_json::from_str(&text).with_context(|| format!("parsing {}", path.display()))
}

fn modified(path: &Path) -> Result<u64> {
    let modified: SystemTime = fs::metadata(path)?.modified()?;
    Ok(modified.duration_since(UNIX_EPOCH)?.as_secs())
}

/// Reads the counts of callgrind. gungraun writes one directory with one file for each benchmark,
/// named `function.parameter`.
fn instructions(callgrind: &Path) -> Result<BTreeMap<String, u64>> {
    let mut counted = BTreeMap::new();
    let entries =
        fs::read_dir(callgrind).with_context(|| format!("reading {}", callgrind.display()))?;
    for entry in entries {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        let Some((function, _)) = name.split_once('.') else { continue };
        let path = entry.path().join(format!("callgrind.{name}.out"));
        let text =
            fs::read_to_string(&path).with_context(|| format!("reading {}", path.display()))?;
        // The first total is the number of instructions.
        let total = text.lines().find_map(|line| line.strip_prefix("totals: "));
        let total = total.and_then(|total| total.split(' ').next()?.parse().ok());
        counted.insert(function.into(), total.with_context(|| format!("no total in {name}"))?);
    }
    Ok(counted)
}

impl Results {
    pub fn read(criterion: &Path, gungraun: &Path) -> Result<Self> {
        let mut results = Self::default();
        results.descend(criterion)?;
        for features in ["supervise", "none"] {
            let counted = gungraun.join(features).join(COUNTED);
            if counted.exists() {
                results.instructions.insert(features.into(), instructions(&counted)?);
            }
        }
        let building = criterion.join("building.json");
        if building.exists() {
            results.building = parse(&building)?;
            results.newest = results.newest.max(modified(&building)?);
        }
        let growth = criterion.join(growth::FILE);
        if growth.exists() {
            results.growth = parse(&growth)?;
            results.newest = results.newest.max(modified(&growth)?);
        }
        Ok(results)
    }

    fn descend(&mut self, dir: &Path) -> Result<()> {
        let entries = fs::read_dir(dir).with_context(|| format!("reading {}", dir.display()))?;
        for entry in entries {
            let path = entry?.path();
            if path.extension().is_some_and(|extension| extension == "features") {
                let bench = path.file_stem().unwrap_or_default().to_string_lossy();
                self.features.insert(bench.into(), fs::read_to_string(&path)?);
            }
            if !path.is_dir() {
                continue;
            }
            if path.file_name().is_some_and(|name| name == "new") {
                // A run was interrupted, or another benchmark writes other files: this point is
                // left out.
                if let Err(error) = self.add(&path) {
                    eprintln!("left out: {error:#}");
                }
            } else {
                self.descend(&path)?;
            }
        }
        Ok(())
    }

    fn add(&mut self, new: &Path) -> Result<()> {
        let benchmark: Benchmark = parse(&new.join("benchmark.json"))?;
        let estimates_path = new.join("estimates.json");
        let estimates: Estimates = parse(&estimates_path)?;
        let Some(function) = benchmark.function_id else { return Ok(()) };
        self.points.push(Point {
            group: benchmark.group_id,
            function,
            value: benchmark.value_str.and_then(|value| value.parse().ok()),
            ns: estimates.median.point_estimate,
            spread: estimates.median.spread(),
        });
        self.newest = self.newest.max(modified(&estimates_path)?);
        Ok(())
    }

    /// Returns a text that says with which features of mainstay a benchmark was run.
    pub fn features(&self, bench: &str) -> String {
        let features = self.features.get(bench).map_or("not known", String::as_str);
        format!("mainstay with features: {features}")
    }

    /// Returns a text that lists the benchmarks by the features with which they were run.
    pub fn all_features(&self) -> String {
        let mut benches = BTreeMap::<&str, Vec<&str>>::new();
        for (bench, features) in &self.features {
            benches.entry(features).or_default().push(bench);
        }
        let mut text = String::new();
        for (features, benches) in benches {
            text += &format!("mainstay with features: {features}, in {}.\n\n", benches.join(", "));
        }
        text
    }

    /// Returns the points that are compared with each other: one group, one parameter.
    pub fn column(&self, group: &str, value: Option<u64>) -> impl Iterator<Item = &Point> {
        self.points.iter().filter(move |point| point.group == group && point.value == value)
    }

    pub fn ns(&self, group: &str, function: &str, value: Option<u64>) -> Option<f64> {
        self.column(group, value).find(|point| point.function == function).map(|point| point.ns)
    }

    /// Returns the parameters of a group.
    pub fn values(&self, group: &str) -> BTreeSet<u64> {
        let of_group = self.points.iter().filter(|point| point.group == group);
        of_group.filter_map(|point| point.value).collect()
    }

    /// Returns the part after `prefix` of the names of the groups that begin with it.
    pub fn groups(&self, prefix: &str) -> BTreeSet<&str> {
        self.points.iter().filter_map(|point| point.group.strip_prefix(prefix)).collect()
    }

    /// Returns the numbers of threads with which reads were measured.
    pub fn threads(&self) -> BTreeSet<u64> {
        self.groups("reads/").iter().filter_map(|group| threads_of(group)).collect()
    }
}

/// Returns the number of threads from a name like "hot/quiet/2 threads".
fn threads_of(group: &str) -> Option<u64> {
    group.rsplit('/').next()?.strip_suffix(" threads")?.parse().ok()
}

pub fn reads_group(which: &str, load: &str, threads: u64) -> String {
    format!("reads/{which}/{load}/{threads} threads")
}

pub fn threads_label(threads: u64) -> String {
    format!("{threads} thread{}", if threads == 1 { "" } else { "s" })
}

#[cfg(test)]
pub mod tests {
    use super::*;

    pub fn results(points: &[(&str, &str, Option<u64>, f64)]) -> Results {
        let points = points.iter().map(|&(group, function, value, ns)| Point {
            group: group.into(),
            function: function.into(),
            value,
            ns,
            spread: 0.0,
        });
        Results { points: points.collect(), ..Results::default() }
    }

    #[test]
    fn the_name_of_a_group_contains_the_number_of_threads() {
        assert_eq!(threads_of("hot/quiet/16 threads"), Some(16));
        assert_eq!(threads_of("registry size"), None);
    }

    #[test]
    fn results_of_criterion_are_read_and_broken_ones_left_out() {
        let dir = std::env::temp_dir().join(format!("mainstay-report-{}", std::process::id()));
        let new = dir.join("some group/f/10/new");
        let broken = dir.join("some group/g/10/new");
        fs::create_dir_all(&new).unwrap();
        fs::create_dir_all(&broken).unwrap();
        let benchmark = r#"{"group_id":"some/group","function_id":"f","value_str":"10",
            "throughput":{"Elements":10},"full_id":"x","directory_name":"x","title":"x"}"#;
        fs::write(new.join("benchmark.json"), benchmark).unwrap();
        fs::write(broken.join("benchmark.json"), benchmark).unwrap();
        let estimates = r#"{"mean":{"point_estimate":3.0},"median":{"point_estimate":2.5,
            "confidence_interval":{"confidence_level":0.95,"lower_bound":2.0,"upper_bound":2.625}}}"#;
        fs::write(new.join("estimates.json"), estimates).unwrap();
        fs::write(dir.join("some.features"), "supervise").unwrap();
        let growth = r#"[{"operation":"close","limited":true,
            "counts":[{"services":100,"instructions":1200}]}]"#;
        fs::write(dir.join(growth::FILE), growth).unwrap();

        let results = Results::read(&dir, &dir.join("no directory")).unwrap();
        fs::remove_dir_all(&dir).unwrap();
        assert_eq!(results.points.len(), 1);
        assert_eq!(results.ns("some/group", "f", Some(10)), Some(2.5));
        assert_eq!(results.points[0].spread, 0.2);
        assert_eq!(results.groups("some/"), BTreeSet::from(["group"]));
        assert!(results.building.is_empty());
        assert_eq!(results.growth[0].counts[0].instructions, 1_200);
        assert!(results.newest > 0);
        assert_eq!(results.features("some"), "mainstay with features: supervise");
        assert_eq!(results.all_features(), "mainstay with features: supervise, in some.\n\n");
    }

    #[test]
    fn the_total_of_callgrind_is_read() {
        let dir = std::env::temp_dir().join(format!("mainstay-report-c-{}", std::process::id()));
        let one = dir.join("get.one_thousand");
        fs::create_dir_all(&one).unwrap();
        let out = "events: Ir Dr\nsummary: 90055 24020\n\n58 90055 24020\n\ntotals: 90055 24020\n";
        fs::write(one.join("callgrind.get.one_thousand.out"), out).unwrap();

        let counted = instructions(&dir).unwrap();
        fs::remove_dir_all(&dir).unwrap();
        assert_eq!(counted, BTreeMap::from([("get".into(), 90_055)]));
    }
}
