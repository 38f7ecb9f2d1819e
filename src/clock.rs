//! The wall clock, which is passed to all code that needs it, and the days of a time zone. Tests anchor it to
//! Tokio's clock, which they can pause, and set it meanwhile.
//!
//! The wall clock may be set at any moment, by hours: by the machine's owner, or by itself after a boot. So
//! it says when something happened, and never how long to wait: that is Tokio's `Instant`.

use std::sync::atomic::{AtomicI64, Ordering};

use jiff::civil::Date;
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};
use tokio::time::{Instant, sleep_until};

/// Where "now" comes from.
#[derive(Clone, Copy, Debug)]
pub enum Clock {
    System,
    /// `wall` was the time at `instant`. From there it goes as Tokio's clock goes, but for the milliseconds
    /// by which it was set since.
    Anchored {
        wall: Timestamp,
        instant: Instant,
        set_millis: &'static AtomicI64,
    },
}

impl Clock {
    #[expect(clippy::disallowed_methods, reason = "the one place that reads the wall clock")]
    pub fn now(&self) -> Timestamp {
        match self {
            Self::System => Timestamp::now(),
            Self::Anchored { wall, instant, set_millis } => {
                let gone = SignedDuration::try_from(instant.elapsed()).unwrap_or(SignedDuration::MAX);
                let set = SignedDuration::from_millis(set_millis.load(Ordering::Relaxed));
                wall.saturating_add(gone.saturating_add(set)).unwrap_or(Timestamp::MAX)
            }
        }
    }
}

/// A day of a time zone, from one local midnight to the next. When clocks are changed, it has 23 or 25 hours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Day {
    pub date: Date,
    pub begins: Timestamp,
    /// When the next day begins.
    pub ends: Timestamp,
}

impl Day {
    /// The day of `now`.
    pub fn from_time(now: Timestamp, zone: &TimeZone) -> Self {
        let date = now.to_zoned(zone.clone()).date();
        Self::from_date(date, zone)
    }

    /// The last `count` days, oldest first; the day of `now` is the last of them.
    pub fn last_days(count: u32, now: Timestamp, zone: &TimeZone) -> Vec<Self> {
        let mut days = vec![Self::from_time(now, zone)];
        while let Ok(before) = days[days.len() - 1].date.yesterday()
            && days.len() < count as usize
        {
            days.push(Self::from_date(before, zone));
        }
        days.reverse();
        days
    }

    fn from_date(date: Date, zone: &TimeZone) -> Self {
        // If clocks jump over midnight, the day begins after the jump.
        let begin = |date: Date| Some(date.to_zoned(zone.clone()).ok()?.timestamp());
        let ends = date.tomorrow().ok().and_then(begin);
        Self { date, begins: begin(date).unwrap_or(Timestamp::MIN), ends: ends.unwrap_or(Timestamp::MAX) }
    }
}

/// Waits for an instant that may never come.
pub async fn sleep_until_or_never(at: Option<Instant>) {
    match at {
        Some(at) => sleep_until(at).await,
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The days up to `now` with their lengths in hours.
    fn days(count: u32, now: &str, zone: &str) -> String {
        let zone = TimeZone::get(zone).unwrap();
        let days = Day::last_days(count, now.parse().unwrap(), &zone);
        assert!(days.windows(2).all(|pair| pair[0].ends == pair[1].begins), "{days:?}");
        let shown = |day: &Day| {
            let begins = day.begins.to_zoned(zone.clone()).strftime("%H:%M");
            format!("{} from {begins}, {} h", day.date, day.ends.duration_since(day.begins).as_hours())
        };
        days.iter().map(shown).collect::<Vec<_>>().join("\n")
    }

    #[test]
    fn a_day_lasts_from_midnight_to_midnight_where_people_are() {
        insta::assert_snapshot!(days(3, "2026-11-21T23:30:00Z", "Europe/Madrid"), @"
        2026-11-20 from 00:00, 24 h
        2026-11-21 from 00:00, 24 h
        2026-11-22 from 00:00, 24 h
        ");
        assert_eq!(days(1, "2026-11-21T23:30:00Z", "UTC"), "2026-11-21 from 00:00, 24 h");
    }

    #[test]
    fn where_clocks_are_changed_a_day_is_shorter_or_longer() {
        insta::assert_snapshot!(days(2, "2026-03-29T12:00:00Z", "Europe/Madrid"), @"
        2026-03-28 from 00:00, 24 h
        2026-03-29 from 00:00, 23 h
        ");
        insta::assert_snapshot!(days(2, "2026-10-25T12:00:00Z", "Europe/Madrid"), @"
        2026-10-24 from 00:00, 24 h
        2026-10-25 from 00:00, 25 h
        ");
        // There the clocks jump over midnight itself.
        insta::assert_snapshot!(days(2, "2026-09-06T12:00:00Z", "America/Santiago"), @"
        2026-09-05 from 00:00, 24 h
        2026-09-06 from 01:00, 23 h
        ");
    }
}
