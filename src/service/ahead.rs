//! For which groups an agent may be started ahead of need, before anything is asked. Pure.
//!
//! A person who types need not write to Kai, and an agent that nobody needs costs memory and processor time.
//! So there is a backoff: after each start in vain a group is left alone for longer, until something is asked
//! there.

use std::collections::HashMap;
use std::time::Duration;

use tokio::time::Instant;

use crate::backoff::exponential_backoff;
use crate::types::GroupName;

/// How long a group is left alone after the first start in vain. It doubles with each that follows.
const FIRST_REST: Duration = Duration::from_secs(5 * 60);
const LONGEST_REST: Duration = Duration::from_secs(4 * 60 * 60);

/// Somebody may ask for something soon in a group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AheadHint {
    pub group: GroupName,
    /// Its owner wants the agent ready: starts that were in vain before do not matter.
    pub is_asked_for: bool,
}

/// What came of the starts ahead of need, by group and in all.
#[derive(Debug, Default)]
pub struct AheadBackoff {
    in_a_row: HashMap<GroupName, UnusedStarts>,
    pub used: u64,
    pub in_vain: u64,
}

#[derive(Clone, Copy, Debug)]
struct UnusedStarts {
    times: u32,
    rests_until: Instant,
}

impl AheadBackoff {
    /// Whether a group's agent may be started now.
    pub fn may_start_ahead(&self, group: &GroupName, now: Instant) -> bool {
        self.in_a_row.get(group).is_none_or(|in_vain| in_vain.rests_until <= now)
    }

    pub fn record_ahead_used(&mut self, group: &GroupName) {
        self.used += 1;
        self.reset_backoff(group);
    }

    /// Something was asked, whether an agent was there or not.
    pub fn reset_backoff(&mut self, group: &GroupName) {
        self.in_a_row.remove(group);
    }

    pub fn record_ahead_unused(&mut self, group: GroupName, now: Instant) {
        self.in_vain += 1;
        let times = self.in_a_row.get(&group).map_or(1, |before| before.times.saturating_add(1));
        let rest = exponential_backoff(FIRST_REST, times - 1, LONGEST_REST);
        self.in_a_row.insert(group, UnusedStarts { times, rests_until: now + rest });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_time_in_vain_a_group_is_left_alone_for_longer_until_something_is_asked() {
        let (family, work) = (GroupName::parse("family").unwrap(), GroupName::parse("work").unwrap());
        let mut ahead = AheadBackoff::default();
        let mut now = Instant::now();
        let mut rests = Vec::new();
        for _ in 0..40 {
            assert!(ahead.may_start_ahead(&family, now));
            ahead.record_ahead_unused(family.clone(), now);
            let began = now;
            while !ahead.may_start_ahead(&family, now) {
                now += Duration::from_secs(60);
            }
            rests.push((now - began).as_secs() / 60);
        }
        assert_eq!(rests[..7], [5, 10, 20, 40, 80, 160, 240]);
        assert!(rests[7..].iter().all(|minutes| *minutes == 240));

        ahead.record_ahead_unused(family.clone(), now);
        assert!(!ahead.may_start_ahead(&family, now) && ahead.may_start_ahead(&work, now));
        ahead.record_ahead_used(&family);
        assert!(ahead.may_start_ahead(&family, now));
        assert_eq!((ahead.used, ahead.in_vain), (1, 41));
        ahead.record_ahead_unused(family.clone(), now);
        assert!(ahead.may_start_ahead(&family, now + FIRST_REST));
        ahead.reset_backoff(&family);
        assert!(ahead.may_start_ahead(&family, now));
    }
}
