//! Plots: bars to compare candidates, and lines for values that depend on a parameter.

use std::path::Path;

use anyhow::Result;
use plotters::{
    prelude::Color,
    style::{RGBColor, text_anchor::HPos},
};

use crate::{
    canvas::{Axis, Canvas, FLOOR, MAINSTAY, RIVALS, TEXT},
    tables::{is_floor, is_mainstay, kind, variant},
};

const WIDTH: i32 = 840;

/// A candidate, with one value for each series.
pub struct Bar {
    pub name: String,
    pub values: Vec<Option<f64>>,
}

/// Draws horizontal bars on a logarithmic scale, each with its value beside it. The bars of the
/// second series are paler. The note is to the right of the title, and smaller. Returns whether
/// there was anything to draw.
pub fn bars(
    path: &Path,
    title: &str,
    note: &str,
    series: &[String],
    bars: &[Bar],
    show: fn(f64) -> String,
) -> Result<bool> {
    const LEFT: i32 = 232;
    const TOP: i32 = 74;
    const BAR: i32 = 13;
    const GAP: i32 = 9;

    let row = BAR * series.len() as i32 + GAP;
    let bottom = TOP + row * bars.len() as i32;
    let values = bars.iter().flat_map(|bar| bar.values.iter().flatten().copied());
    // The values to the right of the bars need space.
    let Some(axis) = Axis::around(values, LEFT, WIDTH - 80) else { return Ok(false) };

    let canvas = Canvas::new(path, WIDTH, bottom + 12);
    canvas.text(title, (12, 18), 18, TEXT, HPos::Left)?;
    canvas.text(note, (WIDTH - 12, 18), 13, TEXT, HPos::Right)?;
    let opacity = |i: usize| if i == 0 { 1.0 } else { 0.45 };
    let mut x = LEFT;
    for (i, name) in series.iter().enumerate() {
        canvas.rectangle((x, 35), (x + 14, 45), MAINSTAY[0].mix(opacity(i)))?;
        canvas.text(name, (x + 20, 40), 14, TEXT, HPos::Left)?;
        x += 50 + 8 * name.chars().count() as i32;
    }
    for decade in axis.decades() {
        let x = axis.at(decade);
        canvas.line(vec![(x, TOP - 6), (x, bottom)], TEXT.mix(0.3), 1)?;
        canvas.text(&tick(decade, show), (x, TOP - 14), 13, TEXT, HPos::Center)?;
    }
    for (i, bar) in bars.iter().enumerate() {
        let top = TOP + row * i as i32 + GAP / 2;
        let color = match bar.name.as_str() {
            name if is_floor(name) => FLOOR,
            name if is_mainstay(name) => MAINSTAY[0],
            _ => TEXT,
        };
        let middle = top + (row - GAP) / 2;
        canvas.text(&bar.name, (LEFT - 10, middle), 15, color, HPos::Right)?;
        for (i, value) in bar.values.iter().enumerate() {
            let Some(value) = value else { continue };
            let top = top + BAR * i as i32;
            let x = axis.at(*value).max(LEFT + 2);
            canvas.rectangle((LEFT, top), (x, top + BAR - 2), color.mix(opacity(i)))?;
            canvas.text(&show(*value), (x + 6, top + BAR / 2), 13, TEXT, HPos::Left)?;
        }
    }
    canvas.finish()?;
    Ok(true)
}

/// Returns a short label, "10 ns" in place of "10.0 ns".
fn tick(value: f64, show: fn(f64) -> String) -> String {
    let text = show(value);
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(end);
    match number.contains('.') {
        true => format!("{}{unit}", number.trim_end_matches('0').trim_end_matches('.')),
        false => text,
    }
}

/// Formats 1000000 as 1M.
pub fn short(number: f64) -> String {
    match number {
        n if n >= 1e6 => format!("{}M", n / 1e6),
        n if n >= 1e3 => format!("{}k", n / 1e3),
        n => format!("{n}"),
    }
}

pub struct Line {
    pub name: String,
    pub points: Vec<(f64, f64)>,
}

pub struct Panel {
    pub title: String,
    pub lines: Vec<Line>,
}

/// The colour of each candidate, the same in all panels of a plot. Lines with "waited for" have
/// panels of their own, and the colour of the same candidate without it.
struct Legend(Vec<(String, RGBColor)>);

impl Legend {
    fn name(line: &str) -> &str {
        if variant(line) == "waited for" { line.trim_end_matches(", waited for") } else { line }
    }

    fn new(panels: &[Panel]) -> Self {
        let lines = panels.iter().flat_map(|panel| &panel.lines);
        let mut names: Vec<&str> = lines.map(|line| Self::name(&line.name)).collect();
        names.sort_by_key(|name| (kind(name), *name));
        names.dedup();
        let (mut mainstay, mut rivals) = (MAINSTAY.iter().cycle(), RIVALS.iter().cycle());
        let color = |name: &str| match kind(name) {
            0 => mainstay.next(),
            1 => Some(&FLOOR),
            _ => rivals.next(),
        };
        let colors: Vec<_> = names.iter().copied().map(color).collect();
        let known = names.into_iter().zip(colors);
        Self(known.filter_map(|(name, color)| Some((name.into(), *color?))).collect())
    }

    fn color(&self, line: &str) -> RGBColor {
        let found = self.0.iter().find(|(name, _)| name == Self::name(line));
        found.map_or(TEXT, |(_, color)| *color)
    }

    /// Returns the place of each entry, and the height of all entries.
    fn places(&self, top: i32) -> (Vec<(i32, i32)>, i32) {
        let (mut x, mut y) = (24, top + 12);
        let mut places = Vec::new();
        for (name, _) in &self.0 {
            let width = 48 + 7 * name.chars().count() as i32;
            if x + width > WIDTH {
                (x, y) = (24, y + 22);
            }
            places.push((x, y));
            x += width;
        }
        (places, y + 14 - top)
    }
}

fn points_of(panels: &[Panel]) -> impl Iterator<Item = (f64, f64)> + Clone {
    panels.iter().flat_map(|panel| &panel.lines).flat_map(|line| &line.points).copied()
}

/// Draws panels, two side by side. Both axes are logarithmic, and the same in all panels. Returns
/// whether there was anything to draw.
pub fn lines(
    path: &Path,
    title: &str,
    note: &str,
    across: &str,
    panels: &[Panel],
    show: fn(f64) -> String,
) -> Result<bool> {
    const TOP: i32 = 36;
    const LEFT: i32 = 70;
    const PANEL: (i32, i32) = (WIDTH / 2, 290);

    let panels_in_row = if panels.len() == 1 { 1 } else { 2 };
    let rows = panels.len().div_ceil(panels_in_row) as i32;
    let legend = Legend::new(panels);
    let (places, legend_height) = legend.places(TOP + rows * PANEL.1);

    let all_y = points_of(panels).map(|(_, y)| y);
    let (top, bottom) = (30, PANEL.1 - 50);
    let Some(y_axis) = Axis::around(all_y, bottom, top) else { return Ok(false) };

    let all_x = points_of(panels).map(|(x, _)| x);
    let low = all_x.clone().fold(f64::INFINITY, f64::min);
    // The range is not empty even if there is only one value.
    let high = all_x.fold(low * 10.0_f64.sqrt(), f64::max);

    let canvas = Canvas::new(path, WIDTH, TOP + rows * PANEL.1 + legend_height);
    canvas.text(title, (12, 18), 18, TEXT, HPos::Left)?;
    canvas.text(note, (WIDTH - 12, 18), 13, TEXT, HPos::Right)?;
    for (i, panel) in panels.iter().enumerate() {
        let i = i as i32;
        let width = if panels_in_row == 1 { WIDTH } else { PANEL.0 };
        let (left, above) = (i % 2 * width + LEFT, TOP + i / 2 * PANEL.1);
        let right = left + width - LEFT - 24;

        let mut xs: Vec<f64> =
            panel.lines.iter().flat_map(|line| line.points.iter().map(|&(x, _)| x)).collect();
        xs.sort_by(f64::total_cmp);
        xs.dedup();
        let x_axis = Axis { low, high, from: left + 12, to: right };

        canvas.text(&panel.title, ((left + right) / 2, above + 12), 15, TEXT, HPos::Center)?;
        for decade in y_axis.decades() {
            let y = above + y_axis.at(decade);
            canvas.line(vec![(left, y), (right, y)], TEXT.mix(0.3), 1)?;
            canvas.text(&tick(decade, show), (left - 6, y), 12, TEXT, HPos::Right)?;
        }
        for &x in &xs {
            let at = x_axis.at(x);
            let y = above + bottom;
            canvas.line(vec![(at, y), (at, y + 5)], TEXT.mix(0.8), 1)?;
            canvas.text(&short(x), (at, y + 14), 12, TEXT, HPos::Center)?;
        }
        canvas.text(across, ((left + right) / 2, above + bottom + 32), 12, TEXT, HPos::Center)?;

        // The lines of mainstay come last, so that they are drawn above the others.
        let mut lines: Vec<&Line> = panel.lines.iter().collect();
        lines.sort_by_key(|line| is_mainstay(&line.name));
        for line in lines {
            let color = legend.color(&line.name);
            let thick = if is_mainstay(&line.name) { 3 } else { 2 };
            let place = |&(x, y): &(f64, f64)| (x_axis.at(x), above + y_axis.at(y));
            let places: Vec<_> = line.points.iter().map(place).collect();
            for &place in &places {
                canvas.dot(place, thick + 1, color)?;
            }
            canvas.line(places, color.mix(1.0), thick as u32)?;
        }
    }
    for ((name, color), &(x, y)) in legend.0.iter().zip(&places) {
        canvas.line(vec![(x, y), (x + 18, y)], color.mix(1.0), 3)?;
        canvas.dot((x + 9, y), 4, *color)?;
        canvas.text(name, (x + 24, y), 14, TEXT, HPos::Left)?;
    }
    canvas.finish()?;
    Ok(true)
}

/// Returns the time or the bytes of one of `count` items.
pub fn each(total: f64, count: u64) -> f64 {
    total / count.max(1) as f64
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format;

    #[test]
    fn labels_of_ticks_are_short() {
        assert_eq!(tick(10.0, format::time), "10 ns");
        assert_eq!(tick(0.1, format::ratio), "0.1×");
        assert_eq!(tick(100.0, format::time), "100 ns");
        assert_eq!(short(100_000.0), "100k");
        assert_eq!(short(1.0), "1");
    }
}
