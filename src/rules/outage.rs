//! An outage: whether it is new, whether the owner is told, and whether it is an outage at all.

use jiff::{SignedDuration, Timestamp};

/// How often the owner is told of the same outage if it comes and goes.
const TELL_OWNER_EVERY: SignedDuration = SignedDuration::from_hours(1);

/// What is known of an outage, past or present.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KnownOutage {
    pub since: Timestamp,
    pub is_over: bool,
    /// When the owner was told of it.
    pub told_at: Option<Timestamp>,
}

/// What follows if an outage is seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OutageChange {
    /// It begins now, as there was no outage or the last one is over.
    pub begins: bool,
    pub is_owner_news: bool,
}

/// Decides what follows if an outage is seen. The owner is told once of each outage, and once in
/// [`TELL_OWNER_EVERY`] if it comes and goes.
pub fn when_outage_shows(known: Option<KnownOutage>, now: Timestamp) -> OutageChange {
    let begins = known.is_none_or(|known| known.is_over);
    let since = known.filter(|_| !begins).map_or(now, |known| known.since);
    let long_ago = now.saturating_sub(TELL_OWNER_EVERY).unwrap_or(Timestamp::MIN);
    let is_owner_news = match known.and_then(|known| known.told_at) {
        None => true,
        // The clock was set back since.
        Some(told_at) if told_at > now => begins,
        Some(told_at) => told_at < since && told_at <= long_ago,
    };
    OutageChange { begins, is_owner_news }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn at(minute: i64) -> Timestamp {
        Timestamp::UNIX_EPOCH + SignedDuration::from_mins(minute)
    }

    fn known(since: i64, is_over: bool, told_at: Option<i64>) -> Option<KnownOutage> {
        Some(KnownOutage { since: at(since), is_over, told_at: told_at.map(at) })
    }

    #[test]
    fn the_owner_hears_of_each_outage_once_and_of_one_that_comes_and_goes_once_an_hour() {
        for (known, begins, is_owner_news) in [
            (None, true, true),
            (known(90, false, Some(90)), false, false),
            // The owner could not be told.
            (known(90, false, None), false, true),
            (known(80, true, Some(80)), true, false),
            (known(40, true, Some(40)), true, true),
            (known(90, false, Some(30)), false, true),
            (known(90, false, Some(41)), false, false),
            // The clock was set back.
            (known(200, true, Some(200)), true, true),
            (known(200, false, Some(200)), false, false),
        ] {
            assert_eq!(
                when_outage_shows(known, at(100)),
                OutageChange { begins, is_owner_news },
                "{known:?}"
            );
        }
    }

    proptest! {
        #[test]
        fn an_outage_that_was_told_and_goes_on_is_told_no_more(
            since in -10_000_i64..10_000, after in 0_i64..10_000, later in 0_i64..10_000,
        ) {
            let change = when_outage_shows(known(since, false, Some(since + after)), at(since + after + later));
            prop_assert_eq!(change, OutageChange { begins: false, is_owner_news: false });
        }
    }
}
