//! The time zones of tasks: always by their IANA name, so that a stored one means the same for ever; and the
//! instant that a local time means in one, also where clocks are changed.

use anyhow::{Result, bail};
use jiff::Timestamp;
use jiff::civil::DateTime;
use jiff::tz::{self, AmbiguousOffset, Offset, TimeZone};

/// The zone of this name.
///
/// # Errors
/// There is none; names the nearest one that there is.
pub fn parse_zone(name: &str) -> Result<TimeZone> {
    let name = name.trim();
    let zone = TimeZone::get(name).ok().filter(|zone| !zone.is_unknown() && zone.iana_name().is_some());
    if let Some(zone) = zone {
        return Ok(zone);
    }
    let wanted = name.replace(' ', "_");
    let near = tz::db().available().find(|zone| {
        zone.as_str().rsplit_once('/').is_some_and(|(_, place)| place.eq_ignore_ascii_case(&wanted))
    });
    match near {
        Some(near) => bail!("There is no time zone {name:?}; did you mean {}?", near.as_str()),
        None => {
            bail!("There is no time zone {name:?}; write a name such as America/New_York or Europe/Madrid")
        }
    }
}

/// The name by which a zone is stored and shown. A zone without a name counts as UTC, as in prompts.
pub fn zone_name(zone: &TimeZone) -> &str {
    zone.iana_name().unwrap_or("UTC")
}

/// The instant that a local time means: the first of two, and after a gap the first that there is.
pub(super) fn first_instant_of(local: DateTime, zone: &TimeZone) -> Option<Timestamp> {
    match zone.to_ambiguous_timestamp(local).offset() {
        AmbiguousOffset::Unambiguous { offset } => offset.to_timestamp(local).ok(),
        AmbiguousOffset::Fold { before, .. } => before.to_timestamp(local).ok(),
        AmbiguousOffset::Gap { before, after } => end_of_gap(local, (before, after), zone),
    }
}

/// The instant at which clocks jump over this local time. With the offset of afterwards the local time lies
/// before the jump, with the offset of before it lies after the jump.
fn end_of_gap(local: DateTime, (before, after): (Offset, Offset), zone: &TimeZone) -> Option<Timestamp> {
    let mut still_before = after.to_timestamp(local).ok()?.as_second();
    let mut surely_after = before.to_timestamp(local).ok()?.as_second();
    while surely_after - still_before > 1 {
        let middle = i64::midpoint(still_before, surely_after);
        if zone.to_datetime(Timestamp::from_second(middle).ok()?) > local {
            surely_after = middle;
        } else {
            still_before = middle;
        }
    }
    Timestamp::from_second(surely_after).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn zones_are_known_by_their_iana_names_only() {
        for name in ["America/New_York", "UTC", "Asia/Tokyo", "Asia/Jerusalem", "europe/madrid"] {
            assert!(parse_zone(name).unwrap().iana_name().unwrap().eq_ignore_ascii_case(name));
        }
        for (name, said) in [
            ("IST-2", "America/New_York"),
            ("XYZ+3", "America/New_York"),
            ("", "America/New_York"),
            ("NotATimezone", "America/New_York"),
            ("Etc/Unknown", "America/New_York"),
            ("Madrid", "did you mean Europe/Madrid?"),
            ("New York", "did you mean America/New_York?"),
        ] {
            let error = parse_zone(name).unwrap_err().to_string();
            assert!(error.contains(said), "{name}: {error}");
        }
    }
}
