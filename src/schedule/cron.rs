//! The five fields of cron, over local times: which of them fit, whatever the zone does with its clocks.
//!
//! `cronexpr` reads the fields and finds the next time that fits. Its own rules for the hours that clocks skip
//! or repeat are not ours, so it works here in UTC, where there are none; `instants` makes instants of what it
//! finds. It gives up after four years, which would end a 29 February in 2096. Its extensions (`L`, `W`, `#`,
//! `H`) are refused: `L` never comes in December.

use anyhow::{Result, bail};
use cronexpr::{Crontab, MakeTimestamp};
use jiff::civil::{DateTime, date};
use jiff::tz::TimeZone;
use jiff::{SignedDuration, ToSpan};

/// How often four years are searched. Two leap days are at most eight years apart.
const SEARCHES: u32 = 3;

/// When a task runs, as cron writes it: minute, hour, day of the month, month, day of the week.
#[derive(Clone, Debug)]
pub struct CronPattern {
    fields: String,
    crontab: Crontab,
}

/// Two patterns are the same if they are written in the same way.
impl PartialEq for CronPattern {
    fn eq(&self, other: &Self) -> bool {
        self.fields == other.fields
    }
}

impl Eq for CronPattern {}

impl CronPattern {
    /// # Errors
    /// These are not five fields of cron, or no day ever fits them.
    pub fn parse(text: &str) -> Result<Self> {
        let fields: Vec<&str> = text.split_whitespace().collect();
        let fields = match fields.as_slice() {
            fields @ [_, _, _, _, _] if fields.iter().all(|field| has_plain_items(field)) => fields.join(" "),
            [_, ..] | [] => bail!("{}", not_cron(text)),
        };
        let Ok(crontab) = cronexpr::parse_crontab(&format!("{fields} UTC")) else {
            bail!("{}", not_cron(text))
        };
        let pattern = Self { fields, crontab };
        // A leap year begins here, and the days of the week of all years follow.
        if pattern.next_local_time(date(2000, 1, 1).at(0, 0, 0, 0)).is_none() {
            bail!("cron {} never comes: there is no such day", pattern.fields);
        }
        Ok(pattern)
    }

    /// The five fields, with a space between.
    pub fn fields(&self) -> &str {
        &self.fields
    }

    /// The first local time after `after` that fits; local times never jump here.
    pub fn next_local_time(&self, after: DateTime) -> Option<DateTime> {
        let mut from = TimeZone::UTC.to_timestamp(after).ok()?;
        for _ in 0..SEARCHES {
            if let Ok(found) = self.crontab.find_next(MakeTimestamp(from)) {
                return Some(found.datetime());
            }
            // It has looked at the first minute after four years too.
            from = from.to_zoned(TimeZone::UTC).checked_add(4.years()).ok()?.timestamp();
            from = from.checked_sub(SignedDuration::from_mins(1)).ok()?;
        }
        None
    }
}

fn not_cron(text: &str) -> String {
    format!(
        "{text:?} is not what cron takes: five fields for minute (0-59), hour (0-23), day of the month (1-31), month \
         (1-12 or JAN-DEC) and day of the week (0-7 or SUN-SAT; 0 and 7 are Sunday), each a number, a range 1-5, a \
         list 1,15 or * for all, with steps as in */15"
    )
}

/// Whether a field has numbers, names, `*`, ranges, steps and lists only.
fn has_plain_items(field: &str) -> bool {
    field.split([',', '-', '/']).all(|item| {
        let is_number = (1..=2).contains(&item.len()) && item.bytes().all(|byte| byte.is_ascii_digit());
        let is_name = item.len() == 3 && item.bytes().all(|byte| byte.is_ascii_alphabetic());
        item == "*" || is_number || is_name
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn next_times(fields: &str, after: &str, count: usize) -> Vec<String> {
        let pattern = CronPattern::parse(fields).unwrap();
        let mut at: DateTime = after.parse().unwrap();
        let mut found = Vec::new();
        while found.len() < count {
            at = pattern.next_local_time(at).unwrap();
            found.push(at.strftime("%Y-%m-%d %H:%M").to_string());
        }
        found
    }

    #[test]
    fn five_fields_say_when() {
        for (fields, times) in [
            ("0 9 * * *", ["2026-12-01 09:00", "2026-12-02 09:00"]),
            ("*/20 9-10 * * MON-FRI", ["2026-11-30 10:20", "2026-11-30 10:40"]),
            ("0 0 31 * *", ["2026-12-31 00:00", "2027-01-31 00:00"]),
            ("30 7 1 jan *", ["2027-01-01 07:30", "2028-01-01 07:30"]),
            ("0 12 * * 7", ["2026-12-06 12:00", "2026-12-13 12:00"]),
            // One day or the other, as in every cron.
            ("0 0 2 * FRI", ["2026-12-02 00:00", "2026-12-04 00:00"]),
            // But both, if one of them begins with a star: as Vixie's cron has it.
            ("0 0 */2 * FRI", ["2026-12-11 00:00", "2026-12-25 00:00"]),
            ("0 0 4 * */2", ["2027-02-04 00:00", "2027-03-04 00:00"]),
            ("0 0 29 2 *", ["2028-02-29 00:00", "2032-02-29 00:00"]),
        ] {
            assert_eq!(next_times(fields, "2026-11-30T10:00", 2), times, "{fields}");
        }
        // 2100 is no leap year.
        assert_eq!(next_times("0 0 29 2 *", "2096-03-01T00:00", 1), ["2104-02-29 00:00"]);
    }

    #[test]
    fn what_is_no_cron_is_refused_with_what_is() {
        for bad in [
            "",
            "not a cron",
            "* * * *",
            "* * * * * *",
            "0 9 * * * Europe/Madrid",
            "60 * * * *",
            "* 24 * * *",
            "* * 0 * *",
            "* * 32 * *",
            "* * * 13 *",
            "* * * * 8",
            "0 0 L * *",
            "0 0 15W * *",
            "0 0 * * 5#3",
            "0 0 * * 5L",
            "H * * * *",
            "0 0 ? * *",
            "*/0 * * * *",
            "5-1 * * * *",
            "@daily",
            "0 9 * * lunes",
            "1--2 * * * *",
            "-1 * * * *",
            ", * * * *",
        ] {
            let error = CronPattern::parse(bad).unwrap_err().to_string();
            assert!(error.contains("five fields for minute"), "{bad}: {error}");
        }
        for never in ["0 0 30 2 *", "0 0 31 4,6,9,11 *", "* * 31 2 *"] {
            let error = CronPattern::parse(never).unwrap_err().to_string();
            assert!(error.contains("never comes"), "{never}: {error}");
        }
    }
}
