//! The sections of the report: plots and tables.

use std::path::Path;

use anyhow::Result;
use mainstay_benches::growth::Growth;

use crate::{
    data::{Point, Results, reads_group, threads_label},
    format, growth,
    plots::{self, Bar, Line, Panel, each},
    tables::{Column, markdown, table, variant},
};

pub struct Sections<'a> {
    pub results: &'a Results,
    /// The directory of the plots.
    pub plots: &'a Path,
}

fn plot(file: &str, what: &str) -> String {
    format!("![{what}](benchmarks/{file})\n\n")
}

impl Sections<'_> {
    pub fn all(&self) -> Result<String> {
        Ok([
            self.reads()?,
            self.scaling()?,
            self.registry_size()?,
            self.cascades()?,
            self.wakeups()?,
            self.recovery()?,
            self.supervision()?,
            self.reload(),
            self.publication()?,
            self.building()?,
            self.growth(),
        ]
        .concat())
    }

    fn read_columns(&self, which: &str, load: &str) -> Vec<Column> {
        let threads = self.results.threads().into_iter();
        let column = |threads| Column {
            title: threads_label(threads),
            group: reads_group(which, load, threads),
            value: None,
            each: 1,
        };
        threads.map(column).filter(|column| self.has(&column.group)).collect()
    }

    fn has(&self, group: &str) -> bool {
        self.results.points.iter().any(|point| point.group == group)
    }

    /// Returns the candidates, sorted by the first of the columns.
    fn read_bars(&self, columns: &[Column]) -> Vec<Bar> {
        let Some(first) = columns.first() else { return Vec::new() };
        let mut points: Vec<_> = self.results.column(&first.group, first.value).collect();
        points.sort_by(|a, b| a.ns.total_cmp(&b.ns));
        let bar = |name: &str| Bar {
            name: name.into(),
            values: columns.iter().map(|c| self.results.ns(&c.group, name, c.value)).collect(),
        };
        points.iter().map(|point| bar(&point.function)).collect()
    }

    fn reads(&self) -> Result<String> {
        const PLOT: &str = "One read of a hot service, nothing else running";

        let (mut text, of) = (String::new(), self.results.features("reads"));
        for (which, load, what) in [
            ("hot", "quiet", "One hot service, quiet"),
            ("hot", "busy", "One hot service, busy"),
            ("64 random", "quiet", "64 services at random, quiet"),
            ("64 random", "busy", "64 services at random, busy"),
        ] {
            let columns = self.read_columns(which, load);
            if columns.is_empty() {
                continue;
            }
            if (which, load) == ("hot", "quiet") {
                let series: Vec<String> = columns.iter().map(|c| c.title.clone()).collect();
                let path = self.plots.join("reads.svg");
                let bars = self.read_bars(&columns);
                if plots::bars(&path, PLOT, &of, &series, &bars, format::time)? {
                    text += &plot("reads.svg", PLOT);
                }
            }
            text += &table(self.results, what, &columns);
        }
        let about = "Time of one read on each thread, and its ratio to the floor. In \"quiet\" \
                     nothing is written. In \"busy\" one failure, one publication and one \
                     replacement take place every 100 µs.";
        Ok(section("Reads", about, &of, text))
    }

    fn scaling(&self) -> Result<String> {
        const PLOT: &str = "A read on all cores, divided by the same read on one thread";

        let threads = self.results.threads();
        let (Some(&one), Some(&all)) = (threads.first(), threads.last()) else {
            return Ok(String::new());
        };
        let places =
            [("hot", "quiet"), ("64 random", "quiet"), ("hot", "busy"), ("64 random", "busy")];
        let ratios = |name: &str| {
            let ratio = |&(which, load): &(&str, &str)| {
                let ns = |threads| self.results.ns(&reads_group(which, load, threads), name, None);
                Some(ns(all)? / ns(one)?)
            };
            places.iter().map(ratio).collect::<Vec<_>>()
        };
        let mut bars: Vec<Bar> = self
            .read_bars(&self.read_columns("hot", "quiet"))
            .into_iter()
            .map(|bar| Bar { values: ratios(&bar.name), name: bar.name })
            .filter(|bar| bar.values.iter().any(Option::is_some))
            .collect();
        if one == all || bars.is_empty() {
            return Ok(String::new());
        }
        let first = |bar: &Bar| bar.values[0].unwrap_or(f64::INFINITY);
        bars.sort_by(|a, b| first(a).total_cmp(&first(b)));
        let cell = |value: &Option<f64>| value.map_or("–".into(), format::ratio);
        let titles = places.map(|(which, load)| format!("{which}, {load}"));
        let rows = bars.iter().map(|bar| {
            (format!("`{}`", bar.name), bar.values.iter().map(cell).collect::<Vec<String>>())
        });
        let what = format!("{} / {}", threads_label(all), threads_label(one));
        let table = markdown(&what, &titles.each_ref().map(String::as_str), "--:", rows);

        let (mut text, of) = (String::new(), self.results.features("reads"));
        bars.iter_mut().for_each(|bar| bar.values.truncate(2));
        let path = self.plots.join("scaling.svg");
        if plots::bars(&path, PLOT, &of, &titles[..2], &bars, format::ratio)? {
            text += &plot("scaling.svg", PLOT);
        }
        let about = "1× is perfect: the other threads do not slow down a read.";
        Ok(section("Scaling with threads", about, &of, text + &table))
    }

    /// Returns the functions of a group as lines, if `filter` accepts their names.
    fn panel(&self, title: &str, group: &str, is_each: bool, filter: fn(&str) -> bool) -> Panel {
        let mut lines: Vec<Line> = Vec::new();
        for value in self.results.values(group) {
            // The limits would make the plot unreadable; they are in the tables.
            let drawn =
                |point: &&Point| !point.function.starts_with("limit: ") && filter(&point.function);
            for point in self.results.column(group, Some(value)).filter(drawn) {
                let at = (value as f64, each(point.ns, if is_each { value } else { 1 }));
                match lines.iter_mut().find(|line| line.name == point.function) {
                    Some(line) => line.points.push(at),
                    None => lines.push(Line { name: point.function.clone(), points: vec![at] }),
                }
            }
        }
        Panel { title: title.into(), lines }
    }

    fn lines(
        &self,
        file: &str,
        what: &str,
        of: &str,
        across: &str,
        mut panels: Vec<Panel>,
    ) -> Result<String> {
        panels.retain(|panel| !panel.lines.is_empty());
        let path = self.plots.join(file);
        let is_drawn = plots::lines(&path, what, of, across, &panels, format::time)?;
        Ok(if is_drawn { plot(file, what) } else { String::new() })
    }

    fn registry_size(&self) -> Result<String> {
        let (group, of) = ("reads/registry size", self.results.features("reads"));
        let panels = vec![self.panel("one thread, quiet", group, false, |_| true)];
        let mut text =
            self.lines("registry-size.svg", "A read", &of, "services in the registry", panels)?;
        if !text.is_empty() {
            text += &table(self.results, "services", &Column::by_value(self.results, group, false));
        }
        Ok(section(
            "Registry size",
            "Ten services are read, in registries of several sizes.",
            &of,
            text,
        ))
    }

    fn cascades(&self) -> Result<String> {
        let mut panels = Vec::new();
        let mut tables = String::new();
        for shape in self.results.groups("cascade/") {
            let group = format!("cascade/{shape}");
            let plain: fn(&str) -> bool = |name| variant(name) != "waited for";
            let waited: fn(&str) -> bool = |name| variant(name) == "waited for";
            panels.push(self.panel(shape, &group, true, plain));
            panels.push(self.panel(&format!("{shape}, waited for"), &group, true, waited));
            let columns = Column::by_value(self.results, &group, true);
            tables += &table(self.results, &format!("{shape}, services"), &columns);
        }
        let what = "A failure, for each service that it takes down";
        let of = self.results.features("cascades");
        let text = self.lines("cascades.svg", what, &of, "services that go down", panels)?;
        let about = "Time for each service that goes down, and the ratio to the floor. The \
                     floor, the tokens and the channels receive the list of the services to take \
                     down; the others search for them. In each graph all services depend on the \
                     first one, directly or through others.";
        Ok(section("Cascades", about, &of, text + &tables))
    }

    fn wakeups(&self) -> Result<String> {
        let mut panels = Vec::new();
        let mut tables = String::new();
        let mut places: Vec<_> = self.results.groups("wakeup/").into_iter().collect();
        // The two measurements of the same waiters are side by side, the call first.
        places.sort_by_key(|place| {
            place.split_once('/').map(|(what, place)| (place, what == "awake"))
        });
        for place in places {
            let group = format!("wakeup/{place}");
            let place = place.replace('/', ", ");
            panels.push(self.panel(&place, &group, true, |_| true));
            let columns = Column::by_value(self.results, &group, true);
            tables += &table(self.results, &format!("{place}, waiters"), &columns);
        }
        let (what, of) = ("Waking, for each waiter", self.results.features("wakeups"));
        let text = self.lines("wakeups.svg", what, &of, "waiters", panels)?;
        let about = "Time for each waiter, and the ratio to event-listener. \"Notify\" is the time \
                     of the call alone, \"awake\" is the time until the last waiter has its \
                     result.";
        Ok(section("Wake-ups", about, &of, text + &tables))
    }

    fn recovery(&self) -> Result<String> {
        let what = "From a failure until all are ready again, for each service";
        let of = self.results.features("recovery");
        let content = self.recovering("recovery/", "recovery.svg", what, &of)?;
        Ok(section("Recovery", &format!("{what}."), &of, content))
    }

    fn supervision(&self) -> Result<String> {
        let what = "Recovery with a loop by hand and with a supervisor, for each service";
        let of = self.results.features("supervision");
        let content = self.recovering("supervised/", "supervision.svg", what, &of)?;
        Ok(section("Supervision", &format!("{what}."), &of, content))
    }

    fn reload(&self) -> String {
        let groups = [
            ("reload/whole", "until all services are current"),
            ("reload/slowest get", "the slowest get during it"),
            ("reload/switch/0 readers", "the switch"),
            ("reload/switch/256 readers", "the switch, beside 256 threads that have read"),
        ];
        let mut tables = String::new();
        for (group, title) in groups {
            let columns = Column::by_value(self.results, group, false);
            if !columns.is_empty() {
                tables += &table(self.results, &format!("{title}, services"), &columns);
            }
        }
        let about = "A new value of the first service of a chain gets to all of them. A *restart* \
                     fails the first one. *One struct* is an `ArcSwap` of one struct with all \
                     values, which are built in a loop: no supervisors, no errors of one service, \
                     no bodies. A get is repeated until there is a value.";
        section("Reload", about, &self.results.features("reload"), tables)
    }

    fn recovering(&self, groups: &str, file: &str, what: &str, of: &str) -> Result<String> {
        let mut panels = Vec::new();
        let mut tables = String::new();
        for shape in self.results.groups(groups) {
            let group = format!("{groups}{shape}");
            panels.push(self.panel(shape, &group, true, |_| true));
            let columns = Column::by_value(self.results, &group, true);
            tables += &table(self.results, &format!("{shape}, services"), &columns);
        }
        Ok(self.lines(file, what, of, "services", panels)? + &tables)
    }

    fn publication(&self) -> Result<String> {
        let (group, of) = ("publication", self.results.features("publication"));
        let panels = vec![self.panel("one thread publishes", group, false, |_| true)];
        let across = "threads that have read";
        let mut text = self.lines("publication.svg", "A publication", &of, across, panels)?;
        if !text.is_empty() {
            let columns = Column::by_value(self.results, group, false);
            text += &table(self.results, "threads that have read", &columns);
        }
        let columns = Column::by_value(self.results, "failure by readers", false);
        if !columns.is_empty() {
            text += &table(self.results, "a failure, threads that have read", &columns);
        }
        let about = "Time of one publication beside threads that have read and are alive, and the \
                     ratio to a store to a cell of arc-swap and one compare-and-swap.";
        Ok(section("Publication", about, &of, text))
    }

    fn building(&self) -> Result<String> {
        let lines = &self.results.building;
        let mut graphs: Vec<&str> = lines.iter().map(|line| line.graph.as_str()).collect();
        graphs.sort_unstable();
        graphs.dedup();
        let panel = |title: &str, y: fn(&crate::data::Building) -> f64| Panel {
            title: title.into(),
            lines: graphs
                .iter()
                .map(|&graph| Line {
                    name: graph.into(),
                    points: lines
                        .iter()
                        .filter(|line| line.graph == graph)
                        .map(|line| (line.services as f64, y(line)))
                        .collect(),
                })
                .collect(),
        };
        let time = panel("register, edges, build", |line| line.seconds() * 1e9);
        let (what, of) = ("Building a registry", self.results.features("building"));
        let mut text = self.lines("building-time.svg", what, &of, "services", vec![time])?;
        let bytes = panel("slots, names, edges, precomputed closures", |line| {
            each(line.bytes() as f64, line.services)
        });
        let path = self.plots.join("building-bytes.svg");
        let what = "Bytes for each service";
        if !text.is_empty() && plots::lines(&path, what, &of, "services", &[bytes], bytes_tick)? {
            text += &plot("building-bytes.svg", what);
        }
        if text.is_empty() {
            return Ok(text);
        }
        let rows = lines.iter().map(|line| {
            let bytes = |total: i64| format::bytes(each(total as f64, line.services));
            let cells = vec![
                format::count(line.services),
                format::time(line.seconds() * 1e9),
                format::time(line.seconds_first_failure * 1e9),
                bytes(line.bytes_slab),
                bytes(line.bytes_names),
                bytes(line.bytes_edges),
                bytes(line.bytes_closures),
                format::bytes(line.peak_bytes as f64),
            ];
            (line.graph.clone(), cells)
        });
        let titles =
            ["services", "time", "first failure", "slot", "names", "edges", "closures", "peak"];
        let table = markdown("graph", &titles, "--:", rows);
        let about = "Bytes are for each service; the peak is the maximum of the whole registry. \
                     A \"hub\" is one service on which all others depend, as in a fan-out. \
                     \"Closures\" are the precomputed closures after the first failure.";
        Ok(section("Building", about, &of, text + &table))
    }

    fn growth(&self) -> String {
        if self.results.growth.is_empty() {
            return String::new();
        }
        let about = format!(
            "Instructions of each operation on a registry of n services, counted by callgrind, \
             and in parentheses the same divided by n log2 n. Each count divided by the one \
             before it must not exceed the ratio of n log n, times {}. An operation that exceeds \
             its limit is not run with more services. For a hub, n services depend on it, or it \
             depends on n services.",
            Growth::MARGIN
        );
        let of = self.results.features("growth");
        section("Growth", &about, &of, growth::table(&self.results.growth))
    }
}

/// Formats bytes with a decimal unit, because the axis is decimal.
fn bytes_tick(bytes: f64) -> String {
    format!("{} B", plots::short(bytes))
}

/// Returns a section, or nothing if there is no data.
fn section(title: &str, about: &str, of: &str, content: String) -> String {
    if content.is_empty() { content } else { format!("## {title}\n\n{about} {of}.\n\n{content}") }
}
