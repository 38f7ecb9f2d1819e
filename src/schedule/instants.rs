//! The instants that a schedule means in a time zone.

use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};

use super::cron::CronPattern;
use super::grammar::{PlannedTime, Schedule};
use super::zones::first_instant_of;

/// How far back the last instant of a cron is looked for, step by step: each is long enough that the one before
/// it, which held none, makes the search short. What is longer ago than the last step is no matter.
const LOOK_BACK: [SignedDuration; 6] = [
    SignedDuration::from_mins(2),
    SignedDuration::from_hours(1),
    SignedDuration::from_hours(25),
    SignedDuration::from_hours(24 * 32),
    SignedDuration::from_hours(24 * 367),
    SignedDuration::from_hours(24 * 366 * 9),
];

impl Schedule {
    /// The first instant strictly after `after`; `None` if there is none any more.
    pub fn next_after(&self, after: Timestamp, zone: &TimeZone) -> Option<Timestamp> {
        match self {
            Self::Cron(pattern) => next_of_cron(pattern, after, zone),
            Self::Every { interval, anchor } => next_on_grid(*anchor, *interval, after),
            Self::At(planned) => planned.to_instant(zone).filter(|instant| *instant > after),
        }
    }

    /// The last instant up to `now`, not before `from`.
    pub fn last_until(&self, from: Timestamp, now: Timestamp, zone: &TimeZone) -> Option<Timestamp> {
        let found = match self {
            Self::Cron(pattern) => last_of_cron(pattern, from, now, zone),
            Self::Every { interval, anchor } => {
                next_on_grid(*anchor, *interval, now).and_then(|next| next.checked_sub(*interval).ok())
            }
            Self::At(planned) => planned.to_instant(zone),
        };
        found.filter(|instant| (from..=now).contains(instant))
    }
}

impl PlannedTime {
    fn to_instant(self, zone: &TimeZone) -> Option<Timestamp> {
        match self {
            Self::Local(local) => first_instant_of(local, zone),
            Self::Instant(instant) => Some(instant),
        }
    }
}

fn next_of_cron(pattern: &CronPattern, after: Timestamp, zone: &TimeZone) -> Option<Timestamp> {
    let mut local = zone.to_datetime(after);
    loop {
        local = pattern.next_local_time(local)?;
        // In the second of two hours with one name, what fits had its turn in the first.
        if let Some(instant) = first_instant_of(local, zone).filter(|instant| *instant > after) {
            return Some(instant);
        }
    }
}

fn last_of_cron(
    pattern: &CronPattern,
    from: Timestamp,
    now: Timestamp,
    zone: &TimeZone,
) -> Option<Timestamp> {
    for back in LOOK_BACK {
        let began = now.saturating_sub(back).unwrap_or(Timestamp::MIN);
        let mut last = None;
        let mut at = began.max(from.saturating_sub(SignedDuration::from_secs(1)).unwrap_or(from));
        while let Some(next) = next_of_cron(pattern, at, zone).filter(|next| *next <= now) {
            last = Some(next);
            at = next;
        }
        if last.is_some() || began <= from {
            return last;
        }
    }
    None
}

/// The first of `anchor`, `anchor` and an interval, and so on, after `after`.
fn next_on_grid(anchor: Timestamp, interval: SignedDuration, after: Timestamp) -> Option<Timestamp> {
    if after < anchor {
        return Some(anchor);
    }
    let (step, gone) = (interval.as_secs().max(1), after.as_second() - anchor.as_second());
    let steps = gone / step + 1;
    Timestamp::from_second(anchor.as_second().checked_add(steps.checked_mul(step)?)?).ok()
}

#[cfg(test)]
mod tests {
    use jiff::tz;
    use proptest::prelude::*;

    use super::super::grammar::ScheduleBase;
    use super::*;

    fn zone(name: &str) -> TimeZone {
        TimeZone::get(name).unwrap()
    }

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    /// The next instants in the zone's own time.
    fn next_times(schedule: &str, zone_name: &str, after: &str, count: usize) -> Vec<String> {
        let zone = zone(zone_name);
        let mut now = at(after);
        let schedule = Schedule::parse(schedule, ScheduleBase { now, zone: &zone }).unwrap();
        let mut found = Vec::new();
        while let Some(next) = schedule.next_after(now, &zone).filter(|_| found.len() < count) {
            found.push(next.to_zoned(zone.clone()).strftime("%Y-%m-%d %H:%M:%S %:z").to_string());
            now = next;
        }
        found
    }

    #[test]
    fn a_time_that_clocks_skip_runs_once_after_the_gap() {
        // On 29 March 2026 clocks go from 02:00 to 03:00 there.
        let daily = next_times("cron 30 2 * * *", "Europe/Madrid", "2026-03-28T00:00:00Z", 3);
        assert_eq!(
            daily,
            ["2026-03-28 02:30:00 +01:00", "2026-03-29 03:00:00 +02:00", "2026-03-30 02:30:00 +02:00"]
        );
        let often = next_times("cron */20 1-3 29 3 *", "Europe/Madrid", "2026-03-29T00:30:00Z", 4);
        assert_eq!(
            often,
            [
                "2026-03-29 01:40:00 +01:00",
                "2026-03-29 03:00:00 +02:00",
                "2026-03-29 03:20:00 +02:00",
                "2026-03-29 03:40:00 +02:00"
            ]
        );
        let once = next_times("at 2026-03-29 02:30", "Europe/Madrid", "2026-03-28T00:00:00Z", 3);
        assert_eq!(once, ["2026-03-29 03:00:00 +02:00"]);
        // Half an hour is skipped there.
        let half = next_times("at 2026-10-04 02:15", "Australia/Lord_Howe", "2026-10-01T00:00:00Z", 3);
        assert_eq!(half, ["2026-10-04 02:30:00 +11:00"]);
        // A whole day was skipped there.
        let day = next_times("cron 0 12 * * *", "Pacific/Apia", "2011-12-29T12:00:00Z", 3);
        assert_eq!(
            day,
            ["2011-12-29 12:00:00 -10:00", "2011-12-31 00:00:00 +14:00", "2011-12-31 12:00:00 +14:00"]
        );
    }

    #[test]
    fn a_time_that_comes_twice_runs_the_first_time_only() {
        // On 25 October 2026 clocks go from 03:00 back to 02:00 there.
        let daily = next_times("cron 30 2 * * *", "Europe/Madrid", "2026-10-24T12:00:00Z", 2);
        assert_eq!(daily, ["2026-10-25 02:30:00 +02:00", "2026-10-26 02:30:00 +01:00"]);
        let often = next_times("cron */30 2-3 * * *", "Europe/Madrid", "2026-10-24T12:00:00Z", 4);
        assert_eq!(
            often,
            [
                "2026-10-25 02:00:00 +02:00",
                "2026-10-25 02:30:00 +02:00",
                "2026-10-25 03:00:00 +01:00",
                "2026-10-25 03:30:00 +01:00"
            ]
        );
        // Asked in the second of the two hours.
        let asked_within = next_times("cron */30 * * * *", "Europe/Madrid", "2026-10-25T01:10:00Z", 1);
        assert_eq!(asked_within, ["2026-10-25 03:00:00 +01:00"]);
        let new_york = next_times("cron 30 1 * * *", "America/New_York", "2026-11-01T00:00:00Z", 2);
        assert_eq!(new_york, ["2026-11-01 01:30:00 -04:00", "2026-11-02 01:30:00 -05:00"]);
    }

    #[test]
    fn every_is_elapsed_time_whatever_clocks_do() {
        let every = next_times("every 1h from 2026-10-25 01:00", "Europe/Madrid", "2026-10-24T23:00:00Z", 4);
        assert_eq!(
            every,
            [
                "2026-10-25 02:00:00 +02:00",
                "2026-10-25 02:00:00 +01:00",
                "2026-10-25 03:00:00 +01:00",
                "2026-10-25 04:00:00 +01:00"
            ]
        );
        let later = next_times("every 1d from 2026-12-01 09:00", "Europe/Madrid", "2026-11-30T23:00:00Z", 2);
        assert_eq!(later, ["2026-12-01 09:00:00 +01:00", "2026-12-02 09:00:00 +01:00"]);
    }

    #[test]
    fn the_same_hour_of_a_zone_is_another_instant_in_summer() {
        let summer = next_times("cron 0 8 * * *", "America/New_York", "2026-06-15T00:00:00Z", 1);
        assert_eq!(summer, ["2026-06-15 08:00:00 -04:00"]);
        let winter = next_times("cron 0 8 * * *", "America/New_York", "2026-01-15T00:00:00Z", 1);
        assert_eq!(winter, ["2026-01-15 08:00:00 -05:00"]);
        assert_eq!(next_times("at 2026-01-01 08:00", "UTC", "2026-06-15T00:00:00Z", 1), [""; 0]);
    }

    #[test]
    fn the_last_instant_is_found_however_long_ago_it_was() {
        let madrid = zone("Europe/Madrid");
        let base = ScheduleBase { now: at("2020-01-01T00:00:00Z"), zone: &madrid };
        for (schedule, now, last) in [
            ("cron * * * * *", "2026-12-01T12:00:30Z", Some("2026-12-01T12:00:00Z")),
            ("cron 0 9 * * *", "2026-12-01T12:00:00Z", Some("2026-12-01T08:00:00Z")),
            ("cron 0 9 * * *", "2026-12-01T08:00:00Z", Some("2026-12-01T08:00:00Z")),
            ("cron 0 9 1 * *", "2026-11-30T12:00:00Z", Some("2026-11-01T08:00:00Z")),
            ("cron 0 9 29 2 *", "2026-11-30T12:00:00Z", Some("2024-02-29T08:00:00Z")),
            ("every 1d", "2026-12-01T12:00:00Z", Some("2026-12-01T00:00:00Z")),
            ("at 2025-01-01 00:00", "2026-12-01T12:00:00Z", Some("2024-12-31T23:00:00Z")),
            ("at 2027-01-01 00:00", "2026-12-01T12:00:00Z", None),
        ] {
            let schedule = Schedule::parse(schedule, base).unwrap();
            let found = schedule.last_until(base.now, at(now), &madrid);
            assert_eq!(found, last.map(at), "{schedule} at {now}");
            assert_eq!(
                schedule.last_until(at(now), at(now), &madrid),
                last.map(at).filter(|last| *last == at(now))
            );
        }
    }

    /// Every zone of the database by its name.
    fn zone_names() -> Vec<String> {
        let names: Vec<String> = tz::db().available().map(|name| name.to_string()).collect();
        assert!(names.len() > 400, "{}", names.len());
        names.into_iter().filter(|name| TimeZone::get(name).is_ok_and(|zone| !zone.is_unknown())).collect()
    }

    fn cron_fields() -> impl Strategy<Value = String> {
        let number = |range: std::ops::Range<u32>| {
            prop_oneof![
                3 => range.clone().prop_map(|number| number.to_string()),
                1 => (range.clone(), range).prop_map(|(one, other)| {
                    format!("{}-{}", one.min(other), one.max(other))
                }),
            ]
        };
        let many = |range: std::ops::Range<u32>| prop_oneof![2 => Just("*".to_owned()), 3 => number(range)];
        let steps = prop_oneof![Just("*/15".to_owned()), Just("*/7".to_owned()), Just("0".to_owned())];
        (prop_oneof![2 => number(0..60), 1 => steps], many(0..24), many(1..32), many(1..13), many(0..7))
            .prop_map(|(minute, hour, day, month, weekday)| {
                format!("cron {minute} {hour} {day} {month} {weekday}")
            })
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2))]
        #[test]
        fn in_every_zone_and_for_ten_years_each_instant_is_later_on_its_grid_and_the_one_that_is_meant(
            fields in prop::collection::vec(cron_fields(), 16), minutes in 1_i64..100_000, began in 1_700_000_000_i64..2_000_000_000,
        ) {
            const DECADE: SignedDuration = SignedDuration::from_hours(24 * 3_653);
            let began = Timestamp::from_second(began).unwrap();
            for (place, name) in zone_names().into_iter().enumerate() {
                let zone = zone(&name);
                let base = ScheduleBase { now: began, zone: &zone };
                let Ok(cron) = Schedule::parse(&fields[place % fields.len()], base) else { continue };
                let Schedule::Cron(pattern) = &cron else { panic!("{cron}") };
                // From some moment of the decade on, and around its changes of clocks.
                let mut moments = vec![began, began + DECADE];
                moments.extend(zone.following(began).take(4).flat_map(|change| {
                    let hours = SignedDuration::from_hours(25);
                    [change.timestamp() - hours, change.timestamp()]
                }));
                for mut now in moments {
                    for _ in 0..3 {
                        let Some(next) = cron.next_after(now, &zone) else { break };
                        prop_assert!(next > now, "{} in {}: {} after {}", cron, name, next, now);
                        let told = zone.to_datetime(next);
                        let before = told.checked_sub(SignedDuration::from_mins(1)).unwrap();
                        let is_meant = pattern.next_local_time(before) == Some(told);
                        let just_before = zone.to_datetime(next - SignedDuration::from_secs(1));
                        let is_after_gap = told.duration_since(just_before) > SignedDuration::from_secs(1);
                        prop_assert!(is_meant || is_after_gap, "{} in {}: {}", cron, name, told);
                        if is_meant {
                            prop_assert_eq!(first_instant_of(told, &zone), Some(next), "the first of two");
                        }
                        prop_assert_eq!(cron.last_until(now, next, &zone), Some(next));
                        now = next;
                    }
                }
                let interval = SignedDuration::from_mins(minutes);
                let every = Schedule::Every { interval, anchor: began };
                let next = every.next_after(began + DECADE, &zone).unwrap();
                prop_assert!(next > began + DECADE && next <= began + DECADE + interval);
                prop_assert_eq!(next.duration_since(began).as_secs() % interval.as_secs(), 0);
            }
        }
    }
}
