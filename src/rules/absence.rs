//! Decides what was asked too long ago to be answered, and when a chat is told that Kai was away.

use jiff::{SignedDuration, Timestamp};

use super::Rules;
use crate::notices;

/// Whether a message sent at that time is too old to answer. If the sender's clock is ahead of ours, nothing
/// is old.
pub fn is_past_answer_window(rules: &Rules, sent_at: Timestamp, now: Timestamp) -> bool {
    now.duration_since(sent_at) > answer_window(rules)
}

/// Whether a chat is told that Kai was away: once for everything that came meanwhile. `told_at` is the last
/// time it was told. If that time is in the future, the clock was set back since.
pub fn is_absence_news(rules: &Rules, told_at: Option<Timestamp>, now: Timestamp) -> bool {
    told_at.is_none_or(|told_at| told_at > now || now.duration_since(told_at) >= answer_window(rules))
}

/// The sentence for such a chat.
pub fn absence_notice(rules: &Rules) -> String {
    rules.prefix_notice(&notices::was_away_notice(rules.lang))
}

fn answer_window(rules: &Rules) -> SignedDuration {
    SignedDuration::try_from(rules.answer_within).unwrap_or(SignedDuration::MAX)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;

    use super::super::tests::rules;
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    #[test]
    fn what_is_a_day_old_is_answered_and_what_is_a_second_older_is_not() {
        const DAY: i64 = 24 * 60 * 60;
        for (sent, expected) in [(0, false), (DAY, false), (-1, true), (-DAY, true), (DAY * 400, false)] {
            assert_eq!(is_past_answer_window(&rules(), at(sent), at(DAY)), expected, "{sent}");
        }
        for (told, expected) in [
            (None, true),
            (Some(DAY * 9), true),
            (Some(DAY * 9 + 1), false),
            (Some(DAY * 10), false),
            // The clock was set back.
            (Some(DAY * 10 + 1), true),
        ] {
            assert_eq!(is_absence_news(&rules(), told.map(at), at(DAY * 10)), expected, "{told:?}");
        }
    }

    proptest! {
        #[test]
        fn a_chat_that_has_just_been_told_is_not_told_again(
            told in -1_000_000_i64..1_000_000, seconds in 1_u64..1_000_000, passed in 0_u64..1_000_000,
        ) {
            let rules = Rules { answer_within: Duration::from_secs(seconds), ..rules() };
            let now = at(told + passed.cast_signed());
            prop_assert_eq!(is_absence_news(&rules, Some(at(told)), now), passed >= seconds);
        }

        #[test]
        fn no_setting_and_no_clock_makes_it_panic(seconds: u64, sent: i64, now: i64) {
            let rules = Rules { answer_within: Duration::from_secs(seconds), ..rules() };
            let time = |millis| Timestamp::from_millisecond(millis).unwrap_or(Timestamp::MAX);
            is_past_answer_window(&rules, time(sent), time(now));
            is_absence_news(&rules, Some(time(sent)), time(now));
        }
    }
}
