//! The reconnect policy: what follows when a run of the library has ended by itself. Another run after a
//! backoff, or no run until a person acts. Pure.

use std::time::Duration;

use jiff::Timestamp;

use crate::backoff::exponential_backoff;
use crate::types::LinkState;

/// The first pause before another run; it doubles with each run that fails.
const FIRST_PAUSE: Duration = Duration::from_secs(3);
/// The longest pause: somebody who mends their network does not want to wait longer.
const LONGEST_PAUSE: Duration = Duration::from_secs(300);
/// How long a run must have been online to count as a success.
const STABLE: Duration = Duration::from_secs(60);
/// How long another program may have the link before we take it back, once: it may be a slip.
const REPLACED_PAUSE: Duration = Duration::from_secs(5 * 60);
/// How often we take it back at most: two that take it from each other never stop.
const TAKE_BACK_EACH: Duration = Duration::from_secs(60 * 60);
/// The longest pause of a ban before it is looked at again.
const BAN_LOOK: Duration = Duration::from_secs(24 * 60 * 60);
/// The shortest: the server's clock and ours may differ.
const BAN_SHORTEST: Duration = Duration::from_secs(60);

/// Why a run of the library has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DisconnectReason {
    Replaced,
    LoggedOut,
    Banned {
        secs: u64,
    },
    Outdated,
    /// The server does not let us in for another reason; its number.
    Refused {
        reason: i32,
    },
    /// It ended without a reason, or had to be ended.
    Lost,
    /// The link's database failed, such as on a full disk.
    Storage,
    /// The disk is nearly full: it was ended before anything failed.
    NoRoom,
}

/// WhatsApp's number of a ban. If it comes without a time, it comes as a refusal.
const BANNED: i32 = 402;

impl DisconnectReason {
    /// What a person can do about it, if it does not mend itself and is no state of the link.
    pub fn advice_for_person(self) -> Option<String> {
        match self {
            Self::Replaced => Some(format!(
                "Another program uses this link to WhatsApp, such as a copy of this install; stop that one for good. \
                 Taking the link back once, in {} minutes",
                REPLACED_PAUSE.as_secs() / 60
            )),
            Self::Refused { reason: BANNED } => Some(
                "WhatsApp has banned this account and does not say until when; look at WhatsApp on the phone"
                    .to_owned(),
            ),
            Self::Refused { reason } => Some(format!(
                "WhatsApp refuses the login (code {reason}). If that lasts, install a newer nanokimi, or link again: \
                 `nanokimi auth --logout`, then `nanokimi auth`"
            )),
            Self::LoggedOut
            | Self::Banned { .. }
            | Self::Outdated
            | Self::Lost
            | Self::Storage
            | Self::NoRoom => None,
        }
    }
}

/// What to do then.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReconnectDecision {
    Again {
        after: Duration,
        version: VersionSource,
    },
    /// As `Again`, and there is a ban meanwhile.
    AfterBan {
        until: Timestamp,
        after: Duration,
    },
    GiveUp(GiveUpReason),
}

/// Which version of WhatsApp's the next run says it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum VersionSource {
    /// As it was looked up within a day.
    Known,
    /// To be looked up now.
    Fresh,
}

/// What only a person can change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GiveUpReason {
    Replaced,
    LoggedOut,
    Outdated,
}

impl GiveUpReason {
    pub fn final_link(self) -> LinkState {
        match self {
            Self::Replaced => LinkState::Replaced,
            Self::LoggedOut => LinkState::LoggedOut,
            Self::Outdated => LinkState::Outdated,
        }
    }
}

/// What was tried already.
#[derive(Debug, Default)]
pub struct ReconnectPolicy {
    /// Runs since the last success.
    failures: u32,
    taken_back: Option<Timestamp>,
    /// Whether the version was looked up because the server refused it.
    version_looked_up: bool,
}

impl ReconnectPolicy {
    /// `online` is how long the run was online, if it was.
    pub fn decide_reconnect(
        &mut self,
        end: DisconnectReason,
        online: Option<Duration>,
        now: Timestamp,
    ) -> ReconnectDecision {
        if online.is_some() {
            self.version_looked_up = false;
        }
        if online.is_some_and(|online| online >= STABLE) {
            self.failures = 0;
        }
        match end {
            DisconnectReason::LoggedOut => ReconnectDecision::GiveUp(GiveUpReason::LoggedOut),
            DisconnectReason::Replaced => {
                let recently = self.taken_back.is_some_and(|at| {
                    Duration::try_from(now.duration_since(at)).is_ok_and(|ago| ago < TAKE_BACK_EACH)
                });
                if recently {
                    return ReconnectDecision::GiveUp(GiveUpReason::Replaced);
                }
                self.taken_back = Some(now);
                ReconnectDecision::Again { after: REPLACED_PAUSE, version: VersionSource::Known }
            }
            DisconnectReason::Banned { secs } => {
                let ban = Duration::from_secs(secs).max(BAN_SHORTEST);
                let until = now.checked_add(ban).unwrap_or(Timestamp::MAX);
                ReconnectDecision::AfterBan { until, after: ban.min(BAN_LOOK) }
            }
            DisconnectReason::Outdated if self.version_looked_up => {
                ReconnectDecision::GiveUp(GiveUpReason::Outdated)
            }
            DisconnectReason::Outdated => {
                self.version_looked_up = true;
                ReconnectDecision::Again { after: self.next_backoff(), version: VersionSource::Fresh }
            }
            DisconnectReason::NoRoom => {
                ReconnectDecision::Again { after: Duration::ZERO, version: VersionSource::Known }
            }
            DisconnectReason::Refused { .. } | DisconnectReason::Lost | DisconnectReason::Storage => {
                ReconnectDecision::Again { after: self.next_backoff(), version: VersionSource::Known }
            }
        }
    }

    /// The version could not be looked up: what was not tried cannot have failed.
    pub fn pause_after_failed_lookup(&mut self) -> Duration {
        self.version_looked_up = false;
        self.next_backoff()
    }

    fn next_backoff(&mut self) -> Duration {
        let pause = exponential_backoff(FIRST_PAUSE, self.failures, LONGEST_PAUSE);
        self.failures += 1;
        pause
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(minutes: i64) -> Timestamp {
        Timestamp::from_second(1_800_000_000 + minutes * 60).unwrap()
    }

    fn again(secs: u64) -> ReconnectDecision {
        ReconnectDecision::Again { after: Duration::from_secs(secs), version: VersionSource::Known }
    }

    #[test]
    fn pauses_double_up_to_five_minutes_and_start_over_after_a_stable_minute() {
        let mut policy = ReconnectPolicy::default();
        for secs in [3, 6, 12, 24, 48, 96, 192, 300, 300] {
            assert_eq!(
                policy.decide_reconnect(DisconnectReason::Refused { reason: 418 }, None, at(0)),
                again(secs)
            );
        }
        assert_eq!(
            policy.decide_reconnect(DisconnectReason::Lost, Some(Duration::from_secs(59)), at(0)),
            again(300)
        );
        assert_eq!(
            policy.decide_reconnect(DisconnectReason::Lost, Some(Duration::from_secs(60)), at(0)),
            again(3)
        );
        assert_eq!(policy.decide_reconnect(DisconnectReason::Lost, None, at(0)), again(6));
    }

    #[test]
    fn a_link_that_was_taken_over_is_taken_back_once_an_hour_and_not_at_once() {
        let mut policy = ReconnectPolicy::default();
        let long = Some(Duration::from_secs(3000));
        assert_eq!(policy.decide_reconnect(DisconnectReason::Replaced, long, at(0)), again(300));
        assert_eq!(policy.decide_reconnect(DisconnectReason::Replaced, long, at(61)), again(300));
        assert_eq!(
            policy.decide_reconnect(DisconnectReason::Replaced, long, at(120)),
            ReconnectDecision::GiveUp(GiveUpReason::Replaced)
        );
    }

    #[test]
    fn a_ban_is_waited_for_a_day_at_a_time() {
        let mut policy = ReconnectPolicy::default();
        for (secs, until, after) in [(3600, 60, 3600), (0, 1, 60), (10 * 24 * 3600, 10 * 24 * 60, 24 * 3600)]
        {
            let after = Duration::from_secs(after);
            assert_eq!(
                policy.decide_reconnect(DisconnectReason::Banned { secs }, None, at(0)),
                ReconnectDecision::AfterBan { until: at(until), after }
            );
        }
        let forever = policy.decide_reconnect(DisconnectReason::Banned { secs: u64::MAX }, None, at(0));
        assert_eq!(forever, ReconnectDecision::AfterBan { until: Timestamp::MAX, after: BAN_LOOK });
    }

    #[test]
    fn an_outdated_version_is_looked_up_once_afresh() {
        let mut policy = ReconnectPolicy::default();
        let fresh = |secs| ReconnectDecision::Again {
            after: Duration::from_secs(secs),
            version: VersionSource::Fresh,
        };
        assert_eq!(policy.decide_reconnect(DisconnectReason::Outdated, None, at(0)), fresh(3));
        assert_eq!(
            policy.decide_reconnect(DisconnectReason::Outdated, None, at(0)),
            ReconnectDecision::GiveUp(GiveUpReason::Outdated)
        );

        let mut policy = ReconnectPolicy::default();
        assert_eq!(policy.decide_reconnect(DisconnectReason::Outdated, None, at(0)), fresh(3));
        assert_eq!(
            policy.decide_reconnect(DisconnectReason::Outdated, Some(Duration::ZERO), at(0)),
            fresh(6),
            "it was let in between"
        );

        let mut policy = ReconnectPolicy::default();
        assert_eq!(policy.decide_reconnect(DisconnectReason::Outdated, None, at(0)), fresh(3));
        assert_eq!(policy.pause_after_failed_lookup(), Duration::from_secs(6));
        assert_eq!(policy.decide_reconnect(DisconnectReason::Outdated, None, at(0)), fresh(12));
    }

    #[test]
    fn what_a_person_can_do_about_an_end_is_said() {
        let ends = [
            DisconnectReason::Replaced,
            DisconnectReason::Refused { reason: 402 },
            DisconnectReason::Refused { reason: 418 },
            DisconnectReason::Lost,
        ];
        let said: Vec<String> = ends.iter().filter_map(|end| end.advice_for_person()).collect();
        insta::assert_snapshot!(said.join("\n"), @"
        Another program uses this link to WhatsApp, such as a copy of this install; stop that one for good. Taking the link back once, in 5 minutes
        WhatsApp has banned this account and does not say until when; look at WhatsApp on the phone
        WhatsApp refuses the login (code 418). If that lasts, install a newer nanokimi, or link again: `nanokimi auth --logout`, then `nanokimi auth`
        ");
    }

    #[test]
    fn a_removed_link_is_never_tried_again() {
        let mut policy = ReconnectPolicy::default();
        let next = policy.decide_reconnect(DisconnectReason::LoggedOut, Some(Duration::from_secs(60)), at(0));
        assert_eq!(next, ReconnectDecision::GiveUp(GiveUpReason::LoggedOut));
        assert_eq!(GiveUpReason::LoggedOut.final_link(), LinkState::LoggedOut);
    }
}
