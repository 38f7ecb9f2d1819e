//! When a task runs: the words of a schedule, the instants that they mean, and what is due after downtime.
//!
//! Pure: whoever asks passes the time and the time zone.
//!
//! | | |
//! |---|---|
//! | `grammar` | `cron`, `every`, `at` and `in` become a [`Schedule`], or an error that says what is accepted |
//! | `cron` | the five fields, over local times |
//! | `instants` | the next instant of a schedule, and the last one that is due |
//! | `late` | what a task does about an instant that passed while nanokimi was not there |
//! | `durations`, `zones` | `1h30m`; `Europe/Madrid`, and the instant that a local time means there |
//!
//! The rules where clocks are changed: a local time that is skipped means the first instant after the gap,
//! once. A local time that comes twice means the first of the two, and only that. `every` is elapsed time, so
//! that clocks do not matter to it.

mod cron;
mod durations;
mod grammar;
mod instants;
mod late;
mod zones;

pub use cron::CronPattern;
pub use durations::{parse_duration, render_duration};
pub use grammar::{PlannedTime, SCHEDULE_FORMS, SCHEDULE_MAX_CHARS, Schedule, ScheduleBase};
pub use late::{DueRun, LateDecision, LateRule, ON_TIME_WITHIN, decide_late_run};
pub use zones::{parse_zone, zone_name};
