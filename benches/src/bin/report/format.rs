//! Numbers as readable text.

/// Returns three digits and a unit. From 1000 on the next larger unit is used.
fn scaled(mut number: f64, units: &[&str], step: f64) -> String {
    let mut unit = 0;
    while number >= step * 0.9995 && unit + 1 < units.len() {
        number /= step;
        unit += 1;
    }
    format!("{}{}", digits(number), units[unit])
}

/// Returns three digits, or more if there are more before the decimal point.
pub fn digits(number: f64) -> String {
    match number.abs() {
        size if size >= 99.95 => format!("{number:.0}"),
        size if size >= 9.995 => format!("{number:.1}"),
        _ => format!("{number:.2}"),
    }
}

pub fn time(ns: f64) -> String {
    scaled(ns, &[" ns", " µs", " ms", " s"], 1e3)
}

pub fn bytes(bytes: f64) -> String {
    scaled(bytes, &[" B", " KiB", " MiB", " GiB"], 1024.0)
}

pub fn ratio(ratio: f64) -> String {
    format!("{}×", digits(ratio))
}

/// Formats 1000000 as 1,000,000.
pub fn count(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// Returns the date of a time in seconds since 1970.
pub fn date(seconds: u64) -> String {
    // Years begin in March here, so that the leap day is the last day of a year.
    let days = seconds / 86_400 + 719_468;
    let (era, day) = (days / 146_097, days % 146_097);
    let year = (day - day / 1_460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let day = day - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    let year = era * 400 + year + u64::from(month <= 2);
    format!("{year}-{month:02}-{day:02}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_have_three_digits_and_a_unit() {
        assert_eq!(time(1.234), "1.23 ns");
        assert_eq!(time(999.7), "1.00 µs");
        assert_eq!(time(45_600_000.0), "45.6 ms");
        assert_eq!(time(1e13), "10000 s");
        assert_eq!(bytes(1536.0), "1.50 KiB");
        assert_eq!(ratio(0.5), "0.50×");
        assert_eq!(count(1_000_000), "1,000,000");
        assert_eq!(count(10), "10");
    }

    #[test]
    fn dates_are_correct_in_leap_years_and_at_the_end_of_a_year() {
        assert_eq!(date(0), "1970-01-01");
        assert_eq!(date(951_782_400), "2000-02-29");
        assert_eq!(date(1_767_225_599), "2025-12-31");
    }
}
