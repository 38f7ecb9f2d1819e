//! The words of a schedule. Each begins with another word, so that nothing is ever guessed.
//!
//! ```text
//! cron 0 9 * * MON-FRI            local time, in the task's zone
//! every 2h [from 2026-12-01 09:00]  elapsed time, on its grid
//! at 2026-12-01 09:00             local time; with an offset (+01:00, Z) an instant
//! in 30m                          from now; kept as an instant
//! ```

use std::fmt;

use anyhow::{Context, Result, bail, ensure};
use jiff::civil::DateTime;
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};

use super::cron::CronPattern;
use super::durations::{parse_duration, render_duration};
use super::zones::first_instant_of;

/// The most characters of a schedule: a cron with every minute in a list has fewer.
pub const SCHEDULE_MAX_CHARS: usize = 400;
/// The shortest interval of `every`, which is cron's too: each run is a turn of an agent.
const SHORTEST_INTERVAL: SignedDuration = SignedDuration::from_mins(1);
/// The longest interval of `every` and of `in`: what is further away is a mistake.
const LONGEST_INTERVAL: SignedDuration = SignedDuration::from_hours(24 * 366 * 10);
/// What is accepted, for an error and for help.
pub const SCHEDULE_FORMS: &str = "\"cron 0 9 * * MON-FRI\" (minute, hour, day of the month, month, day of the week), \
     \"every 2h\" (or \"every 2h from 2026-12-01 09:00\"), \"at 2026-12-01 09:00\" (local time, or with an offset such \
     as 2026-12-01T09:00+01:00) or \"in 30m\"";

/// When a task runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Schedule {
    Cron(CronPattern),
    /// At `anchor`, and then after each interval.
    Every {
        interval: SignedDuration,
        anchor: Timestamp,
    },
    /// Once.
    At(PlannedTime),
}

/// A time that somebody planned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PlannedTime {
    /// In the task's zone, whichever that is.
    Local(DateTime),
    Instant(Timestamp),
}

/// What a schedule is relative to when somebody writes it.
#[derive(Clone, Copy, Debug)]
pub struct ScheduleBase<'a> {
    pub now: Timestamp,
    pub zone: &'a TimeZone,
}

impl Schedule {
    /// Reads what somebody has written, or what [`fmt::Display`] has made of that, which depends on no base
    /// any more.
    ///
    /// # Errors
    /// It is no schedule; says what is accepted.
    pub fn parse(text: &str, base: ScheduleBase<'_>) -> Result<Self> {
        ensure!(
            text.chars().count() <= SCHEDULE_MAX_CHARS,
            "A schedule has at most {SCHEDULE_MAX_CHARS} characters"
        );
        let text = text.trim();
        let (word, rest) = text.split_once(char::is_whitespace).unwrap_or((text, ""));
        let rest = rest.trim();
        match word.to_ascii_lowercase().as_str() {
            "cron" => Ok(Self::Cron(CronPattern::parse(rest)?)),
            "every" => parse_every(rest, base),
            "at" => Ok(Self::At(parse_planned_time(rest)?)),
            "in" => {
                let instant = base.now.checked_add(parse_bounded_duration(rest)?);
                Ok(Self::At(PlannedTime::Instant(drop_fraction(instant.context("That is too far away")?))))
            }
            _ => bail!("{text:?} is not a schedule; write {SCHEDULE_FORMS}"),
        }
    }

    /// Whether it runs once only.
    pub fn is_once(&self) -> bool {
        matches!(self, Self::At(_))
    }
}

impl fmt::Display for Schedule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Cron(pattern) => write!(f, "cron {}", pattern.fields()),
            Self::Every { interval, anchor } => {
                write!(f, "every {} from {anchor}", render_duration(*interval))
            }
            Self::At(PlannedTime::Local(local)) => write!(f, "at {local}"),
            Self::At(PlannedTime::Instant(instant)) => write!(f, "at {instant}"),
        }
    }
}

fn parse_every(text: &str, base: ScheduleBase<'_>) -> Result<Schedule> {
    let (interval, anchor) = match text.split_once(" from ") {
        Some((interval, from)) => {
            let from = match parse_planned_time(from.trim())? {
                PlannedTime::Instant(instant) => Some(instant),
                PlannedTime::Local(local) => first_instant_of(local, base.zone),
            };
            (interval, from.context("That is too far away")?)
        }
        None => (text, base.now),
    };
    let interval = parse_bounded_duration(interval)?;
    ensure!(interval >= SHORTEST_INTERVAL, "A task runs at most once a minute; {text:?} is more often");
    Ok(Schedule::Every { interval, anchor: drop_fraction(anchor) })
}

fn parse_bounded_duration(text: &str) -> Result<SignedDuration> {
    let duration = parse_duration(text)?;
    ensure!(duration <= LONGEST_INTERVAL, "{text:?} is longer than ten years");
    Ok(duration)
}

/// A date with a time of day; an offset makes an instant of it.
fn parse_planned_time(text: &str) -> Result<PlannedTime> {
    // A date alone would be midnight, and a zone in brackets would be ignored.
    let is_whole = text.contains(':') && !text.contains('[');
    if is_whole && let Ok(instant) = text.parse::<Timestamp>() {
        return Ok(PlannedTime::Instant(drop_fraction(instant)));
    }
    match text.parse::<DateTime>() {
        Ok(local) if is_whole && !has_offset(text) => {
            Ok(PlannedTime::Local(local.with().subsec_nanosecond(0).build().unwrap_or(local)))
        }
        Ok(_) | Err(_) => bail!(
            "{text:?} is not a time; write 2026-12-01 09:00 for a local time, or 2026-12-01T09:00+01:00 with an offset"
        ),
    }
}

/// Whether something that looks like an offset stands behind the time of day.
fn has_offset(text: &str) -> bool {
    text.split_once(':').is_some_and(|(_, rest)| rest.contains(['+', '-', 'Z', 'z']))
}

/// Whole seconds: nothing here is more exact.
fn drop_fraction(instant: Timestamp) -> Timestamp {
    Timestamp::from_second(instant.as_second()).unwrap_or(instant)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn parse(text: &str) -> Result<Schedule> {
        let zone = TimeZone::get("Europe/Madrid").unwrap();
        Schedule::parse(text, ScheduleBase { now: "2026-11-30T15:00:00.25Z".parse().unwrap(), zone: &zone })
    }

    #[test]
    fn each_form_has_its_own_word() {
        for (written, kept) in [
            ("cron 0 9 * * *", "cron 0 9 * * *"),
            ("CRON  0 9 * * mon-fri ", "cron 0 9 * * mon-fri"),
            ("every 2h", "every 2h from 2026-11-30T15:00:00Z"),
            ("every 90 minutes", "every 1h30m from 2026-11-30T15:00:00Z"),
            ("every 1d from 2026-12-01 09:00", "every 1d from 2026-12-01T08:00:00Z"),
            ("every 1d from 2026-12-01T09:00Z", "every 1d from 2026-12-01T09:00:00Z"),
            ("at 2026-12-01 09:00", "at 2026-12-01T09:00:00"),
            ("at 2026-12-01T09:00:30", "at 2026-12-01T09:00:30"),
            ("at 2026-04-20T14:00:00+02:00", "at 2026-04-20T12:00:00Z"),
            ("at 2026-04-20T14:00:00+0200", "at 2026-04-20T12:00:00Z"),
            ("at 2026-04-20T07:00:00-05:00", "at 2026-04-20T12:00:00Z"),
            ("at 2026-04-20 12:00Z", "at 2026-04-20T12:00:00Z"),
            ("in 30m", "at 2026-11-30T15:30:00Z"),
            ("In 1 day", "at 2026-12-01T15:00:00Z"),
        ] {
            let schedule = parse(written).unwrap();
            assert_eq!(schedule.to_string(), kept, "{written}");
            let other = ScheduleBase { now: Timestamp::UNIX_EPOCH, zone: &TimeZone::UTC };
            assert_eq!(Schedule::parse(kept, other).unwrap(), schedule, "{kept} means the same for ever");
        }
    }

    #[test]
    fn nothing_is_guessed() {
        for (written, said) in [
            ("", "write \"cron 0 9 * * MON-FRI\""),
            ("not a date", "is not a schedule"),
            ("0 9 * * *", "is not a schedule"),
            ("30m", "is not a schedule"),
            ("2026-12-01 09:00", "is not a schedule"),
            ("tomorrow", "is not a schedule"),
            ("once not-a-date", "is not a schedule"),
            ("cron", "five fields"),
            ("cron not a cron", "five fields"),
            ("every abc", "is not a duration"),
            ("every 0", "is not a duration"),
            ("every 3600000", "is not a duration"),
            ("every 59s", "at most once a minute"),
            ("every 600w", "longer than ten years"),
            ("every 1h from tomorrow", "is not a time"),
            ("in 600w", "longer than ten years"),
            ("in 0s", "is not a duration"),
            ("at not a date", "is not a time"),
            ("at 09:00", "is not a time"),
            ("at 2026-12-01", "is not a time"),
            ("at 2026-02-30 09:00", "is not a time"),
            ("at 2026-12-01 25:00", "is not a time"),
            ("at 2026-12-01 09:00[Europe/Madrid]", "is not a time"),
            ("at 2026-12-01 09:00 Europe/Madrid", "is not a time"),
            ("at 2026-12-01 09:00+99:00", "is not a time"),
        ] {
            let error = parse(written).unwrap_err().to_string();
            assert!(error.contains(said), "{written}: {error}");
        }
        assert!(parse(&format!("cron {} * * * *", "1,".repeat(400))).is_err());
    }

    proptest! {
        #[test]
        fn whatever_is_typed_is_read_or_refused_and_what_is_kept_stays(
            word in "(cron|every|at|in|)", rest in "[0-9a-zA-Z :+*,/-]{0,40}",
        ) {
            if let Ok(schedule) = parse(&format!("{word} {rest}")) {
                let other = ScheduleBase { now: Timestamp::MAX, zone: &TimeZone::UTC };
                prop_assert_eq!(Schedule::parse(&schedule.to_string(), other).unwrap(), schedule);
            }
        }
    }
}
