//! The table of how operations grow with the number of services.

use mainstay_benches::growth::{Exceeded, Growth};

use crate::{format, tables::markdown};

/// Returns a table with one row for each operation, and one column for each number of services.
pub fn table(all: &[Growth]) -> String {
    let sizes = all.iter().map(|growth| &growth.counts).max_by_key(|counts| counts.len());
    let sizes: Vec<u64> = sizes.into_iter().flatten().map(|count| count.services).collect();
    let titles = sizes.iter().map(|&size| format::count(size));
    let titles: Vec<String> = titles.chain(["limit".into()]).collect();
    let titles: Vec<&str> = titles.iter().map(String::as_str).collect();
    let rows = all.iter().map(|growth| {
        let cell = |place: usize| {
            let count = growth.counts.get(place);
            count.map_or("–".into(), |count| {
                let each = format::digits(count.each());
                format!("{} ({each})", format::count(count.instructions))
            })
        };
        let cells = (0..sizes.len()).map(cell).chain([verdict(growth)]).collect();
        (growth.operation.clone(), cells)
    });
    markdown("operation", &titles, "--:", rows)
}

fn verdict(growth: &Growth) -> String {
    let verdict = match growth.exceeded() {
        None => "met".into(),
        Some(Exceeded { services, ratio, limit }) => {
            let (services, ratio) = (format::count(services), format::ratio(ratio));
            format!("**exceeded** at {services}: {ratio} > {}", format::ratio(limit))
        }
    };
    if growth.limited { verdict } else { format!("{verdict}, not yet limited") }
}

#[cfg(test)]
mod tests {
    use mainstay_benches::growth::Count;

    use super::*;

    fn growth(operation: &str, limited: bool, instructions: &[u64]) -> Growth {
        let counts = [100, 1_000, 10_000].into_iter().zip(instructions);
        let counts = counts.map(|(services, &instructions)| Count { services, instructions });
        Growth { operation: operation.into(), limited, counts: counts.collect() }
    }

    #[test]
    fn rows_contain_counts_and_whether_they_grow_too_fast() {
        let table = table(&[
            growth("linear", true, &[1_000, 10_000, 100_000]),
            // 10 * log(1,000) / log(100) * 1.25 = 18.75
            growth("at the limit", true, &[1_000, 18_700, 187_500]),
            growth("above it", true, &[1_000, 20_000]),
            growth("quadratic", false, &[1_000, 10_000, 1_000_000]),
        ]);
        let lines: Vec<&str> = table.lines().collect();
        assert_eq!(
            lines,
            [
                "| operation | 100 | 1,000 | 10,000 | limit |",
                "|---|--:|--:|--:|--:|",
                "| linear | 1,000 (1.51) | 10,000 (1.00) | 100,000 (0.75) | met |",
                "| at the limit | 1,000 (1.51) | 18,700 (1.88) | 187,500 (1.41) | met |",
                "| above it | 1,000 (1.51) | 20,000 (2.01) | – | \
                 **exceeded** at 1,000: 20.0× > 18.8× |",
                "| quadratic | 1,000 (1.51) | 10,000 (1.00) | 1,000,000 (7.53) | \
                 **exceeded** at 10,000: 100× > 16.7×, not yet limited |",
                "",
            ]
        );
    }
}
