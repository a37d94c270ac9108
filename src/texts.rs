//! Parts of the texts of events, statuses and errors.

use std::{fmt, time::Duration};

/// Writes a duration for an operator: rounded, with one unit.
pub(crate) struct Rounded(pub(crate) Duration);

impl fmt::Display for Rounded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const MINUTE: u64 = 60;
        const HOUR: u64 = 60 * MINUTE;
        const DAY: u64 = 24 * HOUR;
        match self.0.as_secs() {
            0 if self.0 < Duration::from_millis(1) => write!(f, "{} µs", self.0.as_micros()),
            0 => write!(f, "{} ms", self.0.as_millis()),
            1..10 => {
                let tenths = self.0.as_millis() / 100;
                match tenths % 10 {
                    0 => write!(f, "{} s", tenths / 10),
                    tenth => write!(f, "{}.{tenth} s", tenths / 10),
                }
            }
            secs @ 10..120 => write!(f, "{secs} s"),
            secs if secs < 2 * HOUR => write!(f, "{} min", secs / MINUTE),
            secs if secs < 2 * DAY => write!(f, "{} h", secs / HOUR),
            secs => write!(f, "{} d", secs / DAY),
        }
    }
}

/// Writes a number of failures.
pub(crate) struct Failures(pub(crate) u32);

impl fmt::Display for Failures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            1 => f.write_str("1 failure"),
            failures => write!(f, "{failures} failures"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_have_one_unit_and_are_rounded_down() {
        let (s, ms) = (Duration::from_secs, Duration::from_millis);
        let cases = [
            (Duration::ZERO, "0 µs"),
            (Duration::from_nanos(250_900), "250 µs"),
            (ms(1), "1 ms"),
            (ms(999), "999 ms"),
            (s(1), "1 s"),
            (ms(3_299), "3.2 s"),
            (ms(9_999), "9.9 s"),
            (ms(10_900), "10 s"),
            (s(119), "119 s"),
            (s(120), "2 min"),
            (s(7_199), "119 min"),
            (s(7_200), "2 h"),
            (s(172_799), "47 h"),
            (s(172_800), "2 d"),
            (Duration::MAX, "213503982334601 d"),
        ];
        for (duration, text) in cases {
            assert_eq!(Rounded(duration).to_string(), text);
        }
    }
}
