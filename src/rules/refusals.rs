//! What people hear whose calls are refused, and how often.

use jiff::{SignedDuration, Timestamp};

use super::Rules;
use crate::notices;
use crate::router::RefusalReason;
use crate::types::{Group, RefusalPolicy};

/// The time over which the calls of one person are counted.
pub const CALLS_COUNTED_FOR: SignedDuration = SignedDuration::from_hours(1);

/// Who may not ask at all is told so once in this time.
const TOLD_EVERY: SignedDuration = SignedDuration::from_hours(24);

/// The calls of one person in a group that were granted within [`CALLS_COUNTED_FOR`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RecentCalls {
    pub count: u32,
    pub oldest: Option<Timestamp>,
    pub newest: Option<Timestamp>,
}

/// What the author of a refused call is told; `None` if the owner wants silence.
pub fn refusal_notice(
    rules: &Rules,
    group: &Group,
    reason: RefusalReason,
    calls: RecentCalls,
    now: Timestamp,
) -> Option<String> {
    let notice = match (reason, group.senders.refusals) {
        (RefusalReason::NotAllowed, RefusalPolicy::Silent) => return None,
        (RefusalReason::NotAllowed, RefusalPolicy::Told) => {
            notices::may_not_ask_notice(rules.lang, group.senders.others)
        }
        // Who may ask and is not answered is always told why.
        (RefusalReason::TooManyCalls, RefusalPolicy::Silent | RefusalPolicy::Told) => {
            let wait = CALLS_COUNTED_FOR - now.duration_since(calls.oldest.unwrap_or(now));
            let minutes = u64::try_from(wait.as_secs().max(0)).unwrap_or_default().div_ceil(60).max(1);
            notices::too_many_calls_notice(rules.lang, group.turns_per_hour.unwrap_or_default(), minutes)
        }
    };
    Some(rules.prefix_notice(&notice))
}

/// A person who was told the same after this is not told again: within a day, or since their last call that
/// was answered.
pub fn told_again_after(reason: RefusalReason, calls: RecentCalls, now: Timestamp) -> Timestamp {
    let since = match reason {
        RefusalReason::NotAllowed => None,
        RefusalReason::TooManyCalls => calls.newest,
    };
    since.unwrap_or_else(|| now.saturating_sub(TOLD_EVERY).unwrap_or(Timestamp::MIN))
}

/// What a reason is called in the database.
pub fn refusal_name(reason: RefusalReason) -> &'static str {
    match reason {
        RefusalReason::NotAllowed => "not_allowed",
        RefusalReason::TooManyCalls => "too_many_calls",
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::rules;
    use super::*;
    use crate::types::{ChatId, GroupName, Role};

    #[test]
    fn who_has_called_too_often_is_told_when_to_ask_again() {
        let group = Group::new(GroupName::parse("family").unwrap(), ChatId::new("family@g.us"), Role::Member);
        let group = Group { turns_per_hour: Some(5), ..group };
        let at = |minute: i64| Timestamp::from_second(1_800_000_000 + minute * 60).unwrap();
        let calls = RecentCalls { count: 5, oldest: Some(at(0)), newest: Some(at(20)) };
        for (minute, expected) in [(20, "in 40 minutes"), (59, "in 1 minute;"), (60, "in 1 minute;")] {
            let reason = RefusalReason::TooManyCalls;
            let told = refusal_notice(&rules(), &group, reason, calls, at(minute)).unwrap();
            assert!(told.contains(expected), "{told}");
            assert_eq!(told_again_after(reason, calls, at(minute)), at(20));
        }
        assert_eq!(refusal_notice(&rules(), &group, RefusalReason::NotAllowed, calls, at(0)), None);
    }
}
