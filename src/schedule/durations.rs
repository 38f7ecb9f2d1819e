//! Durations as people type them and as they are kept: `90s`, `30m`, `1h30m`, `2d`, `1w`.

use anyhow::{Result, bail};
use jiff::SignedDuration;

/// The units, the longest first: their letter, other words for them, and their seconds.
const UNITS: [(&str, &[&str], i64); 5] = [
    ("w", &["week", "weeks"], 7 * 24 * 60 * 60),
    ("d", &["day", "days"], 24 * 60 * 60),
    ("h", &["hour", "hours"], 60 * 60),
    ("m", &["min", "mins", "minute", "minutes"], 60),
    ("s", &["sec", "secs", "second", "seconds"], 1),
];

/// A duration: numbers with their units, such as `30m`, `1h30m` or `2 days`. A day is 24 hours.
///
/// # Errors
/// It is none, or it is nothing at all; says what is accepted.
pub fn parse_duration(text: &str) -> Result<SignedDuration> {
    match read_seconds(text) {
        Some(_) if has_capital_m(text) => {
            bail!("{text:?} may mean minutes or months; write 1m for a minute, and days or weeks for months")
        }
        Some(seconds) if seconds > 0 => Ok(SignedDuration::from_secs(seconds)),
        Some(_) | None => {
            bail!(
                "{text:?} is not a duration; write a number and its unit, such as 90s, 30m, 1h30m, 2d or 1w"
            )
        }
    }
}

/// Whether a unit is a capital M alone, as people write months.
fn has_capital_m(text: &str) -> bool {
    text.split(|c: char| !c.is_ascii_alphabetic()).any(|unit| unit == "M")
}

fn read_seconds(text: &str) -> Option<i64> {
    let mut rest = text.trim();
    let mut seconds: i64 = 0;
    if rest.is_empty() {
        return None;
    }
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
        let number: i64 = rest[..digits].parse().ok()?;
        let after = rest[digits..].trim_start();
        let letters = after.find(|c: char| !c.is_ascii_alphabetic()).unwrap_or(after.len());
        let unit = after[..letters].to_ascii_lowercase();
        let known = |(letter, words, _): &&(&str, &[&str], i64)| *letter == unit || words.contains(&&*unit);
        let (_, _, length) = UNITS.iter().find(known)?;
        seconds = seconds.checked_add(number.checked_mul(*length)?)?;
        rest = after[letters..].trim_start();
    }
    Some(seconds)
}

/// The shortest form that [`parse_duration`] reads as the same: `1h30m`.
pub fn render_duration(duration: SignedDuration) -> String {
    let mut left = duration.as_secs().max(0);
    let mut text = String::new();
    for (letter, _, length) in UNITS {
        if left >= length {
            text.push_str(&format!("{}{letter}", left / length));
            left %= length;
        }
    }
    if text.is_empty() { "0s".to_owned() } else { text }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn durations_have_numbers_and_units() {
        for (text, seconds) in [
            ("30m", 1_800),
            ("1h30m", 5_400),
            ("1h 30m", 5_400),
            ("90 minutes", 5_400),
            ("2 Days", 172_800),
            ("1w", 604_800),
            ("45s", 45),
        ] {
            assert_eq!(parse_duration(text).unwrap(), SignedDuration::from_secs(seconds), "{text}");
        }
        for month in ["1M", "1 M", "1h30M"] {
            let error = parse_duration(month).unwrap_err().to_string();
            assert!(error.contains("minutes or months"), "{month}: {error}");
        }
        for bad in [
            "",
            " ",
            "0",
            "0m",
            "30",
            "m",
            "abc",
            "-5m",
            "1.5h",
            "5mm",
            "1h30",
            "99999999999999999999w",
            "٣m",
        ] {
            let error = parse_duration(bad).unwrap_err().to_string();
            assert!(error.contains("such as 90s, 30m"), "{bad}: {error}");
        }
    }

    proptest! {
        #[test]
        fn what_is_rendered_is_read_as_the_same(seconds in 1_i64..100_000_000) {
            let duration = SignedDuration::from_secs(seconds);
            prop_assert_eq!(parse_duration(&render_duration(duration)).unwrap(), duration);
        }

        #[test]
        fn whatever_is_typed_is_read_or_refused(text in ".{0,40}") {
            parse_duration(&text).ok();
        }
    }
}
