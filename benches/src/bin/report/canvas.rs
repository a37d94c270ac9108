//! An SVG in colours that are readable on white and on black. The background is transparent.

use std::path::Path;

use anyhow::{Result, anyhow};
use plotters::{
    coord::Shift,
    prelude::*,
    style::text_anchor::{HPos, Pos, VPos},
};

pub const TEXT: RGBColor = RGBColor(0x7d, 0x85, 0x90);
pub const MAINSTAY: [RGBColor; 3] =
    [RGBColor(0x2f, 0x81, 0xf7), RGBColor(0xa3, 0x71, 0xf7), RGBColor(0x1b, 0x9a, 0xaa)];
pub const FLOOR: RGBColor = RGBColor(0x3f, 0xb9, 0x50);
pub const RIVALS: [RGBColor; 5] = [
    RGBColor(0xd2, 0x99, 0x22),
    RGBColor(0xf8, 0x51, 0x49),
    RGBColor(0xdb, 0x61, 0xa2),
    RGBColor(0x9a, 0x6b, 0x3f),
    RGBColor(0x7d, 0x85, 0x90),
];

pub type Point = (i32, i32);

pub struct Canvas<'a>(DrawingArea<SVGBackend<'a>, Shift>);

/// Adds context: an error of the file alone does not say what failed.
fn failed(error: impl std::fmt::Display) -> anyhow::Error {
    anyhow!("drawing: {error}")
}

impl<'a> Canvas<'a> {
    pub fn new(path: &'a Path, width: i32, height: i32) -> Self {
        Self(SVGBackend::new(path, (width as u32, height as u32)).into_drawing_area())
    }

    pub fn text(
        &self,
        text: &str,
        at: Point,
        size: i32,
        color: RGBColor,
        hpos: HPos,
    ) -> Result<()> {
        let pos = Pos::new(hpos, VPos::Center);
        let style = ("sans-serif", size).into_font().color(&color).pos(pos);
        self.0.draw(&Text::new(text, at, style)).map_err(failed)
    }

    pub fn rectangle(&self, from: Point, to: Point, color: RGBAColor) -> Result<()> {
        self.0.draw(&Rectangle::new([from, to], color.filled())).map_err(failed)
    }

    pub fn line(&self, points: Vec<Point>, color: RGBAColor, width: u32) -> Result<()> {
        self.0.draw(&PathElement::new(points, color.stroke_width(width))).map_err(failed)
    }

    pub fn dot(&self, at: Point, radius: i32, color: RGBColor) -> Result<()> {
        self.0.draw(&Circle::new(at, radius, color.filled())).map_err(failed)
    }

    pub fn finish(self) -> Result<()> {
        self.0.present().map_err(failed)
    }
}

/// A logarithmic axis: its range of values, and its place on the canvas.
pub struct Axis {
    pub low: f64,
    pub high: f64,
    pub from: i32,
    pub to: i32,
}

impl Axis {
    /// Returns an axis of whole decades, or `None` if there is no value to show.
    pub fn around(values: impl Iterator<Item = f64> + Clone, from: i32, to: i32) -> Option<Self> {
        let values = values.filter(|value| *value > 0.0 && value.is_finite());
        let min = values.clone().fold(f64::INFINITY, f64::min);
        let max = values.fold(0.0, f64::max);
        if max == 0.0 {
            return None;
        }
        let low = 10_f64.powf(min.log10().floor());
        let high = 10_f64.powf(max.log10().ceil()).max(low * 10.0);
        Some(Self { low, high, from, to })
    }

    pub fn at(&self, value: f64) -> i32 {
        let part = (value / self.low).log10() / (self.high / self.low).log10();
        self.from + (part.clamp(0.0, 1.0) * f64::from(self.to - self.from)).round() as i32
    }

    pub fn decades(&self) -> Vec<f64> {
        let count = (self.high / self.low).log10().round() as i32;
        (0..=count).map(|decade| self.low * 10_f64.powi(decade)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn axes_are_logarithmic() {
        let axis = Axis::around([2.0, 150.0].into_iter(), 0, 300).unwrap();
        assert_eq!(axis.decades(), [1.0, 10.0, 100.0, 1000.0]);
        assert_eq!(axis.at(10.0), 100);
        assert_eq!(axis.at(1e9), 300);
        assert!(Axis::around([0.0].into_iter(), 0, 300).is_none());
    }
}
