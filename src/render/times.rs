//! Instants and durations in words: `Tue 1 Dec 09:00 Europe/Madrid, in 17 h`.

use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp, Unit};

use crate::types::Lang;

const DAYS_EN: [&str; 7] = ["Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun"];
const DAYS_ES: [&str; 7] = ["lun", "mar", "mié", "jue", "vie", "sáb", "dom"];
const MONTHS_EN: [&str; 12] =
    ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
const MONTHS_ES: [&str; 12] =
    ["ene", "feb", "mar", "abr", "may", "jun", "jul", "ago", "sep", "oct", "nov", "dic"];
/// From here on, days are counted instead of hours.
const HOURS_TOLD: i64 = 48;

/// An instant in the time of a zone, and how far away it is.
pub fn describe_instant(lang: Lang, instant: Timestamp, zone: &TimeZone, now: Timestamp) -> String {
    // To the second: half an hour that began a moment ago is half an hour.
    let away = instant.duration_since(now);
    let away = away.round(Unit::Second).unwrap_or(away);
    let (time, how_far) =
        (describe_local_time(lang, instant, zone, now), describe_duration(lang, away.abs()));
    match (lang, away.is_negative()) {
        (Lang::En, false) => format!("{time}, in {how_far}"),
        (Lang::En, true) => format!("{time}, {how_far} ago"),
        (Lang::Es, false) => format!("{time}, dentro de {how_far}"),
        (Lang::Es, true) => format!("{time}, hace {how_far}"),
    }
}

/// An instant in the time of a zone, with the year if it is not that of `now`. If clocks show this time twice,
/// the offset says which of the two it is.
pub fn describe_local_time(lang: Lang, instant: Timestamp, zone: &TimeZone, now: Timestamp) -> String {
    let zoned = instant.to_zoned(zone.clone());
    let (days, months) = match lang {
        Lang::En => (DAYS_EN, MONTHS_EN),
        Lang::Es => (DAYS_ES, MONTHS_ES),
    };
    let place = |number: i8, from: i8| usize::try_from(number - from).unwrap_or_default();
    let day = days[place(zoned.weekday().to_monday_one_offset(), 1)];
    let month = months[place(zoned.month(), 1)];
    let year = if zoned.year() == now.to_zoned(zone.clone()).year() {
        String::new()
    } else {
        format!(" {}", zoned.year())
    };
    let seconds = if zoned.second() == 0 { "" } else { ":%S" };
    let is_ambiguous = zone.to_ambiguous_timestamp(zoned.datetime()).is_ambiguous();
    let offset = if is_ambiguous { " (%:z)" } else { "" };
    let time = zoned.strftime(&format!("%H:%M{seconds}{offset}")).to_string();
    let zone_name = zone.iana_name().unwrap_or("UTC");
    format!("{day} {} {month}{year} {time} {zone_name}", zoned.day())
}

/// A duration in its two largest units: `45 s`, `17 min`, `2 h 5 min`, `3 days 4 h`.
pub fn describe_duration(lang: Lang, duration: SignedDuration) -> String {
    let (seconds, minutes, hours) = (duration.as_secs(), duration.as_mins(), duration.as_hours());
    let day_word = match lang {
        Lang::En => "days",
        Lang::Es => "días",
    };
    let two = |first: String, rest: i64, unit: &str| match rest {
        0 => first,
        rest => format!("{first} {rest} {unit}"),
    };
    if minutes == 0 {
        format!("{seconds} s")
    } else if hours == 0 {
        format!("{minutes} min")
    } else if hours < HOURS_TOLD {
        two(format!("{hours} h"), minutes % 60, "min")
    } else {
        two(format!("{} {day_word}", hours / 24), hours % 24, "h")
    }
}

#[cfg(test)]
mod tests {
    use jiff::tz;
    use proptest::prelude::*;

    use super::*;

    fn described(lang: Lang, instant: &str, zone: &str) -> String {
        let now = "2026-11-30T15:00:00Z".parse().unwrap();
        describe_instant(lang, instant.parse().unwrap(), &TimeZone::get(zone).unwrap(), now)
    }

    #[test]
    fn an_instant_is_told_in_the_time_of_its_zone_and_by_how_far_away_it_is() {
        for (instant, zone, en, es) in [
            (
                "2026-12-01T08:00:00Z",
                "Europe/Madrid",
                "Tue 1 Dec 09:00 Europe/Madrid, in 17 h",
                "mar 1 dic 09:00 Europe/Madrid, dentro de 17 h",
            ),
            (
                "2027-01-02T17:30:05Z",
                "America/New_York",
                "Sat 2 Jan 2027 12:30:05 America/New_York, in 33 days 2 h",
                "sáb 2 ene 2027 12:30:05 America/New_York, dentro de 33 días 2 h",
            ),
            (
                "2026-11-30T15:00:45Z",
                "UTC",
                "Mon 30 Nov 15:00:45 UTC, in 45 s",
                "lun 30 nov 15:00:45 UTC, dentro de 45 s",
            ),
            (
                "2026-11-30T12:55:00Z",
                "UTC",
                "Mon 30 Nov 12:55 UTC, 2 h 5 min ago",
                "lun 30 nov 12:55 UTC, hace 2 h 5 min",
            ),
            (
                "2026-10-25T01:30:00Z",
                "Europe/Madrid",
                "Sun 25 Oct 02:30 (+01:00) Europe/Madrid, 36 days 13 h ago",
                "dom 25 oct 02:30 (+01:00) Europe/Madrid, hace 36 días 13 h",
            ),
        ] {
            assert_eq!(described(Lang::En, instant, zone), en);
            assert_eq!(described(Lang::Es, instant, zone), es);
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]
        #[test]
        fn what_is_told_is_the_instant_that_is_meant(second in 1_700_000_000_i64..2_100_000_000) {
            let instant = Timestamp::from_second(second).unwrap();
            for name in tz::db().available() {
                let Ok(zone) = TimeZone::get(name.as_str()) else { continue };
                if zone.is_unknown() {
                    continue;
                }
                // A year away, so that the year is told.
                let now = instant - SignedDuration::from_hours(24 * 800);
                let told = describe_local_time(Lang::En, instant, &zone, now);
                let bare = told.rsplit_once(' ').unwrap().0;
                let (bare, offset) = match bare.split_once(" (") {
                    Some((bare, offset)) => (bare, Some(offset.trim_end_matches(')'))),
                    None => (bare, None),
                };
                let bare = if second % 60 == 0 { format!("{bare}:00") } else { bare.to_owned() };
                let local = jiff::civil::DateTime::strptime("%a %d %b %Y %H:%M:%S", &bare).unwrap();
                let meant = match offset {
                    None => zone.to_ambiguous_timestamp(local).unambiguous().unwrap(),
                    Some(offset) => format!("{local}{offset}").parse().unwrap(),
                };
                prop_assert_eq!(meant, instant, "{}", told);
            }
        }
    }
}
