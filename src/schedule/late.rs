//! What a task does about an instant that passed while nanokimi was not there. Pure.
//!
//! Of all the instants that passed, only the last one is ever run: nobody wants ten reminders of one thing.

use std::fmt;

use anyhow::{Result, bail};
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};

use super::durations::{parse_duration, render_duration};
use super::grammar::Schedule;

/// A run that begins within this time of its instant is not late: the machine may have been busy, or asleep
/// until a moment ago.
pub const ON_TIME_WITHIN: SignedDuration = SignedDuration::from_mins(3);

/// A task's own rule about running late.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LateRule {
    /// It does not run late.
    Skip,
    /// It runs once, however late.
    #[default]
    Once,
    /// It runs once if it is no later than this.
    Within(SignedDuration),
}

impl LateRule {
    /// # Errors
    /// It is no rule; says what is accepted.
    pub fn parse(text: &str) -> Result<Self> {
        let text = text.trim();
        match text.split_once(char::is_whitespace) {
            None if text.eq_ignore_ascii_case("skip") => Ok(Self::Skip),
            None if text.eq_ignore_ascii_case("once") => Ok(Self::Once),
            Some((word, duration)) if word.eq_ignore_ascii_case("within") => {
                Ok(Self::Within(parse_duration(duration)?))
            }
            Some(_) | None => {
                bail!("{text:?} is not a rule for late runs; write \"skip\", \"once\" or \"within 2h\"")
            }
        }
    }

    /// Whether a run that is so late may begin.
    pub fn allows(self, late_by: SignedDuration) -> bool {
        late_by <= ON_TIME_WITHIN
            || match self {
                Self::Skip => false,
                Self::Once => true,
                Self::Within(longest) => late_by <= longest,
            }
    }
}

impl fmt::Display for LateRule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Skip => f.write_str("skip"),
            Self::Once => f.write_str("once"),
            Self::Within(longest) => write!(f, "within {}", render_duration(*longest)),
        }
    }
}

/// A run for an instant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DueRun {
    pub due_at: Timestamp,
    /// Zero if it is on time.
    pub late_by: SignedDuration,
}

/// What is due, and when the task is due next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LateDecision {
    /// Nothing is due yet.
    NotDue,
    Runs {
        run: DueRun,
        next_at: Option<Timestamp>,
    },
    /// The last instant that passed is too long ago for the task's rule.
    Skipped {
        missed: DueRun,
        next_at: Option<Timestamp>,
    },
}

/// Decides what is due at `now` of a task whose next instant was `next_at`.
pub fn decide_late_run(
    schedule: &Schedule,
    zone: &TimeZone,
    next_at: Timestamp,
    rule: LateRule,
    now: Timestamp,
) -> LateDecision {
    if next_at > now {
        return LateDecision::NotDue;
    }
    let due_at = schedule.last_until(next_at, now, zone).unwrap_or(next_at);
    let behind = now.duration_since(due_at);
    let late_by = if behind <= ON_TIME_WITHIN { SignedDuration::ZERO } else { behind };
    let (run, next_at) = (DueRun { due_at, late_by }, schedule.next_after(now, zone));
    if rule.allows(behind) {
        LateDecision::Runs { run, next_at }
    } else {
        LateDecision::Skipped { missed: run, next_at }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::grammar::ScheduleBase;
    use super::*;

    /// `due 09:00, late 3 h` or `skipped 09:00`, and when it is due next.
    fn decided(schedule: &str, rule: &str, next_at: &str, now: &str) -> String {
        let at = |text: &str| -> Timestamp { text.parse().unwrap() };
        let base = ScheduleBase { now: at("2026-11-01T00:00:00Z"), zone: &TimeZone::UTC };
        let schedule = Schedule::parse(schedule, base).unwrap();
        let rule = LateRule::parse(rule).unwrap();
        let shown = |run: DueRun, next: Option<Timestamp>| {
            let next = next.map_or_else(|| "never".to_owned(), |next| next.to_string());
            format!("{}, late {}, next {next}", run.due_at, render_duration(run.late_by))
        };
        match decide_late_run(&schedule, &TimeZone::UTC, at(next_at), rule, at(now)) {
            LateDecision::NotDue => "not due".to_owned(),
            LateDecision::Runs { run, next_at } => format!("runs {}", shown(run, next_at)),
            LateDecision::Skipped { missed, next_at } => format!("skips {}", shown(missed, next_at)),
        }
    }

    #[test]
    fn after_downtime_each_rule_does_its_own() {
        let daily = |rule: &str, now: &str| decided("cron 0 9 * * *", rule, "2026-12-01T09:00:00Z", now);
        assert_eq!(daily("once", "2026-12-01T08:59:59Z"), "not due");
        let on_time = "runs 2026-12-01T09:00:00Z, late 0s, next 2026-12-02T09:00:00Z";
        for rule in ["skip", "once", "within 1h"] {
            assert_eq!(daily(rule, "2026-12-01T09:00:00Z"), on_time);
            assert_eq!(daily(rule, "2026-12-01T09:00:59Z"), on_time);
        }
        let three_days = "2026-12-04T11:00:00Z";
        let of_today = "2026-12-04T09:00:00Z, late 2h, next 2026-12-05T09:00:00Z";
        assert_eq!(daily("once", three_days), format!("runs {of_today}"));
        assert_eq!(daily("within 2h", three_days), format!("runs {of_today}"));
        assert_eq!(daily("within 119m", three_days), format!("skips {of_today}"));
        assert_eq!(daily("skip", three_days), format!("skips {of_today}"));

        let hourly =
            |rule: &str| decided("cron 0 * * * *", rule, "2026-12-01T09:00:00Z", "2026-12-04T11:00:20Z");
        for rule in ["skip", "once", "within 5m"] {
            assert_eq!(hourly(rule), "runs 2026-12-04T11:00:00Z, late 0s, next 2026-12-04T12:00:00Z");
        }
        let once =
            |rule: &str| decided("at 2026-12-01 09:00", rule, "2026-12-01T09:00:00Z", "2026-12-04T09:00:00Z");
        assert_eq!(once("once"), "runs 2026-12-01T09:00:00Z, late 3d, next never");
        assert_eq!(once("skip"), "skips 2026-12-01T09:00:00Z, late 3d, next never");
    }

    #[test]
    fn the_rule_is_written_in_words() {
        for (text, kept) in [("skip", "skip"), (" Once ", "once"), ("within 90m", "within 1h30m")] {
            assert_eq!(LateRule::parse(text).unwrap().to_string(), kept);
        }
        for bad in ["", "always", "within", "within x", "skip it"] {
            LateRule::parse(bad).unwrap_err();
        }
        assert_eq!(LateRule::default(), LateRule::Once);
    }

    proptest! {
        #[test]
        fn a_task_never_stays_due_and_never_runs_what_is_to_come(
            step in 60_i64..1_000_000, next in -1_000_000_i64..1_000_000, now in -1_000_000_i64..1_000_000_000,
            within in 1_i64..1_000_000,
        ) {
            let at = |second| Timestamp::from_second(second).unwrap();
            let schedule = Schedule::Every { interval: SignedDuration::from_secs(step), anchor: at(next) };
            for rule in [LateRule::Skip, LateRule::Once, LateRule::Within(SignedDuration::from_secs(within))] {
                let decision = decide_late_run(&schedule, &TimeZone::UTC, at(next), rule, at(now));
                match decision {
                    LateDecision::NotDue => prop_assert!(next > now),
                    LateDecision::Runs { run, next_at } | LateDecision::Skipped { missed: run, next_at } => {
                        prop_assert!(run.due_at >= at(next) && run.due_at <= at(now));
                        prop_assert!(next_at.unwrap() > at(now));
                        let runs = matches!(decision, LateDecision::Runs { .. });
                        prop_assert!(rule != LateRule::Once || runs);
                    }
                }
            }
        }
    }
}
