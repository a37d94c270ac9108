//! Tables of medians: one row for each candidate, one column for each measurement.

use std::collections::BTreeMap;

use crate::{
    data::{Point, Results},
    format,
};

/// Returns the candidate with which all others of the group are compared.
fn base(group: &str) -> Option<&'static str> {
    match group.split('/').next()? {
        "reads" | "cascade" => Some("floor"),
        "publication" => Some("arc-swap store and a CAS"),
        "wakeup" => Some("event-listener"),
        _ => None,
    }
}

/// Returns the variant of a function. A failure with waiters, or after a change of the edges, has
/// more to do than one without; only the same variants are compared.
pub fn variant(function: &str) -> &str {
    ["waited for", "walked", "edge elsewhere"]
        .into_iter()
        .find(|variant| function.ends_with(variant))
        .unwrap_or_default()
}

/// Whether the function is a lower bound, which no complete implementation can reach.
pub fn is_floor(function: &str) -> bool {
    function == "floor" || function.starts_with("limit: ")
}

pub fn is_mainstay(function: &str) -> bool {
    function.starts_with("mainstay")
}

/// Returns the operations of mainstay that have the same effect as a rival. Each is compared
/// separately: only the fastest one would hide that another one is slower than the rival.
fn counterparts(group: &str, rival: &str) -> &'static [&'static str] {
    match (group.split('/').next().unwrap_or_default(), rival) {
        _ if is_floor(rival) => &[],
        // The other rivals keep no value between two reads.
        ("reads", "arc-swap Cache") => &["mainstay cached"],
        ("reads", _) => &["mainstay get"],
        ("cascade", _) if variant(rival) == "waited for" => &["mainstay, waited for"],
        // It walks at each failure, whether the graph has changed or not.
        ("cascade", "petgraph, locked") => &["mainstay", "mainstay, walked"],
        ("cascade", _) => &["mainstay"],
        ("wakeup", _) => &["mainstay fail", "mainstay ready"],
        // On the same runtime.
        ("recovery", _) => &["mainstay, tokio"],
        // On the same executor.
        ("supervised", "by hand, tokio") => &["mainstay supervised, tokio"],
        ("supervised", "by hand, one thread") => &["mainstay supervised, one thread"],
        ("supervised", "by hand, threads") => &["mainstay supervised, threads"],
        // It has other guarantees.
        ("reload", "one struct") => &["mainstay reload"],
        ("publication", _) => &["mainstay begin and ready", "mainstay replace"],
        _ => &[],
    }
}

/// Returns the operations of mainstay that are slower than a rival, and how many times lower the
/// median of the rival is.
fn losses_to(results: &Results, point: &Point) -> Vec<(&'static str, f64)> {
    if is_mainstay(&point.function) {
        return Vec::new();
    }
    let ratio = |&ours: &&'static str| {
        Some((ours, results.ns(&point.group, ours, point.value)? / point.ns))
    };
    let all = counterparts(&point.group, &point.function).iter().filter_map(ratio);
    all.filter(|&(_, ratio)| ratio > 1.0).collect()
}

/// The spread above which a median is marked as uncertain.
const WIDE: f64 = 0.1;

/// A column: its title, and the measurements in it.
pub struct Column {
    pub title: String,
    pub group: String,
    pub value: Option<u64>,
    /// The median is divided by this number, for the time of one service or one waiter.
    pub each: u64,
}

impl Column {
    /// Returns one column for each parameter of a group. If `each` is set, the times are divided
    /// by the parameter.
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
        if !losses_to(results, point).is_empty() {
            cell = format!("**{cell}**");
        }
        if point.ns == fastest && !is_floor(&point.function) {
            cell += " ◂";
        }
        cell
    }
}

/// Returns the rank in a table: first mainstay, then the floors, then the rivals.
pub fn kind(function: &str) -> u8 {
    match function {
        _ if is_mainstay(function) => 0,
        _ if is_floor(function) => 1,
        _ => 2,
    }
}

/// Returns a table. Its rows are sorted by kind, and then by the first column.
pub fn table(results: &Results, what: &str, columns: &[Column]) -> String {
    let mut rows: BTreeMap<&str, Vec<Option<&Point>>> = BTreeMap::new();
    for (i, column) in columns.iter().enumerate() {
        for point in results.column(&column.group, column.value) {
            rows.entry(&point.function).or_insert_with(|| vec![None; columns.len()])[i] =
                Some(point);
        }
    }
    // Without the floors, which are no alternatives: they never free a replaced value.
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
        // As code: `<HashMap>` would be read as an HTML element.
        (format!("`{name}`"), cells.collect())
    });
    markdown(what, &titles, "--:", lines)
}

/// Returns a table with aligned columns: `--:` for numbers, `:--` for words.
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

/// The section, the operation of mainstay, and the rival.
type Pair<'a> = (&'a str, &'a str, &'a str);

/// Returns a list of all rivals with a lower median than the operation of mainstay with the same
/// effect, and the places at which it is lower.
pub fn losses(results: &Results) -> String {
    let mut losses: BTreeMap<Pair, Vec<(String, f64)>> = BTreeMap::new();
    for point in &results.points {
        let (section, place) = point.group.split_once('/').unwrap_or((&point.group, ""));
        let mut place = place.replace('/', ", ").replace(", 1 threads", ", 1 thread");
        if let Some(value) = point.value {
            let comma = if place.is_empty() { "" } else { ", " };
            place += &format!("{comma}{}", format::count(value));
        }
        for (ours, ratio) in losses_to(results, point) {
            let key = (section, ours, point.function.as_str());
            losses.entry(key).or_default().push((place.clone(), ratio));
        }
    }
    if losses.is_empty() {
        return "In none of these medians.\n\n".into();
    }
    let mut text = String::new();
    for ((section, ours, rival), mut places) in losses {
        places.sort_by(|a, b| b.1.total_cmp(&a.1));
        let place = |(place, ratio): &(String, f64)| format!("{place}: {}", format::ratio(*ratio));
        let places: Vec<String> = places.iter().map(place).collect();
        text += &format!(
            "- {section}: `{ours}` is slower than **`{rival}`** – {}\n",
            places.join("; ")
        );
    }
    text + "\n"
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::tests::results;

    #[test]
    fn losses_compare_only_equal_variants_and_no_floors() {
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
        let cascade = "- cascade: `mainstay` is slower than **`quick`** – chain, 10: 2.00×\n";
        let reads = "- reads: `mainstay get` is slower than **`quick`** – x: 1.50×\n";
        assert_eq!(losses(&results), format!("{cascade}{reads}\n"));
    }

    #[test]
    fn each_counterpart_is_compared_separately() {
        let results = results(&[
            ("publication", "mainstay replace", Some(1), 4.0),
            ("publication", "mainstay begin and ready", Some(1), 6.0),
            ("publication", "quick", Some(1), 5.0),
        ]);
        let begin =
            "- publication: `mainstay begin and ready` is slower than **`quick`** – 1: 1.20×\n\n";
        assert_eq!(losses(&results), begin);
    }

    #[test]
    fn without_losses_the_text_says_so() {
        assert!(losses(&results(&[("a", "rival", None, 1.0)])).starts_with("In none"));
    }

    #[test]
    fn cells_show_ratios_spreads_and_the_fastest_candidate() {
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
