//! The reason for each missed target: mainstay beside the least that has the same effect, in time
//! and in instructions.

use crate::{
    data::{Results, reads_group, threads_label},
    format,
    tables::markdown,
    targets::{by_group, by_value},
};

type Measured = Vec<(String, f64)>;

/// Returns the ratios of median times.
fn times(results: &Results) -> Vec<(String, Measured)> {
    let reads = |upper: &str, lower: &str| {
        let ratio = |&threads: &u64| {
            let group = reads_group("hot", "quiet", threads);
            let ns = |function| results.ns(&group, function, None);
            Some((threads_label(threads), ns(upper)? / ns(lower)?))
        };
        (format!("{upper} / {lower}"), results.threads().iter().filter_map(ratio).collect())
    };
    let groups = |prefix: &str, upper: &str, lower: &str| {
        (format!("{upper} / {lower}"), by_group(results, prefix, upper, lower))
    };
    let publication = |upper: &str, lower: &str| {
        (format!("{upper} / {lower}"), by_value(results, "publication", upper, lower))
    };
    let mut rows = vec![
        reads("limit: pointer and state", "floor"),
        reads("mainstay cached", "limit: pointer and state"),
        reads("limit: arc-swap load and state", "arc-swap load"),
        reads("mainstay reader", "limit: arc-swap load and state"),
        reads("mainstay get", "limit: arc-swap load and state"),
        groups("cascade/", "limit: floor, remembered", "floor"),
        groups("cascade/", "mainstay", "limit: floor, remembered"),
        groups("wakeup/awake/", "limit: relayed", "event-listener"),
        groups("wakeup/awake/", "mainstay fail", "limit: relayed"),
        groups("wakeup/awake/", "mainstay ready", "limit: relayed"),
        publication("limit: attempt and instance", "arc-swap store and a CAS"),
        publication("mainstay begin and ready", "limit: attempt and instance"),
        publication("mainstay replace", "arc-swap compare_and_swap and a CAS"),
    ];
    rows.retain(|(_, measured)| !measured.is_empty());
    rows
}

/// The functions of `instructions.rs`, their labels, and the number of operations in each.
const COUNTED: [(&str, &str, u64); 13] = [
    ("floor", "a read: floor", 1_000),
    ("pointer_and_state", "a read: limit: pointer and state", 1_000),
    ("cached", "a read: mainstay cached", 1_000),
    ("arc_swap_load", "a read: arc-swap load", 1_000),
    ("load_and_state", "a read: limit: arc-swap load and state", 1_000),
    ("reader", "a read: mainstay reader", 1_000),
    ("get", "a read: mainstay get", 1_000),
    ("publish", "a publication: mainstay begin and ready", 1),
    ("replace", "a publication: mainstay replace", 1),
    ("remembered_floor_of_1", "a failure of 1 service: limit: floor, remembered", 1),
    ("fail_of_1", "a failure of 1 service: mainstay", 1),
    (
        "remembered_floor_of_1000",
        "a failure of 1,000, each service: limit: floor, remembered",
        1_000,
    ),
    ("fail_of_1000", "a failure of 1,000, each service: mainstay", 1_000),
];

pub fn tables(results: &Results) -> String {
    let mut text = String::new();
    let times = times(results);
    if !times.is_empty() {
        let rows = times.into_iter().map(|(what, measured)| {
            let one = |(place, ratio): (String, f64)| format!("{place}: {}", format::ratio(ratio));
            (what, vec![measured.into_iter().map(one).collect::<Vec<_>>().join("; ")])
        });
        text += &markdown("time", &["ratio"], ":--", rows);
    }
    if !results.instructions.is_empty() {
        let titles: Vec<_> =
            results.instructions.keys().map(|of| format!("features: {of}")).collect();
        let titles: Vec<_> = titles.iter().map(String::as_str).collect();
        let rows = COUNTED.iter().map(|&(function, what, each)| {
            let cells = results.instructions.values().map(|counted| {
                let total = counted.get(function);
                total.map_or("–".into(), |total| format::count((total + each / 2) / each))
            });
            (what.to_owned(), cells.collect())
        });
        text += &markdown("instructions, counted by callgrind", &titles, "--:", rows);
    }
    text
}
