//! The targets for the cost of mainstay, and whether they are met.

use std::collections::BTreeMap;

use crate::{
    data::{Building, Results, reads_group, threads_label},
    format,
    tables::markdown,
};

const MIB: f64 = (1_u64 << 20) as f64;
const MILLION: u64 = 1_000_000;

struct Target {
    what: String,
    limit: f64,
    show: fn(f64) -> String,
    /// The place of each measurement, and its value.
    measured: Vec<(String, f64)>,
}

impl Target {
    fn ratio(what: impl Into<String>, limit: f64, measured: Vec<(String, f64)>) -> Self {
        Self { what: what.into(), limit, show: format::ratio, measured }
    }

    fn is_met(&self) -> bool {
        self.measured.iter().all(|&(_, measured)| measured <= self.limit)
    }

    fn row(&self) -> (String, Vec<String>) {
        let one = |(place, measured): &(String, f64)| {
            let shown = (self.show)(*measured);
            let shown = if *measured <= self.limit { shown } else { format!("**{shown}**") };
            if place.is_empty() { shown } else { format!("{place}: {shown}") }
        };
        let measured: Vec<String> = self.measured.iter().map(one).collect();
        let met = if self.is_met() { "met" } else { "**not met**" };
        let limit = format!("≤ {}", (self.show)(self.limit));
        (self.what.clone(), vec![limit, measured.join("; "), met.into()])
    }
}

/// Returns the ratio of two functions for each parameter of a group.
pub fn by_value(results: &Results, group: &str, upper: &str, lower: &str) -> Vec<(String, f64)> {
    let ratio = |value: u64| {
        let ns = |function| results.ns(group, function, Some(value));
        Some((format::count(value), ns(upper)? / ns(lower)?))
    };
    results.values(group).into_iter().filter_map(ratio).collect()
}

/// Returns the same for several groups. The place is the part of their names after `prefix`.
pub fn by_group(results: &Results, prefix: &str, upper: &str, lower: &str) -> Vec<(String, f64)> {
    let groups = results.groups(prefix).into_iter();
    let all = groups.flat_map(|place| {
        let ratios = by_value(results, &format!("{prefix}{place}"), upper, lower);
        ratios.into_iter().map(move |(value, ratio)| (format!("{place} {value}"), ratio))
    });
    all.collect()
}

/// A target for the ratio of two counts of instructions, with the same features.
fn counted(results: &Results, upper: &str, lower: &str, limit: f64) -> Target {
    let measured = results.instructions.iter().filter_map(|(features, counts)| {
        let ratio = *counts.get(upper)? as f64 / *counts.get(lower)? as f64;
        Some((format!("features: {features}"), ratio))
    });
    Target::ratio(format!("{upper} / {lower}, instructions"), limit, measured.collect())
}

fn reads(results: &Results) -> Vec<Target> {
    let threads = results.threads();
    let beside = |upper: &str, lower: &str| {
        let ratio = |&threads: &u64| {
            let group = reads_group("hot", "quiet", threads);
            let ns = |function| results.ns(&group, function, None);
            Some((threads_label(threads), ns(upper)? / ns(lower)?))
        };
        threads.iter().filter_map(ratio).collect()
    };
    let mut targets = vec![
        Target::ratio("get / arc-swap load", 0.5, beside("mainstay get", "arc-swap load")),
        Target::ratio("get / epoch pin", 1.0, beside("mainstay get", "crossbeam-epoch")),
        Target::ratio("get / RwLock per slot", 1.0, beside("mainstay get", "RwLock per slot")),
        Target::ratio("get / tokio watch", 1.0, beside("mainstay get", "tokio watch")),
        counted(results, "reader", "arc_swap_load", 0.6),
        counted(results, "get", "arc_swap_load", 0.75),
        counted(results, "cached", "pointer_and_state", 1.004),
    ];
    let most = threads.last().copied().unwrap_or(1);
    for function in ["mainstay cached", "mainstay get"] {
        let measured = ["hot", "64 random"].iter().filter_map(|which| {
            let ns = |threads| results.ns(&reads_group(which, "quiet", threads), function, None);
            (most > 1).then_some((which.to_string(), ns(most)? / ns(1)?))
        });
        let what = format!("{function}: {} / 1 thread, quiet", threads_label(most));
        targets.push(Target::ratio(what, 1.2, measured.collect()));
    }
    for function in ["mainstay cached", "mainstay get"] {
        let ns = |size| results.ns("reads/registry size", function, Some(size));
        let measured = ns(MILLION).zip(ns(10)).map(|(large, small)| (String::new(), large / small));
        let what = format!("{function}: 1,000,000 services / 10");
        targets.push(Target::ratio(what, 1.2, measured.into_iter().collect()));
    }
    targets
}

fn building(results: &Results) -> Vec<Target> {
    let mut slabs: BTreeMap<u64, Vec<i64>> = BTreeMap::new();
    for line in results.building.iter().filter(|line| line.services > 0) {
        slabs.entry(line.services).or_default().push(line.bytes_slab);
    }
    // The size does not depend on the graph. But memory of earlier registries that is retired and
    // not yet freed (2 KiB) may change it, therefore the median.
    let median = |(services, mut bytes): (u64, Vec<i64>)| {
        bytes.sort_unstable();
        // Whole bytes: the clock of a registry is allocated in the same step, and is no part of a
        // slot.
        (format::count(services), (bytes[bytes.len() / 2] / services as i64) as f64)
    };
    let slabs = slabs.into_iter().map(median).collect();
    let layered = |line: &&Building| line.services == MILLION && line.graph == "layered";
    let million: Vec<_> = results.building.iter().filter(layered).collect();
    let times = million.iter().map(|line| (line.graph.clone(), line.seconds() * 1e9)).collect();
    let peaks = million.iter().map(|line| (line.graph.clone(), line.peak_bytes as f64)).collect();
    let target =
        |what: &str, limit, show, measured| Target { what: what.into(), limit, show, measured };
    vec![
        target("bytes of a slot, by the number of services", 64.0, format::bytes, slabs),
        target("1,000,000 services: time to register, add edges, build", 2e9, format::time, times),
        target("1,000,000 services: peak memory", 560.0 * MIB, format::bytes, peaks),
    ]
}

fn cascades(results: &Results) -> Vec<Target> {
    let cascade = |upper, lower| by_group(results, "cascade/", upper, lower);
    let of_size = |size: &str| {
        let mut measured = cascade("mainstay", "floor");
        measured.retain(|(place, _)| place.split_once(' ').is_some_and(|(_, of)| of == size));
        measured
    };
    let by_readers = {
        let ns = |threads| results.ns("failure by readers", "mainstay fail", Some(threads));
        ns(256).zip(ns(1)).map(|(many, one)| (String::new(), many / one))
    };
    vec![
        counted(results, "fail_of_1", "remembered_floor_of_1", 1.1),
        Target::ratio("failure of 10 / floor", 2.0, of_size("10")),
        Target::ratio("failure of 1,000 / floor", 1.2, of_size("1,000")),
        Target::ratio(
            "failure after an unrelated change of edges / without",
            1.1,
            cascade("mainstay, edge elsewhere", "mainstay"),
        ),
        Target::ratio(
            "failure of one: beside 256 threads that have read / 1 thread",
            1.3,
            by_readers.into_iter().collect(),
        ),
    ]
}

fn all(results: &Results) -> Vec<Target> {
    let mut targets = reads(results);
    targets.extend(cascades(results));
    for (function, limit) in [("mainstay fail", 3.0), ("mainstay ready", 2.5)] {
        let mut measured = by_value(results, "wakeup/awake/async", function, "event-listener");
        measured.retain(|(waiters, _)| waiters != "1");
        let what = format!("{function} / event-listener, awake, async");
        targets.push(Target::ratio(what, limit, measured));
    }
    let (function, lower) = ("mainstay begin and ready", "arc-swap store and a CAS");
    let mut measured = by_value(results, "publication", function, lower);
    measured.retain(|(threads, _)| threads == "1");
    let what = format!("{function} / {lower}, by threads that have read");
    targets.push(Target::ratio(what, 1.5, measured));
    let publish = |features| results.instructions.get(features)?.get("publish").copied();
    let supervised = publish("supervise").zip(publish("none"));
    targets.push(Target::ratio(
        "publication: feature supervise / none, instructions",
        1.25,
        supervised
            .map(|(with, none)| (String::new(), with as f64 / none as f64))
            .into_iter()
            .collect(),
    ));
    targets.extend(building(results));
    targets.retain(|target| !target.measured.is_empty());
    targets
}

/// Returns a table of the targets. A target without data has no row.
pub fn table(results: &Results) -> String {
    let rows = all(results);
    markdown("what", &["target", "measured", "met"], ":--", rows.iter().map(Target::row))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::tests::results;

    #[test]
    fn rows_contain_ratios_and_whether_the_target_is_met() {
        let results = results(&[
            ("reads/hot/quiet/1 threads", "arc-swap load", None, 10.0),
            ("reads/hot/quiet/1 threads", "mainstay get", None, 4.5),
            ("reads/hot/quiet/4 threads", "arc-swap load", None, 10.0),
            ("reads/hot/quiet/4 threads", "mainstay get", None, 6.5),
            ("cascade/chain", "floor", Some(10), 10.0),
            ("cascade/chain", "mainstay", Some(10), 15.0),
            ("cascade/chain", "mainstay, edge elsewhere", Some(10), 18.0),
        ]);
        let targets = all(&results);
        let rows: Vec<_> = targets.iter().map(Target::row).collect();
        let row = |i: usize| (rows[i].0.as_str(), rows[i].1.join(" | "));
        let get = "≤ 0.50× | 1 thread: 0.45×; 4 threads: **0.65×** | **not met**";
        assert_eq!(row(0), ("get / arc-swap load", get.into()));
        let flat = "≤ 1.20× | hot: **1.44×** | **not met**";
        assert_eq!(row(1), ("mainstay get: 4 threads / 1 thread, quiet", flat.into()));
        assert_eq!(row(2), ("failure of 10 / floor", "≤ 2.00× | chain 10: 1.50× | met".into()));
        let (what, met) = row(3);
        assert_eq!(what, "failure after an unrelated change of edges / without");
        assert_eq!(met, "≤ 1.10× | chain 10: **1.20×** | **not met**");
        assert_eq!(rows.len(), 4);
    }
}
