//! Tables of medians: a row for each candidate, a column for each thing that was measured.

use std::collections::BTreeMap;

use crate::{
    data::{Point, Results},
    format,
};

/// What all others are compared with.
fn base(group: &str) -> Option<&'static str> {
    match group.split('/').next()? {
        "reads" | "cascade" => Some("floor"),
        "publication" => Some("arc-swap store and a CAS"),
        "wakeup" => Some("event-listener"),
        _ => None,
    }
}

/// A failure that somebody waits for is another job than one of which nobody wants to hear.
pub fn job(function: &str) -> &str {
    ["waited for", "walked"].into_iter().find(|job| function.ends_with(job)).unwrap_or_default()
}

/// What nothing that does the same could be below.
pub fn is_floor(function: &str) -> bool {
    function == "floor" || function.starts_with("limit: ")
}

pub fn is_mainstay(function: &str) -> bool {
    function.starts_with("mainstay")
}

/// What of mainstay does the same as a rival. Each is compared: the best of several would hide where another loses.
fn counterparts(group: &str, rival: &str) -> &'static [&'static str] {
    match (group.split('/').next().unwrap_or_default(), rival) {
        _ if is_floor(rival) => &[],
        // The others keep nothing between two reads that tells whether there is something new.
        ("reads", "arc-swap Cache") => &["mainstay cached"],
        ("reads", _) => &["mainstay get"],
        ("cascade", _) if job(rival) == "waited for" => &["mainstay, waited for"],
        // It walks each time, whether the graph has changed or not.
        ("cascade", "petgraph, locked") => &["mainstay", "mainstay, walked"],
        ("cascade", _) => &["mainstay"],
        ("wakeup", _) => &["mainstay fail", "mainstay ready"],
        // On the same runtime.
        ("recovery", _) => &["mainstay, tokio"],
        // On the same executor.
        ("supervised", "by hand, tokio") => &["mainstay supervised, tokio"],
        ("supervised", "by hand, one thread") => &["mainstay supervised, one thread"],
        ("supervised", "by hand, threads") => &["mainstay supervised, threads"],
        ("publication", _) => &["mainstay begin and ready", "mainstay replace"],
        _ => &[],
    }
}

/// What of mainstay a rival beats, and how many times lower the rival's median is.
fn beaten(results: &Results, point: &Point) -> Vec<(&'static str, f64)> {
    if is_mainstay(&point.function) {
        return Vec::new();
    }
    let ratio = |&ours: &&'static str| {
        Some((ours, results.ns(&point.group, ours, point.value)? / point.ns))
    };
    let all = counterparts(&point.group, &point.function).iter().filter_map(ratio);
    all.filter(|&(_, ratio)| ratio > 1.0).collect()
}

/// From here on a median is marked as uncertain.
const WIDE: f64 = 0.1;

/// What is in a column, and what is above it.
pub struct Column {
    pub title: String,
    pub group: String,
    pub value: Option<u64>,
    /// The median is divided by it: times of a service, or of a waiter.
    pub each: u64,
}

impl Column {
    /// One for each parameter of a group; `each` is whether the times are of one of so many.
    pub fn by_value(results: &Results, group: &str, each: bool) -> Vec<Self> {
        let column = |value: u64| Self {
            title: format::count(value),
            group: group.into(),
            value: Some(value),
            each: if each { value.max(1) } else { 1 },
        };
        results.values(group).into_iter().map(column).collect()
    }

    fn cell(&self, results: &Results, point: &Point, fastest: f64) -> String {
        let mut cell = format::time(point.ns / self.each as f64);
        let base = base(&self.group).and_then(|base| results.ns(&self.group, base, self.value));
        if let Some(base) = base {
            cell += &format!(" ({})", format::ratio(point.ns / base));
        }
        if point.spread > WIDE {
            cell.insert(0, '≈');
        }
        if !beaten(results, point).is_empty() {
            cell = format!("**{cell}**");
        }
        if point.ns == fastest && !is_floor(&point.function) {
            cell += " ◂";
        }
        cell
    }
}

/// mainstay comes first, then the floors, then the rivals.
pub fn kind(function: &str) -> u8 {
    match function {
        _ if is_mainstay(function) => 0,
        _ if is_floor(function) => 1,
        _ => 2,
    }
}

/// Rows are by kind, and then by what is in the first column.
pub fn table(results: &Results, what: &str, columns: &[Column]) -> String {
    let mut rows: BTreeMap<&str, Vec<Option<&Point>>> = BTreeMap::new();
    for (i, column) in columns.iter().enumerate() {
        for point in results.column(&column.group, column.value) {
            rows.entry(&point.function).or_insert_with(|| vec![None; columns.len()])[i] =
                Some(point);
        }
    }
    // Of what one would use: the floor never frees what it replaced.
    let fastest: Vec<f64> = (0..columns.len())
        .map(|i| {
            let column = rows.iter().filter(|(name, _)| !is_floor(name));
            column.filter_map(|(_, row)| row[i]).map(|p| p.ns).fold(f64::INFINITY, f64::min)
        })
        .collect();

    let mut rows: Vec<_> = rows.into_iter().collect();
    let first = |row: &[Option<&Point>]| {
        row.iter().position(Option::is_some).map(|i| (i, row[i].map_or(0.0, |point| point.ns)))
    };
    rows.sort_by(|(a, a_row), (b, b_row)| {
        let by_time = first(a_row).partial_cmp(&first(b_row)).unwrap();
        kind(a).cmp(&kind(b)).then(by_time)
    });

    let titles: Vec<&str> = columns.iter().map(|column| column.title.as_str()).collect();
    let lines = rows.iter().map(|(name, row)| {
        let cells = row.iter().zip(columns).zip(&fastest).map(|((point, column), &fastest)| {
            point.map_or("–".into(), |point| column.cell(results, point, fastest))
        });
        // `<HashMap>` is no element.
        (format!("`{name}`"), cells.collect())
    });
    markdown(what, &titles, "--:", lines)
}

/// A table whose numbers stand to the right; `:--` is for words.
pub fn markdown(
    what: &str,
    titles: &[&str],
    align: &str,
    rows: impl IntoIterator<Item = (String, Vec<String>)>,
) -> String {
    let mut text = format!(
        "| {what} | {} |\n|---{}|\n",
        titles.join(" | "),
        format!("|{align}").repeat(titles.len())
    );
    for (name, cells) in rows {
        text += &format!("| {name} | {} |\n", cells.join(" | "));
    }
    text + "\n"
}

/// The section, what of mainstay, and the rival.
type Pair<'a> = (&'a str, &'a str, &'a str);

/// Every rival with a lower median than what of mainstay does the same, and where.
pub fn losses(results: &Results) -> String {
    let mut losses: BTreeMap<Pair, Vec<(String, f64)>> = BTreeMap::new();
    for point in &results.points {
        let (section, place) = point.group.split_once('/').unwrap_or((&point.group, ""));
        let mut place = place.replace('/', ", ").replace(", 1 threads", ", 1 thread");
        if let Some(value) = point.value {
            let comma = if place.is_empty() { "" } else { ", " };
            place += &format!("{comma}{}", format::count(value));
        }
        for (ours, ratio) in beaten(results, point) {
            let key = (section, ours, point.function.as_str());
            losses.entry(key).or_default().push((place.clone(), ratio));
        }
    }
    if losses.is_empty() {
        return "Nowhere in these medians.\n\n".into();
    }
    let mut text = String::new();
    for ((section, ours, rival), mut places) in losses {
        places.sort_by(|a, b| b.1.total_cmp(&a.1));
        let place = |(place, ratio): &(String, f64)| format!("{place}: {}", format::ratio(*ratio));
        let places: Vec<String> = places.iter().map(place).collect();
        text += &format!("- {section}: `{ours}` to **`{rival}`** – {}\n", places.join("; "));
    }
    text + "\n"
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::tests::results;

    #[test]
    fn losses_are_of_the_same_job_and_to_rivals() {
        let results = results(&[
            ("cascade/chain", "floor", Some(10), 1.0),
            ("cascade/chain", "mainstay", Some(10), 4.0),
            ("cascade/chain", "mainstay, waited for", Some(10), 10.0),
            ("cascade/chain", "quick", Some(10), 2.0),
            ("cascade/chain", "slow, waited for", Some(10), 11.0),
            ("reads/x", "mainstay cached", None, 1.0),
            ("reads/x", "mainstay get", None, 3.0),
            ("reads/x", "arc-swap Cache", None, 1.5),
            ("reads/x", "quick", None, 2.0),
            ("reads/x", "slow", None, 4.0),
            ("reads/x", "equal", None, 3.0),
        ]);
        let cascade = "- cascade: `mainstay` to **`quick`** – chain, 10: 2.00×\n";
        let reads = "- reads: `mainstay get` to **`quick`** – x: 1.50×\n";
        assert_eq!(losses(&results), format!("{cascade}{reads}\n"));
    }

    #[test]
    fn each_of_several_is_compared() {
        let results = results(&[
            ("publication", "mainstay replace", Some(1), 4.0),
            ("publication", "mainstay begin and ready", Some(1), 6.0),
            ("publication", "quick", Some(1), 5.0),
        ]);
        let begin = "- publication: `mainstay begin and ready` to **`quick`** – 1: 1.20×\n\n";
        assert_eq!(losses(&results), begin);
    }

    #[test]
    fn no_losses() {
        assert!(losses(&results(&[("a", "rival", None, 1.0)])).starts_with("Nowhere"));
    }

    #[test]
    fn cells() {
        let mut results = results(&[
            ("cascade/chain", "floor", Some(10), 20.0),
            ("cascade/chain", "mainstay", Some(10), 80.0),
            ("cascade/chain", "quick", Some(10), 40.0),
            ("cascade/chain", "quick", Some(20), 40.0),
        ]);
        results.points[1].spread = 0.2;
        let columns = Column::by_value(&results, "cascade/chain", true);
        let table = table(&results, "services", &columns);
        let lines: Vec<&str> = table.lines().collect();
        assert_eq!(
            lines,
            [
                "| services | 10 | 20 |",
                "|---|--:|--:|",
                "| `mainstay` | ≈8.00 ns (4.00×) | – |",
                "| `floor` | 2.00 ns (1.00×) | – |",
                "| `quick` | **4.00 ns (2.00×)** ◂ | 2.00 ns ◂ |",
                "",
            ]
        );
    }
}
